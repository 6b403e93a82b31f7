package model

import "fmt"

// RateLimit bounds how often requests are let through (the object RateLimit): one state for each proxy that has it.
type RateLimit struct {
	// Name is "namespace/name", unique in the snapshot.
	Name string `json:"name"`
	// Paths and Methods narrow it to some requests; none means all. A path that ends in "*" is a prefix.
	Paths   []string `json:"paths,omitempty"`
	Methods []string `json:"methods,omitempty"`
	// Limits are all to be met.
	Limits []TokenLimit `json:"limits"`
	// Shared is what a rate limit service decides on top of them, once they are met; nil asks none.
	Shared *SharedLimit `json:"shared,omitempty"`
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
	// Only and Except narrow it to callers by their accounts, "namespace/name": to these alone, or to all others.
	Only   []string `json:"only,omitempty"`
	Except []string `json:"except,omitempty"`
}

// RateKey is what of a request tells buckets apart; one is set.
type RateKey struct {
	// Identity is the calling workload, as its sidecar introduces it.
	Identity bool `json:"identity,omitempty"`
	// Account is the calling workload's ServiceAccount, as its sidecar introduces it.
	Account  bool   `json:"account,omitempty"`
	SourceIP bool   `json:"sourceIP,omitempty"` // of the connection
	Header   string `json:"header,omitempty"`   // lower case
}

// SharedLimit is a limit that proxies share: a rate limit service (envoy.service.ratelimit.v3) is asked for each request.
type SharedLimit struct {
	// Cluster is the service's; "" where this workload cannot reach it, so that no request gets an answer.
	Cluster   string `json:"cluster,omitempty"`
	Authority string `json:"authority"` // host:port
	Domain    string `json:"domain"`
	// Descriptors are asked about together. One whose entry has no value for a request is left out; without any, nobody is asked.
	Descriptors [][]DescriptorEntry `json:"descriptors"`
	// Timeout is how long an answer may take, connecting included.
	Timeout Duration `json:"timeout"`
	// FailOpen lets requests through about which the service does not answer; else they are answered 500.
	FailOpen bool `json:"failOpen,omitempty"`
}

// DescriptorEntry is a label (the protocol's key) of a descriptor and where its value comes from: Value itself where From is the zero RateKey.
type DescriptorEntry struct {
	Label string  `json:"key"`
	Value string  `json:"value,omitempty"`
	From  RateKey `json:"from,omitzero"`
}

// validate reports what no proxy could ask.
func (l *SharedLimit) validate(clusters map[string]bool) error {
	if l == nil {
		return nil
	}
	if l.Cluster != "" && !clusters[l.Cluster] {
		return fmt.Errorf("there is no cluster %q to ask", l.Cluster)
	}
	if l.Domain == "" || len(l.Descriptors) == 0 || l.Timeout <= 0 {
		return fmt.Errorf("a shared limit has a domain, descriptors and a timeout")
	}
	for i, d := range l.Descriptors {
		if len(d) == 0 {
			return fmt.Errorf("descriptor %d has no entries", i)
		}
		for j := range d {
			if d[j].Label == "" || (d[j].Value == "") == (d[j].From == RateKey{}) {
				return fmt.Errorf("descriptor %d: entry %d has no key, or not one source of its value", i, j)
			}
		}
	}
	return nil
}
