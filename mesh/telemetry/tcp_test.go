package telemetry

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/outrider-mesh/outrider/mesh/model"
)

var tcpFamilies = []string{
	"istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total",
	"istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total",
}

// Istio's tests (testdata/metric/tcp_*.yaml.tmpl) have these labels, of which flags and protocol are TCP's own.
func TestTCPLabels(t *testing.T) {
	f := func(name string, self model.Peer, principal string, e Edge, flags Flags, want map[string]string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			m := New(self, Options{Principal: principal})
			c, h := m.TCP(e), m.HTTP(e)
			h.Record(ok)
			c.Opened(flags)
			c.Bytes(300, 20, flags)
			c.Bytes(0, 1, flags)
			c.Bytes(-5, -5, flags)
			c.Closed(flags)
			like := labelsOf(gather(t, m, "istio_requests_total").Metric[0])
			delete(like, "response_code")
			delete(like, "grpc_response_status")
			for k, v := range want {
				like[k] = v
			}
			for i, value := range []float64{1, 1, 300, 21} {
				f := gather(t, m, tcpFamilies[i])
				if len(f.GetMetric()) != 1 || f.Metric[0].Counter.GetValue() != value {
					t.Fatalf("%s is %v", tcpFamilies[i], f)
				}
				if got := labelsOf(f.Metric[0]); fmt.Sprint(got) != fmt.Sprint(like) || len(got) != 23 {
					t.Errorf("%s:\ngot  %v\nwant %v", tcpFamilies[i], got, like)
				}
			}
		})
	}
	const (
		productpageID = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
		reviewsID     = "spiffe://cluster.local/ns/prod/sa/bookinfo-reviews"
	)
	f("source", productpage, productpageID, Edge{Reporter: Source, Peer: reviews, PeerPrincipal: reviewsID, Service: reviewsService}, 0,
		map[string]string{
			"reporter": "source", "source_workload": "productpage-v1", "destination_workload": "reviews-v2",
			"destination_principal": reviewsID, "source_principal": productpageID,
			"request_protocol": "tcp", "response_flags": "-", "connection_security_policy": "unknown",
		})
	f("destination", reviews, reviewsID, Edge{Reporter: Destination, Peer: productpage, PeerPrincipal: productpageID, Service: reviewsService}, 0,
		map[string]string{
			"reporter": "destination", "source_workload": "productpage-v1", "destination_workload": "reviews-v2",
			"request_protocol": "tcp", "response_flags": "-", "connection_security_policy": "mutual_tls",
		})
	f("failed", productpage, "", Edge{Reporter: Source, Service: reviewsService}, UF|URX,
		map[string]string{"destination_workload": "unknown", "request_protocol": "tcp", "response_flags": "URX,UF"})
}

func TestTCPRetention(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	m := New(productpage, Options{Clock: c.read, Retain: time.Minute})
	e := Edge{Reporter: Source, Peer: reviews, Service: reviewsService}
	old, h := m.TCP(e), m.HTTP(e)
	if (*edge)(old) != (*edge)(h) {
		t.Error("HTTP and TCP of one edge are counted in two places")
	}
	old.Opened(0)
	if gather(t, m, "istio_requests_total") != nil {
		t.Error("an edge without requests has series of them")
	}
	m.Release(h)
	c.move(time.Hour)
	if gather(t, m, tcpFamilies[0]) == nil {
		t.Error("the series of a connection that is open are gone")
	}
	m.ReleaseTCP(old)
	c.move(time.Minute - 1)
	back := m.TCP(e)
	back.Opened(0)
	if v := gather(t, m, tcpFamilies[0]).Metric[0].Counter.GetValue(); v != 2 {
		t.Errorf("%v connections, not 2: the edge came back in time", v)
	}
	m.ReleaseTCP(back)
	c.move(time.Minute)
	for _, name := range tcpFamilies {
		if gather(t, m, name) != nil {
			t.Errorf("%s is still there", name)
		}
	}
	back.Closed(DC)
	if gather(t, m, tcpFamilies[1]) != nil {
		t.Error("a late end brought the edge back")
	}
}

func TestTCPFlagsAreBounded(t *testing.T) {
	m := New(productpage, Options{})
	c := m.TCP(Edge{Reporter: Source})
	for f := range Flags(1000) {
		c.Opened(f)
	}
	f, sum := gather(t, m, tcpFamilies[0]), 0.0
	for _, s := range f.Metric {
		sum += s.Counter.GetValue()
	}
	if sum != 1000 || len(f.Metric) > maxEndings+1 || testutil.ToFloat64(m.statusLimit) == 0 {
		t.Errorf("%d series of %v connections", len(f.Metric), sum)
	}
}

func TestInboundTCP(t *testing.T) {
	m := New(reviews, Options{Principal: "spiffe://td/ns/prod/sa/reviews", MaxPeers: 2})
	i := m.Inbound(Edge{Service: reviewsService})
	defer i.Close()
	id := func(n int) string { return fmt.Sprintf("spiffe://td/ns/default/sa/c%d", n) }
	for n := range 4 {
		i.TCP(nil, id(n)).Opened(0)
		i.HTTP(nil, id(n)).Record(ok) // the same peer: takes no second place
	}
	i.TCP(nil, "").Opened(0)
	if (*edge)(i.TCP(AppendPeer(nil, productpage), "")) != i.unknown {
		t.Error("a caller is resolved though there is no room")
	}
	got := []string{}
	for _, s := range gather(t, m, tcpFamilies[0]).Metric {
		l := labelsOf(s)
		got = append(got, fmt.Sprint(l["source_principal"], " ", l["connection_security_policy"], " ", s.Counter.GetValue()))
	}
	slices.Sort(got)
	want := []string{id(0) + " mutual_tls 1", id(1) + " mutual_tls 1", "unknown none 3"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
