package prom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
)

// Error types of Prometheus's HTTP API, and the status of each.
const (
	badData     = "bad_data"
	execution   = "execution"
	timeout     = "timeout"
	canceled    = "canceled"
	internal    = "internal"
	notFound    = "not_found"
	unavailable = "unavailable"
)

var errorStatus = map[string]int{
	badData: 400, execution: 422, timeout: 503, canceled: 499, internal: 500, notFound: 404, unavailable: 503,
}

// failure is an answer that is an error.
type failure struct {
	kind string
	err  error
}

// answer is what a handler gives: data, which json.Marshal encodes, or a failure.
type answer struct {
	data     any
	warnings annotations.Annotations
	failed   *failure
}

func fail(kind string, err error) answer { return answer{failed: &failure{kind, err}} }

func badParameter(name string, err error) answer {
	return fail(badData, fmt.Errorf("invalid parameter %q: %w", name, err))
}

// failedBy sorts an error of engine or store.
func failedBy(err error) answer {
	var (
		wasCanceled promql.ErrQueryCanceled
		timedOut    promql.ErrQueryTimeout
		ofStorage   promql.ErrStorage
	)
	switch {
	case errors.As(err, &wasCanceled), errors.Is(err, context.Canceled):
		return fail(canceled, err)
	case errors.As(err, &timedOut):
		return fail(timeout, err)
	case errors.As(err, &ofStorage):
		return fail(internal, err)
	}
	return fail(execution, err)
}

// Handler serves Prometheus's HTTP API v1 below /api/v1/: query, query_range, query_exemplars, format_query, series,
// labels, label/NAME/values, metadata, targets, rules and alerts (there are none), status/buildinfo. Parameters, answers,
// errors and their statuses are those of Prometheus; it sends no CORS headers, so that only pages of the same origin and
// programs can read it.
func (p *Prometheus) Handler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, h func(*http.Request) answer) {
		mux.HandleFunc("GET /api/v1/"+path, func(w http.ResponseWriter, r *http.Request) { p.respond(w, r, h) })
	}
	both := func(path string, h func(*http.Request) answer) {
		get(path, h)
		mux.HandleFunc("POST /api/v1/"+path, func(w http.ResponseWriter, r *http.Request) { p.respond(w, r, h) })
	}
	both("query", p.query)
	both("query_range", p.queryRange)
	both("query_exemplars", p.queryExemplars)
	both("format_query", p.formatQuery)
	both("series", p.series)
	both("labels", p.labelNames)
	get("label/{name}/values", p.labelValues)
	get("metadata", p.metadata)
	get("targets", p.targets)
	get("rules", func(*http.Request) answer { return answer{data: map[string]any{"groups": []any{}}} })
	get("alerts", func(*http.Request) answer { return answer{data: map[string]any{"alerts": []any{}}} })
	get("status/buildinfo", buildInfo)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.respond(w, r, func(r *http.Request) answer {
			return fail(notFound, fmt.Errorf("there is no %s %s here", r.Method, r.URL.Path))
		})
	})
	return mux
}

// envelope is what every answer is wrapped in.
type envelope struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
	Infos     []string `json:"infos,omitempty"`
}

func (p *Prometheus) respond(w http.ResponseWriter, r *http.Request, h func(*http.Request) answer) {
	a := fail(unavailable, errors.New("closed"))
	if !p.closed.Load() {
		a = fail(badData, errors.New("error parsing form values"))
		if err := r.ParseForm(); err == nil {
			a = h(r)
		} else {
			a.failed.err = fmt.Errorf("error parsing form values: %w", err)
		}
	}
	status, e := http.StatusOK, envelope{Status: "success", Data: a.data}
	if a.failed != nil {
		status = errorStatus[a.failed.kind]
		e = envelope{Status: "error", ErrorType: a.failed.kind, Error: a.failed.err.Error()}
	} else {
		e.Warnings, e.Infos = a.warnings.AsStrings(r.FormValue("query"), 10, 10)
	}
	body, err := json.Marshal(e)
	if err != nil {
		p.log.Error("cannot encode an answer", "path", r.URL.Path, "reason", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away has its own reasons
}

// Bounds of the time ranges that requests may leave open; what Prometheus writes them as is understood too.
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()
)

// parseTime reads Unix seconds with fractions, or RFC 3339.
func parseTime(s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		seconds, rest := math.Modf(f)
		rest = math.Round(rest*1000) / 1000
		return time.Unix(int64(seconds), int64(rest*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	switch s {
	case minTime.Format(time.RFC3339Nano):
		return minTime, nil
	case maxTime.Format(time.RFC3339Nano):
		return maxTime, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

// parseDuration reads seconds with fractions, or a duration as PromQL writes it.
func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		f *= float64(time.Second)
		if f > float64(math.MaxInt64) || f < float64(math.MinInt64) {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(f), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}

// timeOr reads a time parameter that may be left out.
func timeOr(r *http.Request, name string, absent time.Time) (time.Time, error) {
	s := r.FormValue(name)
	if s == "" {
		return absent, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return t, fmt.Errorf("invalid time value for '%s': %w", name, err)
	}
	return t, nil
}

// limitOf reads the parameter limit; 0 is none.
func limitOf(r *http.Request) (int, error) {
	s := r.FormValue("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, errors.New("limit must be non-negative")
	}
	return n, nil
}

var errTruncated = errors.New("results truncated due to limit")

// selection is the part that series, labels and label values have in common.
type selection struct {
	limit      int
	start, end time.Time
	matchers   [][]*labels.Matcher
}

func (p *Prometheus) selectionOf(r *http.Request) (s selection, failed *failure) {
	var err error
	if s.limit, err = limitOf(r); err != nil {
		return s, badParameter("limit", err).failed
	}
	if s.start, err = timeOr(r, "start", minTime); err != nil {
		return s, badParameter("start", err).failed
	}
	if s.end, err = timeOr(r, "end", maxTime); err != nil {
		return s, badParameter("end", err).failed
	}
	if s.matchers, err = p.parser.ParseMetricSelectors(r.Form["match[]"]); err != nil {
		return s, &failure{badData, err}
	}
	for _, set := range s.matchers {
		if !selective(set) {
			return s, &failure{badData, errors.New("match[] must contain at least one non-empty matcher")}
		}
	}
	return s, nil
}

// selective says whether a series without any label would not match.
func selective(set []*labels.Matcher) bool {
	for _, m := range set {
		if m != nil && !m.Matches("") {
			return true
		}
	}
	return false
}

// hint is the limit that the store may stop at: one more than asked for, to see that there was more.
func (s *selection) hint() int {
	if s.limit == 0 {
		return 0
	}
	return s.limit + 1
}

const prometheusModule = "github.com/prometheus/prometheus"

func buildInfo(*http.Request) answer {
	info := map[string]string{"version": "", "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": runtime.Version()}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, m := range b.Deps {
			if m.Path == prometheusModule {
				info["version"] = serverVersion(m.Version)
			}
		}
	}
	return answer{data: info}
}

// serverVersion turns the module's version into the server's: v0.315.0 is Prometheus 3.15.0. Clients such as Grafana
// decide by it what they can ask for.
func serverVersion(module string) string {
	var minor, patch int
	if _, err := fmt.Sscanf(module, "v0.%d.%d", &minor, &patch); err != nil {
		return module
	}
	return fmt.Sprintf("%d.%d.%d", minor/100, minor%100, patch)
}
