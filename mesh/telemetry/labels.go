package telemetry

import (
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Reporters of an Edge: the side of the exchange that counts it.
const (
	Source      = "source"      // client sidecars and gateways
	Destination = "destination" // server sidecars
)

// Placeholders and values of Istio's labels.
const (
	unknown   = "unknown"
	latest    = "latest"
	mutualTLS = "mutual_tls"
	none      = "none"
)

// Edge is one direction between two workloads, as one of them sees it. It is comparable.
type Edge struct {
	Reporter string // Source or Destination
	// Peer is the other side; zero where it is unknown.
	Peer model.Peer
	// PeerPrincipal is the other side's SPIFFE id, with its scheme, where its certificate was checked.
	PeerPrincipal string
	Service       model.Service
	// Security is "mutual_tls" or "none" at a destination. Empty derives it from PeerPrincipal.
	// A source always reports "unknown", as Istio does.
	Security string
}

// Labels of Istio's HTTP metrics (istio_stats.cc); the last four differ from exchange to exchange on one edge.
var labelNames = []string{
	"reporter",
	"source_workload", "source_workload_namespace", "source_app", "source_version",
	"source_canonical_service", "source_canonical_revision", "source_cluster", "source_principal",
	"destination_workload", "destination_workload_namespace", "destination_app", "destination_version",
	"destination_canonical_service", "destination_canonical_revision", "destination_cluster", "destination_principal",
	"destination_service", "destination_service_name", "destination_service_namespace",
	"connection_security_policy",
	"request_protocol", "response_code", "grpc_response_status", "response_flags",
}

// Labels of Istio's TCP metrics.
var tcpLabelNames = append(labelNames[:edgeLabelCount:edgeLabelCount], "request_protocol", "response_flags")

const (
	edgeLabelCount    = 21
	messageLabelCount = 20 // of Istio's gRPC message metrics: connection_security_policy is not known yet when they begin
)

// edgeLabels are the values of the labels that an edge decides, in the order of labelNames.
// Edges with equal labels share their series, so this and not Edge is what handles are kept by.
type edgeLabels [edgeLabelCount]string

// sideLabels are the eight labels of one side, in the order of labelNames.
type sideLabels [8]string

func (m *Metrics) labels(e *Edge) edgeLabels {
	// Each side's certificate counts only where both sides showed one: no principal without mutual TLS.
	principal := ""
	if e.PeerPrincipal != "" {
		principal = m.principal
	}
	local, peer := localSide(&m.self, principal), peerSide(e)

	var l edgeLabels
	host, name := e.Service.Host, e.Service.Name
	if e.Reporter == Destination {
		l[0] = Destination
		copy(l[1:], peer[:])
		copy(l[9:], local[:])
		l[17], l[18], l[19] = or(host, local[4]), or(name, local[4]), local[1]
		l[20] = or(e.Security, none)
		if e.Security == "" && principal != "" {
			l[20] = mutualTLS
		}
		return l
	}
	l[0] = or(e.Reporter, Source)
	copy(l[1:], local[:])
	copy(l[9:], peer[:])
	l[17], l[18], l[19] = or(host, unknown), or(name, unknown), peer[1]
	l[20] = unknown
	return l
}

// localSide gives the labels of the sidecar's own workload, whose app and version stay empty where they are unset.
func localSide(p *model.Peer, principal string) sideLabels {
	return sideLabels{
		or(p.Name, unknown), or(p.Namespace, unknown), p.App, p.Version,
		or(p.CanonicalName, unknown), or(p.CanonicalRevision, latest), or(p.Cluster, "Kubernetes"), or(principal, unknown),
	}
}

// peerSide gives the labels of the other workload. Its certificate knows its namespace better than it does itself.
func peerSide(e *Edge) sideLabels {
	p, cluster := &e.Peer, unknown
	if *p != (model.Peer{}) {
		cluster = or(p.Cluster, "Kubernetes")
	}
	namespace := p.Namespace
	if ns := principalNamespace(e.PeerPrincipal); ns != "" {
		namespace = ns
	}
	return sideLabels{
		or(p.Name, unknown), or(namespace, unknown), or(p.App, unknown), or(p.Version, unknown),
		or(p.CanonicalName, unknown), or(p.CanonicalRevision, latest), cluster, or(e.PeerPrincipal, unknown),
	}
}

// principalNamespace returns the part after "/ns/" of a SPIFFE id in Istio's form, or nothing.
func principalNamespace(id string) string {
	_, rest, _ := strings.Cut(id, "/ns/")
	ns, _, _ := strings.Cut(rest, "/")
	return ns
}

func or(s, placeholder string) string {
	if s == "" {
		return placeholder
	}
	return s
}
