package proxy

import (
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/message"
)

// stats are counters of the proxy that belong to no exchange.
type stats struct {
	accepted, refused atomic.Uint64
	resent            atomic.Uint64
}

// identify finds the edge between the caller, which introduces itself in a header, and this workload. The header ends here.
func (x *exchange) identify() {
	header, ok := x.req.Get(message.XOutriderPeer)
	x.caller = x.b.inbound.HTTP(header, "")
	if ok {
		x.req.Remove(message.XOutriderPeer)
	}
}

// record tells what happened, once for each exchange, whatever happened.
func (x *exchange) record() {
	t := now()
	x.release(t)
	if x.silent {
		if x.raw {
			x.line() // a tunnel, which is counted as a connection
		}
		return
	}
	if x.grpc {
		x.tell()
	}
	h, e := x.handle(), &endings[x.outcome]
	if x.outcome > configured {
		h.Failed(e.name, e.flags|x.flags)
	}
	h.Record(&telemetry.Exchange{
		Status: x.status, GRPC: x.grpc, GRPCStatus: x.grpcStatus, Flags: e.flags | x.flags,
		Duration:     time.Duration(t - x.begin),
		RequestBytes: x.received, ResponseBytes: x.sent,
	})
	x.line()
}

// handle is the edge that the exchange counts for.
func (x *exchange) handle() *telemetry.HTTP {
	switch {
	case x.b.inbound != nil:
		if x.caller == nil { // refused before it could introduce itself
			return x.b.inbound.HTTP(nil, "")
		}
		return x.caller
	case x.member != nil && x.member.Edge != nil:
		return x.member.Edge
	case x.target != nil && x.target.cluster != nil && x.target.cluster.Unserved != nil:
		return x.target.cluster.Unserved
	case x.rule != nil && x.rule.answers != nil:
		return x.rule.answers
	case x.missed != nil:
		return x.missed
	}
	return x.b.unrouted
}
