package breaker

import "sync/atomic"

// Verdict is what Admit says.
type Verdict uint8

const (
	Admitted  Verdict = iota // execute
	Refused                  // the breaker is open: SHORT_CIRCUITED
	Throttled                // too many executions run already: SEMAPHORE_REJECTED
)

// Grant is what Fallback says.
type Grant uint8

const (
	FallbackGranted   Grant = iota // run the fallback, then report with EndFallback
	FallbackThrottled              // too many fallbacks run already: answer with the error
	FallbackOff                    // fallback.enabled is false: answer with the error
	FallbackUncalled               // there is nothing to fall back from, or the fallback was asked for before
)

// Ticket is one command's way through a breaker, from Admit to Close. It belongs to one exchange, which keeps it in
// place and may use it again once it is closed and no call on it is under way. End, Fallback, EndFallback and Close may be
// called at the same time, so that a timer may race with an answer: the first End and the first Close count, later ones
// do nothing. The zero ticket is a closed one, on which all methods do nothing.
type Ticket struct {
	breaker *Breaker
	state   atomic.Uint32 // the events so far, and the marks below
	probe   uint64        // the number of the probe that it is; 0 for none
	begun   int64
	limit   int64        // the execution's timeout in nanoseconds; 0 for none
	ended   atomic.Int64 // when the execution ended, once it did
}

// The marks stand above the events in a ticket's state.
const (
	isOpen     uint32 = 1 << (31 - iota) // Admit was called, Close was not
	isAdmitted                           // counted as active
	isFalling                            // counted as a running fallback, until it ends
)

// Admit asks whether to execute, and opens the ticket, whatever it says: close it at the end. A ticket that is still
// open from an earlier command is closed first.
func (b *Breaker) Admit(t *Ticket, now int64) Verdict {
	if t.state.Load() != 0 {
		t.Close(now)
	}
	b.mu.Lock()
	b.advance(now)
	ok, probe := b.admits(now)
	state, verdict := isOpen, Admitted
	t.breaker, t.begun, t.probe, t.limit = b, now, 0, 0
	if t.ended.Load() != 0 {
		t.ended.Store(0)
	}
	switch s := &b.settings; {
	case !ok:
		state |= 1 << ShortCircuited
		verdict = Refused
	case s.Strategy == Semaphore && b.active >= s.MaxConcurrent:
		state |= 1 << SemaphoreRejected
		verdict = Throttled
	default:
		state |= isAdmitted
		b.active++
		b.rolling.running.peak = max(b.rolling.running.peak, uint32(b.active))
		if probe {
			t.probe = b.send(now)
		}
		if s.TimeoutEnabled {
			t.limit = int64(s.Timeout)
		}
	}
	t.state.Store(state)
	b.mu.Unlock()
	return verdict
}

// Deadline returns the instant at which the execution has to be given up and End(TimedOut) be called, or ok false where
// it may take as long as it likes.
func (t *Ticket) Deadline() (at int64, ok bool) { return t.begun + t.limit, t.limit != 0 }

// End reports how the execution ended, and says whether this was the first report. A probe's end changes the breaker's
// state at once; counted is it by Close.
func (t *Ticket) End(o Outcome, now int64) bool {
	if !t.mark(isOpen|isAdmitted, uint32(decided), 1<<o.event()) {
		return false
	}
	t.ended.Store(now)
	if t.probe != 0 {
		b := t.breaker
		b.mu.Lock()
		b.advance(now)
		b.settle(t.probe, o, now)
		b.mu.Unlock()
	}
	return true
}

// Fallback asks whether the fallback may be run, after Admit refused or an End that reported an error. Do not ask where
// no fallback is configured: Close counts that.
func (t *Ticket) Fallback() Grant {
	s := t.state.Load()
	if s&isOpen == 0 || s&uint32(wanting) == 0 || s&(uint32(fallen)|isFalling) != 0 {
		return FallbackUncalled
	}
	b := t.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.settings.FallbackEnabled:
		return t.fall(1<<FallbackDisabled, FallbackOff)
	case b.falling >= b.settings.FallbackMaxConcurrent:
		return t.fall(1<<FallbackRejection, FallbackThrottled)
	}
	g := t.fall(isFalling, FallbackGranted)
	if g == FallbackGranted {
		b.falling++
	}
	return g
}

// fall marks the fallback's beginning or end, unless another call did.
func (t *Ticket) fall(mark uint32, g Grant) Grant {
	if !t.mark(isOpen, uint32(fallen)|isFalling, mark) {
		return FallbackUncalled
	}
	return g
}

// EndFallback reports how the fallback ended that was granted.
func (t *Ticket) EndFallback(ok bool) {
	e := FallbackFailure
	if ok {
		e = FallbackSuccess
	}
	t.mark(isOpen|isFalling, uint32(fallen), 1<<e)
}

// mark adds to the state if it has all of must and none of not.
func (t *Ticket) mark(must, not, add uint32) bool {
	for {
		s := t.state.Load()
		if s&must != must || s&not != 0 {
			return false
		}
		if t.state.CompareAndSwap(s, s|add) {
			return true
		}
	}
}

// Close ends the command: what it holds is given back and its events are counted. Call it on every way out. An
// execution, or a fallback, that was not reported counts as cancelled; an error for which no fallback was asked counts
// as one without.
func (t *Ticket) Close(now int64) { t.close(0, now) }

// Finish is End, where it did not come before, and Close in one.
func (t *Ticket) Finish(o Outcome, now int64) { t.close(1<<o.event(), now) }

// close is Close; end is how the execution ended where End did not say.
func (t *Ticket) close(end uint32, now int64) {
	s := t.state.Swap(0)
	if s&isOpen == 0 {
		return
	}
	ended := t.ended.Load()
	if ended == 0 {
		ended = now
	}
	if s&uint32(decided) == 0 {
		s |= end
	}
	b := t.breaker
	b.mu.Lock()
	b.advance(now)
	if t.probe != 0 {
		b.settle(t.probe, outcomeOf(events(s)), now) // where End did not, or is about to
	}
	e := b.complete(events(s&(1<<EventCount-1)), s&isFalling != 0)
	if s&isFalling != 0 {
		b.falling--
	}
	if s&isAdmitted != 0 {
		b.active--
		ran, took := max(0, ended-t.begun), max(0, now-t.begun)
		b.samples.add(ran, took)
		in := bucketOf(took)
		b.took.add(in, took)
		if ran != took {
			in = bucketOf(ran)
		}
		b.ran.add(in, ran)
	}
	if e&(harmful|healthy) != 0 {
		b.health.running.total++
	}
	if e&harmful != 0 {
		b.health.running.errors++
	}
	b.rolling.add(e)
	b.mu.Unlock()
}

// complete adds the event of a command's end where it has none.
func (b *Breaker) complete(e events, falling bool) events {
	switch {
	case e&terminal != 0:
	case falling || e&decided == 0:
		e |= set(Cancelled)
	case b.settings.FallbackEnabled:
		e |= set(FallbackMissing)
	default:
		e |= set(FallbackDisabled)
	}
	return e
}

func outcomeOf(e events) Outcome {
	for o := Succeeded; o <= PoolRejected; o++ {
		if e.has(o.event()) {
			return o
		}
	}
	return Abandoned
}
