package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/local"
	"github.com/outrider-mesh/outrider/meshtest"
)

// files writes a certificate for names, its key and the authority's own certificate into dir: NAME.pem, NAME.key, ca.pem.
func (a *authority) files(dir, name string, names ...string) {
	a.t.Helper()
	cert, key := a.both(names...)
	for file, text := range map[string]string{name + ".pem": cert, name + ".key": key, "ca.pem": a.pem} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

// both issues a certificate for names that servers and clients may use.
func (a *authority) both(names ...string) (cert, key string) {
	_, _, cert, key = a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return cert, key
}

// pair is a certificate for names, for a peer that is the test's own.
func (a *authority) pair(names ...string) tls.Certificate {
	a.t.Helper()
	cert, key := a.both(names...)
	p, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		a.t.Fatal(err)
	}
	return p
}

// opaqueSecret is the YAML of a Secret in Istio's own spelling, with the authority that clients are checked by.
func (a *authority) opaqueSecret(name string, names ...string) string {
	cert, key := a.both(names...)
	indented := func(pem string) string { return "    " + strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\n    ") }
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n  cert: |\n%s\n  key: |\n%s\n  cacert: |\n%s\n",
		name, indented(cert), indented(key), indented(a.pem))
}

// shaken is what a TLS client meets: the certificate's name, version, suite and what a request gets; or the alert.
func shaken(t *testing.T, nc net.Conn, config *tls.Config) string {
	t.Helper()
	c := tls.Client(nc, config)
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := c.Handshake(); err != nil {
		return err.Error()
	}
	// A server of TLS 1.3 checks the client's certificate when the client is done: what it found comes with the answer. The
	// request is there before that, and must not turn the alert into a reset.
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+config.ServerName+"\r\nConnection: close\r\n\r\n"); err != nil {
		return err.Error()
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(answer), "\r\n")
	s := c.ConnectionState()
	return fmt.Sprintf("%s %s %s: %s", s.PeerCertificates[0].Subject.CommonName, tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), line)
}

