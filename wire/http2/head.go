package http2

import (
	"bytes"

	"github.com/outrider-mesh/outrider/wire/http2/hpack"
	"github.com/outrider-mesh/outrider/wire/message"
)

const (
	// forbidden are the fields that speak of a connection: in HTTP/2 they make a message malformed (RFC 9113 §8.2.2).
	forbidden = uint64(1)<<message.Connection | 1<<message.KeepAlive | 1<<message.ProxyConnection |
		1<<message.TransferEncoding | 1<<message.Upgrade
	// ofRequest are the fields of a request, ofResponse those of a response, that say something to us.
	ofRequest  = forbidden | 1<<message.Host | 1<<message.ContentLength | 1<<message.TE | 1<<message.Expect | 1<<message.HTTP2Settings | 1<<message.Cookie
	ofResponse = forbidden | 1<<message.ContentLength | 1<<message.TE | 1<<message.HTTP2Settings | 1<<message.ProxyAuthenticate
	// trailing are the known fields that may come behind the content (RFC 9110 §6.5.1), as in wire/http1; others are dropped.
	trailing = uint64(1)<<message.Other | 1<<message.GRPCStatus
)

// reading is what is found out about a field section while it is decoded.
type reading struct {
	left, fields int    // what the limits leave: bytes, fields
	seen         uint   // bits of the pseudo-header fields that came
	added        uint64 // the bits of message.Added that came
	ordinary     bool   // an ordinary field came
	hosts        int
	lengths      int
	length       int64
	cookies      int
}

// flaws are the errors of fields, by flaw.
var flaws = [...]*Error{hpack.BadName: errFieldName, hpack.CapitalOne: errCapital, hpack.BadValue: errControl, hpack.PaddedEnds: errPaddedValue}

// check looks at the field that was decoded.
func (c *Conn) check(k *reading) *Error {
	f := &c.dec.Field
	size := len(f.Name) + len(f.Value)
	if k.left -= size + 32; k.left < 0 {
		return errHeadTooLarge
	}
	if size > c.o.Limits.Field {
		if f.Pseudo == hpack.Path {
			return errPathTooLong
		}
		return errFieldTooLarge
	}
	if f.Flaw == hpack.PaddedEnds && f.Pseudo == hpack.NotPseudo && c.role == Client {
		// RFC 9113 §8.2.1 calls the message malformed, but servers send such values and their clients take them (Go's,
		// Envoy): white space around a value is no part of it (RFC 9110 §5.5), so it is taken off, as in HTTP/1.
		f.Value, f.Flaw = bytes.Trim(f.Value, " \t"), hpack.Sound
	}
	if f.Flaw != hpack.Sound {
		return flaws[f.Flaw]
	}
	if f.Pseudo == hpack.NotPseudo {
		k.ordinary = true
		if bit := uint64(1) << (f.ID & 63); message.Added&^k.added&bit != 0 {
			k.added |= bit
		} else if k.fields--; k.fields < 0 {
			return errTooManyFields
		}
		if forbidden>>f.ID&1 != 0 {
			return errConnection
		}
		return nil
	}
	bit := uint(1) << f.Pseudo
	switch {
	case k.ordinary:
		return errPseudoLate
	case k.seen&bit != 0:
		return errPseudoTwice
	}
	k.seen |= bit
	return nil
}

func (c *Conn) reading() reading {
	return reading{left: c.o.Limits.Head, fields: c.o.Limits.Fields, length: message.UnknownLength}
}

// next decodes one field; n is how many bytes of p it was, and ok says that there was one.
func (c *Conn) next(p []byte) (n int, ok bool, e *Error) {
	n, ok, err := c.dec.Next(p)
	if err != nil {
		return 0, false, errCompression
	}
	return n, ok, nil
}

// readRequest decodes a request's head into r. bad is what is wrong with the request, e with the connection.
func (c *Conn) readRequest(r *message.Request, p []byte, end bool) (bad, e *Error) {
	k := c.reading()
	c.crumbs = c.crumbs[:0]
	c.dec.Begin()
	f := &c.dec.Field
	for len(p) > 0 {
		n, ok, e := c.next(p)
		if e != nil {
			return nil, e
		}
		p = p[n:]
		if !ok || bad != nil {
			continue
		}
		if bad = c.check(&k); bad != nil {
			continue
		}
		switch {
		case f.Pseudo != hpack.NotPseudo:
			bad = c.requestPseudo(r, f)
		case ofRequest>>f.ID&1 != 0:
			bad = c.requestField(r, f, &k)
		case f.ID == message.Other && c.o.Limits.NoUnderscore && bytes.IndexByte(f.Name, '_') >= 0:
			bad = errUnderscore
		default:
			r.Append(f.ID, f.Name, f.Value)
			if f.Private {
				r.SetPrivate()
			}
		}
	}
	r.Version = message.HTTP2
	if bad == nil {
		bad = c.finishRequest(r, &k, end)
	}
	return bad, nil
}

