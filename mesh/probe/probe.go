// Package probe asks an application whether it is ready, as the agent beside it does, and makes a verdict of its answers.
//
// The application is taken for ready after so many good answers in a row, and not any more after so many bad ones
// (verdict.go); how it is asked is in ask.go. Whoever has to know is told of each change.
package probe

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Options of a Prober.
type Options struct {
	// Ready takes the application for ready until it fails: one that served requests before it had a probe.
	Ready bool
	// Exec allows probes that are commands. Where it is false they are not run, and the application counts as ready:
	// configuration must not be a way to run programs on a machine whose owner did not agree (docs/decisions/012).
	Exec bool
	// Changed is told of each change, from the goroutine of Run; nil tells nobody.
	Changed func(Change)
	// Log hears of each change, on the level of debugging where Changed does, too; slog.Default where nil.
	Log *slog.Logger
}

// Change is a change of what is known of the application.
type Change struct {
	From, To State
	Reason   string // what was wrong with the last answer; "" for a good one
}

// Prober asks one application. It is a Prometheus collector, without series while there is nothing to ask. Its methods may
// be called from any goroutine.
type Prober struct {
	o    Options
	ask  func(context.Context, *model.Probe) error
	wake chan struct{} // 1 slot: there is another probe
	once sync.Once
	told chan struct{} // closed after the first answer

	mu      sync.Mutex
	given   *model.Probe // by Configure
	probe   *model.Probe // that is asked; nil asks nothing
	verdict verdict
	reason  string    // what was wrong with the last answer; "" for a good one, and before the first
	results [2]uint64 // bad and good answers
	changes [2]uint64 // to unready and to ready
}

// New returns a Prober that asks nothing yet.
func New(o Options) *Prober {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	p := &Prober{o: o, ask: ask, wake: make(chan struct{}, 1), told: make(chan struct{})}
	if o.Ready {
		p.verdict.state = Ready
	}
	return p
}

// Configure says what is asked from now on; nil is nothing, and an application that nobody asks is ready. What is known
// stays where the question changes: it is configuration that was replaced, not the application.
func (p *Prober) Configure(probe *model.Probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reflect.DeepEqual(p.given, probe) {
		return
	}
	p.given = probe
	if probe != nil && probe.Exec != nil && !p.o.Exec {
		p.o.Log.Warn("application is not probed and counts as ready", "probe", describe(probe),
			"reason", "a command is run only by a sidecar that was started with --allow-exec-probes")
		probe = nil
	}
	p.probe = probe
	p.reason, p.verdict.run = "", 0
	if probe == nil {
		p.verdict.state = Ready
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Ready says whether the application is to get requests.
func (p *Prober) Ready() bool { return p.state() == Ready }

// Reason is what was wrong with the last answer; "" where that was good, and before the first.
func (p *Prober) Reason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reason
}

func (p *Prober) state() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.verdict.state
}

// Answered is closed once there was an answer, good or bad, and what it changed was told.
func (p *Prober) Answered() <-chan struct{} { return p.told }

// Run asks until ctx ends.
func (p *Prober) Run(ctx context.Context) {
	for ctx.Err() == nil {
		p.mu.Lock()
		probe := p.probe
		select {
		case <-p.wake: // it is for this probe
		default:
		}
		p.mu.Unlock()
		p.follow(ctx, probe)
	}
}

// follow asks one question again and again, until there is another one or ctx ends. The first comes at once, or after the
// initial delay where nothing is known; a question that takes longer than the period delays the next.
func (p *Prober) follow(ctx context.Context, probe *model.Probe) {
	if probe == nil {
		select {
		case <-ctx.Done():
		case <-p.wake:
		}
		return
	}
	if delay := probe.InitialDelay.Std(); delay > 0 && p.state() == Unknown {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			return
		case <-t.C:
		}
	}
	tick := time.NewTicker(probe.Period.Std())
	defer tick.Stop()
	for {
		p.askOnce(ctx, probe)
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			return
		case <-tick.C:
		}
	}
}

// askOnce asks, and tells what that changed.
func (p *Prober) askOnce(ctx context.Context, probe *model.Probe) {
	within, cancel := context.WithTimeout(ctx, probe.Timeout.Std())
	err := p.ask(within, probe)
	cancel()
	if ctx.Err() != nil {
		return // it was broken off
	}
	defer p.once.Do(func() { close(p.told) }) // who waits for it finds the change told
	c, changed, first := p.take(probe, err)
	if first && c.To == Unknown { // it may be long until there are enough for a verdict
		p.o.Log.Info("application is not ready yet", "reason", c.Reason)
	}
	if !changed {
		return
	}
	good, bad := slog.LevelInfo, slog.LevelWarn
	if p.o.Changed != nil { // who is told says it to people
		good, bad = slog.LevelDebug, slog.LevelDebug
	}
	if c.To == Ready {
		p.o.Log.Log(ctx, good, "application is ready", "probe", describe(probe), "before", c.From.String())
	} else {
		p.o.Log.Log(ctx, bad, "application is not ready", "reason", c.Reason, "before", c.From.String())
	}
	if p.o.Changed != nil {
		p.o.Changed(c)
	}
}

// take counts an answer to probe, unless something else is asked meanwhile. first says that it is the first bad one.
func (p *Prober) take(probe *model.Probe, err error) (c Change, changed, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probe != probe {
		return c, false, false
	}
	good := 0
	if err == nil {
		good = 1
	} else {
		c.Reason = err.Error()
	}
	p.reason = c.Reason
	p.results[good]++
	c.From = p.verdict.state
	changed = p.verdict.add(err == nil, probe.Successes, probe.Failures)
	if c.To = p.verdict.state; changed {
		p.changes[good]++
	}
	return c, changed, err != nil && p.results[good] == 1
}

var (
	descReady   = prometheus.NewDesc("outrider_probe_ready", "1 while the application passes its probe, 0 before it did and while it does not.", nil, nil)
	descResults = prometheus.NewDesc("outrider_probe_results_total", "Questions to the application, by how they were answered.", []string{"result"}, nil)
	descChanges = prometheus.NewDesc("outrider_probe_changes_total", "Times that the verdict on the application changed.", []string{"to"}, nil)
)

// Describe is part of prometheus.Collector.
func (p *Prober) Describe(ch chan<- *prometheus.Desc) {
	ch <- descReady
	ch <- descResults
	ch <- descChanges
}

// Collect is part of prometheus.Collector.
func (p *Prober) Collect(ch chan<- prometheus.Metric) {
	p.mu.Lock()
	probe, state, results, changes := p.probe, p.verdict.state, p.results, p.changes
	p.mu.Unlock()
	if probe == nil {
		return
	}
	ready := 0.0
	if state == Ready {
		ready = 1
	}
	ch <- prometheus.MustNewConstMetric(descReady, prometheus.GaugeValue, ready)
	for i, name := range []string{"failed", "passed"} {
		ch <- prometheus.MustNewConstMetric(descResults, prometheus.CounterValue, float64(results[i]), name)
	}
	for i, s := range []State{Unready, Ready} {
		ch <- prometheus.MustNewConstMetric(descChanges, prometheus.CounterValue, float64(changes[i]), s.String())
	}
}
