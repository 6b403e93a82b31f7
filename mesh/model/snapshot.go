// Package model holds the nouns of a mesh: the immutable snapshot that one workload's proxy runs, as plain structs.
//
// The same structs pass as a pointer inside one process, as JSON between machines, and as the file that
// `outrider compile` prints. Nothing changes a value of this package after it was published: who wants a change
// publishes a new snapshot. Slices are in a fixed order, so equal configurations encode to equal bytes.
package model

// Snapshot is the complete configuration of one workload's proxy.
type Snapshot struct {
	// Version names the content: equal snapshots have equal versions. Set by Seal.
	Version string `json:"version"`
	// Requires lists the features that a proxy must have to run this snapshot; one that lacks any refuses it.
	Requires []string `json:"requires,omitempty"`

	Workload  Workload   `json:"workload"`
	Settings  Settings   `json:"settings"`
	Listeners []Listener `json:"listeners"`
	Tables    []Table    `json:"tables"`
	Clusters  []Cluster  `json:"clusters"`
	Breakers  []Breaker  `json:"breakers,omitempty"`
	// RateLimits are those that VirtualHosts name.
	RateLimits []RateLimit `json:"rateLimits,omitempty"`
}

// Workload says whose proxy this is.
type Workload struct {
	Peer
	// Instance is the name of the one pod or process, such as "reviews-v1-0".
	Instance string            `json:"instance"`
	Labels   map[string]string `json:"labels,omitempty"`
	Locality Locality          `json:"locality"`
	// Address is the IP address that the instance is reached at.
	Address string `json:"address,omitempty"`
	// Probe is how the sidecar asks whether its application is ready; nil does not ask.
	Probe *Probe `json:"probe,omitempty"`
}

// Peer is what metrics say of one side of an exchange (Istio's node metadata).
// The zero Peer is unknown.
type Peer struct {
	Namespace         string `json:"namespace,omitempty"`
	Name              string `json:"name,omitempty"` // the workload: Deployment, WorkloadEntry, ...
	ServiceAccount    string `json:"serviceAccount,omitempty"`
	App               string `json:"app,omitempty"`               // label app
	Version           string `json:"version,omitempty"`           // label version
	CanonicalName     string `json:"canonicalName,omitempty"`     // service.istio.io/canonical-name > app.kubernetes.io/name > app > workload
	CanonicalRevision string `json:"canonicalRevision,omitempty"` // service.istio.io/canonical-revision > app.kubernetes.io/version > version > "latest"
	Cluster           string `json:"cluster,omitempty"`           // CLUSTER_ID, "Kubernetes" by default
}

// Locality is where an endpoint runs.
type Locality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	SubZone string `json:"subZone,omitempty"`
}

// Settings are the mesh-wide choices that reach a proxy (MeshConfig).
type Settings struct {
	// PathNormalization is NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES; empty means BASE.
	PathNormalization string `json:"pathNormalization,omitempty"`
	// Drain is how long a proxy that was told to end waits for exchanges under way (terminationDrainDuration).
	Drain Duration `json:"drain,omitempty"`
	// AccessLog is where each exchange writes a line; nil is nowhere.
	AccessLog *AccessLog `json:"accessLog,omitempty"`
}

// AccessLog is a log with one line for each exchange, and for each opaque connection when it ends.
type AccessLog struct {
	// File is a path; /dev/stdout and /dev/stderr are the process's own.
	File string `json:"file"`
	// Encoding is TEXT or JSON; empty means TEXT.
	Encoding string `json:"encoding,omitempty"`
	// Format has Envoy's command operators, in text or in the values of an object of JSON; empty means Istio's default.
	Format string `json:"format,omitempty"`
}

// Direction says which side of the workload a listener is on.
type Direction string

// The directions of a listener.
const (
	Outbound Direction = "outbound" // the workload's own requests leave here
	Inbound  Direction = "inbound"  // requests to the workload arrive here
	Gateway  Direction = "gateway"  // requests from outside the mesh enter here
)

// Listener is one address to accept connections at.
type Listener struct {
	// Name is unique in the snapshot and stays the same across changes: "outbound", "inbound|9080", "gateway|default/web|80".
	Name      string    `json:"name"`
	Direction Direction `json:"direction"`
	// Address is host:port to bind; port 0 takes a free one.
	Address string `json:"address"`
	// Port is the port that the configuration speaks of: the workload's port inbound, the server's port at a gateway, 0 outbound.
	Port int `json:"port,omitempty"`
	// Protocol is the port's protocol as declared; Auto where it is not.
	Protocol Protocol `json:"protocol"`
	// Table names the route table of this listener: of its requests, or, where Protocol is TCP, TLS or HTTPS, of its
	// connections, which are matched by server name (the "*" host where there is none) and tunnelled.
	Table string `json:"table"`
	// TLS terminates or reads TLS here; empty is none. Where it is set, Table is unused.
	TLS []ServerTLS `json:"tls,omitempty"`
	// Detect is how long a client on an Auto port may stay silent before the connection is taken for opaque bytes
	// (meshConfig.protocolDetectionTimeout); 0 is 500 ms.
	Detect Duration `json:"detect,omitempty"`
	// Explicit marks an HTTP proxy: clients send absolute-form targets, CONNECT, or a plain request with a Host.
	Explicit bool `json:"explicit,omitempty"`
	// Reason says whether the proxy's own answers name their cause in x-outrider-reason: "on", "off", or "" for the
	// direction's default, which is off at gateways only.
	Reason string `json:"reason,omitempty"`
	// Origin is the object that asked for the listener, where one did.
	Origin *Origin `json:"origin,omitempty"`
}

// Protocol is what is spoken on a port.
type Protocol string

// Protocols, by Kubernetes appProtocol or Istio's port names.
const (
	HTTP  Protocol = "http"  // HTTP/1.1
	HTTP2 Protocol = "http2" // HTTP/2 without TLS (h2c)
	GRPC  Protocol = "grpc"
	HTTPS Protocol = "https" // TLS that the proxy does not open
	TLS   Protocol = "tls"
	TCP   Protocol = "tcp" // also mongo, mysql, redis: opaque bytes
	Auto  Protocol = "auto"
)

// Origin is the place in the user's files that a piece of configuration comes from.
type Origin struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Rule      string `json:"rule,omitempty"` // the rule's own name, or its path: "http[1]"
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"` // counts from 1
}
