package conformance

import (
	"bytes"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy"
)

// The listeners of a proxy under test; all lead to the same application.
const (
	inbound  = "inbound"  // a sidecar's, before its application
	outbound = "outbound" // a sidecar's HTTP proxy for its application
	gateway  = "gateway"  // the mesh's edge
)

// everywhere are all of them.
var everywhere = []string{inbound, outbound, gateway}

// mesh is a proxy before one application.
type mesh struct {
	*proxy.Proxy
	metrics *telemetry.Metrics
}

// setting shapes a mesh; the zero one has an application of HTTP/1.1 and the default limits.
type setting struct {
	protocol model.Protocol // the application's; "" is HTTP
	limits   proxy.Limits
	edit     func(s *model.Snapshot)
	log      *bytes.Buffer // what the proxy logs, from debug on; not before the proxy is closed
}

// start runs a proxy that sends every request to the application at address.
func start(t testing.TB, address string, o setting) *mesh {
	t.Helper()
	s := snapshot(address, o)
	m := &mesh{metrics: telemetry.New(s.Workload.Peer, telemetry.Options{})}
	m.Proxy = proxy.New(proxy.Options{Metrics: m.metrics, Limits: o.limits, Log: logTo(o.log)})
	t.Cleanup(func() { _ = m.Close() })
	if err := m.Apply(s); err != nil {
		t.Fatal(err)
	}
	return m
}

func snapshot(address string, o setting) *model.Snapshot {
	if o.protocol == "" {
		o.protocol = model.HTTP
	}
	const cluster = "outbound|80||app.default.svc.cluster.local"
	s := &model.Snapshot{
		Workload: model.Workload{Peer: model.Peer{Namespace: "default", Name: "edge", App: "edge", Cluster: "Kubernetes"}, Instance: "edge-0"},
		Clusters: []model.Cluster{{
			Name: cluster, Kind: model.Listed, Port: 80, Protocol: o.protocol,
			Service:        model.Service{Host: "app.default.svc.cluster.local", Name: "app", Namespace: "default"},
			ConnectTimeout: model.Duration(5 * time.Second),
			Endpoints:      []model.Endpoint{{Address: address, Weight: 1, Instance: "app-0", Peer: model.Peer{Namespace: "default", Name: "app", App: "app"}}},
		}},
		Tables: []model.Table{{Name: "all", Hosts: []model.VirtualHost{{
			Name: "all", Domains: []string{"*"},
			Rules: []model.Rule{{
				Origin: model.Origin{Kind: "Service", Namespace: "default", Name: "app"},
				Route:  &model.Route{Destinations: []model.Destination{{Cluster: cluster, Weight: 1}}},
			}},
		}}}},
	}
	for _, name := range everywhere {
		s.Listeners = append(s.Listeners, model.Listener{
			Name: name, Direction: model.Direction(name), Address: "127.0.0.1:0", Port: 80, Protocol: model.HTTP, Table: "all", Explicit: name == outbound,
		})
	}
	if o.edit != nil {
		o.edit(s)
	}
	return model.Seal(s)
}
