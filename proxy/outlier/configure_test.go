package outlier

import (
	"testing"
	"time"
)

// TestLowerCountsFindLongRows says that a host that has failed more often in a row than is allowed now is ejected by its next failure.
func TestLowerCountsFindLongRows(t *testing.T) {
	f := func(name string, reason Reason, report func(h *Host) Change, set func(s *Settings, n uint32)) {
		t.Helper()
		s := all(func(s *Settings) {
			s.Consecutive5xx, s.ConsecutiveGateway, s.ConsecutiveLocalOrigin = 0, 0, 0
			set(s, 1000)
		})
		d, list := pool(t, s, 2)
		for range 10 {
			if c := report(list[0]); c.Action != Nothing {
				t.Fatalf("%s: %+v", name, c)
			}
		}
		set(&s, 5)
		d.Configure(s, 1)
		if c := report(list[0]); c.Action != Ejected || c.Reason != reason {
			t.Errorf("%s: %+v, want it to be ejected", name, c)
		}
		if c := report(list[0]); c.Action != Nothing {
			t.Errorf("%s: %+v of one that is ejected", name, c)
		}
		set(&s, 0)
		d.Configure(s, 1)
		for range 10 {
			if c := report(list[1]); c.Action != Nothing {
				t.Errorf("%s: %+v, though it is off", name, c)
			}
		}
	}
	f("5xx", Consecutive5xx, func(h *Host) Change { return h.Answered(500, 1) }, func(s *Settings, n uint32) { s.Consecutive5xx = n })
	f("gateway", ConsecutiveGatewayFailure, func(h *Host) Change { return h.Answered(503, 1) }, func(s *Settings, n uint32) { s.ConsecutiveGateway = n })
	f("local origin", ConsecutiveLocalOriginFailure, func(h *Host) Change { return h.Failed(1) }, func(s *Settings, n uint32) { s.Split, s.ConsecutiveLocalOrigin = true, n })
}

// TestLongEjections says that times near what can be counted, and times that grow by a reload, are held to the longest.
func TestLongEjections(t *testing.T) {
	const year = 365 * 24 * time.Hour
	s := all(func(s *Settings) { s.BaseEjection = 200 * year })
	_, list := pool(t, s, 1)
	if c := fail(t, list[0], 500, 5, 1); c.Time != 200*year {
		t.Errorf("ejected for %v, want 200 years", c.Time)
	}
	s.BaseEjection, s.MaxEjection = time.Millisecond, time.Hour
	d, list := pool(t, s, 1)
	now := int64(1)
	for range 300 {
		fail(t, list[0], 500, 5, now)
		now += int64(s.Interval)
		d.Sweep(nil, now)
	}
	s.BaseEjection, s.MaxEjection = year, year
	d.Configure(s, now)
	if c := fail(t, list[0], 500, 5, now); c.Time != year {
		t.Errorf("ejected for %v, want a year", c.Time)
	}
}
