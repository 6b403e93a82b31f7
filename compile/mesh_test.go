package compile

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// TestSealed compares the version that is put together from encoded parts with the contract's own.
func TestSealed(t *testing.T) {
	objects := generated(t)
	objects = append(objects, objectsOf(t, map[string]string{"headless.yaml": `
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: ns-1}
spec: {clusterIP: None, selector: {app: svc-1}, ports: [{name: http, port: 8080}]}
`})...)
	m, _ := New(objects, Options{})
	p := place(m)
	fewer := Placement{Instances: slices.Delete(slices.Clone(p.Instances), 10, 20), Gateways: p.Gateways}
	for _, p := range []*Placement{p, &fewer, p} {
		for _, w := range []string{"ns-1/svc-1-v1", "ns-3/svc-2-v2", "default/local"} {
			ns, name, _ := strings.Cut(w, "/")
			s, err := m.For(p, ns, name, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(); err != nil {
				t.Errorf("%s: %v", w, err)
			}
			want := *s
			if model.Seal(&want); s.Version != want.Version {
				t.Errorf("%s: version %s; model.Seal says %s", w, s.Version, want.Version)
			}
		}
	}
}

// TestPlacement follows endpoints through changes of the placement: another snapshot where one moved, the same version where
// nothing did, and no endpoint for whom nobody plays.
func TestPlacement(t *testing.T) {
	m, _ := New(objectsOf(t, map[string]string{"a.yaml": `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: x}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: bare}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}, annotations: {outrider.dev/sidecar: "false"}}, spec: {containers: [{name: a, image: x}]}}}
`}), Options{})
	addresses := func(s *model.Snapshot) (out []string) {
		for _, c := range s.Clusters {
			if c.Name != "outbound|80||web.default.svc.cluster.local" {
				continue
			}
			for _, e := range c.Endpoints {
				out = append(out, fmt.Sprintf("%s %t", e.Address, e.Sidecar))
			}
		}
		return out
	}
	first := place(m)
	a, err := m.For(first, "default", "local", "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(addresses(a)), "[127.1.0.1:80 false 127.1.0.2:80 true 127.1.0.3:80 true]"; got != want {
		t.Errorf("endpoints are %s; want %s", got, want)
	}
	if b, _ := m.For(place(m), "default", "local", "local-0"); b.Version != a.Version {
		t.Errorf("the same placement gives version %s, then %s", a.Version, b.Version)
	}
	second := place(m)
	for i := range second.Instances {
		if second.Instances[i].Name == "web-0" {
			second.Instances[i].Ports[0].App = "" // nobody plays it
		}
		if second.Instances[i].Name == "bare-0" {
			second.Instances[i].Ports[0].App = "" // nobody says so of a workload without a sidecar
		}
	}
	c, err := m.For(second, "default", "local", "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(addresses(c)), "[127.1.0.1:80 false 127.1.0.3:80 true]"; got != want {
		t.Errorf("endpoints are %s; want %s", got, want)
	}
	if c.Version == a.Version {
		t.Errorf("an endpoint went away, and the version is still %s", c.Version)
	}
	for _, ask := range []struct{ ns, name, instance, want string }{
		{"default", "nobody", "", "cannot compile default/nobody: there is no such workload"},
		{"default", "web", "web-9", `cannot compile default/web: it has no instance "web-9"`},
		{"default", "bare", "", "it has no sidecar"},
	} {
		if _, err := m.For(first, ask.ns, ask.name, ask.instance); err == nil || !strings.Contains(err.Error(), ask.want) {
			t.Errorf("For(%s/%s %s): %v; want %q", ask.ns, ask.name, ask.instance, err, ask.want)
		}
	}
	if _, err := m.ForGateway(first, "a", "b"); err == nil {
		t.Error("ForGateway of no gateway succeeds")
	}
	if l := m.Local(); l.Name != "local" || l.Labels["app"] != "local" || !l.Sidecar || l.CanonicalName != "local" {
		t.Errorf("Local is %+v", l)
	}
}

// TestConcurrentUse asks one mesh for many snapshots at once; equal questions have equal answers.
func TestConcurrentUse(t *testing.T) {
	m, _ := New(generated(t)[:400], Options{})
	p := place(m)
	var wg sync.WaitGroup
	versions := make([]string, 8)
	for i := range versions {
		wg.Go(func() {
			for range 3 {
				s, err := m.For(p, "ns-0", "svc-1-v1", "")
				if err != nil {
					t.Error(err)
					return
				}
				versions[i] = s.Version
				m.Services()
			}
		})
	}
	wg.Wait()
	for _, v := range versions {
		if v == "" || v != versions[0] {
			t.Errorf("versions differ: %v", versions)
		}
	}
}

// TestOrder gives New the same objects in two orders.
func TestOrder(t *testing.T) {
	objects := generated(t)[:300]
	a, findingsA := New(objects, Options{})
	turned := slices.Clone(objects)
	slices.Reverse(turned)
	b, findingsB := New(turned, Options{})
	sa, err := a.For(place(a), "default", "local", "")
	if err != nil {
		t.Fatal(err)
	}
	sb, err := b.For(place(b), "default", "local", "")
	if err != nil {
		t.Fatal(err)
	}
	if sa.Version != sb.Version || !slices.Equal(findingsA, findingsB) {
		t.Error("the order of objects in New's argument decides something")
	}
}

// TestIDs holds every finding's id unique and explained.
func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range IDs() {
		if seen[id.ID] || id.Meaning == "" || !strings.HasPrefix(id.ID, "OR2") {
			t.Errorf("%+v is not unique, or unexplained", id)
		}
		seen[id.ID] = true
	}
}

