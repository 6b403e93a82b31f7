package model

// Retries say when a request is sent again (VirtualService retries, HTTPRoute retry, Envoy's retry policy).
type Retries struct {
	// Attempts is how many times more a request is sent after the first; 0 is never.
	Attempts uint32 `json:"attempts"`
	// On are the conditions, by Envoy's names: "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure",
	// "envoy-ratelimited", "retriable-4xx", "refused-stream", "retriable-status-codes" (those of Statuses), and gRPC's "cancelled",
	// "deadline-exceeded", "internal", "resource-exhausted", "unavailable"; and Linkerd's "unknown", "permission-denied", "data-loss",
	// and "per-try-timeout", which Envoy's "5xx", "gateway-error" and "reset" include.
	On       []string `json:"on,omitempty"`
	Statuses []int    `json:"statuses,omitempty"`
	// PerTry bounds each attempt; 0 is the route's timeout.
	PerTry Duration `json:"perTry,omitempty"`
	// LastUnbound leaves the last attempt, after which there is no other, without that bound (retry.linkerd.io/timeout).
	LastUnbound bool `json:"lastUnbound,omitempty"`
	// Backoff is the base of the exponential, jittered wait between attempts; 0 is 25 ms. No wait is longer than ten times as much.
	Backoff Duration `json:"backoff,omitempty"`
	// LeastWait comes before that wait: no attempt begins sooner after the failure of the one before (HTTPRoute retry.backoff).
	LeastWait Duration `json:"leastWait,omitempty"`
	// SameHosts lets an endpoint that has failed be asked again while others are left (retryIgnorePreviousHosts: false).
	SameHosts bool `json:"sameHosts,omitempty"`
	// RemoteLocalities prefers another priority than the ones that were tried (retryRemoteLocalities).
	RemoteLocalities bool `json:"remoteLocalities,omitempty"`
	// Unsafe lets a request whose method is not idempotent, and that may have been processed, be sent again: the configuration
	// named its conditions itself (retryOn; MeshConfig's defaultHttpRetryPolicy for all routes). Otherwise such a request is sent
	// again only where it certainly was not processed: a gRPC call, which is a POST, is not by the mesh's own default either.
	Unsafe bool `json:"unsafe,omitempty"`
	// Allowance, where set, limits the retries of the route by its requests (Linkerd's budget, BackendTrafficPolicy retryConstraint).
	Allowance *RetryAllowance `json:"allowance,omitempty"`
	// MaxBody is how many bytes of a request's body are kept to be sent again; 0 is 64 KiB. A longer one is not sent again.
	MaxBody int64   `json:"maxBody,omitempty"`
	Origin  *Origin `json:"origin,omitempty"` // nil for the mesh's own default
}

// RetryAllowance allows Ratio retries for each request of the last TTL, and PerSecond ones besides. The TTL is from 1 s to 1 h.
type RetryAllowance struct {
	// Name is what shares it: routes and clusters with the same one spend the same retries. "" is the route's own.
	Name      string   `json:"name,omitempty"`
	Ratio     float64  `json:"ratio"`
	PerSecond float64  `json:"perSecond"`
	TTL       Duration `json:"ttl"`
	Origin    *Origin  `json:"origin,omitempty"`
}

// RetryBudget bounds the retries under way to Percent of the exchanges under way, but at least Least (DestinationRule retryBudget).
type RetryBudget struct {
	Percent float64 `json:"percent"`
	Least   uint32  `json:"least"`
	// Interval, where set, takes the attempts that began in it in place of the exchanges under way (budgetInterval).
	Interval Duration `json:"interval,omitempty"`
}

// Limits bound what one proxy does with one cluster (DestinationRule connectionPool); nil is no limit, 0 is none at all.
type Limits struct {
	// Connections bounds open connections (tcp.maxConnections): HTTP/1 requests beyond wait, opaque connections are closed.
	Connections *uint32 `json:"connections,omitempty"`
	// Pending bounds the requests that wait for a connection (http1MaxPendingRequests).
	Pending *uint32 `json:"pending,omitempty"`
	// Requests bounds the requests under way, of either version (http2MaxRequests).
	Requests *uint32 `json:"requests,omitempty"`
	// Retries bounds the retries under way or waited for (maxRetries); Budget, where set, stands in its place.
	Retries *uint32      `json:"retries,omitempty"`
	Budget  *RetryBudget `json:"budget,omitempty"`
	// PerConnection is how many requests a connection carries before it is replaced; 0 is any number.
	PerConnection uint32 `json:"perConnection,omitempty"`
	// Idle is how long an unused connection is kept, and one with opaque bytes while none pass: nil is an hour, 0 is for ever.
	Idle *Duration `json:"idle,omitempty"`
	// Duration is how long a connection may last (tcp.maxConnectionDuration); 0 is for ever.
	Duration Duration `json:"duration,omitempty"`
	// KeepAlive sets TCP's own probes; nil leaves them as Go sets them.
	KeepAlive *TCPKeepAlive `json:"keepAlive,omitempty"`
}

// TCPKeepAlive is a socket's; 0 leaves the system's value.
type TCPKeepAlive struct {
	Probes   uint32   `json:"probes,omitempty"`
	Time     Duration `json:"time,omitempty"`
	Interval Duration `json:"interval,omitempty"`
}

