package proxy

import (
	"strconv"

	"github.com/outrider-mesh/outrider/wire/message"
)

const maxForwards = "max-forwards"

// lastHop takes one from the hops that an OPTIONS or TRACE request may still make (RFC 9110 §7.6.2), and answers one that
// may make none; then it returns true. What is no number is passed on as it is.
func (x *exchange) lastHop() bool {
	v, ok := x.req.Lookup(maxForwards)
	if !ok {
		return false
	}
	left, err := strconv.ParseUint(string(v), 10, 31)
	switch {
	case err != nil:
		return false
	case left > 0:
		x.req.Set(maxForwards, strconv.FormatUint(left-1, 10))
		return false
	}
	x.res.Reset()
	x.res.Status = 200
	body := ""
	if string(x.req.Method()) == "TRACE" {
		x.res.Add("content-type", "message/http")
		body = string(x.reflection())
	}
	x.conclude(configured, body)
	return true
}

// reflection is the request as it came, without the fields that are nobody's business, as TRACE is answered (RFC 9110 §9.3.8).
func (x *exchange) reflection() []byte {
	r := &x.req
	b := append(append([]byte("TRACE "), r.Path()...), r.Query()...)
	b = append(append(append(b, " HTTP/1.1\r\nhost: "...), r.Authority()...), "\r\n"...)
	for i := range r.Len() {
		id, name, value := r.Field(i)
		switch {
		case len(name) == 0 || r.Private(i):
			continue
		case id == message.Authorization, id == message.ProxyAuthorization, id == message.Cookie, id == message.XOutriderPeer, id == message.Host:
			continue
		}
		b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}
