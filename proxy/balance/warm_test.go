package balance

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func warmup(d time.Duration, percent, aggression float64) *model.Warmup {
	return &model.Warmup{Duration: model.Duration(d), MinimumPercent: percent, Aggression: aggression}
}

// TestWarmWeight holds the formula: the power of the time passed, at least the minimum.
func TestWarmWeight(t *testing.T) {
	f := func(percent, aggression, passed, want float64) {
		t.Helper()
		const window = 100 * time.Second
		hosts, now := hostsOf(1, 1), int64(0)
		hosts[0].Since.Store(-int64(window))
		b := warmUp(model.LoadBalancer{Warmup: warmup(window, percent, aggression)}, hosts, nil, func() int64 { return now })
		now = int64(passed * float64(window))
		if got := b.(*warming).weight(1, now); math.Abs(got-want) > 0.0005 {
			t.Errorf("at least %v %%, aggression %v, %v passed: %.4f, want %v", percent, aggression, passed, got, want)
		}
	}
	f(10, 1, 0, 0.1)
	f(10, 1, 0.05, 0.1)
	f(10, 1, 0.1, 0.1)
	f(10, 1, 0.25, 0.25)
	f(10, 1, 0.5, 0.5)
	f(10, 1, 1, 1)
	f(10, 1, 3, 1)
	f(10, 2, 0.1, 0.316)
	f(10, 2, 0.25, 0.5)
	f(10, 2, 0.5, 0.707)
	f(50, 2, 0.1, 0.5)
	f(0, 1, 0, 0.00001) // the first millisecond
	f(100, 1, 0, 1)
}

// TestWarmShares lets one of four hosts come later, and looks at its share as time goes.
func TestWarmShares(t *testing.T) {
	const second = int64(time.Second)
	for _, policy := range []model.Policy{model.RoundRobin, model.LeastRequest} {
		for _, weights := range [][]uint32{{1, 1, 1, 1}, {2, 1, 1, 2}} {
			hosts, now, r := hostsOf(weights...), 100*second, NewRand(5)
			hosts[3].Since.Store(now)
			lb := model.LoadBalancer{Policy: policy, Warmup: warmup(60*time.Second, 10, 1)}
			p := pool(t, lb, 0, hosts, nil, func() int64 { return now })
			f := func(at int64, factor float64) {
				t.Helper()
				now = 100*second + at
				p.Changed()
				picked(p, 200, &r) // deadlines from the moment before
				const picks = 20000
				got := float64(picked(p, picks, &r)[3]) / picks
				w := float64(weights[3]) * factor
				want := w / (w + float64(weights[0]+weights[1]+weights[2]))
				if policy == model.LeastRequest && factor == 1 && weights[0] == weights[3] {
					// independent draws: four standard deviations
					if math.Abs(got-want) > 4*math.Sqrt(want*(1-want)/picks) {
						t.Errorf("%s %v, %d s: %.4f, want %.4f", policy, weights, at/second, got, want)
					}
				} else if math.Abs(got-want) > 0.001 {
					t.Errorf("%s %v, %d s: %.4f, want %.4f", policy, weights, at/second, got, want)
				}
			}
			f(0, 0.1)
			f(6*second, 0.1)
			f(15*second, 0.25)
			f(30*second, 0.5)
			f(59*second, 59.0/60)
			f(60*second, 1)
			if p.picture.Load().until != 0 {
				t.Errorf("%s: all are warm, and it warms on", policy)
			}
			if _, still := p.picture.Load().only.balancer.(*warming); still {
				t.Errorf("%s: all are warm, and the slow way is taken on", policy)
			}
		}
	}
}

// TestWarmEndsByItself says that a pool to which nobody says that time goes on does not warm for ever.
func TestWarmEndsByItself(t *testing.T) {
	hosts, now, r := equal(2), int64(0), NewRand(5)
	hosts[0].Since.Store(-int64(time.Hour))
	p := pool(t, model.LoadBalancer{Policy: model.RoundRobin, Warmup: warmup(time.Minute, 10, 1)}, 0, hosts, nil, func() int64 { return now })
	if counts := picked(p, 1100, &r); counts[1] < 95 || counts[1] > 105 {
		t.Errorf("cold: %v", counts)
	}
	now = int64(time.Minute)
	if counts := picked(p, 1100, &r); !slices.Equal(counts, []int{550, 550}) {
		t.Errorf("warm: %v", counts)
	}
}

func TestWarmTogether(t *testing.T) {
	for _, policy := range []model.Policy{model.RoundRobin, model.LeastRequest} {
		hosts := equal(3)
		for _, h := range hosts {
			h.Since.Store(77)
		}
		lb := model.LoadBalancer{Policy: policy, Warmup: warmup(time.Minute, 10, 1)}
		p := pool(t, lb, 0, hosts, nil, func() int64 { return 78 })
		if _, slow := p.picture.Load().only.balancer.(*warming); slow {
			t.Errorf("%s: all began together, and some are to get less", policy)
		}
	}
}

// TestWarmAgain says that a host that comes back from an ejection begins slowly.
func TestWarmAgain(t *testing.T) {
	hosts, now, r := equal(4), int64(time.Hour), NewRand(5)
	lb := model.LoadBalancer{Policy: model.RoundRobin, Warmup: warmup(time.Minute, 10, 1)}
	p := pool(t, lb, 0, hosts, nil, func() int64 { return now })
	down(p, 2)
	now += int64(time.Minute)
	hosts[2].Since.Store(now)
	down(p)
	if counts := picked(p, 3100, &r); counts[2] < 95 || counts[2] > 105 {
		t.Errorf("just back: %v", counts)
	}
	// Other configurations over the same endpoints go on where they are, with the very schedule.
	same := pool(t, lb, 0, hosts, p, p.clock)
	if same.picture.Load().only.balancer != p.picture.Load().only.balancer {
		t.Error("a new configuration of the same endpoints began a new schedule")
	}
	now += int64(30 * time.Second)
	if counts := picked(same, 3500, &r); counts[2] < 490 || counts[2] > 510 {
		t.Errorf("half a minute later: %v", counts)
	}
}

// TestWarmByRequests says that least request sees, while hosts warm up, who is busy.
func TestWarmByRequests(t *testing.T) {
	hosts, r := equal(3), NewRand(5)
	hosts[0].Since.Store(-int64(time.Hour))
	hosts[1].Since.Store(-int64(time.Hour))
	hosts[1].Active.Store(9)
	p := pool(t, model.LoadBalancer{Warmup: warmup(time.Minute, 10, 1)}, 0, hosts, nil, still)
	counts := picked(p, 12000, &r)
	for i, want := range []int{10000, 1000, 1000} {
		if counts[i] < want-20 || counts[i] > want+20 {
			t.Errorf("%v, want %d for host %d", counts, want, i)
		}
	}
}

func TestWarmDoesNotAllocate(t *testing.T) {
	for _, policy := range []model.Policy{model.RoundRobin, model.LeastRequest} {
		hosts, r := equal(3), NewRand(5)
		hosts[0].Since.Store(-int64(time.Hour))
		p := pool(t, model.LoadBalancer{Policy: policy, Warmup: warmup(time.Minute, 10, 1)}, 0, hosts, nil, still)
		if n := testing.AllocsPerRun(100, func() { p.Pick(Key{}, &r) }); n != 0 {
			t.Error(fmt.Sprint(policy, ": ", n, " allocations"))
		}
	}
}
