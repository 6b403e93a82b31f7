package breaker

import (
	"strings"
	"testing"
	"time"
)

// The names say which of Hystrix 1.5.12's own tests, or lines, each of these is distilled from.

func TestCircuit(t *testing.T) {
	u := unitSettings
	f := func(name string, s Settings, steps func(r *rig)) {
		t.Run(name, func(t *testing.T) { steps(newRig(t, s)) })
	}
	f("testTripCircuit", u(), func(r *rig) {
		r.run(10, "SSSS")
		r.state(105, Closed)
		r.run(110, "FFFF")
		r.state(205, Open)
		r.refused(205)
		r.last(205, Transition{From: Closed, To: Open, Reason: ErrorThreshold, At: 200, Requests: 8, Errors: 4})
	})
	f("testTripCircuitOnFailuresAboveThreshold", u(), func(r *rig) {
		for i, o := range "SSFSFSFF" {
			r.run(int64(1+i*10), string(o))
		}
		r.state(105, Open)
		r.health(105, 4, 8, 50)
		r.refused(105)
	})
	f("testCircuitDoesNotTripOnFailuresBelowThreshold", u(), func(r *rig) {
		for i, o := range "SSFSSFSF" {
			r.run(int64(1+i*10), string(o))
		}
		r.state(105, Closed)
		r.health(105, 3, 8, 37)
		r.begin(105)
	})
	f("testTripCircuitOnTimeouts", u(), func(r *rig) {
		r.run(10, "TTTT")
		r.state(100, Open)
	})
	f("testTripCircuitOnTimeoutsAboveThreshold", u(), func(r *rig) {
		r.run(10, "SSTSTTSTT")
		r.state(100, Open)
		r.health(100, 5, 9, 55)
	})
	f("testSingleTestOnOpenCircuitAfterTimeWindow", u(), func(r *rig) {
		r.run(10, "FFFF")
		r.refused(110)
		probe := r.begin(355)
		if !probe.isProbe() {
			r.Error("the one that is admitted is not the probe")
		}
		r.state(355, HalfOpen)
		if !r.look(355).Open {
			r.Error("a half-open breaker is reported as closed")
		}
		r.refused(356)
	})
	sleep100 := u()
	sleep100.SleepWindow = 100 * time.Millisecond
	f("testCircuitClosedAfterSuccess", sleep100, func(r *rig) {
		r.run(10, "FFFT")
		probe := r.begin(255)
		r.refused(260)
		r.end(probe, 315, 'S')
		r.state(315, Closed)
		r.state(414, Closed)
		r.run(415, "SSS")
		r.state(415, Closed)
		r.health(415, 0, 1, 0) // the probe's own, in the fresh window
	})
	f("testMultipleTimeWindowRetriesBeforeClosingCircuit", u(), func(r *rig) {
		r.run(10, "FFFT")
		probe := r.begin(355)
		r.refused(356)
		r.end(probe, 415, 'F')
		r.state(415, Open)
		r.refused(416)
		r.refused(416)
		r.refused(416)
		probe = r.begin(666)
		r.end(probe, 726, 'F')
		r.state(726, Open)
		r.refused(727)
		probe = r.begin(977)
		r.end(probe, 1037, 'S')
		r.state(1037, Closed)
		r.begin(1038)
	})
	volume5 := u()
	volume5.RequestVolumeThreshold = 5
	f("testLowVolumeDoesNotTripCircuit", volume5, func(r *rig) {
		r.run(10, "FFFF")
		r.state(105, Closed)
	})
	f("testUnsubscriptionDoesNotLeaveCircuitStuckHalfOpen", u(), func(r *rig) {
		r.run(10, "FFFF")
		probe := r.begin(355)
		r.end(probe, 356, 'K')
		r.state(356, Open)
		r.last(356, Transition{From: HalfOpen, To: Open, Reason: ProbeAbandoned, At: 356})
		r.refused(500)
		probe = r.begin(2400)
		r.end(probe, 2401, 'S')
		r.state(2401, Closed)
		r.begin(2500)
	})
	f("isAfterSleepWindow is strict", u(), func(r *rig) {
		r.run(10, "FFFF")
		r.refused(300)
		r.begin(301)
	})
	f("markNonSuccess stamps the probe's end", u(), func(r *rig) {
		r.run(10, "FFFF")
		probe := r.begin(301)
		r.end(probe, 500, 'F')
		r.refused(700)
		r.begin(701)
	})
	f("late success while open", u(), func(r *rig) {
		late := r.begin(5)
		r.run(10, "FFFF")
		r.state(100, Open)
		r.end(late, 150, 'S')
		r.state(160, Open)
		r.refused(160)
	})
	for _, both := range []bool{false, true} {
		s := u()
		s.ForceOpen, s.ForceClosed = true, both
		f("testCircuitBreakerReportsOpenIfForcedOpen", s, func(r *rig) {
			for at := int64(1); at < 1000; at += 50 {
				r.refused(at)
				if s := r.look(at); !s.Open || s.State != ForcedOpen || s.Stored != Closed {
					r.Fatalf("%+v", s)
				}
			}
			r.counted(1000, map[Event]uint64{ShortCircuited: 20, FallbackMissing: 20})
		})
	}
	forceClosed := u()
	forceClosed.ForceClosed = true
	f("testCircuitBreakerReportsClosedIfForcedClosed", forceClosed, func(r *rig) {
		r.run(10, strings.Repeat("F", 100))
		r.begin(110)
		if s := r.look(110); s.Open || s.State != ForcedClosed || s.Stored != Open {
			r.Fatalf("%+v", s)
		}
		s := forceClosed
		s.ForceClosed = false
		r.b.Configure(s, 120*ms)
		r.state(120, Open)
		r.last(120, Transition{From: ForcedClosed, To: Open, Reason: Reconfigured, At: 120})
		r.refused(120)
	})
	disabled := u()
	disabled.Enabled = false
	f("testExecutionSuccessWithCircuitBreakerDisabled", disabled, func(r *rig) {
		r.run(10, strings.Repeat("F", 100))
		r.begin(110)
		r.health(110, 100, 100, 100)
		if s := r.look(110); s.Open || s.State != Disabled {
			r.Fatalf("%+v", s)
		}
	})
	volume3 := u()
	volume3.RequestVolumeThreshold = 3
	f("testCircuitBreakerAcrossMultipleCommandsButSameCircuitBreaker", volume3, func(r *rig) {
		r.run(10, "FFF")
		var fourth Ticket
		if v := r.b.Admit(&fourth, 110*ms); v != Refused {
			r.Fatalf("verdict %d", v)
		}
		if g := fourth.Fallback(); g != FallbackGranted {
			r.Fatalf("grant %d", g)
		}
		fourth.EndFallback(true)
		fourth.Close(111 * ms)
		r.counted(111, map[Event]uint64{Failure: 3, FallbackMissing: 3, ShortCircuited: 1, FallbackSuccess: 1})
	})
	ageing := u()
	ageing.RollingWindow = time.Second
	ageing.RequestVolumeThreshold = 4
	f("buckets leave the window", ageing, func(r *rig) {
		r.run(50, "FFF")
		r.run(1060, "F")
		r.state(1100, Closed)
		r.health(1100, 1, 1, 100)
	})
	f("judged without traffic", u(), func(r *rig) {
		r.run(10, "FFFF")
		r.last(9000, Transition{From: Closed, To: Open, Reason: ErrorThreshold, At: 100, Requests: 4, Errors: 4})
	})
	rejections := u()
	rejections.RequestVolumeThreshold, rejections.ErrorThresholdPercentage, rejections.MaxConcurrent = 20, 50, 10
	f("rejections trip", rejections, func(r *rig) {
		for range 10 {
			r.begin(5)
		}
		for range 20 {
			r.throttled(10)
		}
		r.last(100, Transition{From: Closed, To: Open, Reason: ErrorThreshold, At: 100, Requests: 20, Errors: 20})
	})
}

