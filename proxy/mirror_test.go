package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// mirrorTo adds a cluster "mirror" at address to s, and lets r send it a share of the requests.
func mirrorTo(s *model.Snapshot, r *model.Rule, address string, protocol model.Protocol, percent float64) {
	c := s.Clusters[0]
	c.Name, c.Protocol = "outbound|80||mirror.default.svc.cluster.local", protocol
	c.Service = model.Service{Host: "mirror.default.svc.cluster.local", Name: "mirror", Namespace: "default"}
	c.Endpoints = []model.Endpoint{{Address: address, Weight: 1, Instance: "mirror-0"}}
	s.Clusters = append(s.Clusters, c)
	r.Route.Mirrors = append(r.Route.Mirrors, model.Mirror{Cluster: c.Name, Percent: percent})
}

func mirrored(t testing.TB, p *Proxy, result string) float64 {
	t.Helper()
	return valueOf(t, p, "outrider_mirrored_requests_total", "result="+result)
}

// Requests of all kinds are copied to a mirror of either version, from clients of either version; originals and the
// metrics of their edge are as without it.
func TestMirror(t *testing.T) {
	type seen struct {
		what   string
		header http.Header
	}
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint("mirror ", version), func(t *testing.T) {
			var mu sync.Mutex
			var copies []seen
			address := goServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != version {
					t.Errorf("the mirror was spoken to with %s", r.Proto)
				}
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				copies = append(copies, seen{fmt.Sprintf("%s %s%s %s %s", r.Method, r.Host, r.URL.RequestURI(), b, r.Trailer.Get("X-Sum")), r.Header})
				mu.Unlock()
				w.WriteHeader(500)
				_, _ = io.WriteString(w, strings.Repeat("unheard ", 10000))
			})
			taken := func() []seen {
				mu.Lock()
				defer mu.Unlock()
				return copies
			}
			protocol := model.HTTP
			if version == 2 {
				protocol = model.HTTP2
			}
			versions(t, func(s *model.Snapshot, r *model.Rule) {
				mirrorTo(s, r, address, protocol, 100)
				r.Request.Set = []model.NameValue{{Name: "x-rule", Value: "1"}}
			}, func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					t.Error(err)
				}
			}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
				ask := func(method, path string, body io.Reader, trailer, want string) {
					t.Helper()
					mu.Lock()
					copies = nil
					mu.Unlock()
					r := request(method, "http://app"+path, body)
					if trailer != "" {
						r.ContentLength = -1
						r.Trailer = http.Header{"X-Sum": {trailer}}
					}
					res, _ := fetch(t, c, r)
					if res.StatusCode != 200 {
						t.Errorf("got %v", res)
					}
					eventually(t, "the copy", func() bool { return len(taken()) > 0 })
					s := taken()[0]
					if s.what != want {
						t.Errorf("the mirror got %.200q, want %.200q", s.what, want)
					}
					if s.header.Get("X-Envoy-Internal") != "true" || s.header.Get("X-Rule") != "1" || s.header.Get("X-Envoy-Attempt-Count") != "1" {
						t.Errorf("the mirror got %v", s.header)
					}
				}
				big := strings.Repeat("0123456789abcdef", mirroredBody/16)
				ask("GET", "/a?b=c", nil, "", "GET app/a?b=c  ")
				ask("DELETE", "/", nil, "", "DELETE app/  ")
				ask("POST", "/form", strings.NewReader("a body"), "", "POST app/form a body ")
				ask("PUT", "/big", strings.NewReader(big), "", "PUT app/big "+big+" ")
				ask("POST", "/chunked", io.MultiReader(strings.NewReader("in "), strings.NewReader("pieces")), "", "POST app/chunked in pieces ")
				ask("POST", "/trailers", io.MultiReader(strings.NewReader("a sum")), "42", "POST app/trailers a sum 42")
				eventually(t, "the records", func() bool { return mirrored(t, p, "answered") == 6 })
				// An original is counted behind its answer, which may be later than its copy's.
				eventually(t, "the originals' records", func() bool {
					got := requestsTotal(t, p.metrics.Gatherer(), "destination_service", "response_code")
					return len(got) == 1 && got[service+"|200"] == 6
				})
				eventually(t, "the mirror's answers", func() bool {
					return valueOf(t, p, "outrider_upstream_requests_total", "response_code=500") == 6
				})
			})
		})
	}
}

