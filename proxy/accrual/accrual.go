// Package accrual decides which endpoints rest after failures in a row, or too many of them, as Linkerd's failure accrual does.
//
// An Endpoint that fails so often in a row, without a success between, or, where that is asked for, too large a share of its
// requests within a window, rests for a penalty; then one real request finds out whether it is back. Each probe that fails makes the next rest longer. Everything is a function of what was called and of
// the instants and the randomness that the caller gives: there is no clock in here.
package accrual

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Settings are those of Linkerd's annotations balancer.linkerd.io/failure-accrual-consecutive-*, and of
// balancer.alpha.linkerd.io/failure-accrual-success-rate-* for the rate.
type Settings struct {
	MaxFailures uint32        // failures in a row that make an endpoint rest; default 7; 0 is none, for a Rate
	MinPenalty  time.Duration // of the first rest; default 1 s; 0 lets the probe come at once, each time
	MaxPenalty  time.Duration // no rest is longer; default 1 min
	Jitter      float64       // a random share of the penalty, from 0 to this, is added, up to MaxPenalty; 0 to 100, default 0.5
	Rate        *Rate         // nil for the mode consecutive
}

// Rate is what the mode unified adds: answers of 429 and RESOURCE_EXHAUSTED, successes otherwise, count against an endpoint.
type Rate struct {
	Threshold   float64       // an endpoint with a smaller share of successes rests; 0 to 1, 0 is none; default 0.8
	Window      time.Duration // what is counted, in ten steps; default 10 s, at least 10 ms
	MinRequests uint32        // fewer are not judged; default 5, at most 1e6
}

func (r *Rate) check() error {
	switch {
	case !(r.Threshold >= 0 && r.Threshold <= 1):
		return fmt.Errorf("success-rate-threshold is %v; must be from 0 to 1", r.Threshold)
	case r.Window < 10*time.Millisecond:
		return fmt.Errorf("success-rate-window is %v; must be at least 10ms", r.Window)
	case r.MinRequests > 1_000_000:
		return fmt.Errorf("success-rate-min-requests is %d; must be at most 1000000", r.MinRequests)
	}
	return nil
}

// Check says what is wrong with the settings, naming the annotation's last part, or nil.
func (s *Settings) Check() error {
	switch {
	case s.Rate != nil && s.Rate.check() != nil:
		return s.Rate.check()
	case s.MaxFailures == 0 && (s.Rate == nil || s.Rate.Threshold == 0):
		return fmt.Errorf("max-failures is 0; must be at least 1")
	case s.MinPenalty < 0 || s.MaxPenalty <= 0 || s.MaxPenalty < s.MinPenalty:
		return fmt.Errorf("min-penalty %v and max-penalty %v; the second must be above 0 and not below the first", s.MinPenalty, s.MaxPenalty)
	case !(s.Jitter >= 0 && s.Jitter <= 100):
		return fmt.Errorf("jitter-ratio is %v; must be from 0 to 100", s.Jitter)
	}
	return nil
}

// State is where an endpoint is in its course.
type State int32

// The states.
const (
	Serving   State = iota // it is picked
	Resting                // it is not to be picked before its penalty is over
	Probation              // the next request that is sent to it will be the probe
	Probing                // the probe is on its way; it is not to be picked
)

// String returns the state's name as metrics and logs write it.
func (s State) String() string {
	return [...]string{"serving", "resting", "probation", "probing"}[s]
}

// Endpoint is one endpoint's course. Reports of an endpoint that serves take an atomic operation or two.
type Endpoint struct {
	state    atomic.Int32
	failures atomic.Uint32 // in a row
	rated    atomic.Bool   // settings.Rate is there

	mu       sync.Mutex
	settings Settings
	until    int64 // the end of the penalty
	rests    int   // in a row
	window   window
}

// New returns an endpoint that serves. The settings must have passed Check.
func New(s Settings) *Endpoint {
	e := &Endpoint{}
	e.Configure(s)
	return e
}

