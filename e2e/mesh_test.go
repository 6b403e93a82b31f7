// Package e2e tests whole meshes through real sockets.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/local"
	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

// long says that the long form of the tests is wanted: OUTRIDER_E2E=1.
var long = os.Getenv("OUTRIDER_E2E") != ""

// beside is how many tests run beside each other at least: they wait far more than they compute. Those that look at the memory of
// the whole process run by themselves.
const beside = 4

func TestMain(m *testing.M) {
	if address := os.Getenv(backendAddress); address != "" {
		runBackend(address) // this process is one that a test kills
		return
	}
	if address := os.Getenv(socketsAddress); address != "" {
		runSockets(address)
		return
	}
	if name := os.Getenv(interopCase); name != "" {
		runInterop(name) // this process is one of gRPC's clients
		return
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(strconv.Itoa(max(beside, runtime.GOMAXPROCS(0)))); err != nil {
			panic(err)
		}
	}
	leaks.Main(m, removeBuilt)
}

// mesh is a mesh that runs for one test.
type mesh struct {
	t     *testing.T
	dir   string
	mesh  *local.Mesh
	ready *local.Ready
	talk  *transcript
	http  *http.Client
}

// transcript is what the mesh tells people.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// up runs the mesh that the text describes, with stand-ins, on free ports, until the test ends.
func up(t *testing.T, text string, change ...func(*local.Options)) *mesh {
	t.Helper()
	m := &mesh{t: t, dir: t.TempDir(), talk: &transcript{}}
	m.write("mesh.yaml", text)
	o := local.Options{
		Paths: []string{m.dir}, StandIns: true, Admin: "127.0.0.1:0", Proxy: "127.0.0.1:0", NoPrometheus: true,
		ScrapeInterval: 100 * time.Millisecond, Talk: m.talk,
	}
	for _, c := range change {
		c(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	running, err := local.Up(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	m.mesh, m.ready = running, running.Ready()
	m.http = m.client(m.ready.Proxy)
	t.Cleanup(func() {
		m.http.CloseIdleConnections()
		cancel()
		if err := running.Wait(); err != nil {
			t.Errorf("the mesh does not end in good order: %v", err)
		}
		if t.Failed() {
			t.Logf("the mesh said:\n%s", m.talk)
		}
	})
	return m
}

// prometheus keeps the embedded Prometheus.
func prometheus(o *local.Options) { o.NoPrometheus = false }

func (m *mesh) client(proxy string) *http.Client {
	return &http.Client{
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}), MaxIdleConnsPerHost: 32},
	}
}

func (m *mesh) write(name, text string) {
	m.t.Helper()
	temporary := filepath.Join(m.dir, "."+name)
	if err := os.WriteFile(temporary, []byte(text), 0o666); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(m.dir, name)); err != nil {
		m.t.Fatal(err)
	}
}

// edit replaces a file and waits until the change is in force.
func (m *mesh) edit(name, text string) {
	m.t.Helper()
	before := m.mesh.State().Generation
	m.write(name, text)
	m.await("the edit takes effect", func() bool { return m.mesh.State().Generation > before })
	m.ready = m.mesh.Ready()
}

// await waits for a condition.
func (m *mesh) await(what string, holds func() bool) {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// answer is what a stand-in answers, beside status and header.
type answer struct {
	Status  int            `json:"-"`
	Header  http.Header    `json:"-"`
	Text    string         `json:"-"`
	Cookies []*http.Cookie `json:"-"`

	Workload, Namespace, Instance, Version string
	Port                                   int
	Method, Host, Path                     string
	Headers                                map[string]string
	Calls                                  []json.RawMessage
}

// get sends a GET; headers are name, value, name, value...
func (m *mesh) get(target string, headers ...string) *answer {
	m.t.Helper()
	a, err := m.try(http.MethodGet, target, headers...)
	if err != nil {
		m.t.Fatal(err)
	}
	return a
}

func (m *mesh) try(method, target string, headers ...string) (*answer, error) {
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := m.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{Status: res.StatusCode, Header: res.Header, Text: string(text), Cookies: res.Cookies()}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(text, a); err != nil {
			return nil, fmt.Errorf("cannot read %q: %w", text, err)
		}
	}
	return a, nil
}

// count sends n requests, workers at a time, and counts what by gives for each answer. Every answer must be a 200.
func (m *mesh) count(n, workers int, target string, by func(*answer) string, headers ...string) map[string]int {
	m.t.Helper()
	counts := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	for range workers {
		wg.Go(func() {
			for range work {
				a, err := m.try(http.MethodGet, target, headers...)
				key := ""
				switch {
				case err != nil:
					key = "error: " + err.Error()
				case a.Status != http.StatusOK:
					key = fmt.Sprintf("status %d: %s", a.Status, a.Text)
				default:
					key = by(a)
				}
				mu.Lock()
				counts[key]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return counts
}

// crowd calls f so many times at once.
func (m *mesh) crowd(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	failures := make(chan error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := f(i); err != nil {
				failures <- fmt.Errorf("client %d: %w", i, err)
			}
		})
	}
	wg.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}

func byInstance(a *answer) string { return a.Instance }
func byVersion(a *answer) string  { return a.Version }

// workload is the YAML of a Deployment whose pods have the labels app and version.
func workload(app, version string, replicas int, annotations ...string) string {
	var b strings.Builder
	for i := 0; i < len(annotations); i += 2 {
		fmt.Fprintf(&b, "\n        %s: %q", annotations[i], annotations[i+1])
	}
	notes := "{}"
	if b.Len() > 0 {
		notes = b.String()
	}
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s-%[2]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[1]s, version: %[2]s}}
  template:
    metadata:
      labels: {app: %[1]s, version: %[2]s}
      annotations: %[4]s
    spec: {containers: [{name: app, image: app, ports: [{containerPort: 8080}]}]}
`, app, version, replicas, notes)
}

// service is the YAML of a Service on port 80 for pods with the labels, "app: web, version: v1".
func service(name, labels string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {selector: {%s}, ports: [{name: http, port: 80, targetPort: 8080}]}
`, name, labels)
}

// versions is a service "web" over as many versions, with subsets, and a service "web-vN" for each.
func versions(n int) string {
	text := service("web", "app: web")
	subsets := ""
	for i := 1; i <= n; i++ {
		v := fmt.Sprintf("v%d", i)
		text += workload("web", v, 1) + service("web-"+v, "app: web, version: "+v)
		subsets += fmt.Sprintf("\n    - {name: %[1]s, labels: {version: %[1]s}}", v)
	}
	return text + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets:` + subsets + "\n"
}
