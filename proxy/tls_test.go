package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue signs a certificate for the names.
func (a *authority) issue(names ...string) *model.Material {
	a.t.Helper()
	key := newKey(a.t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &model.Material{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) pair(names ...string) tls.Certificate {
	m := a.issue(names...)
	c, err := tls.X509KeyPair(m.Cert, m.Key)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// tlsGateway makes a gateway that opens TLS for web.example and passes db.example on, over the address.
func tlsGateway(a *authority, address string) *model.Snapshot {
	return snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		passed := s.Clusters[0]
		passed.Name, passed.Protocol = "outbound|443||"+service, model.TLS
		s.Clusters = append(s.Clusters, passed)
		s.Tables[0].Hosts[0].Domains, s.Tables[0].Hosts[0].Port = []string{"web.example"}, 0
		s.Tables[0].Unmatched = nil
		s.Tables = append(s.Tables, model.Table{Name: "names", Hosts: []model.VirtualHost{{
			Name: "db", Domains: []string{"db.example"},
			Rules: []model.Rule{{Route: &model.Route{Destinations: []model.Destination{{Cluster: passed.Name, Weight: 1}}}}},
		}}})
		s.Listeners[0] = model.Listener{
			Name: "gateway", Direction: model.Gateway, Address: "127.0.0.1:0", Port: 443, Protocol: model.HTTPS,
			TLS: []model.ServerTLS{
				{
					Names: []string{"web.example"}, Mode: model.SimpleTLS, Protocol: model.HTTP, Table: "outbound",
					Certificates: []model.Certificate{{Name: "default/web", Material: a.issue("web.example")}},
				},
				{Names: []string{"db.example"}, Mode: model.PassthroughTLS, Protocol: model.TCP, Table: "names"},
			},
		}
	}, address)
}

func dialTLS(t *testing.T, p *Proxy, listener string, config *tls.Config) *client {
	t.Helper()
	nc, err := tls.Dial("tcp", p.Address(listener), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &client{t: t, Conn: nc, r: bufio.NewReader(nc)}
}

// What ALPN has agreed on is spoken whatever comes first, as in Envoy: HTTP/2 says what is wrong with a preface in its own words,
// and HTTP/1 refuses that of HTTP/2.
func TestALPN(t *testing.T) {
	a := newAuthority(t)
	p := start(t, tlsGateway(a, newOrigin(t, nil).address()), Limits{})
	config := &tls.Config{ServerName: "web.example", RootCAs: a.pool(), NextProtos: []string{"h2"}}
	c := dialTLS(t, p, "gateway", config)
	c.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
	fr := http2.NewFramer(io.Discard, c.r)
	for goaway := false; !goaway; {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		g, ok := f.(*http2.GoAwayFrame)
		if goaway = ok; ok && g.ErrCode != http2.ErrCodeProtocol {
			t.Errorf("got %v", g)
		}
	}
	if _, err := fr.ReadFrame(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the GOAWAY: %v", err)
	}
	config.NextProtos = []string{"http/1.1"}
	c = dialTLS(t, p, "gateway", config)
	c.send(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	if a := c.read("GET"); a.status != 400 || a.field("connection") != "close" {
		t.Errorf("HTTP/2 where HTTP/1.1 was agreed on: %+v", a)
	}
	c.closed()
	config.NextProtos = nil // prior knowledge is fine where nothing was agreed on
	c = dialTLS(t, p, "gateway", config)
	c.send(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	if f, err := http2.NewFramer(io.Discard, c.r).ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
		t.Errorf("got %v, %v", f, err)
	}
}

// TLS is opened for the names that a chain has, HTTP inside is served as anywhere, and the application knows of it.
func TestTLSGateway(t *testing.T) {
	a := newAuthority(t)
	o := newOrigin(t, nil)
	p := start(t, tlsGateway(a, o.address()), Limits{})
	config := &tls.Config{ServerName: "web.example", RootCAs: a.pool(), NextProtos: []string{"http/1.1"}}
	c := dialTLS(t, p, "gateway", config)
	if got := c.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("negotiated %q", got)
	}
	big := strings.Repeat("x", 1<<20)
	for range 3 {
		c.send("GET /x HTTP/1.1\r\nHost: web.example\r\n\r\n")
		if x := c.read("GET"); x.status != 200 || !strings.Contains(x.body, "x-forwarded-proto: https\r\n") {
			t.Fatalf("got %+v", x)
		}
		c.send("POST /x HTTP/1.1\r\nHost: web.example\r\nContent-Length: 1048576\r\n\r\n" + big)
		if x := c.read("POST"); x.status != 200 {
			t.Fatalf("got %+v", x)
		}
	}
	c.send("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
	if x := c.read("GET"); x.status != 404 {
		t.Errorf("got %+v", x)
	}
	if got := o.connections(); got != 1 {
		t.Errorf("%d connections to the application, want 1", got)
	}
	unknown := config.Clone()
	unknown.ServerName = "unknown.example"
	if _, err := tls.Dial("tcp", p.Address("gateway"), unknown); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("an unknown name: %v", err)
	}
	plain := dial(t, p, "gateway")
	plain.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
	if b, err := plain.r.ReadByte(); err == nil && b == 'H' {
		t.Error("plain text was answered on a TLS port")
	}
}

// A chain that passes connections on leaves the server's own certificate and bytes untouched.
func TestTLSPassthrough(t *testing.T) {
	a := newAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{a.pair("db.example")}}
	o := newOrigin(t, func(c net.Conn, _ *bufio.Reader) {
		s := tls.Server(c, server)
		_, _ = io.WriteString(s, "secret hello")
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s)
	})
	p := start(t, tlsGateway(a, o.address()), Limits{})
	c := dialTLS(t, p, "gateway", &tls.Config{ServerName: "db.example", RootCAs: a.pool()})
	if b, err := io.ReadAll(c.r); string(b) != "secret hello" || err != nil {
		t.Fatalf("got %q, %v", b, err)
	}
	_ = c.Close()
	eventually(t, "the count", func() bool {
		return tcpTotals(t, p.metrics.Gatherer())["connections_closed_total - app"] == 1
	})
}

