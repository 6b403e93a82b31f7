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

// The sweeper comes in time for busy phases, and asks for no clock of idle ones.
func TestCheckTellsWhatIsDue(t *testing.T) {
	w := &watch{client: nobody{}}
	f := func(name string, want int64, begin func()) {
		t.Helper()
		begin()
		if got := w.check(100); got != want {
			t.Errorf("%s: due at %d, want %d", name, got, want)
		}
	}
	f("busy", 250, func() { w.arm(250) })
	f("busy for ever", never, func() { w.arm(never) })
	f("idle", never, func() { w.rest(250) })
	f("over", 100, func() { w.arm(100) })
	if !w.over() {
		t.Error("what was due has not ended")
	}
	f("over before", never, func() {})
}

// A timeout that the coarse tick sees in time costs an exchange nothing: neither it nor the sweeper hurries.
func TestLongTimeoutsDoNotHurry(t *testing.T) {
	o := newSlow(t)
	s := guarded(busySnapshot(o.address()))
	p := start(t, s, Limits{})
	c := dial(t, p, "outbound")
	c.send(get("/held"))
	o.sees("/held")
	if n := p.conns.fine.Load(); n != 0 {
		t.Errorf("%d exchanges hurry", n)
	}
	o.release("/held")
	if got := c.read("GET"); got.status != 200 {
		t.Errorf("%+v", got)
	}
}
