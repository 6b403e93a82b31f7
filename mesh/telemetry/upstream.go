package telemetry

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// upstreamLabels are the labels that an endpoint of a cluster decides.
type upstreamLabels struct {
	service, port, subset, endpoint string
}

// answers is the counter of one status of one endpoint.
type answers struct {
	status  int
	counter prometheus.Counter
}

// Upstream counts the attempts that one endpoint was sent. It is safe for concurrent use until it was released.
type Upstream struct {
	hold
	m      *Metrics
	labels upstreamLabels

	known   atomic.Pointer[[]answers] // replaced, never changed
	mu      sync.Mutex                // guards the replacement of known, and dropped
	dropped bool
}

// Upstream returns the handle of an endpoint ("host:port") of a service's port and subset. Whoever calls it must call
// ReleaseUpstream when done; equal arguments share one handle.
func (m *Metrics) Upstream(service model.Service, port int, subset, endpoint string) *Upstream {
	l := upstreamLabels{or(service.Host, or(service.Name, unknown)), "", subset, endpoint}
	if port != 0 { // passed through: whatever port the request names
		l.port = strconv.Itoa(port)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	u, ok := m.endpoints[l]
	if !ok {
		u = &Upstream{m: m, labels: l}
		u.known.Store(new([]answers))
		m.endpoints[l] = u
	}
	m.take(&u.hold, !ok)
	return u
}

// ReleaseUpstream gives a handle back; see Release.
func (m *Metrics) ReleaseUpstream(u *Upstream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.release(&u.hold)
	m.sweep()
}

// Record counts one attempt by the status of its answer; 0 where none came.
func (u *Upstream) Record(status int) {
	for _, a := range *u.known.Load() {
		if a.status == status {
			a.counter.Inc()
			return
		}
	}
	u.learn(status).Inc()
}

func (u *Upstream) learn(status int) prometheus.Counter {
	if status < 0 || status > 999 {
		status = 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	known := *u.known.Load()
	if len(known) >= maxEndings {
		u.m.statusLimit.Inc()
		status = status / 100 * 100
	}
	for _, a := range known {
		if a.status == status {
			return a.counter
		}
	}
	if u.dropped {
		return u.m.nowhere.requests
	}
	a := answers{status, u.m.upstreams.WithLabelValues(u.values(status)...)}
	more := append(known[:len(known):len(known)], a)
	u.known.Store(&more)
	return a.counter
}

// drop deletes all series of u.
func (u *Upstream) drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dropped = true
	for _, a := range *u.known.Load() {
		u.m.upstreams.DeleteLabelValues(u.values(a.status)...)
	}
}

func (u *Upstream) values(status int) []string {
	return []string{u.labels.service, u.labels.port, u.labels.subset, u.labels.endpoint, strconv.Itoa(status)}
}
