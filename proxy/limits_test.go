package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/upstream"
)

// slow is an origin that answers a request when it is told to, in the order that it is told.
type slow struct {
	*origin
	mu      sync.Mutex
	arrived []string // targets, in the order of their coming
	held    map[string]chan struct{}
}

func newSlow(t testing.TB) *slow {
	s := &slow{held: map[string]chan struct{}{}}
	s.origin = newOrigin(t, s.hold)
	t.Cleanup(s.releaseAll) // before the origin's own end, which waits for it
	return s
}

func (s *slow) hold(c net.Conn, r *bufio.Reader) {
	for {
		head, err := readHead(r)
		if err != nil {
			return
		}
		path := strings.Fields(head)[1]
		wait := make(chan struct{})
		s.mu.Lock()
		s.arrived = append(s.arrived, path)
		s.held[path] = wait
		s.mu.Unlock()
		<-wait
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(path), path)
	}
}

// release has the request for path answered.
func (s *slow) release(path string) {
	s.t.Helper()
	var wait chan struct{}
	eventually(s.t, "a request for "+path, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		wait = s.held[path]
		delete(s.held, path)
		return wait != nil
	})
	close(wait)
}

func (s *slow) releaseAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, wait := range s.held {
		close(wait)
		delete(s.held, path)
	}
}

func (s *slow) sees(paths ...string) {
	s.t.Helper()
	want := strings.Join(paths, " ")
	eventually(s.t, "at the backend: "+want, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Join(s.arrived, " ") == want
	})
}

// metricsOf is what a scrape gets.
func metricsOf(t *testing.T, p *Proxy) string {
	t.Helper()
	w := httptest.NewRecorder()
	p.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return w.Body.String()
}

func u32(n uint32) *uint32 { return &n }

// limited is snapshotOf with limits.
func limited(l model.Limits, addresses ...string) *model.Snapshot {
	return snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Limits = &l }, addresses...)
}

// poolsOf returns how full the first cluster is.
func poolsOf(p *Proxy) upstream.Pools {
	pools, _ := p.upstream.Current()[p.Snapshot().Clusters[0].Name].Pools()
	return pools
}

// asks sends a request on a connection of its own and waits until the proxy has so many requests pending.
func asks(t *testing.T, p *Proxy, path string, pending int) *client {
	t.Helper()
	c := dial(t, p, "outbound")
	c.send(get(path))
	eventually(t, fmt.Sprintf("%d pending with %s", pending, path), func() bool { return poolsOf(p).Pending.Current == pending })
	return c
}

// empty waits until nothing is under way.
func empty(t *testing.T, p *Proxy) {
	t.Helper()
	eventually(t, "that every place is given back", func() bool {
		now := poolsOf(p)
		return now.Pending.Current == 0 && now.Requests.Current == 0 && now.Retries.Current == 0
	})
}

