package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// bounding sets limits of the first cluster, in which a connection of HTTP/2 has one stream at a time: both versions then
// wait for the same things.
func bounding(l model.Limits) func(*model.Snapshot, *model.Rule) {
	return func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Limits, s.Clusters[0].MaxStreams = &l, 1 }
}

// crowd counts the requests that an application has at once.
type crowd struct{ under, most atomic.Int64 }

// enter counts one until leave is called.
func (c *crowd) enter() (leave func()) {
	n := c.under.Add(1)
	for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
	}
	return func() { c.under.Add(-1) }
}

// reset begins anew, where nobody is left.
func (c *crowd) reset() {
	c.under.Store(0)
	c.most.Store(0)
}

func TestLineInEveryVersion(t *testing.T) {
	var room crowd
	var let atomic.Pointer[chan struct{}]
	versions(t, bounding(model.Limits{Connections: u32(1), Pending: u32(3)}), func(w http.ResponseWriter, r *http.Request) {
		defer room.enter()()
		select {
		case <-*let.Load():
		case <-r.Context().Done():
		}
	}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
		hold := make(chan struct{})
		let.Store(&hold)
		room.reset()
		var all sync.WaitGroup
		var good atomic.Int64
		ask := func() {
			all.Go(func() {
				if res, err := c.Do(request("GET", "http://app/", nil)); err == nil && res.StatusCode == 200 {
					good.Add(1)
					_ = res.Body.Close()
				}
			})
		}
		ask()
		eventually(t, "the first request", func() bool { return room.under.Load() == 1 })
		for range 2 {
			ask()
		}
		gone, leave := context.WithCancel(context.Background())
		all.Go(func() {
			if res, err := c.Do(request("GET", "http://app/", nil).WithContext(gone)); err == nil {
				_ = res.Body.Close()
				t.Error("its client was to leave")
			}
		})
		eventually(t, "three pending", func() bool { return poolsOf(p).Pending.Current == 3 })
		res, body := fetch(t, c, request("GET", "http://app/", nil))
		if res.StatusCode != 503 || res.Header.Get("x-envoy-overloaded") != "true" || !strings.HasSuffix(body, "overflow") {
			t.Errorf("%d %q", res.StatusCode, body)
		}
		leave()
		eventually(t, "that the client's leaving is noticed", func() bool { return poolsOf(p).Pending.Current == 2 })
		close(hold)
		all.Wait()
		if good.Load() != 3 || room.most.Load() != 1 {
			t.Errorf("%d answers, %d at once", good.Load(), room.most.Load())
		}
		empty(t, p)
	})
}

func TestRequestsInEveryVersion(t *testing.T) {
	var room crowd
	var let atomic.Pointer[chan struct{}]
	versions(t, func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Limits = &model.Limits{Requests: u32(2)} }, func(_ http.ResponseWriter, r *http.Request) {
		defer room.enter()()
		<-*let.Load()
	}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
		hold := make(chan struct{})
		let.Store(&hold)
		room.reset()
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				if res, err := c.Do(request("GET", "http://app/", nil)); err != nil {
					t.Error(err)
				} else if _ = res.Body.Close(); res.StatusCode != 200 {
					t.Error(res.StatusCode)
				}
			})
		}
		eventually(t, "two requests", func() bool { return room.under.Load() == 2 })
		if res, _ := fetch(t, c, request("GET", "http://app/", nil)); res.StatusCode != 503 {
			t.Error(res.StatusCode)
		}
		close(hold)
		all.Wait()
		empty(t, p)
		for range 50 { // one after the other there are never more
			if res, _ := fetch(t, c, request("GET", "http://app/", nil)); res.StatusCode != 200 {
				t.Fatal(res.StatusCode)
			}
		}
		empty(t, p)
	})
}

// seen counts the connections that requests come on.
type seen struct {
	mu  sync.Mutex
	all map[string]int
}

func (s *seen) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]int{}
	}
	s.all[r.RemoteAddr]++
}

func (s *seen) reset() (counts map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts, s.all = s.all, nil
	return counts
}

func TestRequestsOfAConnection(t *testing.T) {
	for _, per := range []uint32{1, 3} {
		var s seen
		versions(t, func(m *model.Snapshot, _ *model.Rule) {
			m.Clusters[0].Limits = &model.Limits{PerConnection: per, Connections: u32(2)}
		}, func(_ http.ResponseWriter, r *http.Request) { s.note(r) }, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
			s.reset()
			for range 7 {
				if res, _ := fetch(t, c, request("GET", "http://app/", nil)); res.StatusCode != 200 {
					t.Fatal(res.StatusCode)
				}
				// Its end here may be before the connection is given back there.
				eventually(t, "the connection is given back", func() bool {
					m := p.upstream.Current()[p.Snapshot().Clusters[0].Name].Members
					active, _ := m[0].Connections()
					return active == 0
				})
			}
			counts := s.reset()
			for address, n := range counts {
				if n > int(per) {
					t.Errorf("%d requests on the connection %s", n, address)
				}
			}
			if want := (7 + int(per) - 1) / int(per); len(counts) != want {
				t.Errorf("%d connections for 7 requests, want %d", len(counts), want)
			}
			empty(t, p)
			eventually(t, "that old connections end", func() bool { return poolsOf(p).Connections.Current <= 1 })
		})
	}
}

