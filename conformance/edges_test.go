package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// chain runs a gateway before a sidecar before an application, both proxies with the default limits.
func chain(t *testing.T, b *backend, between model.Protocol) *mesh {
	t.Helper()
	sidecar := start(t, b.address(), setting{})
	return start(t, sidecar.Address(inbound), setting{protocol: between, edit: func(s *model.Snapshot) {
		s.Clusters[0].Endpoints[0].Sidecar = true
	}})
}

// A request that is just within the limits is so at every proxy on its way, whatever they add to it, and in whatever version
// it goes on; one beyond is refused by the first.
func TestLimitsAlongTheWay(t *testing.T) {
	for _, between := range []model.Protocol{model.HTTP, model.HTTP2} {
		t.Run(string(between), func(t *testing.T) {
			b := newBackend(t)
			m := chain(t, b, between)
			f := func(name string, fields [][2]string, ok bool) {
				t.Helper()
				want, want2 := 200, "200"
				if !ok {
					want, want2 = 431, "431"
				}
				var head strings.Builder
				head.WriteString("GET / HTTP/1.1\r\nHost: app\r\n")
				for _, k := range fields {
					head.WriteString(k[0] + ": " + k[1] + "\r\n")
				}
				c := dial(t, m.Address(gateway))
				c.send(head.String() + "\r\n")
				if a := c.must("GET"); a.status != want {
					t.Errorf("%s: %d", name, a.status)
				}
				c2 := dial2(t, m.Address(gateway))
				if got := c2.await(c2.open(true, append(request2("GET", "/"), fields...)...)); got != want2 {
					t.Errorf("%s, HTTP/2: %q", name, got)
				}
			}
			many := func(n int) (all [][2]string) {
				for i := range n {
					all = append(all, [2]string{fmt.Sprintf("x-%d", i), "y"})
				}
				return all
			}
			f("99 fields and Host", many(99), true)
			f("102 fields", many(102), false)
			added := [][2]string{{"x-request-id", "a"}, {"x-forwarded-for", "1.2.3.4"}, {"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
			f("99 fields, Host and what proxies add", append(many(99), added...), true)
			f("98 fields, Host, and the same field that proxies add three times", append(many(98), added[0], added[0], added[0], added[0]), false)
			f("a field of nearly 8 KiB", [][2]string{{"x", strings.Repeat("y", 8180)}}, true)
			large := func(n, rest int) (all [][2]string) { // in HTTP/2 each counts for 32 bytes and its name, in HTTP/1 for less
				for i := range n {
					all = append(all, [2]string{fmt.Sprintf("x-%02d", i), strings.Repeat("y", 560)})
				}
				return append(all, [2]string{"x-rest", strings.Repeat("y", rest)})
			}
			f("nearly 60 KiB", large(99, 2000)[1:], true)
			f("more than 60 KiB", large(99, 8000)[1:], false)
		})
	}
}

// The same for responses.
func TestResponseLimitsAlongTheWay(t *testing.T) {
	for _, between := range []model.Protocol{model.HTTP, model.HTTP2} {
		var head strings.Builder
		head.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n")
		for i := range 99 {
			fmt.Fprintf(&head, "x-%d: y\r\n", i)
		}
		b := newBackend(t)
		m := chain(t, b, between)
		for range 2 {
			b.script(&scenario{answer: &answer{early: []byte(head.String() + "\r\n"), closes: true}})
			c := dial(t, m.Address(gateway))
			c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
			if a := c.must("GET"); a.status != 200 || field(a.head, "x-98") != "y" {
				t.Errorf("%s: an answer of 100 fields is one of %d: %q", between, a.status, a.head)
			}
		}
	}
}

// The room for what proxies add is for them: a client that asks a sidecar itself has the limit that everybody has.
func TestLimitsWithoutAProxyBefore(t *testing.T) {
	b := newBackend(t)
	m := start(t, b.address(), setting{})
	fields := func(rest int) (all [][2]string) {
		for range 9 {
			all = append(all, [2]string{"x", strings.Repeat("y", 6000)})
		}
		return append(all, [2]string{"x", strings.Repeat("y", rest)})
	}
	f := func(name string, fields [][2]string, want int) {
		t.Helper()
		head := "GET / HTTP/1.1\r\nHost: app\r\n"
		for _, k := range fields {
			head += k[0] + ": " + k[1] + "\r\n"
		}
		c := dial(t, m.Address(inbound))
		c.send(head + "\r\n")
		if a := c.must("GET"); a.status != want {
			t.Errorf("%s: %d, want %d", name, a.status, want)
		}
		c2 := dial2(t, m.Address(inbound))
		if got := c2.await(c2.open(true, append(request2("GET", "/"), fields...)...)); got != fmt.Sprint(want) {
			t.Errorf("%s, HTTP/2: %q, want %d", name, got, want)
		}
	}
	f("within it", fields(6000), 200)
	f("beyond it", fields(8000), 431)
	f("beyond it, by a proxy", append(fields(7800), [2]string{"x-outrider-peer", "name=web"}), 200)
}
