//go:build linux

package main

import (
	"fmt"
	"net"
	"slices"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// The service that all requests are for.
const (
	serviceHost = "reviews"
	servicePort = "9080"
)

// otherHosts is the number of virtual hosts in the route table beside the one under test.
const otherHosts = 49

// meshConfig is the mesh that outrider-proxy and the mesh-like Envoy are both given, each in its own language: a table
// of virtual hosts with several rules, and for the service under test a 90/10 split behind two rules that do not match.
type meshConfig struct {
	Hosts    []meshHost
	Clusters []meshCluster
	guarded  bool // with what guard adds, in outrider-proxy's language only
}

type meshHost struct {
	Name    string // full name of the service
	Short   string
	Domains []string
	Rules   []meshRule
}

// meshRule matches a path prefix (empty: all) and, where Header is set, a header of exactly this value.
type meshRule struct {
	Prefix        string
	Header, Value string
	Cluster       string
	Split         []meshShare // instead of Cluster
}

type meshShare struct {
	Cluster string
	Weight  uint32
}

type meshCluster struct {
	Name, Host, Service, Subset string
	Endpoints                   []endpoint
}

// endpoint is an address in the two parts that some configurations want.
type endpoint struct{ Host, Port string }

func endpointsOf(addresses []string) []endpoint {
	var all []endpoint
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			panic("bench: the backend's own addresses have a host and a port: " + err.Error())
		}
		all = append(all, endpoint{host, port})
	}
	return all
}

// newMesh builds the mesh over four backend addresses: two for each side of the split.
func newMesh(backends []string) meshConfig {
	all := endpointsOf(backends)
	var m meshConfig
	half := len(all) / 2
	for i := range otherHosts {
		m.addService(fmt.Sprintf("service-%02d", i), all[:half], all[half:])
		if i == otherHosts/2 {
			m.addService(serviceHost, all[:half], all[half:])
		}
	}
	return m
}

func (m *meshConfig) addService(name string, v1, v2 []endpoint) {
	full := name + ".default.svc.cluster.local"
	cluster := func(subset string, endpoints []endpoint) string {
		c := meshCluster{
			Name: "outbound|" + servicePort + "|" + subset + "|" + full,
			Host: full, Service: name, Subset: subset, Endpoints: endpoints,
		}
		m.Clusters = append(m.Clusters, c)
		return c.Name
	}
	first, second := cluster("v1", v1), cluster("v2", v2)
	m.Hosts = append(m.Hosts, meshHost{
		Name: full, Short: name,
		Domains: []string{full, name, name + ".default", name + ".default.svc"},
		Rules: []meshRule{
			{Header: "end-user", Value: "jason", Cluster: second},
			{Prefix: "/api/v2/", Cluster: second},
			{Split: []meshShare{{first, 90}, {second, 10}}},
		},
	})
}

// snapshot is m as outrider-proxy reads it in a lane: an outbound listener for all of it and an inbound one for an
// application at the first of the addresses; where TLS ends at the proxy, a gateway for all of it instead. at names the
// addresses by entrant.
func (m meshConfig) snapshot(l *lane, at map[string]string, i *identity) *model.Snapshot {
	protocol := protocolOf(l.out)
	s := &model.Snapshot{
		Workload: model.Workload{
			Peer: peerOf("storefront"), Instance: "storefront-0",
			Labels: map[string]string{"app": "storefront", "version": "v1"}, Address: "127.0.0.1",
		},
	}
	switch {
	case l.TLS():
		s.Listeners = []model.Listener{m.gateway(at[gatewayName], i)}
		s.Tables = []model.Table{m.table("gateway")}
	case l.TCP():
		s.Listeners = []model.Listener{{
			Name: "tcp", Direction: model.Outbound, Address: at[outboundName], Port: 9080, Protocol: model.TCP, Table: "tcp",
		}}
		s.Tables = []model.Table{m.connections("tcp")}
	default:
		s.Listeners = []model.Listener{
			{
				Name: "outbound", Direction: model.Outbound, Address: at[outboundName], Protocol: model.Auto,
				Table: "outbound", Explicit: true,
			},
			{
				Name: "inbound|9080", Direction: model.Inbound, Address: at[inboundName], Port: 9080, Protocol: protocol,
				Table: "inbound|9080",
			},
		}
		s.Tables = []model.Table{m.table("outbound"), inboundTable()}
		s.Clusters = append(s.Clusters, m.application(protocol))
	}
	for _, c := range m.Clusters {
		s.Clusters = append(s.Clusters, c.cluster(protocol))
	}
	if m.guarded {
		guard(s)
	}
	return model.Seal(s)
}

// protocolOf returns how a snapshot calls what backends are spoken to with.
func protocolOf(s speech) model.Protocol {
	return map[speech]model.Protocol{http1: model.HTTP, http2: model.HTTP2, grpc: model.GRPC, tcp: model.TCP}[s]
}

