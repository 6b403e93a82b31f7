package proxy

import (
	"sync"
	"sync/atomic"
	"testing"
)

// A phase that begins while the one before is being ended waits for that to be done: the interruption is not for it.
func TestGuardInterruptsNoLaterPhase(t *testing.T) {
	var g guard
	g.rest(100)
	var interrupted atomic.Bool
	firing, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		g.fire(100|idleBit, expired, func() {
			close(firing)
			<-release
			interrupted.Store(true)
		})
	})
	<-firing
	wg.Go(func() {
		if !g.arm(200) {
			t.Error("the end of the phase before was not seen")
		}
		if !interrupted.Load() {
			t.Error("the next phase began before the interruption of the one before")
		}
	})
	close(release)
	wg.Wait()
}

// Only an idle phase can be retired, and only the phase that was there when its end was decided.
func TestGuardRetiresIdlePhasesOnly(t *testing.T) {
	f := func(name string, want bool, begin func(g *guard)) {
		t.Helper()
		var g guard
		begin(&g)
		got := false
		g.retire(func() { got = true })
		if got != want || g.over() != want {
			t.Errorf("%s: retired %t, over %t", name, got, g.over())
		}
	}
	f("idle", true, func(g *guard) { g.rest(100) })
	f("idle, odd", true, func(g *guard) { g.rest(101) })
	f("busy", false, func(g *guard) { g.arm(101) })
	f("busy for ever", false, func(g *guard) { g.arm(never) })
	var g guard
	g.arm(never)
	g.fire(100, expired, func() { t.Error("another phase was ended") })
	g.fire(never, vanished, func() {})
	if !g.over() || g.why() != vanished {
		t.Error("not over")
	}
	g.retire(func() { t.Error("ended twice") })
	if !g.rest(7) || g.over() {
		t.Error("the end of the phase was not seen")
	}
}
