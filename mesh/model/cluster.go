package model

// Cluster is a set of endpoints that can stand for one another, and how to speak to them.
type Cluster struct {
	// Name follows Istio's grammar: "outbound|9080|v1|reviews.default.svc.cluster.local", "inbound|9080||", "PassthroughCluster".
	Name string      `json:"name"`
	Kind ClusterKind `json:"kind"`
	// Service is what requests to this cluster count for.
	Service Service `json:"service,omitzero"`
	Port    int     `json:"port,omitempty"` // the service's port
	Subset  string  `json:"subset,omitempty"`
	// Protocol decides what the endpoints are spoken to with; HTTP is HTTP/1.1, Auto the client's own.
	Protocol       Protocol     `json:"protocol"`
	LoadBalancer   LoadBalancer `json:"loadBalancer"`
	ConnectTimeout Duration     `json:"connectTimeout,omitempty"` // 0 is 10 s
	// TLS is how endpoints are spoken to; nil is plain text.
	TLS *ClientTLS `json:"tls,omitempty"`
	// MaxStreams bounds the exchanges under way on one HTTP/2 connection (maxConcurrentStreams); 0 is what the peer allows.
	MaxStreams uint32     `json:"maxStreams,omitempty"`
	Endpoints  []Endpoint `json:"endpoints,omitempty"`
	Origin     *Origin    `json:"origin,omitempty"` // the DestinationRule that shapes it, where one does
}

// ClusterKind says where a cluster's endpoints come from.
type ClusterKind string

// Kinds of cluster.
const (
	Listed      ClusterKind = "listed"      // Endpoints
	Application ClusterKind = "application" // the workload's own application; Endpoints has its one address
	Passthrough ClusterKind = "passthrough" // whatever the request names: dialled as written
)

// Service names a service as metrics do.
type Service struct {
	Host      string `json:"host,omitempty"` // full name
	Name      string `json:"name,omitempty"` // short name
	Namespace string `json:"namespace,omitempty"`
}

// Endpoint is one place that serves a cluster.
type Endpoint struct {
	Address  string   `json:"address"`            // host:port
	Weight   uint32   `json:"weight"`             // at least 1
	Instance string   `json:"instance,omitempty"` // pod or process name
	Peer     Peer     `json:"peer,omitzero"`
	Locality Locality `json:"locality,omitzero"`
	// Sidecar says that a proxy of the mesh listens there: it understands what proxies tell each other.
	Sidecar bool `json:"sidecar,omitempty"`
}

// Policy is a load balancing algorithm.
type Policy string

// Load balancing policies (Istio DestinationRule loadBalancer); empty is LeastRequest.
const (
	LeastRequest Policy = "LEAST_REQUEST" // best of two random choices by active requests; weighted form when weights differ
	RoundRobin   Policy = "ROUND_ROBIN"
	Random       Policy = "RANDOM"
	RingHash     Policy = "RING_HASH"
	Maglev       Policy = "MAGLEV"
	Original     Policy = "PASSTHROUGH" // the address that the client dialled
)

// LoadBalancer chooses among a cluster's endpoints.
type LoadBalancer struct {
	Policy Policy `json:"policy,omitempty"`
	// TableSize is the least number of ring entries (RingHash, default 1024) or the table's size (Maglev, a prime, default 65537).
	TableSize uint64 `json:"tableSize,omitempty"`
	// Hash is what the two hashing policies hash; a request without it goes to a random endpoint.
	Hash *HashKey `json:"hash,omitempty"`
}

// HashKey is the part of a request that decides where it goes; one is set.
type HashKey struct {
	Header   string  `json:"header,omitempty"` // lower case
	Cookie   *Cookie `json:"cookie,omitempty"`
	SourceIP bool    `json:"sourceIP,omitempty"`
	Query    string  `json:"query,omitempty"`
}

// Cookie is a cookie to hash. With a TTL the proxy makes one where the request has none.
type Cookie struct {
	Name string `json:"name"`
	Path string `json:"path,omitempty"`
	// TTL is nil where the cookie is only read, 0 for a session cookie.
	TTL        *Duration   `json:"ttl,omitempty"`
	Attributes []NameValue `json:"attributes,omitempty"`
}
