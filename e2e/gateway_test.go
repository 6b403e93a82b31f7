package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// at is the address where a gateway serves a port.
func (m *mesh) at(gateway string, port int) string {
	m.t.Helper()
	for _, g := range m.ready.Gateways {
		for _, s := range g.Servers {
			if g.Name == gateway && s.Port == port {
				return s.Listen
			}
		}
	}
	m.t.Fatalf("gateway %s does not serve port %d: %+v", gateway, port, m.ready.Gateways)
	return ""
}

// direct sends a GET to an address, past the client's proxy, for a host.
func (m *mesh) direct(address, host, path string) *answer {
	m.t.Helper()
	former := m.http
	m.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: former.CheckRedirect}
	defer func() { m.http = former }()
	return m.get("http://"+address+path, "Host", host)
}

func TestIstioGateway(t *testing.T) {
	t.Parallel()
	m := up(t, versions(2)+`---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: entry}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 18080, name: http, protocol: HTTP}, hosts: [shop.example]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.example]
  gateways: [entry]
  http:
  - match: [{uri: {prefix: /v2/}}]
    rewrite: {uri: /}
    route: [{destination: {host: web, subset: v2}}]
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new, redirectCode: 308}
  - match: [{uri: {prefix: /shop}}]
    route: [{destination: {host: web, subset: v1}}]
`)
	at := m.at("entry", 18080)
	f := func(host, path string, status int, version, seen string) {
		t.Helper()
		a := m.direct(at, host, path)
		if a.Status != status || a.Version != version || a.Path != seen {
			t.Errorf("%s%s: %d from %q at %q, want %d from %q at %q", host, path, a.Status, a.Version, a.Path, status, version, seen)
		}
	}
	f("shop.example", "/shop/1?a=%20b", 200, "v1", "/shop/1?a=%20b")
	f("shop.example", "/v2/x", 200, "v2", "/x")
	f("shop.example", "/old", 308, "", "")
	f("shop.example", "/nothing", 404, "", "")
	f("other.example", "/shop", 404, "", "")
	if a := m.direct(at, "shop.example", "/shop"); a.Headers["x-forwarded-for"] == "" || a.Headers["x-request-id"] == "" {
		t.Errorf("a request through the gateway has headers %v", a.Headers)
	}
}

func TestGatewayAPIGateway(t *testing.T) {
	t.Parallel()
	m := up(t, versions(2)+`---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: entry}
spec:
  gatewayClassName: outrider
  listeners:
  - {name: http, port: 18081, protocol: HTTP, hostname: "*.example"}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: entry}]
  hostnames: [shop.example]
  rules:
  - matches: [{path: {type: PathPrefix, value: /shop}}]
    backendRefs: [{name: web-v1, port: 80, weight: 3}, {name: web-v2, port: 80, weight: 1}]
  - matches: [{path: {type: Exact, value: /away}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.example, statusCode: 302}}]
`)
	at := m.at("entry", 18081)
	counts := map[string]int{}
	for range 800 {
		a := m.direct(at, "shop.example", "/shop/x")
		if a.Status != 200 {
			t.Fatalf("status %d: %s", a.Status, a.Text)
		}
		counts[a.Version]++
	}
	shared(t, counts, map[string]float64{"v1": 3, "v2": 1})
	if a := m.direct(at, "shop.example", "/shopping"); a.Status != 404 {
		t.Errorf("a prefix matched in the middle of a segment: %d", a.Status)
	}
	a := m.direct(at, "shop.example", "/away")
	if want := fmt.Sprintf("http://elsewhere.example:%s/away", port(at)); a.Status != 302 || (a.Header.Get("Location") != want && a.Header.Get("Location") != "http://elsewhere.example:18081/away") {
		t.Errorf("redirect: %d to %q, want 302 to %q", a.Status, a.Header.Get("Location"), want)
	}
}
