//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/local"
)

// startRateLimit runs Envoy's own rate limit service with the domain "apis" over a Redis, and returns where it speaks gRPC.
func startRateLimit(t *testing.T) (*program, string) {
	t.Helper()
	path := os.Getenv("OUTRIDER_RATELIMIT")
	if path == "" {
		t.Skip("OUTRIDER_RATELIMIT does not name Envoy's rate limit service; .ci/run installs it")
	}
	redis, at, dir := startRedis(t), free(t, 3), t.TempDir()
	folder := filepath.Join(dir, "ratelimit", "config")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "apis.yaml"), []byte(`
domain: apis
descriptors:
- key: path
  value: /x
  descriptors:
  - key: user
    rate_limit: {unit: day, requests_per_unit: 10}
- key: client
  value: default/local
  rate_limit: {unit: day, requests_per_unit: 25}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(),
		"USE_STATSD=false", "LOG_LEVEL=info", "REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+redis, "EXPIRATION_JITTER_MAX_SECONDS=0",
		"RUNTIME_ROOT="+dir, "RUNTIME_SUBDIRECTORY=ratelimit", "RUNTIME_WATCH_ROOT=false", "LIMIT_RESPONSE_HEADERS_ENABLED=true",
		"GRPC_HOST=127.0.0.1", "GRPC_PORT="+port(at[0]), "HOST=127.0.0.1", "PORT="+port(at[1]), "DEBUG_HOST=127.0.0.1", "DEBUG_PORT="+port(at[2]))
	return launch(t, at[0], cmd), at[0]
}

// TestSharedLimit counts with Envoy's own service for two instances of a workload, through the sidecar of that service: a user
// has ten requests of both together, and the client twenty-five; when the service ends, requests go on until that is not wanted.
func TestSharedLimit(t *testing.T) {
	t.Parallel()
	heavy(t)
	counter, address := startRateLimit(t)
	const limit = `
apiVersion: outrider.dev/v1alpha1
kind: RateLimit
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  route: {paths: [/x*]}
  shared:
    host: ratelimit.infra
    port: 8081
    domain: apis
    descriptors:
    - [{key: path, value: /x}, {key: user, header: x-user}]
    - [{key: client, clientIdentity: true}]
    timeout: 5s
`
	text := service("web", "app: web") + workload("web", "v1", 2) + `---
apiVersion: v1
kind: Service
metadata: {name: ratelimit, namespace: infra}
spec: {selector: {app: ratelimit}, ports: [{name: grpc, port: 8081}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ratelimit, namespace: infra}
spec:
  selector: {matchLabels: {app: ratelimit}}
  template: {metadata: {labels: {app: ratelimit}}, spec: {containers: [{name: app, image: app, ports: [{containerPort: 8081}]}]}}
`
	m := up(t, text+"---"+limit, prometheus, func(o *local.Options) {
		o.Apps = []local.App{{Namespace: "infra", Workload: "ratelimit", Port: 8081, Addresses: []string{address}}}
	})
	ask := func(user string) *answer {
		t.Helper()
		return m.get("http://web/x", "X-User", user)
	}
	refused := 0
	for i := range 14 {
		a := ask("ann")
		switch {
		case i < 10 && a.Status == 200:
		case i >= 10 && a.Status == 429 && a.Header.Get("X-Outrider-Reason") == "rate_limited" && a.Header.Get("X-Envoy-Ratelimited") == "true" &&
			strings.HasPrefix(a.Header.Get("X-Ratelimit-Limit"), "10") && a.Header.Get("X-Ratelimit-Remaining") == "0" && a.Header.Get("Retry-After") != "":
			refused++
		default:
			t.Errorf("request %d: got %d %v", i, a.Status, a.Header)
		}
	}
	if refused != 4 {
		t.Errorf("%d were refused", refused)
	}
	// All that was asked counts for the client, refused or not.
	left := 25 - 14
	for i := range left + 3 {
		if a := ask(fmt.Sprint("user", i)); (a.Status == 200) != (i < left) {
			t.Errorf("of another user, request %d of %d: got %d %v", i, left, a.Status, a.Header)
		}
	}
	m.counted(float64(10+left), `sum(outrider_rate_limit_requests_total{limit="default/web", decision="ok"})`)
	m.counted(4+3, `sum(outrider_rate_limit_requests_total{limit="default/web", decision="over_limit"})`)
	m.counted(2, `count(outrider_rate_limit_requests_total{limit="default/web", decision="over_limit"} > 0)`)
	if a := m.get("http://web/free"); a.Status != 200 {
		t.Errorf("another path got %d", a.Status)
	}
	counter.stop()
	for range 4 {
		if a := ask("ann"); a.Status != 200 {
			t.Errorf("without the service: got %d %v", a.Status, a.Header)
		}
	}
	m.counted(4, `sum(outrider_rate_limit_requests_total{limit="default/web", decision="error"})`)
	m.write("mesh.yaml", text+"---"+limit+"    failOpen: false\n")
	m.await("failing closed", func() bool { return ask("ann").Header.Get("X-Outrider-Reason") == "rate_limit_error" })
	if a := ask("ann"); a.Status != 500 {
		t.Errorf("failing closed: got %d %v", a.Status, a.Header)
	}
}
