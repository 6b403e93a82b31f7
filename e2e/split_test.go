package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/outrider-mesh/outrider/cli/binomial"
)

// sure is the chance that a correct implementation passes one statistical check: one in a million runs fails by accident.
const sure = 0.999999

// shared checks that counts are what independent draws with the weights lead to, and that nothing else was counted.
func shared(t *testing.T, counts map[string]int, weights map[string]float64) {
	t.Helper()
	n, sum := 0, 0.0
	for _, c := range counts {
		n += c
	}
	for _, w := range weights {
		sum += w
	}
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		least, most := binomial.Bounds(n, weights[name]/sum, sure)
		if c := counts[name]; c < least || c > most {
			t.Errorf("%s got %d of %d requests, want %d to %d: %v", name, c, n, least, most, counts)
		}
	}
	for name, c := range counts {
		if _, ok := weights[name]; !ok {
			t.Errorf("%s got %d of %d requests, want none", name, c, n)
		}
	}
}

func TestSplitForms(t *testing.T) {
	t.Parallel()
	const n = 2000
	f := func(name, objects string, weights map[string]float64, headers ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := up(t, versions(3)+"---\n"+objects)
			shared(t, m.count(n, 8, "http://web/", byVersion, headers...), weights)
		})
	}
	f("VirtualService over subsets", `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web, subset: v1}, weight: 80}
    - {destination: {host: web, subset: v2}, weight: 15}
    - {destination: {host: web, subset: v3}, weight: 5}
`, map[string]float64{"v1": 80, "v2": 15, "v3": 5})
	f("VirtualService over hosts, relative weights", `
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web.default.svc.cluster.local]
  http:
  - route:
    - {destination: {host: web-v1}, weight: 1}
    - {destination: {host: web-v2}, weight: 3}
`, map[string]float64{"v1": 1, "v2": 3})
	f("VirtualService with a zero", `
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web, subset: v1}, weight: 0}
    - {destination: {host: web, subset: v2}, weight: 100}
`, map[string]float64{"v2": 1})
	f("VirtualService with a lone zero", `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web, subset: v3}, weight: 0}
`, map[string]float64{"v3": 1})
	f("TrafficSplit v1alpha1, quantities", `
apiVersion: split.smi-spec.io/v1alpha1
kind: TrafficSplit
metadata: {name: web}
spec:
  service: web
  backends:
  - {service: web-v1, weight: 900m}
  - {service: web-v2, weight: 100m}
  - {service: web-v9, weight: 0m}
`, map[string]float64{"v1": 9, "v2": 1})
	for _, version := range []string{"v1alpha2", "v1alpha3", "v1alpha4"} {
		f("TrafficSplit "+version, fmt.Sprintf(`
apiVersion: split.smi-spec.io/%s
kind: TrafficSplit
metadata: {name: web}
spec:
  service: web
  backends:
  - {service: web-v1, weight: 1000}
  - {service: web-v3, weight: 500}
`, version), map[string]float64{"v1": 2, "v3": 1})
	}
	const matched = `
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: beta}
spec: {matches: [{name: beta, headers: {x-beta: "^(1|true)$"}}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: web}
spec:
  service: web
  matches: [{kind: HTTPRouteGroup, name: beta}]
  backends:
  - {service: web-v2, weight: 50}
  - {service: web-v3, weight: 50}
`
	f("TrafficSplit v1alpha4 with a match that holds", matched, map[string]float64{"v2": 1, "v3": 1}, "x-beta", "true")
	f("TrafficSplit v1alpha4 with a match that does not", matched, map[string]float64{"v1": 1, "v2": 1, "v3": 1}, "x-beta", "no")
	f("HTTPRoute", `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - backendRefs:
    - {name: web-v1, port: 80, weight: 70}
    - {name: web-v2, port: 80, weight: 30}
    - {name: web-v3, port: 80, weight: 0}
`, map[string]float64{"v1": 70, "v2": 30})
	f("HTTPRoute v1beta1, default weights", `
apiVersion: gateway.networking.k8s.io/v1beta1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - backendRefs: [{name: web-v1, port: 80}, {name: web-v2, port: 80}, {name: web-v3, port: 80}]
`, map[string]float64{"v1": 1, "v2": 1, "v3": 1})
}

// TestSplitDrawsAreIndependent looks at what follows what: after a request to either version the next one's chances are the same.
func TestSplitDrawsAreIndependent(t *testing.T) {
	t.Parallel()
	m := up(t, versions(2)+`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web, subset: v1}, weight: 70}
    - {destination: {host: web, subset: v2}, weight: 30}
`)
	const n = 3000
	pairs := map[string]int{}
	last := m.get("http://web/").Version
	for range n { // one after the other, on one connection
		v := m.get("http://web/").Version
		pairs[last+" "+v]++
		last = v
	}
	for _, first := range []string{"v1", "v2"} {
		shared(t, map[string]int{"v1": pairs[first+" v1"], "v2": pairs[first+" v2"]}, map[string]float64{"v1": 70, "v2": 30})
	}
}
