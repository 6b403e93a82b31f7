package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/local"
)

// balanced is a service "web" over instances web-v1-0..., balanced as the policy says.
func balanced(instances int, policy string, annotations ...string) string {
	return service("web", "app: web") + workload("web", "v1", instances, annotations...) + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy: {loadBalancer: ` + policy + `}
`
}

func replicas(n int) func(*local.Options) { return func(o *local.Options) { o.MaxReplicas = n } }

func even(n int) map[string]float64 {
	weights := map[string]float64{}
	for i := range n {
		weights[fmt.Sprintf("web-v1-%d", i)] = 1
	}
	return weights
}

func TestRoundRobinIsExact(t *testing.T) {
	t.Parallel()
	m := up(t, balanced(4, "{simple: ROUND_ROBIN}"), replicas(4))
	counts := m.count(400, 1, "http://web/", byInstance)
	for name := range even(4) {
		if counts[name] != 100 {
			t.Errorf("%s got %d of 400 requests, want exactly 100: %v", name, counts[name], counts)
		}
	}
}

func TestRandomIsEven(t *testing.T) {
	t.Parallel()
	m := up(t, balanced(4, "{simple: RANDOM}"), replicas(4))
	const n = 3000
	counts := map[string]int{}
	pairs := map[string]map[string]int{}
	last := m.get("http://web/").Instance
	for range n {
		in := m.get("http://web/").Instance
		counts[in]++
		if pairs[last] == nil {
			pairs[last] = map[string]int{}
		}
		pairs[last][in]++
		last = in
	}
	shared(t, counts, even(4))
	for _, after := range pairs { // what follows does not depend on what was
		shared(t, after, even(4))
	}
}

// TestLeastRequestAvoidsTheBusy gives one of four endpoints answers that take long: it must get far less than a quarter.
func TestLeastRequestAvoidsTheBusy(t *testing.T) {
	t.Parallel()
	m := up(t, balanced(4, "{simple: LEAST_REQUEST}"), replicas(4))
	shared(t, m.count(2000, 1, "http://web/", byInstance), even(4)) // all idle: two random choices are a random choice
	res, err := http.Post(m.ready.Admin+"/stand-ins/default/web-v1-2?delay=1s", "", nil)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(err, res)
	}
	_ = res.Body.Close()
	counts := m.count(2000, 16, "http://web/", byInstance)
	if counts["web-v1-2"] > 2000/10 {
		t.Errorf("the slow instance got %d of 2000 requests, want far less than a quarter: %v", counts["web-v1-2"], counts)
	}
	for name := range even(4) {
		if counts[name] == 0 {
			t.Errorf("%s got nothing: %v", name, counts)
		}
	}
}

// TestWeightedEndpoints gives the endpoints of a ServiceEntry weights, which the default balancer, round robin and random respect.
func TestWeightedEndpoints(t *testing.T) {
	t.Parallel()
	f := func(policy string) {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			var endpoints strings.Builder
			weights := map[string]float64{}
			for i, weight := range []int{1, 2, 5} {
				name := fmt.Sprintf("e%d", i)
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					fmt.Fprintf(w, `{"instance": %q}`, name)
				}))
				t.Cleanup(s.Close)
				host, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
				fmt.Fprintf(&endpoints, "\n  - {address: %s, ports: {http: %s}, weight: %d}", host, port, weight)
				weights[name] = float64(weight)
			}
			m := up(t, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  location: MESH_EXTERNAL
  endpoints:`+endpoints.String()+`
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside}
spec:
  host: outside.example
  trafficPolicy: {loadBalancer: {simple: `+policy+`}}
`)
			counts := m.count(2000, 1, "http://outside.example/", byInstance)
			if policy != "ROUND_ROBIN" {
				shared(t, counts, weights)
				return
			}
			for name, w := range weights {
				if want := 2000 * w / 8; float64(counts[name]) < want-2 || float64(counts[name]) > want+2 {
					t.Errorf("%s got %d of 2000 requests, want %v within 2: %v", name, counts[name], want, counts)
				}
			}
		})
	}
	f("LEAST_REQUEST")
	f("ROUND_ROBIN")
	f("RANDOM")
}