func wantOverflow(t *testing.T, a answer) {
	t.Helper()
	const body = "upstream connect error or disconnect/reset before headers. reset reason: overflow"
	if a.status != 503 || a.body != body || a.field("x-envoy-overloaded") != "true" || a.field("x-outrider-reason") != "upstream_overflow" {
		t.Errorf("got %d %q\n%s", a.status, a.body, a.head)
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	o := newSlow(t)
	p := start(t, limited(model.Limits{Connections: u32(1), Pending: u32(2)}, o.address()), Limits{})
	a := dial(t, p, "outbound")
	a.send(get("/a"))
	o.sees("/a")
	b := asks(t, p, "/b", 1)
	c := asks(t, p, "/c", 2)
	d := dial(t, p, "outbound")
	d.send(get("/d"))
	wantOverflow(t, d.read("GET"))
	d.send(get("/d")) // the client's connection goes on
	wantOverflow(t, d.read("GET"))
	for i, w := range []struct {
		path string
		*client
	}{{"/a", a}, {"/b", b}, {"/c", c}} {
		o.release(w.path)
		if got := w.read("GET"); got.status != 200 || got.body != w.path {
			t.Errorf("%d: %+v", i, got)
		}
	}
	o.sees("/a", "/b", "/c") // in the order in which they came
	if n := o.connections(); n != 1 {
		t.Errorf("%d connections: one is to be handed over", n)
	}
	empty(t, p)
	if got := poolsOf(p); got.Pending.Overflows != 2 || got.Connections.Current != 1 {
		t.Errorf("%+v", got)
	}
	text := metricsOf(t, p)
	const labels = `{destination_service="` + service + `",direction="outbound",port="80",subset=""`
	for _, want := range []string{
		"outrider_pool_connections" + labels + "} 1", "outrider_pool_connections_limit" + labels + "} 1",
		"outrider_pool_pending_limit" + labels + "} 2", "outrider_pool_requests" + labels + "} 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if want := `outrider_pool_overflows_total{destination_service="` + service + `",direction="outbound",limit="pending",port="80",subset=""} 2`; !strings.Contains(text, want) {
		t.Errorf("there is no %s", want)
	}
	if strings.Contains(text, "outrider_pool_requests_limit") || !strings.Contains(text, `response_flags="UO"`) {
		t.Error("no limit of requests was set, and overflow has its flag")
	}
}

func TestNoPendingRequests(t *testing.T) {
	o := newSlow(t)
	p := start(t, limited(model.Limits{Pending: u32(0)}, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send(get("/a"))
	wantOverflow(t, c.read("GET"))
	if o.connections() != 0 {
		t.Error("a connection was opened")
	}
}

func TestRequestsAreLimited(t *testing.T) {
	o := newSlow(t)
	p := start(t, limited(model.Limits{Requests: u32(1)}, o.address()), Limits{})
	a, b := dial(t, p, "outbound"), dial(t, p, "outbound")
	a.send(get("/a"))
	o.sees("/a")
	b.send(get("/b"))
	wantOverflow(t, b.read("GET"))
	o.release("/a")
	if got := a.read("GET"); got.body != "/a" {
		t.Errorf("%+v", got)
	}
	b.send(get("/c"))
	o.release("/c")
	if got := b.read("GET"); got.body != "/c" {
		t.Errorf("%+v", got)
	}
	empty(t, p)
	if got := poolsOf(p).Requests.Overflows; got != 1 {
		t.Errorf("%d overflows", got)
	}
}

func TestWaitEndsWithItsTime(t *testing.T) {
	t.Parallel()
	o := newSlow(t)
	s := snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		s.Clusters[0].Limits = &model.Limits{Connections: u32(1)}
		hurried := *r
		route := *r.Route
		route.Timeout = model.Duration(2 * time.Second)
		hurried.Route = &route
		hurried.Matches = []model.Match{{Path: &model.StringMatch{Kind: model.Exact, Value: "/b"}}}
		s.Tables[0].Hosts[0].Rules = append(s.Tables[0].Hosts[0].Rules, hurried)
	}, o.address())
	p := start(t, s, Limits{})
	a := dial(t, p, "outbound")
	a.send(get("/a"))
	o.sees("/a")
	b := asks(t, p, "/b", 1)
	if got := b.read("GET"); got.status != 504 || got.field("x-outrider-reason") != "route_timeout" {
		t.Errorf("%+v", got)
	}
	if got := poolsOf(p); got.Pending.Current != 0 || got.Connections.Current != 1 {
		t.Errorf("%+v", got)
	}
	b.send(get("/c")) // the client's connection goes on
	o.release("/a")
	o.release("/c")
	if a.read("GET").status != 200 || b.read("GET").status != 200 {
		t.Error("the others go on")
	}
	empty(t, p)
	o.sees("/a", "/c")
}

func TestWaitEndsWithItsClient(t *testing.T) {
	o := newSlow(t)
	p := start(t, limited(model.Limits{Connections: u32(1)}, o.address()), Limits{})
	a := dial(t, p, "outbound")
	a.send(get("/a"))
	o.sees("/a")
	b := asks(t, p, "/b", 1)
	c := asks(t, p, "/c", 2)
	_ = b.Close()
	eventually(t, "that it is noticed", func() bool { return poolsOf(p).Pending.Current == 1 })
	o.release("/a")
	o.release("/c")
	if a.read("GET").status != 200 || c.read("GET").status != 200 {
		t.Error("the others go on")
	}
	o.sees("/a", "/c")
	empty(t, p)
}

// A connection to one endpoint is closed where another's is waited for, and an endpoint without any may always have one.
func TestConnectionsOfOtherEndpointsMakeRoom(t *testing.T) {
	o, other := newSlow(t), newSlow(t)
	s := snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		s.Clusters[0].Limits = &model.Limits{Connections: u32(1)}
	}, o.address(), other.address())
	p := start(t, s, Limits{})
	first := dial(t, p, "outbound")
	first.send(get("/1"))
	at := o // where the first went
	eventually(t, "the first request", func() bool {
		o.mu.Lock()
		n := len(o.arrived)
		o.mu.Unlock()
		other.mu.Lock()
		m := len(other.arrived)
		other.mu.Unlock()
		if m > 0 {
			at = other
		}
		return n+m > 0
	})
	next := o
	if at == o {
		next = other
	}
	second := dial(t, p, "outbound")
	second.send(get("/2")) // round robin: the other one, beyond the limit
	next.sees("/2")
	third := asks(t, p, "/3", 1)
	at.release("/1")
	if first.read("GET").status != 200 {
		t.Error("the first")
	}
	at.sees("/1", "/3")
	at.release("/3")
	next.release("/2")
	if third.read("GET").status != 200 || second.read("GET").status != 200 {
		t.Error("the others")
	}
	if o.connections() != 1 || other.connections() != 1 {
		t.Errorf("%d and %d connections", o.connections(), other.connections())
	}
	empty(t, p)
}