func TestHealth(t *testing.T) {
	s := Defaults()
	s.RollingWindow, s.HealthInterval = time.Second, 100*time.Millisecond
	s.ForceClosed = true // nothing is refused, whatever the health
	f := func(name string, s Settings, steps func(r *rig)) {
		t.Run(name, func(t *testing.T) { steps(newRig(t, s)) })
	}
	f("testEmptyStreamProducesZeros", s, func(r *rig) { r.health(1000, 0, 0, 0) })
	f("testSingleSuccess", s, func(r *rig) { r.run(10, "S"); r.health(999, 0, 1, 0) })
	f("testSingleFailure", s, func(r *rig) { r.run(10, "F"); r.health(999, 1, 1, 100) })
	f("testSingleTimeout", s, func(r *rig) { r.run(10, "T"); r.health(999, 1, 1, 100) })
	f("testSingleBadRequest", s, func(r *rig) { r.run(10, "B"); r.health(999, 0, 0, 0) })
	f("testRequestFromCache", s, func(r *rig) {
		r.run(10, "S")
		r.b.note(ResponseFromCache, 20*ms)
		r.b.note(ResponseFromCache, 30*ms)
		r.health(999, 0, 1, 0)
		r.counted(999, map[Event]uint64{Success: 1, ResponseFromCache: 2})
	})
	open := s
	open.ForceClosed, open.RequestVolumeThreshold = false, 3
	f("testShortCircuited", open, func(r *rig) {
		r.run(10, "FFF")
		r.refused(510)
		r.refused(510)
		r.health(999, 3, 3, 100)
	})
	f("testSemaphoreRejected", s, func(r *rig) {
		var slow []*Ticket
		for range 10 {
			slow = append(slow, r.begin(10))
		}
		r.throttled(20)
		r.throttled(20)
		for _, t := range slow {
			r.end(t, 300, 'S')
		}
		r.health(999, 2, 12, 16)
	})
	f("testThreadPoolRejected", s, func(r *rig) {
		r.run(300, "QQSSSSSSSSSS")
		r.health(999, 2, 12, 16)
	})
	f("testFallbackFailure", s, func(r *rig) {
		c := r.begin(10)
		c.End(Failed, 10*ms)
		if g := c.Fallback(); g != FallbackGranted {
			r.Fatalf("grant %d", g)
		}
		c.EndFallback(false)
		c.Close(11 * ms)
		r.health(999, 1, 1, 100)
		r.counted(999, map[Event]uint64{Failure: 1, FallbackFailure: 1})
	})
	f("testFallbackMissing", s, func(r *rig) {
		r.run(10, "F")
		r.health(999, 1, 1, 100)
		r.counted(999, map[Event]uint64{Failure: 1, FallbackMissing: 1})
	})
	five := s
	five.FallbackMaxConcurrent = 5
	f("testFallbackRejection", five, func(r *rig) {
		var slow []*Ticket
		for i := range 7 {
			c := r.begin(10)
			c.End(Failed, 10*ms)
			want := FallbackGranted
			if i >= 5 {
				want = FallbackThrottled
			}
			if g := c.Fallback(); g != want {
				r.Fatalf("fallback %d: grant %d, want %d", i, g, want)
			}
			slow = append(slow, c)
		}
		for _, c := range slow[5:] {
			c.Close(10 * ms)
		}
		r.health(100, 2, 2, 100) // the others are not at their end
		if n := r.look(100).Fallbacks; n != 5 {
			r.Fatalf("%d fallbacks run", n)
		}
		for _, c := range slow[:5] {
			c.EndFallback(true)
			c.Close(310 * ms)
		}
		r.health(999, 7, 7, 100)
		r.counted(999, map[Event]uint64{Failure: 7, FallbackRejection: 2, FallbackSuccess: 5})
		if n := r.look(999).Fallbacks; n != 0 {
			r.Fatalf("%d fallbacks run", n)
		}
	})
	f("testMultipleEventsOverTimeGetStoredAndAgeOut", s, func(r *rig) {
		r.run(10, "S")
		r.run(20, "F")
		r.health(1000, 1, 2, 50)
		r.health(1099, 1, 2, 50)
		r.health(1100, 0, 0, 0)
	})
	f("testGetErrorPercentage", s, func(r *rig) {
		at := int64(0)
		for _, step := range []struct {
			outcomes string
			errors   uint64
			total    uint64
			want     int
		}{{"S", 0, 1, 0}, {"F", 1, 2, 50}, {"SS", 1, 4, 25}, {"TT", 3, 6, 50}, {"SSSS", 3, 10, 30}} {
			r.run(at+10, step.outcomes)
			at += 100
			r.health(at, step.errors, step.total, step.want)
		}
	})
	f("testBadRequestsDoNotAffectErrorPercentage", s, func(r *rig) {
		r.run(10, "SF")
		r.health(100, 1, 2, 50)
		r.run(110, "BB")
		r.health(200, 1, 2, 50)
		r.run(210, "FF")
		r.health(300, 3, 4, 75)
	})
	f("testCurrentConcurrentExecutionCount", s, func(r *rig) {
		var all []*Ticket
		for range 8 {
			all = append(all, r.begin(10))
		}
		if n := r.look(10).Active; n != 8 {
			r.Fatalf("%d run", n)
		}
		for _, c := range all {
			r.end(c, 20, 'S')
		}
		if n := r.look(20).Active; n != 0 {
			r.Fatalf("%d run", n)
		}
	})
}

