package model

// RateLimit bounds how often requests are let through (the object RateLimit): one state for each proxy that has it.
type RateLimit struct {
	// Name is "namespace/name", unique in the snapshot.
	Name string `json:"name"`
	// Paths and Methods narrow it to some requests; none means all. A path that ends in "*" is a prefix.
	Paths   []string `json:"paths,omitempty"`
	Methods []string `json:"methods,omitempty"`
	// Limits are all to be met.
	Limits []TokenLimit `json:"limits"`
	// DryRun counts what would be refused and refuses nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Headers says which answers tell of the limit: "always", "never", or "" for refusals alone.
	Headers string `json:"headers,omitempty"`
	// GRPC is the status that gRPC's requests are refused with: 14 (UNAVAILABLE), Envoy's own, or 8 (RESOURCE_EXHAUSTED).
	GRPC int `json:"grpc"`
	// Keys bounds the keys of each limit that are told apart at a time.
	Keys   int     `json:"keys"`
	Origin *Origin `json:"origin,omitempty"`
}

// TokenLimit is a token bucket, or, where By has anything, one for each combination of values.
type TokenLimit struct {
	Requests int       `json:"requests"` // let through in each Per, on average
	Per      Duration  `json:"per"`
	Burst    int       `json:"burst"` // let through at once
	By       []RateKey `json:"by,omitempty"`
}

// RateKey is what of a request tells buckets apart; one is set.
type RateKey struct {
	// Identity is the calling workload, as its sidecar introduces it.
	Identity bool   `json:"identity,omitempty"`
	SourceIP bool   `json:"sourceIP,omitempty"` // of the connection
	Header   string `json:"header,omitempty"`   // lower case
}
