package local

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReadyFileIsTheContract(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready.json")
	if err := os.WriteFile(ready, []byte("of a run before"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := run(t, Options{StandIns: true, NoPrometheus: true, ReadyFile: ready}, map[string]string{
		"mesh.yaml": documents(webService, deployment("v1", 1, ""), `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 38080, name: http, protocol: HTTP}, hosts: ["*"]}
`),
	})
	b, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	keys := func(v any, want ...string) {
		t.Helper()
		var got []string
		for k := range v.(map[string]any) {
			got = append(got, k)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("keys %v, want %v", got, want)
		}
	}
	first := func(v any) any { return v.([]any)[0] }
	keys(raw, "admin", "proxy", "workloads", "gateways")
	local, web := first(raw["workloads"]), raw["workloads"].([]any)[1]
	keys(local, "namespace", "name", "instance", "address", "outbound", "metrics", "inbound")
	keys(first(web.(map[string]any)["inbound"]), "port", "listen", "app", "standIn")
	keys(first(raw["gateways"]), "namespace", "name", "servers")
	keys(first(first(raw["gateways"]).(map[string]any)["servers"]), "port", "listen", "protocol")

	var r Ready
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	told, err := json.Marshal(f.Ready())
	if err != nil {
		t.Fatal(err)
	}
	if read, err := json.Marshal(r); err != nil || !bytes.Equal(read, told) {
		t.Errorf("%v: the file says %s, the mesh %s", err, read, told)
	}
	w := r.Workloads[1]
	if w.Namespace != "default" || w.Name != "web-v1" || w.Instance != "web-v1-0" || w.Inbound[0].Port != 8080 || !w.Inbound[0].StandIn {
		t.Errorf("got %+v", w)
	}
	if host, port, _ := net.SplitHostPort(w.Inbound[0].Listen); host != w.Address || port != "8080" {
		t.Errorf("the inbound listener is at %s, want %s and the workload's port", w.Inbound[0].Listen, w.Address)
	}
	if r.Workloads[0].Name != "local" || r.Workloads[0].Outbound != r.Proxy {
		t.Errorf("the local client's row: %+v, proxy %s", r.Workloads[0], r.Proxy)
	}
	// Every address in it answers.
	for url, want := range map[string]int{
		r.Admin + "/healthz": 200, "http://" + w.Metrics + "/stats/prometheus": 200, "http://" + w.Metrics + "/healthz/ready": 200,
		"http://" + r.Workloads[0].Metrics + "/stats/prometheus": 200, "http://" + w.Inbound[0].Listen + "/": 200, "http://" + w.Inbound[0].App + "/": 200,
		"http://" + r.Gateways[0].Servers[0].Listen + "/": 404,
	} {
		resp, err := http.Get(url)
		if err != nil {
			t.Error(err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", url, resp.Status, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAdminAddress(t *testing.T) {
	f := run(t, Options{StandIns: true, ScrapeInterval: 50 * time.Millisecond, Version: "test"}, map[string]string{
		"mesh.yaml": documents(webService, subsets, deployment("v1", 1, ""), deployment("v2", 1, ""), split(90, 10)),
	})
	defer http.DefaultClient.CloseIdleConnections()
	get := func(path string) (*http.Response, string) {
		t.Helper()
		resp, err := http.Get(f.Ready().Admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	resp, page := get("/")
	for _, want := range []string{"web.default.svc.cluster.local", "90 <code>", "10 <code>", "default/web-v1-0", "stand-in", "mesh.yaml:"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	csp := resp.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, styleSum(page)) || strings.Contains(page, "<script") || strings.Contains(page, " style=") {
		t.Errorf("the page is not what its policy allows: %s", csp)
	}
	if resp, _ := get("/nothing"); resp.StatusCode != 404 {
		t.Errorf("a page that is not there: %s", resp.Status)
	}

	const n = 25
	for range n {
		f.get("http://web/")
	}
	counted := func(want int, expression string) { // a scrape may miss its time on a busy machine; then the next one counts
		t.Helper()
		path, body := "/api/v1/query?query="+url.QueryEscape(expression), ""
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			if err := f.Prometheus().Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, body = get(path); strings.Contains(body, fmt.Sprintf(`,"%d"]`, want)) {
				return
			}
		}
		t.Errorf("%s: %s, want %d", expression, body, want)
	}
	counted(n, `sum(istio_requests_total{reporter="source",destination_service="web.default.svc.cluster.local"})`)
	counted(n, `sum(istio_requests_total{reporter="destination",destination_service="web.default.svc.cluster.local"})`)
	counted(1, `outrider_control_generation{app="istiod"}`)
	var sd []struct {
		Targets []string
		Labels  map[string]string
	}
	_, body := get("/sd/prometheus")
	if err := json.Unmarshal([]byte(body), &sd); err != nil || len(sd) != 4 {
		t.Errorf("%v: %s", err, body)
	}
	var d dump
	_, body = get("/config_dump?proxy=default/local")
	if err := json.Unmarshal([]byte(body), &d); err != nil || d.Generation != 1 || len(d.Proxies) != 1 || d.Proxies[0].Snapshot.Workload.Name != "local" {
		t.Errorf("%v: %.300s", err, body)
	}
	_, body = get("/clusters")
	if !strings.Contains(body, "outbound|80|v1|web.default.svc.cluster.local") {
		t.Errorf("clusters: %.300s", body)
	}
}
