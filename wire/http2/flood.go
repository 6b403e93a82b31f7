package http2

import "sync/atomic"

// Limits on what a peer may make us do for nothing. Each of those with a period counts from any moment on, so that up
// to twice as many frames may come within it; reaching one ends the connection with ENHANCE_YOUR_CALM.
const (
	// period is what the limits of frequency are counted over, in nanoseconds.
	period = int64(30e9)
	// maxResets is how many streams a client may reset, or make us reset for its errors, before it is answered, in one
	// period: unless that is less than half of all that it opened.
	maxResets = 200
	// maxContinuations is how many frames one header block may have besides the first.
	maxContinuations = 16
	// maxPings is how many PING frames may come in one period besides one for each DATA frame either way: gRPC measures
	// with them while data flows.
	maxPings = 1000
	// maxSettings and maxPriorities are how many such frames may come in one period, a priority for each stream besides.
	maxSettings   = 100
	maxPriorities = 1000
	// maxWindows is how many WINDOW_UPDATE frames may come in one period besides four for each DATA frame that we sent.
	maxWindows = 5000
	// maxEmpties is how many frames without content, of unknown type, for streams that are gone, or that open more streams
	// than there may be, can come in one period; besides one for each stream.
	maxEmpties = 2000
	// maxInterims is how many interim responses one request may get.
	maxInterims = 100
	// maxUnread is how many frames that answer a frame may wait to be flushed.
	maxUnread = 4000
	// maxPendingFactor is how much may wait to be flushed at all, in units of Options.WriteBuffer: heads, which no window holds back.
	maxPendingFactor = 8
)

// limit is one of the limits, as an index of its counter.
type limit uint8

const (
	limitNone limit = iota
	limitHeads
	limitRefused
	limitResets
	limitContinuations
	limitPings
	limitSettings
	limitPriorities
	limitWindows
	limitEmpties
	limitInterims
	limitUnread
	limits
)

func (s *Stats) of(l limit) *atomic.Uint64 {
	return [limits]*atomic.Uint64{
		nil, &s.Heads, &s.Refused, &s.Resets, &s.Continuations, &s.Pings, &s.Settings, &s.Priorities, &s.Windows, &s.Empties,
		&s.Interims, &s.Unread,
	}[l]
}

// count counts that a limit has acted, if e is about one.
func (c *Conn) count(e *Error) {
	if e.limit != limitNone {
		c.o.Stats.of(e.limit).Add(1)
	}
}

// tally counts one kind of frame in periods.
type tally struct {
	n     int
	since int64
}

// over counts one more, and says whether that is more than most in a period. The clock is asked only at the limit.
func (t *tally) over(c *Conn, most int) bool {
	if t.n++; t.n <= most {
		return false
	}
	if now := c.o.Now(); now-t.since >= period {
		t.n, t.since = 1, now
		return false
	}
	return true
}

// tallies are the reader's counts.
type tallies struct {
	resets, pings, settings, priorities, windows, empties tally
	opened                                                int    // streams that the client opened in the period of resets
	dataSent                                              uint64 // what Conn.dataSent was when the period of windows began
	data, dataSeen                                        uint64 // DATA frames that came; those and those sent, when the period of pings began
}

// start begins the first period.
func (t *tallies) start(now int64) {
	for _, k := range []*tally{&t.resets, &t.pings, &t.settings, &t.priorities, &t.windows, &t.empties} {
		k.since = now
	}
}

// reset counts a stream that came to nothing by the client's doing.
func (c *Conn) reset() *Error {
	t := &c.tallies.resets
	if t.n++; t.n < maxResets {
		return nil
	}
	now := c.o.Now()
	if now-t.since < period && 2*t.n >= c.tallies.opened {
		return errResets
	}
	if now-t.since >= period {
		t.n, t.since, c.tallies.opened = 0, now, 0
	}
	return nil
}

// update counts a WINDOW_UPDATE frame; sent is how many DATA frames we have sent so far.
func (c *Conn) update(sent uint64) *Error {
	t := &c.tallies.windows
	if t.over(c, maxWindows+4*int(sent-c.tallies.dataSent)) {
		return errWindows
	}
	if t.n == 1 {
		c.tallies.dataSent = sent
	}
	return nil
}

// pinged counts a PING frame; sent is as in update.
func (c *Conn) pinged(sent uint64) *Error {
	t := &c.tallies.pings
	flowed := c.tallies.data + sent
	if t.over(c, maxPings+int(flowed-c.tallies.dataSeen)) {
		return errPings
	}
	if t.n == 1 {
		c.tallies.dataSeen = flowed
	}
	return nil
}

// earn counts a stream that was opened or answered: a few frames without content are in order then.
func (t *tallies) earn() {
	t.opened++
	t.priorities.n = max(0, t.priorities.n-1)
	t.empties.n = max(0, t.empties.n-1)
}

// empty counts a frame without content.
func (c *Conn) empty() *Error {
	if c.tallies.empties.over(c, maxEmpties) {
		return errEmpties
	}
	return nil
}
