package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// shop is a service with an entry in each of five places, called by client workloads in three.
const shop = `
apiVersion: v1
kind: Service
metadata: {name: shop, annotations: {ANNOTATIONS}}
spec: {selector: {app: shop}, ports: [{name: http, port: 80}]SPEC}
---
` + `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: shop-11a}
spec: {address: 10.0.0.1, labels: {app: shop, version: v1}, locality: r1/z1/a}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: shop-11b}
spec: {address: 10.0.0.2, labels: {app: shop, version: v2}, locality: r1/z1/b}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: shop-12a}
spec: {address: 10.0.0.3, labels: {app: shop, version: v1}, locality: r1/z2/a, weight: 3}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: shop-21a}
spec: {address: 10.0.0.4, labels: {app: shop, version: v1}, locality: r2/z1/a}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: shop-31a}
spec: {address: 10.0.0.5, labels: {app: shop, version: v2}, locality: r3/z1/a}
---
apiVersion: v1
kind: Pod
metadata: {name: in-11a, labels: {app: client, version: v2, istio-locality: r1.z1.a}}
spec: {containers: [{name: a, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: in-12, labels: {app: client, version: v1}}
spec: {nodeSelector: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z2}, containers: [{name: a, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: nowhere, labels: {app: client}}
spec: {containers: [{name: a, image: x}]}
---
`

func shopWith(annotations, spec, more string) string {
	return strings.Replace(strings.Replace(shop, "ANNOTATIONS", annotations, 1), "SPEC", spec, 1) + more
}

