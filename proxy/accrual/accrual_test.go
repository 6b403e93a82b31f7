package accrual

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const second = int64(time.Second)

func settings() Settings {
	return Settings{MaxFailures: 3, MinPenalty: time.Second, MaxPenalty: 10 * time.Second, Jitter: 0.5}
}

// A success between failures begins the count anew; so many in a row make it rest.
func TestInARow(t *testing.T) {
	e := New(settings())
	for range 5 {
		for range 2 {
			if e.Failed(false, 0, 0) {
				t.Fatal("it rests before three failures in a row")
			}
		}
		if e.Succeeded(false, 0) || e.Down() {
			t.Fatal("a success changes it")
		}
	}
	e.Failed(false, 0, 0)
	e.Failed(false, 0, 0)
	if !e.Failed(false, 5*second, 0) || !e.Down() || e.Until() != 6*second {
		t.Fatalf("three in a row: %v until %d", e.State(), e.Until())
	}
}

// Each probe that fails doubles the penalty up to the longest; one that succeeds begins anew.
func TestPenalties(t *testing.T) {
	e := New(settings())
	trip := func(now int64) {
		for range 3 {
			e.Failed(false, now, 0)
		}
	}
	now := int64(0)
	trip(now)
	for i, want := range []int64{1, 2, 4, 8, 10, 10, 10} {
		if got := e.Until() - now; got != want*second {
			t.Errorf("rest %d lasts %v, want %d s", i, time.Duration(got), want)
		}
		if e.Sweep(e.Until() - 1); e.State() != Resting {
			t.Fatal("it does not rest to the end")
		}
		now = e.Until()
		if !e.Sweep(now) || e.Down() || !e.Enter() || e.Enter() || !e.Down() {
			t.Fatal("not one probe")
		}
		e.Failed(true, now, 0)
	}
	now = e.Until()
	e.Sweep(now)
	e.Enter()
	if !e.Succeeded(true, now) || e.Down() || e.State() != Serving {
		t.Fatal("it does not serve after a good probe")
	}
	trip(now)
	if e.Until()-now != second {
		t.Errorf("the next rest lasts %v", time.Duration(e.Until()-now))
	}
}

// Without a least penalty the probe may come at once, however often it fails.
func TestNoPenalty(t *testing.T) {
	s := Settings{MaxFailures: 1, MaxPenalty: time.Minute, Jitter: 0.5}
	if s.Check() != nil {
		t.Fatal(s.Check())
	}
	e := New(s)
	e.Failed(false, second, 0.5)
	for range 100 {
		if e.Until() != second || !e.Sweep(second) || !e.Enter() || !e.Failed(true, second, 0.5) {
			t.Fatalf("%v until %d", e.State(), e.Until())
		}
	}
}

func TestJitter(t *testing.T) {
	e := New(settings())
	for range 3 {
		e.Failed(false, 0, 0.8)
	}
	if e.Until() != int64(1400*time.Millisecond) {
		t.Errorf("%v, want 1.4 s", time.Duration(e.Until()))
	}
}

// Requests from before do not disturb a probe, and a probe that nobody finishes is given back.
func TestProbe(t *testing.T) {
	e := New(Settings{MaxFailures: 1, MinPenalty: time.Second, MaxPenalty: time.Second})
	e.Failed(false, 0, 0)
	e.Sweep(second)
	if !e.Enter() {
		t.Fatal("no probe")
	}
	e.Succeeded(false, 0)
	e.Failed(false, second, 0)
	if e.State() != Probing {
		t.Fatalf("a request from before made it %v", e.State())
	}
	e.Abandon()
	if e.Down() || !e.Enter() {
		t.Fatal("the probe was not given back")
	}
}

// Whatever is called by whom, there is one probe at a time.
func TestConcurrent(t *testing.T) {
	e := New(Settings{MaxFailures: 2, MinPenalty: 1, MaxPenalty: 10})
	var probes, now atomic.Int64
	var all sync.WaitGroup
	for w := range uint64(8) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(w, 1))
			for range 5000 {
				t0 := now.Add(1)
				e.Sweep(t0)
				probe := e.Enter()
				if probe && probes.Add(1) != 1 {
					t.Error("two probes at a time")
				}
				end := r.IntN(4)
				if probe {
					probes.Add(-1)
				}
				switch {
				case end == 0 && probe:
					e.Abandon()
				case end == 1:
					e.Succeeded(probe, t0)
				default:
					e.Failed(probe, t0, r.Float64())
				}
			}
		})
	}
	all.Wait()
}

func TestCheck(t *testing.T) {
	for _, s := range []Settings{{}, {MaxFailures: 1}, {MaxFailures: 1, MinPenalty: -1, MaxPenalty: 1}, {MaxFailures: 1, MinPenalty: 2, MaxPenalty: 1}, {MaxFailures: 1, MinPenalty: 1, MaxPenalty: 1, Jitter: 101}} {
		if s.Check() == nil {
			t.Errorf("%+v passes", s)
		}
	}
	if s := settings(); s.Check() != nil {
		t.Error(s.Check())
	}
}

// No penalty is longer than the longest, however much jitter is asked for.
func TestLongPenalty(t *testing.T) {
	const longest = 100 * 365 * 24 * time.Hour
	e := New(Settings{MaxFailures: 1, MinPenalty: longest, MaxPenalty: longest, Jitter: 100})
	e.Failed(false, second, 0.999)
	if got := time.Duration(e.Until() - second); got != longest {
		t.Errorf("it rests for %v, want %v", got, longest)
	}
}
