package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// istioLabels are the labels of Istio's HTTP metrics, all 25.
var istioLabels = []string{
	"connection_security_policy", "destination_app", "destination_canonical_revision", "destination_canonical_service", "destination_cluster",
	"destination_principal", "destination_service", "destination_service_name", "destination_service_namespace", "destination_version",
	"destination_workload", "destination_workload_namespace", "grpc_response_status", "reporter", "request_protocol", "response_code",
	"response_flags", "source_app", "source_canonical_revision", "source_canonical_service", "source_cluster", "source_principal",
	"source_version", "source_workload", "source_workload_namespace",
}

// targetLabels are what scraping adds.
var targetLabels = []string{"instance", "job", "namespace", "pod", "workload"}

// valueAt is the sum that a PromQL expression gives at a moment, by the HTTP API, 0 where it gives none.
func (m *mesh) valueAt(at time.Time, expression string) float64 {
	m.t.Helper()
	samples, err := m.mesh.Prometheus().Query(m.t.Context(), expression, at)
	if err != nil {
		m.t.Fatal(err)
	}
	sum := 0.0
	for _, s := range samples {
		sum += s.Value
	}
	return sum
}

// value is valueAt at a moment at which no scrape was missing: on a busy machine one may miss its time, and what it would
// have brought is gone until the next.
func (m *mesh) value(expression string) float64 {
	m.t.Helper()
	at := time.Now()
	for ; m.valueAt(at, "count(up == 0)") > 0; at = time.Now() {
		m.sync()
	}
	return m.valueAt(at, expression)
}

// scraped waits until everything was scraped once more, in time.
func (m *mesh) scraped() {
	m.t.Helper()
	for m.sync(); m.valueAt(time.Now(), "count(up == 0)") > 0; {
		m.sync()
	}
}

