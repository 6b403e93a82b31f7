package accrual

import (
	"strings"
	"testing"
	"time"
)

func unified(maxFailures uint32) Settings {
	return Settings{MaxFailures: maxFailures, MinPenalty: time.Second, MaxPenalty: time.Minute, Rate: &Rate{Threshold: 0.8, Window: 10 * time.Second, MinRequests: 5}}
}

// play tells an endpoint what its requests came to, one each millisecond from now on: s(uccess), f(ailure), l(imited). It returns
// after how many of them the endpoint rests, 0 where it does not.
func play(e *Endpoint, now int64, course string) int {
	for i, c := range course {
		now += 1e6
		rests := false
		switch c {
		case 's':
			rests = e.Succeeded(false, now)
		case 'f':
			rests = e.Failed(false, now, 0)
		case 'l':
			rests = e.Limited(false, now, 0)
		}
		if rests {
			return i + 1
		}
	}
	return 0
}

func TestRate(t *testing.T) {
	f := func(s Settings, course string, want int) {
		t.Helper()
		if s.Check() != nil {
			t.Fatal(s.Check())
		}
		if got := play(New(s), second, course); got != want {
			t.Errorf("%s: it rests after %d, want %d", course, got, want)
		}
	}
	f(unified(7), "fffff", 5)     // five are enough to judge
	f(unified(3), "fff", 3)       // three in a row come first
	f(unified(0), "ssssfs", 0)    // 4 of 5, and 5 of 6, are not below 0.8
	f(unified(0), "sssssfssf", 9) // 7 of 9 are
	f(unified(0), "ssssssssffssfs", 13)
	f(unified(7), "lllll", 5) // they lower the rate
	f(unified(3), "ffllff", 5)
	long := strings.Repeat("s", 50)
	f(unified(3), long+"ffllff", 0) // and end a row of failures
	f(unified(3), long+"ffllfff", 57)
	f(unified(3), long+"ffsff", 0)
	f(settings(), "lllllllllllffll", 0) // successes to the other mode
	none := unified(7)
	none.Rate.Threshold = 0
	f(none, "ffffff", 0)
	f(none, "fffffff", 7)
}

// What is older than the window does not count.
func TestRateForgets(t *testing.T) {
	e := New(unified(0))
	if play(e, second, "ffff") != 0 {
		t.Fatal("four were judged")
	}
	if play(e, 13*second, "ffff") != 0 {
		t.Fatal("those of long ago count")
	}
	if play(e, 14*second, "f") != 1 {
		t.Fatal("those of a second ago do not")
	}
}

// A probe that is told to ask less fails; one that succeeds begins with an empty window.
func TestRateProbe(t *testing.T) {
	e := New(unified(0))
	play(e, 0, "fffff")
	for i, want := range []int64{2, 4} {
		now := e.Until()
		if !e.Sweep(now) || !e.Enter() {
			t.Fatal("no probe")
		}
		if !e.Limited(true, now, 0) || e.Until()-now != want*second {
			t.Errorf("probe %d: it rests for %v", i, time.Duration(e.Until()-now))
		}
	}
	now := e.Until()
	e.Sweep(now)
	e.Enter()
	if !e.Succeeded(true, now) || play(e, now, "ffff") != 0 || play(e, now+second, "f") != 1 {
		t.Error("the window was not emptied")
	}
}

func TestRateCheck(t *testing.T) {
	for _, r := range []Rate{{Threshold: 1.1, Window: time.Second}, {Threshold: -1, Window: time.Second}, {Threshold: 0.5}, {Threshold: 0.5, Window: time.Second, MinRequests: 1_000_001}} {
		s := unified(1)
		s.Rate = &r
		if s.Check() == nil {
			t.Errorf("%+v passes", r)
		}
	}
	s := unified(0)
	if s.Rate.Threshold = 0; s.Check() == nil {
		t.Error("what never rests passes")
	}
}