// An idle connection to an endpoint goes where another endpoint has none.
func TestIdleConnectionMakesRoom(t *testing.T) {
	o, other := newOrigin(t, nil), newOrigin(t, nil)
	p := start(t, limited(model.Limits{Connections: u32(1)}, o.address(), other.address()), Limits{})
	c := dial(t, p, "outbound")
	for range 6 {
		c.send(get("/"))
		if got := c.read("GET"); got.status != 200 {
			t.Errorf("%+v", got)
		}
		if n := poolsOf(p).Connections.Current; n != 1 {
			t.Errorf("%d connections", n)
		}
	}
}

// A change of the configuration lets in who waits, and takes nothing away from who is in.
func TestLimitsChangeWhileFull(t *testing.T) {
	o := newSlow(t)
	with := func(n uint32) *model.Snapshot {
		return limited(model.Limits{Connections: u32(n), Pending: u32(1)}, o.address())
	}
	p := start(t, with(1), Limits{})
	apply := func(s *model.Snapshot) {
		t.Helper()
		if err := p.Apply(s); err != nil {
			t.Fatal(err)
		}
	}
	a := dial(t, p, "outbound")
	a.send(get("/a"))
	o.sees("/a")
	b := asks(t, p, "/b", 1)
	apply(with(2))
	o.sees("/a", "/b")
	apply(with(1))
	c := asks(t, p, "/c", 1)
	o.release("/a") // one too many: this connection ends, nobody gets it... but who waits for its endpoint
	o.release("/b")
	if a.read("GET").status != 200 || b.read("GET").status != 200 {
		t.Error("a or b")
	}
	o.release("/c")
	if c.read("GET").status != 200 {
		t.Error("c")
	}
	eventually(t, "one connection", func() bool { return poolsOf(p).Connections.Current == 1 })

	// Without limits all who wait are let in; limits that come back count the connections that are there.
	c.send(get("/d"))
	o.sees("/a", "/b", "/c", "/d")
	e := asks(t, p, "/e", 1)
	apply(snapshotOf(nil, o.address()))
	o.sees("/a", "/b", "/c", "/d", "/e")
	f := dial(t, p, "outbound")
	f.send(get("/f"))
	o.sees("/a", "/b", "/c", "/d", "/e", "/f")
	apply(with(1))
	if got := poolsOf(p).Connections.Current; got != 3 {
		t.Errorf("%d connections are counted, of 3", got)
	}
	for path, w := range map[string]*client{"/d": c, "/e": e, "/f": f} {
		o.release(path)
		if w.read("GET").status != 200 {
			t.Error(path)
		}
	}
	empty(t, p)
	eventually(t, "that those too many are closed", func() bool { return poolsOf(p).Connections.Current == 1 })
}

func TestOpaqueConnectionsAreLimited(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) })
	s := limited(model.Limits{Connections: u32(1), Pending: u32(0)}, o.address())
	s.Clusters[0].Protocol = model.TCP
	s.Listeners[0].Protocol, s.Listeners[0].Explicit = model.TCP, false
	s.Tables[0].Hosts[0].Domains, s.Tables[0].Hosts[0].Port = []string{"*"}, 0
	p := start(t, model.Seal(s), Limits{})
	echoes := func(c *client) bool {
		if _, err := io.WriteString(c, "x"); err != nil {
			return false
		}
		b, err := c.r.ReadByte()
		return err == nil && b == 'x'
	}
	a := dial(t, p, "outbound")
	if !echoes(a) {
		t.Fatal("the first should pass")
	}
	// The reset may come while the second one still connects.
	if b, err := net.Dial("tcp", p.Address("outbound")); err == nil {
		(&client{t: t, Conn: b, r: bufio.NewReader(b)}).closed()
		_ = b.Close()
	}
	_ = a.Close()
	eventually(t, "that there is room", func() bool { return poolsOf(p).Connections.Current == 0 })
	if !echoes(dial(t, p, "outbound")) {
		t.Error("there is room again")
	}
	eventually(t, "the record", func() bool { return strings.Contains(metricsOf(t, p), `response_flags="UO"`) })
	if pools := poolsOf(p); pools.Connections.Overflows != 1 {
		t.Errorf("%+v", pools)
	}
}
