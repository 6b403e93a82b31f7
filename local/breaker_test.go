package local

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// breakerOf is a breaker that judges and probes quickly.
const breakerOf = `apiVersion: outrider.dev/v1alpha1
kind: CircuitBreaker
metadata: {name: web}
spec:
  host: web
  hystrix:
    circuitBreaker: {requestVolumeThreshold: 4, sleepWindowInMilliseconds: 100}
    metrics: {healthSnapshot: {intervalInMilliseconds: 50}}
`

// events reads the commands of the first tick of a stream, by name.
func events(t *testing.T, address string) map[string]map[string]any {
	t.Helper()
	r, err := http.Get(address + "/hystrix.stream")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	out := map[string]map[string]any{}
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "ping:") {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e map[string]any
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		out[e["name"].(string)] = e
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	return out
}

// seriesAt reads one series, -1 where it is not there.
func seriesAt(t *testing.T, address, series string) float64 {
	t.Helper()
	r, err := http.Get(address + "/stats/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, series); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			return v
		}
	}
	return -1
}

// TestBreakerIsSeen tells a breaker's story by what its readers see: the stream of the mesh, a sidecar's own, its metrics.
func TestBreakerIsSeen(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{
		"mesh.yaml": documents(webService, deployment("v1", 2, ""), deployment("v2", 1, ""), breakerOf),
	})
	names := func(address, want string) {
		t.Helper()
		var got []string
		for name, e := range events(t, address) {
			got = append(got, name)
			if e["group"] != "web.default.svc.cluster.local" {
				t.Errorf("%s guards %v", name, e["group"])
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s streams %v, want %s", address, got, want)
		}
	}
	metrics := ""
	for _, w := range f.Ready().Workloads {
		if w.Name == "local" {
			metrics = "http://" + w.Metrics
		}
	}
	names(f.Ready().Admin, "web@local web@web-v1-0 web@web-v1-1 web@web-v2")
	names(metrics, "web")

	misbehave := func(how string) { t.Helper(); f.behave(how, "web-v1-0", "web-v1-1", "web-v2-0") }
	get := func() (int, string) {
		t.Helper()
		r, err := f.client.Get("http://web/")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		return r.StatusCode, r.Header.Get("x-outrider-reason")
	}
	open := func() bool { return events(t, f.Ready().Admin)["web@local"]["isCircuitBreakerOpen"].(bool) }
	if status, _ := get(); status != http.StatusOK || open() {
		t.Fatalf("at first: status %d, open %t", status, open())
	}
	misbehave("status=503")
	f.until("the breaker opens", func() bool {
		_, reason := get()
		return reason == "breaker_open"
	})
	if !open() {
		t.Error("the stream says that the breaker is closed")
	}
	for _, want := range []string{
		`hystrix_command_event_total{command_group="web.default.svc.cluster.local",command_name="web",event="short_circuited",terminal="false"} `,
		`outrider_breaker_transitions_total{breaker="default/web",from="closed",reason="error_threshold",service="web.default.svc.cluster.local",to="open"} `,
		`hystrix_command_latency_execute_seconds_bucket{command_group="web.default.svc.cluster.local",command_name="web",le="+Inf"} `,
		`outrider_breaker_rejected_total{breaker="default/web",reason="breaker_open",service="web.default.svc.cluster.local"} `,
	} {
		f.until("the metrics have "+want, func() bool { return seriesAt(t, metrics, want) > 0 })
	}
	misbehave("")
	f.until("the breaker closes", func() bool {
		status, _ := get()
		return status == http.StatusOK && !open()
	})

	// A fallback takes effect while the mesh runs; the breaker's counts are kept.
	refused := `outrider_breaker_rejected_total{breaker="default/web",reason="breaker_open",service="web.default.svc.cluster.local"} `
	before := seriesAt(t, metrics, refused)
	f.write("mesh.yaml", documents(webService, deployment("v1", 2, ""), deployment("v2", 1, ""), breakerOf+"  fallback: {response: {body: \"[]\"}}\n"))
	misbehave("status=503")
	f.until("the fallback answers", func() bool {
		status, reason := get()
		return status == http.StatusOK && reason == "fallback"
	})
	if after := seriesAt(t, metrics, refused); after < before {
		t.Errorf("%v requests were refused, after a change %v", before, after)
	}
}
