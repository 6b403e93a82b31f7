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
	MaxStreams uint32 `json:"maxStreams,omitempty"`
	// KeepAlive2 tests connections of HTTP/2 with PING (http2KeepAlive); nil does not.
	KeepAlive2 *KeepAlive `json:"keepAlive2,omitempty"`
	// Limits bound what is done with the cluster; nil is nothing but the defaults.
	Limits *Limits `json:"limits,omitempty"`
	// Retries is spent by the retries of all that is sent to the cluster (XBackendTrafficPolicy retryConstraint); nil is no limit. What
	// it does not allow is answered 503, as the Gateway API wants it.
	Retries *RetryAllowance `json:"retries,omitempty"`
	// Outlier and Accrual let endpoints that fail rest; nil is never. At most one is set.
	Outlier *Outlier `json:"outlier,omitempty"`
	Accrual *Accrual `json:"accrual,omitempty"`
	// Panic is the percentage of healthy endpoints below which all are used, ejected ones too (minHealthPercent; 0 is never).
	Panic uint32 `json:"panic,omitempty"`
	// Breakers name those that stand before the cluster, in the order in which they are asked: the first that is for a
	// request decides for it.
	Breakers  []string   `json:"breakers,omitempty"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	Origin    *Origin    `json:"origin,omitempty"` // the DestinationRule that shapes it, where one does
}

// KeepAlive tells how connections are tested for whether their other end is still there. Both are longer than 0; they are
// kept to within a second.
type KeepAlive struct {
	Interval Duration `json:"interval"` // between tests
	// Timeout is how long the other end may say nothing after a test before the connection is closed.
	Timeout Duration `json:"timeout"`
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
	// Priority counts from 0, the first choice: a further one is used as far as those before it cannot carry the load
	// (locality failover). Priorities of a cluster leave no number out.
	Priority uint32 `json:"priority,omitempty"`
	// Share is the weight of the endpoint's Locality among those of its priority (locality distribution); where every
	// endpoint's is 0, localities do not matter.
	Share uint32 `json:"share,omitempty"`
	// Sidecar says that a proxy of the mesh listens there: it understands what proxies tell each other.
	Sidecar bool `json:"sidecar,omitempty"`
	// Unready says that its application does not pass its probe: it is asked only where so few others are left that all are
	// (Panic), as Envoy does with an endpoint that its control plane calls unhealthy.
	Unready bool `json:"unready,omitempty"`
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
	PeakEWMA     Policy = "PEAK_EWMA"   // best of two random choices by latency, whose peaks fade slowly, and active requests (Linkerd)
	Original     Policy = "PASSTHROUGH" // the address that the client dialled
)

// LoadBalancer chooses among a cluster's endpoints.
type LoadBalancer struct {
	Policy Policy `json:"policy,omitempty"`
	// TableSize is the least number of ring entries (RingHash, default 1024) or the table's size (Maglev, a prime, default 65537).
	TableSize uint64 `json:"tableSize,omitempty"`
	// Hash is what the two hashing policies hash; a request without it goes to a random endpoint.
	Hash *HashKey `json:"hash,omitempty"`
	// Bound lets no endpoint of a hashing policy have more than so many percent of the average of the requests under way
	// (Envoy's hash_balance_factor); 0 is no bound, else at least 100.
	Bound uint32 `json:"bound,omitempty"`
	// Warmup lets new endpoints begin slowly; nil does not.
	Warmup *Warmup `json:"warmup,omitempty"`
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
