package balance

import (
	"fmt"
	"math"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func TestHashDistribution(t *testing.T) {
	f := func(policy model.Policy, slack float64, weights ...uint32) {
		t.Helper()
		b, r := balancer(t, policy, hostsOf(weights...), nil), NewRand(1)
		counts, total := make([]float64, len(weights)), 0.0
		for _, w := range weights {
			total += float64(w)
		}
		const n = 200000
		for range n {
			counts[b.Pick(Key{r.Uint64(), true}, &r)]++
		}
		for i, w := range weights {
			if want := n * float64(w) / total; math.Abs(counts[i]-want) > slack*want {
				t.Errorf("%s %v: %v, host %d is more than %v off", policy, weights, counts, i, slack)
			}
		}
	}
	// A ring of 1024 points is uneven by nature; a Maglev table is not.
	f(model.RingHash, 0.25, 1, 1, 1, 1, 1)
	f(model.RingHash, 0.25, 1, 2, 5)
	f(model.Maglev, 0.03, 1, 1, 1, 1, 1)
	f(model.Maglev, 0.03, 1, 2, 5)
}

func TestHashKeysStick(t *testing.T) {
	r := NewRand(1)
	for _, policy := range []model.Policy{model.RingHash, model.Maglev} {
		b := balancer(t, policy, equal(10), nil)
		seen := map[int]int{}
		for range 1000 {
			k := Key{r.Uint64(), true}
			first := b.Pick(k, &r)
			for range 3 {
				if b.Pick(k, &r) != first {
					t.Fatalf("%s: a key moved", policy)
				}
			}
			seen[b.Pick(Key{k.Hash, false}, &r)]++
		}
		if len(seen) != 10 {
			t.Errorf("%s: requests without a key went to %v", policy, seen)
		}
	}
}

// TestHashDisturbance holds what documentation says of how many keys move: the share that must, a tenth, and the rest.
func TestHashDisturbance(t *testing.T) {
	const keys = 20000
	ten := equal(10)
	f := func(policy model.Policy, size uint64, most float64) {
		t.Helper()
		lb := model.LoadBalancer{Policy: policy, TableSize: size}
		all, err := New(lb, ten, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for gone := range ten {
			var nine []*Host
			nine = append(append(nine, ten[:gone]...), ten[gone+1:]...)
			fewer, err := New(lb, nine, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			r := NewRand(uint64(gone))
			must, moved := 0, 0
			for range keys {
				k := Key{r.Uint64(), true}
				a, b := ten[all.Pick(k, &r)], nine[fewer.Pick(k, &r)]
				if a == ten[gone] {
					must++
				}
				if a != b {
					moved++
				}
			}
			// Going and coming back are the same change: the tables depend on the hosts alone.
			if share := float64(moved) / keys; moved < must || share > most {
				t.Errorf("%s of %d: host %d of 10 gone: %.1f %% of the keys moved, %.1f %% had to", policy, size, gone, 100*share, 100*float64(must)/keys)
			}
		}
	}
	// Nine hosts have 114 points each where ten have 103: the 99 new points take 9.6 % of the ring, most of it from others.
	f(model.RingHash, 0, 0.19)
	f(model.RingHash, 16384, 0.19)
	f(model.Maglev, 0, 0.11)
}

func TestHashTablesAreKept(t *testing.T) {
	f := func(policy model.Policy, size uint64, hosts []*Host, kept bool) {
		t.Helper()
		b := balancer(t, policy, equal(4), nil)
		other, err := New(model.LoadBalancer{Policy: policy, TableSize: size}, hosts, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (other.(*hashing).table == b.(*hashing).table) != kept {
			t.Errorf("%s, size %d, %d hosts: kept is not %v", policy, size, len(hosts), kept)
		}
	}
	for _, policy := range []model.Policy{model.RingHash, model.Maglev} {
		f(policy, 0, equal(4), true)
		f(policy, 0, hostsOf(1, 1, 1, 2), false)
		f(policy, 0, equal(5), false)
		f(policy, 2053, equal(4), false)
	}
}

func TestRingSize(t *testing.T) {
	f := func(size uint64, hosts []*Host, want ...int) {
		t.Helper()
		b, err := New(model.LoadBalancer{Policy: model.RingHash, TableSize: size}, hosts, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]int, len(hosts))
		for _, o := range b.(*hashing).table.(*ring).owners {
			got[o]++
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("size %d of %d hosts: %v points, want %v", size, len(hosts), got, want)
		}
	}
	f(0, equal(1), 1024)
	f(0, equal(2), 512, 512)
	f(0, equal(3), 342, 342, 342)
	f(12, hostsOf(1, 2, 3), 2, 4, 6)
	f(1, equal(4), 1, 1, 1, 1)
}
