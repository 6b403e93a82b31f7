package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest"
)

// listening makes a snapshot whose listeners are name=address pairs; each names itself in a field of the request.
func listening(application string, listeners ...string) *model.Snapshot {
	return snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Listeners = nil
		for _, l := range listeners {
			name, address, _ := strings.Cut(l, "=")
			table := s.Tables[0]
			table.Name = name
			table.Hosts = []model.VirtualHost{{Name: "app", Domains: []string{"app"}, Rules: []model.Rule{{
				Request: model.HeaderEdits{Set: []model.NameValue{{Name: "x-listener", Value: name}}},
				Route:   &model.Route{Destinations: []model.Destination{{Cluster: s.Clusters[0].Name, Weight: 1}}},
			}}}}
			s.Tables = append(s.Tables, table)
			s.Listeners = append(s.Listeners, model.Listener{Name: name, Direction: model.Outbound, Address: address, Protocol: model.HTTP, Table: name, Explicit: true})
		}
	}, application)
}

// through sends one request on c and returns the listener that took it.
func through(t *testing.T, c *client) string {
	t.Helper()
	c.send(get("/"))
	a := c.read("GET")
	_, rest, _ := strings.Cut(a.body, "x-listener: ")
	name, _, _ := strings.Cut(rest, "\r\n")
	return name
}

func apply(t *testing.T, p *Proxy, s *model.Snapshot) {
	t.Helper()
	if err := p.Apply(s); err != nil {
		t.Fatal(err)
	}
}

// Listeners can change names and addresses in any way at once; an address that stays in use is never closed.
func TestListenersChange(t *testing.T) {
	o := newOrigin(t, nil)
	x, y, z := meshtest.Address(t), meshtest.Address(t), meshtest.Address(t)
	p := start(t, listening(o.address(), "a="+x, "b="+y), Limits{})
	at := func(address, want string) *client {
		t.Helper()
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		c := &client{t: t, Conn: nc, r: bufio.NewReader(nc)}
		if got := through(t, c); got != want {
			t.Errorf("%s leads to %q, want %q", address, got, want)
		}
		return c
	}
	nobody := func(address string) {
		t.Helper()
		if c, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s still accepts: %v", address, err)
			_ = c.Close()
		}
	}
	first := at(x, "a")
	at(y, "b")

	apply(t, p, listening(o.address(), "c="+x, "b="+y)) // a leaves its address to c
	if got := through(t, first); got != "c" {
		t.Errorf("the connection that was there leads to %q, want c", got)
	}
	at(x, "c")

	apply(t, p, listening(o.address(), "c="+y, "b="+x)) // they change places
	if got := through(t, first); got != "b" {
		t.Errorf("the connection that was there leads to %q, want b", got)
	}
	second := at(y, "c")

	apply(t, p, listening(o.address(), "b="+x, "c="+z)) // c moves away
	second.closed()
	nobody(y)
	at(z, "c")

	apply(t, p, listening(o.address(), "b="+x))
	nobody(z)
	apply(t, p, listening(o.address(), "b="+x, "c="+z)) // and comes back
	at(z, "c")
	if got := through(t, first); got != "b" {
		t.Errorf("the connection that was there leads to %q, want b", got)
	}

	taken, err := net.Listen("tcp", y)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := p.Apply(listening(o.address(), "d="+x, "e="+meshtest.Address(t), "f="+y)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("an address that is taken: %v", err)
	}
	if got := through(t, first); got != "b" {
		t.Errorf("after the change that failed the connection leads to %q, want b", got)
	}
	at(z, "c")
	if got := p.Address("b"); got != x {
		t.Errorf("b is at %q, want %q", got, x)
	}
}

// Exchanges under way end although their listener goes, and what was sent on an idle connection is not lost.
func TestListenerGoesUnderLoad(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		close(entered)
		<-release
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	p := start(t, listening(o.address(), "a=127.0.0.1:0", "b=127.0.0.1:0"), Limits{})
	busy, idle, half := dial(t, p, "b"), dial(t, p, "b"), dial(t, p, "b")
	busy.send(get("/"))
	<-entered
	half.send("GET /direct HTTP/1.1\r\n")
	eventually(t, "three connections", func() bool { return p.conns.count() == 3 })
	apply(t, p, listening(o.address(), "a=127.0.0.1:0"))
	idle.closed()
	half.send("Host: nobody.invalid:1\r\nConnection: close\r\n\r\n")
	if a := half.read("GET"); a.status != 503 {
		t.Errorf("a head under way: %+v", a)
	}
	half.closed()
	close(release)
	if a := busy.read("GET"); a.status != 200 || a.field("connection") != "close" {
		t.Errorf("an exchange under way: %+v", a)
	}
	busy.closed()
	settled(t, p)
}

