package telemetry

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Exchange is what is counted of one request and its answer.
type Exchange struct {
	Status     int // 100 to 999; 0 where the client vanished before it had an answer
	GRPCStatus int // 0 to 16; -1 where there is none
	Flags      Flags
	GRPC       bool // the request's content type is application/grpc
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
	status, grpc := x.Status, x.GRPCStatus
	if status < 0 || status > 999 {
		status = 0
	}
	switch {
	case grpc < -1 || grpc > 16:
		grpc = 2 // as gRPC's libraries read a status that is none: UNKNOWN
	case !x.GRPC:
		grpc = -1
	}
	e := ending(status) | ending(grpc+1)<<10 | ending(x.Flags&(flagsEnd-1))<<16
	if x.GRPC {
		e |= 1 << 15
	}
	return e
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

// series are the four instruments of one ending on one edge.
type series struct {
	ending                                ending
	requests                              prometheus.Counter
	duration, requestBytes, responseBytes prometheus.Observer
}

// HTTP counts the exchanges of one edge. It is safe for concurrent use until it was released.
type HTTP struct {
	hold
	m      *Metrics
	labels edgeLabels
	// claimed says that the edge came from what a client said of itself; guarded by m.mu.
	claimed bool

	// known is replaced, never changed: most edges know two or three endings, and scanning them is cheaper than a map.
	known atomic.Pointer[[]*series]
	mu    sync.Mutex // guards the replacement of known, and dropped
	// dropped says that the series are gone: what a late exchange records is seen by nobody.
	dropped bool
}

// HTTP returns the handle of an edge. Whoever calls it must call Release when done; equal edges share one handle.
func (m *Metrics) HTTP(e Edge) *HTTP {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.http(m.labels(&e))
}

// http takes the handle of those labels; m.mu is held.
func (m *Metrics) http(l edgeLabels) *HTTP {
	m.sweep()
	h, ok := m.edges[l]
	if !ok {
		h = &HTTP{m: m, labels: l}
		h.known.Store(new([]*series))
		m.edges[l] = h
	}
	m.take(&h.hold, !ok)
	return h
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
	for _, s := range *h.known.Load() {
		if s.ending == e {
			s.record(x)
			return
		}
	}
	h.learn(e).record(x)
}

func (s *series) record(x *Exchange) {
	s.requests.Inc()
	s.duration.Observe(float64(x.Duration) / float64(time.Millisecond))
	s.requestBytes.Observe(float64(x.RequestBytes))
	s.responseBytes.Observe(float64(x.ResponseBytes))
}

// learn returns the series of an ending that h has not seen, or where it has seen too many, those of its class.
func (h *HTTP) learn(e ending) *series {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := *h.known.Load()
	if s := find(known, e); s != nil {
		return s
	}
	if len(known) >= maxEndings {
		h.m.statusLimit.Inc()
		e = e.coarse()
		if s := find(known, e); s != nil {
			return s
		}
	}
	if h.dropped {
		return h.m.nowhere
	}
	values := h.values(e)
	s := &series{
		ending:        e,
		requests:      h.m.requests.WithLabelValues(values...),
		duration:      h.m.duration.WithLabelValues(values...),
		requestBytes:  h.m.requestBytes.WithLabelValues(values...),
		responseBytes: h.m.responseBytes.WithLabelValues(values...),
	}
	more := append(known[:len(known):len(known)], s)
	h.known.Store(&more)
	return s
}

func find(known []*series, e ending) *series {
	for _, s := range known {
		if s.ending == e {
			return s
		}
	}
	return nil
}

// drop deletes all series of h.
func (h *HTTP) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped = true
	for _, s := range *h.known.Load() {
		values := h.values(s.ending)
		h.m.requests.DeleteLabelValues(values...)
		h.m.duration.DeleteLabelValues(values...)
		h.m.requestBytes.DeleteLabelValues(values...)
		h.m.responseBytes.DeleteLabelValues(values...)
	}
}

// values are those of all labels, in the order of labelNames.
func (h *HTTP) values(e ending) []string {
	own := e.labels()
	return append(append(make([]string, 0, len(labelNames)), h.labels[:]...), own[:]...)
}
