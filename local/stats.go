package local

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/control"
)

// planeStats are the control plane's own series, and those of the process.
type planeStats struct {
	registry   *prometheus.Registry
	updates    *prometheus.CounterVec
	duration   prometheus.Histogram
	snapshots  *prometheus.CounterVec
	generation prometheus.Gauge
	objects    prometheus.Gauge
	findings   *prometheus.GaugeVec
}

func newPlaneStats(version string) *planeStats {
	s := &planeStats{
		registry: prometheus.NewRegistry(),
		updates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_control_updates_total", Help: "Changes of the objects that were worked on, by result.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "outrider_control_update_duration_seconds", Help: "Time from a change of the files to the answers of all proxies.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		snapshots: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_control_snapshots_total", Help: "Snapshots that were published, by the proxy's answer.",
		}, []string{"answer"}),
		generation: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outrider_control_generation", Help: "Number of the mesh in force, counted since the start.",
		}),
		objects: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outrider_control_objects", Help: "Objects in force.",
		}),
		findings: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_control_findings", Help: "Findings about the objects, by severity.",
		}, []string{"severity"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "outrider_build_info", Help: "Build of this program; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	s.registry.MustRegister(
		s.updates, s.duration, s.snapshots, s.generation, s.objects, s.findings, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return s
}

// update counts one change.
func (s *planeStats) update(took time.Duration, c *control.Change, err error) {
	if err != nil {
		s.updates.WithLabelValues("failed").Inc()
		return
	}
	s.updates.WithLabelValues("applied").Inc()
	s.duration.Observe(took.Seconds())
	s.answers(c)
}

// answers counts how the proxies took what was published.
func (s *planeStats) answers(c *control.Change) {
	s.snapshots.WithLabelValues("applied").Add(float64(len(c.Applied)))
	s.snapshots.WithLabelValues("refused").Add(float64(len(c.Refused)))
	s.snapshots.WithLabelValues("none").Add(float64(len(c.Pending)))
}

// hold notes what is in force.
func (s *planeStats) hold(st control.State) {
	s.generation.Set(float64(st.Generation))
	s.objects.Set(float64(len(st.Objects)))
	count := map[config.Severity]int{config.Error: 0, config.Warning: 0, config.Info: 0}
	for _, f := range st.Findings {
		count[f.Severity]++
	}
	for severity, n := range count {
		s.findings.WithLabelValues(string(severity)).Set(float64(n))
	}
}

func (s *planeStats) handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
