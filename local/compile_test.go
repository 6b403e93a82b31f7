package local

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

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