// seen lists the endpoints of a client's cluster: "11a:priority/share".
func seen(t *testing.T, m *Mesh, client, name string) string {
	t.Helper()
	s, err := m.For(place(m), "default", client, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	want := *s
	if model.Seal(&want); s.Version != want.Version {
		t.Errorf("%s: version %s; model.Seal says %s", client, s.Version, want.Version)
	}
	for _, c := range s.Clusters {
		if c.Name != name {
			continue
		}
		var out []string
		for _, e := range c.Endpoints {
			out = append(out, fmt.Sprintf("%s:%d/%d", strings.TrimSuffix(strings.TrimPrefix(e.Instance, "shop-"), "-0"), e.Priority, e.Share))
		}
		return strings.Join(out, " ")
	}
	t.Fatalf("%s: no cluster %s", client, name)
	return ""
}

const shopCluster = "outbound|80||shop.default.svc.cluster.local"

func rule(text string) string {
	return `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop}
spec: {host: shop, trafficPolicy: {` + text + `}}
`
}

func TestDistribute(t *testing.T) {
	m, findings := New(objectsOf(t, map[string]string{"a.yaml": shopWith("", "", rule(`loadBalancer: {localityLbSetting: {distribute: [
		{from: r1/z1/*, to: {r1/z1/a: 70, "r1/*": 20, r2/z1/a: 10}},
		{from: r1/z2, to: {"*": 60, r3/z1/a: 40}},
		{from: r9, to: {r9: 100}}]}}`))}), Options{})
	if len(findings) > 0 {
		t.Errorf("%v", findings)
	}
	f := func(client, want string) {
		t.Helper()
		if got := seen(t, m, client, shopCluster); got != want {
			t.Errorf("%s sees %s, want %s", client, got, want)
		}
	}
	// r1/* has what the more exact pattern leaves: z1/b of weight 1 and z2/a of weight 3. What is not named is not used.
	f("in-11a", "11a:0/70 11b:0/5 12a:0/15 21a:0/10")
	f("in-12", "11a:0/10 11b:0/10 12a:0/30 21a:0/10 31a:0/40")
	f("nowhere", "11a:0/0 11b:0/0 12a:0/0 21a:0/0 31a:0/0")
}

// TestNearbyEndpoints asks for endpoints nearby in each way that a Service has.
func TestNearbyEndpoints(t *testing.T) {
	f := func(annotations, spec, more, client, want string) {
		t.Helper()
		m, findings := New(objectsOf(t, map[string]string{"a.yaml": shopWith(annotations, spec, more)}), Options{})
		if len(findings) > 0 {
			t.Errorf("%v", findings)
		}
		if got := seen(t, m, client, shopCluster); got != want {
			t.Errorf("%s %s: %s sees %s, want %s", annotations, spec, client, got, want)
		}
	}
	const plain = "11a:0/0 11b:0/0 12a:0/0 21a:0/0 31a:0/0"
	f("", "", "", "in-11a", plain)
	f("", ", trafficDistribution: PreferClose", "", "in-11a", "11a:0/0 11b:1/0 12a:2/0 21a:3/0 31a:3/0")
	f("", ", trafficDistribution: PreferClose", "", "in-12", "11a:1/0 11b:1/0 12a:0/0 21a:2/0 31a:2/0")
	f("", ", trafficDistribution: PreferSameZone", "", "in-11a", "11a:0/0 11b:0/0 12a:1/0 21a:2/0 31a:2/0")
	f("", ", trafficDistribution: PreferSameNode", "", "in-11a", "11a:0/0 11b:1/0 12a:2/0 21a:3/0 31a:3/0")
	f("networking.istio.io/traffic-distribution: PreferClose", "", "", "in-11a", "11a:0/0 11b:1/0 12a:2/0 21a:3/0 31a:3/0")
	f("networking.istio.io/traffic-distribution: Any", ", trafficDistribution: PreferClose", "", "in-11a", plain)
	// A DestinationRule's own setting replaces the Service's.
	f("", ", trafficDistribution: PreferClose", rule(`loadBalancer: {localityLbSetting: {enabled: false}}`), "in-11a", plain)
	f("", ", trafficDistribution: PreferClose", rule(`loadBalancer: {simple: RANDOM}`), "in-11a", "11a:0/0 11b:1/0 12a:2/0 21a:3/0 31a:3/0")
}

// TestSameNode tells endpoints of one zone apart by the node that their pods ask for.
func TestSameNode(t *testing.T) {
	m, _ := New(objectsOf(t, map[string]string{"a.yaml": `
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, trafficDistribution: PreferSameNode, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: shop-1, labels: {app: shop}}
spec: {nodeName: n1, containers: [{name: a, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: shop-2, labels: {app: shop}}
spec: {nodeSelector: {kubernetes.io/hostname: n2}, containers: [{name: a, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: n2, containers: [{name: a, image: x}]}
`}), Options{})
	if got, want := seen(t, m, "client", shopCluster), "1:1/0 2:0/0"; got != want {
		t.Errorf("the client sees %s, want %s", got, want)
	}
}

// TestFailover ranks candidates by locality and by labels.
func TestFailover(t *testing.T) {
	var all []candidate
	for _, l := range []string{"r1/z1/a", "r1/z1/b", "r1/z2/a", "r2/z1/a", "r3/z1/a", ""} {
		version := "v1"
		if strings.HasSuffix(l, "b") || l == "r3/z1/a" {
			version = "v2"
		}
		all = append(all, candidate{labels: map[string]string{"version": version}, endpoint: model.Endpoint{Weight: 1, Locality: localityOf(l, "/")}})
	}
	f := func(p *preference, client, version string, want ...uint32) {
		t.Helper()
		var got []uint32
		for _, e := range p.preferred(all, &site{locality: localityOf(client, "/"), labels: map[string]string{"version": version}}) {
			got = append(got, e.Priority)
		}
		if !slices.Equal(got, want) {
			t.Errorf("from %s, %s: %v, want %v", client, version, got, want)
		}
	}
	none := &preference{}
	f(none, "r1/z1/a", "", 0, 1, 2, 3, 3, 3)
	f(none, "r1/z1", "", 0, 0, 1, 2, 2, 2)
	f(none, "r1", "", 0, 0, 0, 1, 1, 1)
	f(none, "r2/z1/a", "", 1, 1, 1, 0, 1, 1)
	f(none, "r9/z1/a", "", 0, 0, 0, 0, 0, 0)
	f(none, "", "", 1, 1, 1, 1, 1, 0)
	to := &preference{failover: []*networking.LocalityLoadBalancerSetting_Failover{{From: "r1", To: "r3"}, {From: "r1", To: "r2"}, {From: "r2", To: "r1"}}}
	f(to, "r1/z1/a", "", 0, 1, 2, 4, 3, 4)
	f(to, "r2/z1/a", "", 1, 1, 1, 0, 2, 2)
	f(to, "r3/z1/a", "", 1, 1, 1, 1, 0, 1)
	labels := &preference{labels: []string{regionLabel, "version"}}
	f(labels, "r1/z1/a", "v1", 0, 1, 0, 2, 2, 2)
	f(labels, "r1/z1/a", "v2", 1, 0, 1, 2, 2, 2)
	f(labels, "r1/z1/a", "", 0, 0, 0, 1, 1, 1)
	f(&preference{labels: []string{"version=v2", zoneLabel}}, "r1/z1/a", "v1", 1, 0, 1, 1, 0, 1)
	// Both: labels first, then regions.
	f(&preference{labels: []string{"version"}, failover: to.failover}, "r1/z1/a", "v1", 0, 3, 1, 2, 4, 2)
}

// TestLocalityOnlyWhereAsked says that clients in different places share what they see as long as nothing depends on it.
func TestLocalityOnlyWhereAsked(t *testing.T) {
	f := func(more string, same bool) {
		t.Helper()
		m, _ := New(objectsOf(t, map[string]string{"a.yaml": shopWith("", "", more)}), Options{})
		p := place(m)
		views := map[*placedView]bool{}
		for _, client := range []string{"in-11a", "in-12", "nowhere"} {
			if _, err := m.For(p, "default", client, ""); err != nil {
				t.Fatal(err)
			}
		}
		for v := range maps.Values(m.placed.views) {
			views[v] = true
		}
		if (len(views) == 1) != same {
			t.Errorf("%q: %d views for three clients", more, len(views))
		}
	}
	f("", true)
	f(rule(`loadBalancer: {localityLbSetting: {enabled: true}}`), true) // nothing is ejected
	f(rule(`loadBalancer: {localityLbSetting: {distribute: [{from: "*", to: {"*": 100}}]}}`), false)
}

func TestWarmup(t *testing.T) {
	f := func(text string, want *model.Warmup) {
		t.Helper()
		m, findings := New(objectsOf(t, map[string]string{"a.yaml": shopWith("", "", rule(text))}), Options{})
		if len(findings) > 0 {
			t.Errorf("%s: %v", text, findings)
		}
		lb := shopBalancer(t, m)
		if fmt.Sprint(lb.Warmup) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", text, lb.Warmup, want)
		}
	}
	seconds := func(n int) model.Duration { return model.Duration(n) * 1e9 }
	f(`loadBalancer: {simple: ROUND_ROBIN}`, nil)
	f(`loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s}}`, &model.Warmup{Duration: seconds(30), MinimumPercent: 10, Aggression: 1})
	f(`loadBalancer: {simple: LEAST_REQUEST, warmup: {duration: 30s, minimumPercent: 25, aggression: 1.5}}`, &model.Warmup{Duration: seconds(30), MinimumPercent: 25, Aggression: 1.5})
	f(`loadBalancer: {warmupDurationSecs: 7s}`, &model.Warmup{Duration: seconds(7), MinimumPercent: 10, Aggression: 1})
}

