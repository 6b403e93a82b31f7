package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest"
)

// opaqueOf makes a snapshot with a TCP listener "db" that leads to the addresses, and the same service behind CONNECT.
func opaqueOf(addresses ...string) *model.Snapshot {
	return snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		c := s.Clusters[0]
		c.Name, c.Protocol, c.Port = "outbound|5432||db.default.svc.cluster.local", model.TCP, 5432
		c.Service = model.Service{Host: "db.default.svc.cluster.local", Name: "db", Namespace: "default"}
		s.Clusters = append(s.Clusters, c)
		rule := model.Rule{Route: &model.Route{Destinations: []model.Destination{{Cluster: c.Name, Weight: 1}}}}
		s.Tables[0].Hosts = append(s.Tables[0].Hosts, model.VirtualHost{Name: "db", Domains: []string{"db"}, Port: 5432, Rules: []model.Rule{rule}})
		s.Tables = append(s.Tables, model.Table{Name: "db", Hosts: []model.VirtualHost{{Name: "db", Domains: []string{"*"}, Rules: []model.Rule{rule}}}})
		s.Listeners = append(s.Listeners, model.Listener{Name: "db", Direction: model.Outbound, Address: "127.0.0.1:0", Protocol: model.TCP, Table: "db"})
	}, addresses...)
}

// tcpTotals returns the istio_tcp_* counters by name, response_flags and destination_service_name.
func tcpTotals(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := map[string]float64{}
	for _, f := range families {
		if name, ok := strings.CutPrefix(f.GetName(), "istio_tcp_"); ok {
			for _, m := range f.GetMetric() {
				if labelOf(m, "request_protocol") != "tcp" {
					t.Errorf("%s: request_protocol %q", name, labelOf(m, "request_protocol"))
				}
				sum[name+" "+labelOf(m, "response_flags")+" "+labelOf(m, "destination_service_name")] += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// A server that speaks first is heard at once, ends are passed on one by one, and bytes are counted while it lasts.
func TestOpaque(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "welcome\n")
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "you said "+line)
		rest, _ := io.ReadAll(r)
		_, _ = io.WriteString(c, "bye after "+string(rest))
	})
	p := start(t, opaqueOf(o.address()), Limits{})
	c := dial(t, p, "db")
	expect := func(want string) {
		t.Helper()
		b := make([]byte, len(want))
		if _, err := io.ReadFull(c.r, b); err != nil || string(b) != want {
			t.Fatalf("got %q, %v; want %q", b, err, want)
		}
	}
	expect("welcome\n")
	c.send("\x00\x01\n")
	expect("you said \x00\x01\n")
	eventually(t, "the count of bytes under way", func() bool {
		p.flows.look()
		got := tcpTotals(t, p.metrics.Gatherer())
		return got["connections_opened_total - db"] == 1 && got["sent_bytes_total - db"] == 20 && got["received_bytes_total - db"] == 3 && got["connections_closed_total - db"] == 0
	})
	c.send("the rest")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect("bye after the rest")
	c.closed()
	eventually(t, "the end's count", func() bool {
		got := tcpTotals(t, p.metrics.Gatherer())
		return got["sent_bytes_total - db"] == 38 && got["received_bytes_total - db"] == 11 && got["connections_closed_total - db"] == 1
	})
	if got := requestsTotal(t, p.metrics.Gatherer(), "response_code"); len(got) != 0 {
		t.Errorf("a connection was counted as requests: %v", got)
	}
}

func TestOpaqueUnreached(t *testing.T) {
	f := func(name, series, reason string, s *model.Snapshot) {
		t.Run(name, func(t *testing.T) {
			p := start(t, s, Limits{})
			nc, err := net.Dial("tcp", p.Address("db"))
			if err == nil { // else the reset was there before Dial looked
				defer nc.Close()
				_, err = nc.Read(make([]byte, 1))
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
			eventually(t, series, func() bool {
				got := tcpTotals(t, p.metrics.Gatherer())
				return got["connections_opened_total "+series] == 1 && got["connections_closed_total "+series] == 1
			})
			blamed(t, p, strings.Fields(series)[0], reason)
		})
	}
	f("nobody answers", "UF db", "upstream_connect", opaqueOf(meshtest.Address(t)))
	f("no endpoint", "UH db", "no_healthy_endpoint", opaqueOf())
}

func TestOpaqueTriesAnotherEndpoint(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, _ *bufio.Reader) { _, _ = io.WriteString(c, "hi") })
	p := start(t, opaqueOf(meshtest.Address(t), o.address()), Limits{})
	for range 10 {
		if b, err := io.ReadAll(dial(t, p, "db").r); string(b) != "hi" || err != nil {
			t.Fatalf("got %q, %v", b, err)
		}
	}
}

func TestConnectToOpaque(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "welcome\n")
		b, _ := io.ReadAll(r)
		_, _ = c.Write(b)
	})
	p := start(t, opaqueOf(o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n")
	if a := c.read("HEAD"); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	c.send("ping")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c.r); string(b) != "welcome\nping" || err != nil {
		t.Fatalf("got %q, %v", b, err)
	}
	eventually(t, "the count", func() bool {
		got := tcpTotals(t, p.metrics.Gatherer())
		return got["sent_bytes_total - db"] == 12 && got["received_bytes_total - db"] == 4 && got["connections_closed_total - db"] == 1
	})
	if got := requestsTotal(t, p.metrics.Gatherer(), "response_code"); len(got) != 0 {
		t.Errorf("a tunnel was counted as requests: %v", got)
	}
	plain := dial(t, p, "outbound")
	plain.send("GET / HTTP/1.1\r\nHost: db:5432\r\n\r\n")
	if a := plain.read("GET"); a.status != 503 || a.field("x-outrider-reason") != "no_route" || !strings.Contains(a.body, "CONNECT") {
		t.Errorf("got %+v", a)
	}
}
