package standin

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
)

// askHeader carries the behaviour that one request asks for.
const askHeader = "Outrider-Stand-In"

// propagated are the header fields that an application passes on for traces to hang together: request id, W3C trace
// context and Zipkin's B3, in one and in several fields; and the user, whom Bookinfo's applications pass on, and by whom the
// routes and faults of Istio's tasks tell requests apart.
var propagated = []string{
	"End-User",
	"X-Request-Id", "Traceparent", "Tracestate", "Baggage", "B3",
	"X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
}

// handler answers the requests of one port: HTTP, gRPC, WebSockets.
type handler struct {
	app  *App
	port int
	// opening is the part of the answer that is the same for every request.
	opening []byte

	making  sync.Once
	grpc    *grpc.Server    // nil until somebody speaks gRPC
	leaving chan struct{}   // closed when the port is to end: what nobody else ends does so
	life    context.Context // of WebSockets, which outlive their request's
	die     context.CancelFunc
	guests  guests
}

// guests are the requests that are being answered.
type guests struct {
	wg     sync.WaitGroup
	mu     sync.Mutex
	closed bool
}

// enter says whether a request may be answered still; then leave must follow.
func (g *guests) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.wg.Add(1)
	}
	return !g.closed
}

func (g *guests) leave() { g.wg.Done() }

// close lets nobody enter any more.
func (g *guests) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// Shared by all answers: net/http only reads them.
var contentType = []string{"application/json"}

// buffers holds the answers being made (BenchmarkAnswer).
var buffers = sync.Pool{New: func() any { return new(buffer) }}

type buffer struct {
	b     []byte
	names []string
}

func newHandler(a *App, port int) *handler {
	b := append([]byte(nil), `{"workload":`...)
	b = appendString(b, a.o.Workload)
	b = append(b, `,"namespace":`...)
	b = appendString(b, a.o.Namespace)
	b = append(b, `,"instance":`...)
	b = appendString(b, a.o.Instance)
	b = append(b, `,"version":`...)
	b = appendString(b, a.o.Version)
	b = append(b, `,"port":`...)
	b = strconv.AppendInt(b, int64(port), 10)
	b = append(b, `,"method":`...)
	h := &handler{app: a, port: port, opening: b, leaving: make(chan struct{})}
	h.life, h.die = context.WithCancel(context.Background())
	return h
}

// ServeHTTP answers with what it received.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.guests.enter() {
		panic(http.ErrAbortHandler) // the port has ended: a return would be an empty answer
	}
	defer h.guests.leave()
	if speaksGRPC(r) {
		h.serveGRPC(w, r)
		return
	}
	behaviour, err := h.behaviour(r.Header)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.ContentLength != 0 {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // the client is gone
		}
	}
	status := http.StatusOK
	if behaviour.strikes() {
		status = behaviour.http()
		if !pause(r.Context(), behaviour.Delay) {
			return
		}
	}
	if status == http.StatusOK && asksForWebSocket(r) {
		h.serveWebSocket(w, r)
		return
	}
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	h.describe(buf, r)
	if status == http.StatusOK {
		for i, target := range h.app.role.Load().Calls {
			if i > 0 {
				buf.b = append(buf.b, ',')
			}
			buf.b = h.call(r.Context(), buf.b, r.Header, target)
		}
	}
	buf.b = append(buf.b, "]}\n"...)
	if count, every := eventsAsked(r); status == http.StatusOK && count > 0 {
		sendEvents(w, r, buf.b, count, every)
		return
	}

	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = []string{strconv.Itoa(len(buf.b))}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		clear(header)
		w.WriteHeader(status)
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write(buf.b) // fails where the client is gone; nobody is left to tell
}

// behaviour is how a request with that header is answered: as it asks for itself, else as the role says.
func (h *handler) behaviour(header http.Header) (Behaviour, error) {
	if asked, ok := header[askHeader]; ok {
		return ParseBehaviour(strings.Join(asked, " "))
	}
	return h.app.role.Load().Behaviour, nil
}

// pause waits; it returns false where ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// describe writes the answer up to the opening bracket of its calls.
func (h *handler) describe(buf *buffer, r *http.Request) {
	b := append(buf.b[:0], h.opening...)
	b = appendString(b, r.Method)
	b = append(b, `,"host":`...)
	b = appendString(b, r.Host)
	b = append(b, `,"path":`...)
	path := r.RequestURI
	if !strings.HasPrefix(path, "/") && path != "*" {
		path = r.URL.RequestURI() // absolute-form
	}
	b = appendString(b, path)
	b = append(b, `,"headers":{`...)
	names := buf.names[:0]
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendLower(b, name)
		b = append(b, ':')
		b = appendString(b, joined(name, r.Header[name]))
	}
	buf.names = names
	buf.b = append(b, `},"calls":[`...)
}

// joined is the value of one field that stands for all fields of the name.
func joined(name string, values []string) string {
	switch {
	case len(values) == 1:
		return values[0]
	case name == "Cookie":
		return strings.Join(values, "; ")
	}
	return strings.Join(values, ", ")
}

// appendLower appends a canonical header name as a JSON string, in lower case.
func appendLower(b []byte, name string) []byte {
	at := len(b)
	b = appendString(b, name)
	for i := at; i < len(b); i++ {
		if c := b[i]; 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}

// appendString appends s as a JSON string; bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}