// table routes requests to all hosts.
func (m meshConfig) table(name string) model.Table {
	t := model.Table{Name: name}
	for _, h := range m.Hosts {
		t.Hosts = append(t.Hosts, h.virtualHost())
	}
	return t
}

// connections routes connections by the split of the service under test.
func (m meshConfig) connections(name string) model.Table {
	h := m.Hosts[slices.IndexFunc(m.Hosts, func(h meshHost) bool { return h.Short == serviceHost })]
	v := h.virtualHost()
	v.Domains, v.Port, v.Rules = []string{"*"}, 0, v.Rules[len(v.Rules)-1:]
	return model.Table{Name: name, Hosts: []model.VirtualHost{v}}
}

// gateway is a listener at which TLS ends.
func (m meshConfig) gateway(address string, i *identity) model.Listener {
	return model.Listener{
		Name: "gateway|default/web|443", Direction: model.Gateway, Address: address, Port: 443, Protocol: model.HTTPS,
		TLS: []model.ServerTLS{{
			Names: []string{"*"}, Mode: model.SimpleTLS, Protocol: model.HTTP, Table: "gateway",
			Certificates: []model.Certificate{{Name: i.Cert, CertFile: i.Cert, KeyFile: i.Key}},
		}},
	}
}

// application is the cluster behind the inbound listener: the first endpoint there is.
func (m meshConfig) application(p model.Protocol) model.Cluster {
	e := m.Clusters[0].Endpoints[0]
	return model.Cluster{
		Name: "inbound|9080||", Kind: model.Application, Port: 9080, Protocol: p,
		Service:   serviceOf("storefront.default.svc.cluster.local", "storefront"),
		Endpoints: []model.Endpoint{{Address: net.JoinHostPort(e.Host, e.Port), Weight: 1, Instance: "storefront-0"}},
	}
}

func inboundTable() model.Table {
	return model.Table{Name: "inbound|9080", Hosts: []model.VirtualHost{{
		Name: "inbound|http|9080", Domains: []string{"*"},
		Rules: []model.Rule{{
			Origin: model.Origin{Kind: "Service", Namespace: "default", Name: "storefront"},
			Route:  &model.Route{Destinations: []model.Destination{{Cluster: "inbound|9080||", Weight: 1}}},
		}},
	}}}
}

func (h meshHost) virtualHost() model.VirtualHost {
	v := model.VirtualHost{Name: h.Name + ":" + servicePort, Domains: h.Domains, Port: 9080}
	for i, r := range h.Rules {
		rule := model.Rule{Origin: model.Origin{
			Kind: "VirtualService", Namespace: "default", Name: h.Short,
			Rule: fmt.Sprintf("http[%d]", i), File: "mesh.yaml", Line: 10 + i,
		}}
		var match model.Match
		if r.Prefix != "" {
			match.Path = &model.StringMatch{Kind: model.Prefix, Value: r.Prefix}
		}
		if r.Header != "" {
			exact := model.StringMatch{Kind: model.Exact, Value: r.Value}
			match.Headers = []model.KeyMatch{{Name: r.Header, StringMatch: exact}}
		}
		if r.Prefix != "" || r.Header != "" {
			rule.Matches = []model.Match{match}
		}
		rule.Route = &model.Route{}
		for _, d := range r.Split {
			rule.Route.Destinations = append(rule.Route.Destinations, model.Destination{Cluster: d.Cluster, Weight: d.Weight})
		}
		if r.Split == nil {
			rule.Route.Destinations = []model.Destination{{Cluster: r.Cluster, Weight: 1}}
		}
		v.Rules = append(v.Rules, rule)
	}
	return v
}

func (c meshCluster) cluster(p model.Protocol) model.Cluster {
	m := model.Cluster{
		Name: c.Name, Kind: model.Listed, Service: serviceOf(c.Host, c.Service), Port: 9080, Subset: c.Subset,
		Protocol: p, LoadBalancer: model.LoadBalancer{Policy: model.LeastRequest},
		Origin: &model.Origin{Kind: "DestinationRule", Namespace: "default", Name: c.Service, File: "mesh.yaml", Line: 1},
	}
	for i, e := range c.Endpoints {
		m.Endpoints = append(m.Endpoints, model.Endpoint{
			Address: net.JoinHostPort(e.Host, e.Port), Weight: 1,
			Instance: fmt.Sprintf("%s-%s-%d", c.Service, c.Subset, i), Peer: peerOf(c.Service), Sidecar: true,
		})
	}
	return m
}

func serviceOf(full, short string) model.Service {
	return model.Service{Host: full, Name: short, Namespace: "default"}
}

func peerOf(name string) model.Peer {
	return model.Peer{
		Namespace: "default", Name: name, ServiceAccount: name, App: name, Version: "v1",
		CanonicalName: name, CanonicalRevision: "v1", Cluster: "Kubernetes",
	}
}
