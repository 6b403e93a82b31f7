package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func get(h http.Handler, path string) (int, string, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Header().Get("Content-Type"), w.Body.String()
}

func TestSurface(t *testing.T) {
	var notReady error
	var snapshot *model.Snapshot
	m := telemetry.New(model.Peer{Name: "web"}, telemetry.Options{Version: "1"})
	h := New(Options{
		Metrics: m, Ready: func() error { return notReady }, Snapshot: func() *model.Snapshot { return snapshot },
		Clusters: func() []ClusterStatus {
			return []ClusterStatus{{
				Name: "outbound|9080||reviews.default.svc.cluster.local", Policy: model.RoundRobin,
				Endpoints: []EndpointStatus{
					{Address: "127.1.0.4:9080", Instance: "reviews-v1-0", Weight: 1, Active: 3, Busy: 3, Idle: 2, Opened: 9, Failed: 1},
					{Address: "127.1.0.5:9080", Weight: 2, Locality: model.Locality{Region: "r", Zone: "z"}},
					{Address: "127.1.0.6:9080", Ejected: true, Reason: "consecutive_5xx", Until: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)},
					{Address: "127.1.0.7:9080", Unready: true},
				},
			}}
		},
	})
	f := func(path string, status int, contentType string, contains ...string) {
		t.Helper()
		got, kind, body := get(h, path)
		if got != status || !strings.HasPrefix(kind, contentType) {
			t.Errorf("%s: %d %s", path, got, kind)
		}
		for _, c := range contains {
			if !strings.Contains(body, c) {
				t.Errorf("%s lacks %q: %s", path, c, body)
			}
		}
	}
	f("/stats/prometheus", 200, "text/plain; version=0.0.4", `istio_build{component="proxy",tag="1"} 1`)
	f("/healthz/ready", 200, "text/plain", "ready\n")
	notReady = errors.New("no snapshot has been applied yet")
	f("/healthz/ready", 503, "text/plain", "no snapshot has been applied yet\n")
	f("/config_dump", 503, "text/plain", "no snapshot")
	snapshot = model.Seal(&model.Snapshot{Workload: model.Workload{Instance: "web-0"}})
	f("/config_dump", 200, "application/json", `"version": "`+snapshot.Version+`"`, `"instance": "web-0"`)
	f("/clusters", 200, "text/plain",
		"outbound|9080||reviews.default.svc.cluster.local::policy::ROUND_ROBIN\n",
		"outbound|9080||reviews.default.svc.cluster.local::127.1.0.4:9080::rq_active::3\n",
		"::127.1.0.4:9080::cx_active::5\n", "::127.1.0.4:9080::cx_total::9\n", "::127.1.0.4:9080::cx_connect_fail::1\n",
		"::127.1.0.4:9080::hostname::reviews-v1-0\n", "::127.1.0.5:9080::weight::2\n", "::127.1.0.5:9080::zone::z\n",
		"::127.1.0.4:9080::health_flags::healthy\n", "::127.1.0.6:9080::health_flags::/failed_outlier_check\n", "::127.1.0.7:9080::health_flags::/failed_active_hc\n",
		"::127.1.0.6:9080::ejected::consecutive_5xx\n", "::127.1.0.6:9080::ejected_until::2026-02-03T04:05:06Z\n")
	f("/clusters?format=json", 200, "application/json", `"active": 3`, `"instance": "reviews-v1-0"`, `"until": "2026-02-03T04:05:06Z"`)
	f("/clusters?format=xml", 400, "text/plain")
	f("/", 404, "text/plain")

	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/config_dump", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered %d", w.Code)
	}
	// What was not given is not there.
	h = New(Options{Ready: func() error { return nil }})
	for _, path := range []string{"/stats/prometheus", "/config_dump", "/clusters"} {
		f(path, 404, "text/plain")
	}
	h = New(Options{Clusters: func() []ClusterStatus { return nil }})
	f("/clusters?format=json", 200, "application/json", "[]\n")
}

