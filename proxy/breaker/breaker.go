// Package breaker decides, as Hystrix 1.5.12 does, whether a request may go to its target, from how the latest ones ended.
//
// A Breaker stands before one target. A request asks it with Admit, which opens a Ticket; the ticket takes the
// execution's Outcome with End, may ask for a fallback, and is closed, always, with Close. Everything is a function of
// what was called and of the instants that the caller gives (nanoseconds from any fixed moment): there is no clock, no
// timer and no goroutine in here.
//
// The rules are Hystrix's. The health of a target is what happened in a rolling window of buckets, one for each health
// snapshot; when a bucket is complete and the window has seen enough requests of which enough were errors, the breaker
// opens. It refuses for the sleep window, then lets one probe through, whose end closes or opens it. A closing breaker
// forgets its health. Permits bound the executions, and the fallbacks, that run at once; what they refuse is an error
// too. All of a command's events are counted when it is closed, after its fallback.
//
// It differs from Hystrix where Hystrix is wrong, each with a test:
//   - Only the probe's own ticket ends the half-open state. There, the late success of a request from before closes it.
//   - A probe that is given up, or that nobody ever reports, gives the probe back. There, it keeps the breaker
//     half-open for ever.
//   - A probe needs a permit: without one, the breaker stays open as it was. There, it is half-open for ever.
//   - A probe that ends in the client's own error proves the target alive and closes the breaker. There, it opens it.
//   - Percentages are integers: 29 of 100 is 29. There, it is 28.
//   - A fallback that is disabled is counted as such. There, it is not counted at all.
//   - Opening, closing and restarting the window are one step. There, a snapshot in the middle of closing leaves a
//     breaker that says it is open, admits everything and never changes again.
package breaker

import "sync"

// Breaker decides for one target. Its methods may be called at the same time; each takes one short lock.
type Breaker struct {
	mu       sync.Mutex
	settings Settings
	next     int64 // no window has anything to complete before
	health   health
	rolling  rolling
	samples  samples
	ran      Histogram // of what samples keeps for a while, for ever
	took     Histogram
	active   int // commands that were admitted and are not closed
	falling  int // fallbacks that run

	stored   State  // Closed, Open or HalfOpen, whatever the settings force
	openedAt int64  // where stored is Open: when the sleep window began
	probe    uint64 // where stored is HalfOpen: the number of the probe
	probes   uint64 // how many there were
	probedAt int64  // when the last of them was admitted
	since    int64  // of the state as seen
	history  history
}

// New returns a closed breaker whose windows begin now. The settings must have passed Check.
func New(s Settings, now int64) *Breaker {
	b := &Breaker{settings: s, since: now}
	b.shape(Settings{}, now)
	return b
}

// Configure changes the settings, which must have passed Check. The state, the counts and what is running are kept; a
// window whose length or buckets changed begins anew. A disabled breaker is closed, and begins closed when it is
// enabled again.
func (b *Breaker) Configure(s Settings, now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s == b.settings {
		return
	}
	b.advance(now)
	old, from := b.settings, b.state()
	b.settings = s
	if !s.Enabled {
		b.stored, b.probe = Closed, 0
	}
	b.shape(old, now)
	b.changed(from, Transition{Reason: Reconfigured, At: now})
}

// shape makes the windows that differ from the old settings'.
func (b *Breaker) shape(old Settings, now int64) {
	s := &b.settings
	if s.RollingWindow != old.RollingWindow || s.HealthInterval != old.HealthInterval {
		b.health = newHealth(int64(s.HealthInterval), int(s.RollingWindow/s.HealthInterval), now)
	}
	if s.RollingWindow != old.RollingWindow || s.RollingBuckets != old.RollingBuckets {
		ever := b.rolling.ever
		for e, n := range b.rolling.running.counts {
			ever[e] += uint64(n)
		}
		b.rolling = newRolling(int64(s.RollingWindow)/int64(s.RollingBuckets), s.RollingBuckets, now)
		b.rolling.ever = ever
	}
	if s.PercentileEnabled != old.PercentileEnabled || s.PercentileWindow != old.PercentileWindow ||
		s.PercentileBuckets != old.PercentileBuckets || s.PercentileBucketSize != old.PercentileBucketSize {
		b.samples = samples{}
		if s.PercentileEnabled {
			b.samples = newSamples(int64(s.PercentileWindow)/int64(s.PercentileBuckets), s.PercentileBuckets, s.PercentileBucketSize, now)
		}
	}
	b.due()
}

