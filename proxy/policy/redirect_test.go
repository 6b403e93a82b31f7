package policy

import (
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func TestLocation(t *testing.T) {
	slash := "/"
	f := func(d model.Redirect, scheme, line string, listenerPort, prefix int, segments bool, want string) {
		t.Helper()
		d.Status = 302
		c, err := NewRedirect(&d)
		if err != nil {
			t.Fatal(err)
		}
		r := request(t, line)
		if scheme != "" {
			r.SetScheme([]byte(scheme))
		}
		if got := string(c.AppendLocation([]byte(">"), r, listenerPort, prefix, segments, &Scratch{})); got != ">"+want {
			t.Errorf("%+v of %s: got %s, want %s", d, line, got, want)
		}
	}
	// The path and the query.
	f(model.Redirect{}, "", "GET a /p?q=1&r", 80, 1, false, "http://a/p?q=1&r")
	f(model.Redirect{Path: &model.PathRewrite{Full: "/x"}}, "", "GET a /p?q=1", 80, 1, false, "http://a/x?q=1")
	f(model.Redirect{Path: &model.PathRewrite{Full: "/x?y=2"}}, "", "GET a /p?q=1", 80, 1, false, "http://a/x?y=2")
	f(model.Redirect{Path: &model.PathRewrite{Prefix: &slash}}, "", "GET a /foo//b.example?q", 80, 4, true, "http://a/b.example?q")
	f(model.Redirect{Path: &model.PathRewrite{Regex: &model.RegexRewrite{Pattern: "^/(.*)/(.*)$", Substitution: `/\2/\1`}}}, "", "GET a /x/y", 80, -1, false, "http://a/y/x")
	f(model.Redirect{}, "", "GET a //b.example/x", 80, 1, false, "http://a//b.example/x")
	f(model.Redirect{}, "", "OPTIONS a *", 80, 0, false, "http://a/")
	// No host at all: never a reference to another one.
	f(model.Redirect{}, "", "GET  //b.example/x?q", 80, 1, false, "/b.example/x?q")
	f(model.Redirect{}, "", `GET  /\b.example`, 80, 1, false, "/b.example")
	f(model.Redirect{}, "", "GET :80 //b.example", 80, 1, false, "/b.example")
	f(model.Redirect{Scheme: "https"}, "", "GET  /x", 80, 1, false, "/x")
	// Host and scheme.
	f(model.Redirect{Host: "b"}, "", "GET a:8080 /", 80, 1, false, "http://b/")
	f(model.Redirect{Host: "::1"}, "", "GET a /", 80, 1, false, "http://[::1]/")
	f(model.Redirect{Host: "b", Port: 8080}, "https", "GET a /", 80, 1, false, "https://b:8080/")
	f(model.Redirect{Host: "b"}, "", "GET  /x", 80, 1, false, "http://b/x")
	// The port as it was.
	f(model.Redirect{}, "", "GET a:8080 /", 80, 1, false, "http://a:8080/")
	f(model.Redirect{}, "", "GET [::1]:8080 /", 80, 1, false, "http://[::1]:8080/")
	f(model.Redirect{}, "", "GET a:80 /", 80, 1, false, "http://a/")
	f(model.Redirect{}, "https", "GET a:443 /", 80, 1, false, "https://a/")
	f(model.Redirect{}, "https", "GET a:80 /", 80, 1, false, "https://a:80/")
	f(model.Redirect{Scheme: "https"}, "", "GET a:80 /", 80, 1, false, "https://a/")
	f(model.Redirect{Scheme: "https"}, "", "GET a:8080 /", 80, 1, false, "https://a:8080/")
	f(model.Redirect{Scheme: "HTTP"}, "https", "GET a:443 /", 80, 1, false, "http://a/")
	// The port named.
	f(model.Redirect{Port: 80}, "", "GET a:8080 /", 8080, 1, false, "http://a/")
	f(model.Redirect{Port: 443, Scheme: "https"}, "", "GET a:8080 /", 8080, 1, false, "https://a/")
	f(model.Redirect{Port: 443}, "", "GET a /", 8080, 1, false, "http://a:443/")
	// The port of the request, else of the listener.
	f(model.Redirect{PortFrom: "request"}, "", "GET a:8080 /", 9090, 1, false, "http://a:8080/")
	f(model.Redirect{PortFrom: "request"}, "", "GET a /", 9090, 1, false, "http://a:9090/")
	f(model.Redirect{PortFrom: "request"}, "", "GET a /", 80, 1, false, "http://a/")
	f(model.Redirect{PortFrom: "request"}, "https", "GET a /", 80, 1, false, "https://a/") // TLS ended before, at another port
	f(model.Redirect{PortFrom: "request", Scheme: "https"}, "", "GET a /", 80, 1, false, "https://a:80/")
	f(model.Redirect{PortFrom: "request", Host: "b", Scheme: "https"}, "", "GET a /", 8443, 1, false, "https://b:8443/")
	// The scheme's own port.
	f(model.Redirect{PortFrom: "scheme"}, "", "GET a:8080 /", 8080, 1, false, "http://a/")
	f(model.Redirect{PortFrom: "scheme", Scheme: "https"}, "", "GET a:8080 /", 8080, 1, false, "https://a/")
}

func TestBadRedirects(t *testing.T) {
	for _, d := range []model.Redirect{
		{},
		{Status: 304},
		{Status: 302, Host: "a b"},
		{Status: 302, Scheme: "ht\ntp"},
		{Status: 302, Port: 70000},
		{Status: 302, PortFrom: "elsewhere"},
		{Status: 302, Path: &model.PathRewrite{Full: "/a\r\nset-cookie: x"}},
	} {
		if _, err := NewRedirect(&d); err == nil {
			t.Errorf("%+v is taken", d)
		}
	}
	if d, err := NewRedirect(nil); d != nil || err != nil {
		t.Error("nil is not nil")
	}
	for _, status := range []int{301, 302, 303, 307, 308} {
		if d, err := NewRedirect(&model.Redirect{Status: status}); err != nil || d.Status() != status {
			t.Errorf("status %d: %v", status, err)
		}
	}
}

func TestLocationDoesNotAllocate(t *testing.T) {
	prefix := "/x"
	d, err := NewRedirect(&model.Redirect{Status: 301, Scheme: "https", PortFrom: "request", Path: &model.PathRewrite{Prefix: &prefix}})
	if err != nil {
		t.Fatal(err)
	}
	r, s, dst := request(t, "GET a:8080 /foo/bar?q"), &Scratch{}, []byte(nil)
	run := func() { dst = d.AppendLocation(dst[:0], r, 80, 4, true, s) }
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if string(dst) != "https://a:8080/x/bar?q" {
		t.Errorf("got %s", dst)
	}
}

func BenchmarkLocation(b *testing.B) {
	d, err := NewRedirect(&model.Redirect{Status: 301, Scheme: "https"})
	if err != nil {
		b.Fatal(err)
	}
	r, s, dst := request(b, "GET a:8080 /foo/bar?q"), &Scratch{}, []byte(nil)
	b.ReportAllocs()
	for b.Loop() {
		dst = d.AppendLocation(dst[:0], r, 80, 4, true, s)
	}
}