func (m *mesh) sync() {
	m.t.Helper()
	if err := m.mesh.Prometheus().Sync(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

// counted waits until everything was scraped and an expression has a value: a proxy counts an exchange once its answer has
// gone, which the client may have read before.
func (m *mesh) counted(want float64, expression string) {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); ; m.scraped() {
		got := m.value(expression)
		if got == want {
			return
		}
		if time.Now().After(end) {
			m.t.Errorf("%s is %v, want %v", expression, got, want)
			return
		}
	}
}

// series are the labels of all series of a metric, by the HTTP API.
func (m *mesh) series(match string) []map[string]string {
	m.t.Helper()
	res, err := http.Get(m.ready.Admin + "/api/v1/series?match[]=" + url.QueryEscape(match))
	if err != nil {
		m.t.Fatal(err)
	}
	defer res.Body.Close()
	var out struct {
		Status string
		Data   []map[string]string
	}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || out.Status != "success" {
		m.t.Fatalf("%s: %v", out.Status, err)
	}
	return out.Data
}

// TestCountersAreExact sends known numbers of requests and finds exactly these numbers, by PromQL, at client and server.
func TestCountersAreExact(t *testing.T) {
	t.Parallel()
	m := up(t, versions(2)+"---"+split(60, 40)+service("ratings", "app: ratings")+workload("ratings", "v1", 1)+
		service("shop", "app: shop")+workload("shop", "v1", 1, "outrider.dev/calls", "http://web/, http://ratings/"), prometheus)
	web := m.count(700, 8, "http://web/", byVersion)
	errors := 0
	for range 60 {
		if m.get("http://web/", "outrider-stand-in", "status=503").Status == 503 {
			errors++
		}
	}
	if errors != 60 {
		t.Fatalf("%d of 60 answers are errors", errors)
	}
	shop := m.count(150, 4, "http://shop/", byInstance)
	if web["v1"]+web["v2"] != 700 || shop["shop-v1-0"] != 150 {
		t.Fatalf("web %v, shop %v", web, shop)
	}
	for range 5 {
		if a := m.get("http://nothing.default.svc.cluster.local/"); a.Status < 400 {
			t.Fatalf("an unknown host: %d", a.Status)
		}
	}
	m.scraped()
	f := m.counted
	const source, destination = `reporter="source",source_workload="local"`, `reporter="destination"`
	f(760, `istio_requests_total{`+source+`,destination_service_name="web"}`)
	f(700, `istio_requests_total{`+source+`,destination_service_name="web",response_code="200"}`)
	f(60, `istio_requests_total{`+source+`,destination_service_name="web",response_code="503"}`)
	f(910, `istio_requests_total{`+destination+`,destination_service_name="web"}`) // and 150 of shop's
	f(150, `istio_requests_total{`+destination+`,destination_service_name="web",source_workload="shop-v1"}`)
	f(150, `istio_requests_total{reporter="source",source_workload="shop-v1",destination_service_name="web"}`)
	f(150, `istio_requests_total{reporter="source",source_workload="shop-v1",destination_service_name="ratings"}`)
	f(150, `istio_requests_total{`+source+`,destination_service_name="shop"}`)
	// Who sends to an endpoint counts there; a sidecar's own application is nobody's endpoint.
	const attempts = `outrider_upstream_requests_total{destination_service="web.default.svc.cluster.local",`
	f(760, attempts+`workload="local"}`)
	f(150, attempts+`workload="shop-v1"}`)
	f(0, attempts+`workload=~"web-.*"}`)
	f(910, `sum(outrider_upstream_requests_total{destination_service="web.default.svc.cluster.local"})`)
	f(760, `istio_request_duration_milliseconds_count{`+source+`,destination_service_name="web"}`)
	f(760, `istio_request_bytes_count{`+source+`,destination_service_name="web"}`)
	f(760, `istio_response_bytes_count{`+source+`,destination_service_name="web"}`)
	f(0, `sum(outrider_active_requests)`)
	// Every version's share, as client and server count it, and as the answers told.
	for _, v := range []string{"v1", "v2"} {
		f(float64(web[v]), fmt.Sprintf(`istio_requests_total{%s,destination_workload="web-%s",response_code="200"}`, source, v))
		f(float64(web[v]), fmt.Sprintf(`istio_requests_total{%s,source_workload="local",destination_service_name="web",destination_version=%q,response_code="200"}`, destination, v))
	}
}

// TestIstioLabels compares names, labels, placeholder values and buckets with Istio's.
func TestIstioLabels(t *testing.T) {
	t.Parallel()
	m := up(t, versions(1), prometheus)
	m.count(10, 1, "http://web/", byVersion)
	for _, reporter := range []string{"source", "destination"} {
		m.counted(10, fmt.Sprintf("istio_requests_total{reporter=%q}", reporter))
	}
	want := slices.Concat(istioLabels, targetLabels, []string{"__name__"})
	slices.Sort(want)
	for _, metric := range []string{"istio_requests_total", "istio_request_duration_milliseconds_count", "istio_request_bytes_sum", "istio_response_bytes_count"} {
		all := m.series(metric)
		reporters := map[string]bool{}
		for _, s := range all {
			reporters[s["reporter"]] = true
			names := slices.Sorted(maps.Keys(s))
			names = slices.DeleteFunc(names, func(n string) bool { return s[n] == "" })
			for _, n := range names {
				if !slices.Contains(want, n) {
					t.Errorf("%s has a label %s that Istio's has not", metric, n)
				}
			}
		}
		if len(all) != 2 || !reporters["source"] || !reporters["destination"] {
			t.Errorf("%s has %d series, want one of each reporter: %v", metric, len(all), all)
		}
	}
	values := func(reporter string, want map[string]string) {
		t.Helper()
		all := m.series(`istio_requests_total{reporter="` + reporter + `"}`)
		if len(all) != 1 {
			t.Fatalf("%d series", len(all))
		}
		for name, v := range want {
			if got := all[0][name]; got != v {
				t.Errorf("reporter %s: %s is %q, want %q", reporter, name, got, v)
			}
		}
	}
	both := map[string]string{
		"source_workload": "local", "source_workload_namespace": "default", "source_app": "local", "source_canonical_service": "local",
		"source_canonical_revision": "latest", "source_cluster": "Kubernetes", "source_principal": "unknown",
		"destination_workload": "web-v1", "destination_workload_namespace": "default", "destination_app": "web", "destination_version": "v1",
		"destination_canonical_service": "web", "destination_canonical_revision": "v1", "destination_cluster": "Kubernetes",
		"destination_principal": "unknown", "destination_service": "web.default.svc.cluster.local", "destination_service_name": "web",
		"destination_service_namespace": "default", "request_protocol": "http", "response_code": "200", "response_flags": "-",
	}
	values("source", both)
	values("destination", both)
	values("source", map[string]string{"connection_security_policy": "unknown"})
	values("destination", map[string]string{"connection_security_policy": "none"})

	// The exposition itself has every label, the empty ones too, and Istio's buckets.
	text := m.exposition("local")
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "istio_requests_total{") {
			continue
		}
		for _, l := range istioLabels {
			if !strings.Contains(line, l+`="`) {
				t.Errorf("lacks label %s: %s", l, line)
			}
		}
	}
	var buckets []string
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "istio_request_duration_milliseconds_bucket{") {
			_, rest, _ := strings.Cut(line, `le="`)
			le, _, _ := strings.Cut(rest, `"`)
			buckets = append(buckets, le)
		}
	}
	if want := "0.5 1 5 10 25 50 100 250 500 1000 2500 5000 10000 30000 60000 300000 600000 1.8e+06 3.6e+06 +Inf"; strings.Join(buckets, " ") != want {
		t.Errorf("buckets %v, want %s", buckets, want)
	}
}

// exposition is what an instance's sidecar answers to a scrape.
func (m *mesh) exposition(workload string) string {
	m.t.Helper()
	for _, w := range m.ready.Workloads {
		if w.Name != workload {
			continue
		}
		res, err := http.Get("http://" + w.Metrics + "/stats/prometheus")
		if err != nil {
			m.t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			m.t.Fatal(res.Status, err)
		}
		return string(text)
	}
	m.t.Fatalf("there is no workload %s", workload)
	return ""
}

// TestPromtool lets Prometheus's own linter judge the metrics, of sidecars and of the control plane.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (apt-get install prometheus)")
	}
	m := up(t, versions(2), prometheus)
	m.count(20, 2, "http://web/", byVersion)
	f := func(what, text string) {
		t.Helper()
		cmd := exec.Command(promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.CombinedOutput()
		// Istio's names are what they are: its counters in milliseconds are no base unit.
		var complaints []string
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			if line != "" && !strings.HasPrefix(line, "istio_") {
				complaints = append(complaints, line)
			}
		}
		if len(complaints) > 0 {
			t.Errorf("%s: promtool check metrics (%v):\n%s", what, err, strings.Join(complaints, "\n"))
		}
	}
	f("sidecar", m.exposition("web-v1"))
	f("client", m.exposition("local"))
	res, err := http.Get(m.ready.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	f("control plane", string(text))
}