func TestLifeOfConnections(t *testing.T) {
	t.Parallel()
	idle := model.Duration(300 * time.Millisecond)
	for name, l := range map[string]model.Limits{"idle": {Idle: &idle}, "duration": {Duration: idle}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var all [3][3]seen // by client and server
			versionsAtOnce(t, func(m *model.Snapshot, _ *model.Rule) { m.Clusters[0].Limits = &l }, func(_ http.ResponseWriter, r *http.Request) {
				all[r.URL.Path[1]-'0'][r.ProtoMajor].note(r)
			}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
				for range 2 {
					fetch(t, c, request("GET", fmt.Sprint("http://app/", client), nil))
					eventually(t, "that the connection ends", func() bool { return poolsOf(p).Connections.Current == 0 })
				}
				if n := len(all[client][server].reset()); n != 2 {
					t.Errorf("%d connections", n)
				}
			})
		})
	}
}

func TestTunnelsEndWithTheirTime(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) })
	s := limited(model.Limits{Duration: model.Duration(time.Second)}, o.address())
	s.Clusters[0].Protocol = model.TCP
	s.Listeners[0].Protocol, s.Listeners[0].Explicit = model.TCP, false
	s.Tables[0].Hosts[0].Domains, s.Tables[0].Hosts[0].Port = []string{"*"}, 0
	p := start(t, model.Seal(s), Limits{})
	c := dial(t, p, "outbound")
	c.send("x")
	if b, err := c.r.ReadByte(); err != nil || b != 'x' {
		t.Fatal(err)
	}
	c.closed()
	eventually(t, "that the place is given back", func() bool { return poolsOf(p).Connections.Current == 0 })
}

func TestRetriesAreLimited(t *testing.T) {
	f := func(l model.Limits, attempts int64, overflows uint64) {
		t.Helper()
		var n atomic.Int64
		address := goServer(t, func(w http.ResponseWriter, _ *http.Request) {
			n.Add(1)
			w.WriteHeader(503)
		})
		p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
			s.Clusters[0].Limits = &l
			r.Route.Retries = &model.Retries{Attempts: 2, On: []string{"5xx"}, Backoff: model.Duration(time.Millisecond)}
		}, address), Limits{})
		c := goClient(t, p, 1)
		res, _ := fetch(t, c, request("GET", "http://app/", nil))
		if res.StatusCode != 503 || res.Header.Get("x-envoy-overloaded") != "" || n.Load() != attempts {
			t.Errorf("%+v: %v after %d attempts, want %d", l, res, n.Load(), attempts)
		}
		empty(t, p)
		if got := poolsOf(p).Retries.Overflows; got != overflows {
			t.Errorf("%+v: %d overflows, want %d", l, got, overflows)
		}
		c.CloseIdleConnections()
	}
	f(model.Limits{}, 3, 0)
	f(model.Limits{Retries: u32(1)}, 3, 0)
	f(model.Limits{Retries: u32(0)}, 1, 1)
	f(model.Limits{Retries: u32(0), Budget: &model.RetryBudget{Percent: 20, Least: 1}}, 3, 0)
	f(model.Limits{Budget: &model.RetryBudget{Percent: 20}}, 1, 1)
}

// Limits cost no garbage.
func TestLimitsAllocateNothing(t *testing.T) {
	exchangesAllocateNothing(t, func(addresses ...string) *model.Snapshot {
		s := busySnapshot(addresses...)
		for i := range s.Clusters {
			s.Clusters[i].Limits = &model.Limits{Connections: u32(2), Pending: u32(2), Requests: u32(2), Retries: u32(1)}
		}
		return model.Seal(s)
	})
}

// BenchmarkLimits is BenchmarkExchange before a destination with limits.
func BenchmarkLimits(b *testing.B) {
	for _, limited := range []bool{false, true} {
		b.Run(fmt.Sprintf("limited=%v", limited), func(b *testing.B) {
			o := newOrigin(b, fixed(300))
			s := busySnapshot(o.address())
			if limited {
				for i := range s.Clusters {
					s.Clusters[i].Limits = &model.Limits{Connections: u32(100), Pending: u32(100), Requests: u32(100), Retries: u32(3)}
				}
			}
			l := newLoop(b, start(b, model.Seal(s), Limits{}), requests[1].request)
			b.ReportAllocs()
			for b.Loop() {
				l.run(b, 1)
			}
		})
	}
}