// A mirror that does not answer is asked by so many copies at a time and no more; the originals do not notice, and a proxy
// that ends does not wait for it.
func TestMirrorHangs(t *testing.T) {
	o := newOrigin(t, nil)
	hung := newOrigin(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		mirrorTo(s, r, hung.address(), model.HTTP, 100)
	}, o.address()), Limits{})
	c := dial(t, p, "outbound")
	const n = mirrorsMost + 20
	for range n {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		if a := c.read("GET"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	}
	if k := mirrored(t, p, "overflow"); k != n-mirrorsMost {
		t.Errorf("%v copies were too many, want %d", k, n-mirrorsMost)
	}
	_ = c.Close()
	if err := p.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if k := mirrored(t, p, "failed"); k != mirrorsMost {
		t.Errorf("%v copies failed, want %d", k, mirrorsMost)
	}
	settled(t, p)
}

// A copy ends with the time that its route has.
func TestMirrorTimeout(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, nil)
	for _, protocol := range []model.Protocol{model.HTTP, model.HTTP2} {
		hung := newOrigin(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
		p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
			r.Route.Timeout = model.Duration(time.Second)
			mirrorTo(s, r, hung.address(), protocol, 100)
		}, o.address()), Limits{})
		c := dial(t, p, "outbound")
		c.send("GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
		if a := c.read("GET"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
		eventually(t, "the end of the copy", func() bool { return mirrored(t, p, "failed") == 1 })
		eventually(t, "its place", func() bool {
			return p.generation.Load().gates.mirrors["outbound|80||mirror.default.svc.cluster.local"].under.Load() == 0
		})
		eventually(t, "the coarse tick", func() bool { return p.conns.fine.Load() == 0 })
		settled(t, p)
	}
}

// Bodies that are too long, and mirrors that nobody is at, cost the copy and nothing else.
func TestMirrorLeavesOut(t *testing.T) {
	versions(t, func(s *model.Snapshot, r *model.Rule) {
		mirrorTo(s, r, "127.0.0.1:1", model.HTTP, 100)
	}, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		long := strings.Repeat("x", mirroredBody+1)
		for _, r := range []*http.Request{
			request("POST", "http://app/", strings.NewReader(long)),
			request("POST", "http://app/", io.MultiReader(strings.NewReader(long))),
		} {
			if res, b := fetch(t, c, r); res.StatusCode != 200 || b != long {
				t.Errorf("got %v and %d bytes", res, len(b))
			}
		}
		if n := mirrored(t, p, "too_long"); n != 2 {
			t.Errorf("%v copies were too long", n)
		}
		fetch(t, c, request("GET", "http://app/", nil))
		eventually(t, "the failure", func() bool { return mirrored(t, p, "failed") == 1 })
	})
}

// A request that its client gives up on is not copied.
func TestMirrorIncomplete(t *testing.T) {
	o := newOrigin(t, nil)
	m := newOrigin(t, nil)
	p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		mirrorTo(s, r, m.address(), model.HTTP, 100)
	}, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 100\r\n\r\nhalf")
	_ = c.Close()
	eventually(t, "the end", func() bool { return mirrored(t, p, "incomplete") == 1 })
	if n := m.connections(); n != 0 {
		t.Errorf("%d connections to the mirror", n)
	}
	settled(t, p)
}

// The share of the requests that is copied is as configured, for each mirror by itself.
func TestMirrorShare(t *testing.T) {
	o := newOrigin(t, nil)
	m := newOrigin(t, nil)
	p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		mirrorTo(s, r, m.address(), model.HTTP, 30)
		r.Route.Mirrors = append(r.Route.Mirrors, model.Mirror{Cluster: s.Clusters[1].Name, Percent: 0})
	}, o.address()), Limits{})
	c := dial(t, p, "outbound")
	const n = 3000
	for range n {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		if a := c.read("GET"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	}
	eventually(t, "the copies", func() bool {
		return p.generation.Load().gates.mirrors["outbound|80||mirror.default.svc.cluster.local"].under.Load() == 0
	})
	if k := int(valueOf(t, p, "outrider_mirrored_requests_total")); !near(k, n, 0.3) {
		t.Errorf("%d of %d copied", k, n)
	}
}
