package http2

import (
	"strconv"

	"github.com/outrider-mesh/outrider/wire/http2/hpack"
	"github.com/outrider-mesh/outrider/wire/message"
)

const (
	// notSent are the fields that are never written as such: they speak of a connection, or the head says it otherwise.
	notSent = forbidden | 1<<message.Host | 1<<message.ContentLength | 1<<message.TE | 1<<message.HTTP2Settings
	// notRequested are those of requests besides: Proxy-Authorization was for us.
	notRequested = notSent | 1<<message.Expect | 1<<message.ProxyAuthorization
)

// sendRequest appends the head of a request.
func (c *Conn) sendRequest(s *Stream, r *message.Request, end bool) {
	e := &c.enc
	b, at := c.beginHeaders()
	method := r.Method()
	b = e.AppendPseudo(b, hpack.Method, method)
	extended := len(r.UpgradeTo()) > 0
	if !s.connect || extended {
		scheme := r.Scheme()
		if len(scheme) == 0 {
			scheme = schemeHTTP
		}
		b = e.AppendPseudo(b, hpack.Scheme, scheme)
	}
	if authority := r.Authority(); len(authority) > 0 {
		b = e.AppendPseudo(b, hpack.Authority, authority)
	}
	switch {
	case s.connect && !extended:
	case len(r.Path()) == 0:
		b = e.AppendPath(b, slash, r.Query())
	default:
		b = e.AppendPath(b, r.Path(), r.Query())
	}
	if s.connect && extended {
		b = e.AppendPseudo(b, hpack.Protocol, r.UpgradeTo())
	}
	b = c.appendFields(b, &r.Head, notRequested)
	switch {
	case s.connect:
	case r.BodyLength > 0 || r.BodyLength == 0 && expectsBody(method):
		b = c.appendLength(b, r.BodyLength)
	}
	if r.ExpectContinue {
		b = e.Append(b, message.Expect, nil, expectation, false)
	}
	if r.Trailers {
		b = e.Append(b, message.TE, nil, trailers, false)
	}
	c.endHeaders(b, at, s.id, end)
}

var slash, expectation, trailers = []byte("/"), []byte("100-continue"), []byte("trailers")

// expectsBody says whether a request of that method says that it has no body (RFC 9110 §8.6).
func expectsBody(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// sendResponse appends the head of a response.
func (c *Conn) sendResponse(s *Stream, r *message.Response, end bool) {
	b, at := c.beginHeaders()
	b = c.enc.AppendStatus(b, r.Status)
	b = c.appendFields(b, &r.Head, notSent)
	if n := declared(s, r); n >= 0 {
		b = c.appendLength(b, n)
	}
	c.endHeaders(b, at, s.id, end)
}

// declared returns the Content-Length of a response: that of its body, or of the one that GET would have got (RFC 9110
// §8.6); or UnknownLength.
func declared(s *Stream, r *message.Response) int64 {
	switch {
	case r.Status < 200 || r.Status == 204 || s.connect && r.Status < 300:
		return message.UnknownLength
	case r.HeadOnly:
		return r.Declared
	case r.Status == 304:
		return message.UnknownLength
	}
	return r.BodyLength
}

// sendTrailers appends a trailer section, or an empty DATA frame where there is nothing to say.
func (c *Conn) sendTrailers(s *Stream, t *message.Head) {
	b, at := c.beginHeaders()
	n := len(b)
	if b = c.appendFields(b, t, ^uint64(trailing)); len(b) > n {
		c.endHeaders(b, at, s.id, true)
		return
	}
	c.out.set(b[:at])
	c.sendData(s, nil, true)
}

// appendRefusal appends a whole response without a body.
func (c *Conn) appendRefusal(b []byte, id uint32, status int) []byte {
	at := len(b)
	b = append(b, make([]byte, frameHead)...)
	b = c.enc.AppendStatus(c.enc.Begin(b), status)
	b = c.appendLength(b, 0)
	putFrame(b[at:], len(b)-at-frameHead, frameHeaders, flagEndHeaders|flagEndStream, id)
	return b
}

// beginHeaders returns the write buffer with room for the head of a frame at that place.
func (c *Conn) beginHeaders() (b []byte, at int) {
	b = c.out.begin()
	at = len(b)
	return c.enc.Begin(append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0)), at
}

// endHeaders turns what was appended since beginHeaders into a frame, or several.
func (c *Conn) endHeaders(b []byte, at int, id uint32, end bool) {
	n := len(b) - at - frameHead
	flags := uint8(0)
	if end {
		flags = flagEndStream
	}
	if n <= frameMax {
		putFrame(b[at:], n, frameHeaders, flags|flagEndHeaders, id)
		c.out.set(b)
		return
	}
	whole := append([]byte(nil), b[at+frameHead:]...)
	b = b[:at]
	for t := frameHeaders; len(whole) > 0; t, flags = frameContinuation, 0 {
		k := min(len(whole), frameMax)
		if k == len(whole) {
			flags |= flagEndHeaders
		}
		b = append(appendFrame(b, k, t, flags, id), whole[:k]...)
		whole = whole[k:]
	}
	c.out.set(b)
}

// appendFields appends the fields but for those whose ID is in without.
func (c *Conn) appendFields(b []byte, h *message.Head, without uint64) []byte {
	for i := range h.Len() {
		id, name, value := h.Field(i)
		if len(name) == 0 || without>>id&1 != 0 {
			continue
		}
		b = c.enc.Append(b, id, name, value, h.Private(i))
	}
	return b
}

func (c *Conn) appendLength(b []byte, n int64) []byte {
	var digits [20]byte
	return c.enc.Append(b, message.ContentLength, nil, strconv.AppendInt(digits[:0], n, 10), false)
}

// fits says whether the head of r is within what the peer's settings allow.
func (c *Conn) fits(r *message.Request) bool {
	n := len(r.Method()) + len(r.Scheme()) + len(r.Authority()) + len(r.Path()) + len(r.Query()) + 4*42
	for i := range r.Len() {
		_, name, value := r.Field(i)
		n += len(name) + len(value) + 32
	}
	return n <= int(c.peer.headerList)
}
