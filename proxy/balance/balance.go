// Package balance chooses an endpoint for each request, and a destination where a route splits.
//
// It is pure: clock and randomness come from the caller, so the proxy and `explain` draw by the same code.
package balance

import (
	"fmt"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Host is one endpoint as a balancer sees it. Its owner keeps it across configurations, and counts in Active.
type Host struct {
	// Key is the endpoint's address, host:port; ring and Maglev hash it.
	Key string
	// Weight is the endpoint's share against the others; 0 counts as 1.
	Weight uint32
	// Active is how many exchanges are under way.
	Active atomic.Int64
}

func (h *Host) weight() uint64 { return uint64(max(h.Weight, 1)) }

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

// New returns the balancer that lb asks for over hosts, which must not be changed afterwards (but for Active).
// From previous, which may be nil or of any kind, a round robin takes over its place, and a hashing balancer its
// table where hosts did not change. It fails on a policy or table size that does not exist.
func New(lb model.LoadBalancer, hosts []*Host, previous Balancer) (Balancer, error) {
	switch lb.Policy {
	case model.LeastRequest, "":
		return newLeastRequest(hosts, previous), nil
	case model.RoundRobin:
		return newRoundRobin(hosts, previous), nil
	case model.Random:
		return newRandom(hosts), nil
	case model.RingHash:
		return newRing(lb.TableSize, hosts, previous)
	case model.Maglev:
		return newMaglev(lb.TableSize, hosts, previous)
	case model.Original:
		return nobody{}, nil
	}
	return nil, fmt.Errorf("cannot balance by %q: there is no such policy", lb.Policy)
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
