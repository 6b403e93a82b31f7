// Package outlier decides which hosts of a cluster are ejected for a while, as Envoy does by what Istio's outlierDetection says.
//
// A Detector watches the hosts of one cluster, as one proxy sees them. Each Host is told how each attempt with it ended;
// so many errors in a row eject it, if not too many others are. Sweep, called now and then, lets hosts return when their
// time is over, and shortens the next ejection of those that behave. Everything is a function of what was called and of
// the instants that the caller gives (nanoseconds from any fixed moment). Success rates and failure percentages, which
// Istio turns off, do not exist here.
//
// What surprises, and is meant: "in a row" is exact, one success begins the count anew; a host that may not be ejected
// because too many are has its count set to zero all the same; an ejection ends at a sweep, so it lasts up to an interval
// longer than its time; the share of ejected hosts is one of the whole cluster, whatever its priorities and localities.
package outlier

import (
	"sync"
	"sync/atomic"
	"time"
)

// Reason is what a host is ejected for.
type Reason uint8

const (
	Consecutive5xx Reason = iota
	ConsecutiveGatewayFailure
	ConsecutiveLocalOriginFailure
	ReasonCount
)

var reasonNames = [ReasonCount]string{"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure"}

// String returns the name that Envoy's statistics have for it.
func (r Reason) String() string { return reasonNames[r] }

// Action is what happened to a host.
type Action uint8

const (
	Nothing  Action = iota
	Ejected         // it is not to be picked
	Spared          // it would have been ejected, but too many are: Envoy's ejections_overflow
	Returned        // it may be picked again
)

// Change is something that happened to a host, for a log and metrics.
type Change struct {
	Host   *Host
	Action Action
	Reason Reason // where it is Ejected or Spared; of the ejection that is over where it is Returned
	At     int64

	// Time is how long the host is ejected at least; where it is Returned, how long it was.
	Time time.Duration
	// Ejections counts those of the host since it was added, this one too.
	Ejections uint64
}

// Stats are Envoy's counters of one cluster, ejections_ left out.
type Stats struct {
	Active   int // how many hosts are ejected
	Hosts    int
	Detected [ReasonCount]uint64
	Enforced [ReasonCount]uint64
	Overflow uint64 // detected, but too many were ejected
}

// Detector watches the hosts of a cluster. Its methods may be called at the same time.
type Detector struct {
	settings atomic.Pointer[rules]

	mu    sync.Mutex
	hosts []*Host
	next  int64 // when the next sweep is due
	stats Stats
}

// Host is one host of the cluster. Reports take a few atomic operations; only those that may eject it take a lock.
type Host struct {
	Key string // as Add was told

	detector                       *Detector
	ejected                        atomic.Bool
	failures, gateway, unreachable atomic.Uint32 // in a row

	// The rest is the detector's, under its lock.
	place      int // in its hosts; -1 when removed
	ejectedAt  int64
	returnedAt int64
	returned   bool // at least once
	reason     Reason
	ejections  uint64
	multiplier int64 // of the base time
}

// New returns a detector without hosts. The settings must have passed Check.
func New(s Settings, now int64) *Detector {
	d := &Detector{next: now + int64(s.Interval)}
	d.settings.Store(s.rules())
	return d
}

// Configure changes the settings, which must have passed Check. Hosts stay as they are.
func (d *Detector) Configure(s Settings, now int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s == d.settings.Load().Settings {
		return
	}
	d.settings.Store(s.rules())
	d.next = min(d.next, now+int64(s.Interval))
}

// Add puts a host into the cluster.
func (d *Detector) Add(key string) *Host {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := &Host{Key: key, detector: d, place: len(d.hosts)}
	d.hosts = append(d.hosts, h)
	return h
}

// Remove takes a host out of the cluster, for good. Late reports of it mean nothing.
func (d *Detector) Remove(h *Host) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.place < 0 {
		return
	}
	last := d.hosts[len(d.hosts)-1]
	d.hosts[h.place], last.place = last, h.place
	d.hosts[len(d.hosts)-1] = nil
	d.hosts = d.hosts[:len(d.hosts)-1]
	h.place = -1
	if h.ejected.Swap(false) {
		d.stats.Active--
	}
}

// Ejected says whether the host is not to be picked now.
func (h *Host) Ejected() bool { return h.ejected.Load() }

// Answered reports an answer's status. It returns the host's ejection, or its failed one, where that is the consequence.
func (h *Host) Answered(status int, now int64) Change {
	s := h.detector.settings.Load()
	return h.count(s, s.grade(status), now)
}

// Passed is Answered for a status that is no error, where the clock need not be asked; it does nothing and returns false where
// it is one.
func (h *Host) Passed(status int) bool {
	if g := h.detector.settings.Load().grade(status); g >= 500 && g <= 599 {
		return false
	}
	zero(&h.failures)
	zero(&h.gateway)
	return true
}

// Failed reports that the host could not be connected to, or broke off before its answer or within it. Not for what this side refused
// for a limit of its own.
func (h *Host) Failed(now int64) Change { return h.local(503, now) }

