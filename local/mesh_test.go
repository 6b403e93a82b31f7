package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Texts of objects; tests put them together.
const (
	webService = `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
`
	subsets = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
`
)

// deployment is the text of one version of web; more goes into the pod template's metadata.
func deployment(version string, replicas int, more string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web-%[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: web, version: %[1]s}}
  template:
    metadata:
      labels: {app: web, version: %[1]s}
%[3]s
    spec:
      serviceAccountName: web
      containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]
`, version, replicas, more)
}

func split(v1, v2 int) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web, subset: v1}, weight: %d}
    - {destination: {host: web, subset: v2}, weight: %d}
`, v1, v2)
}

func documents(texts ...string) string { return strings.Join(texts, "---\n") }

// journal is what people are told, read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// fixture is a mesh that a test runs, over a directory of files.
type fixture struct {
	*Mesh
	t      *testing.T
	dir    string
	talk   *journal
	client *http.Client // through the local client's proxy
	end    func()       // drains and waits; can be called twice
}

// run starts a mesh of the files.
func run(t *testing.T, o Options, files map[string]string) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), talk: &journal{}}
	for name, text := range files {
		f.write(name, text)
	}
	o.Paths, o.Admin, o.Proxy, o.Talk = []string{f.dir}, "127.0.0.1:0", "127.0.0.1:0", f.talk
	ctx, cancel := context.WithCancel(context.Background())
	m, err := Up(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	f.Mesh = m
	f.client = via(m.Ready().Proxy)
	f.end = sync.OnceFunc(func() {
		f.client.CloseIdleConnections()
		cancel()
		if err := m.Wait(); err != nil {
			t.Errorf("the mesh had to be cut off: %v", err)
		}
	})
	t.Cleanup(f.end)
	return f
}

// via returns a client that uses an HTTP proxy.
func via(proxy string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}), MaxIdleConnsPerHost: 64},
		Timeout:   20 * time.Second,
	}
}

func (f *fixture) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// echo is a stand-in's answer.
type echo struct {
	Workload, Instance, Version, Host, Path string
	Calls                                   []json.RawMessage
}

// get calls a URL through the local client's proxy.
func (f *fixture) get(url string) (status int, answer echo, reason string) {
	f.t.Helper()
	resp, err := f.client.Get(url)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	if resp.StatusCode == 200 {
		if err := json.Unmarshal(body, &answer); err != nil {
			f.t.Fatalf("%s: %v: %s", url, err, body)
		}
	}
	return resp.StatusCode, answer, resp.Header.Get("x-outrider-reason")
}

// until waits for a condition.
func (f *fixture) until(what string, holds func() bool) {
	f.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			f.t.Fatalf("never: %s; people were told:\n%s", what, f.talk)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// traffic sends requests from several connections until the stop, and returns how many there were and what was not a 200.
func (f *fixture) traffic(url string) (stop func() (sent int64, failed []string)) {
	var sent atomic.Int64
	var done atomic.Bool
	var mu sync.Mutex
	var failed []string
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c := via(f.Ready().Proxy)
			defer c.CloseIdleConnections()
			for !done.Load() {
				resp, err := c.Get(url)
				sent.Add(1)
				what := ""
				if err != nil {
					what = err.Error()
				} else {
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						what = err.Error()
					}
					_ = resp.Body.Close()
					if resp.StatusCode != 200 {
						what = resp.Status + " " + resp.Header.Get("x-outrider-reason")
					}
				}
				if what != "" {
					mu.Lock()
					failed = append(failed, what)
					mu.Unlock()
				}
			}
		})
	}
	return func() (int64, []string) {
		done.Store(true)
		wg.Wait()
		return sent.Load(), failed
	}
}

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
	if !reflect.DeepEqual(&r, f.Ready()) {
		t.Errorf("the file says %+v, the mesh %+v", r, f.Ready())
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

func TestBothWaysThroughTheProxy(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{"mesh.yaml": documents(webService, deployment("v1", 1, ""))})
	if status, e, _ := f.get("http://web/a?b=c"); status != 200 || e.Instance != "web-v1-0" || e.Host != "web" || e.Path != "/a?b=c" {
		t.Errorf("absolute-form: %d %+v", status, e)
	}
	req, err := http.NewRequest("GET", "http://"+f.Ready().Proxy+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "web.default.svc.cluster.local"
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != 200 {
		t.Errorf("plain Host: %s", resp.Status)
	}
	if !strings.Contains(f.talk.String(), "curl -x "+f.Ready().Proxy+" http://web/\n") {
		t.Errorf("people are not told what to try:\n%s", f.talk)
	}
}

func TestEditUnderTraffic(t *testing.T) {
	base := documents(webService, subsets, deployment("v1", 1, ""), deployment("v2", 1, ""))
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{"base.yaml": base, "split.yaml": split(100, 0)})
	if _, e, _ := f.get("http://web/"); e.Version != "v1" {
		t.Fatalf("before: %+v", e)
	}
	stop := f.traffic("http://web/")
	for i := range 6 {
		want := "v2"
		if i%2 == 1 {
			want = "v1"
		}
		saved := time.Now()
		f.write("split.yaml", split(100*(i%2), 100*(1-i%2)))
		f.until("requests go to "+want, func() bool {
			_, e, _ := f.get("http://web/")
			return e.Version == want
		})
		t.Logf("the edit took effect after %v", time.Since(saved))
	}
	sent, failed := stop()
	if len(failed) > 0 || sent < 100 {
		t.Errorf("%d of %d requests failed: %q", len(failed), sent, failed[:min(len(failed), 5)])
	}
	if want := "changed VirtualService default/web (" + filepath.Join(f.dir, "split.yaml") + ":1)\n"; !strings.Contains(f.talk.String(), want) {
		t.Errorf("people are not told %q:\n%s", want, f.talk)
	}
	if !strings.Contains(f.talk.String(), "a new configuration: ") {
		t.Errorf("people are not told who has it:\n%s", f.talk)
	}
}

func TestWorkloadsComeAndGoUnderTraffic(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{
		"service.yaml": webService, "v1.yaml": deployment("v1", 2, ""),
	})
	instances := func() string {
		var out []string
		for _, w := range f.Ready().Workloads {
			if w.Name != "local" {
				out = append(out, w.Instance)
			}
		}
		return strings.Join(out, " ")
	}
	before := f.Ready()
	stop := f.traffic("http://web/")
	f.write("v2.yaml", deployment("v2", 2, ""))
	f.until("v2 runs", func() bool { return instances() == "web-v1-0 web-v1-1 web-v2-0 web-v2-1" })
	f.until("v2 is asked", func() bool { _, e, _ := f.get("http://web/"); return e.Version == "v2" })
	if after := f.Ready(); after.Workloads[1].Address != before.Workloads[1].Address || after.Workloads[1].Inbound[0] != before.Workloads[1].Inbound[0] {
		t.Errorf("an instance moved: %+v, then %+v", before.Workloads[1], after.Workloads[1])
	}
	f.write("v1.yaml", deployment("v1", 1, "")) // one instance fewer
	f.until("one instance is gone", func() bool { return instances() == "web-v1-0 web-v2-0 web-v2-1" })
	if err := os.Remove(filepath.Join(f.dir, "v1.yaml")); err != nil {
		t.Fatal(err)
	}
	f.until("v1 is gone", func() bool { return instances() == "web-v2-0 web-v2-1" })
	f.until("people know", func() bool { return strings.Contains(f.talk.String(), "removed Deployment default/web-v1") })
	for range 20 {
		if status, e, reason := f.get("http://web/"); e.Version != "v2" {
			t.Fatalf("%d %s %+v", status, reason, e)
		}
	}
	if sent, failed := stop(); len(failed) > 0 || sent < 100 {
		t.Errorf("%d of %d requests failed: %q", len(failed), sent, failed[:min(len(failed), 5)])
	}
}

func TestBrokenEditKeepsTheOld(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{
		"base.yaml": documents(webService, subsets, deployment("v1", 1, ""), deployment("v2", 1, "")), "split.yaml": split(100, 0),
	})
	version := func(want string) bool { _, e, _ := f.get("http://web/"); return e.Version == want }
	told := func(want string) {
		t.Helper()
		f.until("people are told "+want, func() bool { return strings.Contains(f.talk.String(), want) })
	}
	path := filepath.Join(f.dir, "split.yaml")

	// One object is wrong; the rest of the change is applied.
	f.write("split.yaml", documents(strings.Replace(split(0, 100), "route:", "rowte:", 1), strings.ReplaceAll(webService, "web", "other")))
	told("error: " + path + ":7:5: VirtualService default/web: ")
	told("added Service default/other")
	told("kept VirtualService default/web (" + path + ":1): its last good version stays in force")
	if !version("v1") {
		t.Error("the last good version must stay")
	}
	// The text is so broken that documents cannot be told apart.
	f.write("split.yaml", "\t{{{\n  ]]: nonsense\n")
	told("error: " + path + ":1:")
	if !version("v1") {
		t.Error("the last good version must stay")
	}
	if got := len(f.State().Findings); got == 0 {
		t.Error("the finding must stay too")
	}
	f.write("split.yaml", split(0, 100))
	f.until("the corrected version is in force", func() bool { return version("v2") })
	if got := f.State().Findings; len(got) > 0 {
		t.Errorf("findings about corrected files: %v", got)
	}
}

func TestAppsThatRunAlready(t *testing.T) {
	app := func(name string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, `{"instance":%q}`, name) }))
		t.Cleanup(s.Close)
		return s
	}
	one, two, three := app("one"), app("two"), app("three")
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	mapping, err := ParseApp("web-v1="+host(one)+","+host(two), "default")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(host(three))
	f := run(t, Options{Apps: []App{mapping}, NoPrometheus: true}, map[string]string{
		"mesh.yaml": documents(webService, deployment("v1", 1, ""), strings.ReplaceAll(webService, "web", "vm"), strings.ReplaceAll(deployment("v9", 1, ""), "web", "idle"),
			strings.ReplaceAll(webService, "web", "idle"), `apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: machine}
