package balance

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func pool(t testing.TB, lb model.LoadBalancer, panics uint32, hosts []*Host, previous *Pool, clock Clock) *Pool {
	t.Helper()
	p, err := NewPool(lb, panics, hosts, previous, clock)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// policies are all that choose, with what they need.
var policies = []model.Policy{model.RoundRobin, model.LeastRequest, model.Random, model.PeakEWMA, model.RingHash, model.Maglev}

func still() int64 { return 0 }

// picked counts n picks by host.
func picked(p *Pool, n int, r *Rand) []int {
	counts := make([]int, len(p.hosts))
	for range n {
		if i := p.Pick(Key{}, r); i >= 0 {
			counts[i]++
		}
	}
	return counts
}

// down puts hosts down, and up all others.
func down(p *Pool, which ...int) {
	for i, h := range p.hosts {
		h.Down.Store(slices.Contains(which, i))
	}
	p.Changed()
}

// TestPoolDrawsAsItsPolicy says that nothing is between the policy and the caller where no host is down, or special.
func TestPoolDrawsAsItsPolicy(t *testing.T) {
	for _, policy := range policies {
		for _, hosts := range [][]*Host{equal(1), equal(5), hostsOf(1, 2, 3)} {
			b, err := New(model.LoadBalancer{Policy: policy}, hosts, nil, still)
			if err != nil {
				t.Fatal(err)
			}
			p := pool(t, model.LoadBalancer{Policy: policy}, 50, hosts, nil, still)
			r, s := NewRand(7), NewRand(7)
			for n := range 1000 {
				k := Key{uint64(n) * 0x9e3779b97f4a7c15, n%2 == 0}
				if got, want := p.Pick(k, &r), b.Pick(k, &s); got != want {
					t.Fatalf("%s, pick %d: %d, the policy alone picks %d", policy, n, got, want)
				}
			}
		}
	}
}

func TestPoolLeavesOutWhoIsDown(t *testing.T) {
	for _, policy := range policies {
		for _, hosts := range [][]*Host{equal(5), hostsOf(1, 2, 3, 4, 5)} {
			p, r := pool(t, model.LoadBalancer{Policy: policy}, 0, hosts, nil, still), NewRand(1)
			check := func(gone ...int) {
				t.Helper()
				down(p, gone...)
				counts := picked(p, 5000, &r)
				for i, n := range counts {
					if (n == 0) != slices.Contains(gone, i) {
						t.Errorf("%s, %v down: %v", policy, gone, counts)
						break
					}
				}
			}
			check()
			check(0)
			check(0, 4)
			check(1, 2, 3)
			check(0, 1, 2, 3)
			check()
			down(p, 0, 1, 2, 3, 4)
			if i := p.Pick(Key{}, &r); i != -1 {
				t.Errorf("%s: all are down, %d is picked", policy, i)
			}
			if i := p.PickOther(Key{}, &r, []int{1}, true); i != -1 {
				t.Errorf("%s: all are down, %d is picked instead of 1", policy, i)
			}
			check(2)
		}
	}
}

func TestPoolPanics(t *testing.T) {
	p, r := pool(t, model.LoadBalancer{Policy: model.Random}, 50, equal(5), nil, nil), NewRand(1)
	f := func(panicking bool, gone ...int) {
		t.Helper()
		down(p, gone...)
		if p.Panicking() != panicking {
			t.Errorf("%v down: panicking is not %v", gone, panicking)
		}
		shares := []float64{1, 1, 1, 1, 1}
		if !panicking {
			for _, i := range gone {
				shares[i] = 0
			}
		}
		fits(t, fmt.Sprint(gone, " down"), picked(p, 10000, &r), shares...)
	}
	f(false)
	f(false, 0, 1)
	f(true, 0, 1, 2)
	f(true, 0, 1, 2, 3, 4)
	f(false, 3)
}

// zoned returns hosts of these priorities, three of each.
func zoned(priorities ...uint32) (hosts []*Host) {
	for _, p := range priorities {
		for range 3 {
			hosts = append(hosts, &Host{Key: fmt.Sprintf("127.1.0.%d:8080", len(hosts)+1), Weight: 1, Priority: p, Vitals: &Vitals{}})
		}
	}
	return hosts
}

func TestPriorities(t *testing.T) {
	for _, policy := range []model.Policy{model.Random, model.RingHash, model.Maglev} {
		p, r := pool(t, model.LoadBalancer{Policy: policy}, 0, zoned(1, 0, 2), nil, nil), NewRand(3)
		f := func(gone []int, shares ...float64) {
			t.Helper()
			down(p, gone...)
			counts := picked(p, 20000, &r)
			fits(t, fmt.Sprint(policy, " ", gone, " down"), []int{
				counts[0] + counts[1] + counts[2], counts[3] + counts[4] + counts[5], counts[6] + counts[7] + counts[8],
			}, shares...)
		}
		f(nil, 0, 100, 0)
		f([]int{3}, 7, 93, 0)     // 140·2/3 = 93
		f([]int{3, 4}, 54, 46, 0) // 140/3 = 46
		f([]int{3, 4, 0, 1}, 46, 46, 8)
		f([]int{3, 4, 5}, 100, 0, 0)
		f([]int{0, 1, 2, 3, 4, 5}, 0, 0, 100)
		f([]int{0, 1, 3, 4, 6, 7}, 46, 46, 8) // all together can carry more than there is
		f([]int{0, 1, 2, 6, 7, 8}, 0, 100, 0)
	}
}

// TestKeysKeepTheirPriority says that a key goes to one host while the load overflows, too.
func TestKeysKeepTheirPriority(t *testing.T) {
	for _, policy := range []model.Policy{model.RingHash, model.Maglev} {
		p, r := pool(t, model.LoadBalancer{Policy: policy}, 0, zoned(0, 1), nil, nil), NewRand(3)
		down(p, 0, 1)
		far := 0
		for n := range 2000 {
			k := Key{mix(uint64(n)), true}
			first := p.Pick(k, &r)
			for range 3 {
				if i := p.Pick(k, &r); i != first {
					t.Fatalf("%s: key %d went to %d, then to %d", policy, n, first, i)
				}
			}
			if first > 2 {
				far++
			}
		}
		if far < 1000 || far > 1160 { // 54 % ± 3.6 standard deviations
			t.Errorf("%s: %d of 2000 keys overflowed", policy, far)
		}
	}
}

func TestShares(t *testing.T) {
	place := func(hosts []*Host, at int, zone string, share uint32) {
		hosts[at].Locality, hosts[at].Share = model.Locality{Region: "r", Zone: zone}, share
	}
	for _, policy := range policies {
		hosts, r := hostsOf(1, 1, 1, 3, 1, 1), NewRand(5)
		place(hosts, 0, "a", 70)
		place(hosts, 1, "a", 70)
		place(hosts, 2, "b", 30)
		place(hosts, 3, "b", 30)
		place(hosts, 4, "c", 0)
		place(hosts, 5, "c", 0)
		// A ring of the usual size has few points for a small weight: the more, the closer to the shares.
		lb := model.LoadBalancer{Policy: policy}
		if policy == model.RingHash {
			lb.TableSize = 1 << 16
		}
		p := pool(t, lb, 0, hosts, nil, still)
		f := func(gone []int, want ...float64) {
			t.Helper()
			down(p, gone...)
			const picks = 40000
			counts := picked(p, picks, &r)
			for i, n := range counts {
				if got := 100 * float64(n) / picks; (n == 0) != (want[i] == 0) || got < want[i]-1.5 || got > want[i]+1.5 {
					t.Errorf("%s, %v down: %.1f %% to host %d, want %.1f %%", policy, gone, got, i, want[i])
				}
			}
		}
		f(nil, 35, 35, 7.5, 22.5, 0, 0)
		f([]int{0}, 0, 62, 38*0.25, 38*0.75, 0, 0) // half of a counts for 0.7·70 = 49
		f([]int{0, 1}, 0, 0, 25, 75, 0, 0)
		f([]int{0, 1, 2, 3}, 0, 0, 0, 0, 50, 50) // nobody who has a share is there
	}
}

// TestRoundRobinKeepsItsPlaceInPool says that a host that goes and comes back, and a new configuration, begin no new round.
func TestRoundRobinKeepsItsPlaceInPool(t *testing.T) {
	lb, r := model.LoadBalancer{Policy: model.RoundRobin}, NewRand(9)
	p := pool(t, lb, 0, equal(4), nil, nil)
	next := p.Pick(Key{}, &r)
	for range 50 {
		p = pool(t, lb, 0, equal(4), p, nil)
		p.Changed()
		if next = (next + 1) % 4; p.Pick(Key{}, &r) != next {
			t.Fatal("it lost its place")
		}
	}
	down(p, 1)
	counts := picked(p, 300, &r)
	if !slices.Equal(counts, []int{100, 0, 100, 100}) {
		t.Errorf("one of four down: %v", counts)
	}
}

func TestPickOther(t *testing.T) {
	for _, policy := range policies {
		hosts := equal(20)
		hosts[0].Weight = 1000 // draws alone would seldom find another
		p, r := pool(t, model.LoadBalancer{Policy: policy}, 0, hosts, nil, still), NewRand(11)
		hosts[7].Down.Store(true)
		p.Changed()
		for n := range 200 {
			k := Key{mix(uint64(n)), true}
			var tried []int
			for len(tried) < 19 {
				i := p.PickOther(k, &r, tried, false)
				if i < 0 || i == 7 || slices.Contains(tried, i) {
					t.Fatalf("%s: %d picked after %v", policy, i, tried)
				}
				tried = append(tried, i)
			}
			if i := p.PickOther(k, &r, tried, false); i < 0 || i == 7 {
				t.Fatalf("%s: all were tried, and %d is picked", policy, i)
			}
		}
	}
}

// TestPickOtherIsFair says that the last resort favours nobody.
func TestPickOtherIsFair(t *testing.T) {
	hosts := equal(4)
	hosts[0].Weight = math32
	p, r := pool(t, model.LoadBalancer{Policy: model.Random}, 0, hosts, nil, nil), NewRand(13)
	counts := make([]int, 4)
	for range 9000 {
		counts[p.PickOther(Key{}, &r, []int{0}, false)]++
	}
	fits(t, "others", counts, 0, 1, 1, 1)
}

const math32 = 1<<32 - 1

func TestPickElsewhere(t *testing.T) {
	p, r := pool(t, model.LoadBalancer{Policy: model.Random}, 0, zoned(0, 1, 2), nil, nil), NewRand(17)
	f := func(gone, tried []int, shares ...float64) {
		t.Helper()
		down(p, gone...)
		counts := make([]int, 3)
		for range 10000 {
			i := p.PickOther(Key{}, &r, tried, true)
			if slices.Contains(tried, i) && len(tried) < 9 {
				t.Fatalf("%v tried: %d", tried, i)
			}
			counts[i/3]++
		}
		fits(t, fmt.Sprint(gone, " down, ", tried, " tried"), counts, shares...)
	}
	f(nil, []int{0}, 1, 0, 0) // only every second try leaves a priority
	f(nil, []int{0, 1}, 0, 1, 0)
	f(nil, []int{0, 1, 3}, 0, 1, 0)
	f(nil, []int{0, 1, 3, 4}, 0, 0, 1)
	f(nil, []int{0, 1, 3, 4, 6, 7}, 1, 0, 0) // all were left: as if none
	f([]int{3}, []int{0, 1}, 0, 93, 7)
	f([]int{3, 4, 5}, []int{0, 1}, 0, 0, 1)
	f([]int{3, 4, 5, 6, 7, 8}, []int{0, 1}, 1, 0, 0)
}

func TestOneHostIsPickedAgain(t *testing.T) {
	for _, policy := range policies {
		p, r := pool(t, model.LoadBalancer{Policy: policy}, 0, equal(1), nil, still), NewRand(1)
		if i := p.PickOther(Key{1, true}, &r, []int{0, 0}, true); i != 0 {
			t.Errorf("%s: %d", policy, i)
		}
	}
}

// TestPoolWhileItChanges runs picks and changes at the same time: a pick finds a host at any moment, and none that was down
// all along.
func TestPoolWhileItChanges(t *testing.T) {
	for _, policy := range policies {
		hosts := zoned(0, 0, 1)
		for i, h := range hosts[:6] {
			h.Locality, h.Share = model.Locality{Zone: string(rune('a' + i%2))}, uint32(30+40*(i%2))
		}
		hosts[8].Down.Store(true)
		lb := model.LoadBalancer{Policy: policy, Warmup: &model.Warmup{Duration: 1000, MinimumPercent: 10, Aggression: 1}}
		if policy == model.Maglev {
			lb.TableSize = 251
		}
		var tick int64
		var ticks sync.Mutex
		clock := func() int64 {
			ticks.Lock()
			defer ticks.Unlock()
			tick++
			return tick
		}
		p := pool(t, lb, 0, hosts, nil, clock)
		var done sync.WaitGroup
		stop := make(chan struct{})
		for g := range 2 {
			done.Go(func() {
				r := NewRand(uint64(g))
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					h := hosts[(n+3*g)%6]
					h.Since.Store(clock())
					h.Down.Store(r.N(2) == 0)
					p.Changed()
				}
			})
		}
		var picks sync.WaitGroup
		for g := range 2 {
			picks.Go(func() {
				r := NewRand(uint64(100 + g))
				for n := range 3000 {
					i := p.Pick(Key{r.Uint64(), n%2 == 0}, &r)
					if n%3 == 0 {
						i = p.PickOther(Key{}, &r, []int{i}, n%2 == 0)
					}
					if i < 0 || i == 8 {
						t.Errorf("%s: %d is picked", policy, i)
						return
					}
					hosts[i].Active.Add(1)
					hosts[i].Observe(1000, clock())
					hosts[i].Active.Add(-1)
				}
			})
		}
		picks.Wait()
		close(stop)
		done.Wait()
	}
}

