// Package telemetry counts what a sidecar does: metric families, their labels, and one Record per exchange.
//
// Handles (HTTP, TCP, Upstream, Inbound) are resolved when a generation is built and released when it retires; on a
// request's way there is neither a label lookup nor an allocation. Each sidecar has its own registry, because one
// process may run many.
package telemetry

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Options shape the metrics of one sidecar. The zero Options are those of production, without process metrics.
type Options struct {
	// Version is the build's version, for istio_build and outrider_build_info; empty is "unknown".
	Version string
	// Principal is the sidecar's own SPIFFE id, with its scheme; empty where it has no identity.
	Principal string
	// Process adds the Go runtime's and the process's own metrics. One sidecar of a process may have them.
	Process bool
	// Retain is how long the series of a released handle stay; 0 is 5 minutes.
	Retain time.Duration
	// MaxPeers bounds the peers that are told apart by what their headers say, over all inbound services; 0 is 1000.
	MaxPeers int
	// Clock is time.Now where nil.
	Clock func() time.Time
	// Log hears what goes wrong while metrics are written; nil is slog.Default.
	Log *slog.Logger
}

// Metrics holds the metric families of one sidecar. It is safe for concurrent use.
type Metrics struct {
	registry  *prometheus.Registry
	self      model.Peer
	principal string
	retain    time.Duration
	maxPeers  int
	clock     func() time.Time
	log       *slog.Logger

	families    families
	connections connections
	born        int64 // Unix time in nanoseconds

	generation  prometheus.Gauge
	applied     prometheus.Gauge
	rejected    prometheus.Counter
	version     *prometheus.GaugeVec
	overflow    *prometheus.CounterVec
	peerLimit   prometheus.Counter
	statusLimit prometheus.Counter

	mu        sync.Mutex
	edges     map[edgeLabels]*edge
	endpoints map[upstreamLabels]*Upstream
	failures  map[failureLabels]*failures
	released  int // edges and endpoints that nobody holds
	peers     int // claimed edges
}

// New returns the metrics of the sidecar of self.
func New(self model.Peer, o Options) *Metrics {
	if o.Version == "" {
		o.Version = unknown
	}
	if o.Retain == 0 {
		o.Retain = 5 * time.Minute
	}
	if o.MaxPeers == 0 {
		o.MaxPeers = 1000
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(), self: self, principal: o.Principal,
		retain: o.Retain, maxPeers: o.MaxPeers, clock: o.Clock, log: o.Log,
		families: newFamilies(), born: o.Clock().UnixNano(),
		edges: map[edgeLabels]*edge{}, endpoints: map[upstreamLabels]*Upstream{}, failures: map[failureLabels]*failures{},
	}
	m.own()
	m.registry.MustRegister(m, m.generation, m.applied, m.rejected, m.version, m.overflow)
	m.registry.MustRegister(constant("istio_build", "Build of an Istio component; always 1.",
		prometheus.Labels{"component": "proxy", "tag": o.Version}))
	m.registry.MustRegister(constant("outrider_build_info", "Build of this proxy; always 1.",
		prometheus.Labels{"version": o.Version, "goversion": runtime.Version()}))
	if o.Process {
		m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	return m
}

// own makes the metrics of the sidecar itself.
func (m *Metrics) own() {
	m.generation = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "outrider_config_generation", Help: "Configurations applied since the start; the running one's number.",
	})
	m.applied = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "outrider_config_last_apply_success", Help: "Whether the configuration that came last was applied (1) or refused (0).",
	})
	m.rejected = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "outrider_config_rejected_total", Help: "Configurations that were refused.",
	})
	m.version = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "outrider_config_info", Help: "Version of the running configuration; always 1.",
	}, []string{"version"})
	m.overflow = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outrider_metrics_overflow_total", Help: "Requests counted under less exact labels, because a limit of series was reached.",
	}, []string{"limit"})
	m.peerLimit, m.statusLimit = m.overflow.WithLabelValues("peers"), m.overflow.WithLabelValues("statuses")
}

func constant(name, help string, labels prometheus.Labels) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
	g.Set(1)
	return g
}

// Gatherer gives all families of this sidecar.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Register adds a collector of the proxy's own (pools, active requests). It fails where a name is there already.
func (m *Metrics) Register(c prometheus.Collector) error {
	if err := m.registry.Register(c); err != nil {
		return fmt.Errorf("cannot register metrics: %w", err)
	}
	return nil
}

// scrapeLog lets promhttp write to slog.
type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) {
	l.log.Error("cannot write metrics", "reason", fmt.Sprint(v...))
}

// Generation notes that the configuration of that version was applied (ok) or refused.
func (m *Metrics) Generation(version string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ok {
		m.applied.Set(0)
		m.rejected.Inc()
		return
	}
	m.applied.Set(1)
	m.generation.Inc()
	m.version.Reset()
	m.version.WithLabelValues(version).Set(1)
}

// hold counts who uses a handle; m.mu guards it.
type hold struct {
	users int
	since time.Time // when the last user released it
}

// take adds a user to a handle that is in one of m's maps; m.mu is held.
func (m *Metrics) take(h *hold, fresh bool) {
	if h.users == 0 && !fresh {
		m.released--
	}
	h.users++
}

// release takes a user away; m.mu is held.
func (m *Metrics) release(h *hold) {
	if h.users == 0 {
		panic("telemetry: a handle is released more often than it was taken")
	}
	h.users--
	if h.users == 0 {
		h.since = m.clock()
		m.released++
	}
}

// sweep drops the handles that nobody held for the time that they are retained, and so their series; what ends later
// counts in a handle that no scrape sees. m.mu is held.
func (m *Metrics) sweep() {
	if m.released == 0 {
		return
	}
	now := m.clock()
	for k, e := range m.edges {
		if e.users == 0 && now.Sub(e.since) >= m.retain {
			delete(m.edges, k)
			m.forget(e.failures)
			m.released--
			if e.claimed {
				m.peers--
			}
		}
	}
	for k, u := range m.endpoints {
		if u.users == 0 && now.Sub(u.since) >= m.retain {
			delete(m.endpoints, k)
			m.released--
		}
	}
}