func TestRedact(t *testing.T) {
	secret := model.NameValue{Name: "Authorization", Value: "Bearer hunter2"}
	s := model.Seal(&model.Snapshot{Tables: []model.Table{{
		Unmatched: &model.Rule{Reply: &model.Reply{Status: 404, Headers: []model.NameValue{{Name: "set-cookie", Value: "hunter2"}}}},
		Hosts: []model.VirtualHost{{Rules: []model.Rule{{
			Matches: []model.Match{{Headers: []model.KeyMatch{
				{Name: "x-api-key", StringMatch: model.StringMatch{Kind: model.Exact, Value: "hunter2"}},
				{Name: "x-user", StringMatch: model.StringMatch{Kind: model.Exact, Value: "jason"}},
			}}},
			Request: model.HeaderEdits{Set: []model.NameValue{secret, {Name: "x-shown", Value: "shown"}}, Add: []model.NameValue{{Name: "x-vault-token", Value: "hunter2"}}},
			Route:   &model.Route{Destinations: []model.Destination{{Cluster: "c", Response: model.HeaderEdits{Set: []model.NameValue{secret}}}}},
		}}}},
	}}})
	encode := func(s *model.Snapshot) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := encode(s)
	got := encode(Redact(s))
	if strings.Contains(got, "hunter2") || strings.Count(got, Redacted) != 5 {
		t.Errorf("the dump is %s", got)
	}
	for _, want := range []string{"jason", "shown", `"x-api-key"`, s.Version} {
		if !strings.Contains(got, want) {
			t.Errorf("the dump lacks %s", want)
		}
	}
	if encode(s) != before {
		t.Error("the snapshot itself was changed")
	}
	plain := model.Seal(&model.Snapshot{})
	if Redact(plain) != plain || Redact(nil) != nil {
		t.Error("a snapshot without secrets is copied")
	}
}

// A snapshot is dumped, so nothing that is secret by itself may become part of it: keys belong to mesh/identity.
func TestSnapshotHasNoSecretFields(t *testing.T) {
	forbidden := regexp.MustCompile(`(?i)private|secret|password|token|credential|^key(pem)?$`)
	seen := map[reflect.Type]bool{}
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(path, typ.Elem())
		case reflect.Struct:
			if seen[typ] {
				return
			}
			seen[typ] = true
			for i := range typ.NumField() {
				f := typ.Field(i)
				if f.Tag.Get("json") == "-" {
					continue // passes as a pointer only; what is dumped is JSON
				}
				text := f.Type.Kind() == reflect.String || f.Type.Kind() == reflect.Slice
				if text && forbidden.MatchString(f.Name) {
					t.Errorf("%s.%s looks like a secret", path, f.Name)
				}
				walk(path+"."+f.Name, f.Type)
			}
		}
	}
	walk("Snapshot", reflect.TypeFor[model.Snapshot]())
	if !seen[keyMatch] || !seen[nameValue] {
		t.Error("the walk did not reach the header fields")
	}
}

func TestServer(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	s, err := Listen("127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(began)
			<-goOn
		}
		_, _ = io.WriteString(w, "hello")
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(s.Address(), nil, nil); err == nil || !strings.Contains(err.Error(), s.Address()) {
		t.Errorf("a taken address gives %v", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answers := make(chan string)
	go func() {
		r, err := client.Get("http://" + s.Address() + "/slow")
		if err != nil {
			answers <- err.Error()
			return
		}
		b, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		answers <- string(b)
	}()
	<-began
	closed := make(chan error)
	go func() { closed <- s.Close(context.Background()) }()
	// It no longer listens, and still answers what is under way.
	for {
		c, err := net.DialTimeout("tcp", s.Address(), time.Second)
		if err != nil {
			break
		}
		_ = c.Close()
	}
	close(goOn)
	if got := <-answers; got != "hello" {
		t.Errorf("the answer under way is %q", got)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestServerEndsInTime(t *testing.T) {
	began, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	s, err := Listen("127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(began)
		<-over // an answer that takes for ever, and heeds nothing
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	failed := make(chan error)
	go func() {
		_, err := client.Get("http://" + s.Address())
		failed <- err
	}()
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close gives %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request that took for ever got an answer")
	}
}

// TestCloseEndsStreams closes a server while an answer without end is under way.
func TestCloseEndsStreams(t *testing.T) {
	begun := make(chan struct{})
	s, err := Listen("127.0.0.1:0", New(Options{Stream: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	})}), nil)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	go func() { // the test waits for left
		defer close(left)
		if r, err := http.Get("http://" + s.Address() + "/hystrix.stream"); err == nil {
			_ = r.Body.Close()
		}
		http.DefaultClient.CloseIdleConnections()
	}()
	<-begun
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	<-left
}
