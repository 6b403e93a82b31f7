package load

import (
	"fmt"
	"strings"
)

// Request is what a Client sends again and again, the same bytes in each protocol's own form, and what it must get.
type Request struct {
	Method, Authority, Path string
	// Fields are the header fields besides the authority and Content-Length, in the spelling that HTTP/1 shows.
	Fields []Field
	Body   []byte // a gRPC request's is one message with its prefix
	Answer int    // bytes of the answer's body
	// GRPC asks for an answer that ends with grpc-status 0; Content-Length is not sent.
	GRPC bool
	// InFlight, where it is not 0, makes the request a stream of both directions: Body is sent as often as it takes to
	// have so many unanswered, each is answered with Answer bytes, and each answer counts as one done (HTTP/2 only).
	InFlight int
}

// Field is one header field.
type Field struct{ Name, Value string }

// http1 returns the request as HTTP/1.1 writes it.
func (r *Request) http1() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.Method, r.Path, r.Authority)
	for _, f := range r.Fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	if len(r.Body) > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.Body))
	}
	b.WriteString("\r\n")
	b.Write(r.Body)
	return []byte(b.String())
}

// http2 returns the request's head as HTTP/2 lists it.
func (r *Request) http2() []Field {
	all := []Field{{":method", r.Method}, {":scheme", "http"}, {":path", r.Path}, {":authority", r.Authority}}
	for _, f := range r.Fields {
		all = append(all, Field{strings.ToLower(f.Name), f.Value})
	}
	if len(r.Body) > 0 && !r.GRPC {
		all = append(all, Field{"content-length", fmt.Sprint(len(r.Body))})
	}
	return all
}

// Message returns a gRPC message of size bytes with its prefix: not compressed.
func Message(size int) []byte {
	b := []byte{0, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}
	return append(b, strings.Repeat("outrider", size/8+1)[:size]...)
}
