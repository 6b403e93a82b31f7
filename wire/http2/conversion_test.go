package http2

import (
	"slices"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/message"
)

// wide has room for what a head grows by when it is written again.
var wide = http1.Limits{Head: 1 << 20, Fields: 500, Field: 1 << 20, Line: 1 << 20}

// FuzzConversion takes what HTTP/1.1 accepts through a connection of HTTP/2, back to HTTP/1.1 and once more to HTTP/2: it
// is refused nowhere on the way, and means the same at its end.
func FuzzConversion(f *testing.F) {
	for _, s := range []string{
		"T / HTTP/1.1\r\nHost:a\r\nCookie:a=b; c=d\r\ncookie:\r\n\r\n", "GET /a/%2e?b=c;d HTTP/1.1\r\nHost: a:80\r\nCookie: a=b; c=d\r\ncookie: e=f\r\nX-Name: v,  w\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: te, x\r\nX: y\r\nExpect: 100-continue\r\n\r\n",
		"PUT * HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: [::1]:8\r\n\r\n",
		"GET http://a:80 HTTP/1.1\r\nHost: a:80\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n", "HTTP/1.0 404 what?\r\nConnection: close, x\r\nX: 1\r\n\r\n",
		"HTTP/1.1 204\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if n, err := http1.HeadEnd(raw, 0, nil); err == nil && n > 0 {
			var r message.Request
			if http1.ReadRequest(&r, raw[:n], nil) == nil {
				convertRequest(t, &r)
			}
		}
		if n, err := http1.ResponseHeadEnd(raw, 0, nil); err == nil && n > 0 {
			var r message.Response
			if http1.ReadResponse(&r, raw[:n], []byte("GET"), nil) == nil {
				convertResponse(t, &r)
			}
		}
	})
}

// convertRequest takes a request that HTTP/1.1 has read, as a proxy would forward it.
func convertRequest(t *testing.T, r *message.Request) {
	if string(r.Method()) == "CONNECT" || r.Upgrade || len(r.Authority()) == 0 {
		return // these are no requests to forward so: tunnels, and HTTP/1.0 without Host
	}
	r.SetScheme([]byte("http"))
	first := over(t, r)
	out := http1.AppendRequest(nil, first, http1.RequestOptions{})
	var second message.Request
	if n, err := http1.HeadEnd(out, 0, &wide); err != nil || n != len(out) {
		t.Fatalf("%q ends at %d, %v", out, n, err)
	}
	if err := http1.ReadRequest(&second, out, &wide); err != nil {
		t.Fatalf("%q is refused: %v", out, err)
	}
	second.SetScheme([]byte("http"))
	same(t, out, r, &second)
	same(t, out, r, over(t, &second))
}

// same fails where two requests do not mean the same.
func same(t *testing.T, out []byte, a, b *message.Request) {
	t.Helper()
	told := func(r *message.Request) string {
		return strings.Join([]string{string(r.Method()), string(r.Authority()), string(r.Path()), string(r.Query())}, " ")
	}
	if told(a) != told(b) || a.BodyLength != b.BodyLength || a.ExpectContinue != b.ExpectContinue || a.Trailers != b.Trailers {
		t.Fatalf("%s, %d bytes, came as %s, %d bytes, by way of %q", told(a), a.BodyLength, told(b), b.BodyLength, out)
	}
	x, cookies := fields(&a.Head)
	y, came := fields(&b.Head)
	if !slices.Equal(x, y) || cookies != came {
		t.Fatalf("%q and cookies %q came as %q and %q, by way of %q", x, cookies, y, came, out)
	}
}

// fields are those of h that go on, in order; cookies are apart, since HTTP/2 may cut and join them (RFC 9113 §8.2.3).
func fields(h *message.Head) (list []string, cookies string) {
	for i := range h.Len() {
		switch id, name, value := h.Field(i); {
		case len(name) == 0 || id == message.ProxyAuthorization:
		case message.EqualFold(name, "cookie"):
			if len(value) > 0 {
				cookies += "; " + string(value)
			}
		default:
			list = append(list, strings.ToLower(string(name))+": "+string(value))
		}
	}
	return list, cookies
}

// over sends a request over a connection of HTTP/2 and returns what its server reads.
func over(t *testing.T, r *message.Request) *message.Request {
	t.Helper()
	p := newPair(Options{}, Options{Limits: wide})
	var got *message.Request
	p.server.request = func(s *Stream, r *message.Request, end bool) {
		got = new(message.Request)
		*got, *r = *r, *got
		checkHead(t, &got.Head)
		s.Release()
	}
	if _, err := p.client.Open(r, nil, r.BodyLength == message.NoBody); err != nil {
		t.Fatal(err)
	}
	p.run()
	if got == nil {
		t.Fatalf("%q is refused: %s", http1.AppendRequest(nil, r, http1.RequestOptions{}), p.server.took())
	}
	return got
}

// convertResponse does with a response what convertRequest does with a request.
func convertResponse(t *testing.T, r *message.Response) {
	if r.Status == 101 {
		return // there is none in HTTP/2
	}
	first := back(t, r)
	out := http1.AppendResponse(nil, first, http1.ResponseOptions{})
	var second message.Response
	if n, err := http1.ResponseHeadEnd(out, 0, &wide); err != nil || n != len(out) {
		t.Fatalf("%q ends at %d, %v", out, n, err)
	}
	if err := http1.ReadResponse(&second, out, []byte("GET"), &wide); err != nil {
		t.Fatalf("%q is refused: %v", out, err)
	}
	for _, b := range []*message.Response{&second, back(t, &second)} {
		x, _ := fields(&r.Head)
		y, _ := fields(&b.Head)
		if r.Status != b.Status || r.BodyLength != b.BodyLength || !slices.Equal(x, y) {
			t.Fatalf("%d with %d bytes and %q came as %d with %d bytes and %q, by way of %q", r.Status, r.BodyLength, x, b.Status, b.BodyLength, y, out)
		}
	}
}

// back answers a request over a connection of HTTP/2 and returns what its client reads.
func back(t *testing.T, r *message.Response) *message.Response {
	t.Helper()
	p := newPair(Options{Limits: wide}, Options{})
	var got *message.Response
	p.server.request = func(s *Stream, _ *message.Request, _ bool) {
		s.Respond(r, r.Status >= 200 && r.BodyLength == message.NoBody)
	}
	p.client.response = func(_ *Stream, r *message.Response, _ bool) {
		got = new(message.Response)
		*got, *r = *r, *got
		checkHead(t, &got.Head)
	}
	if _, err := p.client.Open(get("/"), nil, true); err != nil {
		t.Fatal(err)
	}
	p.run()
	if got == nil {
		t.Fatalf("%q is refused: %s", http1.AppendResponse(nil, r, http1.ResponseOptions{}), p.client.took())
	}
	return got
}
