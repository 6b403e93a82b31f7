package telemetry

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// failureNames are the labels of outrider_request_failures_total; a service decides the first two.
var failureNames = []string{"reporter", "destination_service", "reason", "response_flags"}

// maxFailures bounds the series of one service that have their flags; beyond, flags are forgotten. Reasons are the proxy's
// outcomes, of which there are a few dozen.
const maxFailures = 256

// failureLabels are the labels that edges share which lead to one service.
type failureLabels [2]string

// failure is one way in which requests to a service ended.
type failure struct {
	reason string
	flags  Flags
	born   int64 // Unix time in nanoseconds
	count  atomic.Uint64
}

// failures counts what did not go well of one service, seen from one side. All edges to the service share it, and it
// lasts as long as the last of them.
type failures struct {
	m      *Metrics
	labels failureLabels
	edges  int // guarded by m.mu

	list atomic.Pointer[[]*failure] // replaced, never changed
	mu   sync.Mutex                 // guards the replacement
}

// failing takes the failures of an edge's service; m.mu is held.
func (m *Metrics) failing(l *edgeLabels) *failures {
	key := failureLabels{l[0], l[17]}
	f := m.failures[key]
	if f == nil {
		f = &failures{m: m, labels: key}
		m.failures[key] = f
	}
	f.edges++
	return f
}

// forget gives the failures of an edge back that is gone; m.mu is held.
func (m *Metrics) forget(f *failures) {
	if f.edges--; f.edges == 0 {
		delete(m.failures, f.labels)
	}
}

// Failed counts an exchange that ended for a reason, which must be one of a fixed set of names.
func (h *HTTP) Failed(reason string, flags Flags) { h.failures.add(reason, flags) }

// Failed counts a connection that ended for a reason, which must be one of a fixed set of names.
func (t *TCP) Failed(reason string, flags Flags) { t.failures.add(reason, flags) }

func (f *failures) add(reason string, flags Flags) {
	flags &= flagsEnd - 1
	known := f.find(reason, flags)
	if known == nil {
		known = f.learn(reason, flags)
	}
	known.count.Add(1)
}

func (f *failures) find(reason string, flags Flags) *failure {
	for _, one := range known(&f.list) {
		if one.flags == flags && one.reason == reason {
			return one
		}
	}
	return nil
}

// learn returns the counter of a reason that f has not seen with these flags, or where it has seen too many, that without.
func (f *failures) learn(reason string, flags Flags) *failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(known(&f.list)) >= maxFailures {
		f.m.statusLimit.Inc()
		flags = 0
	}
	if one := f.find(reason, flags); one != nil {
		return one
	}
	one := &failure{reason: reason, flags: flags, born: f.m.clock().UnixNano()}
	extend(&f.list, one)
	return one
}

func (f *failures) collect(c chan<- prometheus.Metric) {
	family := f.m.families.failures
	shared := pairs(failureNames[:len(f.labels)], f.labels[:])
	for _, one := range known(&f.list) {
		own := []string{one.reason, one.flags.String()}
		l := family.sorted(shared, pairs(failureNames[len(f.labels):], own))
		c <- family.counter(l, created(one.born), one.count.Load())
	}
}
