package compile

import (
	"fmt"
	"strings"
	"testing"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// rulesOf returns the rules for a host and port as default/local sees them.
func rulesOf(t *testing.T, m *Mesh, host string) []string {
	t.Helper()
	s, err := m.For(place(m), "default", "local", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, h := range s.Tables[0].Hosts {
		if h.Name == host {
			for i := range h.Rules {
				out = append(out, ruleText(&h.Rules[i], map[string]bool{}))
			}
		}
	}
	return out
}

// TestAge ranks objects from a cluster by age, then name, whatever the order in which they come.
func TestAge(t *testing.T) {
	base := objectsOf(t, map[string]string{"a.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n"})
	object := func(name string, status uint32, age time.Duration) *config.Object {
		return &config.Object{
			Group: "networking.istio.io", Version: "v1", Kind: "VirtualService", Namespace: "default", Name: name,
			Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-age),
			Spec:    &networking.VirtualService{Hosts: []string{"web"}, Http: []*networking.HTTPRoute{{DirectResponse: &networking.HTTPDirectResponse{Status: status}}}},
		}
	}
	f := func(want string, all ...*config.Object) {
		t.Helper()
		m, findings := New(append(append([]*config.Object{}, base...), all...), Options{})
		got := rulesOf(t, m, "web.default.svc.cluster.local:80")
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("rules are %v; want %s", got, want)
		}
		if len(findings) != 1 || !strings.Contains(findings[0].Message, "order: age, then name") {
			t.Errorf("findings are %v", findings)
		}
	}
	young, old, twin := object("young", 201, 0), object("old", 202, time.Hour), object("a-twin", 203, time.Hour)
	f("reply 202", young, old)
	f("reply 202", old, young)
	m, _ := New(append(append([]*config.Object{}, base...), young, old, twin), Options{})
	if got := rulesOf(t, m, "web.default.svc.cluster.local:80"); !strings.Contains(got[0], "reply 203") {
		t.Errorf("of one age, the name decides: %v", got)
	}
}

// TestUnchecked compiles what decoding would refuse: objects from elsewhere were perhaps not checked.
func TestUnchecked(t *testing.T) {
	base := objectsOf(t, map[string]string{"a.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n"})
	to := func(weight int32) *networking.HTTPRouteDestination {
		return &networking.HTTPRouteDestination{Destination: &networking.Destination{Host: "web"}, Weight: weight}
	}
	regex := func(s string) *networking.StringMatch {
		return &networking.StringMatch{MatchType: &networking.StringMatch_Regex{Regex: s}}
	}
	f := func(want, finding string, h *networking.HTTPRoute) {
		t.Helper()
		o := &config.Object{Kind: "VirtualService", Namespace: "default", Name: "v", Spec: &networking.VirtualService{Hosts: []string{"web"}, Http: []*networking.HTTPRoute{h}}}
		m, findings := New(append(append([]*config.Object{}, base...), o), Options{})
		if got := fmt.Sprint(rulesOf(t, m, "web.default.svc.cluster.local:80")); !strings.Contains(got, want) {
			t.Errorf("rules are %s; want %s", got, want)
		}
		if len(findings) == 0 || findings[0].ID != finding {
			t.Errorf("findings are %v; want %s", findings, finding)
		}
	}
	f("1:outbound|80||web", "OR2015", &networking.HTTPRoute{Match: []*networking.HTTPMatchRequest{{Uri: regex("(")}}, Route: []*networking.HTTPRouteDestination{to(3)}})
	f("have weight 0", "OR2029", &networking.HTTPRoute{Route: []*networking.HTTPRouteDestination{to(0), to(0)}})
	f("0:outbound|80||web", "OR2031", &networking.HTTPRoute{Route: []*networking.HTTPRouteDestination{to(-1), to(1)}})
	f("reply 503 no_route", "OR2028", &networking.HTTPRoute{})
	f("redirect 301", "OR2031", &networking.HTTPRoute{Redirect: &networking.HTTPRedirect{RedirectCode: 200}})
	f("reply 500", "OR2031", &networking.HTTPRoute{DirectResponse: &networking.HTTPDirectResponse{Status: 99}})
	f(`reply 200  ""`, "OR2002", &networking.HTTPRoute{DirectResponse: &networking.HTTPDirectResponse{Status: 200, Body: &networking.HTTPBody{Specifier: &networking.HTTPBody_Bytes{Bytes: []byte{0xff}}}}})
	f(`reply 200  ""`, "OR2031", &networking.HTTPRoute{DirectResponse: &networking.HTTPDirectResponse{Status: 200, Body: &networking.HTTPBody{Specifier: &networking.HTTPBody_String_{String_: strings.Repeat("x", maxBody+1)}}}})
	f("1:outbound|80||web", "OR2015", &networking.HTTPRoute{Rewrite: &networking.HTTPRewrite{UriRegexRewrite: &networking.RegexRewrite{Match: "("}}, Route: []*networking.HTTPRouteDestination{to(1)}})
	f("1:outbound|80||web", "OR2031", &networking.HTTPRoute{
		Headers: &networking.Headers{Request: &networking.Headers_HeaderOperations{Remove: []string{"Host"}, Add: map[string]string{":path": "/"}}},
		Route:   []*networking.HTTPRouteDestination{to(1)},
	})
}

