package accrual

import (
	"math/rand/v2"
	"testing"
	"time"
)

// linkerd is Linkerd's breaker as its documentation tells it: so many failures in a row, an exponential back-off with jitter, one probe.
type linkerd struct {
	Settings
	closed      bool // nothing is let through before until, and then a probe
	row, closes int
	until       int64
}

func (l *linkerd) close(now int64, random float64) {
	base := min(l.MinPenalty<<l.closes, l.MaxPenalty)
	l.until = now + int64(min(base+time.Duration(float64(base)*l.Jitter*random), l.MaxPenalty))
	l.closed, l.row = true, 0
	l.closes++
}

func (l *linkerd) told(end byte, now int64, random float64) {
	bad := end == 'f'
	switch {
	case l.closed && (bad || end == 'l' && l.Rate != nil):
		l.close(now, random)
	case l.closed:
		l.closed, l.closes = false, 0
	case !bad:
		l.row = 0
	default:
		if l.row++; l.row >= int(l.MaxFailures) {
			l.close(now, random)
		}
	}
}

// In random courses of requests an endpoint rests, is asked and serves again as Linkerd's breaker has it.
func TestAsLinkerd(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 7))
		s := Settings{
			MaxFailures: 1 + r.Uint32N(5), Jitter: r.Float64(),
			MinPenalty: time.Duration(r.IntN(3)) * 100 * time.Millisecond, MaxPenalty: time.Duration(1+r.IntN(20)) * 250 * time.Millisecond,
		}
		if r.IntN(2) == 0 {
			s.Rate = &Rate{Window: time.Second}
		}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		e, l, now := New(s), &linkerd{Settings: s}, second
		for i := range 200 {
			now += int64(r.IntN(150)) * int64(time.Millisecond)
			e.Sweep(now)
			if want := l.closed && now < l.until; e.Down() != want {
				t.Fatalf("seed %d, request %d: it is %v, and Linkerd's is closed: %v", seed, i, e.State(), want)
			}
			if e.Down() {
				continue
			}
			probe, end, random := e.Enter(), "sfl"[r.IntN(3)], r.Float64()
			if probe != l.closed {
				t.Fatalf("seed %d, request %d: probe %v", seed, i, probe)
			}
			switch end {
			case 's':
				e.Succeeded(probe, now)
			case 'f':
				e.Failed(probe, now, random)
			case 'l':
				e.Limited(probe, now, random)
			}
			l.told(end, now, random)
		}
	}
}