// A cluster with TLS is verified; what does not verify is refused with the reason, and nothing is sent in the clear.
func TestTLSUpstream(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{a.pair(service)}}
	o := newOrigin(t, func(c net.Conn, _ *bufio.Reader) {
		s := tls.Server(c, server)
		echo(s, bufio.NewReader(s))
	})
	over := func(trust []byte) *model.Snapshot {
		return snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
			s.Clusters[0].TLS = &model.ClientTLS{Mode: model.SimpleTLS, Trust: &model.Certificate{Name: "default/roots", Material: &model.Material{CA: trust}}}
		}, o.address())
	}
	p := start(t, over(a.pem), Limits{})
	c := dial(t, p, "outbound")
	for i := range 20 {
		c.send("POST /x HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi")
		if x := c.read("POST"); x.status != 200 {
			t.Fatalf("request %d: %+v", i, x)
		}
	}
	if got := o.connections(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
	p = start(t, over(stranger.pem), Limits{})
	c = dial(t, p, "outbound")
	c.send(get("/"))
	if x := c.read("GET"); x.status != 503 || !strings.Contains(x.body, "TLS: unknown_ca") {
		t.Errorf("got %+v", x)
	}
}

// autoOf makes an inbound listener of an undeclared protocol.
func autoOf(address string) *model.Snapshot {
	s := inboundOf(address)
	s.Listeners[0].Protocol, s.Listeners[0].Detect = model.Auto, model.Duration(2*time.Second)
	s.Clusters[0].Protocol = model.Auto
	return model.Seal(s)
}

