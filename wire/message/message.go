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
	// Upgrade says that the client asks for another protocol by Upgrade (HTTP/1) on this connection.
	Upgrade bool
	// Absolute says that the target came in absolute form (HTTP/1): the client takes us for a proxy.
	Absolute bool

	method, scheme, authority, path, query span
}

type span struct{ off, len uint32 }

func (h *Head) bytes(s span) []byte { return h.buf[s.off : s.off+s.len : s.off+s.len] }

func (h *Head) span(b []byte) span { return span{h.put(b), uint32(len(b))} }

// Reset empties r and keeps its memory.
func (r *Request) Reset() { *r = Request{Head: Head{buf: r.buf[:0], fields: r.fields[:0]}} }

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

// Response is the head of one response in no particular version of HTTP.
type Response struct {
	Head
	Version Version
	Status  int
	// BodyLength is as in Request; a response to HEAD, a 1xx, 204 and 304 have NoBody whatever their fields say.
	BodyLength int64
	// UntilClose says that the body ends with the connection (HTTP/1 without framing).
	UntilClose bool
	// Close says that the server will take no further exchange on its connection.
	Close bool

	reason span
}

// Reset empties r and keeps its memory.
func (r *Response) Reset() { *r = Response{Head: Head{buf: r.buf[:0], fields: r.fields[:0]}} }

// Reason returns the reason phrase of HTTP/1, as received.
func (r *Response) Reason() []byte { return r.bytes(r.reason) }

// SetReason sets the reason phrase.
func (r *Response) SetReason(b []byte) { r.reason = r.span(b) }
