package proxy

// hold is what an exchange waits on that waits for nothing but time.
type hold struct{ wake chan struct{} }

// end lets who waits look again why it does; one who does not wait will look once more the next time.
func (h *hold) end() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// hasten ends the hold of an exchange whose connection is to end.
func (w *watch) hasten() {
	if h := w.hold.Load(); h != nil {
		h.end()
	}
}

// hold waits until that instant, or until the proxy drains: then the rest of the wait is spared. False means that the
// client has gone. It is the sweeper that ends the wait, so it may take a fine tick longer, and starts no timer. The phase
// before ends with it: the exchange has to arm its deadline again.
func (x *exchange) hold(until int64) bool {
	if x.resting == nil {
		x.resting = &hold{make(chan struct{}, 1)}
	}
	w := x.watch
	w.hold.Store(x.resting)
	defer w.hold.Store(nil)
	if x.stream == nil {
		w.waiting.Store(now())
	}
	for t := now(); t < until && !x.conn.leaving(); t = now() {
		next := until
		if until-t > int64(fineBelow) {
			next -= int64(fineBelow) / 2 // the coarse tick does up to there
		} else if !x.hurried {
			x.hurried = true
			x.conn.proxy.conns.hurry()
		}
		if w.arm(next) && w.why() == vanished {
			return false
		}
		<-x.resting.wake
		if w.over() && w.why() == vanished {
			return false
		}
	}
	return true
}