func TestCommand(t *testing.T) {
	f := func(name string, change func(*Settings), steps func(r *rig)) {
		s := unitSettings()
		change(&s)
		t.Run(name, func(t *testing.T) { steps(newRig(t, s)) })
	}
	f("testExecutionSemaphoreWithQueue", func(s *Settings) { s.MaxConcurrent = 1 }, func(r *rig) {
		first := r.begin(10)
		r.throttled(11)
		r.end(first, 20, 'S')
		r.counted(20, map[Event]uint64{Success: 1, SemaphoreRejected: 1, FallbackMissing: 1})
	})
	f("testRejectedExecutionSemaphoreWithFallbackViaExecute", func(s *Settings) { s.MaxConcurrent = 1 }, func(r *rig) {
		first := r.begin(10)
		var second Ticket
		if v := r.b.Admit(&second, 11*ms); v != Throttled || second.Fallback() != FallbackGranted {
			r.Fatal("no fallback for what was throttled")
		}
		second.EndFallback(true)
		second.Close(11 * ms)
		r.end(first, 20, 'S')
		r.counted(20, map[Event]uint64{Success: 1, SemaphoreRejected: 1, FallbackSuccess: 1})
	})
	f("testSemaphorePermitsInUse", func(s *Settings) { s.MaxConcurrent = 3 }, func(r *rig) {
		all := []*Ticket{r.begin(1), r.begin(1), r.begin(1)}
		for range 3 {
			r.throttled(2)
		}
		if n := r.look(2).Active; n != 3 {
			r.Fatalf("%d permits in use", n)
		}
		for _, c := range all {
			r.end(c, 3, 'S')
		}
		if n := r.look(3).Active; n != 0 {
			r.Fatalf("%d permits in use", n)
		}
	})
	f("testFallbackSemaphore", func(s *Settings) { s.FallbackMaxConcurrent = 1 }, func(r *rig) {
		a, b := r.begin(1), r.begin(1)
		a.End(Failed, 2*ms)
		b.End(Failed, 2*ms)
		if a.Fallback() != FallbackGranted || b.Fallback() != FallbackThrottled {
			r.Fatal("one of two fallbacks should run")
		}
		b.Close(2 * ms)
		a.EndFallback(true)
		a.Close(3 * ms)
		r.counted(3, map[Event]uint64{Failure: 2, FallbackSuccess: 1, FallbackRejection: 1})
	})
	f("testRejectedThreadUsingQueueSize", func(s *Settings) { s.Strategy = Thread }, func(r *rig) {
		r.run(10, "Q")
		r.counted(10, map[Event]uint64{ThreadPoolRejected: 1, FallbackMissing: 1})
	})
	f("testCountersOnExecutionTimeout", func(s *Settings) { s.Timeout = 50 * time.Millisecond }, func(r *rig) {
		c := r.begin(10)
		if at, ok := c.Deadline(); !ok || at != 60*ms {
			r.Fatalf("deadline %d, %v", at, ok)
		}
		c.End(TimedOut, 60*ms)
		if c.Fallback() != FallbackGranted {
			r.Fatal("no fallback")
		}
		c.EndFallback(true)
		c.Close(61 * ms)
		if c.End(Succeeded, 210*ms) {
			r.Fatal("the late success is taken")
		}
		c.Close(210 * ms)
		r.counted(210, map[Event]uint64{Timeout: 1, FallbackSuccess: 1})
	})
	f("testDisabledTimeoutWorks", func(s *Settings) { s.TimeoutEnabled, s.Timeout = false, 100*time.Millisecond }, func(r *rig) {
		c := r.begin(10)
		if _, ok := c.Deadline(); ok {
			r.Fatal("there is a deadline")
		}
		r.end(c, 910, 'S')
		r.counted(910, map[Event]uint64{Success: 1})
	})
	f("testEarlyUnsubscribeDuringExecutionViaObserve", func(*Settings) {}, func(r *rig) {
		r.begin(10).Close(20 * ms)
		r.counted(20, map[Event]uint64{Cancelled: 1})
		r.health(100, 0, 0, 0)
		if n := r.look(20).Active; n != 0 {
			r.Fatalf("%d permits in use", n)
		}
	})
	f("testEarlyUnsubscribeDuringFallback", func(*Settings) {}, func(r *rig) {
		c := r.begin(10)
		c.End(Failed, 11*ms)
		c.Fallback()
		c.Close(20 * ms)
		r.counted(20, map[Event]uint64{Failure: 1, Cancelled: 1})
		if s := r.look(20); s.Active != 0 || s.Fallbacks != 0 {
			r.Fatalf("permits in use: %d, %d", s.Active, s.Fallbacks)
		}
	})
	f("testBadRequestExceptionViaExecuteInSemaphore", func(*Settings) {}, func(r *rig) {
		c := r.begin(10)
		c.End(ClientError, 11*ms)
		if c.Fallback() != FallbackUncalled {
			r.Fatal("a fallback for a client's own error")
		}
		c.Close(11 * ms)
		r.counted(11, map[Event]uint64{BadRequest: 1})
		if n := r.look(6000).Rolling[ExceptionThrown]; n != 0 {
			r.Fatalf("%d exceptions thrown after the window", n)
		}
		if n := r.look(6000).Total[ExceptionThrown]; n != 1 {
			r.Fatalf("%d exceptions thrown", n)
		}
	})
	f("testShortCircuitFallbackCounter", func(s *Settings) { s.ForceOpen = true }, func(r *rig) {
		for i := range int64(2) {
			var c Ticket
			if r.b.Admit(&c, i*ms) != Refused || c.Fallback() != FallbackGranted {
				r.Fatal("no fallback for what was refused")
			}
			c.EndFallback(true)
			c.Close(40 * ms)
		}
		r.counted(40, map[Event]uint64{ShortCircuited: 2, FallbackSuccess: 2})
		if s := r.look(60_000); s.Execution != (Latency{}) || s.Command != (Latency{}) {
			r.Fatalf("there are durations: %+v", s)
		}
	})
	f("RollingCommandMaxConcurrencyStreamTest", func(s *Settings) { s.MaxConcurrent = 10 }, func(r *rig) {
		var all []*Ticket
		for range 10 {
			all = append(all, r.begin(10))
		}
		for range 5 {
			r.throttled(10)
		}
		r.b.note(ResponseFromCache, 10*ms)
		for _, c := range all {
			r.end(c, 20, 'S')
		}
		if n := r.look(500).Rolling[CommandMaxActive]; n != 10 {
			r.Fatalf("at most %d at once, want 10", n)
		}
		if n := r.look(5500).Rolling[CommandMaxActive]; n != 0 {
			r.Fatalf("at most %d at once after the window, want 0", n)
		}
	})
	f("FallbackDisabled", func(s *Settings) { s.FallbackEnabled = false }, func(r *rig) {
		c := r.begin(1)
		c.End(Failed, 1*ms)
		if c.Fallback() != FallbackOff {
			r.Fatal("a fallback that is disabled")
		}
		c.Close(1 * ms)
		r.run(2, "F") // nobody asked
		r.counted(2, map[Event]uint64{Failure: 2, FallbackDisabled: 2})
	})
}
