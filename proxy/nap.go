package proxy

import "time"

// bell is what an exchange waits on that waits for nothing but time, or for what another one does. It is kept for the next.
type bell struct {
	wake  chan struct{} // holds one: a reason to look again why one waits
	timer *time.Timer
}

// ring lets the exchange, if it naps, look again why it does.
func (w *watch) ring() {
	if b := w.bell.Load(); b != nil {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// nap waits for d, or until done is closed (nil never is), or, where it can be spared, until the proxy drains. False means
// that the phase was ended before.
func (x *exchange) nap(d time.Duration, done <-chan struct{}, spared bool) bool {
	if x.bell == nil {
		x.bell = &bell{make(chan struct{}, 1), time.NewTimer(d)}
	} else {
		x.bell.timer.Reset(d)
	}
	w := x.watch
	w.bell.Store(x.bell)
	defer func() {
		w.bell.Store(nil)
		x.bell.timer.Stop()
	}()
	for !w.over() && !(spared && x.conn.leaving()) {
		select {
		case <-x.bell.timer.C:
			return !w.over()
		case <-done:
			return !w.over()
		case <-x.bell.wake: // perhaps for the nap before
		}
	}
	return !w.over()
}
