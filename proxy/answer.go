package proxy

import (
	"strconv"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/message"
)

// say answers the request itself, as failures are answered: plain text and the reason.
func (x *exchange) say(o outcome, status int, why string) {
	if x.started || x.raw {
		x.outcome = o
		if x.grpc && x.stream != nil {
			x.trailGRPC(grpcOf(o, status), why)
		}
		return
	}
	res := &x.res
	res.Reset()
	res.Status = status
	if x.grpc {
		x.sayGRPC(o, grpcOf(o, status), why)
		return
	}
	x.dress(why)
	x.conclude(o, why)
}

// dress gives an answer of our own what the rule does to all answers, as Envoy does: the edits, and the fields without which a
// browser does not let a page see what went wrong. A body is plain text unless they say otherwise.
func (x *exchange) dress(body string) {
	if x.rule != nil {
		t := x.target
		if t == nil && len(x.rule.targets) > 0 { // it ended before the draw
			t = x.choose()
		}
		x.editAnswer(t)
	}
	if _, typed := x.res.Get(message.ContentType); !typed && body != "" {
		x.res.Add("content-type", "text/plain")
	}
}

// direct answers with what the configuration says.
func (x *exchange) direct(r *reply) {
	res := &x.res
	res.Reset()
	res.Status = r.spec.Status
	if x.grpc {
		x.sayGRPC(r.outcome, telemetry.GRPCOf(res.Status), r.spec.Body)
		return
	}
	for _, h := range r.spec.Headers {
		res.Add(h.Name, h.Value)
	}
	x.dress(r.spec.Body)
	x.conclude(r.outcome, r.spec.Body)
}

// grpcOf is the gRPC status of an answer of our own: as Envoy derives it from the HTTP status, but that a deadline of the
// client's own says so.
func grpcOf(o outcome, status int) int {
	if o == clientDeadline {
		return grpcDeadlineExceeded
	}
	return telemetry.GRPCOf(status)
}

const grpcDeadlineExceeded = 4

// sayGRPC answers a gRPC request as gRPC's servers do: 200, and what is meant in trailers, which are all there is.
func (x *exchange) sayGRPC(o outcome, code int, why string) {
	x.res.Status = 200
	x.res.Add("content-type", "application/grpc")
	x.putGRPC(&x.res.Head, code, why)
	x.dress("")
	x.conclude(o, "")
}

// trailGRPC ends an answer that has begun with what became of it, where a reset would be INTERNAL to clients. Those that
// have a part of a message know it to be broken.
func (x *exchange) trailGRPC(code int, why string) {
	x.trailers.Reset()
	x.putGRPC(&x.trailers, code, why)
	if x.complete = x.stream.call.SendTrailers(&x.trailers) == nil; x.complete {
		x.stream.call.Flush()
	}
}

// putGRPC adds a gRPC status with its message, which becomes the exchange's.
func (x *exchange) putGRPC(h *message.Head, code int, why string) {
	x.grpcStatus = code
	x.spare = strconv.AppendInt(x.spare[:0], int64(code), 10)
	h.SetBytes(message.GRPCStatus, "grpc-status", x.spare)
	if why = strings.TrimRight(why, "\r\n"); why != "" { // the end of a text, but not of a message
		x.spare = appendGRPCMessage(x.spare[:0], why)
		h.SetBytes(message.Other, "grpc-message", x.spare)
	}
}

// appendGRPCMessage appends a message as the field grpc-message has it: printable ASCII but "%" as it is, the rest in
// percent escapes.
func appendGRPCMessage(dst []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

// origin is the request's Origin, or nothing.
func (x *exchange) origin() []byte {
	v, _ := x.req.Get(message.Origin)
	return v
}

// redirect answers with a Location.
func (x *exchange) redirect() {
	d := x.rule.redirect
	port := x.b.spec.Port
	if x.b.spec.Direction == model.Outbound {
		port = x.port
	}
	x.spare = d.AppendLocation(x.spare[:0], &x.req, port, x.prefix, x.segments, &x.edits)
	x.res.Reset()
	x.res.Status = d.Status()
	x.res.Append(message.Location, nameLocation, x.spare)
	x.rule.response.Response(&x.res)
	x.reply(configured)
}

var nameLocation = []byte("location")

// reply sends x.res, which has no body.
func (x *exchange) reply(o outcome) { x.conclude(o, "") }

// conclude completes x.res with a body and sends it, in a phase of its own: what ended the exchange must not end the answer.
func (x *exchange) conclude(o outcome, body string) {
	x.watch.arm(now() + int64(x.conn.proxy.limits.HeadTimeout))
	x.outcome = o
	res := &x.res
	if x.b.reasons && o >= badRequest {
		res.Set("x-outrider-reason", o.String())
	}
	if o == upstreamOverflow {
		res.Set("x-envoy-overloaded", "true")
	}
	x.spare = time.Now().UTC().AppendFormat(x.spare[:0], dateFormat)
	res.SetBytes(message.Date, "date", x.spare)
	res.BodyLength = int64(len(body))
	x.status = res.Status
	x.settle()
	none := body == "" || isHead(&x.req) || res.Status < 200 || res.Status == 204 || res.Status == 304
	to := x.start(none)
	var err error
	if !none {
		x.spare = append(x.spare[:0], body...)
		err = to.Send(x.spare, true)
		if x.stream != nil {
			x.sent += int64(len(body))
		}
	}
	if err == nil {
		err = to.Flush()
	}
	if err != nil {
		x.untaken(false)
		return
	}
	x.complete = true
}

// dateFormat is RFC 9110's IMF-fixdate.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// tooFar is the text for a known host at a port that it lacks; the compiler writes such replies, this one is CONNECT's.
func tooFar(authority []byte) string {
	return "cannot tunnel to " + strconv.Quote(string(authority))
}