func TestDetect(t *testing.T) {
	t.Run("HTTP", func(t *testing.T) {
		p := start(t, autoOf(newOrigin(t, nil).address()), Limits{})
		c := dial(t, p, "inbound|8080")
		c.send("GE")
		c.send("T / HTTP/1.1\r\nHost: any\r\n\r\n")
		if x := c.read("GET"); x.status != 200 {
			t.Errorf("got %+v", x)
		}
	})
	t.Run("the server speaks first", func(t *testing.T) {
		o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
			_, _ = io.WriteString(c, "220 hello\r\n")
			_, _ = io.Copy(c, r)
		})
		s := autoOf(o.address())
		s.Listeners[0].Detect = model.Duration(50 * time.Millisecond)
		p := start(t, model.Seal(s), Limits{})
		c := dial(t, p, "inbound|8080")
		line, err := c.r.ReadString('\n')
		if line != "220 hello\r\n" || err != nil {
			t.Fatalf("got %q, %v", line, err)
		}
		c.send("HELO me\r\n")
		if line, err := c.r.ReadString('\n'); line != "HELO me\r\n" || err != nil {
			t.Fatalf("got %q, %v", line, err)
		}
	})
	t.Run("other bytes", func(t *testing.T) {
		o := newOrigin(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) })
		p := start(t, autoOf(o.address()), Limits{})
		c := dial(t, p, "inbound|8080")
		c.send("\x00\x01\x02\x03 binary")
		b := make([]byte, 11)
		if _, err := io.ReadFull(c.r, b); err != nil || string(b) != "\x00\x01\x02\x03 binary" {
			t.Fatalf("got %q, %v", b, err)
		}
	})
	t.Run("gone before it spoke", func(t *testing.T) {
		o := newOrigin(t, nil)
		p := start(t, autoOf(o.address()), Limits{})
		c := dial(t, p, "inbound|8080")
		_ = c.Close()
		eventually(t, "the connection's end", func() bool { return p.stats.accepted.Load() == 1 && p.conns.count() == 0 })
		if o.connections() != 0 {
			t.Error("the application was connected to for nobody")
		}
	})
}

// Inside a CONNECT to a port of undeclared protocol both HTTP and other bytes find their way.
func TestDetectInsideConnect(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		if b, err := r.Peek(1); err == nil && b[0] == 'G' {
			echo(c, r)
			return
		}
		_, _ = io.Copy(c, r)
	})
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Protocol = model.Auto }, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n")
	if x := c.read("HEAD"); x.status != 200 {
		t.Fatalf("got %+v", x)
	}
	c.send(get("/inside"))
	if x := c.read("GET"); x.status != 200 || !strings.Contains(x.body, "GET /inside") {
		t.Fatalf("got %+v", x)
	}
	c = dial(t, p, "outbound")
	c.send("CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n")
	if x := c.read("HEAD"); x.status != 200 {
		t.Fatalf("got %+v", x)
	}
	c.send("\x00\x01\x02")
	b := make([]byte, 3)
	if _, err := io.ReadFull(c.r, b); err != nil || string(b) != "\x00\x01\x02" {
		t.Fatalf("got %q, %v", b, err)
	}
}

// Where an undeclared port has rules of its own for bytes, they hold for what is no HTTP.
func TestOpaqueRules(t *testing.T) {
	web := newOrigin(t, nil)
	bytes := newOrigin(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) })
	s := autoOf(web.address())
	other := s.Clusters[0]
	other.Name, other.Endpoints = "bytes", []model.Endpoint{{Address: bytes.address(), Weight: 1}}
	s.Clusters = append(s.Clusters, other)
	s.Tables[0].Hosts[0].Opaque = []model.Rule{{Route: &model.Route{Destinations: []model.Destination{{Cluster: "bytes", Weight: 1}}}}}
	p := start(t, model.Seal(s), Limits{})
	c := dial(t, p, "inbound|8080")
	c.send(get("/x"))
	if x := c.read("GET"); x.status != 200 || !strings.Contains(x.body, "GET /x") {
		t.Errorf("got %+v", x)
	}
	c = dial(t, p, "inbound|8080")
	c.send("\x00\x01\x02")
	b := make([]byte, 3)
	if _, err := io.ReadFull(c.r, b); err != nil || string(b) != "\x00\x01\x02" {
		t.Errorf("got %q, %v", b, err)
	}
}