// TimedOut reports that this side gave up waiting for the connection or the answer.
func (h *Host) TimedOut(now int64) Change { return h.local(504, now) }

// Connected reports that a connection was made, or a kept one was used; it matters with Split only.
func (h *Host) Connected() { zero(&h.unreachable) }

// local counts something that this side saw.
func (h *Host) local(status int, now int64) Change {
	s := h.detector.settings.Load()
	if !s.Split {
		return h.count(s, status, now)
	}
	return h.fail(&h.unreachable, s.ConsecutiveLocalOrigin, ConsecutiveLocalOriginFailure, now)
}

// count counts a status. The gateway's comes first, so it is the reason where both are due.
func (h *Host) count(s *rules, status int, now int64) (c Change) {
	if status < 500 || status > 599 {
		zero(&h.failures)
		zero(&h.gateway)
		return c
	}
	if status >= 502 && status <= 504 {
		c = h.fail(&h.gateway, s.ConsecutiveGateway, ConsecutiveGatewayFailure, now)
	} else {
		zero(&h.gateway)
	}
	if second := h.fail(&h.failures, s.Consecutive5xx, Consecutive5xx, now); c.Action == Nothing {
		c = second
	}
	return c
}

// fail counts one more in a row; with as many as most, which may be less than before they were counted, the host is accused. 0
// accuses never.
func (h *Host) fail(row *atomic.Uint32, most uint32, r Reason, now int64) Change {
	if row.Add(1) < most || most == 0 || h.ejected.Load() {
		return Change{}
	}
	return h.detector.accuse(h, r, row, most, now)
}

// zero leaves alone what is zero already, so that hosts that answer well share their cache line.
func zero(n *atomic.Uint32) {
	if n.Load() != 0 {
		n.Store(0)
	}
}

// accuse ejects a host that failed too often in a row, unless another report of the same row did, if too many are not yet.
func (d *Detector) accuse(h *Host, r Reason, row *atomic.Uint32, most uint32, now int64) Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.place < 0 || h.ejected.Load() || row.Load() < most {
		return Change{}
	}
	s := d.settings.Load()
	d.stats.Detected[r]++
	row.Store(0)
	if 100*(d.stats.Active+1) > s.MaxEjectionPercent*len(d.hosts) && (d.stats.Active > 0 || !s.AlwaysOne) {
		d.stats.Overflow++
		return Change{Host: h, Action: Spared, Reason: r, At: now, Ejections: h.ejections}
	}
	if time.Duration(h.multiplier-1) <= (s.longest()-1)/s.BaseEjection { // a base time less is still below the longest
		h.multiplier++
	}
	h.ejections++
	h.ejectedAt, h.reason = now, r
	h.ejected.Store(true)
	d.stats.Active++
	d.stats.Enforced[r]++
	return Change{Host: h, Action: Ejected, Reason: r, At: now, Time: h.sentence(s), Ejections: h.ejections}
}

// sentence is how long the host is ejected.
func (h *Host) sentence(s *rules) time.Duration {
	if time.Duration(h.multiplier) > s.longest()/s.BaseEjection {
		return s.longest()
	}
	return time.Duration(h.multiplier) * s.BaseEjection
}

// Due returns when the next sweep is to be.
func (d *Detector) Due() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.next
}

// Sweep does nothing before Due. Then it lets those hosts return whose time is over, appending that to dst, and makes the
// next ejection shorter, by one base time a sweep, for those that have been back for an interval at least.
func (d *Detector) Sweep(dst []Change, now int64) []Change {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now < d.next {
		return dst
	}
	s := d.settings.Load()
	d.next += (1 + (now-d.next)/int64(s.Interval)) * int64(s.Interval)
	for _, h := range d.hosts {
		switch {
		case h.ejected.Load():
			if time.Duration(now-h.ejectedAt) < h.sentence(s) {
				continue
			}
			h.failures.Store(0)
			h.gateway.Store(0)
			h.unreachable.Store(0)
			h.returnedAt, h.returned = now, true
			h.ejected.Store(false)
			d.stats.Active--
			dst = append(dst, Change{Host: h, Action: Returned, Reason: h.reason, At: now, Time: time.Duration(now - h.ejectedAt), Ejections: h.ejections})
		case h.returned && time.Duration(now-h.returnedAt) >= s.Interval && h.multiplier > 0:
			h.multiplier--
		}
	}
	return dst
}

// Stats returns the counters.
func (d *Detector) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Hosts = len(d.hosts)
	return s
}

// Ejection tells what h is ejected for, and when that may end at the earliest; ok is false where it is not ejected.
func (h *Host) Ejection() (r Reason, until int64, ok bool) {
	d := h.detector
	d.mu.Lock()
	defer d.mu.Unlock()
	if !h.ejected.Load() {
		return 0, 0, false
	}
	return h.reason, h.ejectedAt + int64(h.sentence(d.settings.Load())), true
}
