package balance

import (
	"slices"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// TestBound puts requests of one key under way: each host gets its part of the bound and no more.
func TestBound(t *testing.T) {
	for _, policy := range []model.Policy{model.RingHash, model.Maglev} {
		for _, bound := range []uint32{100, 125, 200} {
			for _, weights := range [][]uint32{{1, 1, 1, 1, 1}, {1, 2, 3, 4}} {
				hosts, r := hostsOf(weights...), NewRand(1)
				sum := int64(0)
				for _, w := range weights {
					sum += int64(w)
				}
				b, err := New(model.LoadBalancer{Policy: policy, Bound: bound}, hosts, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				k := Key{0xfeed, true}
				first := b.Pick(k, &r)
				for n := int64(1); n <= 300; n++ {
					i := b.Pick(k, &r)
					have := hosts[i].Active.Add(1)
					slots := (n*int64(bound) + 99) / 100
					if own := max((slots*int64(weights[i])+sum-1)/sum, 1); have > own {
						t.Fatalf("%s, %d %%, %v: host %d has %d of %d requests, and may have %d", policy, bound, weights, i, have, n, own)
					}
				}
				// The key's own host has all that it may have.
				if have, least := hosts[first].Active.Load(), 300*int64(bound)*int64(weights[first])/sum/100; have < least {
					t.Errorf("%s, %d %%, %v: the key's host has %d, want %d", policy, bound, weights, have, least)
				}
			}
		}
	}
}

// TestBoundKeepsTheOrder says that what is over goes the same way each time.
func TestBoundKeepsTheOrder(t *testing.T) {
	hosts, r := equal(10), NewRand(1)
	b, err := New(model.LoadBalancer{Policy: model.RingHash, Bound: 125}, hosts, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	seconds := map[int]bool{}
	for n := range uint64(200) {
		k := Key{mix(n), true}
		first := b.Pick(k, &r)
		hosts[first].Active.Store(50)
		second := b.Pick(k, &r)
		if second == first {
			t.Fatalf("host %d is full", first)
		}
		for range 5 {
			if b.Pick(k, &r) != second {
				t.Fatal("the second choice changes")
			}
		}
		if first == 0 {
			seconds[second] = true
		}
		hosts[first].Active.Store(0)
	}
	if len(seconds) < 5 {
		t.Errorf("what host 0 has too much goes to %d hosts only", len(seconds))
	}
}

// TestAllFull says that the host that is the least over its part is picked where none has room. Bounds of at least 100 %
// leave room, but others see requests before they are counted.
func TestAllFull(t *testing.T) {
	hosts := equal(3)
	for i, n := range []int64{8, 7, 9} {
		hosts[i].Active.Store(n)
	}
	b := &hashing{hosts: hosts, bound: 1, sum: 3}
	for n := range uint64(20) {
		if i := b.withRoom(mix(n), int(n%3)); i != 1 {
			t.Errorf("host %d is picked", i)
		}
	}
}

func TestNoBound(t *testing.T) {
	hosts, r := equal(4), NewRand(1)
	b := balancer(t, model.RingHash, hosts, nil)
	first := b.Pick(Key{5, true}, &r)
	hosts[first].Active.Store(1000)
	if i := b.Pick(Key{5, true}, &r); i != first {
		t.Errorf("without a bound the key moved to %d", i)
	}
	if _, err := New(model.LoadBalancer{Policy: model.RingHash, Bound: 99}, hosts, nil, nil); err == nil || !strings.Contains(err.Error(), "100") {
		t.Errorf("a bound of 99 %%: %v", err)
	}
}

// TestAttemptsWalkTheTable says that a retry of a key goes its own way, the same each time.
func TestAttemptsWalkTheTable(t *testing.T) {
	for _, policy := range []model.Policy{model.RingHash, model.Maglev} {
		p, r := pool(t, model.LoadBalancer{Policy: policy}, 0, equal(10), nil, nil), NewRand(1)
		var ways [][]int
		for n := range uint64(50) {
			k := Key{mix(n), true}
			tried := []int{p.Pick(k, &r)}
			for range 3 {
				i := p.PickOther(k, &r, tried, false)
				if slices.Contains(tried, i) {
					t.Fatalf("%s: %d after %v", policy, i, tried)
				}
				for range 3 {
					if p.PickOther(k, &r, tried, false) != i {
						t.Fatalf("%s: the way of a key changes", policy)
					}
				}
				tried = append(tried, i)
			}
			ways = append(ways, tried)
		}
		seconds := map[int]bool{}
		for _, w := range ways {
			seconds[w[1]] = true
		}
		if len(seconds) < 8 {
			t.Errorf("%s: second choices are %d hosts of 10", policy, len(seconds))
		}
	}
}
