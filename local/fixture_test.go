package local

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

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
		Timeout:   time.Minute,
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
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			f.t.Fatalf("never: %s; people were told:\n%s", what, f.talk)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// body fetches url.
func (f *fixture) body(client *http.Client, url string) string {
	f.t.Helper()
	r, err := client.Get(url)
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// behave has stand-ins answer as the query says, as usual where that is empty.
func (f *fixture) behave(query string, instances ...string) {
	f.t.Helper()
	for _, instance := range instances {
		r, err := http.Post(f.Ready().Admin+"/stand-ins/default/"+instance+"?"+query, "", nil)
		if err != nil {
			f.t.Fatal(err)
		}
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK {
			f.t.Fatalf("%s %s: %d", instance, query, r.StatusCode)
		}
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
