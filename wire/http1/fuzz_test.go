package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// checkFields fails where a field of h could end a line or a message early.
func checkFields(t *testing.T, h *message.Head) {
	t.Helper()
	for i := range h.Len() {
		id, name, value := h.Field(i)
		if len(name) == 0 {
			continue
		}
		if !isToken(name) || bytes.ContainsAny(value, "\r\n\x00") || strings.TrimSpace(string(value[:min(1, len(value))])) != string(value[:min(1, len(value))]) {
			t.Fatalf("field %q: %q", name, value)
		}
		if id != message.Identify(name) {
			t.Fatalf("field %q has ID %d", name, id)
		}
		switch id {
		case message.Connection, message.ContentLength, message.TransferEncoding, message.KeepAlive, message.ProxyConnection,
			message.Upgrade, message.TE, message.HTTP2Settings:
			t.Fatalf("field %q is still in the list", name)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, s := range []string{
		meshRequest, "\r\nGET / HTTP/1.0\r\n\r\n", "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
		"GET http://a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: [::1]:8\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, x\r\nUpgrade: h2c, b/1\r\nX: 1\r\nx:2 \r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "GET /%2e%2e/a HTTP/1.1\nHost: a\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { checkRequest(t, raw) })
}

// checkRequest reads raw and holds what comes of it to all that must hold; it says whether raw was accepted.
func checkRequest(t *testing.T, raw []byte) (accepted bool) {
	t.Helper()
	n, err := HeadEnd(raw, 0, nil)
	if n < 0 || n > len(raw) || err != nil && n != 0 {
		t.Fatalf("end at %d of %d, %v", n, len(raw), err)
	}
	half, err2 := HeadEnd(raw[:len(raw)/2], 0, nil)
	if half == 0 && err2 == nil {
		again, err2 := HeadEnd(raw, len(raw)/2, nil)
		if again != n || (err == nil) != (err2 == nil) {
			t.Fatalf("end at %d, %v; in two steps at %d, %v", n, err, again, err2)
		}
	}
	var r message.Request
	if n == 0 {
		_ = ReadRequest(&r, raw, nil) // whatever it says, it must not panic
		return false
	}
	if err := ReadRequest(&r, raw[:n], nil); err != nil {
		if e := err.(*Error); e.Status < 400 || e.Status > 505 {
			t.Fatalf("status %d", e.Status)
		}
		return false
	}
	checkFields(t, &r.Head)
	o := RequestOptions{Absolute: r.Absolute}
	out := AppendRequest(nil, &r, o)
	if m, err := HeadEnd(out, 0, &Limits{Head: 1 << 20, Field: 1 << 20, Line: 1 << 20}); m != len(out) || err != nil {
		t.Fatalf("%q was written as %q, which ends at %d, %v", raw[:n], out, m, err)
	}
	var s message.Request
	if err := ReadRequest(&s, out, &Limits{Head: 1 << 20, Fields: 200, Field: 1 << 20, Line: 1 << 20}); err != nil {
		if len(r.Authority()) == 0 {
			return true // from HTTP/1.0: an empty Host goes on, and we do not take one
		}
		t.Fatalf("%q was written as %q, which is refused: %v", raw[:n], out, err)
	}
	if again := AppendRequest(nil, &s, o); !bytes.Equal(out, again) {
		t.Fatalf("%q was written as %q, and that as %q", raw[:n], out, again)
	}
	if !bytes.Equal(r.Method(), s.Method()) || !bytes.Equal(r.Path(), s.Path()) || !bytes.Equal(r.Query(), s.Query()) || r.BodyLength != s.BodyLength {
		t.Fatalf("%q was written as %q, which reads as something else", raw[:n], out)
	}
	compareRequest(t, raw[:n], out, &r)
	return true
}

// compareRequest reads what we accepted and what we wrote with net/http, which must see the same message, or refuse it.
func compareRequest(t *testing.T, raw, out []byte, r *message.Request) {
	t.Helper()
	// net/http decodes the escapes of a host in a target; here they stay as they are.
	same := func(host string) bool {
		decoded, err := url.PathUnescape(string(r.Authority()))
		return host == string(r.Authority()) || err == nil && host == decoded
	}
	if std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw))); err == nil {
		if std.Method != string(r.Method()) || std.ContentLength != r.BodyLength {
			t.Fatalf("%q: net/http has %s with %d bytes, we %s with %d", raw, std.Method, std.ContentLength, r.Method(), r.BodyLength)
		}
		if host := strings.TrimSuffix(std.Host, ":"); !same(host) {
			t.Fatalf("%q: net/http has the host %q, we %q", raw, host, r.Authority())
		}
	}
	std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(out)))
	if err != nil {
		return // it knows some rules better than we: of URLs, for one
	}
	if std.Method != string(r.Method()) || !same(std.Host) || std.ContentLength != r.BodyLength {
		t.Fatalf("%q: net/http has %s %s with %d bytes, we %s %s with %d", out, std.Method, std.Host, std.ContentLength,
			r.Method(), r.Authority(), r.BodyLength)
	}
	count := 0
	for _, values := range std.Header {
		count += len(values)
	}
	for i := range r.Len() {
		if id, name, _ := r.Field(i); len(name) != 0 && id != message.ProxyAuthorization && !message.EqualFold(name, "trailer") {
			count--
		}
	}
	for _, name := range []string{"Content-Length", "Expect", "Te", "Connection", "Upgrade", "Trailer"} {
		count -= len(std.Header[name])
	}
	if !r.Absolute && count > 0 {
		t.Fatalf("%q: net/http sees %d more fields", out, count)
	}
}

