// Package balance chooses an endpoint for each request, and a destination where a route splits.
//
// It is pure: clock and randomness come from the caller, so the proxy and `explain` draw by the same code.
package balance

import (
	"fmt"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Host is one endpoint as a balancer sees it: what one configuration says of it, and its Vitals.
type Host struct {
	// Key is the endpoint's address, host:port; ring and Maglev hash it.
	Key string
	// Weight is the endpoint's share against the others; 0 counts as 1.
	Weight uint32
	// Priority, Locality and Share are those of model.Endpoint; only a Pool looks at them.
	Priority uint32
	Locality model.Locality
	Share    uint32
	*Vitals
}

// Vitals is what is known of an endpoint, whatever a configuration says of it. The endpoint's owner keeps it across
// configurations, and several Hosts may have the same. The zero Vitals is ready.
type Vitals struct {
	// Active is how many exchanges are under way.
	Active atomic.Int64
	// Down says that the endpoint is not to be picked while others are left: it is ejected, or rests. Whoever changes it
	// calls Changed of the pool in force.
	Down atomic.Bool
	// Since is when the endpoint became part of its cluster or, if later, came back: slow start counts from there. It is
	// an instant of the clock that New got, to be set before Down is cleared.
	Since atomic.Int64

	latency latency
}

// Clock tells the instant in nanoseconds from any fixed moment.
type Clock func() int64

func (h *Host) weight() uint64 { return uint64(max(h.Weight, 1)) }

// alike says whether both stand for the same endpoint with the same weight.
func (h *Host) alike(o *Host) bool { return h.Vitals == o.Vitals && h.weight() == o.weight() }

// Key is the hash of the part of a request that decides where it goes.
type Key struct {
	Hash uint64
	// Has is false where the request lacks that part, or nothing is hashed.
	Has bool
}

// Balancer picks among hosts. Safe for concurrent use.
type Balancer interface {
	// Pick returns an index into the hosts that New got, or -1 when there are none. Only the hashing balancers look
	// at k; without a key they pick at random.
	Pick(k Key, r *Rand) int
}

// New returns the balancer that lb asks for over hosts, which must not be changed afterwards (but for their Vitals); it
// knows nothing of priorities, localities and health: see Pool.
// From previous, which may be nil or of any kind, a round robin takes over its place, and a hashing balancer its
// table where hosts did not change. The clock is asked only while hosts warm up, and by PeakEWMA. It fails on a policy,
// table size or bound that does not exist.
func New(lb model.LoadBalancer, hosts []*Host, previous Balancer, clock Clock) (Balancer, error) {
	switch lb.Policy {
	case model.LeastRequest, "", model.RoundRobin:
		if lb.Warmup != nil {
			return warmUp(lb, hosts, previous, clock), nil
		}
		return steady(lb.Policy, hosts, previous), nil
	case model.Random:
		return newRandom(hosts), nil
	case model.PeakEWMA:
		return newPeakEWMA(hosts, clock), nil
	case model.RingHash, model.Maglev:
		return newHashing(lb, hosts, previous)
	case model.Original:
		return nobody{}, nil
	}
	return nil, fmt.Errorf("cannot balance by %q: there is no such policy", lb.Policy)
}

// steady is the balancer of the two policies that slow start is for, where no host warms up.
func steady(policy model.Policy, hosts []*Host, previous Balancer) Balancer {
	if policy == model.RoundRobin {
		return newRoundRobin(hosts, previous)
	}
	return newLeastRequest(hosts, previous)
}

// nobody picks none: there are no hosts, or the client named the address itself (PASSTHROUGH).
type nobody struct{}

func (nobody) Pick(Key, *Rand) int { return -1 }

// sameWeights says whether no host is to get more than another.
func sameWeights(hosts []*Host) bool {
	for _, h := range hosts {
		if h.weight() != hosts[0].weight() {
			return false
		}
	}
	return true
}

// fingerprint is what a schedule or table depends on; equal fingerprints make equal ones.
type fingerprint struct {
	keys    []string
	weights []uint64
}

func newFingerprint(hosts []*Host) fingerprint {
	f := fingerprint{make([]string, len(hosts)), make([]uint64, len(hosts))}
	for i, h := range hosts {
		f.keys[i], f.weights[i] = h.Key, h.weight()
	}
	return f
}

func (f *fingerprint) of(hosts []*Host) bool {
	if len(f.keys) != len(hosts) {
		return false
	}
	for i, h := range hosts {
		if f.keys[i] != h.Key || f.weights[i] != h.weight() {
			return false
		}
	}
	return true
}