func shopBalancer(t *testing.T, m *Mesh) model.LoadBalancer {
	t.Helper()
	s, err := m.For(place(m), "default", "nowhere", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Clusters {
		if c.Name == shopCluster {
			return c.LoadBalancer
		}
	}
	t.Fatal("no cluster")
	return model.LoadBalancer{}
}

// TestBalancerAnnotations sets what Istio has no field for.
func TestBalancerAnnotations(t *testing.T) {
	f := func(service, annotations, text string, policy model.Policy, bound uint32, findings ...string) {
		t.Helper()
		more := ""
		if text != "" {
			more = strings.Replace(rule(text), "{name: shop}", "{name: shop, annotations: {"+annotations+"}}", 1)
		}
		m, got := New(objectsOf(t, map[string]string{"a.yaml": shopWith(service, "", more)}), Options{})
		for i, finding := range got {
			if i >= len(findings) || !strings.Contains(finding.String(), findings[i]) {
				t.Errorf("finding: %s", finding)
			}
		}
		if len(got) < len(findings) {
			t.Errorf("findings %v, want %v", got, findings)
		}
		if lb := shopBalancer(t, m); lb.Policy != policy || lb.Bound != bound {
			t.Errorf("service %q, rule %q %q: %s, bound %d", service, annotations, text, lb.Policy, lb.Bound)
		}
	}
	const peak = "outrider.dev/load-balancer: PEAK_EWMA"
	f("", "", "", "", 0)
	f(peak, "", "", model.PeakEWMA, 0)
	f(peak, "", "loadBalancer: {simple: RANDOM}", model.Random, 0)
	f(peak, "", "loadBalancer: {localityLbSetting: {enabled: false}}", model.PeakEWMA, 0)
	f("", peak, "loadBalancer: {simple: RANDOM}", model.PeakEWMA, 0)
	f("", peak, "connectionPool: {tcp: {connectTimeout: 1s}}", model.PeakEWMA, 0)
	f("", peak, "loadBalancer: {consistentHash: {useSourceIp: true}}", model.RingHash, 0)
	f("outrider.dev/load-balancer: FASTEST", "", "", "", 0, `"FASTEST" is no load balancer`)
	const hash = "loadBalancer: {consistentHash: {useSourceIp: true}}"
	f("", `outrider.dev/hash-balance-factor: "125"`, hash, model.RingHash, 125)
	f("", `outrider.dev/hash-balance-factor: "125"`, "portLevelSettings: [{port: {number: 80}, "+hash+"}]", model.RingHash, 125)
	f("", `outrider.dev/hash-balance-factor: "99"`, hash, model.RingHash, 0, `"99" is no percentage of at least 100`)
	f("", `outrider.dev/hash-balance-factor: "125"`, "loadBalancer: {simple: RANDOM}", model.Random, 0, "no consistentHash")
	f(`outrider.dev/hash-balance-factor: "125"`, "", "", "", 0, "on a DestinationRule only")
}

func TestFailoverNeedsOutlierDetection(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, findings := New(objectsOf(t, map[string]string{"a.yaml": shopWith("", "", rule(text))}), Options{})
		got := ""
		for _, finding := range findings {
			if strings.Contains(finding.Message, "without outlierDetection") {
				got += finding.Field
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	const failover = "loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r2}]}}"
	f(failover, "spec.trafficPolicy.loadBalancer.localityLbSetting.failover")
	f(failover+", outlierDetection: {interval: 1s}", "")
	f("loadBalancer: {localityLbSetting: {failoverPriority: [a]}}", "spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority")
	f("loadBalancer: {localityLbSetting: {enabled: false, failoverPriority: [a]}}", "")
	f("outlierDetection: {interval: 1s}, portLevelSettings: [{port: {number: 80}, "+failover+"}]", "spec.trafficPolicy.portLevelSettings[0].loadBalancer.localityLbSetting.failover")
}
