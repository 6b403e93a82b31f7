package e2e

import (
	"sync/atomic"
	"testing"
)

// A ServiceProfile's routes decide what is sent again, its classes what is a failure, and its budget how often, through a whole
// mesh; it comes before the service's annotations.
func TestServiceProfile(t *testing.T) {
	t.Parallel()
	app := &script{seen: map[string]int{}}
	at := listenVersions(t, app.ServeHTTP)
	m := up(t, `---
apiVersion: v1
kind: Service
metadata: {name: profiled, annotations: {retry.linkerd.io/http: 5xx}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
`+service("apex", "app: nobody")+service("leaf", "app: web")+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+`---
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {name: profiled.default.svc.cluster.local}
spec:
  retryBudget: {retryRatio: 0, minRetriesPerSecond: 1, ttl: 60s}
  routes:
  - {name: books, condition: {all: [{pathRegex: "/books/[^/]+"}, {not: {pathRegex: ".*/private"}}, {not: {method: POST}}]}, isRetryable: true}
  - name: classes
    condition: {pathRegex: /classes}
    isRetryable: true
    responseClasses:
    - {condition: {status: {min: 404, max: 404}}, isFailure: true}
    - {condition: {status: {min: 500, max: 599}}, isFailure: false}
  - {name: slow, condition: {pathRegex: /slow}, timeout: 200ms}
---
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {name: apex.default.svc.cluster.local}
spec: {dstOverrides: [{authority: leaf.default.svc.cluster.local, weight: 1}, {authority: apex.default.svc.cluster.local, weight: 0}]}
`, apps(at))
	f := func(method, target, script, want string, headers ...string) {
		t.Helper()
		if got := scripted(t, m, app, method, target, script, headers...); got != want {
			t.Errorf("%s %s %q: got %s, want %s", method, target, script, got, want)
		}
	}
	f("GET", "http://profiled/books/1", "503 500 200", "200 after 3")
	f("GET", "http://profiled/books/1?x=/private", "404 200", "404 after 1")
	f("POST", "http://profiled/books/1", "503 200", "503 after 1")
	f("GET", "http://profiled/books/private", "503 200", "503 after 1")
	f("GET", "http://profiled/other", "503 200", "503 after 1") // the annotation does not hold
	f("POST", "http://profiled/classes", "404 200", "200 after 2")
	f("GET", "http://profiled/classes", "500 200", "500 after 1")
	f("GET", "http://profiled/slow", "hang", "504 after 1")
	f("PUT", "http://profiled/books/1", "grpc2 grpc0", "200 after 2", "content-type", "application/grpc")
	f("GET", "http://apex/", "200", "200 after 1")
	// Four of the 60 retries are spent; a failure that stays spends the rest, whatever route it is on.
	f("GET", "http://profiled/books/2", "500", "500 after 57")
	f("GET", "http://profiled/classes", "404 200", "404 after 1")
}

// An XBackendTrafficPolicy bounds the retries of all routes to a Service; what it does not allow is answered 503.
func TestBackendTrafficPolicy(t *testing.T) {
	t.Parallel()
	app := &script{seen: map[string]int{}}
	at := listenVersions(t, app.ServeHTTP)
	m := up(t, service("web", "app: web")+service("other", "app: web")+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{kind: Service, group: "", name: web}, {kind: Service, group: "", name: other}]
  rules:
  - {matches: [{path: {value: /a}}], retry: {codes: [500], attempts: 5, backoff: 5ms}, backendRefs: [{name: web, port: 80}]}
  - {matches: [{path: {value: /b}}], retry: {codes: [502], attempts: 1, backoff: 5ms}, backendRefs: [{name: web, port: 80}]}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: web}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  retryConstraint: {budget: {percent: 0, interval: 2m}, minRetryRate: {count: 1, interval: 30s}}
`, apps(at))
	f := func(target, script, want string) {
		t.Helper()
		if got := scripted(t, m, app, "GET", target, script); got != want {
			t.Errorf("%s %q: got %s, want %s", target, script, got, want)
		}
	}
	f("http://web/b", "502 200", "200 after 2")
	f("http://web/a", "500", "503 after 4") // four are allowed in all
	f("http://web/b", "502 200", "503 after 1")
	f("http://other/a", "500 200", "503 after 1") // by whatever name
	f("http://web/a", "404", "404 after 1")
	m.await("three retries refused", func() bool {
		return m.total("outrider_retries_abandoned_total", `reason="budget"`, `destination_service="web.default.svc.cluster.local"`) >= 3
	})
}

// An HTTPLocalRateLimitPolicy holds at the workload's own sidecar, for the port that its Server names.
func TestLocalRateLimitPolicy(t *testing.T) {
	t.Parallel()
	m := up(t, versions(1)+`---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: web}}, port: 8080}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {name: web}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: web}
  identity: {requestsPerSecond: 1}
`)
	var refused atomic.Pointer[answer]
	m.await("one of many at once is refused", func() bool {
		m.crowd(t, 20, func(int) error {
			a, err := m.try("GET", "http://web/")
			if err == nil && a.Status == 429 {
				refused.Store(a)
			}
			return err
		})
		return refused.Load() != nil
	})
	if a := refused.Load(); a.Header.Get("X-Outrider-Reason") != "rate_limited" || a.Header.Get("Retry-After") != "1" || a.Header.Get("Ratelimit-Limit") != "1" {
		t.Errorf("the refusal says %v", a.Header)
	}
}
