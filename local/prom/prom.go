// Package prom runs Prometheus's own scraper, store and query engine inside the process, with its HTTP API.
package prom

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// Options shape a Prometheus.
type Options struct {
	// Dir keeps the samples; they are there again after a restart, for 15 days. Empty is a temporary directory that
	// Close removes, with 6 hours and at most 512 MB of finished blocks.
	Dir string
	// Interval is how often each target is scraped, and the longest that a scrape may take; 0 is 1 s, the least 10 ms.
	Interval time.Duration
	// Log hears warnings and errors of Prometheus's parts; nil is slog.Default.
	Log *slog.Logger
}

// Prometheus scrapes, stores and answers queries. It is safe for concurrent use.
type Prometheus struct {
	log       *slog.Logger
	db        *tsdb.DB
	engine    *promql.Engine
	parser    parser.Parser
	scraper   *scrape.Manager
	scrapes   *prometheus.Registry // the scraper's own metrics
	temporary string               // what Close removes

	sets   chan map[string][]*targetgroup.Group
	wake   chan struct{} // 1 slot: wanted changed
	cancel context.CancelFunc
	work   sync.WaitGroup
	closed atomic.Bool

	mu      sync.Mutex
	wanted  []Target
	version uint64        // of wanted
	applied uint64        // the version that the scraper works on
	changed chan struct{} // closed and replaced when applied changes
}

// pool is the one scrape configuration that all targets are in; a target's job is a label.
const pool = "outrider"

// reloadInterval is how often the scraper looks for new targets.
const reloadInterval = 50 * time.Millisecond

// Open starts a Prometheus without targets. It fails where Dir cannot be written or another process uses it.
func Open(o Options) (_ *Prometheus, err error) {
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	if o.Interval < 10*time.Millisecond {
		return nil, fmt.Errorf("cannot scrape every %s: the least is 10ms", o.Interval)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	p := &Prometheus{
		log: slog.New(warnings{o.Log.Handler()}), parser: parser.NewParser(parser.Options{}),
		scrapes: prometheus.NewRegistry(), sets: make(chan map[string][]*targetgroup.Group),
		wake: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	if o.Dir == "" {
		if p.temporary, err = os.MkdirTemp("", "outrider-prometheus-"); err != nil {
			return nil, fmt.Errorf("cannot make a directory for metrics: %w", err)
		}
	}
	if err := p.start(o); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Prometheus) start(o Options) error {
	dir, options := o.Dir, storeOptions(o.Dir == "")
	if dir == "" {
		dir = p.temporary
	}
	db, err := tsdb.Open(dir, p.log, nil, options, nil)
	if err != nil {
		return fmt.Errorf("cannot open the metrics in %s: %w", dir, err)
	}
	p.db = db
	p.engine = promql.NewEngine(promql.EngineOpts{
		Logger: p.log, MaxSamples: 50_000_000, Timeout: 2 * time.Minute, LookbackDelta: 5 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return o.Interval.Milliseconds() },
		EnableAtModifier:         true, EnableNegativeOffset: true, EnablePerStepStats: true, Parser: p.parser,
	})
	scraper, err := scrape.NewManager(&scrape.Options{
		DiscoveryReloadInterval: model.Duration(reloadInterval), DiscoveryReloadOnStartup: true,
	}, p.log, nil, nil, &ordered{AppendableV2: db}, p.scrapes)
	if err != nil {
		return fmt.Errorf("cannot make a scraper: %w", err)
	}
	every := model.Duration(o.Interval).String()
	// On one machine compression costs more than it saves.
	c, err := config.Load(fmt.Sprintf(`
global: {scrape_interval: %[1]s, scrape_timeout: %[1]s, evaluation_interval: %[1]s}
scrape_configs:
- {job_name: %[2]s, enable_compression: false, fallback_scrape_protocol: PrometheusText0.0.4}
`, every, pool), p.log)
	if err != nil {
		return fmt.Errorf("cannot configure the scraper: %w", err)
	}
	if err := scraper.ApplyConfig(c); err != nil {
		return fmt.Errorf("cannot configure the scraper: %w", err)
	}
	p.scraper = scraper
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.work.Go(func() { _ = scraper.Run(p.sets) }) // ends by Stop, and knows no error
	p.work.Go(func() { p.feed(ctx) })
	return nil
}

func storeOptions(temporary bool) *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.StripeSize = 1 << 10 // the mesh of one machine has no millions of series, and 16 times that costs memory at once
	o.EnableExemplarStorage, o.MaxExemplars = true, 10_000
	if !temporary {
		// A clock that was put back must not cost the samples until it has caught up.
		o.OutOfOrderTimeWindow = (10 * time.Minute).Milliseconds()
		return o
	}
	o.WALSegmentSize = -1 // nobody reads it again
	o.MinBlockDuration = (30 * time.Minute).Milliseconds()
	o.MaxBlockDuration = (90 * time.Minute).Milliseconds()
	o.RetentionDuration = (6 * time.Hour).Milliseconds()
	o.MaxBytes = 512 << 20
	return o
}

// Close ends scrapes and queries under way, and removes what is temporary. It can be called twice.
func (p *Prometheus) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	if p.scraper != nil {
		p.cancel()
		// The feed goes first, in step with the scraper: a set of targets that is still on its way when the scraper
		// stops could start scrapes that nobody ends.
		p.work.Wait()
	}
	var errs []error
	if p.engine != nil {
		errs = append(errs, p.engine.Close())
	}
	if p.db != nil {
		errs = append(errs, p.db.Close())
	}
	if p.temporary != "" {
		errs = append(errs, os.RemoveAll(p.temporary))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot close the metrics: %w", err)
	}
	return nil
}