// FuzzCompile compiles whatever decodes: no panic, valid snapshots, for every workload and gateway.
func FuzzCompile(f *testing.F) {
	for _, file := range transcripts(f) {
		var b strings.Builder
		for _, s := range sectionsOf(file) {
			if s.input() {
				b.WriteString("---\n" + withMaterial(f, s.body))
			}
		}
		f.Add([]byte(b.String()))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file := config.Decode("fuzz.yaml", data)
		m, findings := New(file.Objects, Options{})
		if _, err := json.Marshal(findings); err != nil {
			t.Fatal(err)
		}
		p := &Placement{}
		for _, w := range m.Templates() {
			x := Instance{Namespace: w.Namespace, Workload: w.Name, Name: w.Name + "-0", Address: "127.1.0.1", Outbound: "127.1.0.1:15001", Sidecar: w.Sidecar}
			for _, tp := range w.Ports {
				x.Ports = append(x.Ports, InstancePort{Port: tp.Port, Listen: "127.1.0.1:1", App: "127.0.0.1:2"})
			}
			p.Instances = append(p.Instances, x)
		}
		p.Instances = append(p.Instances, Instance{Namespace: "default", Workload: "local", Name: "local-0", Outbound: "127.0.0.1:15001", Sidecar: true})
		check := func(s *model.Snapshot, err error) {
			if err != nil {
				return
			}
			if err := s.Validate(); err != nil {
				t.Fatal(err)
			}
			if err := runnable(s); err != nil {
				t.Fatal(err)
			}
		}
		for _, x := range p.Instances {
			check(m.For(p, x.Namespace, x.Workload, x.Name))
		}
		for _, g := range m.Gateways() {
			for _, port := range g.Ports {
				p.Gateways = append(p.Gateways, GatewayListen{Namespace: g.Namespace, Workload: g.Name, Port: port, Listen: "127.0.0.1:80"})
			}
		}
		q := *p
		for _, g := range m.Gateways() {
			check(m.ForGateway(&q, g.Namespace, g.Name))
		}
		m.Services()
	})
}

// TestExamples compiles the examples that the binary carries: nothing in them may be wrong or without effect.
func TestExamples(t *testing.T) {
	for _, dir := range []string{"bookinfo", "canary", "grpc", "helloworld", "storefront"} {
		paths, err := filepath.Glob("../examples/" + dir + "/*.yaml")
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: no files: %v", dir, err)
		}
		var objects []*config.Object
		for _, path := range paths {
			if strings.Contains(path, "virtual-service-") {
				continue // alternatives for one host
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			objects = append(objects, config.Decode(path, text).Objects...)
		}
		m, findings := New(objects, Options{})
		for _, f := range findings {
			t.Errorf("%s", f)
		}
		p := place(m)
		for _, w := range append(m.Templates(), m.Local()) {
			s, err := m.For(p, w.Namespace, w.Name, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(); err != nil {
				t.Errorf("%s/%s: %v", w.Namespace, w.Name, err)
			}
		}
	}
}
