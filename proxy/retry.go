package proxy

import (
	"fmt"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/limit"
	"github.com/outrider-mesh/outrider/wire/message"
)

// conditions are what a request may be sent again for, Envoy's retry_on.
type conditions uint16

const (
	on5xx conditions = 1 << iota
	onGatewayError
	onReset
	onResetBeforeRequest
	onConnectFailure
	onRateLimited
	on4xx
	onRefusedStream
	onStatuses
	onTimeout
)

// The gRPC statuses are conditions of their own: a bit for each code.
var retryGRPC = map[string]uint32{
	"cancelled": 1 << 1, "unknown": 1 << 2, "deadline-exceeded": 1 << 4, "permission-denied": 1 << 7, "resource-exhausted": 1 << 8,
	"internal": 1 << 13, "unavailable": 1 << 14, "data-loss": 1 << 15,
}

var retryOn = map[string]conditions{
	"5xx": on5xx, "gateway-error": onGatewayError, "reset": onReset, "reset-before-request": onResetBeforeRequest,
	"connect-failure": onConnectFailure, "envoy-ratelimited": onRateLimited, "retriable-4xx": on4xx,
	"refused-stream": onRefusedStream, "retriable-status-codes": onStatuses,
	"per-try-timeout": onTimeout,
}

// retries is a model.Retries as exchanges ask it.
type retries struct {
	spec       *model.Retries
	attempts   uint32
	on         conditions
	grpc       uint32
	statuses   [10]uint64 // below 640
	base, most int64      // of the back-off, nanoseconds
	least      int64      // before it
	allowance  *limit.Allowance
}

// atOnce is for routes that say nothing of retries: what no endpoint has processed is sent to another at once.
var atOnce = &retries{spec: &model.Retries{}, attempts: 2, on: onConnectFailure | onRefusedStream}

const (
	// defaultBackoff is the base of the wait between attempts (Envoy's retry_back_off).
	defaultBackoff = 25 * time.Millisecond
	// mostBackoff is the longest base, of which 1023 can be counted.
	mostBackoff = 100 * 24 * time.Hour
)

// newRetries resolves s, nil being atOnce.
func newRetries(s *model.Retries) (*retries, error) {
	if s == nil {
		return atOnce, nil
	}
	r := &retries{spec: s, attempts: s.Attempts, base: min(int64(s.Backoff), int64(mostBackoff)), least: int64(s.LeastWait)}
	if r.base == 0 {
		r.base = int64(defaultBackoff)
	}
	r.most = 10 * r.base
	for _, name := range s.On {
		if on, ok := retryOn[name]; ok {
			r.on |= on
		} else if code, ok := retryGRPC[name]; ok {
			r.grpc |= code
		} else {
			return nil, fmt.Errorf("cannot retry on %q: there is no such condition", name)
		}
	}
	for _, status := range s.Statuses {
		if status < 100 || status >= 600 {
			return nil, fmt.Errorf("cannot retry on the status %d: there is no such status", status)
		}
		r.statuses[status>>6] |= 1 << (status & 63)
	}
	return r, nil
}

// keep is how many bytes of a body are kept to be sent again.
func (r *retries) keep() int {
	if r.spec.MaxBody > 0 {
		return int(r.spec.MaxBody)
	}
	return keptBody
}

// wait returns how long to wait before the n-th retry: what it waits at least, and a random time that is longer each time (Envoy's
// exponential back-off).
func (r *retries) wait(n int, random *balance.Rand) time.Duration {
	if r.base == 0 {
		return 0
	}
	span := r.base * (1<<min(n, 10) - 1)
	return time.Duration(r.least + min(int64(random.N(int(span))), r.most))
}