func TestPoolDoesNotAllocate(t *testing.T) {
	for _, policy := range policies {
		shared := zoned(0, 0, 1)
		for i, h := range shared[:6] {
			h.Locality, h.Share = model.Locality{Zone: string(rune('a' + i%2))}, uint32(30+40*(i%2))
		}
		for name, hosts := range map[string][]*Host{"plain": equal(5), "weighted": hostsOf(1, 2, 3), "priorities": zoned(0, 1), "shares": shared} {
			lb := model.LoadBalancer{Policy: policy}
			if lb.Policy == model.RingHash || lb.Policy == model.Maglev {
				lb.Bound = 110
			}
			p, r := pool(t, lb, 0, hosts, nil, still), NewRand(1)
			hosts[0].Active.Store(50)
			down(p, 1)
			tried := []int{0, 2}
			if n := testing.AllocsPerRun(100, func() { p.Pick(Key{r.Uint64(), true}, &r) }); n != 0 {
				t.Errorf("%s, %s: Pick: %v allocations", policy, name, n)
			}
			if n := testing.AllocsPerRun(100, func() { p.PickOther(Key{r.Uint64(), true}, &r, tried, true) }); n != 0 {
				t.Errorf("%s, %s: PickOther: %v allocations", policy, name, n)
			}
		}
	}
}

func BenchmarkPool(b *testing.B) {
	for _, policy := range []model.Policy{model.RoundRobin, model.LeastRequest, model.PeakEWMA, model.RingHash} {
		for name, hosts := range map[string][]*Host{"plain": equal(100), "priorities": zoned(0, 1)} {
			b.Run(fmt.Sprint(policy, "/", name), func(b *testing.B) {
				p, r := pool(b, model.LoadBalancer{Policy: policy}, 0, hosts, nil, still), NewRand(1)
				if name == "priorities" {
					down(p, 0)
				}
				b.ReportAllocs()
				for b.Loop() {
					p.Pick(Key{r.Uint64(), true}, &r)
				}
			})
		}
	}
}
