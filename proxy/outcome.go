package proxy

import "github.com/outrider-mesh/outrider/mesh/telemetry"

// outcome is the one name that an exchange's ending has; it feeds the status, the response flag, the header
// x-outrider-reason and the retry decision.
type outcome uint8

// The endings. All but passed and configured are failures that this proxy answers itself.
const (
	passed     outcome = iota // the upstream's own answer was forwarded
	configured                // a redirect, direct response or preflight that the user asked for
	badRequest
	requestTimeout
	noRoute
	noHealthyEndpoint
	upstreamOverflow
	upstreamConnect
	upstreamReset
	streamReset // upstream_reset to users, but by Envoy's flag: the stream alone, the connection is there
	upstreamCut // upstream_reset to users, but by Envoy's status and flag: the end came within an answer of HTTP/1
	upstreamProtocol
	upstreamTimeout
	routeTimeout
	clientDeadline
	idleTimeout
	clientGone
	clientReset // client_gone to users, but by Envoy's flag: the stream alone, the connection is there
	slowBody
	slowRead
	denied
	loop
	faultAbort
	rateLimited
	rateLimitError
	retryExhausted
	retryBudget
	breakerOpen
	bulkheadFull
	breakerTimeout
	fallback
	outcomeCount
)

// ending is what an outcome means to everyone who asks.
type ending struct {
	name   string
	status int
	flags  telemetry.Flags
	body   string // of the local answer; Envoy's texts where users know them
}

var endings = [outcomeCount]ending{
	passed:            {name: "passed"},
	configured:        {name: "configured"},
	badRequest:        {name: "bad_request", status: 400, flags: telemetry.DPE},
	requestTimeout:    {name: "request_timeout", status: 408},
	noRoute:           {name: "no_route", status: 404, flags: telemetry.NR},
	noHealthyEndpoint: {name: "no_healthy_endpoint", status: 503, flags: telemetry.UH, body: "no healthy upstream"},
	upstreamOverflow:  {name: "upstream_overflow", status: 503, flags: telemetry.UO, body: "upstream connect error or disconnect/reset before headers. reset reason: overflow"},
	upstreamConnect:   {name: "upstream_connect", status: 503, flags: telemetry.UF, body: "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"},
	upstreamReset:     {name: "upstream_reset", status: 503, flags: telemetry.UC, body: "upstream connect error or disconnect/reset before headers. reset reason: connection termination"},
	streamReset:       {name: "upstream_reset", status: 503, flags: telemetry.UR, body: "upstream connect error or disconnect/reset before headers. reset reason: remote reset"},
	upstreamCut:       {name: "upstream_reset", status: 502, flags: telemetry.UPE, body: "upstream connect error or disconnect/reset before headers. reset reason: connection termination"},
	upstreamProtocol:  {name: "upstream_protocol", status: 502, flags: telemetry.UPE, body: "upstream connect error or disconnect/reset before headers. reset reason: protocol error"},
	upstreamTimeout:   {name: "upstream_timeout", status: 504, flags: telemetry.UT, body: "upstream request timeout"},
	routeTimeout:      {name: "route_timeout", status: 504, flags: telemetry.UT, body: "upstream request timeout"},
	clientDeadline:    {name: "client_deadline", status: 504, flags: telemetry.UT, body: "the deadline that the client set has passed"},
	idleTimeout:       {name: "idle_timeout", status: 504, flags: telemetry.SI, body: "nothing has passed for as long as the route allows"},
	clientGone:        {name: "client_gone", flags: telemetry.DC},
	clientReset:       {name: "client_gone", flags: telemetry.DR},
	slowBody:          {name: "slow_body", status: 408, flags: telemetry.SI},
	slowRead:          {name: "slow_read", flags: telemetry.SI},
	denied:            {name: "denied_by_policy", status: 502, flags: telemetry.NR, body: "the destination is not part of the mesh, and outboundTrafficPolicy is REGISTRY_ONLY"},
	retryExhausted:    {name: "retry_exhausted", status: 503, flags: telemetry.URX},
	retryBudget:       {name: "retry_budget", status: 503, flags: telemetry.UO, body: "the retry budget of the destination is spent"},
	breakerOpen:       {name: "breaker_open", status: 503, flags: telemetry.UO, body: "the circuit breaker before the destination is open"},
	bulkheadFull:      {name: "bulkhead_full", status: 503, flags: telemetry.UO, body: "the circuit breaker before the destination admits no more requests at a time"},
	breakerTimeout:    {name: "breaker_timeout", status: 504, flags: telemetry.UT, body: "the timeout of the circuit breaker before the destination has passed"},
	fallback:          {name: "fallback", status: 200},
	loop:              {name: "loop", status: 508, flags: telemetry.NR, body: "the request would come back to this proxy"},
	rateLimited:       {name: "rate_limited", status: 429, flags: telemetry.RL, body: "local_rate_limited"},
	rateLimitError:    {name: "rate_limit_error", status: 500, flags: telemetry.RLSE},
	faultAbort:        {name: "fault_abort", status: 503, flags: telemetry.FI, body: faultText},
}

// late says that an outcome is an endpoint's not having answered in time.
func (o outcome) late() bool {
	switch o {
	case upstreamTimeout, routeTimeout, clientDeadline, breakerTimeout, idleTimeout:
		return true
	}
	return false
}

// brokeOff says that an outcome is an endpoint's having gone back on an exchange that it had taken.
func (o outcome) brokeOff() bool {
	switch o {
	case upstreamReset, streamReset, upstreamCut, upstreamProtocol:
		return true
	}
	return false
}

// String returns the name that users see.
func (o outcome) String() string { return endings[o].name }

// outcomeNamed returns the outcome that a snapshot's Reply names; configured where it names none.
func outcomeNamed(name string) outcome {
	for o := badRequest; o < outcomeCount; o++ {
		if endings[o].name == name {
			return o
		}
	}
	return configured
}
