package compile

import "github.com/outrider-mesh/outrider/mesh/model"

// GatewayWorkload is one gateway: a proxy that serves one or more Gateway objects.
type GatewayWorkload struct {
	model.Peer
	Labels  map[string]string
	Objects []GatewayRef
	// Ports that the gateway listens on, ascending; only those that it can serve.
	Ports []int
}

// GatewayRef is one Gateway object (Istio's or the Gateway API's) that a gateway workload serves.
type GatewayRef struct {
	Namespace, Name string
	Origin          model.Origin
	Servers         []GatewayServer
}

// GatewayServer is one server (or listener) of a Gateway object that is served.
type GatewayServer struct {
	Port     int
	Protocol model.Protocol
	Name     string
	Hosts    []string // as it names them, without their namespaces; "*" is any
}

// ServiceInfo describes one service of the mesh to people: the status page, the demo.
type ServiceInfo struct {
	model.Service
	Origin model.Origin
	Ports  []ServicePortInfo
}

// ServicePortInfo is one port of a service.
type ServicePortInfo struct {
	Port     int
	Name     string
	Protocol model.Protocol
	// Proxied is false for a port whose protocol this version leaves alone; there is none.
	Proxied bool
	// Requests says that HTTP is spoken there, or may be: who calls the port by a URL gets an answer.
	Requests bool
	// Workloads that serve the port, as namespace/name, sorted.
	Workloads []string
	// Splits are the rules that share requests to this port among destinations, in the order in which they are tried, as a
	// client in the service's own namespace meets them.
	Splits []SplitInfo
}

// SplitInfo is one rule that shares requests among destinations.
type SplitInfo struct {
	Origin model.Origin // file and line of the rule
	// Conditional says that the rule is for some requests only.
	Conditional  bool
	Destinations []SplitDestination
}

// SplitDestination is one destination of a split.
type SplitDestination struct {
	Host      string // full name
	Port      int
	Subset    string
	Weight    uint32   // as configured
	Cluster   string   // the snapshot's name for it; "" where it cannot be reached
	Workloads []string // that serve it, as namespace/name, sorted
}