// due says when advance has something to do next.
func (b *Breaker) due() {
	b.next = min(b.health.next, b.rolling.next)
	if b.samples.values != nil {
		b.next = min(b.next, b.samples.next)
	}
}

// advance completes the buckets that ended at or before now, and judges at the end of each health snapshot, as Hystrix's
// timer would have done.
func (b *Breaker) advance(now int64) {
	if now < b.next {
		return
	}
	for now >= b.health.next {
		at := b.health.next
		b.health.turn()
		b.judge(at)
		b.health.skip(now)
	}
	b.rolling.advance(now)
	b.samples.advance(now)
	b.due()
}

// judge opens a closed breaker whose window holds too many errors.
func (b *Breaker) judge(at int64) {
	s, h := &b.settings, b.health.sum
	if b.stored != Closed || !s.Enabled || h.total < uint64(s.RequestVolumeThreshold) || h.percentage() < s.ErrorThresholdPercentage {
		return
	}
	from := b.state()
	b.stored, b.openedAt = Open, at
	b.changed(from, Transition{Reason: ErrorThreshold, At: at, Requests: h.total, Errors: h.errors})
}

// state is what is done with requests: the stored state, or what the settings make of it.
func (b *Breaker) state() State {
	switch s := &b.settings; {
	case !s.Enabled:
		return Disabled
	case s.ForceOpen:
		return ForcedOpen
	case s.ForceClosed:
		return ForcedClosed
	}
	return b.stored
}

// changed remembers a transition where there is one to be seen.
func (b *Breaker) changed(from State, t Transition) {
	t.From, t.To = from, b.state()
	if t.From != t.To {
		b.since = t.At
		b.history.add(t)
	} else if t.Reason == ProbeOverdue {
		b.history.add(t)
	}
}

// Tick judges the health snapshots that are due, although nothing is asked, and appends the transitions since the last
// Tick to dst, the oldest first: at most 32, the latest ones, where more happened (Snapshot counts all of them). Call it
// about as often as transitions should be logged; nothing else depends on it.
func (b *Breaker) Tick(dst []Transition, now int64) []Transition {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(now)
	return b.history.drain(dst)
}

// admits decides about a request by the state; due says that it is to be the probe.
func (b *Breaker) admits(now int64) (ok, due bool) {
	switch b.state() {
	case ForcedOpen:
		return false, false
	case Open:
		due = now > b.openedAt+int64(b.settings.SleepWindow)
		return due, due
	case HalfOpen:
		due = now > b.probedAt+b.patience()
		return due, due
	}
	return true, false
}

// patience is how long a probe may run before another is sent: as long as an execution may run, but at least one sleep window.
func (b *Breaker) patience() int64 {
	d := b.settings.SleepWindow
	if b.settings.TimeoutEnabled {
		d = max(d, b.settings.Timeout)
	}
	return int64(d)
}

// send makes the next request the probe and returns its number.
func (b *Breaker) send(now int64) uint64 {
	from, reason := b.state(), SleepWindowOver
	if b.stored == HalfOpen {
		reason = ProbeOverdue
	}
	b.probes++
	b.stored, b.probe, b.probedAt = HalfOpen, b.probes, now
	b.changed(from, Transition{Reason: reason, At: now})
	return b.probe
}

// settle ends the half-open state by the outcome of its probe. Any other ticket's outcome means nothing to it.
func (b *Breaker) settle(probe uint64, o Outcome, now int64) {
	if b.stored != HalfOpen || b.probe != probe {
		return
	}
	from := b.state()
	b.probe = 0
	if o == Succeeded || o == ClientError {
		b.stored = Closed
		b.health.restart(now)
		b.due()
		b.changed(from, Transition{Reason: ProbeSucceeded, At: now})
		return
	}
	b.stored, b.openedAt = Open, now
	b.changed(from, Transition{Reason: endOfProbe[o], At: now})
}

var endOfProbe = [...]Reason{Abandoned: ProbeAbandoned, Failed: ProbeFailed, TimedOut: ProbeTimedOut, PoolRejected: ProbeRejected}
