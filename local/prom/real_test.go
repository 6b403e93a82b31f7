package prom

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/meshtest"
)

// server is a Prometheus of its own process.
type server struct {
	address string
	client  *http.Client
}

// startReal runs the prometheus binary on dir, or skips the test.
func startReal(t *testing.T, dir, configuration string) *server {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("prometheus is not installed (Debian: apt install prometheus): answers are not compared with the real ones")
	}
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &server{meshtest.Address(t), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	var log strings.Builder
	cmd := exec.Command(binary, "--config.file="+file, "--storage.tsdb.path="+dir, "--web.listen-address="+s.address, "--log.level=warn")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
	})
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		if r, err := s.client.Get("http://" + s.address + "/-/ready"); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return s
			}
		}
		select {
		case <-ended:
			t.Fatalf("prometheus does not start: %s", log.String())
		case <-look.C:
		}
	}
}

func (s *server) call(t *testing.T, method, path string, form url.Values) (int, map[string]any) {
	t.Helper()
	var r *http.Response
	var err error
	if method == http.MethodPost {
		r, err = s.client.PostForm("http://"+s.address+path, form)
	} else {
		r, err = s.client.Get("http://" + s.address + path + "?" + form.Encode())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	return r.StatusCode, decode(t, r.Body)
}

// samples gives an hour of the metrics of a shop in OpenMetrics, every 15 s, from start on.
func samples(start time.Time) string {
	var b strings.Builder
	families := []struct {
		head  string
		lines []string
	}{
		{"# TYPE shop_requests counter", []string{
			`shop_requests_total{code="200",job="shop",instance="a"} %d`, `shop_requests_total{code="503",job="shop",instance="a"} %d`,
			`shop_requests_total{code="200",job="shop",instance="b"} %d`,
		}},
		{"# TYPE shop_seconds histogram", []string{
			`shop_seconds_bucket{job="shop",le="0.1"} %d`, `shop_seconds_bucket{job="shop",le="1.0"} %d`, `shop_seconds_bucket{job="shop",le="+Inf"} %d`,
			`shop_seconds_sum{job="shop"} %d`, `shop_seconds_count{job="shop"} %d`,
		}},
		{"# TYPE shop_open gauge", []string{`shop_open{job="shop",text="a\"b<é>"} %d`, `shop_open{job="other"} %d`}},
	}
	for _, f := range families {
		fmt.Fprintln(&b, f.head)
		for n, line := range f.lines {
			for i := range 240 {
				v := i * (n + 1) * 3
				if strings.Contains(line, "_open") {
					v = i * (n + 1) % 7
				}
				fmt.Fprintf(&b, line+" %d\n", v, start.Unix()+int64(i*15))
			}
		}
	}
	b.WriteString("# EOF\n")
	return b.String()
}

// TestSameAnswers asks Debian's Prometheus and this one the same questions about the same blocks.
func TestSameAnswers(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: apt install prometheus): answers are not compared with the real ones")
	}
	start := time.Now().Add(-3 * time.Hour).Truncate(time.Hour)
	text := filepath.Join(t.TempDir(), "samples.txt")
	if err := os.WriteFile(text, []byte(samples(start)), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs, ours := t.TempDir(), t.TempDir()
	for _, dir := range []string{theirs, ours} {
		if out, err := exec.Command(promtool, "tsdb", "create-blocks-from", "openmetrics", text, dir).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", err, out)
		}
	}
	h, real := open(t, ours).Handler(), startReal(t, theirs, "global: {}\n")

	compared := 0
	f := func(path string, pairs ...string) {
		t.Helper()
		methods := []string{"GET", "POST"}
		if strings.HasPrefix(path, "label/") || path == "metadata" || path == "targets" || path == "rules" || path == "alerts" {
			methods = methods[:1]
		}
		for _, method := range methods {
			compared++
			status, got := call(t, h, method, "/api/v1/"+path, values(pairs...))
			wantStatus, want := real.call(t, method, "/api/v1/"+path, values(pairs...))
			// Texts, and hints of newer versions, are not the contract.
			for _, e := range []map[string]any{got, want} {
				delete(e, "error")
				delete(e, "infos")
				delete(e, "warnings")
				sortResult(e["data"])
			}
			if status != wantStatus || !same(got, want) {
				t.Errorf("%s %s %v:\n got %d %v\nwant %d %v", method, path, pairs, status, got, wantStatus, want)
			}
		}
	}
	// Between two samples, so that the ends of ranges (Prometheus 3 leaves the left one open) make no difference.
	at := float64(start.Add(40*time.Minute).Unix()) + 7.5
	instant := func(query string, more ...string) {
		t.Helper()
		f("query", append([]string{"query=" + query, fmt.Sprintf("time=%.3f", at)}, more...)...)
	}
	ranged := func(query string, more ...string) {
		t.Helper()
		f("query_range", append([]string{"query=" + query, fmt.Sprintf("start=%.3f", at-600), fmt.Sprintf("end=%.3f", at), "step=37s"}, more...)...)
	}
	for _, query := range []string{
		`shop_requests_total`, `shop_requests_total{code!="200"}`, `{job="shop",__name__=~"shop_.*"}`, `nothing`,
		`sum(rate(shop_requests_total[5m]))`, `sum by (code) (rate(shop_requests_total{instance=~"a|b"}[1m]))`,
		`increase(shop_requests_total[10m])`, `irate(shop_requests_total[2m])`,
		`histogram_quantile(0.9, sum by (le) (rate(shop_seconds_bucket[5m])))`, `histogram_quantile(0.5, shop_seconds_bucket)`,
		`rate(shop_seconds_sum[5m]) / rate(shop_seconds_count[5m])`,
		`sum(rate(shop_requests_total{code=~"5.."}[5m])) / sum(rate(shop_requests_total[5m]))`,
		`topk(1, shop_requests_total)`, `quantile(0.5, shop_requests_total)`, `count(shop_open) or vector(0)`, `sum(nothing) or vector(0)`,
		`shop_open * on(job) group_left shop_seconds_count`, `label_replace(shop_open, "x", "$1", "job", "(.*)")`,
		`avg_over_time(shop_open[5m])`, `max_over_time(rate(shop_requests_total[1m])[10m:1m])`, `shop_open offset 5m`,
		`shop_requests_total @ ` + fmt.Sprintf("%.3f", at-300), `absent(nothing)`, `0/0`, `-1/0`, `1e-9`, `1e22`, `vector(0.1+0.2)`, `time()`, `shop_open > 2`, `shop_open > bool 2`,
		`sort_desc(shop_open)`, `count_values("v", shop_open)`, `deriv(shop_open[5m])`, `changes(shop_open[5m])`, `scalar(nothing)`,
	} {
		instant(query)
		ranged(query)
	}
	instant(`shop_requests_total[1m]`)
	instant(`"text"`)
	instant(`shop_requests_total`, "timeout=1m30s")
	f("query", "query=shop_open", "time="+start.Add(10*time.Minute).Format(time.RFC3339Nano))
	f("query", "query=shop_open", "time="+start.Add(-10*time.Minute).UTC().Format(time.RFC3339))
	f("query_range", "query=shop_open", "start="+start.Format(time.RFC3339), "end="+start.Add(time.Hour).Format(time.RFC3339), "step=0.5m")
	f("query_range", "query=shop_open", fmt.Sprint("start=", start.Unix()), fmt.Sprint("end=", start.Unix()), "step=1h")
	f("query_range", "query=shop_open", fmt.Sprint("start=", start.Unix()), fmt.Sprint("end=", start.Unix()+100), "step=7.5")
	f("query_range", "query=1", "start=0", "end=11000", "step=1")
	for _, bad := range [][]string{
		{"query=shop_open["},
		{"query="},
		{},
		{"query=1", "time=x"},
		{"query=1", "timeout=x"},
		{"query=shop_open + on(job) group_left shop_seconds_bucket"},
		{fmt.Sprintf("time=%f", at), "query=shop_requests_total * on(job) shop_requests_total"},
		{"query=shop_open", "timeout=0.000000001"},
		{"query=nosuchfunction(1)"},
		{"query=sum(1)"},
	} {
		f("query", bad...)
	}
	for _, bad := range [][]string{
		{"query=1"},
		{"query=1", "start=1", "end=0", "step=1"},
		{"query=1", "start=0", "end=1", "step=0"},
		{"query=1", "start=0", "end=1", "step=-1"},
		{"query=1", "start=0", "end=11001", "step=1"},
		{"query=shop_open[1m]", "start=0", "end=1", "step=1"},
		{"query=1", "start=a", "end=1", "step=1"},
		{"query=1", "start=0", "end=1", "step=1e300"},
	} {
		f("query_range", bad...)
	}
	f("series", "match[]=shop_requests_total")
	f("series", "match[]=shop_requests_total", `match[]={job="other"}`)
	f("series", `match[]={__name__=~"shop_.*",job="shop"}`, fmt.Sprint("start=", start.Unix()), fmt.Sprint("end=", start.Unix()+60))
	f("series", "match[]=shop_open", "start=0", "end=1")
	f("series")
	f("series", `match[]={a=~".*"}`)
	f("series", `match[]=1`)
	f("labels")
	f("labels", "match[]=shop_open")
	f("labels", "match[]=shop_open", "match[]=shop_seconds_bucket")
	f("labels", "start=x")
	f("label/__name__/values")
	f("label/job/values", `match[]={text!=""}`)
	f("label/job/values", `match[]={text!=""}`, `match[]=shop_requests_total`)
	f("label/nothing/values")
	f("query_exemplars", "query=[")
	f("format_query", "query=sum( b )by(a)")
	f("rules")
	f("alerts")
	if compared < 150 {
		t.Errorf("only %d answers were compared", compared)
	}
}

