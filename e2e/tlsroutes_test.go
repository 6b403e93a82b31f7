package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/local"
	"github.com/outrider-mesh/outrider/meshtest"
)

// TestTLSRoutes routes connections by the server name in their first bytes: at listeners of a Gateway API Gateway, where TLS
// ends too, and in the mesh, by VirtualService; weights are kept, and what passes is opened by nobody but the application.
func TestTLSRoutes(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	var text strings.Builder
	var applications []local.App
	for _, name := range []string{"one", "two"} {
		at := newOrigin(t, &tls.Config{Certificates: []tls.Certificate{a.pair(name, "one", "one.example", "any.wild.example")}})
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {selector: {app: %[1]s}, ports: [{name: tls, port: 443, targetPort: 8080}]}\n%s", name, workload(name, "v1", 1))
		applications = append(applications, local.App{Namespace: "default", Workload: name + "-v1", Port: 8080, Addresses: []string{at}})
	}
	secret, _ := a.secret("shop.example")
	https, pass := port(meshtest.Address(t)), port(meshtest.Address(t))
	m := up(t, text.String()+service("web", "app: web")+workload("web", "v1", 1)+"---\n"+secret+fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: outrider
  listeners:
  - {name: https, port: %s, protocol: HTTPS, hostname: shop.example, tls: {mode: Terminate, certificateRefs: [{name: entry}]}}
  - {name: pass, port: %s, protocol: TLS, tls: {mode: Passthrough}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: edge, sectionName: https}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: one}
spec:
  parentRefs: [{name: edge, sectionName: pass}]
  hostnames: [one.example]
  rules: [{backendRefs: [{name: one, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata: {name: shared}
spec:
  parentRefs: [{name: edge, sectionName: pass}]
  hostnames: ["*.wild.example"]
  rules: [{backendRefs: [{name: one, port: 443, weight: 3}, {name: two, port: 443, weight: 1}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one}
spec:
  hosts: [one]
  tls:
  - {match: [{port: 443, sniHosts: [one]}], route: [{destination: {host: one}, weight: 1}, {destination: {host: two}, weight: 3}]}
`, https, pass), func(o *local.Options) { o.Apps = applications })
	gate := func(number string) string {
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		return m.at("edge", n)
	}
	meet := func(at, name string) string {
		return handshake(t, at, &tls.Config{RootCAs: a.pool(), ServerName: name})
	}
	if got := meet(gate(https), "shop.example"); !strings.HasPrefix(got, "shop.example TLS 1.3") || !strings.HasSuffix(got, "200 OK") {
		t.Errorf("a listener with certificateRefs: %s", got)
	}
	if got := meet(gate(https), "one.example"); !strings.Contains(got, "unrecognized name") {
		t.Errorf("a name that the listener has not: %s", got)
	}
	who := func(got string) string {
		name, rest, _ := strings.Cut(got, " ")
		if !strings.HasSuffix(rest, "200 OK") {
			t.Fatalf("got %s", got)
		}
		return name
	}
	for range 10 {
		if got := who(meet(gate(pass), "one.example")); got != "one" {
			t.Errorf("TLSRoute by name: %s", got)
		}
	}
	counts := map[string]int{}
	for range 400 {
		counts[who(meet(gate(pass), "any.wild.example"))]++
	}
	shared(t, counts, map[string]float64{"one": 3, "two": 1})
	if got := meet(gate(pass), "other.example"); strings.HasSuffix(got, "200 OK") {
		t.Errorf("TLSRoute of another name: %s", got)
	}

	inside := map[string]int{}
	for range 400 {
		c, err := m.tunnel("one:443")
		if err != nil {
			t.Fatal(err)
		}
		inside[who(shaken(t, c, &tls.Config{RootCAs: a.pool(), ServerName: "one"}))]++
	}
	shared(t, inside, map[string]float64{"one": 1, "two": 3})
}

// handshake is what a TLS client meets at an address.
func handshake(t *testing.T, at string, config *tls.Config) string {
	t.Helper()
	nc, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	return shaken(t, nc, config)
}
