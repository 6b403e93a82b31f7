package breaker

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestManyAtOnce lets many goroutines do all that may be done at the same time, and then wants nothing to be left.
func TestManyAtOnce(t *testing.T) {
	s := unitSettings()
	s.MaxConcurrent, s.FallbackMaxConcurrent = 6, 2
	s.SleepWindow, s.HealthInterval = 3*time.Millisecond, time.Millisecond
	s.RollingWindow, s.RollingBuckets = 20*time.Millisecond, 10
	b := New(s, 0)
	var clock, admitted, most, running atomic.Int64
	var all sync.WaitGroup
	for w := range uint64(8) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(w, 2))
			var c Ticket
			for range 4000 {
				now := func() int64 { return clock.Add(r.Int64N(40_000)) }
				if b.Admit(&c, now()) == Admitted {
					admitted.Add(1)
					n := running.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					var racers sync.WaitGroup
					var taken atomic.Int32
					for _, o := range []Outcome{Outcome(r.IntN(6)), TimedOut} { // an answer and a timer
						at := now()
						racers.Go(func() {
							if c.End(o, at) {
								taken.Add(1)
							}
						})
					}
					racers.Wait()
					if taken.Load() != 1 {
						t.Errorf("%d outcomes were taken", taken.Load())
					}
					running.Add(-1)
				}
				if c.Fallback() == FallbackGranted {
					c.EndFallback(r.IntN(2) == 0)
				}
				at := now()
				if r.IntN(8) == 0 { // two that think it is theirs to close
					var racers sync.WaitGroup
					racers.Go(func() { c.Close(at) })
					c.Finish(Failed, at)
					racers.Wait()
				} else {
					c.Close(at)
				}
			}
		})
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		var sn Snapshot
		var list []Transition
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			b.Snapshot(&sn, clock.Load())
			list = b.Tick(list[:0], clock.Load())
			s := s
			s.RequestVolumeThreshold = 1 + i%5
			b.Configure(s, clock.Load())
			if sn.Active > 6 || sn.Fallbacks > 2 || sn.Active < 0 || sn.Fallbacks < 0 {
				t.Errorf("%d run, and %d fallbacks", sn.Active, sn.Fallbacks)
			}
		}
	})
	all.Wait()
	close(stop)
	reader.Wait()

	var sn Snapshot
	b.Snapshot(&sn, clock.Load())
	if sn.Active != 0 || sn.Fallbacks != 0 {
		t.Errorf("left: %d permits, %d fallbacks", sn.Active, sn.Fallbacks)
	}
	if most.Load() > 6 {
		t.Errorf("%d ran at once, 6 may", most.Load())
	}
	var commands, ended uint64
	for _, e := range []Event{Success, Failure, Timeout, BadRequest, ShortCircuited, ThreadPoolRejected, SemaphoreRejected, Cancelled} {
		commands += sn.Total[e]
	}
	for e := range EventCount {
		if e.Terminal() {
			ended += sn.Total[e]
		}
	}
	if commands != 8*4000 || ended != 8*4000 {
		t.Errorf("%d commands with %d ends were counted, of %d", commands, ended, 8*4000)
	}
	if sn.Transitions[SleepWindowOver] == 0 || admitted.Load() == 0 || sn.Total[ShortCircuited] == 0 {
		t.Errorf("nothing much happened: %+v", sn)
	}
	if sn.State == HalfOpen {
		t.Error("half-open, and no probe is on its way")
	}
}

// TestOneProbe lets many ask at the same instant: one is the probe.
func TestOneProbe(t *testing.T) {
	for round := range 200 {
		r := newRig(t, unitSettings())
		r.run(10, "FFFF")
		r.refused(200)
		var probes atomic.Int32
		var all sync.WaitGroup
		tickets := make([]Ticket, 8)
		for i := range tickets {
			all.Go(func() {
				if r.b.Admit(&tickets[i], 301*ms) == Admitted {
					probes.Add(1)
				}
			})
		}
		all.Wait()
		if n := probes.Load(); n != 1 {
			t.Fatalf("round %d: %d probes", round, n)
		}
	}
}

