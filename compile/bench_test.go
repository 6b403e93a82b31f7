package compile

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// generated is a mesh of 1,000 services in 20 namespaces, with 10 instances each, 500 of them split by a VirtualService.
func generated(tb testing.TB) []*config.Object {
	files := map[string]string{}
	for ns := range 20 {
		var b strings.Builder
		for i := range 50 {
			name := fmt.Sprintf("svc-%d", i)
			fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: ns-%[2]d}
spec: {clusterIP: 10.%[2]d.0.%[3]d, selector: {app: %[1]s}, ports: [{name: http, port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s-v1, namespace: ns-%[2]d}
spec:
  replicas: 5
  selector: {matchLabels: {app: %[1]s, version: v1}}
  template:
    metadata: {labels: {app: %[1]s, version: v1}}
    spec: {containers: [{name: app, image: app, ports: [{containerPort: 8080}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s-v2, namespace: ns-%[2]d}
spec:
  replicas: 5
  selector: {matchLabels: {app: %[1]s, version: v2}}
  template:
    metadata: {labels: {app: %[1]s, version: v2}}
    spec: {containers: [{name: app, image: app, ports: [{containerPort: 8080}]}]}
`, name, ns, i+1)
			if i%2 == 0 {
				fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[1]s, namespace: ns-%[2]d}
spec: {host: %[1]s, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %[1]s, namespace: ns-%[2]d}
spec:
  hosts: [%[1]s]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: %[1]s, subset: v2}}]
  - route:
    - {destination: {host: %[1]s, subset: v1}, weight: 90}
    - {destination: {host: %[1]s, subset: v2}, weight: 10}
`, name, ns)
			}
		}
		files[fmt.Sprintf("ns-%02d.yaml", ns)] = b.String()
	}
	return objectsOf(tb, files)
}

// measured reports a snapshot's size on the wire, and the heap that it and its mesh take.
func measured(b *testing.B, make func() *model.Snapshot) {
	b.Helper()
	b.StopTimer()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // the second one empties what pools keep through the first
	runtime.ReadMemStats(&before)
	s := make()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	wire, err := json.Marshal(s)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(wire)), "wire-bytes")
	b.ReportMetric(float64(after.HeapObjects)-float64(before.HeapObjects), "live-objects")
	b.ReportMetric(float64(after.HeapAlloc)-float64(before.HeapAlloc), "live-bytes")
	runtime.KeepAlive(s)
}

// BenchmarkFull is a full compile: objects to mesh, and one workload's snapshot of it.
func BenchmarkFull(b *testing.B) {
	objects := generated(b)
	m, _ := New(objects, Options{})
	p := place(m)
	b.ReportAllocs()
	var kept *Mesh
	one := func() *model.Snapshot {
		kept, _ = New(objects, Options{})
		s, err := kept.For(p, "ns-3", "svc-1-v1", "")
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	for b.Loop() {
		one()
	}
	kept = nil
	measured(b, one)
	runtime.KeepAlive(kept)
}

// BenchmarkNew is the mesh alone.
func BenchmarkNew(b *testing.B) {
	objects := generated(b)
	b.ReportAllocs()
	for b.Loop() {
		New(objects, Options{})
	}
}

// BenchmarkEndpointChange is one workload's snapshot after one instance went away.
func BenchmarkEndpointChange(b *testing.B) {
	m, _ := New(generated(b), Options{})
	all := place(m)
	fewer := *all
	fewer.Instances = append([]Instance{}, all.Instances[:500]...)
	fewer.Instances = append(fewer.Instances, all.Instances[501:]...)
	one := func() *model.Snapshot {
		p := fewer
		s, err := m.For(&p, "ns-3", "svc-1-v1", "")
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	one()
	b.ReportAllocs()
	for b.Loop() {
		one()
	}
}

// BenchmarkNextWorkload is the snapshot of a further workload of a namespace, placement unchanged: everything is shared.
func BenchmarkNextWorkload(b *testing.B) {
	m, _ := New(generated(b), Options{})
	p := place(m)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.For(p, "ns-3", "svc-1-v1", ""); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCut is BenchmarkNextWorkload without the seal, which encodes the snapshot to name its content.
func BenchmarkCut(b *testing.B) {
	m, _ := New(generated(b), Options{})
	p := place(m)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := m.cut(p, "ns-3", "svc-1-v1", ""); err != nil {
			b.Fatal(err)
		}
	}
}
