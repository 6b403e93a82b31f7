package balance

import (
	"fmt"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// table maps every hash to a host.
type table interface {
	// host returns the host of a hash. Each attempt leads to another place of the table, in an order that the hash fixes:
	// the next point of a ring, a changed hash for Maglev (as in Envoy).
	host(hash uint64, attempt int) int
}

// hashing picks by a table. With a bound, no host gets more exchanges than so many percent of the average, but at least
// one; what is over goes to the first host with room in an order that the hash fixes (Mirrokni et al., "Consistent Hashing
// with Bounded Loads", 2018; Envoy's hash_balance_factor, which lets each host have one more).
type hashing struct {
	table
	hosts []*Host
	bound uint64 // percent; 0 is none
	sum   uint64 // of weights
}

func newHashing(lb model.LoadBalancer, hosts []*Host, previous Balancer) (Balancer, error) {
	if lb.Bound != 0 && lb.Bound < 100 {
		return nil, fmt.Errorf("cannot bound the load to %d%% of the average: the least is 100", lb.Bound)
	}
	var former table
	if p, ok := previous.(*hashing); ok {
		former = p.table
	}
	b := &hashing{hosts: hosts, bound: uint64(lb.Bound)}
	var err error
	if lb.Policy == model.RingHash {
		b.table, err = newRing(lb.TableSize, hosts, former)
	} else {
		b.table, err = newMaglev(lb.TableSize, hosts, former)
	}
	if err != nil {
		return nil, err
	}
	if len(hosts) == 0 {
		return nobody{}, nil
	}
	for _, h := range hosts {
		b.sum += h.weight()
	}
	return b, nil
}

func (b *hashing) Pick(k Key, r *Rand) int { return b.again(k, r, 0) }

// again picks as Pick does, for the attempt of that number.
func (b *hashing) again(k Key, r *Rand, attempt int) int {
	if !k.Has {
		k.Hash = r.Uint64()
	}
	i := b.host(k.Hash, attempt)
	if b.bound == 0 || b.hosts[i].Active.Load() <= 0 {
		return i // every host may have one
	}
	return b.withRoom(k.Hash, i)
}

// withRoom returns host i, or, where it has its share, the first with room of the others, or else the one that is the
// least over its share. It counts all exchanges anew: a pick among n hosts costs n reads, where the fast way is no way.
func (b *hashing) withRoom(hash uint64, i int) int {
	under := uint64(0)
	for _, h := range b.hosts {
		under += uint64(max(h.Active.Load(), 0))
	}
	slots := ((under+1)*b.bound + 99) / 100
	best, least := i, b.load(i, slots)
	if least <= 1 {
		return i
	}
	// A start and a step that shares no divisor with n lead through all hosts, without a list to shuffle.
	n := uint64(len(b.hosts))
	order := Rand{hash}
	at, step := order.below(n), uint64(1)
	if n > 2 {
		for step = 1 + order.below(n-1); divisor(step, n) != 1; {
			step = 1 + order.below(n-1)
		}
	}
	for range n {
		if at = (at + step) % n; int(at) == i {
			continue
		}
		l := b.load(int(at), slots)
		if l <= 1 {
			return int(at)
		}
		if l < least {
			best, least = int(at), l
		}
	}
	return best
}

// load is how full host i would be with one exchange more, 1 being its share of all slots.
func (b *hashing) load(i int, slots uint64) float64 {
	h := b.hosts[i]
	own := max((slots*h.weight()+b.sum-1)/b.sum, 1)
	return float64(max(h.Active.Load(), 0)+1) / float64(own)
}
