package balance

import (
	"fmt"
	"slices"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// ports returns hosts 127.0.0.1:90, 127.0.0.1:91, ... of these weights: the addresses that Envoy's published positions
// are of.
func ports(weights ...uint32) (hosts []*Host) {
	for i, w := range weights {
		hosts = append(hosts, &Host{Key: fmt.Sprintf("127.0.0.1:%d", 90+i), Weight: w})
	}
	return hosts
}

// TestRingIsEnvoys holds the points of six hosts on a ring of twelve against Envoy's.
func TestRingIsEnvoys(t *testing.T) {
	want := []struct {
		at   uint64
		port int32
	}{
		{833437586790550860, 94},
		{928266305478181108, 92},
		{1033482794131418490, 90},
		{3551244743356806947, 95},
		{3851675632748031481, 93},
		{5583722120771150861, 91},
		{6311230543546372928, 91},
		{7700377290971790572, 93},
		{13144177310400110813, 95},
		{13444792449719432967, 92},
		{15516499411664133160, 94},
		{16117243373044804889, 90},
	}
	l, err := New(model.LoadBalancer{Policy: model.RingHash, TableSize: 12}, ports(1, 1, 1, 1, 1, 1), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := l.(*hashing).table.(*ring)
	if len(b.points) != len(want) {
		t.Fatalf("%d points, want %d", len(b.points), len(want))
	}
	for i, w := range want {
		if b.points[i] != w.at || b.owners[i] != w.port-90 {
			t.Errorf("point %d: host %d at %d, want %d at %d", i, b.owners[i], b.points[i], w.port-90, w.at)
		}
	}
	r := NewRand(1)
	f := func(hash uint64, want int) {
		t.Helper()
		if got := l.Pick(Key{hash, true}, &r); got != want {
			t.Errorf("hash %d: host %d, want %d", hash, got, want)
		}
	}
	f(0, 4)
	f(1<<64-1, 4)
	f(3551244743356806947, 5)
	f(3551244743356806948, 3)
	f(16117243373044804880, 0)
}

// TestMaglevIsEnvoys holds two small tables against Envoy's.
func TestMaglevIsEnvoys(t *testing.T) {
	f := func(hosts []*Host, want ...int) {
		t.Helper()
		b, err := New(model.LoadBalancer{Policy: model.Maglev, TableSize: uint64(len(want))}, hosts, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := NewRand(1)
		var got []int
		for i := range want {
			got = append(got, b.Pick(Key{uint64(i), true}, &r))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	f(ports(1, 1, 1, 1, 1, 1), 2, 4, 0, 1, 5, 0, 3)
	f(ports(1, 2), 1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1)
}

// TestMaglevIgnoresOrder: proxies that list the endpoints in another order agree on where a key goes.
func TestMaglevIgnoresOrder(t *testing.T) {
	hosts := ports(1, 2, 1, 3)
	turned := slices.Clone(hosts)
	slices.Reverse(turned)
	a, b := balancer(t, model.Maglev, hosts, nil), balancer(t, model.Maglev, turned, nil)
	r := NewRand(1)
	for range 1000 {
		k := Key{r.Uint64(), true}
		if hosts[a.Pick(k, &r)] != turned[b.Pick(k, &r)] {
			t.Fatal("the order of the hosts moved a key")
		}
	}
}