// TestProtocols follows Istio's names of ports.
func TestProtocols(t *testing.T) {
	f := func(name, app string, number int, want model.Protocol) {
		t.Helper()
		var a *string
		if app != "" {
			a = &app
		}
		if got, _ := protocolOf(name, a, number); got != want {
			t.Errorf("port %q, appProtocol %q, %d is %s; want %s", name, app, number, got, want)
		}
	}
	f("http", "", 80, model.HTTP)
	f("HTTP-web", "", 80, model.HTTP)
	f("http2-x", "", 80, model.HTTP2)
	f("httpx", "", 80, model.Auto)
	f("", "", 80, model.Auto)
	f("grpc-web-x", "", 80, model.GRPC)
	f("grpc", "", 80, model.GRPC)
	f("tls-a", "", 443, model.TLS)
	f("https", "", 443, model.HTTPS)
	f("redis", "", 6379, model.TCP)
	f("web", "", 3306, model.TCP)
	f("tcp", "http", 80, model.HTTP)
	f("http", "kubernetes.io/h2c", 80, model.HTTP2)
	f("tcp", "kubernetes.io/ws", 80, model.HTTP)
	f("tcp", "kubernetes.io/wss", 80, model.HTTPS)
	f("http", "example.com/own", 80, model.Auto)
	f("http", "http2", 80, model.HTTP2)
	f("http", "HTTP2", 80, model.HTTP2)
	f("http", "grpc", 80, model.GRPC)
	f("http", "grpc-web", 80, model.GRPC)
	f("tcp", "grpc-web-text", 80, model.GRPC)
	f("", "https", 443, model.HTTPS)
	f("", "tls", 443, model.TLS)
	f("http", "tcp", 80, model.TCP)
	f("http", "mongo", 80, model.TCP)
	f("grpc", "kubernetes.io/h2c", 3306, model.HTTP2)
	f("web", "example.com/own", 3306, model.TCP)
	f("grpc-api", "", 3306, model.GRPC)
	f("h2c", "", 80, model.Auto)
	f("mongo-0", "", 80, model.TCP)
	f("mysql", "", 80, model.TCP)
	for port, want := range map[int]model.Protocol{25: model.TCP, 53: model.TCP, 3306: model.TCP, 27017: model.TCP, 5432: model.Auto, 6379: model.Auto, 443: model.Auto} {
		f("web", "", port, want)
	}
	for written, want := range map[string]model.Protocol{
		"HTTP": model.HTTP, "http2": model.HTTP2, "HTTP2": model.HTTP2, "GRPC": model.GRPC, "gRPC": model.GRPC, "GRPC-Web": model.GRPC, "HTTPS": model.HTTPS,
		"TLS": model.TLS, "TCP": model.TCP, "Mongo": model.TCP, "REDIS": model.TCP, "MySQL": model.TCP, "": model.Auto, "h2c": model.Auto,
	} {
		if got, _ := entryProtocol(written); got != want {
			t.Errorf("protocol %q of a ServiceEntry is %s; want %s", written, got, want)
		}
	}
}
