package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// way is one combination of what the client speaks and what the service's port declares.
type way struct {
	client int    // 1 or 2: HTTP/1.1, or HTTP/2 by prior knowledge
	port   string // the Service port's name
	app    int    // what the application gets
}

// ways are all combinations: a port declared http gives the application HTTP/1.1 whatever the client speaks, http2 gives
// HTTP/2, and an undeclared one the client's own version.
var ways = []way{{1, "http", 1}, {2, "http", 1}, {1, "http2", 2}, {2, "http2", 2}, {1, "data", 1}, {2, "data", 2}}

func (w way) String() string { return fmt.Sprintf("HTTP%d to a port named %s", w.client, w.port) }

// through runs f once for each way, with the application behind the service "web".
func through(t *testing.T, app http.HandlerFunc, f func(t *testing.T, m *mesh, w way, c *http.Client)) {
	t.Helper()
	at := listenVersions(t, app)
	for _, w := range ways {
		t.Run(w.String(), func(t *testing.T) {
			m := up(t, named80(w.port), apps(at))
			f(t, m, w, m.speaking(w.client, m.ready.Proxy))
		})
	}
}

// named80 is a service "web" with one instance, whose port 80 has a name.
func named80(name string) string {
	return strings.Replace(service("web", "app: web"), "{name: http,", "{name: "+name+",", 1) + workload("web", "v1", 1)
}

// listenVersions runs an application that speaks HTTP/1.1 and HTTP/2 without TLS, and returns where.
func listenVersions(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, h)
	return l.Addr().String()
}

// serve runs an application that speaks both versions until the test ends.
func serve(t *testing.T, l net.Listener, h http.HandlerFunc) *http.Server {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols),
		// As net/http has it, one stream that is not read fills the whole connection's window, which is the server's say.
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: 4 << 20, MaxReceiveBufferPerStream: 256 << 10},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { // ends with Close
		_ = s.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return s
}

// speaking is a client whose connections all go to an address, whatever host its requests name.
func (m *mesh) speaking(version int, address string) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		MaxIdleConnsPerHost: 32, Protocols: new(http.Protocols), ExpectContinueTimeout: 20 * time.Second,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // who the server is, is tested where certificates are
	}
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetHTTP2(version == 2)
	transport.Protocols.SetUnencryptedHTTP2(version == 2)
	m.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// TestVersions asks in every combination of versions, and the application says which one reached it.
func TestVersions(t *testing.T) {
	t.Parallel()
	app := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Reached", fmt.Sprint(r.ProtoMajor))
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.URL, r.Header.Get("X-Forwarded-Proto"))
	}
	check := func(t *testing.T, c *http.Client, url string, w way, want string) {
		t.Helper()
		res, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		got := text(t, res)
		if res.StatusCode != 200 || res.ProtoMajor != w.client || res.Header.Get("Reached") != fmt.Sprint(w.app) || got != want {
			t.Errorf("%d in HTTP/%d: the application got HTTP/%s: %s; want HTTP/%d: %s", res.StatusCode, res.ProtoMajor, res.Header.Get("Reached"), got, w.app, want)
		}
	}
	through(t, app, func(t *testing.T, m *mesh, w way, c *http.Client) {
		for range 3 { // on a connection that was used before, too
			check(t, c, "http://web/path?a=%20b&c", w, "GET web /path?a=%20b&c http")
		}
	})
	t.Run("through a gateway", func(t *testing.T) {
		at := listenVersions(t, app)
		for _, w := range ways {
			if w.port == "data" {
				continue // a gateway's routes lead to ports that are HTTP
			}
			t.Run(w.String(), func(t *testing.T) {
				m := up(t, named80(w.port)+entry("HTTP", ""), apps(at))
				check(t, m.speaking(w.client, m.at("entry", 18080)), "http://shop.example/path", w, "GET shop.example /path http")
			})
		}
	})
	t.Run("as the policy says", func(t *testing.T) {
		at := listenVersions(t, app)
		f := func(policy string, w way) {
			t.Run(policy+" "+w.String(), func(t *testing.T) {
				// Without a sidecar of its own the application hears what the client's sidecar speaks.
				bare := service("web", "app: web") + workload("web", "v1", 1, "sidecar.istio.io/inject", "false")
				m := up(t, bare+"---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web, trafficPolicy: {connectionPool: {http: {"+policy+"}}}}\n", apps(at))
				check(t, m.speaking(w.client, m.ready.Proxy), "http://web/", w, "GET web / http")
			})
		}
		f("h2UpgradePolicy: UPGRADE", way{1, "http", 2})
		f("h2UpgradePolicy: DO_NOT_UPGRADE", way{2, "http", 1})
		f("useClientProtocol: true", way{1, "http", 1})
		f("useClientProtocol: true", way{2, "http", 2})
	})
}

// entry is a Gateway "entry" on port 18080 for shop.example, all of whose paths lead to the service web.
func entry(protocol, tlsOptions string) string {
	if tlsOptions != "" {
		tlsOptions = ", tls: " + tlsOptions
	}
	return `---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: entry}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 18080, name: entry, protocol: ` + protocol + `}, hosts: [shop.example]` + tlsOptions + `}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.example]
  gateways: [entry]
  http: [{route: [{destination: {host: web}}]}]
`
}