func TestNoGarbage(t *testing.T) {
	b := New(Defaults(), 0)
	var c Ticket
	var sn Snapshot
	var now int64
	f := func(name string, what func()) {
		t.Helper()
		what()
		if n := testing.AllocsPerRun(2000, what); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	f("success", func() {
		now += 1e6
		b.Admit(&c, now)
		c.End(Succeeded, now)
		c.Close(now)
	})
	f("failures, short-circuits, probes and fallbacks", func() {
		now += 20e6
		b.Admit(&c, now)
		c.End(Failed, now)
		if c.Fallback() == FallbackGranted {
			c.EndFallback(true)
		}
		c.Close(now)
	})
	list := make([]Transition, 0, 64)
	f("reading", func() {
		now += 1e6
		b.Snapshot(&sn, now)
		list = b.Tick(list[:0], now)
	})
	if sn.Transitions[ProbeFailed] == 0 {
		t.Error("there was no probe")
	}
}

// TestHistoryIsBounded makes more transitions than are kept for Tick.
func TestHistoryIsBounded(t *testing.T) {
	s := unitSettings()
	b := New(s, 0)
	for i := range int64(100) {
		s.ForceOpen = !s.ForceOpen
		b.Configure(s, i)
	}
	list := b.Tick(nil, 100)
	if len(list) != 32 || list[0].At != 68 || list[31].At != 99 {
		t.Errorf("%d transitions, %+v", len(list), list)
	}
	if more := b.Tick(nil, 100); len(more) != 0 {
		t.Errorf("they come twice: %+v", more)
	}
	var sn Snapshot
	b.Snapshot(&sn, 100)
	if n := sn.Transitions[Reconfigured]; n != 100 {
		t.Errorf("%d are counted", n)
	}
}

func TestErrors(t *testing.T) {
	e, err := ParseErrors(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for status, want := range map[int]Outcome{101: Succeeded, 200: Succeeded, 304: Succeeded, 400: ClientError, 404: ClientError, 429: ClientError, 499: ClientError, 500: Failed, 503: Failed, 599: Failed, 0: Succeeded, 999: Succeeded} {
		if got := e.HTTP(status); got != want {
			t.Errorf("%d is %d, want %d", status, got, want)
		}
	}
	grpc := map[int]Outcome{0: Succeeded, 1: ClientError, 2: Failed, 3: ClientError, 4: TimedOut, 5: ClientError, 6: ClientError, 7: ClientError, 8: Failed, 9: ClientError, 10: ClientError, 11: ClientError, 12: ClientError, 13: Failed, 14: Failed, 15: Failed, 16: ClientError, 17: Failed, -1: Failed}
	for code, want := range grpc {
		if got := e.GRPC(code); got != want {
			t.Errorf("gRPC %d is %d, want %d", code, got, want)
		}
	}
	e, err = ParseErrors([]string{"503", "429"}, []string{"ABORTED", "5"})
	if err != nil {
		t.Fatal(err)
	}
	if e.HTTP(500) != Succeeded || e.HTTP(429) != Failed || e.HTTP(503) != Failed || e.GRPC(10) != Failed || e.GRPC(5) != Failed || e.GRPC(14) != ClientError {
		t.Error("the lists are not what counts")
	}
	for _, bad := range [][2][]string{{{"5x"}, nil}, {{"600"}, nil}, {{"6xx"}, nil}, {{""}, nil}, {nil, {"OK"}}, {nil, {"0"}}, {nil, {"unavailable"}}} {
		if _, err := ParseErrors(bad[0], bad[1]); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func BenchmarkCommand(b *testing.B) {
	br := New(Defaults(), 0)
	var c Ticket
	var now int64
	b.ReportAllocs()
	for b.Loop() {
		now += 20_000
		br.Admit(&c, now)
		c.Finish(Succeeded, now+10_000)
	}
}

func BenchmarkCommandsAtOnce(b *testing.B) {
	s := Defaults()
	s.MaxConcurrent = 1000
	br := New(s, 0)
	var now atomic.Int64
	b.RunParallel(func(p *testing.PB) {
		var c Ticket
		for p.Next() {
			at := now.Add(20_000)
			br.Admit(&c, at)
			c.Finish(Succeeded, at)
		}
	})
}
