package balance

import (
	"fmt"
	"math/big"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// Sizes of a Maglev table, in entries (Envoy's); a size must be prime.
const (
	usualMaglev = 65537
	maxMaglev   = 5000011
)

// maglev is consistent hashing by a table that the hosts fill in turns, each along its own permutation of the places
// (Eisenbud et al., NSDI 2016), with Envoy's hashes: xxHash64 of the address, seeded with 0 and 1.
type maglev struct {
	made  fingerprint
	table []int32 // host by hash modulo size
}

func newMaglev(size uint64, hosts []*Host, previous table) (table, error) {
	if size == 0 {
		size = usualMaglev
	}
	if size > maxMaglev || !new(big.Int).SetUint64(size).ProbablyPrime(0) {
		return nil, fmt.Errorf("cannot make a Maglev table of %d entries: the size must be a prime of at most %d", size, maxMaglev)
	}
	if len(hosts) == 0 {
		return nil, nil
	}
	if uint64(len(hosts)) > size {
		return nil, fmt.Errorf("cannot make a Maglev table of %d entries for %d endpoints: it needs more entries", size, len(hosts))
	}
	if p, ok := previous.(*maglev); ok && uint64(len(p.table)) == size && p.made.of(hosts) {
		return p, nil
	}
	b := &maglev{made: newFingerprint(hosts), table: make([]int32, size)}
	b.build()
	return b, nil
}

// seat is one host while the table is filled.
type seat struct {
	host    int32
	at      uint64 // the place it wants next
	skip    uint64
	weight  float64
	waiting float64 // it takes a turn once turns*weight reaches this
}

func (b *maglev) build() {
	size := uint64(len(b.table))
	seats := b.seats()
	heaviest := 0.0
	for i := range seats {
		heaviest = max(heaviest, seats[i].weight)
	}
	for i := range b.table {
		b.table[i] = -1
	}
	filled := uint64(0)
	for turns := 1.0; filled < size; turns++ {
		for i := 0; i < len(seats) && filled < size; i++ {
			s := &seats[i]
			if turns*s.weight < s.waiting {
				continue
			}
			s.waiting += heaviest
			for b.table[s.at] >= 0 {
				if s.at += s.skip; s.at >= size {
					s.at -= size
				}
			}
			b.table[s.at] = s.host
			filled++
		}
	}
}

// seats returns the hosts in the order of their keys, so that the table does not depend on the order given.
func (b *maglev) seats() []seat {
	size := uint64(len(b.table))
	sum := 0.0
	for _, w := range b.made.weights {
		sum += float64(w)
	}
	seats := make([]seat, len(b.made.keys))
	seeded := xxhash.NewWithSeed(1)
	for i, key := range b.made.keys {
		seeded.ResetWithSeed(1)
		_, _ = seeded.WriteString(key) // never fails
		seats[i] = seat{
			host:   int32(i),
			at:     xxhash.Sum64String(key) % size,
			skip:   seeded.Sum64()%(size-1) + 1,
			weight: float64(b.made.weights[i]) / sum,
		}
	}
	sort.SliceStable(seats, func(i, j int) bool { return b.made.keys[seats[i].host] < b.made.keys[seats[j].host] })
	return seats
}

func (b *maglev) host(hash uint64, attempt int) int {
	hash ^= -uint64(attempt)
	return int(b.table[hash%uint64(len(b.table))])
}