spec:
  address: 127.0.0.1
  labels: {app: vm}
  ports: {http: `+port+`}
`),
	})
	asked := map[string]bool{}
	for range 200 { // that two draws out of two never differ: 2^-199
		_, e, _ := f.get("http://web/")
		asked[e.Instance] = true
	}
	if !asked["one"] || !asked["two"] || len(asked) != 2 {
		t.Errorf("asked %v", asked)
	}
	if status, e, _ := f.get("http://vm/"); status != 200 || e.Instance != "three" {
		t.Errorf("WorkloadEntry: %d %+v", status, e)
	}
	if status, _, reason := f.get("http://idle/"); status != 503 || reason != "no_healthy_endpoint" {
		t.Errorf("nobody plays idle: %d %s", status, reason)
	}
	if talk := f.talk.String(); strings.Count(talk, "workload default/idle-v9 has no endpoint") != 1 {
		t.Errorf("that is to be said once:\n%s", talk)
	}
	for _, w := range f.Ready().Workloads {
		switch w.Instance {
		case "web-v1-1":
			if in := w.Inbound[0]; in.App != host(two) || in.StandIn {
				t.Errorf("got %+v", in)
			}
		case "machine":
			if in := w.Inbound[0]; in.App != host(three) || fmt.Sprint(in.Port) != port {
				t.Errorf("got %+v", in)
			}
		case "idle-v9-0":
			if len(w.Inbound) != 0 {
				t.Errorf("got %+v", w.Inbound)
			}
		}
	}
}

func TestUnmeshedWorkload(t *testing.T) {
	out := "      annotations: {sidecar.istio.io/inject: \"false\"}"
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{"service.yaml": webService, "v1.yaml": deployment("v1", 1, out)})
	row := func() ReadyWorkload { return f.Ready().Workloads[1] }
	w := row()
	if w.Outbound != "" || w.Metrics != "" || w.Inbound[0].Listen != w.Inbound[0].App {
		t.Errorf("got %+v", w)
	}
	if status, e, _ := f.get("http://web/"); status != 200 || e.Instance != "web-v1-0" {
		t.Errorf("%d %+v", status, e)
	}
	stop := f.traffic("http://web/")
	f.write("v1.yaml", deployment("v1", 1, "")) // it joins
	f.until("it has a sidecar", func() bool { return row().Outbound != "" })
	f.until("the sidecar is asked", func() bool {
		f.get("http://web/")
		return strings.Contains(f.metrics(row().Metrics), `reporter="destination"`)
	})
	f.write("v1.yaml", deployment("v1", 1, out)) // and leaves
	f.until("it has no sidecar", func() bool { return row().Outbound == "" })
	f.until("it answers by itself", func() bool { status, _, _ := f.get("http://web/"); return status == 200 })
	if sent, failed := stop(); len(failed) > 0 || sent < 100 {
		t.Errorf("%d of %d requests failed: %q", len(failed), sent, failed[:min(len(failed), 5)])
	}
}

// metrics are a sidecar's own.
func (f *fixture) metrics(addr string) string {
	f.t.Helper()
	resp, err := f.client.Transport.(*http.Transport).Clone().RoundTrip(httptest.NewRequest("GET", "http://"+addr+"/stats/prometheus", nil))
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func TestTwoMeshes(t *testing.T) {
	files := map[string]string{"mesh.yaml": documents(webService, deployment("v1", 1, ""))}
	one, two := run(t, Options{StandIns: true, NoPrometheus: true}, files), run(t, Options{StandIns: true, NoPrometheus: true}, files)
	a, b := one.Ready().Workloads[1], two.Ready().Workloads[1]
	if a.Address == b.Address {
		t.Errorf("both have %s", a.Address)
	}
	for _, f := range []*fixture{one, two} {
		if status, _, _ := f.get("http://web/"); status != 200 {
			t.Errorf("status %d", status)
		}
	}
}

func TestStandInsMisbehave(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{
		"service.yaml": webService,
		"v1.yaml":      deployment("v1", 1, `      annotations: {outrider.dev/stand-in: "status=418", outrider.dev/calls: "http://web/nested"}`),
	})
	post := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Post(f.Ready().Admin+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	defer http.DefaultClient.CloseIdleConnections()
	status := func(want int) {
		t.Helper()
		if got, _, _ := f.get("http://web/"); got != want {
			t.Errorf("status %d, want %d", got, want)
		}
	}
	status(418)
	if got, body := post("/stand-ins/default/web-v1-0?status=503&ratio=1&delay=1ms"); got != 200 || !strings.Contains(body, "status=503 ratio=1 delay=1ms") {
		t.Errorf("%d %s", got, body)
	}
	status(503)
	f.write("other.yaml", subsets) // a change of something else leaves it
	f.until("the change is in force", func() bool { return f.State().Generation == 2 })
	status(503)
	f.write("v1.yaml", deployment("v1", 1, `      annotations: {outrider.dev/stand-in: "status=404"}`))
	f.until("the new annotation is in force", func() bool { got, _, _ := f.get("http://web/"); return got == 404 })
	if got, _ := post("/stand-ins/default/web-v1-0"); got != 200 {
		t.Errorf("healing: %d", got)
	}
	status(200)
	for path, want := range map[string]int{
		"/stand-ins/default/nobody": 404, "/stand-ins/default/web-v1-0?status=9": 400, "/stand-ins/default/web-v1-0?colour=red": 400,
	} {
		if got, body := post(path); got != want {
			t.Errorf("%s: %d %s", path, got, body)
		}
	}
	req, err := http.NewRequest("POST", f.Ready().Admin+"/stand-ins/default/web-v1-0?status=503", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "http://evil.example")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("another site's page may change stand-ins: %s", resp.Status)
	}
}

func TestStandInCallsThroughItsSidecar(t *testing.T) {
	caller := `apiVersion: v1