// No request fails while endpoints, weights, policies and names of clusters change under load.
func TestApplyUnderLoad(t *testing.T) {
	var all []*origin
	var live atomic.Int64
	for range 4 {
		all = append(all, newOrigin(t, func(c net.Conn, r *bufio.Reader) {
			live.Add(1)
			defer live.Add(-1)
			echo(c, r)
		}))
	}
	snapshot := func(i int) *model.Snapshot {
		var addresses []string
		for j := range 1 + i%4 {
			addresses = append(addresses, all[(i+j)%4].address())
		}
		return snapshotOf(func(s *model.Snapshot, r *model.Rule) {
			c := &s.Clusters[0]
			c.Name = fmt.Sprintf("outbound|80|v%d|%s", i/8%3, service)
			r.Route.Destinations[0].Cluster = c.Name
			c.LoadBalancer = model.LoadBalancer{Policy: []model.Policy{model.RoundRobin, model.LeastRequest, model.Random, model.Maglev}[i/3%4], TableSize: 251}
			for j := range c.Endpoints {
				c.Endpoints[j].Weight = uint32(1 + (i+j)%5)
			}
		}, addresses...)
	}
	p := start(t, snapshot(0), Limits{})
	var running sync.WaitGroup
	var sent atomic.Int64
	stop := make(chan struct{})
	for n := range 6 {
		running.Go(func() {
			c := dial(t, p, "outbound")
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				path := fmt.Sprintf("/%d/%d", n, i)
				if _, err := io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n"); err != nil {
					t.Errorf("request %s: %v", path, err)
					return
				}
				a, err := c.tryRead("POST")
				if err != nil || a.status != 200 || !strings.HasPrefix(a.body, "POST "+path+" ") {
					t.Errorf("request %s: %+v, %v", path, a, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	changes := 200
	if testing.Short() {
		changes = 60
	}
	for i := range changes {
		apply(t, p, snapshot(i))
		was := sent.Load()
		eventually(t, "requests after the change", func() bool { return sent.Load() > was+3 || t.Failed() })
	}
	close(stop)
	running.Wait()
	counts(t, p, map[string]float64{"200|-": float64(sent.Load())})
	apply(t, p, snapshotOf(nil)) // no connection stays to what is gone, nor to what had another name
	eventually(t, "the end of the connections to applications", func() bool { return live.Load() == 0 })
}

// Connections to endpoints that no configuration names any more are closed, those that the request under way holds after it.
func TestGoneEndpointsKeepNothing(t *testing.T) {
	var live atomic.Int64
	release := make(chan struct{})
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		live.Add(1)
		defer live.Add(-1)
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			if strings.HasPrefix(head, "GET /wait") {
				<-release
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	idle, busy, late := dial(t, p, "outbound"), dial(t, p, "outbound"), dial(t, p, "outbound")
	late.send("GET http://" + o.address() + "/ HTTP/1.1\r\n") // begins now, by this configuration
	busy.send(get("/wait"))
	eventually(t, "the request", func() bool { return live.Load() == 1 })
	idle.send(get("/"))
	idle.read("GET")
	eventually(t, "all connections", func() bool { return p.conns.count() == 3 && live.Load() == 2 })
	s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters = s.Clusters[:1] // no passthrough either
		s.Tables[0].Unmatched = nil
	})
	apply(t, p, s)
	eventually(t, "the end of the idle connection", func() bool { return live.Load() == 1 })
	close(release)
	if a := busy.read("GET"); a.status != 200 {
		t.Errorf("got %+v", a)
	}
	eventually(t, "the end of the busy connection", func() bool { return live.Load() == 0 })
	late.send("Host: " + o.address() + "\r\n\r\n")
	if a := late.read("GET"); a.status != 200 {
		t.Errorf("a request that began before the change: %+v", a)
	}
	eventually(t, "the end of the late connection", func() bool { return live.Load() == 0 })
	idle.send(get("/"))
	if a := idle.read("GET"); a.status != 503 || a.field("x-outrider-reason") != "no_healthy_endpoint" {
		t.Errorf("got %+v", a)
	}
	apply(t, p, snapshotOf(nil, o.address())) // it comes back
	idle.send(get("/"))
	if a := idle.read("GET"); a.status != 200 {
		t.Errorf("got %+v", a)
	}
}

// A round robin goes on in its place over a change that leaves its hosts alone, and a hash sticks to its endpoint.
func TestChangesKeepPlaces(t *testing.T) {
	var all []*origin
	var addresses []string
	for i := range 4 {
		all = append(all, newOrigin(t, func(c net.Conn, r *bufio.Reader) {
			for {
				if _, err := readHead(r); err != nil {
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", i)
			}
		}))
		addresses = append(addresses, all[i].address())
	}
	with := func(i int, lb model.LoadBalancer) *model.Snapshot {
		return snapshotOf(func(s *model.Snapshot, r *model.Rule) {
			s.Clusters[0].LoadBalancer = lb
			r.Request.Set = []model.NameValue{{Name: "x-change", Value: fmt.Sprint(i)}}
		}, addresses...)
	}
	p := start(t, with(0, model.LoadBalancer{Policy: model.RoundRobin}), Limits{})
	c := dial(t, p, "outbound")
	order := ""
	for i := range 40 {
		apply(t, p, with(i, model.LoadBalancer{Policy: model.RoundRobin}))
		c.send(get("/"))
		order += c.read("GET").body
	}
	if !strings.Contains("0123012301230123012301230123012301230123012301230123", order) {
		t.Errorf("the round robin went %s", order)
	}
	for _, policy := range []model.Policy{model.RingHash, model.Maglev} {
		lb := model.LoadBalancer{Policy: policy, Hash: &model.HashKey{Header: "x-user"}}
		apply(t, p, with(0, lb))
		was := map[int]string{}
		for i := range 200 {
			if i%20 == 0 {
				apply(t, p, with(i, lb))
			}
			user := i % 25
			c.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: app\r\nX-User: %d\r\n\r\n", user))
			got := c.read("GET").body
			if w, ok := was[user]; ok && w != got {
				t.Errorf("%s: user %d went to %s and then to %s", policy, user, w, got)
			}
			was[user] = got
		}
	}
}

// A configuration that names an endpoint twice, or in two clusters of one service, does not cost the scrape of everything else.
func TestEndpointNamedTwice(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		again := s.Clusters[0]
		again.Name = "again"
		s.Clusters = append(s.Clusters, again)
	}, o.address(), o.address()), Limits{})
	c := dial(t, p, "outbound")
	for range 4 {
		c.send(get("/"))
		if a := c.read("GET"); a.status != 200 {
			t.Errorf("got %+v", a)
		}
	}
	counts(t, p, map[string]float64{"200|-": 4}) // fails where gathering does
}