// TestSameTargets scrapes one application with both.
func TestSameTargets(t *testing.T) {
	a := serve(t)
	a.requests.Store(3)
	address := a.Listener.Addr().String()
	real := startReal(t, t.TempDir(), fmt.Sprintf(`
global: {scrape_interval: 100ms, scrape_timeout: 100ms}
scrape_configs:
- job_name: %s
  static_configs: [{targets: [%q], labels: {job: shop, __metrics_path__: /stats/prometheus, zone: a}}]
`, pool, address))
	p := open(t, "")
	p.SetTargets([]Target{{Job: "shop", Address: address, Path: "/stats/prometheus", Labels: map[string]string{"zone": "a"}}})
	scraped(t, p)
	h := p.Handler()

	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		_, e := real.call(t, "GET", "/api/v1/query", values("query=shop_requests_total"))
		if len(e["data"].(map[string]any)["result"].([]any)) == 1 {
			break
		}
		<-look.C
	}
	_, got := call(t, h, "GET", "/api/v1/metadata", nil)
	_, want := real.call(t, "GET", "/api/v1/metadata", nil)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("metadata:\n got %v\nwant %v", got, want)
	}
	for _, query := range []string{`shop_requests_total`, `up`, `{job="shop"}`} {
		_, got := call(t, h, "GET", "/api/v1/query", values("query=count by (__name__, job, instance, zone, code) ("+query+")"))
		_, want := real.call(t, "GET", "/api/v1/query", values("query=count by (__name__, job, instance, zone, code) ("+query+")"))
		if g, w := metricsOf(got), metricsOf(want); !reflect.DeepEqual(g, w) || len(g) == 0 {
			t.Errorf("%s:\n got %v\nwant %v", query, g, w)
		}
	}
	_, got = call(t, h, "GET", "/api/v1/targets", nil)
	_, want = real.call(t, "GET", "/api/v1/targets", nil)
	mine := got["data"].(map[string]any)["activeTargets"].([]any)[0].(map[string]any)
	for k, w := range want["data"].(map[string]any)["activeTargets"].([]any)[0].(map[string]any) {
		switch g, ok := mine[k]; {
		case !ok:
			t.Errorf("targets: there is no %s", k)
		case reflect.TypeOf(g) != reflect.TypeOf(w):
			t.Errorf("targets: %s is %v, not %v", k, g, w)
		case k == "labels" || k == "scrapeUrl" || k == "health" || k == "lastError" || k == "scrapePool":
			if !reflect.DeepEqual(g, w) {
				t.Errorf("targets: %s is %v, not %v", k, g, w)
			}
		}
	}
}

// same compares decoded JSON. Numbers in strings may differ in their last digits: newer versions sum up in another order.
func same(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, v := range a {
			if w, ok := b[k]; !ok || !same(v, w) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, same)
	case string:
		b, ok := b.(string)
		x, err := strconv.ParseFloat(a, 64)
		y, err2 := strconv.ParseFloat(b, 64)
		return ok && (a == b || err == nil && err2 == nil && math.Abs(x-y) <= 1e-12*max(math.Abs(x), math.Abs(y)))
	}
	return reflect.DeepEqual(a, b)
}

func metricsOf(e map[string]any) []string {
	sortResult(e["data"])
	var ms []string
	for _, r := range e["data"].(map[string]any)["result"].([]any) {
		ms = append(ms, fmt.Sprint(r.(map[string]any)["metric"]))
	}
	return ms
}