func FuzzReadResponse(f *testing.F) {
	for _, s := range []string{
		meshResponse, "HTTP/1.0 200\r\n\r\nbody", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 304 N\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n", "HTTP/1.1 101 S\r\nUpgrade: a, h2c\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 103 E\r\nLink: a\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, raw []byte, pick uint8) { checkResponse(t, raw, pick) })
}

// checkResponse does for responses what checkRequest does; pick chooses the request's method and the options.
func checkResponse(t *testing.T, raw []byte, pick uint8) (accepted bool) {
	t.Helper()
	method := []string{"GET", "HEAD", "CONNECT", "POST"}[pick%4]
	n, err := ResponseHeadEnd(raw, 0, nil)
	if n < 0 || n > len(raw) || err != nil && (n != 0 || err.(*Error).Status != 502) {
		t.Fatalf("end at %d of %d, %v", n, len(raw), err)
	}
	var r message.Response
	if n == 0 {
		_ = ReadResponse(&r, raw, []byte(method), nil)
		return false
	}
	if err := ReadResponse(&r, raw[:n], []byte(method), nil); err != nil {
		if err.(*Error).Status != 502 {
			t.Fatalf("status %d", err.(*Error).Status)
		}
		return false
	}
	checkFields(t, &r.Head)
	o := ResponseOptions{Head: method == "HEAD", Close: pick&4 != 0}
	out := AppendResponse(nil, &r, o)
	var s message.Response
	if err := ReadResponse(&s, out, []byte(method), &Limits{Head: 1 << 20, Fields: 200, Field: 1 << 20, Line: 1 << 20}); err != nil {
		t.Fatalf("%q was written as %q, which is refused: %v", raw[:n], out, err)
	}
	if again := AppendResponse(nil, &s, o); !bytes.Equal(out, again) {
		t.Fatalf("%q was written as %q, and that as %q", raw[:n], out, again)
	}
	if s.Status != r.Status || s.BodyLength != r.BodyLength || s.HeadOnly != r.HeadOnly || s.UntilClose {
		t.Fatalf("%q was written as %q, which reads as something else", raw[:n], out)
	}
	if !r.HeadOnly && s.Close != Closes(&r, o) {
		t.Fatalf("%q: written with Close %v, to be closed %v", out, s.Close, Closes(&r, o))
	}
	if std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw[:n])), &http.Request{Method: method}); err == nil && method != "CONNECT" {
		length := r.BodyLength
		if r.HeadOnly {
			if length = std.ContentLength; r.Status != 304 && r.Declared >= 0 && r.Declared != length {
				t.Fatalf("%q: net/http has length %d, we %d", raw[:n], length, r.Declared)
			}
		}
		if std.StatusCode != r.Status || std.ContentLength != length {
			t.Fatalf("%q: net/http has %d with %d bytes, we %d with %d", raw[:n], std.StatusCode, std.ContentLength, r.Status, r.BodyLength)
		}
	}
	return true
}

func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\nnext", "5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\nHost: c\r\n\r\n", "FFFFFFFFFFFFFFFF\r\n", "3 \r\nabc\r\n",
		"3\nabc\n0\n\n", "0\r\nA: b\r\n c\r\n\r\n", "2\r\nab\r\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, raw []byte, step uint8) {
		content, used, trailers, done, err := decode(string(raw), len(raw)+1, nil)
		if used > len(raw) || len(content) > used {
			t.Fatalf("%d of %d bytes used for %d", used, len(raw), len(content))
		}
		content2, used2, trailers2, done2, err2 := decode(string(raw), int(step)+1, nil)
		if done != done2 || (err == nil) != (err2 == nil) || done && (content != content2 || used != used2 || trailers != trailers2) {
			t.Fatalf("%q %d %q %v %v, but in steps of %d %q %d %q %v %v", content, used, trailers, done, err, step+1, content2, used2, trailers2, done2, err2)
		}
		if !done {
			return
		}
		if bytes.ContainsAny([]byte(trailers), "\x00") {
			t.Fatalf("trailers %q", trailers)
		}
		// net/http reads the same content, or refuses.
		head := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
		std, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + string(raw[:used]))))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(std.Body); err == nil && string(body) != content {
			t.Fatalf("net/http reads %q, we %q", body, content)
		}
	})
}
