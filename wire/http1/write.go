package http1

import (
	"strconv"

	"github.com/outrider-mesh/outrider/wire/message"
)

// RequestOptions say how a request is written.
type RequestOptions struct {
	// Absolute writes the target in absolute form, for a next hop that is a proxy, and lets Proxy-Authorization go on.
	Absolute bool
	// Close asks the server to close the connection after its response.
	Close bool
}

// AppendRequest appends the head of r as HTTP/1.1: the body that r.BodyLength tells is to follow, in chunks where it is
// UnknownLength. Proxy-Authorization is for the next proxy, so it goes on in the absolute form and with CONNECT only
// where o.Absolute says that the next hop is one.
func AppendRequest(dst []byte, r *message.Request, o RequestOptions) []byte {
	method := r.Method()
	dst = append(append(dst, method...), ' ')
	path := r.Path()
	switch {
	case string(method) == "CONNECT":
		dst = append(dst, r.Authority()...)
	case o.Absolute:
		if scheme := r.Scheme(); len(scheme) > 0 {
			dst = append(dst, scheme...)
		} else {
			dst = append(dst, "http"...)
		}
		dst = append(append(dst, "://"...), r.Authority()...)
		if len(path) != 1 || path[0] != '*' {
			dst = appendPath(dst, path, r.Query())
		}
	default:
		dst = appendPath(dst, path, r.Query())
	}
	dst = append(append(dst, " HTTP/1.1\r\nHost: "...), r.Authority()...)
	dst = append(dst, '\r', '\n')
	without := message.ProxyAuthorization
	if o.Absolute {
		without = message.Other
	}
	dst = r.AppendLines(dst, without)
	switch {
	case r.BodyLength == message.UnknownLength:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case r.BodyLength > 0 || expectsBody(method):
		dst = appendLength(dst, r.BodyLength)
	}
	if r.ExpectContinue {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	if r.Upgrade || r.Trailers || o.Close {
		dst = appendRequestConnection(dst, r, o)
	}
	return append(dst, '\r', '\n')
}

// appendRequestConnection appends Connection and the fields that it names.
func appendRequestConnection(dst []byte, r *message.Request, o RequestOptions) []byte {
	if r.Upgrade {
		dst = append(append(dst, "Upgrade: "...), r.UpgradeTo()...)
		dst = append(dst, '\r', '\n')
	}
	if r.Trailers {
		dst = append(dst, "TE: trailers\r\n"...)
	}
	dst = append(dst, "Connection: "...)
	sep := ""
	for _, option := range [...]struct {
		on   bool
		name string
	}{{r.Upgrade, "Upgrade"}, {r.Trailers, "TE"}, {o.Close, "close"}} {
		if option.on {
			dst = append(append(dst, sep...), option.name...)
			sep = ", "
		}
	}
	return append(dst, '\r', '\n')
}

func appendPath(dst, path, query []byte) []byte {
	if len(path) == 0 {
		dst = append(dst, '/')
	}
	return append(append(dst, path...), query...)
}

func appendLength(dst []byte, n int64) []byte {
	dst = strconv.AppendInt(append(dst, "Content-Length: "...), n, 10)
	return append(dst, '\r', '\n')
}

// expectsBody says whether a request of that method says that it has no body (RFC 9110 §8.6).
func expectsBody(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// ResponseOptions say how a response is written to a client.
type ResponseOptions struct {
	// Version is that of the client's request; 0 is HTTP11.
	Version message.Version
	// Close says that no further request is taken on the connection.
	Close bool
	// Head says that the request was HEAD: no body follows, whatever BodyLength says.
	Head bool
}

// bodiless says whether no body can follow the head.
func bodiless(r *message.Response, o ResponseOptions) bool {
	return o.Head || r.HeadOnly || r.Status < 200 || r.Status == 204 || r.Status == 304
}

// Chunked says whether the body of r is to be written to that client in chunks.
func Chunked(r *message.Response, o ResponseOptions) bool {
	return r.BodyLength == message.UnknownLength && o.Version != message.HTTP10 && !bodiless(r, o)
}

// Closes says whether the connection to that client is to be closed behind r: because o says so, or because nothing
// else would tell an HTTP/1.0 client where the body ends.
func Closes(r *message.Response, o ResponseOptions) bool {
	return r.Status >= 200 && (o.Close || r.BodyLength == message.UnknownLength && o.Version == message.HTTP10 && !bodiless(r, o))
}

// AppendResponse appends the head of r for a client: status line, fields, framing and what Closes says of the
// connection. A body follows as Chunked says. Interim responses must not be sent to an HTTP/1.0 client.
func AppendResponse(dst []byte, r *message.Response, o ResponseOptions) []byte {
	s := r.Status
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, byte('0'+s/100), byte('0'+s/10%10), byte('0'+s%10), ' ')
	if reason := r.Reason(); len(reason) > 0 {
		dst = append(dst, reason...)
	} else {
		dst = append(dst, StatusText(s)...)
	}
	dst = append(dst, '\r', '\n')
	dst = r.AppendLines(dst, message.Other)
	switch {
	case bodiless(r, o):
		if n, ok := declared(r, o); ok {
			dst = appendLength(dst, n)
		}
	case r.BodyLength >= 0:
		dst = appendLength(dst, r.BodyLength)
	case o.Version != message.HTTP10:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	switch upgrade := r.UpgradeTo(); {
	case len(upgrade) > 0:
		dst = append(append(dst, "Upgrade: "...), upgrade...)
		dst = append(dst, "\r\nConnection: Upgrade"...)
		if Closes(r, o) {
			dst = append(dst, ", close"...)
		}
		dst = append(dst, '\r', '\n')
	case Closes(r, o):
		dst = append(dst, "Connection: close\r\n"...)
	case o.Version == message.HTTP10 && s >= 200:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return append(dst, '\r', '\n')
}

// declared returns the Content-Length that a response without a body may speak of (RFC 9110 §8.6): that of the body which
// GET would have got.
func declared(r *message.Response, o ResponseOptions) (n int64, ok bool) {
	switch {
	case r.Status < 200 || r.Status == 204 || !o.Head && r.Status != 304:
		return 0, false
	case r.HeadOnly:
		return r.Declared, r.Declared >= 0
	}
	return r.BodyLength, r.Status != 304 && r.BodyLength >= 0
}
