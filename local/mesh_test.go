package local

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

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
		"/stand-ins/default/nobody": 404, "/stand-ins/default/web-v1-0?status=99": 400, "/stand-ins/default/web-v1-0?colour=red": 400,
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
		if w.Instance == "front" {
			f.until("the call went through its own sidecar", func() bool {
				return strings.Contains(f.metrics(w.Metrics), `source_workload="front"`)
			})
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