// SetTargets makes ts the targets, whatever they were before. Series of targets that are gone are marked stale within
// three intervals. A target that cannot be scraped for its address or labels is logged and left out. It does not wait;
// Sync does.
func (p *Prometheus) SetTargets(ts []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.EqualFunc(ts, p.wanted, Target.equal) {
		return
	}
	p.wanted = make([]Target, len(ts))
	for i, t := range ts {
		if err := t.check(); err != nil {
			p.log.Error("a target is left out", "target", t.Address, "reason", err)
		}
		t.Labels = maps.Clone(t.Labels)
		p.wanted[i] = t
	}
	p.version++
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// feed hands the newest targets to the scraper, one set at a time, until ctx ends; then it stops the scraper.
func (p *Prometheus) feed(ctx context.Context) {
	defer p.scraper.Stop()
	p.apply(nil)
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		p.mu.Lock()
		targets, version := p.wanted, p.version
		p.mu.Unlock()
		p.apply(targets)
		p.mu.Lock()
		p.applied = version
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// apply returns when the scraper works on ts.
func (p *Prometheus) apply(ts []Target) {
	before := p.reloads()
	p.sets <- map[string][]*targetgroup.Group{pool: groups(ts)}
	look := time.NewTicker(reloadInterval / 5)
	defer look.Stop()
	for p.reloads() == before {
		<-look.C
	}
}

// reloads counts how often the scraper took over a set of targets.
func (p *Prometheus) reloads() float64 {
	families, err := p.scrapes.Gather()
	if err != nil {
		p.log.Error("cannot read the scraper's own metrics", "reason", err)
	}
	for _, f := range families {
		if f.GetName() == "prometheus_target_scrape_pool_sync_total" && len(f.Metric) == 1 {
			return f.Metric[0].Counter.GetValue()
		}
	}
	return 0
}

// Sync returns when each target was scraped once more, beginning after now, and the samples can be queried; a scrape that
// failed counts, as it sets up to 0. It sees the targets of every SetTargets that returned before it was called.
func (p *Prometheus) Sync(ctx context.Context) error {
	// The scraper rounds the time of a scrape to its interval by up to scrape.ScrapeTimestampTolerance (2 ms).
	since := time.Now().Add(scrape.ScrapeTimestampTolerance + time.Millisecond)
	if err := p.awaitTargets(ctx); err != nil {
		return err
	}
	look := time.NewTicker(reloadInterval / 2)
	defer look.Stop()
	for {
		if p.closed.Load() {
			return errors.New("cannot see new scrapes: closed")
		}
		missing, err := p.unscraped(ctx, since)
		if err != nil {
			return fmt.Errorf("cannot see new scrapes: %w", err)
		}
		if missing == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot see a new scrape of %s: %w", missing.URL(), ctx.Err())
		case <-look.C:
		}
	}
}

func (p *Prometheus) awaitTargets(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for wanted := p.version; p.applied < wanted; {
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
		p.mu.Lock()
		if ctx.Err() != nil {
			return fmt.Errorf("cannot wait for the new targets: %w", ctx.Err())
		}
	}
	return nil
}

// unscraped returns a target that has no sample since then.
func (p *Prometheus) unscraped(ctx context.Context, since time.Time) (*scrape.Target, error) {
	q, err := p.db.Querier(since.UnixMilli(), time.Now().Add(time.Second).UnixMilli())
	if err != nil {
		return nil, err
	}
	defer func() { _ = q.Close() }() // it only read
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, t := range p.scraper.TargetsActive()[pool] {
		matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, "up")}
		t.Labels(b).Range(func(l labels.Label) {
			matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
		})
		if found, err := hasSample(q.Select(ctx, false, nil, matchers...)); !found || err != nil {
			return t, err
		}
	}
	return nil, nil
}

func hasSample(set storage.SeriesSet) (bool, error) {
	found := false
	for set.Next() {
		it := set.At().Iterator(nil)
		found = found || it.Next() != 0
		if err := it.Err(); err != nil {
			return false, err
		}
	}
	return found, set.Err()
}

// Sample is one element of a query's result.
type Sample struct {
	Labels map[string]string
	Value  float64
	Time   time.Time
}

// Query evaluates a PromQL expression at one moment (the zero time is now). The expression gives a vector, or a scalar,
// which is one Sample without labels; a native histogram in the result is an error.
func (p *Prometheus) Query(ctx context.Context, expression string, at time.Time) ([]Sample, error) {
	if p.closed.Load() {
		return nil, errors.New("cannot query: closed")
	}
	if at.IsZero() {
		at = time.Now()
	}
	q, err := p.engine.NewInstantQuery(ctx, p.db, nil, expression, at)
	if err != nil {
		return nil, fmt.Errorf("cannot query %q: %w", expression, err)
	}
	defer q.Close()
	r := q.Exec(ctx)
	if r.Err != nil {
		return nil, fmt.Errorf("cannot query %q: %w", expression, r.Err)
	}
	switch v := r.Value.(type) {
	case promql.Scalar:
		return []Sample{{Value: v.V, Time: time.UnixMilli(v.T)}}, nil
	case promql.Vector:
		samples := make([]Sample, 0, len(v))
		for _, s := range v {
			if s.H != nil {
				return nil, fmt.Errorf("cannot query %q: %s is a native histogram, not a number", expression, s.Metric)
			}
			samples = append(samples, Sample{s.Metric.Map(), s.F, time.UnixMilli(s.T)})
		}
		return samples, nil
	default:
		return nil, fmt.Errorf("cannot query %q: it gives a %s, not a vector or scalar", expression, r.Value.Type())
	}
}

// warnings passes records of level warning and above: what Prometheus's parts say of their daily work is of no use here.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

func (w warnings) WithAttrs(as []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(as)} }

func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }
