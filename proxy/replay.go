package proxy

import (
	"errors"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/message"
)

// keptBody is how many bytes of a streamed body are kept to be sent again, where nothing else is said.
const keptBody = 64 << 10

// replay is a request's body as attempts read it: each from the beginning, as long as all that went before is kept.
type replay struct {
	from  source
	count *telemetry.Messages // counts each gRPC message once, nil where it is not gRPC's
	most  int                 // bytes to keep
	kept  []byte
	at    int // how much of kept the attempt under way has got
	state atomic.Int32
	mark  *atomic.Uint32 // odd while more is waited for; nil where nobody wants to know
	spare *lenience      // is told of waits; nil where nobody wants to know
	pulse *pulse         // is told of each piece; nil where nobody wants to know
	ended bool           // from has nothing more
	bytes int64          // that from has given
	// copies, where there are any, get each piece once.
	copies *copies
}

// The states of a replay.
const (
	whole   int32 = iota // all that was given out is kept
	lost                 // it is not: the body cannot be sent again
	claimed              // it will be sent again, so that nothing may be given out that is not kept
)

var errClaimed = errors.New("the body is to be sent again")

// claim says whether the body can be sent again, and sees to it that it still can when the attempt under way has been ended.
func (r *replay) claim() bool {
	return r.state.CompareAndSwap(whole, claimed) || r.state.Load() == claimed
}

// Next gives what earlier attempts had already, then what comes.
func (r *replay) Next() (p []byte, end bool, err error) {
	if r.at < len(r.kept) {
		p = r.kept[r.at:]
		r.at = len(r.kept)
		return p, r.ended, nil
	}
	if r.ended {
		return nil, true, nil
	}
	if r.state.Load() == claimed {
		return nil, false, errClaimed
	}
	if p, end, err = r.from.Next(); err != nil {
		return p, end, err
	}
	r.ended = end
	r.bytes += int64(len(p))
	if r.pulse != nil && (len(p) > 0 || end) {
		r.pulse.beats.Add(1)
	}
	if r.count != nil {
		r.count.Feed(p)
	}
	if r.copies != nil {
		r.copies.add(p, end, r.from)
	}
	if len(r.kept)+len(p) > r.most && r.state.CompareAndSwap(whole, lost) {
		r.kept, r.at = r.kept[:0], 0
	}
	if r.state.Load() != lost {
		r.kept = append(r.kept, p...)
		r.at = len(r.kept)
	}
	return p, end, nil
}

// Wait waits for more.
func (r *replay) Wait() error {
	if r.at < len(r.kept) || r.ended {
		return nil
	}
	if r.spare != nil {
		r.spare.wait()
		defer r.spare.goOn()
	}
	if r.mark == nil || r.count != nil && r.count.Between() { // who has sent a whole gRPC message owes no other
		return r.from.Wait()
	}
	r.mark.Add(1)
	defer r.mark.Add(1)
	return r.from.Wait()
}

// Trailers returns the fields behind the body.
func (r *replay) Trailers() *message.Head { return r.from.Trailers() }

// rewind begins anew.
func (r *replay) rewind() {
	r.at = 0
	r.state.CompareAndSwap(claimed, whole)
}
