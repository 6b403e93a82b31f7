package proxy

import (
	"strconv"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/message"
)

// say answers the request itself, as failures are answered: plain text and the reason.
func (x *exchange) say(o outcome, status int, why string) {
	if x.started || x.raw {
		x.outcome = o
		return
	}
	res := &x.res
	res.Reset()
	res.Status = status
	if why != "" {
		res.Add("content-type", "text/plain")
	}
	x.conclude(o, why)
}

// direct answers with what the configuration says.
func (x *exchange) direct(r *reply) {
	res := &x.res
	res.Reset()
	res.Status = r.spec.Status
	typed := false
	for _, h := range r.spec.Headers {
		res.Add(h.Name, h.Value)
		typed = typed || message.IdentifyString(h.Name) == message.ContentType
	}
	if r.spec.Body != "" && !typed {
		res.Add("content-type", "text/plain")
	}
	if r.outcome == configured {
		if x.rule.cors != nil {
			x.rule.cors.Mark(x.origin(), res)
		}
		x.rule.response.Response(res)
	}
	x.conclude(r.outcome, r.spec.Body)
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
	x.res.Append(message.Other, nameLocation, x.spare)
	x.rule.response.Response(&x.res)
	x.reply(configured)
}

var nameLocation = []byte("location")

// reply sends x.res, which has no body.
func (x *exchange) reply(o outcome) { x.conclude(o, "") }

// conclude completes x.res with a body and sends it, in a phase of its own: what ended the exchange must not end the answer.
func (x *exchange) conclude(o outcome, body string) {
	c := x.conn
	if c.guard.arm(now() + int64(c.proxy.limits.HeadTimeout)) {
		c.link.Resume()
	}
	x.outcome = o
	res := &x.res
	if x.b.reasons && o >= badRequest {
		res.Set("x-outrider-reason", o.String())
	}
	x.spare = time.Now().UTC().AppendFormat(x.spare[:0], dateFormat)
	res.SetBytes(message.Date, "date", x.spare)
	res.BodyLength = int64(len(body))
	x.status = res.Status
	x.settle()
	x.out = http1.AppendResponse(x.out[:0], res, x.options())
	if !isHead(&x.req) && res.Status >= 200 && res.Status != 204 && res.Status != 304 {
		x.out = append(x.out, body...)
	}
	x.complete = x.write(x.out)
}

// dateFormat is RFC 9110's IMF-fixdate.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// settle decides whether the connection goes on after an answer of our own: only where the request's body is out of the way.
func (x *exchange) settle() {
	x.again = !x.req.Close && !x.conn.leaving()
	if x.streams {
		x.again = false
		x.linger = true
	}
}

// tooFar is the text for a known host at a port that it lacks; the compiler writes such replies, this one is CONNECT's.
func tooFar(authority []byte) string {
	return "cannot tunnel to " + strconv.Quote(string(authority))
}
