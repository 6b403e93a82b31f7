package message

// Length of a body that has none, and of one whose end only its framing or the connection's end tells.
const (
	NoBody        int64 = 0
	UnknownLength int64 = -1
)

// Version is a protocol version of HTTP.
type Version uint8

// Versions of HTTP that a message came in.
const (
	HTTP10 Version = 10
	HTTP11 Version = 11
	HTTP2  Version = 20
)

// Request is the head of one request in no particular version of HTTP.
//
// The authority is held apart from the fields: codecs put an HTTP/1 Host field there, and no field Host remains.
type Request struct {
	Head
	Version Version
	// BodyLength is the length of the body in bytes; NoBody; or UnknownLength where chunked framing or END_STREAM tells.
	BodyLength int64
	// Close says that the client wants no further exchange on its connection (HTTP/1).
	Close bool
	// ExpectContinue says that the client waits for 100 before it sends the body.
	ExpectContinue bool
	// Upgrade says that the client asks for another protocol by Upgrade (HTTP/1) on this connection: UpgradeTo.
	Upgrade bool
	// Trailers says that the client takes trailers (TE: trailers).
	Trailers bool
	// Absolute says that the target came in absolute form (HTTP/1): the client takes us for a proxy.
	Absolute bool

	method, scheme, authority, path, query, upgrade span
}

type span struct{ off, len uint32 }

func (h *Head) bytes(s span) []byte { return h.buf[s.off : s.off+s.len : s.off+s.len] }

func (h *Head) span(b []byte) span {
	off := uint32(len(h.buf))
	h.buf = append(h.buf, b...)
	return span{off, uint32(len(b))}
}

// Reset empties r and keeps its memory.
func (r *Request) Reset() { *r = Request{Head: Head{buf: r.buf[:0], fields: r.fields[:0]}} }

// CopyFrom makes r a copy of o that shares no memory with it, and keeps r's own where that suffices.
func (r *Request) CopyFrom(o *Request) {
	h := r.Head
	h.CopyFrom(&o.Head)
	*r = *o
	r.Head = h
}

// Method returns the method, as received.
func (r *Request) Method() []byte { return r.bytes(r.method) }

// Scheme returns "http" or "https" where the target or the codec named one, else nothing.
func (r *Request) Scheme() []byte { return r.bytes(r.scheme) }

// Authority returns host[:port] as received; empty where the request has none.
func (r *Request) Authority() []byte { return r.bytes(r.authority) }

// Path returns the path, beginning with "/", or "*" (OPTIONS), or nothing (CONNECT). It holds no query.
func (r *Request) Path() []byte { return r.bytes(r.path) }

// Query returns the query with its "?", verbatim; nothing where there is none.
func (r *Request) Query() []byte { return r.bytes(r.query) }

// SetMethod sets the method.
func (r *Request) SetMethod(b []byte) { r.method = r.span(b) }

// SetScheme sets the scheme, in lower case.
func (r *Request) SetScheme(b []byte) { r.scheme = r.span(b) }

// SetAuthority sets the authority.
func (r *Request) SetAuthority(b []byte) { r.authority = r.span(b) }

// SetPath sets the path.
func (r *Request) SetPath(b []byte) { r.path = r.span(b) }

// SetQuery sets the query, with its "?".
func (r *Request) SetQuery(b []byte) { r.query = r.span(b) }

// UpgradeTo returns the protocols that Upgrade asks for, a comma-separated list without h2c; no field Upgrade remains.
func (r *Request) UpgradeTo() []byte { return r.bytes(r.upgrade) }

// SetUpgradeTo sets the protocols to ask for, and with them Upgrade.
func (r *Request) SetUpgradeTo(b []byte) {
	r.upgrade = r.span(b)
	r.Upgrade = len(b) > 0
}

// SetMethodAt sets the method to n bytes of what Load copied, as do the other At setters with their parts.
func (r *Request) SetMethodAt(off, n int) { r.method = span{uint32(off), uint32(n)} }

// SetAuthorityAt sets the authority.
func (r *Request) SetAuthorityAt(off, n int) { r.authority = span{uint32(off), uint32(n)} }

// SetPathAt sets the path.
func (r *Request) SetPathAt(off, n int) { r.path = span{uint32(off), uint32(n)} }

// SetQueryAt sets the query, with its "?".
func (r *Request) SetQueryAt(off, n int) { r.query = span{uint32(off), uint32(n)} }

// Response is the head of one response in no particular version of HTTP.
type Response struct {
	Head
	Version Version
	Status  int
	// BodyLength is as in Request; a response to HEAD, a 1xx, 204 and 304 have NoBody whatever their fields say.
	BodyLength int64
	// HeadOnly says that a codec read a response that has no body whatever its fields say: to HEAD, a 1xx, 204, 304, or 2xx to CONNECT.
	HeadOnly bool
	// Declared is, in a HeadOnly response to HEAD or a 304, the Content-Length that it came with, or UnknownLength.
	Declared int64
	// UntilClose says that the body ends with the connection (HTTP/1 without framing).
	UntilClose bool
	// Close says that the server will take no further exchange on its connection.
	Close bool

	reason, upgrade span
}

// Reset empties r and keeps its memory.
func (r *Response) Reset() { *r = Response{Head: Head{buf: r.buf[:0], fields: r.fields[:0]}} }

// Reason returns the reason phrase of HTTP/1, as received.
func (r *Response) Reason() []byte { return r.bytes(r.reason) }

// SetReason sets the reason phrase.
func (r *Response) SetReason(b []byte) { r.reason = r.span(b) }

// SetReasonAt sets the reason phrase to n bytes of what Load copied.
func (r *Response) SetReasonAt(off, n int) { r.reason = span{uint32(off), uint32(n)} }

// UpgradeTo returns the protocol of a 101, or those that a 426 asks for; no field Upgrade remains.
func (r *Response) UpgradeTo() []byte { return r.bytes(r.upgrade) }

// SetUpgradeTo sets the protocol.
func (r *Response) SetUpgradeTo(b []byte) { r.upgrade = r.span(b) }
