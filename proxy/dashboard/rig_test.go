package dashboard

import (
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/proxy/breaker"
)

const (
	ms     = int64(time.Millisecond)
	second = int64(time.Second)
)

// rig is a breaker with a hand to drive it.
type rig struct {
	*breaker.Breaker
	t *testing.T
}

func newRig(t *testing.T, change func(*breaker.Settings)) rig {
	t.Helper()
	s := breaker.Defaults()
	if change != nil {
		change(&s)
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	return rig{breaker.New(s, 0), t}
}

// call runs one command that begins at an instant and takes so long.
func (r rig) call(at, took int64, o breaker.Outcome) {
	r.t.Helper()
	var ticket breaker.Ticket
	if v := r.Admit(&ticket, at); v == breaker.Admitted {
		ticket.End(o, at+took)
	}
	ticket.Close(at + took)
}

// busy is a rig whose window has a bit of everything, and that is open at the instant that it returns.
func busy(t *testing.T, change func(*breaker.Settings)) (r rig, now int64) {
	t.Helper()
	r = newRig(t, change)
	for range 12 {
		r.call(100*ms, 40*ms, breaker.Succeeded)
	}
	for range 20 {
		r.call(200*ms, 80*ms, breaker.Failed)
	}
	r.call(290*ms, 0, breaker.PoolRejected)
	r.call(300*ms, 10*ms, breaker.ClientError)
	r.call(310*ms, 5*ms, breaker.Abandoned)
	r.call(320*ms, second, breaker.TimedOut)
	for range 3 {
		r.call(1600*ms, 0, breaker.Succeeded) // refused
	}
	return r, 3 * second
}

// list is a Source of breakers that stay.
type list []Named

func (l list) Breakers(dst []Named) []Named { return append(dst, l...) }
