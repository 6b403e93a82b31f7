package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/local"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// misbehave tells a stand-in of namespace default how to answer from now on; nothing heals it.
func (m *mesh) misbehave(instance, how string) {
	m.t.Helper()
	res, err := http.Post(m.ready.Admin+"/stand-ins/default/"+instance+"?"+how, "", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 200 {
		m.t.Fatalf("%s?%s: %d", instance, how, res.StatusCode)
	}
}

// total returns the sum of the client's own series that begin so and have all of the labels, written name="value".
func (m *mesh) total(name string, labels ...string) float64 {
	m.t.Helper()
	sum := 0.0
	for line := range strings.SplitSeq(m.exposition("local"), "\n") {
		if !strings.HasPrefix(line, name+"{") || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(line, l) }) {
			continue
		}
		v := 0.0
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v); err != nil {
			m.t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// scripted sends a request to host whose application follows the script, and returns the status and the attempts.
func scripted(t *testing.T, m *mesh, app *script, method, target, script string, headers ...string) string {
	t.Helper()
	app.reset()
	a, err := m.try(method, target, append([]string{"x-scenario", "s", "x-script", script}, headers...)...)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d after %d", a.Status, app.attempts("s"))
}

// Every way to ask for retries leads to as many attempts as it says, through a whole mesh.
func TestRetryForms(t *testing.T) {
	t.Parallel()
	app := &script{seen: map[string]int{}}
	at := listenVersions(t, app.ServeHTTP)
	linkerd := strings.Replace(service("linkerd", "app: web"), "metadata: {name: linkerd}", `metadata: {name: linkerd, annotations: {retry.linkerd.io/http: "5xx,429", retry.linkerd.io/limit: "3", retry.linkerd.io/timeout: 600ms, timeout.linkerd.io/request: 20s}}`, 1)
	hurried := strings.Replace(service("hurried", "app: web"), "metadata: {name: hurried}", `metadata: {name: hurried, annotations: {retry.linkerd.io/timeout: 600ms}}`, 1)
	m := up(t, hurried+service("plain", "app: web")+service("istio", "app: web")+service("api", "app: web")+linkerd+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: istio}
spec:
  hosts: [istio]
  http:
  - retries: {attempts: 3, perTryTimeout: 600ms, retryOn: "gateway-error,409", backoff: 1ms}
    timeout: 20s
    route: [{destination: {host: istio}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api}
spec:
  parentRefs: [{kind: Service, group: "", name: api}]
  rules:
  - retry: {codes: [500, 503], attempts: 2, backoff: 10ms}
    timeouts: {request: 20s, backendRequest: 600ms}
    backendRefs: [{name: api, port: 80}]
`, apps(at))
	f := func(method, target, script, want string, headers ...string) {
		t.Helper()
		if got := scripted(t, m, app, method, target, script, headers...); got != want {
			t.Errorf("%s %s %q: got %s, want %s", method, target, script, got, want)
		}
	}
	f("GET", "http://istio/", "503 502 409 200", "200 after 4")
	f("GET", "http://istio/", "500 200", "500 after 1")
	f("POST", "http://istio/", "503 200", "200 after 2") // the configuration names it
	f("GET", "http://istio/", "hang 200", "200 after 2")
	f("GET", "http://istio/", "hang", "504 after 4")
	f("GET", "http://api/", "500 503 200", "200 after 3")
	f("GET", "http://api/", "500 503 500 200", "500 after 3")
	f("GET", "http://api/", "502 200", "502 after 1")
	f("GET", "http://api/", "hang", "504 after 3") // what exceeds backendRequest is sent again, whatever codes says
	f("GET", "http://linkerd/", "500 429 503 200", "200 after 4")
	f("GET", "http://linkerd/", "404 200", "404 after 1")
	f("GET", "http://linkerd/", "hang 200", "200 after 2")
	// Its retry timeout is for attempts that another one can follow, and needs no status beside it; what is reset is another matter.
	f("POST", "http://hurried/", "hang 200", "200 after 2")
	f("GET", "http://hurried/", "hang slow", "200 after 2")
	f("POST", "http://hurried/", "reset 200", "503 after 1")
	f("GET", "http://hurried/", "503 200", "503 after 1")
	// A route that says nothing has Istio's default, which is for no status of HTTP. What may have been processed is not sent again.
	f("GET", "http://plain/", "503 200", "503 after 1")
	f("POST", "http://plain/", "reset 200", "503 after 1")
	f("GET", "http://plain/", "grpc14 grpc0", "200 after 2", "content-type", "application/grpc")
	f("POST", "http://plain/", "grpc14 grpc0", "200 after 1", "content-type", "application/grpc")
	// MeshConfig's own policy is for POST, too: whoever names a condition wants it.
	m.edit("mesh-config.yaml", `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    defaultHttpRetryPolicy: {attempts: 2, retryOn: "connect-failure,refused-stream,unavailable,cancelled,503"}
`)
	m.await("the mesh's policy", func() bool {
		return scripted(t, m, app, "POST", "http://plain/", "503 200") == "200 after 2"
	})
	f("POST", "http://plain/", "grpc14 grpc0", "200 after 2", "content-type", "application/grpc")
}

// A retry budget bounds the retries of all requests together, and what it refuses is seen.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	var asked, retries, most atomic.Int64
	at := listenVersions(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("X-Envoy-Attempt-Count") != "1" {
			n := retries.Add(1)
			for k := most.Load(); n > k && !most.CompareAndSwap(k, n); k = most.Load() {
			}
			time.Sleep(20 * time.Millisecond)
			retries.Add(-1)
		}
		w.WriteHeader(503)
	})
	m := up(t, service("web", "app: web")+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    retryBudget: {percent: 20, minRetryConcurrency: 1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web}}], retries: {attempts: 5, retryOn: 5xx, backoff: 50ms}}]
`, apps(at))
	reasons := map[string]int{}
	var mu sync.Mutex
	m.crowd(t, 20, func(int) error {
		for range 5 {
			a, err := m.try("GET", "http://web/")
			if err != nil {
				return err
			}
			mu.Lock()
			reasons[fmt.Sprint(a.Status, " ", a.Header.Get("x-outrider-reason"))]++
			mu.Unlock()
		}
		return nil
	})
	if n := asked.Load(); n <= 100 || n > 300 {
		t.Errorf("100 requests became %d attempts; without a budget there are 600", n)
	}
	if n := most.Load(); n > 4 { // a fifth of the twenty requests that there are at a time
		t.Errorf("%d retries at a time", n)
	}
	if m.total("outrider_retries_abandoned_total", `reason="budget"`) == 0 {
		t.Errorf("no metric tells of the budget; the answers: %v", reasons)
	}
	t.Logf("%d attempts, answers %v", asked.Load(), reasons)
}

// Linkerd's failure accrual lets an endpoint rest after failures in a row, asks it once when the penalty is over, and takes it back.
func TestFailureAccrual(t *testing.T) {
	t.Parallel()
	w := newWard(t, 3)
	svc := strings.Replace(service("web", "app: web"), "metadata: {name: web}", `metadata: {name: web, annotations: {balancer.linkerd.io/failure-accrual: consecutive, balancer.linkerd.io/failure-accrual-consecutive-max-failures: "3", balancer.linkerd.io/failure-accrual-consecutive-min-penalty: 200ms, balancer.linkerd.io/failure-accrual-consecutive-max-penalty: 1s}}`, 1)
	m := up(t, svc+workload("web", "v1", 3, "sidecar.istio.io/inject", "false"), apps(w.at...))
	c := plain(m.ready.Proxy)
	w.rotation(t, c, 12)
	w.ill[0].Store("503")
	m.await("the endpoint rests", func() bool {
		return strings.HasPrefix(w.rotation(t, c, 12), "0 ill and 2 well")
	})
	w.ill[0].Store("")
	m.await("the endpoint is back", func() bool {
		return strings.HasPrefix(w.rotation(t, c, 12), "0 ill and 3 well")
	})
}

// minHealthPercent lets everybody be asked once too few are well; without it nobody is, in the end.
func TestPanic(t *testing.T) {
	t.Parallel()
	f := func(percent int, want string) {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			t.Parallel()
			w := newWard(t, 4)
			m := up(t, service("web", "app: web")+workload("web", "v1", 4, "sidecar.istio.io/inject", "false")+fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 2, interval: 200ms, baseEjectionTime: 60s, maxEjectionPercent: 100, minHealthPercent: %d}
`, percent), apps(w.at...))
			c := plain(m.ready.Proxy)
			w.rotation(t, c, 8)
			for i := range 3 {
				w.ill[i].Store("500")
			}
			m.await("rotation: "+want, func() bool { return w.rotation(t, c, 16) == want })
			m.await("three endpoints are said to be ejected", func() bool {
				return m.total("outrider_endpoint_ejected", `reason="consecutive_5xx"`) == 3
			})
		})
	}
	f(0, "0 ill and 1 well are asked, 0 comes from the proxy")
	f(20, "0 ill and 1 well are asked, 0 comes from the proxy")
	f(50, "3 ill and 1 well are asked, 0 comes from the proxy")
}

// places is a service web with three instances, one each in r1/z1, r1/z2 and r2/z1.
func places() string {
	text := service("web", "app: web")
	for i, at := range []string{"r1/z1", "r1/z2", "r2/z1"} {
		text += workload("web", fmt.Sprintf("v%d", i+1), 1)
		text = strings.Replace(text, fmt.Sprintf("      labels: {app: web, version: v%d}", i+1), fmt.Sprintf("      labels: {app: web, version: v%d, istio-locality: %s}", i+1, strings.ReplaceAll(at, "/", ".")), 1)
	}
	return text
}

func from(l model.Locality) func(*local.Options) {
	return func(o *local.Options) { o.Locality = l }
}

// Localities: shares by distribute, failover once those that are near are ejected, and trafficDistribution.
func TestLocalities(t *testing.T) {
	t.Parallel()
	here := from(model.Locality{Region: "r1", Zone: "z1"})
	rule := func(setting string) string {
		return `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, interval: 200ms, baseEjectionTime: 60s, maxEjectionPercent: 100}
    loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {` + setting + `}}
`
	}
	t.Run("distribute", func(t *testing.T) {
		t.Parallel()
		m := up(t, places()+rule(`enabled: true, distribute: [{from: r1/z1/*, to: {"r1/z1/*": 70, "r1/z2/*": 20, "r2/*": 10}}]`), here)
		shared(t, m.count(2000, 8, "http://web/", byVersion), map[string]float64{"v1": 70, "v2": 20, "v3": 10})
	})
	t.Run("failover", func(t *testing.T) {
		t.Parallel()
		m := up(t, places()+rule(`enabled: true`), here)
		only := func(want string) {
			t.Helper()
			m.await("all goes to "+want, func() bool {
				for range 30 {
					if a := m.get("http://web/"); a.Status != 200 || a.Version != want {
						return false
					}
				}
				return true
			})
		}
		only("v1")
		m.misbehave("web-v1-0", "status=503")
		only("v2")
		m.misbehave("web-v2-0", "status=503")
		only("v3")
	})
	t.Run("failoverPriority", func(t *testing.T) {
		t.Parallel()
		m := up(t, places()+rule(`enabled: true, failoverPriority: ["topology.kubernetes.io/region"]`), here)
		if counts := m.count(400, 4, "http://web/", byVersion); counts["v1"] == 0 || counts["v2"] == 0 || counts["v3"] != 0 {
			t.Errorf("requests went to %v, want them in the region", counts)
		}
	})
	t.Run("trafficDistribution", func(t *testing.T) {
		t.Parallel()
		m := up(t, strings.Replace(places(), "spec: {selector: {app: web},", "spec: {trafficDistribution: PreferClose, selector: {app: web},", 1), here)
		if counts := m.count(200, 4, "http://web/", byVersion); counts["v1"] != 200 {
			t.Errorf("requests went to %v, want all to v1", counts)
		}
	})
}

// An endpoint that is new gets little at first where there is a warmup, and its full share in the end.
func TestWarmup(t *testing.T) {
	t.Parallel()
	rule := `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 4s, minimumPercent: 10}}}
`
	m := up(t, service("web", "app: web")+workload("web", "v1", 1)+rule)
	m.await("the first is warm", func() bool { return m.get("http://web/").Status == 200 })
	time.Sleep(4500 * time.Millisecond) // warming up takes time itself
	begin := time.Now()
	m.edit("mesh.yaml", service("web", "app: web")+workload("web", "v1", 2)+rule)
	there := time.Now()
	early := m.count(300, 4, "http://web/", byInstance)
	took := time.Since(begin)
	// At t of 4 s the weight is t/4, and not below 0.1: this is the most that the new one can have got when it was begun with late.
	if share := float64(early["web-v1-1"]) / 300; took < time.Second && share > 0.32 {
		t.Errorf("within %v the new one got %v", took, early)
	}
	time.Sleep(time.Until(there.Add(4500 * time.Millisecond)))
	shared(t, m.count(600, 4, "http://web/", byInstance), map[string]float64{"web-v1-0": 1, "web-v1-1": 1})
}

// A sidecar's inboundConnectionPool bounds what its application gets; the rest is refused as overflow.
func TestInboundLimits(t *testing.T) {
	t.Parallel()
	const clients, limit = 12, 3
	var most, under, refused atomic.Int64
	let := make(chan struct{}) // closed when all others were refused
	at := listenVersions(t, func(w http.ResponseWriter, r *http.Request) {
		n := under.Add(1)
		defer under.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		select {
		case <-let:
		case <-r.Context().Done():
		}
	})
	m := up(t, service("web", "app: web")+workload("web", "v1", 1)+`---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web}
spec:
  workloadSelector: {labels: {app: web}}
  inboundConnectionPool: {http: {http2MaxRequests: 3}}
`, apps(at))
	got := map[string]int{}
	var mu sync.Mutex
	m.crowd(t, clients, func(int) error {
		a, err := m.try("GET", "http://web/")
		if err != nil {
			return err
		}
		mu.Lock()
		got[fmt.Sprint(a.Status, " ", a.Header.Get("x-outrider-reason"), " ", a.Header.Get("x-envoy-overloaded"))]++
		mu.Unlock()
		if a.Status == 503 && refused.Add(1) == clients-limit {
			close(let)
		}
		return nil
	})
	if most.Load() > limit || got["200  "] != limit || got["503 upstream_overflow true"] != clients-limit {
		t.Errorf("the application had up to %d at once; answers %v", most.Load(), got)
	}
}

// What breakers, ejections, budgets and connections know survives changes of objects that are none of theirs, under load.
func TestStateOutlivesReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	reloads := 8
	if long {
		reloads = 60
	}
	l, w := newLoad(t), newWard(t, 4)
	opened := listenVersions(t, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
	text := service("web", "app: web") + workload("web", "v1", 4, "sidecar.istio.io/inject", "false") +
		service("down", "app: down") + workload("down", "v1", 1, "sidecar.istio.io/inject", "false") + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 3, interval: 200ms, baseEjectionTime: 300s, maxEjectionPercent: 50}
---
apiVersion: outrider.dev/v1alpha1
kind: CircuitBreaker
metadata: {name: down}
spec:
  host: down
  hystrix: {circuitBreaker: {requestVolumeThreshold: 4, sleepWindowInMilliseconds: 300000}, metrics: {healthSnapshot: {intervalInMilliseconds: 100}}}
`
	m := up(t, text, func(o *local.Options) {
		o.Apps = []local.App{{Namespace: "default", Workload: "web-v1", Port: 8080, Addresses: w.at}, {Namespace: "default", Workload: "down-v1", Port: 8080, Addresses: []string{opened}}}
	})
	w.ill[0].Store("500")
	m.await("the endpoint is ejected", func() bool {
		m.get("http://web/")
		return m.total("outrider_endpoint_ejected") == 1
	})
	m.await("the breaker opens", func() bool { return m.get("http://down/").Header.Get("x-outrider-reason") == "breaker_open" })
	m.get("http://web/")
	time.Sleep(250 * time.Millisecond) // what was under way to the ejected one has ended
	ill, transitions := w.asked[0].Load(), m.total("outrider_breaker_transitions_total")
	var sent atomic.Int64
	for i := range 8 {
		l.Go(func() {
			for {
				select {
				case <-l.over:
					return
				default:
				}
				target, want := "http://web/", 200
				if i%4 == 3 {
					target, want = "http://down/", 503
				}
				a, err := m.try("GET", target)
				if err != nil || a.Status != want || want == 503 && a.Header.Get("x-outrider-reason") != "breaker_open" {
					t.Errorf("%s: %+v %v", target, a, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	for i := range reloads {
		before := sent.Load()
		m.edit("other.yaml", service(fmt.Sprintf("other-%d", i), "app: other"))
		m.await("the load goes on", func() bool { return sent.Load() > before+200 || t.Failed() })
	}
	l.end()
	if n := w.asked[0].Load() - ill; n > 0 {
		t.Errorf("the ejected endpoint was asked %d times", n)
	}
	if n := m.total("outrider_breaker_transitions_total"); n != transitions {
		t.Errorf("the breaker made %v transitions", n-transitions)
	}
	t.Logf("%d requests over %d reloads", sent.Load(), reloads)
}
