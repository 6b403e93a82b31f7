package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

func dialPlain(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// checkHead fails where a field could end a line or a message of HTTP/1 early, or should not have come through.
func checkHead(t *testing.T, h *message.Head) {
	t.Helper()
	for i := range h.Len() {
		id, name, value := h.Field(i)
		if len(name) == 0 {
			continue
		}
		if !isToken(name) || string(name) != strings.ToLower(string(name)) || bytes.ContainsAny(value, "\r\n\x00") || strings.Trim(string(value), " \t") != string(value) {
			t.Fatalf("field %q: %q", name, value)
		}
		if id != message.Identify(name) {
			t.Fatalf("field %q has ID %d", name, id)
		}
		if forbidden>>id&1 != 0 || id == message.ContentLength || id == message.TE || id == message.HTTP2Settings {
			t.Fatalf("field %q is still in the list", name)
		}
	}
}

// FuzzReceive gives a connection arbitrary bytes, once whole and once cut in two: it must not panic, come to the same
// end, keep its memory bounded, and let no head through that it should not.
func FuzzReceive(f *testing.F) {
	block := newRaw().block(with(simple, "a", "b", "cookie", "c", "cookie", "d")...)
	for _, w := range []*raw{
		newRaw().get(1).post(3).frame(frameData, flagEndStream, 3, 'a').frame(framePing, 0, 0, make([]byte, 8)...),
		newRaw().frame(frameHeaders, 0, 1, block[:5]...).frame(frameContinuation, flagEndHeaders, 1, block[5:]...),
		newRaw().frame(frameSettings, 0, 0, settings(1, 0, 4, 5)...).get(1).frame(frameWindowUpdate, 0, 0, 0, 0, 0, 1),
		newRaw().post(1).head(flagEndStream, 1, "x", "y").frame(frameRSTStream, 0, 1, 0, 0, 0, 8).frame(frameGoAway, 0, 0, make([]byte, 8)...),
		newRaw().head(0, 1, ":status", "103").head(0, 1, ":status", "200", "content-length", "1").frame(frameData, flagPadded|flagEndStream, 1, 1, 'a', 0),
		newRaw().head(flagEndStream, 3, ":status", "204").frame(framePriority, 0, 5, 0, 0, 0, 1, 1),
	} {
		f.Add(w.b, uint16(len(w.b)/2))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		for _, role := range []Role{Server, Client} {
			whole, _ := converse(t, role, b, len(b))
			parts, _ := converse(t, role, b, int(cut)%(len(b)+1))
			if whole != parts {
				t.Fatalf("whole:\n%s\nin parts:\n%s", whole, parts)
			}
		}
	})
}

// converse gives the bytes to a connection and returns what its handler was told, and what it sent.
func converse(t *testing.T, role Role, b []byte, cut int) (told string, sent []byte) {
	e := newEnd(role, Options{})
	e.request = func(s *Stream, r *message.Request, _ bool) {
		checkHead(t, &r.Head)
		switch {
		case s.ID()%8 == 3:
			s.Respond(reply(200, 0), true)
			s.Release()
		case s.ID()%8 == 5:
			s.Release()
		}
	}
	e.response = func(_ *Stream, r *message.Response, _ bool) { checkHead(t, &r.Head) }
	e.trailer = func(_ *Stream, h *message.Head) { checkHead(t, h) }
	e.data = func(s *Stream, p []byte, _ bool) { s.Consume(len(p) / 2) }
	e.reset = func(s *Stream, _ Code, _ bool) { s.Release() }
	if role == Client {
		for range 3 {
			if _, err := e.Open(get("/"), nil, true); err != nil {
				t.Fatal(err)
			}
		}
	} else {
		e.receive([]byte(Preface))
	}
	e.receive(newRaw().frame(frameSettings, 0, 0).b)
	e.receive(b[:cut])
	e.receive(b[cut:])
	if n := len(e.in); e.err == nil && n >= frameHead+frameMax {
		t.Fatalf("%d bytes are not used", n)
	}
	if n := cap(e.block.b) + len(e.gone.ids); n > 128<<10 {
		t.Fatalf("holds %d bytes", n)
	}
	sent = e.take()
	e.Close(Cancel)
	if e.Streams() != 0 {
		t.Fatal("streams are left")
	}
	return e.took(), sent
}

// FuzzHeads carries a request and a response of arbitrary pieces from one of ours to another: what is refused is refused
// for a reason that has a name, and what comes through is what was sent.
func FuzzHeads(f *testing.F) {
	f.Add("GET", "a:80", "/a", "?b", "x-name", "value", "cookie", "c", int64(5))
	f.Add("POST", "", "/a b", "", "X", " y", "te", "trailers", int64(-1))
	f.Fuzz(func(t *testing.T, method, authority, path, query, n1, v1, n2, v2 string, length int64) {
		p := newPair(Options{}, Options{})
		var got *message.Request
		p.server.request = func(s *Stream, r *message.Request, _ bool) {
			got = new(message.Request)
			*got, *r = *r, *got
			checkHead(t, &got.Head)
			res := reply(200, length)
			if n1 != "" && n2 != "" {
				res.Add(n1, v1)
				res.Add(n2, v2)
			}
			s.Respond(res, false)
		}
		p.client.response = func(_ *Stream, r *message.Response, _ bool) { checkHead(t, &r.Head) }
		r := get(path)
		r.SetMethod([]byte(method))
		r.SetAuthority([]byte(authority))
		r.SetQuery([]byte(query))
		r.BodyLength = max(length, -1)
		if n1 != "" && n2 != "" {
			r.Add(n1, v1)
			r.Add(n2, v2)
		}
		if _, err := p.client.Open(r, nil, false); err != nil {
			t.Fatal(err)
		}
		p.run()
		if p.client.err != nil || p.server.err != nil {
			t.Fatal(p.client.err, p.server.err)
		}
		if got == nil {
			if !strings.HasPrefix(p.server.took(), "refused") {
				t.Fatal("it vanished")
			}
			return
		}
		target := path + query
		if path == "" {
			target = "/" + query
		}
		if method == "CONNECT" {
			target = ""
		}
		if string(got.Method()) != method || string(got.Path())+string(got.Query()) != target || string(got.Authority()) != authority && authority != "" {
			t.Fatalf("%q %q %q", got.Method(), got.Path(), got.Query())
		}
	})
}
