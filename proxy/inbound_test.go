package proxy

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest"
)

// inboundOf makes the snapshot of a workload "app" whose application is at address.
func inboundOf(address string) *model.Snapshot {
	return model.Seal(&model.Snapshot{
		Workload:  model.Workload{Peer: model.Peer{Namespace: "default", Name: "app-v1", App: "app", Version: "v1", Cluster: "Kubernetes"}, Instance: "app-v1-0"},
		Listeners: []model.Listener{{Name: "inbound|8080", Direction: model.Inbound, Address: "127.0.0.1:0", Port: 8080, Protocol: model.HTTP, Table: "inbound|8080"}},
		Clusters: []model.Cluster{{
			Name: "inbound|8080||", Kind: model.Application, Port: 8080, Protocol: model.HTTP,
			Service:   model.Service{Host: service, Name: "app", Namespace: "default"},
			Endpoints: []model.Endpoint{{Address: address, Weight: 1}},
		}},
		Tables: []model.Table{{Name: "inbound|8080", Hosts: []model.VirtualHost{{
			Name: "inbound", Domains: []string{"*"},
			Rules: []model.Rule{{Route: &model.Route{Destinations: []model.Destination{{Cluster: "inbound|8080||", Weight: 1}}}}},
		}}}},
	})
}

// requestsTotal returns istio_requests_total of a gatherer, by the named labels joined with "|".
func requestsTotal(t *testing.T, g prometheus.Gatherer, labels ...string) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "istio_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			var key []string
			for _, l := range labels {
				key = append(key, labelOf(m, l))
			}
			sum[strings.Join(key, "|")] += m.GetCounter().GetValue()
		}
	}
	return sum
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return "(none)"
}

// Two sidecars tell each other who they are, the application sees nothing of it, and both count the same requests.
func TestTwoSidecars(t *testing.T) {
	o := newOrigin(t, nil)
	server := start(t, inboundOf(o.address()), Limits{})
	s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters[0].Endpoints[0].Sidecar = true
	}, server.Address("inbound|8080"))
	caller := start(t, s, Limits{})
	c := dial(t, caller, "outbound")
	const n = 30
	for range n {
		c.send("GET /x HTTP/1.1\r\nHost: app\r\nX-Outrider-Peer: default;impostor\r\n\r\n")
		a := c.read("GET")
		if a.status != 200 || strings.Contains(strings.ToLower(a.body), "x-outrider-peer") {
			t.Fatalf("got %+v", a)
		}
		if !strings.Contains(a.body, "x-request-id: ") || strings.Count(strings.ToLower(a.body), "x-request-id") != 1 {
			t.Fatalf("the application got\n%s", a.body)
		}
	}
	want := func(p *Proxy, key string) {
		t.Helper()
		eventually(t, key, func() bool {
			got := requestsTotal(t, p.metrics.Gatherer(), "reporter", "source_workload", "destination_workload", "destination_service", "response_code", "response_flags")
			return len(got) == 1 && got[key] == n
		})
	}
	want(caller, "source|local|app|"+service+"|200|-")
	want(server, "destination|local|app-v1|"+service+"|200|-")
}

func TestInboundApplicationDown(t *testing.T) {
	p := start(t, inboundOf(meshtest.Address(t)), Limits{})
	c := dial(t, p, "inbound|8080")
	c.send("GET / HTTP/1.1\r\nHost: anything\r\n\r\n")
	if a := c.read("GET"); a.status != 503 || a.field("x-outrider-reason") != "upstream_connect" {
		t.Errorf("got %+v", a)
	}
	eventually(t, "the record", func() bool {
		return requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")["503|UF"] == 1
	})
}

func TestGateway(t *testing.T) {
	o := newOrigin(t, nil)
	s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Listeners[0] = model.Listener{Name: "gateway|default/web|80", Direction: model.Gateway, Address: "127.0.0.1:0", Port: 80, Protocol: model.HTTP, Table: "outbound"}
		s.Tables[0].Unmatched = nil
	}, o.address())
	p := start(t, s, Limits{})
	c := dial(t, p, "gateway|default/web|80")
	c.send("GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine\r\n\r\n")
	a := c.read("GET")
	for _, want := range []string{"x-forwarded-for: 198.51.100.7, 127.0.0.1\r\n", "x-forwarded-proto: http\r\n"} {
		if !strings.Contains(strings.ToLower(a.body), want) {
			t.Errorf("the application did not get %q but\n%s", want, a.body)
		}
	}
	c.send("GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-Client-Cert: URI=spiffe://mesh/ns/a/sa/b\r\n\r\n")
	if strings.Contains(strings.ToLower(c.read("GET").body), "client-cert") {
		t.Error("an outsider vouches for its own certificate")
	}
	c.send("GET / HTTP/1.1\r\nHost: app\r\nX_Forwarded_For: 1\r\n\r\n")
	if a := c.read("GET"); a.status != 400 {
		t.Errorf("an underscore: %+v", a)
	}
	c = dial(t, p, "gateway|default/web|80")
	if strings.Contains(a.body, "mine") {
		t.Error("an outsider's x-request-id went through")
	}
	c.send("GET / HTTP/1.1\r\nHost: other\r\n\r\n")
	if a := c.read("GET"); a.status != 404 || a.field("x-outrider-reason") != "" {
		t.Errorf("got %+v", a)
	}
	c.send("CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n")
	if a := c.read("GET"); a.status != 404 {
		t.Errorf("CONNECT at a gateway: %+v", a)
	}
	eventually(t, "the record", func() bool {
		got := requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")
		return got["200|-"] == 2 && got["404|NR"] == 2 && got["400|DPE"] == 1
	})
	p = start(t, s, Limits{Underscores: true})
	c = dial(t, p, "gateway|default/web|80")
	c.send("GET / HTTP/1.1\r\nHost: app\r\nX_Forwarded_For: 1\r\n\r\n")
	if a := c.read("GET"); a.status != 200 || !strings.Contains(a.body, "X_Forwarded_For: 1") {
		t.Errorf("an underscore that is allowed: %+v", a)
	}
}
