package compile

import "github.com/outrider-mesh/outrider/mesh/model"

// Template is one workload as its objects describe it: what instances are made from.
type Template struct {
	model.Peer
	Kind        string // Deployment, StatefulSet, DaemonSet, ReplicaSet, Pod, WorkloadEntry, WorkloadGroup
	Labels      map[string]string
	Annotations map[string]string // of the pod template
	Locality    model.Locality
	Ports       []TemplatePort
	// Replicas as written (at least 0); 1 for a Pod, a WorkloadEntry and a WorkloadGroup.
	Replicas int
	// Sidecar is false where an annotation or label leaves the workload out of the mesh.
	Sidecar bool
	// Address is where a WorkloadEntry says that its application runs, "" for templates.
	Address string
	// Probe is how the sidecar is to ask the application whether it is ready (a WorkloadGroup's probe), its Address as written;
	// nil asks nothing. The snapshot of an instance has the address where the placement has put its application.
	Probe  *model.Probe
	Origin model.Origin
}

// TemplatePort is one port that a workload serves: a container port, or one that a Service's targetPort names.
type TemplatePort struct {
	Name     string // container port's name, or the Service port's for a WorkloadEntry
	Port     int    // the workload's port (targetPort, WorkloadEntry port)
	Protocol model.Protocol
}

// Placement says where everything runs. It is the caller's: local assigns loopback addresses, a cluster has pod addresses.
type Placement struct {
	Instances []Instance // sorted by namespace, workload, instance
	Gateways  []GatewayListen
}

// Instance is one running copy of a workload.
type Instance struct {
	Namespace, Workload, Name string
	// Address is the IP address that the instance is reached at.
	Address string
	// Outbound is host:port of its sidecar's outbound HTTP proxy; "" where it has none.
	Outbound string
	Ports    []InstancePort
	Sidecar  bool
	// StandIn says that something plays the application: it has the instance's ports only, and speaks no TLS.
	StandIn bool
	// Unready says that the application has not passed its probe, or does not any more: the instance is an endpoint that is
	// not asked.
	Unready bool
}

// InstancePort is where one of an instance's ports is found.
type InstancePort struct {
	Port int
	// Listen is host:port that others dial: the sidecar's inbound listener, or the application itself where there is no sidecar.
	Listen string
	// App is host:port of the application behind the sidecar; "" where nobody plays it: the instance is then no endpoint for this port.
	App string
}

// GatewayListen is where one port of a gateway workload listens.
type GatewayListen struct {
	Namespace, Workload string
	Port                int
	Listen              string // host:port
}