// Outlier ejects endpoints that fail (DestinationRule outlierDetection), with every default filled in.
type Outlier struct {
	Consecutive5xx         uint32   `json:"consecutive5xx"`     // 0 is off
	ConsecutiveGateway     uint32   `json:"consecutiveGateway"` // 0 is off
	ConsecutiveLocalOrigin uint32   `json:"consecutiveLocalOrigin"`
	Split                  bool     `json:"split,omitempty"`    // splitExternalLocalOriginErrors
	Statuses               []int    `json:"statuses,omitempty"` // count as errors in place of every 5xx
	Interval               Duration `json:"interval"`
	BaseEjection           Duration `json:"baseEjection"`
	MaxEjection            Duration `json:"maxEjection,omitempty"` // 0 is 5 min, or BaseEjection where that is longer
	MaxEjectionPercent     int      `json:"maxEjectionPercent"`
	AlwaysOne              bool     `json:"alwaysOne,omitempty"`
	Origin                 *Origin  `json:"origin,omitempty"`
}

// Accrual is Linkerd's failure accrual (balancer.linkerd.io/failure-accrual): an endpoint rests after so many failures in a row, or
// where Rate says so, longer each time, and is then probed by one request.
type Accrual struct {
	MaxFailures uint32   `json:"maxFailures"` // 0 is none, with a Rate
	MinPenalty  Duration `json:"minPenalty"`
	MaxPenalty  Duration `json:"maxPenalty"`
	Jitter      float64  `json:"jitter"` // the share of a penalty that may be added at random, 0 to 100
	// Rate is what the mode unified adds; nil is the mode consecutive.
	Rate   *AccrualRate `json:"rate,omitempty"`
	Origin *Origin      `json:"origin,omitempty"`
}

// AccrualRate makes an endpoint rest that has a smaller share of successes than Threshold (0 to 1, 0 is none) among at least
// MinRequests within the Window (at least 10 ms). 429 and RESOURCE_EXHAUSTED are no successes then.
type AccrualRate struct {
	Threshold   float64  `json:"threshold"`
	Window      Duration `json:"window"`
	MinRequests uint32   `json:"minRequests"`
}

// Warmup lets a new endpoint's share grow from MinimumPercent to its whole (slow start, LEAST_REQUEST and ROUND_ROBIN only).
type Warmup struct {
	Duration       Duration `json:"duration"`
	MinimumPercent float64  `json:"minimumPercent"` // 10 by default
	Aggression     float64  `json:"aggression"`     // 1 by default, at least 1
}

// Fault is injected before a request is forwarded (VirtualService fault). Percentages are 0 to 100.
type Fault struct {
	DelayPercent float64  `json:"delayPercent,omitempty"`
	Delay        Duration `json:"delay,omitempty"`
	AbortPercent float64  `json:"abortPercent,omitempty"`
	// AbortStatus is HTTP's; where it is 0, AbortGRPC is the status that the request is answered with.
	AbortStatus int `json:"abortStatus,omitempty"`
	AbortGRPC   int `json:"abortGRPC,omitempty"`
}

// Mirror sends a copy of a share of the requests to another cluster, whose answers nobody waits for.
type Mirror struct {
	Cluster string  `json:"cluster"`
	Percent float64 `json:"percent"` // 0 to 100
}

// Breaker is a Hystrix circuit breaker (the object CircuitBreaker): one state for each proxy that has it.
type Breaker struct {
	// Name is "namespace/name", unique in the snapshot.
	Name string `json:"name"`
	// Group is the host that it guards, for Hystrix's dashboard.
	Group string `json:"group"`
	// Paths and Methods narrow it to some requests; none means all. A path that ends in "*" is a prefix.
	Paths   []string `json:"paths,omitempty"`
	Methods []string `json:"methods,omitempty"`

	Enabled                  bool     `json:"enabled"`
	RequestVolumeThreshold   int      `json:"requestVolumeThreshold"`
	ErrorThresholdPercentage int      `json:"errorThresholdPercentage"`
	SleepWindow              Duration `json:"sleepWindow"`
	ForceOpen                bool     `json:"forceOpen,omitempty"`
	ForceClosed              bool     `json:"forceClosed,omitempty"`

	RollingWindow        Duration `json:"rollingWindow"`
	RollingBuckets       int      `json:"rollingBuckets"`
	HealthInterval       Duration `json:"healthInterval"`
	PercentileEnabled    bool     `json:"percentileEnabled"`
	PercentileWindow     Duration `json:"percentileWindow"`
	PercentileBuckets    int      `json:"percentileBuckets"`
	PercentileBucketSize int      `json:"percentileBucketSize"`

	// Thread says that the strategy is THREAD, whose pool bounds nothing here; MaxConcurrent holds for SEMAPHORE.
	Thread         bool     `json:"thread,omitempty"`
	MaxConcurrent  int      `json:"maxConcurrent"`
	TimeoutEnabled bool     `json:"timeoutEnabled"`
	Timeout        Duration `json:"timeout"`

	FallbackEnabled       bool `json:"fallbackEnabled"`
	FallbackMaxConcurrent int  `json:"fallbackMaxConcurrent"`

	// Statuses ("503", "5xx") and GRPCStatuses (names or numbers) are the answers that count as errors; nil takes the defaults.
	Statuses     []string `json:"statuses,omitempty"`
	GRPCStatuses []string `json:"grpcStatuses,omitempty"`

	// FallbackReply answers, or FallbackCluster is asked, where the execution failed or was refused; without either the error stands.
	FallbackReply   *Reply  `json:"fallbackReply,omitempty"`
	FallbackCluster string  `json:"fallbackCluster,omitempty"`
	Origin          *Origin `json:"origin,omitempty"`
}
