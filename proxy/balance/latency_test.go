package balance

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

const milli = int64(time.Millisecond)

func TestLatency(t *testing.T) {
	var v Vitals
	now := 12345 * int64(time.Second)
	f := func(want float64) {
		t.Helper()
		if got := v.expected(now) / 1e6; math.Abs(got-want) > 0.01*want+0.001 {
			t.Errorf("%.3f ms, want %v ms", got, want)
		}
	}
	observe := func(took time.Duration) { v.Observe(took, now) }
	v.Since.Store(now)
	f(30) // not asked yet
	now += int64(10 * time.Second)
	f(30 / math.E)
	observe(10 * time.Millisecond)
	f(10)
	observe(100 * time.Millisecond)
	f(100) // a peak counts at once
	observe(10 * time.Millisecond)
	f(100) // in the same moment
	now += int64(10 * time.Second)
	f(100 / math.E)
	observe(10 * time.Millisecond)
	f(100/math.E + 10*(1-1/math.E))
	now += int64(time.Minute)
	f(43.11 * math.Exp(-6)) // forgotten: it is tried again
	observe(10 * time.Millisecond)
	f(10)

	v.ObserveFailure(time.Microsecond, 0, now)
	f(5000)
	v.ObserveFailure(time.Microsecond, 20*time.Second, now)
	f(20000)
	v.ObserveFailure(time.Microsecond, time.Hour, now)
	f(300000)
	v.ObserveFailure(500*time.Second, 0, now)
	f(500000)
	before := now
	now -= 100 * milli // an instant that was read earlier changes nothing but peaks
	observe(time.Millisecond)
	now = before
	f(500000)
}

// TestLatencyAfterALongTime says that an estimate is forgotten after any time that nobody was asked in, up to the 52 days that it
// can tell.
func TestLatencyAfterALongTime(t *testing.T) {
	const day = 24 * int64(time.Hour)
	for days := int64(1); days <= 51; days++ {
		var v, idle Vitals
		now := 100 * day
		v.ObserveFailure(time.Microsecond, 0, now)
		idle.Since.Store(now)
		now += days * day
		if a, b := v.expected(now), idle.expected(now); a != 0 || b != 0 {
			t.Errorf("after %d days: %v and %v, want nothing", days, a, b)
		}
		v.Observe(time.Millisecond, now)
		if got := v.expected(now); math.Abs(got-1e6) > 1e3 {
			t.Errorf("after %d days, an answer within 1 ms makes %v ms", days, got/1e6)
		}
	}
}

// TestLatencyConverges says that many fast answers bring a peak down, however often they come.
func TestLatencyConverges(t *testing.T) {
	for _, gap := range []int64{milli / 100, milli / 3, milli, 50 * milli} {
		var v Vitals
		now := int64(time.Hour)
		v.Observe(time.Second, now)
		for range 60 * int64(time.Second) / gap {
			now += gap
			v.Observe(2*time.Millisecond, now)
		}
		// 6 times the time constant: 2 + 998·e^-6
		if got := v.expected(now) / 1e6; got < 1.9 || got > 5 {
			t.Errorf("an answer each %v: %.2f ms, want 4.5 ms", time.Duration(gap), got)
		}
	}
}

// TestPeakEWMAAvoidsTheSlow runs two hosts in virtual time: 10 ms and 100 ms an answer, 20 requests under way.
func TestPeakEWMAAvoidsTheSlow(t *testing.T) {
	f := func(policy model.Policy) [2]int {
		hosts, now, r := equal(2), int64(time.Hour), NewRand(3)
		took := [2]int64{10 * milli, 100 * milli}
		p := pool(t, model.LoadBalancer{Policy: policy}, 0, hosts, nil, func() int64 { return now })
		var counts [2]int
		type call struct {
			host int
			end  int64
		}
		var calls []call
		for range 20000 {
			i := p.Pick(Key{}, &r)
			hosts[i].Active.Add(1)
			counts[i]++
			calls = append(calls, call{i, now + took[i]})
			for len(calls) >= 20 {
				first := 0
				for n, c := range calls {
					if c.end < calls[first].end {
						first = n
					}
				}
				c := calls[first]
				now = max(now, c.end)
				hosts[c.host].Active.Add(-1)
				hosts[c.host].Observe(time.Duration(took[c.host]), now)
				calls = append(calls[:first], calls[first+1:]...)
			}
		}
		return counts
	}
	peak, random := f(model.PeakEWMA), f(model.Random)
	// Costs are equal where the fast one has ten times as many under way, and so a hundred times the throughput.
	if share := float64(peak[1]) / 20000; share > 0.03 {
		t.Errorf("the slow host gets %.1f %% by peak EWMA", 100*share)
	}
	if peak[1] == 0 {
		t.Error("the slow host is never tried")
	}
	if share := float64(random[1]) / 20000; share < 0.45 {
		t.Errorf("the slow host gets %.1f %% at random: this test tells nothing", 100*share)
	}
}

// TestFastErrorsDoNotAttract says that a host that fails at once does not draw the load.
func TestFastErrorsDoNotAttract(t *testing.T) {
	hosts, now, r := equal(3), int64(time.Hour), NewRand(3)
	p := pool(t, model.LoadBalancer{Policy: model.PeakEWMA}, 0, hosts, nil, func() int64 { return now })
	run := func(seconds int) (counts []int) {
		counts = make([]int, 3)
		for range 1000 * seconds {
			i := p.Pick(Key{}, &r)
			counts[i]++
			now += milli
			if i == 0 {
				hosts[i].ObserveFailure(100*time.Microsecond, 0, now)
			} else {
				hosts[i].Observe(20*time.Millisecond, now)
			}
		}
		return counts
	}
	// The host that fails is tried again when its penalty has faded to 20 ms: after 10 s·ln 250 = 55 s.
	counts := run(30)
	if counts[0] > 1 {
		t.Errorf("the failing host gets %v", counts)
	}
	fits(t, "the others", counts[1:], 1, 1)
	if counts = run(60); counts[0] < 1 || counts[0] > 3 {
		t.Errorf("a minute later: %v", counts)
	}
}

func TestPeakEWMAByWeight(t *testing.T) {
	p, r := pool(t, model.LoadBalancer{Policy: model.PeakEWMA}, 0, hostsOf(1, 2, 5), nil, still), NewRand(3)
	fits(t, "alike hosts", picked(p, 20000, &r), 1, 2, 5)
	p = pool(t, model.LoadBalancer{Policy: model.PeakEWMA}, 0, equal(4), nil, still)
	fits(t, "alike hosts", picked(p, 20000, &r), 1, 1, 1, 1)
}

// TestObserveConcurrently says that a peak is not lost.
func TestObserveConcurrently(t *testing.T) {
	var v Vitals
	var done sync.WaitGroup
	for g := range 4 {
		done.Go(func() {
			for n := range 2000 {
				v.Observe(time.Duration(1+(n*7+g)%100)*time.Millisecond, 5*int64(time.Second))
			}
		})
	}
	done.Wait()
	if got := v.expected(5*int64(time.Second)) / 1e6; math.Abs(got-100) > 0.01 {
		t.Errorf("%.2f ms, want the slowest, 100 ms", got)
	}
}
