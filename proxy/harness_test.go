package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
)

// origin is a server that answers with the bytes that its script gives, on a real socket.
type origin struct {
	t      testing.TB
	socket net.Listener
	// serve gets each connection; nil answers every request with 200 and its own head as body.
	serve func(c net.Conn, r *bufio.Reader)
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
	count int
}

func newOrigin(t testing.TB, serve func(c net.Conn, r *bufio.Reader)) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{t: t, socket: l, serve: serve}
	if o.serve == nil {
		o.serve = echo
	}
	o.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.conns = append(o.conns, c)
			o.count++
			o.mu.Unlock()
			o.wg.Go(func() {
				defer c.Close()
				o.serve(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(o.close)
	return o
}

func (o *origin) close() {
	_ = o.socket.Close()
	o.mu.Lock()
	for _, c := range o.conns {
		_ = c.Close()
	}
	o.mu.Unlock()
	o.wg.Wait()
}

func (o *origin) address() string { return o.socket.Addr().String() }

func (o *origin) connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count
}

// readHead reads up to and including the empty line.
func readHead(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), err
		}
		if line == "\r\n" {
			return b.String(), nil
		}
	}
}

// echo answers each request with its head as body. Bodies of requests with Content-Length are read away.
func echo(c net.Conn, r *bufio.Reader) {
	for {
		head, err := readHead(r)
		if err != nil {
			return
		}
		if n := contentLength(head); n > 0 {
			if _, err := io.CopyN(io.Discard, r, n); err != nil {
				return
			}
		}
		if strings.HasPrefix(head, "HEAD ") {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(head))
			continue
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(head), head)
	}
}

func contentLength(head string) (n int64) {
	for line := range strings.SplitSeq(head, "\r\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(k, "content-length") {
			_, _ = fmt.Sscan(strings.TrimSpace(v), &n)
		}
	}
	return n
}

// answers gives one scripted answer to each request of each connection in turn, then closes.
func answers(all ...string) func(c net.Conn, r *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		for _, a := range all {
			head, err := readHead(r)
			if err != nil {
				return
			}
			_, _ = io.CopyN(io.Discard, r, contentLength(head))
			_, _ = io.WriteString(c, a)
		}
	}
}

const service = "app.default.svc.cluster.local"

// snapshotOf makes a snapshot with one outbound listener and one service "app" at port 80 over the addresses.
func snapshotOf(edit func(s *model.Snapshot, r *model.Rule), addresses ...string) *model.Snapshot {
	cluster := model.Cluster{
		Name: "outbound|80||" + service, Kind: model.Listed, Port: 80, Protocol: model.HTTP,
		Service:        model.Service{Host: service, Name: "app", Namespace: "default"},
		LoadBalancer:   model.LoadBalancer{Policy: model.RoundRobin},
		ConnectTimeout: model.Duration(time.Second),
	}
	for i, a := range addresses {
		cluster.Endpoints = append(cluster.Endpoints, model.Endpoint{
			Address: a, Weight: 1, Instance: fmt.Sprintf("app-%d", i),
			Peer: model.Peer{Namespace: "default", Name: "app", App: "app"},
		})
	}
	rule := model.Rule{
		Origin: model.Origin{Kind: "Service", Namespace: "default", Name: "app"},
		Route:  &model.Route{Destinations: []model.Destination{{Cluster: cluster.Name, Weight: 1}}},
	}
	s := &model.Snapshot{
		Workload:  model.Workload{Peer: model.Peer{Namespace: "default", Name: "local", App: "local", Cluster: "Kubernetes"}, Instance: "local"},
		Listeners: []model.Listener{{Name: "outbound", Direction: model.Outbound, Address: "127.0.0.1:0", Protocol: model.HTTP, Table: "outbound", Explicit: true}},
		Clusters:  []model.Cluster{cluster, {Name: "PassthroughCluster", Kind: model.Passthrough, Service: model.Service{Name: "PassthroughCluster"}, Protocol: model.HTTP, ConnectTimeout: model.Duration(time.Second)}},
		Tables: []model.Table{{
			Name:      "outbound",
			Hosts:     []model.VirtualHost{{Name: "app", Domains: []string{"app", service}, Port: 80}},
			Unmatched: &model.Rule{Route: &model.Route{Destinations: []model.Destination{{Cluster: "PassthroughCluster", Weight: 1}}}},
		}},
	}
	if edit != nil {
		edit(s, &rule)
	}
	s.Tables[0].Hosts[0].Rules = append(s.Tables[0].Hosts[0].Rules, rule)
	return model.Seal(s)
}

// start runs a proxy over s.
func start(t testing.TB, s *model.Snapshot, limits Limits) *Proxy {
	t.Helper()
	p := New(Options{Metrics: telemetry.New(s.Workload.Peer, telemetry.Options{}), Limits: limits})
	if err := p.Apply(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// client is a raw connection to a proxy.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, p *Proxy, listener string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", p.Address(listener))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &client{t: t, Conn: nc, r: bufio.NewReader(nc)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatalf("cannot send: %v", err)
	}
}

// answer is a response as it was on the wire.
type answer struct {
	status  int
	head    string
	body    string
	trailer string
}

func (a answer) field(name string) string {
	for line := range strings.SplitSeq(a.head, "\r\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(k, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// read reads one response; method is the request's.
func (c *client) read(method string) answer {
	c.t.Helper()
	a, err := c.tryRead(method)
	if err != nil {
		c.t.Fatalf("cannot read response: %v; so far %+v", err, a)
	}
	return a
}

func (c *client) tryRead(method string) (a answer, err error) {
	if a.head, err = readHead(c.r); err != nil {
		return a, err
	}
	if _, err = fmt.Sscanf(a.head, "HTTP/1.%d %d", new(int), &a.status); err != nil {
		return a, err
	}
	switch {
	case method == "HEAD" || a.status < 200 || a.status == 204 || a.status == 304:
	case strings.EqualFold(a.field("transfer-encoding"), "chunked"):
		a.body, a.trailer, err = readChunked(c.r)
	case a.field("content-length") != "":
		b := make([]byte, contentLength(a.head))
		var n int
		n, err = io.ReadFull(c.r, b)
		a.body = string(b[:n])
	default:
		var b []byte
		b, err = io.ReadAll(c.r)
		a.body = string(b)
	}
	return a, err
}

func readChunked(r *bufio.Reader) (body, trailer string, err error) {
	var b bytes.Buffer
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return b.String(), "", err
		}
		var n int64
		if _, err := fmt.Sscanf(line, "%x", &n); err != nil {
			return b.String(), "", fmt.Errorf("chunk size %q: %w", line, err)
		}
		if n == 0 {
			trailer, err := readHead(r)
			return b.String(), trailer, err
		}
		if _, err := io.CopyN(&b, r, n); err != nil {
			return b.String(), "", err
		}
		if _, err := r.Discard(2); err != nil {
			return b.String(), "", err
		}
	}
}

// closed waits for the proxy to end the connection.
func (c *client) closed() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Fatalf("got %q, want the end of the connection", b)
	}
}

// patience is how long a test waits for what others bring about: longer than any machine takes for it, since only a
// failure waits so long.
const patience = 30 * time.Second

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatal("does not come: " + what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