// TestStickyHash sends each of many keys several times: each key has one instance, the keys spread over all, and when
// an instance goes only its keys move.
func TestStickyHash(t *testing.T) {
	t.Parallel()
	f := func(name, key, table string, header bool, mostMoved float64) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := "{consistentHash: {" + key + table + "}}"
			m := up(t, balanced(4, policy), replicas(4))
			const keys = 400
			where := func() map[int]string {
				found := map[int]string{}
				for i := range keys {
					for range 2 {
						var a *answer
						if header {
							a = m.get("http://web/", "x-user", fmt.Sprintf("user-%d", i))
						} else {
							a = m.get(fmt.Sprintf("http://web/?user=user-%d", i))
						}
						if a.Status != http.StatusOK {
							t.Fatalf("status %d: %s", a.Status, a.Text)
						}
						if at, seen := found[i]; seen && at != a.Instance {
							t.Fatalf("key %d went to %s and to %s", i, at, a.Instance)
						}
						found[i] = a.Instance
					}
				}
				return found
			}
			before := where()
			counts := map[string]int{}
			for _, in := range before {
				counts[in]++
			}
			for name := range even(4) { // a quarter each, as far as a table of this size can be even
				if counts[name] < keys/10 || counts[name] > keys/2 {
					t.Errorf("%s has %d of %d keys: %v", name, counts[name], keys, counts)
				}
			}
			m.edit("mesh.yaml", balanced(3, policy))
			moved := 0
			for i, at := range where() {
				if before[i] != "web-v1-3" && at != before[i] {
					moved++
				}
			}
			if float64(moved) > mostMoved*keys {
				t.Errorf("%d of %d keys moved that had not to, want at most %v", moved, keys, mostMoved*keys)
			}
			t.Logf("%d of %d keys moved that had not to", moved, keys)
		})
	}
	// A ring keeps its size when an instance goes, as in Envoy: those that stay get more places on it, and with them about
	// one in six of the others' keys. A Maglev table moves about one in a hundred.
	f("ring by header", "httpHeaderName: x-user", ", ringHash: {minimumRingSize: 2048}", true, 0.2)
	f("Maglev by header", "httpHeaderName: x-user", ", maglev: {}", true, 0.05)
	f("default table by query", "httpQueryParameterName: user", "", false, 0.2)
}

func TestHashBySource(t *testing.T) {
	t.Parallel()
	m := up(t, balanced(4, "{consistentHash: {useSourceIp: true}}"), replicas(4))
	if counts := m.count(200, 8, "http://web/", byInstance); len(counts) != 1 {
		t.Errorf("one client's requests went to %v, want one instance", counts)
	}
}

// TestHashByCookie follows a cookie that the proxy makes, with its attributes, and reads one that a client brings.
func TestHashByCookie(t *testing.T) {
	t.Parallel()
	m := up(t, balanced(4, "{consistentHash: {httpCookie: {name: session, path: /shop, ttl: 90s}}}"), replicas(4))
	first := m.get("http://web/")
	if len(first.Cookies) != 1 {
		t.Fatalf("got cookies %v, want one", first.Cookies)
	}
	c := first.Cookies[0]
	if c.Name != "session" || c.Path != "/shop" || c.MaxAge != 90 || !c.HttpOnly {
		t.Errorf("the cookie is %s", c)
	}
	for range 50 {
		a := m.get("http://web/", "Cookie", "other=1; session="+c.Value)
		if a.Instance != first.Instance {
			t.Fatalf("the cookie leads to %s, then to %s", first.Instance, a.Instance)
		}
		if len(a.Cookies) != 0 {
			t.Fatalf("a client that has the cookie gets another: %v", a.Cookies)
		}
	}
	counts := m.count(400, 1, "http://web/", byInstance) // newcomers, each with a cookie of its own
	shared(t, counts, even(4))
}

// TestHashWithoutItsKey spreads requests that lack what is hashed.
func TestHashWithoutItsKey(t *testing.T) {
	t.Parallel()
	m := up(t, balanced(3, "{consistentHash: {httpHeaderName: x-user}}"))
	counts := m.count(1500, 1, "http://web/", byInstance)
	shared(t, counts, even(3))
}

// TestSubsetPolicyBeatsTopLevel balances one subset otherwise than the rest.
func TestSubsetPolicyBeatsTopLevel(t *testing.T) {
	t.Parallel()
	m := up(t, service("web", "app: web")+workload("web", "v1", 3)+workload("web", "v2", 3)+`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - {match: [{uri: {prefix: /v2}}], route: [{destination: {host: web, subset: v2}}]}
  - {route: [{destination: {host: web, subset: v1}}]}
`)
	if counts := m.count(30, 1, "http://web/", byInstance); len(counts) != 1 {
		t.Errorf("the subset with the top-level policy: %v, want one instance", counts)
	}
	counts := m.count(30, 1, "http://web/v2", byInstance)
	if names := slices.Sorted(maps.Keys(counts)); len(names) != 3 || counts[names[0]] != 10 || counts[names[1]] != 10 || counts[names[2]] != 10 {
		t.Errorf("the subset with its own policy: %v, want 10 for each of 3", counts)
	}
}
