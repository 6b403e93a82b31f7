package breaker

import (
	"strings"
	"testing"
)

// Each of these is something that Hystrix does and that must not be copied; TestHystrixHasItsDefects shows them there.

// A request from before the breaker opened succeeds while the probe runs (Hystrix #1350).
func TestStaleSuccessDoesNotCloseHalfOpen(t *testing.T) {
	r := newRig(t, unitSettings())
	stale := r.begin(5)
	r.run(10, "FFFF")
	probe := r.begin(301)
	r.end(stale, 310, 'S')
	r.state(310, HalfOpen)
	r.refused(311)
	r.end(probe, 320, 'S')
	r.state(320, Closed)
}

// A request from before the breaker opened fails while the probe runs.
func TestStaleFailureDoesNotOpenHalfOpen(t *testing.T) {
	r := newRig(t, unitSettings())
	stale := r.begin(5)
	r.run(10, "FFFF")
	probe := r.begin(301)
	r.end(stale, 310, 'F')
	r.state(310, HalfOpen)
	r.end(probe, 320, 'S')
	r.state(320, Closed)
}

// Requests are refused, and leave, while the probe runs (Hystrix #1853, #1806, #1723).
func TestRefusedRequestDoesNotEndHalfOpen(t *testing.T) {
	r := newRig(t, unitSettings())
	r.run(10, "FFFF")
	probe := r.begin(301)
	r.refused(310)
	var left Ticket
	r.b.Admit(&left, 311*ms)
	left.Fallback()
	left.Close(312 * ms)
	r.state(312, HalfOpen)
	r.end(probe, 320, 'S')
	r.state(320, Closed)
}

// The probe's client leaves, or its exchange ends in a way that reports nothing (Hystrix before #1621).
func TestAbandonedProbeIsGivenBack(t *testing.T) {
	for _, how := range []string{"reported", "only closed"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, unitSettings())
			r.run(10, "FFFF")
			probe := r.begin(301)
			if how == "reported" {
				probe.End(Abandoned, 310*ms)
			}
			probe.Close(310 * ms)
			r.state(310, Open)
			r.refused(510)
			r.end(r.begin(511), 520, 'S')
			r.state(520, Closed)
		})
	}
}

// All permits are in use when the probe is due.
func TestProbeWithoutPermitIsNotLost(t *testing.T) {
	s := unitSettings()
	s.MaxConcurrent = 1
	r := newRig(t, s)
	slow := r.begin(5)
	for range 4 {
		r.throttled(10)
	}
	r.state(100, Open)
	r.throttled(301)
	r.state(301, Open)
	r.end(slow, 310, 'S')
	r.end(r.begin(311), 312, 'S') // it is due since 300
	r.state(312, Closed)
}

// The probe's answer is the client's own error: the target answers again.
func TestClientErrorOfProbeCloses(t *testing.T) {
	r := newRig(t, unitSettings())
	r.run(10, "FFFF")
	r.end(r.begin(301), 310, 'B')
	r.state(310, Closed)
	r.begin(311)
}

// Floating point makes 28 % of 29 in 100.
func TestPercentageIsOfIntegers(t *testing.T) {
	s := unitSettings()
	s.ErrorThresholdPercentage = 29
	r := newRig(t, s)
	r.run(10, strings.Repeat("S", 71)+strings.Repeat("F", 29))
	r.health(100, 29, 100, 29)
	r.state(100, Open)
	for total := uint64(1); total <= 300; total++ {
		for errors := range total + 1 {
			got := uint64(tally{total: total, errors: errors}.percentage())
			if got*total > 100*errors || (got+1)*total <= 100*errors {
				t.Fatalf("%d of %d is not %d %%", errors, total, got)
			}
		}
	}
}

// A probe that nobody reports, with timeouts disabled, blocks recovery for ever in Hystrix.
func TestOverdueProbeIsReplaced(t *testing.T) {
	s := unitSettings()
	s.TimeoutEnabled = false
	r := newRig(t, s)
	r.run(10, "FFFF")
	hung := r.begin(301)
	r.refused(501)
	second := r.begin(502)
	r.state(502, HalfOpen)
	r.last(502, Transition{From: HalfOpen, To: HalfOpen, Reason: ProbeOverdue, At: 502})
	r.end(hung, 503, 'F') // it is the probe no longer
	r.state(503, HalfOpen)
	r.end(second, 504, 'S')
	r.state(504, Closed)

	s.TimeoutEnabled = true // 500 ms: longer than the sleep window
	r = newRig(t, s)
	r.run(10, "FFFF")
	r.begin(301)
	r.refused(801)
	r.begin(802)
}

// A snapshot judges while the breaker is being closed (Hystrix #1640): here both are one step, so what is stored always fits.
func TestClosingForgetsTheHealth(t *testing.T) {
	r := newRig(t, unitSettings())
	r.run(10, "FFFF")
	r.end(r.begin(399), 400, 'S') // 400 is a snapshot's boundary too
	for at := int64(400); at < 6000; at += 7 {
		r.state(at, Closed)
	}
	r.run(6000, "FFFF")
	r.state(6100, Open)
}

// What a probe was admitted for may be gone when it ends: the breaker was disabled and opened anew.
func TestProbeOfEarlierTimesMeansNothing(t *testing.T) {
	s := unitSettings()
	r := newRig(t, s)
	r.run(10, "FFFF")
	old := r.begin(301)
	off := s
	off.Enabled = false
	r.b.Configure(off, 310*ms)
	r.state(310, Disabled)
	r.b.Configure(s, 320*ms)
	r.state(320, Closed)
	r.run(330, "FFFF")
	r.state(400, Open)
	r.end(old, 410, 'S')
	r.state(410, Open)
	second := r.begin(601)
	if !second.isProbe() {
		t.Fatal("not the probe")
	}
	r.end(second, 610, 'F')
	r.state(610, Open)
}
