package balance

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// hostsOf returns hosts at 127.1.0.1:8080, 127.1.0.2:8080, ... of these weights.
func hostsOf(weights ...uint32) []*Host {
	var hosts []*Host
	for i, w := range weights {
		hosts = append(hosts, &Host{Key: fmt.Sprintf("127.1.0.%d:8080", i+1), Weight: w, Vitals: &Vitals{}})
	}
	return hosts
}

func equal(n int) []*Host {
	weights := make([]uint32, n)
	for i := range weights {
		weights[i] = 1
	}
	return hostsOf(weights...)
}

func balancer(t testing.TB, policy model.Policy, hosts []*Host, previous Balancer) Balancer {
	t.Helper()
	b, err := New(model.LoadBalancer{Policy: policy}, hosts, previous, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// critical is the chi-square value that chance exceeds once in a thousand, by degrees of freedom.
var critical = map[int]float64{0: 0, 1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 9: 27.88}

// fits fails the test where counts are not draws by these shares. Seeds are fixed, so the verdict is always the same.
func fits(t *testing.T, name string, counts []int, shares ...float64) {
	t.Helper()
	total, sum := 0, 0.0
	for i := range counts {
		total += counts[i]
		sum += shares[i]
	}
	chi, freedom := 0.0, -1
	for i, c := range counts {
		if shares[i] == 0 {
			if c != 0 {
				t.Errorf("%s: %d draws of a share of nothing", name, c)
			}
			continue
		}
		want := float64(total) * shares[i] / sum
		chi += (float64(c) - want) * (float64(c) - want) / want
		freedom++
	}
	if limit, ok := critical[freedom]; !ok || chi > limit {
		t.Errorf("%s: %v: chi-square %.2f, critical %.2f at %d degrees", name, counts, chi, limit, freedom)
	}
}

func TestRand(t *testing.T) {
	a, b, c := NewRand(1), NewRand(1), NewRand(2)
	same := 0
	for range 1000 {
		x := a.Uint64()
		if x != b.Uint64() {
			t.Fatal("equal seeds differ")
		}
		if x == c.Uint64() {
			same++
		}
	}
	if same > 0 {
		t.Errorf("seeds 1 and 2 agree %d times", same)
	}
	r := NewRand(3)
	counts := make([]int, 10)
	for range 100000 {
		counts[r.N(10)]++
	}
	fits(t, "N(10)", counts, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	// A range that divides 2^64 badly: without rejection the lower third would come up twice as often.
	counts = make([]int, 3)
	for range 90000 {
		counts[r.below(3<<62)>>62]++
	}
	fits(t, "N(3*2^62)", counts, 1, 1, 1)
	if r.N(1) != 0 {
		t.Error("N(1) is not 0")
	}
}

func TestSplit(t *testing.T) {
	f := func(n int, weights ...uint32) {
		t.Helper()
		s, err := NewSplit(weights)
		if err != nil {
			t.Fatal(err)
		}
		r := NewRand(42)
		counts, shares := make([]int, len(weights)), make([]float64, len(weights))
		for i, w := range weights {
			shares[i] = float64(w)
		}
		repeats, last := 0, -1
		for range n {
			i := s.Pick(&r)
			counts[i]++
			if i == last {
				repeats++
			}
			last = i
		}
		fits(t, fmt.Sprint(weights), counts, shares...)
		// Independent draws repeat with the sum of the squared shares.
		total, square := 0.0, 0.0
		for _, s := range shares {
			total += s
		}
		for _, s := range shares {
			square += s / total * s / total
		}
		fits(t, fmt.Sprint(weights, " repeats"), []int{repeats, n - 1 - repeats}, square, 1-square)
	}
	f(100000, 90, 10)
	f(100000, 1, 1, 98)
	f(100000, 33, 33, 34)
	f(100000, 0, 90, 0, 10, 0)
	f(100000, math.MaxUint32, math.MaxUint32, 1)
	f(100000, append(make([]uint32, 20), 3, 1, 1)...)
}

func TestSplitEdges(t *testing.T) {
	r := NewRand(1)
	f := func(want int, weights ...uint32) {
		t.Helper()
		s, err := NewSplit(weights)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if got := s.Pick(&r); got != want {
				t.Fatalf("%v: drew %d, want %d", weights, got, want)
			}
		}
	}
	f(0, 0)
	f(0, 7)
	f(1, 0, 5, 0)
	f(-1, 0, 0)
	if _, err := NewSplit(nil); err == nil {
		t.Error("a split among nothing is taken")
	}
}

func TestNoHosts(t *testing.T) {
	r := NewRand(1)
	for _, p := range []model.Policy{"", model.LeastRequest, model.RoundRobin, model.Random, model.RingHash, model.Maglev, model.Original} {
		b := balancer(t, p, nil, nil)
		if got := b.Pick(Key{1, true}, &r); got != -1 {
			t.Errorf("%s picked %d of none", p, got)
		}
		one := balancer(t, p, equal(1), b)
		want := 0
		if p == model.Original {
			want = -1
		}
		for range 5 {
			if got := one.Pick(Key{}, &r); got != want {
				t.Errorf("%s picked %d of one", p, got)
			}
		}
	}
}

func TestBadBalancers(t *testing.T) {
	f := func(lb model.LoadBalancer, n int, want string) {
		t.Helper()
		if _, err := New(lb, equal(n), nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an error with %q", lb, err, want)
		}
	}
	f(model.LoadBalancer{Policy: "FASTEST"}, 1, "FASTEST")
	f(model.LoadBalancer{Policy: model.RingHash, TableSize: 9 << 20}, 1, "8388608")
	f(model.LoadBalancer{Policy: model.Maglev, TableSize: 65536}, 1, "prime")
	f(model.LoadBalancer{Policy: model.Maglev, TableSize: 5000077}, 1, "5000011")
	f(model.LoadBalancer{Policy: model.Maglev, TableSize: 3}, 4, "more entries")
}

func TestRandom(t *testing.T) {
	f := func(seed uint64, weights ...uint32) {
		t.Helper()
		b, r := balancer(t, model.Random, hostsOf(weights...), nil), NewRand(seed)
		counts, shares := make([]int, len(weights)), make([]float64, len(weights))
		for i, w := range weights {
			shares[i] = float64(w)
		}
		for range 60000 {
			counts[b.Pick(Key{}, &r)]++
		}
		fits(t, fmt.Sprint(weights), counts, shares...)
	}
	f(1, 1, 1, 1)
	f(2, 5, 5)
	f(3, 1, 2, 7)
}

func TestRoundRobin(t *testing.T) {
	b, r := balancer(t, model.RoundRobin, equal(3), nil), NewRand(1)
	first := b.Pick(Key{}, &r)
	for i := range 10 {
		if got := b.Pick(Key{}, &r); got != (first+1+i)%3 {
			t.Fatalf("pick %d: %d after %d", i, got, first)
		}
	}
	starts := make([]int, 10)
	for range 10000 {
		starts[balancer(t, model.RoundRobin, equal(10), nil).Pick(Key{}, &r)]++
	}
	fits(t, "starts", starts, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
}

func TestRoundRobinKeepsItsPlace(t *testing.T) {
	r := NewRand(1)
	for _, weights := range [][]uint32{{1, 1, 1, 1}, {3, 1, 2, 1}} {
		whole := balancer(t, model.RoundRobin, hostsOf(weights...), nil)
		counts := make([]int, 4)
		for range 7 * 4 {
			counts[whole.Pick(Key{}, &r)]++
			whole = balancer(t, model.RoundRobin, hostsOf(weights...), whole)
		}
		sum := 0
		for _, w := range weights {
			sum += int(w)
		}
		for i, w := range weights {
			if counts[i] != 28*int(w)/sum {
				t.Errorf("%v: %v with a new configuration after each pick", weights, counts)
				break
			}
		}
	}
	// With another number of hosts the turn goes on from where it was.
	four := balancer(t, model.RoundRobin, equal(4), nil)
	turn := 0
	for turn != 2 {
		turn = four.Pick(Key{}, &r)
	}
	if got := balancer(t, model.RoundRobin, equal(8), four).Pick(Key{}, &r); got%4 != 3 {
		t.Errorf("after host 2 of 4 came %d of 8", got)
	}
	if got := balancer(t, model.RoundRobin, equal(4), balancer(t, model.Random, equal(4), nil)).Pick(Key{}, &r); got < 0 {
		t.Errorf("after another policy came %d", got)
	}
}

func TestWeightedRoundRobinIsExact(t *testing.T) {
	f := func(seed uint64, weights ...uint32) {
		t.Helper()
		b, r := balancer(t, model.RoundRobin, hostsOf(weights...), nil), NewRand(seed)
		unit, cycle := uint64(0), 0
		for _, w := range weights {
			unit = divisor(unit, uint64(w))
		}
		for _, w := range weights {
			cycle += int(w) / int(unit)
		}
		// Wherever the random start is, every window of one cycle holds each host exactly its weight of times.
		var picks []int
		counts := make([]int, len(weights))
		for n := range 5 * cycle {
			i := b.Pick(Key{}, &r)
			picks = append(picks, i)
			counts[i]++
			if n >= cycle {
				counts[picks[n-cycle]]--
			}
			if n < cycle-1 {
				continue
			}
			for i, w := range weights {
				if counts[i] != int(w)/int(unit) {
					t.Fatalf("%v: %v in the cycle that ends at pick %d", weights, counts, n)
				}
			}
		}
	}
	f(1, 3, 2, 1)
	f(2, 5, 1, 1)
	f(3, 100, 200, 700)
	f(4, 97, 89, 3, 1, 11)
	f(5, 7, 11, 13)
	f(6, 1<<31, 1<<30)
	f(7, 1)
}

func TestWeightedRoundRobinIsSmooth(t *testing.T) {
	f := func(want string, weights ...uint32) {
		t.Helper()
		b := newWeightedRoundRobin(hostsOf(weights...))
		var got []byte
		for range want {
			got = append(got, "abc"[b.next()])
		}
		if string(got) != want {
			t.Errorf("%v: got %s, want %s", weights, got, want)
		}
	}
	f("aaabcaaaaabcaa", 5, 1, 1)
	f("ababaababa", 3, 2)
	f("abcabc", 10, 10, 10)
	f("bababbabab", 2, 3)
	f("abaaba", 1<<32-2, 1<<31-1)
}

func TestTwoChoices(t *testing.T) {
	hosts := equal(2)
	hosts[0].Active.Store(5)
	b, r := balancer(t, model.LeastRequest, hosts, nil), NewRand(7)
	counts := make([]int, 2)
	for range 40000 {
		counts[b.Pick(Key{}, &r)]++
	}
	fits(t, "the busier of two is picked when both draws meet it", counts, 1, 3)

	hosts[0].Active.Store(0)
	counts = make([]int, 2)
	for range 40000 {
		counts[b.Pick(Key{}, &r)]++
	}
	fits(t, "a tie goes to the first draw", counts, 1, 1)

	// Of three with 0, 1 and 2 under way: the chance that the least of two draws is each, 5/9, 3/9 and 1/9.
	hosts = equal(3)
	hosts[1].Active.Store(1)
	hosts[2].Active.Store(2)
	b = balancer(t, "", hosts, nil)
	counts = make([]int, 3)
	for range 45000 {
		counts[b.Pick(Key{}, &r)]++
	}
	fits(t, "three", counts, 5, 3, 1)
}

func TestWeightedLeastRequest(t *testing.T) {
	shares := func(n int, active []int64, weights ...uint32) []float64 {
		hosts := hostsOf(weights...)
		for i, a := range active {
			hosts[i].Active.Store(a)
		}
		b, r := balancer(t, model.LeastRequest, hosts, nil), NewRand(1)
		counts := make([]float64, len(weights))
		for range n {
			counts[b.Pick(Key{}, &r)]++
		}
		for i := range counts {
			counts[i] /= float64(n)
		}
		return counts
	}
	f := func(active []int64, weights []uint32, want ...float64) {
		t.Helper()
		got := shares(12000, active, weights...)
		for i := range want {
			// The schedule is deterministic: it is off by a few picks of 12,000 at most.
			if math.Abs(got[i]-want[i]) > 0.001 {
				t.Errorf("weights %v, active %v: shares %.4f, want %.4f", weights, active, got, want)
				return
			}
		}
	}
	f([]int64{0, 0, 0}, []uint32{1, 2, 3}, 1./6, 2./6, 3./6)
	// Effective weights are weight/(active+1): 1/1, 2/2, 3/1.
	f([]int64{0, 1, 0}, []uint32{1, 2, 3}, 1./5, 1./5, 3./5)
	f([]int64{9, 0}, []uint32{10, 1}, 1./2, 1./2)
	f([]int64{-1, 0}, []uint32{1, 3}, 1./4, 3./4) // a count below nothing is nothing

	// A host that becomes busy while picking loses its share.
	hosts := hostsOf(1, 3)
	b, r := balancer(t, model.LeastRequest, hosts, nil), NewRand(1)
	counts := make([]int, 2)
	for range 1000 {
		counts[b.Pick(Key{}, &r)]++
	}
	hosts[1].Active.Store(29)
	before := counts[1]
	for range 1100 {
		counts[b.Pick(Key{}, &r)]++
	}
	if before < 740 || before > 760 || counts[1]-before < 95 || counts[1]-before > 105 {
		t.Errorf("the heavy host got %d of 1000 idle and %d of 1100 busy, want 750 and 100", before, counts[1]-before)
	}
	if same := balancer(t, model.LeastRequest, hosts, b); same != b {
		t.Error("the same hosts lost their schedule")
	}
}

func TestConcurrentPicks(t *testing.T) {
	for _, policy := range []model.Policy{model.RoundRobin, model.LeastRequest, model.Random, model.RingHash, model.Maglev} {
		for _, hosts := range [][]*Host{equal(4), hostsOf(1, 2, 3, 4)} {
			b := balancer(t, policy, hosts, nil)
			counts := make([][4]int, 4)
			var done sync.WaitGroup
			for g := range counts {
				done.Go(func() {
					r := NewRand(uint64(g))
					for range 2000 {
						i := b.Pick(Key{}, &r)
						hosts[i].Active.Add(1)
						counts[g][i]++
						hosts[i].Active.Add(-1)
					}
				})
			}
			done.Wait()
			sum := [4]int{}
			for _, c := range counts {
				for i, n := range c {
					sum[i] += n
				}
			}
			if policy == model.RoundRobin && (sum != [4]int{2000, 2000, 2000, 2000} && sum != [4]int{800, 1600, 2400, 3200}) {
				t.Errorf("%s: %v", policy, sum)
			}
		}
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	r := NewRand(1)
	for _, policy := range []model.Policy{model.RoundRobin, model.LeastRequest, model.Random, model.RingHash, model.Maglev} {
		for _, hosts := range [][]*Host{equal(5), hostsOf(1, 2, 3)} {
			b := balancer(t, policy, hosts, nil)
			if n := testing.AllocsPerRun(100, func() { b.Pick(Key{}, &r) }); n != 0 {
				t.Errorf("%s: %v allocations", policy, n)
			}
		}
	}
	s, err := NewSplit([]uint32{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { s.Pick(&r) }); n != 0 {
		t.Errorf("split: %v allocations", n)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, policy := range []model.Policy{model.RoundRobin, model.LeastRequest, model.Random, model.RingHash, model.Maglev} {
		for name, hosts := range map[string][]*Host{"equal": equal(100), "weighted": append(equal(99), &Host{Key: "127.1.1.1:8080", Weight: 7, Vitals: &Vitals{}})} {
			b.Run(fmt.Sprint(policy, "/", name), func(b *testing.B) {
				l, r := balancer(b, policy, hosts, nil), NewRand(1)
				b.ReportAllocs()
				for b.Loop() {
					l.Pick(Key{r.Uint64(), true}, &r)
				}
			})
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	s, err := NewSplit([]uint32{90, 10})
	if err != nil {
		b.Fatal(err)
	}
	r := NewRand(1)
	for b.Loop() {
		s.Pick(&r)
	}
}

func BenchmarkNew(b *testing.B) {
	for _, policy := range []model.Policy{model.RingHash, model.Maglev} {
		b.Run(string(policy), func(b *testing.B) {
			hosts := equal(100)
			b.ReportAllocs()
			for b.Loop() {
				balancer(b, policy, hosts, nil)
			}
		})
	}
}
