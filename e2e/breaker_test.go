package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outrider-mesh/outrider/cli"
)

// fullBreaker is a CircuitBreaker with every field.
const fullBreaker = `---
apiVersion: outrider.dev/v1alpha1
kind: CircuitBreaker
metadata: {name: web}
spec:
  host: web
  subset: v1
  port: 80
  route: {paths: [/guarded*], methods: [GET]}
  hystrix:
    circuitBreaker: {enabled: true, requestVolumeThreshold: 4, sleepWindowInMilliseconds: 60000, errorThresholdPercentage: 50, forceOpen: false, forceClosed: false}
    metrics:
      rollingStats: {timeInMilliseconds: 10000, numBuckets: 10}
      rollingPercentile: {enabled: true, timeInMilliseconds: 60000, numBuckets: 6, bucketSize: 100}
      healthSnapshot: {intervalInMilliseconds: 100}
    execution:
      timeout: {enabled: true}
      isolation:
        strategy: SEMAPHORE
        semaphore: {maxConcurrentRequests: 10}
        thread: {timeoutInMilliseconds: 1000}
    fallback: {enabled: true, isolation: {semaphore: {maxConcurrentRequests: 10}}}
  errors: {statuses: [5xx, 418], grpcStatuses: [UNAVAILABLE]}
  fallback: {backend: {host: web, port: 80, subset: v2}}
`

const toV1 = `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}]}]}
`

// A CircuitBreaker with every field: it is for its route alone, counts what it is told to, and asks its fallback's backend.
func TestCircuitBreakerInFull(t *testing.T) {
	t.Parallel()
	m := up(t, versions(2)+toV1+fullBreaker)
	m.misbehave("web-v1-0", "status=418")
	m.await("the breaker opens", func() bool {
		a := m.get("http://web/guarded")
		if a.Status != 200 || a.Version != "v2" || a.Header.Get("x-outrider-reason") != "fallback" {
			t.Fatalf("got %d of %q, reason %q; want the fallback", a.Status, a.Version, a.Header.Get("x-outrider-reason"))
		}
		return m.total("outrider_breaker_state", `state="open"`) == 1
	})
	if a := m.get("http://web/free"); a.Status != 418 {
		t.Errorf("another path: got %d", a.Status)
	}
	m.misbehave("web-v1-0", "") // but nobody looks: the sleep window is long
	if a := m.get("http://web/guarded"); a.Version != "v2" {
		t.Errorf("while it is open: got %q", a.Version)
	}
	m.edit("mesh.yaml", versions(2)+toV1+strings.Replace(fullBreaker, "forceClosed: false", "forceClosed: true", 1))
	m.await("forceClosed lets all through", func() bool { return m.get("http://web/guarded").Version == "v1" })
}

// gRPC's statuses are the breaker's errors wherever they stand, in the trailers as well; none at all is UNKNOWN.
func TestBreakerReadsTrailers(t *testing.T) {
	t.Parallel()
	t.Run("unavailable", func(t *testing.T) { readsTrailers(t, "14") })
	t.Run("none", func(t *testing.T) { readsTrailers(t) })
}

func readsTrailers(t *testing.T, status ...string) {
	var asked atomic.Int64
	at := listenVersions(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("content-type", "application/grpc")
		w.Header().Set("Trailer", "grpc-status")
		_, _ = w.Write([]byte{0, 0, 0, 0, 1, 'x'})
		_ = http.NewResponseController(w).Flush()
		w.Header()["Grpc-Status"] = status
	})
	m := up(t, service("web", "app: web")+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+`---
apiVersion: outrider.dev/v1alpha1
kind: CircuitBreaker
metadata: {name: web}
spec:
  host: web
  hystrix: {circuitBreaker: {requestVolumeThreshold: 4, sleepWindowInMilliseconds: 300000}, metrics: {healthSnapshot: {intervalInMilliseconds: 100}}}
`, apps(at))
	m.await("the breaker opens", func() bool {
		a := m.get("http://web/", "content-type", "application/grpc")
		return a.Header.Get("x-outrider-reason") == "breaker_open" && a.Status == 200 && a.Header.Get("grpc-status") == "14"
	})
	if asked.Load() < 4 {
		t.Errorf("%d requests were asked", asked.Load())
	}
	m.await("the breaker counts every failure", func() bool {
		return m.total("hystrix_command_event_total", `event="failure"`) == float64(asked.Load())
	})
}

// What import makes of Hystrix's properties is checked without a finding and works as it stands.
func TestImportedBreakers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	properties := filepath.Join(dir, "application.properties")
	if err := os.WriteFile(properties, []byte(`hystrix.command.default.metrics.healthSnapshot.intervalInMilliseconds=100
hystrix.command.GetWeb.circuitBreaker.requestVolumeThreshold=4
hystrix.command.GetWeb.circuitBreaker.sleepWindowInMilliseconds=60000
hystrix.command.GetWeb.execution.isolation.strategy=SEMAPHORE
`), 0o600); err != nil {
		t.Fatal(err)
	}
	outrider := func(in string, args ...string) string {
		t.Helper()
		var out, said strings.Builder
		if code := cli.Run(t.Context(), args, strings.NewReader(in), &out, &said); code != 0 {
			t.Fatalf("outrider %q ends with %d: %s", args, code, &said)
		}
		return out.String()
	}
	text := versions(1) + "---\n" + outrider("", "import", "hystrix", properties, "--host", "GetWeb=web")
	outrider(text, "check", "-f", "-", "--fail-on", "info")
	m := up(t, text)
	m.misbehave("web-v1-0", "status=503")
	m.await("the breaker opens", func() bool { return m.get("http://web/").Header.Get("x-outrider-reason") == "breaker_open" })
	if strings.Contains(m.talk.String(), "warning") {
		t.Errorf("the mesh warns of what was imported")
	}
	res, err := http.Get(m.ready.Admin + "/hystrix.stream")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e map[string]any
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		if e["type"] != "HystrixCommand" || e["name"] != "getweb@local" {
			continue
		}
		if e["isCircuitBreakerOpen"] != true || e["propertyValue_circuitBreakerRequestVolumeThreshold"] != 4.0 {
			t.Errorf("the stream says %s", text)
		}
		return
	}
	t.Errorf("the stream names no command getweb@local: %v", lines.Err())
}
