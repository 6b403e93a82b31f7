package standin

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// askHeader carries the behaviour that one request asks for.
const askHeader = "Outrider-Stand-In"

// propagated are the header fields that an application passes on for traces to hang together: request id, W3C trace
// context and Zipkin's B3, in one and in several fields.
var propagated = []string{
	"X-Request-Id", "Traceparent", "Tracestate", "Baggage", "B3",
	"X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
}

// handler answers the HTTP requests of one port.
type handler struct {
	app *App
	// opening is the part of the answer that is the same for every request.
	opening []byte
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
	return &handler{app: a, opening: b}
}

// ServeHTTP answers with what it received. A behaviour that the request itself asks for goes before the role's.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	role := h.app.role.Load()
	behaviour := role.Behaviour
	if asked, ok := r.Header[askHeader]; ok {
		var err error
		if behaviour, err = ParseBehaviour(strings.Join(asked, " ")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	if r.ContentLength != 0 {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // the client is gone
		}
	}
	status := http.StatusOK
	strikes := behaviour.strikes()
	if strikes {
		if behaviour.Status != 0 {
			status = behaviour.Status
		}
		if !wait(r, behaviour.Delay) {
			return
		}
	}
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	h.describe(buf, r)
	if status == http.StatusOK {
		for i, url := range role.Calls {
			if i > 0 {
				buf.b = append(buf.b, ',')
			}
			buf.b = h.call(buf.b, r, url)
		}
	}
	buf.b = append(buf.b, "]}\n"...)

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

// wait holds r's answer back; it returns false where the client left meanwhile.
func wait(r *http.Request, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
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
		separator := ", "
		if name == "Cookie" {
			separator = "; "
		}
		if values := r.Header[name]; len(values) == 1 {
			b = appendString(b, values[0])
		} else {
			b = appendString(b, strings.Join(values, separator))
		}
	}
	buf.names = names
	buf.b = append(b, `},"calls":[`...)
}

// call calls url on r's behalf and appends its answer: the answer itself where it is JSON with status 200, else an
// object that says what came instead.
func (h *handler) call(b []byte, r *http.Request, url string) []byte {
	status, reason, body, err := h.fetch(r, url)
	if err == nil && status == http.StatusOK && json.Valid(body) {
		return append(b, strings.TrimSpace(string(body))...)
	}
	b = append(b, `{"url":`...)
	b = appendString(b, url)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	if err != nil {
		b = append(b, `,"error":`...)
		b = appendString(b, err.Error())
		return append(b, '}')
	}
	if reason != "" {
		b = append(b, `,"reason":`...)
		b = appendString(b, reason)
	}
	b = append(b, `,"body":`...)
	b = appendString(b, strings.TrimSpace(string(body)))
	return append(b, '}')
}

// maxNested bounds the answers that are nested.
const maxNested = 1 << 20

func (h *handler) fetch(r *http.Request, url string) (status int, reason string, body []byte, err error) {
	select {
	case h.app.calling <- struct{}{}:
		defer func() { <-h.app.calling }()
	default:
		return 0, "", nil, fmt.Errorf("cannot call: %d calls are under way already; do workloads call each other in a circle?", maxCalls)
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", nil, err
	}
	for _, name := range propagated {
		if v := r.Header[name]; v != nil {
			req.Header[name] = v
		}
	}
	resp, err := h.app.client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxNested+1))
	if err == nil && len(body) > maxNested {
		err = fmt.Errorf("the answer is longer than %d bytes", maxNested)
	}
	return resp.StatusCode, resp.Header.Get("X-Outrider-Reason"), body, err
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

// ParseCalls reads the annotation outrider.dev/calls: http URLs with commas or spaces between them.
func ParseCalls(text string) ([]string, error) {
	calls := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
	for _, c := range calls {
		req, err := http.NewRequest(http.MethodGet, c, nil)
		if err != nil || req.URL.Host == "" || (req.URL.Scheme != "http" && req.URL.Scheme != "https") {
			return nil, fmt.Errorf("cannot read %q: calls are URLs like http://reviews:9080/", c)
		}
	}
	return calls, nil
}
