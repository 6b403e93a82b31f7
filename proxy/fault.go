package proxy

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/balance"
)

// million is the denominator of the shares that are drawn: percentages are exact to 0.0001 %, as Istio gives them to Envoy.
const million = 1_000_000

// share is a part of a million.
type share uint32

func shareOf(percent float64) share {
	return share(math.Round(min(max(percent, 0), 100) * million / 100))
}

// draw says whether this one belongs to the share.
func (s share) draw(r *balance.Rand) bool { return s > 0 && (s == million || r.N(million) < int(s)) }

// fault is a model.Fault with its counters.
type fault struct {
	delays, aborts share
	delay          int64 // nanoseconds
	status, grpc   int   // of the abort; grpc where status is 0
	counts         *faultCounts
}

// faultCounts count what the faults of one rule did.
type faultCounts struct{ delayed, aborted atomic.Uint64 }

func newFault(s *model.Fault, counts *faultCounts) *fault {
	f := &fault{
		delays: shareOf(s.DelayPercent), aborts: shareOf(s.AbortPercent), delay: int64(s.Delay),
		status: s.AbortStatus, grpc: s.AbortGRPC, counts: counts,
	}
	if f.delay <= 0 {
		f.delays = 0
	}
	if f.delays == 0 && f.aborts == 0 {
		return nil
	}
	return f
}

// faultText is Envoy's.
const faultText = "fault filter abort"

// inject delays the request or answers it with an error, as Envoy's fault filter does: the dice for the delay are thrown
// first, those for the abort once it is over, and the delay does not count for the route's timeout. Nothing here is seen by
// retries, breakers or outlier detection: there was no attempt. False means that the exchange has ended.
func (x *exchange) inject(f *fault) bool {
	if f.delays.draw(&x.rand) {
		f.counts.delayed.Add(1)
		x.flags |= telemetry.DI
		before := now()
		x.watch.arm(never)
		if !x.nap(time.Duration(f.delay), nil, true) {
			x.interrupted()
			return false
		}
		x.resumed = now()
		if x.deadline != never {
			x.deadline += x.resumed - before
		}
		if x.watch.arm(x.deadline) && x.watch.why() == vanished {
			x.vanish()
			return false
		}
	}
	if !f.aborts.draw(&x.rand) {
		return true
	}
	f.counts.aborted.Add(1)
	if f.status != 0 {
		x.say(faultAbort, f.status, faultText)
		return false
	}
	x.res.Reset()
	x.res.Status = 200
	if x.grpc {
		x.sayGRPC(faultAbort, f.grpc, faultText)
		return false
	}
	x.dress(faultText)
	x.conclude(faultAbort, faultText)
	return false
}