// requestPseudo takes a pseudo-header field of a request.
func (c *Conn) requestPseudo(r *message.Request, f *hpack.Field) *Error {
	v := f.Value
	switch f.Pseudo {
	case hpack.Method:
		if !isMethod(v) {
			return errMethod
		}
		r.SetMethod(v)
	case hpack.Scheme:
		switch {
		case message.EqualFold(v, "http"):
			r.SetScheme(schemeHTTP)
		case message.EqualFold(v, "https"):
			r.SetScheme(schemeHTTPS)
		default:
			return errScheme
		}
	case hpack.Authority:
		if !isAuthority(v) {
			return errAuthority
		}
		r.SetAuthority(v)
	case hpack.Path:
		if len(v) > c.o.Limits.Line {
			return errPathTooLong
		}
		q, ok := checkPath(v)
		if !ok {
			return errPath
		}
		r.SetPath(v[:q])
		if q < len(v) {
			r.SetQuery(v[q:])
		}
	case hpack.Protocol:
		if !c.o.ConnectProtocol || !isToken(v) {
			return errProtocol
		}
		r.SetUpgradeTo(v)
	default:
		return errPseudoUnknown
	}
	return nil
}

var schemeHTTP, schemeHTTPS = []byte("http"), []byte("https")

// requestField takes a field that says something to us.
func (c *Conn) requestField(r *message.Request, f *hpack.Field, k *reading) *Error {
	v := f.Value
	switch f.ID {
	case message.Host:
		if k.hosts++; k.hosts > 1 {
			return errHosts
		}
		if !isAuthority(v) {
			return errAuthority
		}
		if authority := r.Authority(); len(authority) == 0 {
			r.SetAuthority(v)
		} else if !message.EqualFoldBytes(authority, v) {
			return errHostDiffers
		}
	case message.ContentLength:
		return k.contentLength(v)
	case message.TE:
		if !message.EqualFold(v, "trailers") {
			return errTE
		}
		r.Trailers = true
	case message.Expect:
		if !message.EqualFold(v, "100-continue") {
			return errExpect
		}
		r.ExpectContinue = true
	case message.Cookie:
		c.cookie(r, f, k)
	}
	return nil // HTTP2-Settings goes no further
}

// cookie takes a cookie field. Clients may send one in crumbs; for HTTP/1 and the application they must be one again
// (RFC 9113 §8.2.3), so they are joined here, once for all versions.
func (c *Conn) cookie(r *message.Request, f *hpack.Field, k *reading) {
	if k.cookies++; k.cookies == 1 {
		r.Append(message.Cookie, f.Name, f.Value)
		if f.Private {
			r.SetPrivate()
		}
		return
	}
	if k.cookies == 2 {
		first, _ := r.Get(message.Cookie)
		c.crumbs = append(c.crumbs, first...)
	}
	if len(f.Value) == 0 {
		return // nothing, with a separator before it, would end in a space
	}
	if len(c.crumbs) > 0 {
		c.crumbs = append(c.crumbs, "; "...)
	}
	c.crumbs = append(c.crumbs, f.Value...)
}

// contentLength takes a Content-Length.
func (k *reading) contentLength(v []byte) *Error {
	if k.lengths++; k.lengths > 1 {
		return errLengths
	}
	var ok bool
	if k.length, ok = decimal(v); !ok {
		return errLength
	}
	return nil
}

// Bits of pseudo-header fields.
const (
	hasMethod    = 1 << hpack.Method
	hasScheme    = 1 << hpack.Scheme
	hasAuthority = 1 << hpack.Authority
	hasPath      = 1 << hpack.Path
	hasProtocol  = 1 << hpack.Protocol
	hasStatus    = 1 << hpack.Status
)