// TestTLSModes meets a gateway's servers in all their modes: certificates by server name, from Secrets in both spellings and
// from files, clients' certificates demanded or asked for, versions and cipher suites, connections passed on, and redirects.
func TestTLSModes(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	var ports []string
	for range 4 {
		ports = append(ports, port(meshtest.Address(t)))
	}
	inside := newOrigin(t, &tls.Config{Certificates: []tls.Certificate{a.pair("own.example")}})
	secret, _ := a.secret("shop.example")
	dir := t.TempDir()
	a.files(dir, "files", "files.example")
	text := service("web", "app: web") + workload("web", "v1", 1) + "---\n" + secret + a.opaqueSecret("bank", "bank.example", "*.bank.example") + fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: %[1]s, name: shop, protocol: HTTPS}
    hosts: [shop.example]
    tls: {mode: SIMPLE, credentialName: entry}
  - port: {number: %[1]s, name: bank, protocol: HTTPS}
    hosts: [bank.example, "*.bank.example"]
    tls: {mode: MUTUAL, credentialName: bank, minProtocolVersion: TLSV1_3}
  - port: {number: %[1]s, name: files, protocol: HTTPS}
    hosts: [files.example]
    tls: {mode: MUTUAL, serverCertificate: %[5]s/files.pem, privateKey: %[5]s/files.key, caCertificates: %[5]s/ca.pem}
  - port: {number: %[2]s, name: optional, protocol: HTTPS}
    hosts: [bank.example]
    tls: {mode: OPTIONAL_MUTUAL, credentialName: bank, maxProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-ECDSA-AES256-GCM-SHA384]}
  - port: {number: %[3]s, name: pass, protocol: TLS}
    hosts: [own.example]
    tls: {mode: PASSTHROUGH}
  - port: {number: %[4]s, name: plain, protocol: HTTP}
    hosts: [shop.example]
    tls: {httpsRedirect: true}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{route: [{destination: {host: web}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: own}
spec:
  hosts: [own.example]
  gateways: [edge]
  tls: [{match: [{sniHosts: [own.example]}], route: [{destination: {host: origin.example, port: {number: 443}}}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: origin}
spec:
  hosts: [origin.example]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1, ports: {tls: %[6]s}}]
`, ports[0], ports[1], ports[2], ports[3], dir, port(inside))
	m := up(t, text)
	gate := func(i int) string {
		n, err := strconv.Atoi(ports[i])
		if err != nil {
			t.Fatal(err)
		}
		return m.at("edge", n)
	}
	own, foreign := a.pair("client.example"), stranger.pair("client.example")
	check := func(what string, gateway int, name, want string, change func(*tls.Config)) {
		t.Helper()
		c := &tls.Config{RootCAs: a.pool(), ServerName: name}
		if change != nil {
			change(c)
		}
		if got := handshake(t, gate(gateway), c); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	shows := func(p tls.Certificate) func(*tls.Config) {
		return func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &p, nil }
		}
	}
	with := func(changes ...func(*tls.Config)) func(*tls.Config) {
		return func(c *tls.Config) {
			for _, f := range changes {
				f(c)
			}
		}
	}
	only := func(version uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version }
	}
	suite := func(s uint16) func(*tls.Config) { return func(c *tls.Config) { c.CipherSuites = []uint16{s} } }
	const ok = ": HTTP/1.1 200"

	check("SIMPLE", 0, "shop.example", "shop.example TLS 1.3", nil)
	check("SIMPLE, in TLS 1.2", 0, "shop.example", ok, only(tls.VersionTLS12))
	check("SIMPLE, in TLS 1.1, which is below the default", 0, "shop.example", "protocol version", only(tls.VersionTLS11))
	check("a name that no server has", 0, "other.example", "unrecognized name", nil)
	check("MUTUAL", 0, "bank.example", "bank.example TLS 1.3", shows(own))
	check("MUTUAL, by a wildcard", 0, "a.bank.example", "bank.example TLS 1.3", shows(own))
	check("MUTUAL, without a certificate", 0, "bank.example", "certificate required", nil)
	check("MUTUAL, with a stranger's certificate", 0, "bank.example", "unknown certificate authority", shows(foreign))
	check("MUTUAL, below minProtocolVersion", 0, "bank.example", "protocol version", with(shows(own), only(tls.VersionTLS12)))
	check("MUTUAL, by files", 0, "files.example", "files.example TLS 1.3", shows(own))
	check("MUTUAL, by files, without a certificate", 0, "files.example", "certificate required", nil)
	const aes256 = "bank.example TLS 1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: HTTP/1.1 200"
	check("OPTIONAL_MUTUAL", 1, "bank.example", aes256, shows(own))
	check("OPTIONAL_MUTUAL, without a certificate", 1, "bank.example", aes256, nil)
	check("OPTIONAL_MUTUAL, with a stranger's certificate", 1, "bank.example", "unknown certificate authority", shows(foreign))
	check("cipherSuites: the one", 1, "bank.example", aes256, suite(tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384))
	check("cipherSuites: another", 1, "bank.example", "handshake failure", suite(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256))
	check("maxProtocolVersion", 1, "bank.example", "protocol version", only(tls.VersionTLS13))
	check("PASSTHROUGH", 2, "own.example", "own.example TLS 1.3", nil)
	if got := handshake(t, gate(2), &tls.Config{RootCAs: a.pool(), ServerName: "shop.example"}); strings.Contains(got, "200") {
		t.Errorf("PASSTHROUGH of another name: %s", got)
	}

	if a := m.direct(gate(3), "shop.example", "/a?b"); a.Status != 301 || a.Header.Get("Location") != "https://shop.example/a?b" {
		t.Errorf("httpsRedirect: %d to %s", a.Status, a.Header.Get("Location"))
	}
}

// newOrigin is an application that serves HTTP/1.1 over TLS, and answers with the name of its client's certificate.
func newOrigin(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(w http.ResponseWriter, r *http.Request) {
		if peers := r.TLS.PeerCertificates; len(peers) > 0 {
			fmt.Fprint(w, peers[0].Subject.CommonName, " ")
		}
		fmt.Fprint(w, "as ", r.TLS.ServerName)
	})
	return l.Addr().String()
}

// TestTLSUpstreams opens TLS to applications as DestinationRules say, for HTTP and for bytes: what cannot be verified gets
// nothing, and who asked for it, the log and the metrics are told why.
func TestTLSUpstreams(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	a.files(dir, "client", "client.example")
	if err := os.WriteFile(filepath.Join(dir, "stranger.pem"), []byte(stranger.pem), 0o600); err != nil {
		t.Fatal(err)
	}
	server := a.pair("origin.example")
	plain := newOrigin(t, &tls.Config{Certificates: []tls.Certificate{server}})
	mutual := newOrigin(t, &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: a.pool(), ClientAuth: tls.RequireAndVerifyClientCert})
	type use struct {
		number        int
		at, settings  string
		status        int
		reply, reason string
	}
	ca := "caCertificates: " + dir + "/ca.pem"
	pair := fmt.Sprintf("clientCertificate: %[1]s/client.pem, privateKey: %[1]s/client.key", dir)
	const refusal = "transport failure reason: TLS: "
	uses := []use{
		{8001, port(plain), "mode: SIMPLE, sni: origin.example, " + ca, 200, "as origin.example", ""},
		{8002, port(plain), "mode: SIMPLE, sni: origin.example, subjectAltNames: [origin.example], " + ca, 200, "as origin.example", ""},
		{8003, port(plain), "mode: SIMPLE, sni: front.example, subjectAltNames: [origin.example], " + ca, 200, "as front.example", ""},
		{8004, port(plain), "mode: SIMPLE, sni: origin.example, subjectAltNames: [other.example], " + ca, 503, refusal + "name_mismatch", "name_mismatch"},
		{8005, port(plain), "mode: SIMPLE, sni: origin.example, caCertificates: " + dir + "/stranger.pem", 503, refusal + "unknown_ca", "unknown_ca"},
		{8006, port(plain), "mode: SIMPLE, sni: origin.example", 503, refusal + "unknown_ca", "unknown_ca"}, // the system's authorities
		{8007, port(plain), "mode: SIMPLE, sni: origin.example, insecureSkipVerify: true", 200, "as origin.example", ""},
		{8008, port(mutual), "mode: MUTUAL, sni: origin.example, " + ca + ", " + pair, 200, "client.example as origin.example", ""},
		{8009, port(mutual), "mode: SIMPLE, sni: origin.example, " + ca, 503, "", ""},
	}
	var names, rules, endpoints strings.Builder
	for _, p := range uses {
		fmt.Fprintf(&names, "\n  - {number: %d, name: http-%[1]d, protocol: HTTP}", p.number)
		fmt.Fprintf(&names, "\n  - {number: %d, name: tcp-%[1]d, protocol: TCP}", p.number+100)
		fmt.Fprintf(&endpoints, "http-%d: %s, tcp-%d: %[2]s, ", p.number, p.at, p.number+100)
		for _, n := range []int{p.number, p.number + 100} {
			fmt.Fprintf(&rules, "\n    - {port: {number: %d}, tls: {%s}}", n, p.settings)
		}
	}
	text := "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: origin}\nspec:\n  hosts: [origin.internal]\n  resolution: STATIC\n  ports:" + names.String() +
		"\n  endpoints: [{address: 127.0.0.1, ports: {" + strings.TrimSuffix(endpoints.String(), ", ") + "}}]\n" +
		"---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: origin}\nspec:\n  host: origin.internal\n  trafficPolicy:\n    portLevelSettings:" + rules.String() + "\n"
	said := &transcript{}
	m := up(t, text, prometheus, func(o *local.Options) { o.Log = slog.New(slog.NewTextHandler(said, nil)) })
	want := map[string]int{}
	for _, p := range uses {
		for range 2 {
			if got := m.get(fmt.Sprintf("http://origin.internal:%d/", p.number)); got.Status != p.status || !strings.Contains(got.Text, p.reply) {
				t.Errorf("{%s}: %d %s", p.settings, got.Status, got.Text)
			}
		}
		c, err := m.tunnel(fmt.Sprintf("origin.internal:%d", p.number+100))
		switch {
		case p.reason != "":
			if err == nil || !strings.Contains(err.Error(), "503") {
				t.Errorf("{%s}: a tunnel is opened: %v", p.settings, err)
			}
			want[p.reason]++
			continue
		case err != nil:
			t.Errorf("{%s}: %v", p.settings, err)
			continue
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n"); err != nil && p.status == 200 {
			t.Error(err) // of what is refused the write may fail already
		}
		got, err := io.ReadAll(c)
		if p.status == 200 && (err != nil || !strings.HasSuffix(string(got), p.reply)) || p.status != 200 && strings.Contains(string(got), "200") {
			t.Errorf("{%s}, as bytes: %q, %v", p.settings, got, err)
		}
		_ = c.Close()
	}
	for reason := range want {
		m.await("handshakes are counted as "+reason, func() bool {
			m.scraped()
			return m.value(`sum(outrider_tls_handshakes_total{side="client",result="`+reason+`"})`) >= 1
		})
	}
	for _, line := range []string{"one of subjectAltNames other.example is required", "certificate signed by unknown authority"} {
		if !strings.Contains(said.String(), line) {
			t.Errorf("the log does not say %q: %s", line, said)
		}
	}
	if n := strings.Count(said.String(), "no TLS with an endpoint"); n > 2*len(uses) {
		t.Errorf("it is said %d times", n)
	}
}
