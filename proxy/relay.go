package proxy

import (
	"errors"
	"strconv"

	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/message"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// relay gives the endpoint's answer, whose head is in x.res, to the client.
func (x *exchange) relay() {
	x.unhurry()
	if x.res.Status == 101 || x.req.Upgrade && x.call != nil && x.res.Status/100 == 2 {
		x.upgraded()
		return
	}
	x.mark()
	x.persist()
	x.status = x.res.Status
	if x.grpc {
		x.grpcStatus = grpcStatus(&x.res.Head)
	}
	none := x.res.BodyLength == message.NoBody || x.res.HeadOnly || isHead(&x.req)
	to := x.start(none)
	if !x.deliver(to, none) {
		return
	}
	x.complete = true
	x.keep()
}

// deliver sends the answer's body, unless there is none. False means that the exchange has been ended.
func (x *exchange) deliver(to sink, none bool) bool {
	before := x.sent
	if none {
		x.yield(x.answer == nil || x.answer.Len() == 0)
		if err := to.Flush(); err != nil {
			x.untaken(x.stream == nil && x.sent == before)
			return false
		}
		return true
	}
	from := x.content()
	if x.target.cluster.Limited() {
		x.last = lastPiece{from, x}
		from = &x.last
	}
	if x.rule.idle > 0 {
		x.watch.beats.Add(1)
		x.heard = heard{from, &x.watch.pulse}
		from = &x.heard
	}
	x.lasting.Store(x.grpc)
	n, failed, lost := carry(to, from, x.responseMessages())
	if x.stream != nil {
		x.sent += n
	}
	switch {
	case lost != nil:
		x.broken(lost)
		return false
	case failed != nil:
		x.untaken(x.stream == nil && x.sent == before)
		return false
	}
	if x.call == nil {
		x.back.skip()
	}
	if t := from.Trailers(); t != nil && t.Len() > 0 {
		if x.stream != nil {
			x.sent += int64(t.Size())
		}
		if t != &x.trailers && x.conn.proxy.access.Load() != nil {
			x.trailers.CopyFrom(t)
		}
		if s := grpcStatus(t); x.grpc && s >= 0 {
			x.grpcStatus = s
		}
	}
	return true
}

func grpcStatus(h *message.Head) int {
	v, _ := h.Get(message.GRPCStatus)
	return telemetry.ParseGRPCStatus(v)
}

// lost notes that a wait for the endpoint's final head ended with err, which is o unless it was this side that ended it.
func (x *exchange) lost(err error, o outcome) verdict {
	if v, stopped := x.broke(err); stopped {
		return v
	}
	return x.fail(o, unknown)
}

// blame tells, of HTTP/2, an endpoint that breaks the protocol from one that goes away, and from one that resets the stream.
func blame(err error) outcome {
	reset := (*mux.ResetError)(nil)
	switch {
	case !errors.As(err, &reset) || reset.Gone:
		return upstreamReset
	case !reset.Remote || reset.Code == http2.ProtocolError: // whoever of the two finds fault with the other
		return upstreamProtocol
	}
	return streamReset
}

// malformed notes an answer that must not be forwarded: its framing is broken or ambiguous.
func (x *exchange) malformed(err error) verdict {
	x.conn.proxy.log.Warn("malformed response", "peer", x.where(), "reason", err)
	if large(err) {
		x.conn.proxy.metrics.Abuse(telemetry.HeadSize)
	}
	return x.fail(upstreamProtocol, unknown)
}

// editAnswer changes the answer as the destination, if there is one, and the rule ask for.
func (x *exchange) editAnswer(t *target) {
	res, r := &x.res, x.rule
	if t != nil {
		t.response.Response(res)
	}
	r.response.Response(res)
	if r.cors != nil { // last, as in Envoy: the edits may have taken away what the application says of it
		r.cors.Mark(x.origin(), res)
	}
}

// mark adds to the answer what the rule, the destination and the mesh ask for.
func (x *exchange) mark() {
	res := &x.res
	began := x.begin
	if x.resumed != 0 {
		began = x.resumed // an injected delay is not the service's
	}
	x.spare = strconv.AppendInt(x.spare[:0], (now()-began)/1e6, 10)
	res.SetBytes(message.XEnvoyUpstreamServiceTime, "x-envoy-upstream-service-time", x.spare)
	x.editAnswer(x.target)
	if x.quota.told {
		x.tellQuota(x.quota.facts)
	}
	if x.added != nil {
		for i := range x.added.Len() {
			res.Append(x.added.Field(i))
		}
	}
	if x.fellBack && x.b.reasons { // in place of what anybody before has said
		res.Set("x-outrider-reason", fallback.String())
	}
	if len(x.cookie) > 0 {
		res.Append(message.SetCookie, nameSetCookie, x.cookie)
	}
}

var nameSetCookie = []byte("set-cookie")

// broken ends an exchange whose endpoint went away in the middle of its answer, or garbled it.
func (x *exchange) broken(err error) {
	if x.ended(err) {
		return
	}
	o, bad := upstreamCut, (*http1.Error)(nil)
	switch {
	case errors.As(err, &bad):
		o = upstreamProtocol
	case x.call != nil:
		o = blame(err)
	case x.back.untilClose:
		o = upstreamReset // no parser misses anything
	}
	if o == upstreamProtocol {
		x.conn.proxy.log.Warn("malformed response body", "peer", x.where(), "reason", err)
		if large(err) {
			x.conn.proxy.metrics.Abuse(telemetry.HeadSize)
		}
	}
	if m := x.member; m != nil && m.Outlier != nil {
		x.target.cluster.Health.Tell(m.Outlier.Failed(now())) // besides what its head said, as Envoy does
	}
	why := endings[o].body
	if x.started {
		why = "upstream connect error or disconnect/reset within the response"
	}
	x.say(o, endings[o].status, why)
}

func isHead(r *message.Request) bool { return string(r.Method()) == "HEAD" }