// Configure changes the settings, which must have passed Check; the next failure is judged by them.
func (e *Endpoint) Configure(s Settings) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.Rate == nil || e.settings.Rate == nil || s.Rate.Window != e.settings.Rate.Window {
		e.window = window{}
	}
	e.settings = s
	e.rated.Store(s.Rate != nil)
}

// State returns where the endpoint is.
func (e *Endpoint) State() State { return State(e.state.Load()) }

// Down says whether the endpoint is not to be picked.
func (e *Endpoint) Down() bool {
	s := e.State()
	return s == Resting || s == Probing
}

// Until returns the instant at which the penalty is over, of an endpoint that rests.
func (e *Endpoint) Until() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.until
}

// Enter says whether a request that was given to the endpoint is the probe: then its end is to be told with probe set, or
// with Abandon.
func (e *Endpoint) Enter() (probe bool) {
	return e.State() == Probation && e.state.CompareAndSwap(int32(Probation), int32(Probing))
}

// Succeeded reports a success. It returns true where the endpoint serves again for it.
func (e *Endpoint) Succeeded(probe bool, now int64) (changed bool) {
	if probe {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.rests, e.window = 0, window{}
		e.failures.Store(0)
		e.state.Store(int32(Serving))
		return true
	}
	if e.failures.Load() != 0 {
		e.failures.Store(0)
	}
	if e.rated.Load() && e.State() == Serving {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.window.count(e.settings.Rate, now, false)
	}
	return false
}

// Limited reports an answer that the endpoint was asked too much: a success, which ends a row of failures, but for a Rate, for which
// it is a failure. Otherwise as Failed.
func (e *Endpoint) Limited(probe bool, now int64, random float64) (changed bool) {
	if !e.rated.Load() {
		return e.Succeeded(probe, now)
	}
	if !probe && e.failures.Load() != 0 {
		e.failures.Store(0)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !probe && (e.State() != Serving || !e.window.count(e.settings.Rate, now, true)) {
		return false
	}
	e.rest(now, random)
	return true
}

// Failed reports a failure; random is uniform in [0, 1). It returns true where the endpoint begins to rest. What requests
// from before tell while it rests already does not count.
func (e *Endpoint) Failed(probe bool, now int64, random float64) (changed bool) {
	if !probe && e.State() != Serving {
		return false
	}
	n := e.failures.Add(1)
	e.mu.Lock()
	defer e.mu.Unlock()
	if !probe {
		if e.State() != Serving {
			return false
		}
		low := e.window.count(e.settings.Rate, now, true)
		if !low && (e.settings.MaxFailures == 0 || n < e.settings.MaxFailures) {
			return false
		}
	}
	e.rest(now, random)
	return true
}

// rest begins a penalty; mu is held.
func (e *Endpoint) rest(now int64, random float64) {
	e.until = now + int64(e.penalty(random))
	e.rests++
	e.state.Store(int32(Resting))
}

// penalty doubles with each rest in a row.
func (e *Endpoint) penalty(random float64) time.Duration {
	s := &e.settings
	base := s.MaxPenalty
	if e.rests < 40 || s.MinPenalty == 0 {
		if p := s.MinPenalty << e.rests; p >= 0 && p>>e.rests == s.MinPenalty {
			base = min(p, s.MaxPenalty)
		}
	}
	if p := float64(base) + float64(base)*s.Jitter*random; p < float64(s.MaxPenalty) {
		return time.Duration(p)
	}
	return s.MaxPenalty
}

// Abandon gives the probe back: nobody knows how it would have ended.
func (e *Endpoint) Abandon() { e.state.CompareAndSwap(int32(Probing), int32(Probation)) }

// Sweep lets an endpoint whose penalty is over have its probe. It returns true where that has changed.
func (e *Endpoint) Sweep(now int64) (changed bool) {
	if e.State() != Resting {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.State() != Resting || now < e.until {
		return false
	}
	e.state.Store(int32(Probation))
	return true
}