// wants says whether the policy names what became of an attempt.
func (r *retries) wants(x *exchange, v verdict) bool {
	if v == answered {
		return r.wantsAnswer(&x.res)
	}
	anyReset := on5xx | onGatewayError | onReset
	switch o := x.failure.outcome; {
	case o == upstreamConnect:
		return r.on&(anyReset|onConnectFailure|onResetBeforeRequest) != 0
	case o.brokeOff():
		switch x.failure.fate {
		case unsent:
			return r.on&(anyReset|onResetBeforeRequest) != 0
		case unhandled:
			return r.on&(anyReset|onRefusedStream) != 0
		}
		return r.on&anyReset != 0
	case o == upstreamTimeout:
		return r.on&(anyReset|onTimeout) != 0
	}
	return false
}

func (r *retries) wantsAnswer(res *message.Response) bool {
	if !r.named(res) && r.on&onRateLimited == 0 {
		return false // most answers: their fields need not be looked at
	}
	if _, limited := res.Lookup("x-envoy-ratelimited"); limited {
		return r.on&onRateLimited != 0
	}
	return r.named(res)
}

// named says whether the policy names the answer's status, or a gRPC status in its head, whatever the request was and
// whatever else the head says (Envoy).
func (r *retries) named(res *message.Response) bool {
	if r.grpc != 0 {
		if code := grpcStatus(&res.Head); code >= 0 && code < 32 && r.grpc&(1<<code) != 0 {
			return true
		}
	}
	s := res.Status
	return s >= 500 && r.on&on5xx != 0 ||
		s >= 502 && s <= 504 && r.on&onGatewayError != 0 ||
		s == 409 && r.on&on4xx != 0 ||
		r.on&onStatuses != 0 && s < 640 && r.statuses[s>>6]&(1<<(s&63)) != 0
}

// safe says whether another attempt cannot do harm that the configuration has not agreed to: no endpoint has processed the
// request, it may be processed twice, or the conditions were named by the user.
func (x *exchange) safe(r *retries, v verdict) bool {
	return v == failed && x.failure.fate != unknown || r.spec.Unsafe || idempotent(x.req.Method())
}

// retry decides whether the request is to be sent once more after an attempt that ended so. Without another attempt, what
// the last one brought stands.
func (x *exchange) retry(v verdict) bool {
	x.permitted()
	r := x.retries()
	wanted := r.wants(x, v)
	if x.tries > 1 && v == answered && !wanted {
		x.target.cluster.Tally.Succeeded.Add(1)
	}
	if !wanted || !x.safe(r, v) || x.told {
		return false
	}
	if r == atOnce && len(x.target.cluster.Members) < 2 && x.failure.fate == unsent {
		return false // there is no other to be asked
	}
	t := x.target.cluster.Tally
	switch {
	case x.tries > int(r.attempts):
		if x.tries > 1 {
			x.flags |= telemetry.URX
			t.Exhausted.Add(1)
		}
		return false
	case r.allowance != nil && !r.allowance.Retry(now()):
		x.flags |= telemetry.UO
		t.Refused.Add(1)
		return false
	case x.target.cluster.Retries != nil && !x.target.cluster.Retries.Retry(now()):
		x.flags |= telemetry.UO
		x.spent = true
		t.Refused.Add(1)
		return false
	case !x.permit():
		t.Refused.Add(1)
		return false
	case x.pump != nil && !x.pump.body.claim():
		x.permitted()
		t.Unkept.Add(1)
		return false
	}
	t.Retried.Add(1)
	return true
}

// deposit counts the request for the budgets that its retries would be of.
func (x *exchange) deposit() {
	a, c := x.retries().allowance, x.target.cluster
	if a != nil {
		a.Request(x.lately())
	}
	if c != nil && c.Retries != nil {
		c.Retries.Request(x.lately())
	}
}

// overdrawn is what becomes of the last attempt. Its answer is not used where the destination's budget did not allow another
// one: the Gateway API wants 503 then, whatever it was that the endpoint said.
func (x *exchange) overdrawn(v verdict) verdict {
	if !x.spent || v != answered {
		return v
	}
	x.forgo(v)
	return x.fail(retryBudget, unknown)
}

// retries is the policy for the exchange.
func (x *exchange) retries() *retries {
	if x.rule == nil || x.rule.retries == nil {
		return atOnce
	}
	return x.rule.retries
}
