package prom

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// call asks the API and returns the status and the decoded envelope.
func call(t *testing.T, h http.Handler, method, path string, form url.Values) (int, map[string]any) {
	t.Helper()
	var r *http.Request
	if method == http.MethodPost {
		r = httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		r = httptest.NewRequest(method, path+"?"+form.Encode(), nil)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: Content-Type %q", method, path, got)
	}
	return w.Code, decode(t, w.Body)
}

func decode(t *testing.T, r io.Reader) map[string]any {
	t.Helper()
	d := json.NewDecoder(r)
	d.UseNumber() // as written
	var e map[string]any
	if err := d.Decode(&e); err != nil {
		t.Fatal(err)
	}
	return e
}

// values turns "k=v", "k=v" into a form.
func values(pairs ...string) url.Values {
	v := url.Values{}
	for _, p := range pairs {
		k, x, _ := strings.Cut(p, "=")
		v.Add(k, x)
	}
	return v
}

// fill stores n samples of a counter and of a gauge with odd values, a second apart, the last at end.
func fill(t *testing.T, p *Prometheus, end time.Time, n int) {
	t.Helper()
	a := p.db.Appender(t.Context())
	odd := []float64{1.5, math.NaN(), math.Inf(1), math.Inf(-1), 1e-9, 1e22, -0.25}
	for i := range n {
		at := end.Add(time.Duration(i-n+1) * time.Second).UnixMilli()
		for _, code := range []string{"200", "503"} {
			if _, err := a.Append(0, labels.FromStrings(model.MetricNameLabel, "shop_requests_total", "code", code, "job", "shop"), at, float64(i*10)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.Append(0, labels.FromStrings(model.MetricNameLabel, "shop_odd", "text", "a\"b<é>\n"), at, odd[i%len(odd)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestAPIErrors(t *testing.T) {
	p := open(t, "")
	h := p.Handler()
	now := time.Now()
	fill(t, p, now, 100)
	f := func(method, path string, status int, kind, contains string, pairs ...string) {
		t.Helper()
		got, e := call(t, h, method, path, values(pairs...))
		if got != status || e["status"] != "error" || e["errorType"] != kind || !strings.Contains(fmt.Sprint(e["error"]), contains) {
			t.Errorf("%s %s %v: %d %v", method, path, pairs, got, e)
		}
		if _, ok := e["data"]; ok {
			t.Errorf("%s %s %v: data in an error", method, path, pairs)
		}
	}
	f("GET", "/api/v1/query", 400, badData, `invalid parameter "query"`, "query=up[")
	f("GET", "/api/v1/query", 400, badData, `invalid parameter "query"`)
	f("POST", "/api/v1/query", 400, badData, `invalid parameter "time"`, "query=up", "time=yesterday")
	f("GET", "/api/v1/query", 400, badData, `invalid parameter "timeout"`, "query=up", "timeout=soon")
	f("GET", "/api/v1/query", 400, badData, `invalid parameter "limit"`, "query=up", "limit=-1")
	f("GET", "/api/v1/query", 400, badData, "lookback", "query=up", "lookback_delta=x")
	f("GET", "/api/v1/query", 422, execution, "many-to-many", "query=shop_requests_total * on(job) shop_requests_total")
	f("GET", "/api/v1/query", 503, timeout, "timed out", "query=shop_requests_total", "timeout=0.000000001")
	f("GET", "/api/v1/query_range", 503, timeout, "timed out", "query=shop_requests_total", "timeout=0.000000001", "start=0", "end=10", "step=1")
	f("GET", "/api/v1/query_range", 400, badData, `invalid parameter "start"`, "query=up", "end=1", "step=1")
	f("GET", "/api/v1/query_range", 400, badData, "before start", "query=up", "start=2", "end=1", "step=1")
	f("GET", "/api/v1/query_range", 400, badData, "zero or negative", "query=up", "start=1", "end=2", "step=0")
	f("POST", "/api/v1/query_range", 400, badData, "11,000 points", "query=up", "start=0", "end=11001", "step=1")
	f("GET", "/api/v1/query_range", 400, badData, "overflows", "query=up", "start=0", "end=1", "step=1e300")
	f("GET", "/api/v1/query_range", 400, badData, `invalid parameter "query"`, "query=up[5m]", "start=0", "end=1", "step=1")
	f("GET", "/api/v1/series", 400, badData, "no match[]")
	f("GET", "/api/v1/series", 400, badData, "non-empty matcher", `match[]={a=~".*"}`)
	f("GET", "/api/v1/series", 400, badData, "parse error", "match[]={")
	f("GET", "/api/v1/labels", 400, badData, `invalid parameter "end"`, "end=x")
	f("GET", "/api/v1/label/a%FF/values", 400, badData, "invalid label name")
	f("GET", "/api/v1/metadata", 400, badData, "limit must be a number", "limit=x")
	f("GET", "/api/v1/query_exemplars", 400, badData, "before start", "query=up", "start=2", "end=1")
	f("GET", "/api/v1/nothing", 404, notFound, "/api/v1/nothing")
	f("POST", "/api/v1/targets", 404, notFound, "POST /api/v1/targets")
}

func TestAPIAnswers(t *testing.T) {
	p := open(t, "")
	h := p.Handler()
	now := time.Unix(time.Now().Unix(), 0)
	fill(t, p, now, 8)
	at := fmt.Sprint("time=", now.Unix())
	f := func(path, want string, pairs ...string) {
		t.Helper()
		for _, method := range []string{"GET", "POST"} {
			if method == "POST" && strings.HasPrefix(path, "label/") {
				continue
			}
			r := httptest.NewRequest(method, "/api/v1/"+path+"?"+values(pairs...).Encode(), nil)
			if method == "POST" {
				r = httptest.NewRequest(method, "/api/v1/"+path, strings.NewReader(values(pairs...).Encode()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if got := strings.ReplaceAll(w.Body.String(), fmt.Sprint(now.Unix()), "NOW"); w.Code != 200 || got != want {
				t.Errorf("%s %s %v: %d\n got %s\nwant %s", method, path, pairs, w.Code, got, want)
			}
		}
	}
	f("query", `{"status":"success","data":{"resultType":"scalar","result":[NOW,"7"]}}`, "query=1+2*3", at)
	f("query", `{"status":"success","data":{"resultType":"scalar","result":[NOW.007,"+Inf"]}}`, "query=1/0", fmt.Sprintf("time=%d.007", now.Unix()))
	f("query", `{"status":"success","data":{"resultType":"string","result":[NOW,"a\u003cb"]}}`, `query="a<b"`, "time="+now.UTC().Format(time.RFC3339))
	f("query", `{"status":"success","data":{"resultType":"vector","result":[]}}`, "query=nothing", at)
	f("query", `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"code":"200"},"value":[NOW,"70"]},{"metric":{"code":"503"},"value":[NOW,"70"]}]}}`,
		"query=sum by(code)(shop_requests_total)", at)
	f("query", `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"shop_requests_total","code":"200","job":"shop"},"value":[NOW,"70"]}]},"warnings":["results truncated due to limit"]}`,
		"query=shop_requests_total", at, "limit=1")
	f("query", `{"status":"success","data":{"resultType":"vector","result":[]}}`,
		"query=shop_requests_total", fmt.Sprint("time=", now.Unix()+60), "lookback_delta=30s")
	seconds := ""
	for i, v := range []string{"1.5", "NaN", "+Inf", "-Inf", "1e-09", "1e+22", "-0.25", "1.5"} {
		if i > 0 {
			seconds += ","
		}
		seconds += fmt.Sprintf(`[%d,"%s"]`, now.Unix()-7+int64(i), v)
	}
	seconds = strings.ReplaceAll(seconds, fmt.Sprint(now.Unix()), "NOW")
	f("query_range", `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"shop_odd","text":"a\"b\u003cé\u003e\n"},"values":[`+seconds+`]}]}}`,
		"query=shop_odd", fmt.Sprint("start=", now.Unix()-7), fmt.Sprint("end=", now.Unix()), "step=1s", "lookback_delta=1s")
	f("query_range", `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"code":"200"},"values":[[NOW,"70"]]}]},"warnings":["results truncated due to limit"]}`,
		"query=sum by(code)(shop_requests_total)", fmt.Sprint("start=", now.Unix()), fmt.Sprint("end=", now.Unix()), "step=5", "limit=1")
	f("series", `{"status":"success","data":[{"__name__":"shop_requests_total","code":"200","job":"shop"},{"__name__":"shop_requests_total","code":"503","job":"shop"}]}`,
		"match[]=shop_requests_total", `match[]={code="200"}`)
	f("series", `{"status":"success","data":[{"__name__":"shop_requests_total","code":"200","job":"shop"}],"warnings":["results truncated due to limit"]}`,
		"match[]=shop_requests_total", "limit=1")
	f("series", `{"status":"success","data":[{"__name__":"shop_requests_total","code":"200","job":"shop"},{"__name__":"shop_requests_total","code":"503","job":"shop"}]}`,
		"match[]=shop_requests_total", "limit=2")
	f("series", `{"status":"success","data":[]}`, "match[]=nothing")
	f("series", `{"status":"success","data":[]}`, "match[]=shop_odd", "start=0", "end=1000")
	f("labels", `{"status":"success","data":["__name__","code","job","text"]}`)
	f("labels", `{"status":"success","data":["__name__","code","job"]}`, "match[]=shop_requests_total", `match[]={code="503"}`)
	f("labels", `{"status":"success","data":["__name__","code"],"warnings":["results truncated due to limit"]}`, "limit=2")
	f("label/code/values", `{"status":"success","data":["200","503"]}`)
	f("label/code/values", `{"status":"success","data":["503"]}`, `match[]=shop_requests_total{code=~"5.."}`)
	f("label/nothing/values", `{"status":"success","data":[]}`)
	f("format_query", `{"status":"success","data":"sum by (a) (b)"}`, "query=sum( b )by(a)")
	f("query_exemplars", `{"status":"success","data":[]}`, "query=shop_odd")
}

func TestAPIStatistics(t *testing.T) {
	p := open(t, "")
	_, e := call(t, p.Handler(), "GET", "/api/v1/query", values("query=1", "stats=all"))
	s, ok := e["data"].(map[string]any)["stats"].(map[string]any)
	if !ok || s["timings"] == nil || s["samples"] == nil {
		t.Error(e)
	}
}

func TestNativeHistogram(t *testing.T) {
	h := &histogram.FloatHistogram{
		Schema: 0, Count: 10, Sum: 12.5, ZeroThreshold: 0.5, ZeroCount: 1,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{4, 2},
		NegativeSpans: []histogram.Span{{Offset: 1, Length: 2}}, NegativeBuckets: []float64{3, 0},
	}
	const point = `{"count":"10","sum":"12.5","buckets":[[1,"-2","-1","3"],[3,"-0.5","0.5","1"],[0,"0.5","1","4"],[0,"1","2","2"]]}`
	f := func(got encoded, want string) {
		t.Helper()
		if string(got) != want || !json.Valid(got) {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
	m := labels.FromStrings("a", "b")
	f(encodeValue(promql.Vector{{Metric: m, T: 1500, H: h}}), `[{"metric":{"a":"b"},"histogram":[1.500,`+point+`]}]`)
	f(encodeValue(promql.Matrix{{Metric: m, Floats: []promql.FPoint{{T: -1002, F: 1}}, Histograms: []promql.HPoint{{T: 2000, H: h}, {T: 3000, H: &histogram.FloatHistogram{}}}}}),
		`[{"metric":{"a":"b"},"values":[[-1.002,"1"]],"histograms":[[2,`+point+`],[3,{"count":"0","sum":"0"}]]}]`)

	// Stored and asked for, it comes back the same.
	p := open(t, "")
	now := time.Now()
	a := p.db.Appender(t.Context())
	if _, err := a.AppendHistogram(0, labels.FromStrings(model.MetricNameLabel, "native"), now.UnixMilli(), nil, h); err != nil {
		t.Fatal(err)
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRecorder()
	p.Handler().ServeHTTP(r, httptest.NewRequest("GET", "/api/v1/query?query=native", nil))
	if !strings.Contains(r.Body.String(), point) {
		t.Error(r.Body)
	}
	if _, err := p.Query(t.Context(), "native", now); err == nil || !strings.Contains(err.Error(), "native histogram") {
		t.Error(err)
	}
	if got := one(t, p, "histogram_count(native)"); got != 10 {
		t.Error(got)
	}
}

const openMetrics = `# TYPE shop_seconds histogram
# UNIT shop_seconds seconds
# HELP shop_seconds Time that a sale takes.
shop_seconds_bucket{le="0.1"} 3 # {trace_id="4bf92f3577b34da6"} 0.067
shop_seconds_bucket{le="+Inf"} 4
shop_seconds_sum 1.25
shop_seconds_count 4
# TYPE shop_open gauge
# HELP shop_open Whether the shop is open.
shop_open 1
# EOF
`

func TestScrapedMetadata(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
		_, _ = io.WriteString(w, openMetrics)
	}))
	defer s.Close()
	p := open(t, "")
	h := p.Handler()
	address := s.Listener.Addr().String()
	p.SetTargets([]Target{{Job: "shop", Address: address}})
	scraped(t, p)

	f := func(path, want string, pairs ...string) {
		t.Helper()
		_, e := call(t, h, "GET", "/api/v1/"+path, values(pairs...))
		got, err := json.Marshal(e["data"])
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s\n got %s\nwant %s", path, got, want)
		}
	}
	const seconds, opened = `"shop_seconds":[{"help":"Time that a sale takes.","type":"histogram","unit":"seconds"}]`,
		`"shop_open":[{"help":"Whether the shop is open.","type":"gauge","unit":""}]`
	f("metadata", "{"+opened+","+seconds+"}")
	f("metadata", "{"+opened+"}", "metric=shop_open")
	f("metadata", "{}", "limit=0")
	f("metadata", "{}", "metric=nothing")

	_, e := call(t, h, "GET", "/api/v1/query_exemplars", values("query=shop_seconds_bucket"))
	got := fmt.Sprint(e["data"])
	if !strings.Contains(got, "trace_id:4bf92f3577b34da6") || !strings.Contains(got, "value:0.067") || !strings.Contains(got, "__name__:shop_seconds_bucket") {
		t.Error(got)
	}

	_, e = call(t, h, "GET", "/api/v1/targets", values("state=active"))
	active := e["data"].(map[string]any)["activeTargets"].([]any)
	if len(active) != 1 {
		t.Fatal(active)
	}
	one := active[0].(map[string]any)
	for k, want := range map[string]any{
		"health": "up", "lastError": "", "scrapeUrl": "http://" + address + "/metrics", "scrapeInterval": "50ms", "scrapeTimeout": "50ms",
		"labels": map[string]any{"instance": address, "job": "shop"}, "scrapePool": pool,
	} {
		if !reflect.DeepEqual(one[k], want) {
			t.Errorf("%s is %v, not %v", k, one[k], want)
		}
	}
	if _, e = call(t, h, "GET", "/api/v1/targets", values("state=dropped")); len(e["data"].(map[string]any)["activeTargets"].([]any)) != 0 {
		t.Error(e)
	}
	if _, e = call(t, h, "GET", "/api/v1/status/buildinfo", nil); e["data"].(map[string]any)["goVersion"] == "" {
		t.Error(e)
	}
	if _, e = call(t, h, "GET", "/api/v1/rules", nil); !reflect.DeepEqual(e["data"], map[string]any{"groups": []any{}}) {
		t.Error(e)
	}
}

func TestServerVersion(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := serverVersion(in); got != want {
			t.Errorf("%s is %s, not %s", in, got, want)
		}
	}
	f("v0.315.0", "3.15.0")
	f("v0.54.1", "0.54.1") // before 3.0 the mapping was another; not ours
	f("(devel)", "(devel)")
}

// sortResult puts what has no promised order into one.
func sortResult(v any) {
	m, ok := v.(map[string]any)
	if !ok {
		return
	}
	if r, ok := m["result"].([]any); ok && (m["resultType"] == "vector" || m["resultType"] == "matrix") {
		sort.SliceStable(r, func(i, j int) bool {
			return fmt.Sprint(r[i].(map[string]any)["metric"]) < fmt.Sprint(r[j].(map[string]any)["metric"])
		})
	}
}