// finishRequest checks the head as a whole.
func (c *Conn) finishRequest(r *message.Request, k *reading, end bool) *Error {
	if k.cookies > 1 {
		r.SetBytes(message.Cookie, "cookie", c.crumbs)
	}
	method := r.Method()
	switch {
	case k.seen&hasMethod == 0:
		return errPseudoMissing
	case string(method) == "CONNECT" && k.seen&hasProtocol == 0:
		if k.seen&(hasScheme|hasPath) != 0 {
			return errConnectForm
		}
		if k.seen&hasAuthority == 0 {
			return errPseudoMissing
		}
		if _, port, ok := message.SplitAuthority(r.Authority()); !ok || port == 0 {
			return errConnectPort
		}
	case k.seen&hasProtocol != 0 && string(method) != "CONNECT":
		return errProtocol
	case k.seen&(hasScheme|hasPath) != hasScheme|hasPath:
		return errPseudoMissing
	case len(r.Authority()) == 0:
		return errNoAuthority // http and https need one (RFC 9113 §8.3.1)
	case r.Path()[0] == '*' && string(method) != "OPTIONS":
		return errPath
	}
	switch {
	case string(method) == "CONNECT":
		if k.lengths > 0 {
			return errConnectLength // what follows is the tunnel (RFC 9110 §9.3.6)
		}
		r.BodyLength = message.UnknownLength
	case end && k.length > 0:
		return errLengthNoBody
	case end:
		r.BodyLength = message.NoBody
	default:
		r.BodyLength = k.length
	}
	r.ExpectContinue = r.ExpectContinue && !end
	return nil
}

// readResponse decodes the head of a response on s into r.
func (c *Conn) readResponse(r *message.Response, s *Stream, p []byte, end bool) (bad, e *Error) {
	k := c.reading()
	c.dec.Begin()
	f := &c.dec.Field
	for len(p) > 0 {
		n, ok, e := c.next(p)
		if e != nil {
			return nil, e
		}
		p = p[n:]
		if !ok || bad != nil {
			continue
		}
		if bad = c.check(&k); bad != nil {
			continue
		}
		switch {
		case f.Pseudo == hpack.Status:
			v := f.Value
			if len(v) != 3 || v[0] < '1' || v[0] > '9' || !isDigit(v[1]) || !isDigit(v[2]) || string(v) == "101" {
				bad = errStatus
				break
			}
			r.Status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
		case f.Pseudo != hpack.NotPseudo:
			bad = errPseudoUnknown
		case ofResponse>>f.ID&1 != 0 && (f.ID != message.ProxyAuthenticate || r.Status != 407):
			switch f.ID {
			case message.ContentLength:
				bad = k.contentLength(f.Value)
			case message.TE:
				bad = errTE
			}
		default:
			r.Append(f.ID, f.Name, f.Value)
			if f.Private {
				r.SetPrivate()
			}
		}
	}
	r.Version = message.HTTP2
	if bad == nil {
		bad = finishResponse(r, s, &k, end)
	}
	return bad, nil
}

// finishResponse decides on the body.
func finishResponse(r *message.Response, s *Stream, k *reading, end bool) *Error {
	r.Declared = message.UnknownLength
	switch {
	case k.seen&hasStatus == 0:
		return errPseudoMissing
	case r.Status < 200:
		if end {
			return errInterimEnd
		}
		if k.length > 0 {
			return errLengthNoBody
		}
		r.HeadOnly = true
	case r.Status/100 == 2 && s.connect:
		r.HeadOnly = true
	case r.Status == 204:
		if k.length > 0 {
			return errLengthNoBody
		}
		r.HeadOnly = true
	case r.Status == 304 || s.head:
		r.HeadOnly = true
		r.Declared = k.length
	case end && k.length > 0:
		return errLengthNoBody
	case end:
		r.BodyLength = message.NoBody
	default:
		r.BodyLength = k.length
	}
	return nil
}

// readTrailers decodes a trailer section into c.trailers.
func (c *Conn) readTrailers(p []byte) (bad, e *Error) {
	k := c.reading()
	k.ordinary = true // so that no pseudo-header field is in order
	c.dec.Begin()
	f := &c.dec.Field
	for len(p) > 0 {
		n, ok, e := c.next(p)
		if e != nil {
			return nil, e
		}
		p = p[n:]
		if !ok || bad != nil {
			continue
		}
		if bad = c.check(&k); bad == nil && trailing>>f.ID&1 != 0 {
			c.trailers.Append(f.ID, f.Name, f.Value)
			if f.Private {
				c.trailers.SetPrivate()
			}
		}
	}
	return bad, nil
}
