package telemetry

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// upstreamLabels are the labels that an endpoint of a cluster decides: those of upstreamNames but the last.
type upstreamLabels [4]string

var upstreamNames = []string{"destination_service", "port", "subset", "endpoint", "response_code"}

// answers counts one status of one endpoint.
type answers struct {
	status int
	born   int64 // Unix time in nanoseconds
	count  atomic.Uint64
}

// Upstream counts the attempts that one endpoint was sent. It is safe for concurrent use until it was released.
type Upstream struct {
	hold
	m      *Metrics
	labels upstreamLabels

	answers atomic.Pointer[[]*answers] // replaced, never changed
	mu      sync.Mutex                 // guards the replacement
}

// Upstream returns the handle of an endpoint ("host:port") of a service's port and subset. Whoever calls it must call
// ReleaseUpstream when done; equal arguments share one handle.
func (m *Metrics) Upstream(service model.Service, port int, subset, endpoint string) *Upstream {
	l := upstreamLabels{or(service.Host, or(service.Name, unknown)), "", subset, endpoint}
	if port != 0 { // passed through: whatever port the request names
		l[1] = strconv.Itoa(port)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	u, ok := m.endpoints[l]
	if !ok {
		u = &Upstream{m: m, labels: l}
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
	for _, a := range known(&u.answers) {
		if a.status == status {
			a.count.Add(1)
			return
		}
	}
	u.learn(status).count.Add(1)
}

func (u *Upstream) learn(status int) *answers {
	if status < 0 || status > 999 {
		status = 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	list := known(&u.answers)
	if len(list) >= maxEndings {
		u.m.statusLimit.Inc()
		status = status / 100 * 100
	}
	for _, a := range list {
		if a.status == status {
			return a
		}
	}
	a := &answers{status: status, born: u.m.clock().UnixNano()}
	extend(&u.answers, a)
	return a
}
