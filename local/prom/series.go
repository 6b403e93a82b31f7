package prom

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

func (p *Prometheus) series(r *http.Request) answer {
	if len(r.Form["match[]"]) == 0 {
		return fail(badData, errors.New("no match[] parameter provided"))
	}
	s, failed := p.selectionOf(r)
	if failed != nil {
		return answer{failed: failed}
	}
	q, err := p.db.Querier(timestamp.FromTime(s.start), timestamp.FromTime(s.end))
	if err != nil {
		return failedBy(err)
	}
	defer func() { _ = q.Close() }() // it only read

	hints := &storage.SelectHints{
		Start: timestamp.FromTime(s.start), End: timestamp.FromTime(s.end), Limit: s.hint(),
		Func: "series", // tells the store that no samples are needed
	}
	sets := make([]storage.SeriesSet, 0, len(s.matchers))
	for _, m := range s.matchers {
		sets = append(sets, q.Select(r.Context(), true, hints, m...)) // sorted, as merging needs it
	}
	set := sets[0]
	if len(sets) > 1 {
		set = storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	}
	found, warnings := []labels.Labels{}, annotations.New()
	for set.Next() {
		if err := r.Context().Err(); err != nil {
			return failedBy(err)
		}
		if s.limit > 0 && len(found) == s.limit {
			warnings.Add(errTruncated)
			break
		}
		found = append(found, set.At().Labels())
	}
	if err := set.Err(); err != nil {
		return failedBy(err)
	}
	warnings.Merge(set.Warnings())
	return answer{data: found, warnings: *warnings}
}

func (p *Prometheus) labelNames(r *http.Request) answer {
	return p.union(r, func(ctx context.Context, q storage.Querier, h *storage.LabelHints, ms []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelNames(ctx, h, ms...)
	})
}

func (p *Prometheus) labelValues(r *http.Request) answer {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return fail(badData, fmt.Errorf("invalid label name: %q", name))
	}
	return p.union(r, func(ctx context.Context, q storage.Querier, h *storage.LabelHints, ms []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(ctx, name, h, ms...)
	})
}

// union gives, in order and each once, what ask finds for any of the request's selectors.
func (p *Prometheus) union(r *http.Request, ask func(context.Context, storage.Querier, *storage.LabelHints, []*labels.Matcher) ([]string, annotations.Annotations, error)) answer {
	s, failed := p.selectionOf(r)
	if failed != nil {
		return answer{failed: failed}
	}
	q, err := p.db.Querier(timestamp.FromTime(s.start), timestamp.FromTime(s.end))
	if err != nil {
		return failedBy(err)
	}
	defer func() { _ = q.Close() }() // it only read

	if len(s.matchers) == 0 {
		s.matchers = [][]*labels.Matcher{nil}
	}
	found, warnings := map[string]bool{}, annotations.New()
	for _, ms := range s.matchers {
		some, w, err := ask(r.Context(), q, &storage.LabelHints{Limit: s.hint()}, ms)
		if err != nil {
			return failedBy(err)
		}
		warnings.Merge(w)
		for _, v := range some {
			found[v] = true
		}
	}
	all := slices.AppendSeq(make([]string, 0, len(found)), maps.Keys(found))
	slices.Sort(all)
	if s.limit > 0 && len(all) > s.limit {
		all = all[:s.limit]
		warnings.Add(errTruncated)
	}
	return answer{data: all, warnings: *warnings}
}

func (p *Prometheus) metadata(r *http.Request) answer {
	limit, perMetric := -1, -1
	for name, n := range map[string]*int{"limit": &limit, "limit_per_metric": &perMetric} {
		if s := r.FormValue(name); s != "" {
			var err error
			if *n, err = strconv.Atoi(s); err != nil {
				return fail(badData, fmt.Errorf("%s must be a number", name))
			}
		}
	}
	found := map[string][]metadata.Metadata{}
	add := func(m scrape.MetricMetadata) {
		known := found[m.MetricFamily]
		one := metadata.Metadata{Type: m.Type, Unit: m.Unit, Help: m.Help}
		switch {
		case slices.Contains(known, one), perMetric > 0 && len(known) >= perMetric:
		case known == nil && limit >= 0 && len(found) >= limit:
		default:
			found[m.MetricFamily] = append(known, one)
		}
	}
	metric := r.FormValue("metric")
	for _, t := range p.scraper.TargetsActive()[pool] {
		if metric == "" {
			for _, m := range t.ListMetadata() {
				add(m)
			}
		} else if m, ok := t.GetMetadata(metric); ok {
			add(m)
		}
	}
	return answer{data: found}
}

// target is one entry of targets, with Prometheus's field names.
type target struct {
	DiscoveredLabels   labels.Labels       `json:"discoveredLabels"`
	Labels             labels.Labels       `json:"labels"`
	ScrapePool         string              `json:"scrapePool"`
	ScrapeURL          string              `json:"scrapeUrl"`
	GlobalURL          string              `json:"globalUrl"`
	LastError          string              `json:"lastError"`
	LastScrape         time.Time           `json:"lastScrape"`
	LastScrapeDuration float64             `json:"lastScrapeDuration"`
	Health             scrape.TargetHealth `json:"health"`
	ScrapeInterval     string              `json:"scrapeInterval"`
	ScrapeTimeout      string              `json:"scrapeTimeout"`
}

// targets never has dropped targets, as nothing here is relabelled.
func (p *Prometheus) targets(r *http.Request) answer {
	active := []target{}
	state := strings.ToLower(r.FormValue("state"))
	wanted := (state == "" || state == "any" || state == "active") &&
		(r.FormValue("scrapePool") == "" || r.FormValue("scrapePool") == pool)
	if wanted {
		b := labels.NewBuilder(labels.EmptyLabels())
		for _, t := range p.scraper.TargetsActive()[pool] {
			one := target{
				DiscoveredLabels: t.DiscoveredLabels(b), Labels: t.Labels(b),
				ScrapePool: pool, ScrapeURL: t.URL().String(), GlobalURL: t.URL().String(),
				LastScrape: t.LastScrape(), LastScrapeDuration: t.LastScrapeDuration().Seconds(), Health: t.Health(),
				ScrapeInterval: t.GetValue(model.ScrapeIntervalLabel), ScrapeTimeout: t.GetValue(model.ScrapeTimeoutLabel),
			}
			if err := t.LastError(); err != nil {
				one.LastError = err.Error()
			}
			active = append(active, one)
		}
		slices.SortFunc(active, func(a, b target) int { return strings.Compare(a.ScrapeURL, b.ScrapeURL) })
	}
	return answer{data: map[string]any{
		"activeTargets": active, "droppedTargets": []any{}, "droppedTargetCounts": map[string]int{pool: 0},
	}}
}
