package proxy

import "sync/atomic"

// pulse is how an exchange moves whose route bounds how long nothing may pass: each piece of a message is a beat, and the
// sweeper finds out how long there was none. Linkerd's idle timeout; its answer is that of its other timeouts.
type pulse struct {
	limit atomic.Int64 // nanoseconds; 0 is none
	beats atomic.Uint32
	quiet stay // the sweeper's
}

func (p *pulse) begin(limit int64) {
	p.beats.Add(1)
	p.limit.Store(limit)
}

// end costs a load where there is no limit.
func (p *pulse) end() {
	if p.limit.Load() != 0 {
		p.limit.Store(0)
	}
}

// still says at t whether nothing has passed for too long.
func (p *pulse) still(t int64) bool { return p.quiet.lasts(p.beats.Load(), t) >= p.limit.Load() }

// beat is when that will be, for the sweeper, if nothing passes until then.
func (p *pulse) beat() int64 {
	limit := p.limit.Load()
	if limit == 0 {
		return never
	}
	return p.quiet.since + limit
}

// idled says whether that is what ended the exchange's phase. What follows, its answer, has a time of its own.
func (x *exchange) idled() bool {
	if x.watch.limit.Load() == 0 || !x.watch.over() || x.watch.why() != stilled {
		return false
	}
	x.watch.pulse.end()
	return true
}

// heard is an answer's body whose pieces are beats.
type heard struct {
	source
	pulse *pulse
}

// Next counts what it gives.
func (h *heard) Next() (p []byte, end bool, err error) {
	if p, end, err = h.source.Next(); len(p) > 0 || end {
		h.pulse.beats.Add(1)
	}
	return p, end, err
}