// The service's limits hold before the workload's own application, too.
func TestApplicationIsLimited(t *testing.T) {
	o := newSlow(t)
	s := limited(model.Limits{Requests: u32(1)}, o.address())
	s.Clusters[0].Name, s.Clusters[0].Kind = "inbound|80||", model.Application
	s.Listeners[0].Direction, s.Listeners[0].Port, s.Listeners[0].Explicit = model.Inbound, 80, false
	s.Tables[0].Hosts[0].Rules[0].Route.Destinations[0].Cluster = "inbound|80||"
	p := start(t, model.Seal(s), Limits{})
	a, b := dial(t, p, "outbound"), dial(t, p, "outbound")
	a.send(get("/a"))
	o.sees("/a")
	b.send(get("/b"))
	wantOverflow(t, b.read("GET"))
	o.release("/a")
	if got := a.read("GET"); got.body != "/a" {
		t.Errorf("%+v", got)
	}
	empty(t, p)
	if text := metricsOf(t, p); !strings.Contains(text, `outrider_pool_overflows_total{destination_service="`+service+`",direction="inbound",limit="requests",port="80",subset=""} 1`) {
		t.Error("it is not told")
	}
}

// Whatever happens, no place is lost, and there are never more connections than there may be.
func TestNoPlaceIsLost(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint("to ", version), func(t *testing.T) {
			var room crowd
			h := func(w http.ResponseWriter, r *http.Request) {
				defer room.enter()()
				switch rand.IntN(12) {
				case 0:
					panic(http.ErrAbortHandler)
				case 1:
					w.Header().Set("Connection", "close")
				case 2:
					_, _ = w.Write(make([]byte, 100<<10))
					panic(http.ErrAbortHandler)
				case 3:
					time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
				case 4:
					_, _ = io.Copy(io.Discard, r.Body)
					w.WriteHeader(503)
				default:
					time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
				}
			}
			addresses := []string{goServer(t, h), goServer(t, h), "127.0.0.1:1"} // nobody listens at the last
			const connections = 6
			with := func(n uint32) *model.Snapshot {
				return snapshotOf(func(s *model.Snapshot, r *model.Rule) {
					s.Clusters[0].Limits = &model.Limits{Connections: u32(n), Pending: u32(20), Requests: u32(n), Retries: u32(2), PerConnection: 20}
					s.Clusters[0].MaxStreams = 1
					if version == 2 {
						s.Clusters[0].Protocol = model.HTTP2
					}
					r.Route.Timeout = model.Duration(400 * time.Millisecond)
					r.Route.Retries = &model.Retries{Attempts: 2, On: []string{"5xx", "reset"}, Backoff: model.Duration(time.Millisecond)}
				}, addresses...)
			}
			p := start(t, with(connections), Limits{})
			clients := []*http.Client{goClient(t, p, 1), goClient(t, p, 2)}
			var all sync.WaitGroup
			var answers [600]atomic.Int64
			end := time.Now().Add(2 * time.Second)
			for i := range 24 {
				all.Go(func() {
					for time.Now().Before(end) {
						ctx, cancel := context.WithCancel(context.Background())
						if rand.IntN(10) == 0 {
							ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(20))*time.Millisecond)
						}
						var body io.Reader
						method := "GET"
						if rand.IntN(3) == 0 {
							method, body = "PUT", strings.NewReader(strings.Repeat("x", rand.IntN(40<<10)))
						}
						res, err := clients[i%2].Do(request(method, "http://app/", body).WithContext(ctx))
						if err == nil {
							answers[res.StatusCode].Add(1)
							_, _ = io.Copy(io.Discard, res.Body)
							_ = res.Body.Close()
						}
						cancel()
					}
				})
			}
			all.Go(func() {
				for n := 0; time.Now().Before(end); n++ {
					time.Sleep(20 * time.Millisecond)
					if err := p.Apply(with(connections - uint32(n%3))); err != nil {
						t.Error(err)
					}
					// An endpoint that has none may have one whatever the limit (Envoy).
					if n, most := valueOf(t, p, "outrider_pool_connections"), float64(connections+len(addresses)-1); n > most {
						t.Errorf("%v connections, more than %v", n, most)
					}
				}
			})
			all.Wait()
			for _, c := range clients {
				c.CloseIdleConnections()
			}
			if answers[200].Load() == 0 || answers[503].Load() == 0 {
				t.Errorf("%d answers, %d refused", answers[200].Load(), answers[503].Load())
			}
			// The application goes on for a moment with what its client has given up.
			if n := room.most.Load(); n > 4*connections {
				t.Errorf("%d requests at once, of %d", n, connections)
			}
			empty(t, p)
			c := p.upstream.Current()[p.Snapshot().Clusters[0].Name]
			eventually(t, "that what is counted is there", func() bool {
				sum := 0
				for i := range c.Members {
					active, idle := c.Members[i].Connections()
					if active > 0 {
						return false
					}
					sum += idle
				}
				return poolsOf(p).Connections.Current == sum
			})
			// All places can be used again: as many requests as there may be come through.
			last := goClient(t, p, 1)
			eventually(t, "an answer", func() bool {
				res, err := last.Do(request("GET", "http://app/", nil))
				if err != nil {
					return false
				}
				_ = res.Body.Close()
				return res.StatusCode == 200
			})
			last.CloseIdleConnections()
		})
	}
}
