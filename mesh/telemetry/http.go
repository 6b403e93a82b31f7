package telemetry

import (
	"strconv"
	"sync/atomic"
	"time"
)

// Exchange is what is counted of one request and its answer.
type Exchange struct {
	Status int // 100 to 999; 0 where the client vanished before it had an answer
	// GRPCStatus is the grpc-status of the answer's trailers, or where those have none, of its head (ParseGRPCStatus);
	// -1 where neither has one: then it is derived from Status, as Envoy derives it. Without GRPC it counts for nothing.
	GRPCStatus int
	Flags      Flags
	GRPC       bool // the request's content type is gRPC's (IsGRPC)
	Duration   time.Duration
	// RequestBytes and ResponseBytes are what passed on the client's connection, heads included.
	RequestBytes, ResponseBytes int64
}

// maxEndings bounds the series of one edge that are told apart exactly; beyond, statuses count as 200, 400, ... so that
// an application with a status of its own for everything cannot fill the memory of sidecar and Prometheus.
const maxEndings = 64

// ending packs what tells the series of one edge apart: status (10 bits), gRPC status + 1 (5), gRPC (1), flags.
type ending uint64

func endingOf(x *Exchange) ending {
	status := x.Status
	if status < 0 || status > 999 {
		status = 0
	}
	e := ending(status) | ending(x.Flags&(flagsEnd-1))<<16
	if !x.GRPC {
		return e
	}
	grpc := x.GRPCStatus
	switch {
	case grpc == -1 && status != 0:
		grpc = GRPCOf(status)
	case grpc < -1 || grpc > 16:
		grpc = grpcUnknown
	}
	return e | ending(grpc+1)<<10 | 1<<15
}

// coarse rounds the status to its hundred and forgets the flags.
func (e ending) coarse() ending {
	status := e & 1023
	return e&(1<<16-1)&^1023 | status/100*100
}

// labels returns request_protocol, response_code, grpc_response_status and response_flags.
func (e ending) labels() [4]string {
	l := [4]string{"http", strconv.Itoa(int(e & 1023)), "", Flags(e >> 16).String()}
	if e&(1<<15) != 0 {
		l[0] = "grpc"
	}
	if s := int(e>>10&31) - 1; s >= 0 {
		l[2] = strconv.Itoa(s)
	}
	return l
}

// series is one ending on one edge. How many exchanges it counts is how many durations it has.
type series struct {
	ending                                ending
	born                                  int64 // Unix time in nanoseconds
	duration, requestBytes, responseBytes histogram
}

// HTTP counts the exchanges of one edge. It is safe for concurrent use until it was released.
type HTTP edge

// HTTP returns the handle of an edge. Whoever calls it must call Release when done; equal edges share one handle.
func (m *Metrics) HTTP(e Edge) *HTTP {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.labels(&e)
	return (*HTTP)(m.edge(&l))
}

// Release gives a handle back. Its series stay for the time that they are retained, and go on where the edge comes back
// within it.
func (m *Metrics) Release(h *HTTP) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.release(&h.hold)
	m.sweep()
}

// Record counts one exchange that ended. It keeps nothing of x.
func (h *HTTP) Record(x *Exchange) {
	e := endingOf(x)
	s := find(known(&h.series), e)
	if s == nil {
		s = h.learn(e)
	}
	s.duration.observeTime(x.Duration)
	s.requestBytes.observeBytes(x.RequestBytes)
	s.responseBytes.observeBytes(x.ResponseBytes)
}

// learn returns the series of an ending that h has not seen, or where it has seen too many, those of its class.
func (h *HTTP) learn(e ending) *series {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := known(&h.series)
	if s := find(list, e); s != nil {
		return s
	}
	if len(list) >= maxEndings {
		h.m.statusLimit.Inc()
		e = e.coarse()
		if s := find(list, e); s != nil {
			return s
		}
	}
	s := &series{ending: e, born: h.m.clock().UnixNano()}
	extend(&h.series, s)
	return s
}

func find(list []*series, e ending) *series {
	for _, s := range list {
		if s.ending == e {
			return s
		}
	}
	return nil
}

// messages are the gRPC messages of one edge.
type messages struct {
	born              int64 // Unix time in nanoseconds
	request, response atomic.Uint64
}

// Messages counts gRPC messages that passed since it was last called for the same exchange: every five seconds while a
// stream is open and once when it ends, also where there were none, as Istio reports them. Istio's message counters have
// none of the labels that only an end decides, nor connection_security_policy and request_protocol.
func (h *HTTP) Messages(request, response int64) {
	c := h.messages.Load()
	if c == nil {
		c = &messages{born: h.m.clock().UnixNano()}
		if !h.messages.CompareAndSwap(nil, c) {
			c = h.messages.Load()
		}
	}
	if request > 0 {
		c.request.Add(uint64(request))
	}
	if response > 0 {
		c.response.Add(uint64(response))
	}
}