kind: Pod
metadata:
  name: front
  labels: {app: front}
  annotations: {outrider.dev/calls: "http://web/inner"}
spec:
  containers: [{name: front, image: front, ports: [{name: http, containerPort: 7000}]}]
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  selector: {app: front}
  ports: [{name: http, port: 7000}]
`
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{"mesh.yaml": documents(webService, deployment("v1", 1, ""), caller)})
	status, e, _ := f.get("http://front:7000/")
	if status != 200 || len(e.Calls) != 1 || e.Instance != "front" {
		t.Fatalf("%d %+v", status, e)
	}
	var nested echo
	if err := json.Unmarshal(e.Calls[0], &nested); err != nil || nested.Workload != "web-v1" || nested.Path != "/inner" {
		t.Errorf("%v: %s", err, e.Calls[0])
	}
	for _, w := range f.Ready().Workloads {
		if w.Instance == "front" && !strings.Contains(f.metrics(w.Metrics), `source_workload="front"`) {
			t.Error("the call did not go through its own sidecar")
		}
	}
}

func TestEditedLabelsReachTheMetrics(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{"service.yaml": webService, "v1.yaml": deployment("v1", 1, "")})
	f.write("v1.yaml", strings.ReplaceAll(deployment("v1", 1, ""), "version: v1}", "version: edited}"))
	addr := f.Ready().Workloads[1].Metrics
	f.until("the new label counts", func() bool {
		f.get("http://web/")
		return strings.Contains(f.metrics(addr), `destination_version="edited"`)
	})
	if _, e, _ := f.get("http://web/"); e.Version != "edited" {
		t.Errorf("the stand-in says %+v", e)
	}
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
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := f.Prometheus().Sync(ctx); err != nil {
		t.Fatal(err)
	}
	for _, reporter := range []string{"source", "destination"} {
		_, body := get("/api/v1/query?query=" + url.QueryEscape(`sum(istio_requests_total{reporter="`+reporter+`",destination_service="web.default.svc.cluster.local"})`))
		if !strings.Contains(body, fmt.Sprintf(`,"%d"]`, n)) {
			t.Errorf("%s: %s, want %d", reporter, body, n)
		}
	}
	if _, body := get("/api/v1/query?query=" + url.QueryEscape(`outrider_control_generation{app="istiod"}`)); !strings.Contains(body, `,"1"]`) {
		t.Errorf("the control plane's own series: %s", body)
	}
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

func TestDrainLetsExchangesEnd(t *testing.T) {
	arrived, release := make(chan bool), make(chan bool)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- true
		<-release
		_, _ = io.WriteString(w, `{"instance":"slow"}`)
	}))
	defer app.Close()
	mapping, err := ParseApp("web-v1="+strings.TrimPrefix(app.URL, "http://"), "default")
	if err != nil {
		t.Fatal(err)
	}
	f := run(t, Options{Apps: []App{mapping}, NoPrometheus: true}, map[string]string{"mesh.yaml": documents(webService, deployment("v1", 1, ""))})
	var wg sync.WaitGroup
	wg.Go(func() {
		if status, e, reason := f.get("http://web/"); status != 200 || e.Instance != "slow" {
			t.Errorf("an exchange under way was cut off: %d %s %+v", status, reason, e)
		}
	})
	<-arrived
	ended := make(chan bool)
	go func() {
		f.end()
		close(ended)
	}()
	f.until("new connections are refused", func() bool {
		conn, err := net.Dial("tcp", f.Ready().Proxy)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	select {
	case <-ended:
		t.Error("the mesh ended before the exchange did")
	default:
	}
	close(release)
	wg.Wait()
	<-ended
}

func TestDrainLetsRequestsGoOnInside(t *testing.T) {
	arrived, release := make(chan bool), make(chan bool)
	var outbound atomic.Pointer[string]
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- true
		<-release // until the mesh drains: only then the application calls on
		c := via(*outbound.Load())
		defer c.CloseIdleConnections()
		resp, err := c.Get("http://web/inner")
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	defer front.Close()
	mapping, err := ParseApp("front-v1="+strings.TrimPrefix(front.URL, "http://"), "default")
	if err != nil {
		t.Fatal(err)
	}
	frontText := strings.ReplaceAll(documents(webService, deployment("v1", 1, "")), "web", "front")
	f := run(t, Options{Apps: []App{mapping}, StandIns: true, NoPrometheus: true}, map[string]string{"mesh.yaml": documents(webService, deployment("v1", 1, ""), frontText)})
	outbound.Store(&f.Ready().Workloads[0].Outbound)
	if f.Ready().Workloads[0].Name != "front-v1" {
		t.Fatalf("%+v", f.Ready().Workloads[0])
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if status, e, reason := f.get("http://front/"); status != 200 || e.Path != "/inner" {
			t.Errorf("a request inside the mesh was refused: %d %s %+v", status, reason, e)
		}
	})
	<-arrived
	wg.Go(f.end)
	f.until("no more requests enter", func() bool {
		conn, err := net.Dial("tcp", f.Ready().Proxy)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(release)
	wg.Wait()
}

func TestWrongInput(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(documents(webService, deployment("v1", 1, ""))), 0o600); err != nil {
		t.Fatal(err)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	f := func(want string, change func(*Options)) {
		t.Helper()
		o := Options{Paths: []string{dir}, Admin: "127.0.0.1:0", Proxy: "127.0.0.1:0", NoPrometheus: true}
		change(&o)
		m, err := Up(context.Background(), o)
		if err == nil {
			t.Fatalf("%s: it started: %+v", want, m.Ready())
		}
		if !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	app := func(text string) func(*Options) {
		return func(o *Options) {
			a, err := ParseApp(text, "default")
			if err != nil {
				t.Fatal(err)
			}
			o.Apps = append(o.Apps, a)
		}
	}
	f("nowhere", func(o *Options) { o.Paths = []string{filepath.Join(dir, "nowhere")} })
	f("--admin moves it", func(o *Options) { o.Admin = busy.Addr().String() })
	f("--proxy moves it", func(o *Options) { o.Proxy = busy.Addr().String() })
	f("--admin", func(o *Options) { o.Admin = "15000" })
	f("no such workload; there are default/web-v1", app("wbe=127.0.0.1:1"))
	f("has no port 9; it serves 8080", app("web-v1:9=127.0.0.1:1"))
	f("are for the same", func(o *Options) { app("web-v1=h:1")(o); app("web-v1=h:2")(o) })
	f("--max-replicas", func(o *Options) { o.MaxReplicas = -1 })
}

func TestCompileIsWhatUpRuns(t *testing.T) {
	text := documents(webService, subsets, deployment("v1", 2, ""), deployment("v2", 1, ""), split(90, 10))
	file := config.Decode("mesh.yaml", []byte(text))
	f := func(workload string, o Options) *model.Snapshot {
		t.Helper()
		s, _, err := Compile(file.Objects, o, workload)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	listens := func(s *model.Snapshot) string {
		var out []string
		for _, l := range s.Listeners {
			out = append(out, l.Name+"@"+l.Address)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if got := listens(f("web-v1", Options{})); got != "inbound|8080@127.1.0.1:8080 outbound@127.1.0.1:15001" {
		t.Errorf("the first instance: %s", got)
	}
	if got := listens(f("default/web-v1/web-v1-1", Options{})); got != "inbound|8080@127.1.0.2:8080 outbound@127.1.0.2:15001" {
		t.Errorf("the second: %s", got)
	}
	local := f("default/local", Options{})
	if got := listens(local); got != "outbound@127.0.0.1:15001" {
		t.Errorf("the client: %s", got)
	}
	var endpoints []string
	for _, c := range local.Clusters {
		if c.Name == "outbound|80|v1|web.default.svc.cluster.local" {
			for _, e := range c.Endpoints {
				endpoints = append(endpoints, e.Address)
			}
		}
	}
	if !slices.Equal(endpoints, []string{"127.1.0.1:8080", "127.1.0.2:8080"}) {
		t.Errorf("the client's endpoints: %v", endpoints)
	}
	app := func(s *model.Snapshot) string {
		for _, c := range s.Clusters {
			if c.Kind == model.Application {
				return c.Endpoints[0].Address
			}
		}
		return ""
	}
	if got := app(f("web-v2", Options{})); got != "127.0.0.1:8080" {
		t.Errorf("the application is taken to be at %s", got)
	}
	mapped := Options{Apps: []App{{Namespace: "default", Workload: "web-v2", Addresses: []string{"127.0.0.1:3000"}}}}
	if got := app(f("web-v2", mapped)); got != "127.0.0.1:3000" {
		t.Errorf("the application is at %s", got)
	}
	for workload, want := range map[string]string{
		"default/nobody": "there is no workload", "web-v1/web-v1-0": "there is no workload", "default/web-v1/web-v1-7": "no instance", "a//b": "cannot read", "": "cannot read",
	} {
		if _, _, err := Compile(file.Objects, Options{}, workload); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", workload, err)
		}
	}
}
