package telemetry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/certificate"
)

// authority signs certificates for tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{c, key}
}

func (a *authority) issue(t *testing.T, name string, notAfter time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: notAfter.Add(-2 * time.Hour), NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.certificate)
	return p
}

// shake has two sides shake hands, and returns what either thinks of it.
func shake(client, server *tls.Config) (atClient, atServer error) {
	c, s := net.Pipe()
	done := make(chan error)
	go func() {
		conn := tls.Server(s, server)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		s.Close()
		done <- err
	}()
	conn := tls.Client(c, client)
	err := conn.Handshake()
	if err == nil { // in TLS 1.3 a client hears of its certificate's refusal when it reads
		_, err = conn.Read(make([]byte, 1))
	}
	c.Close()
	return err, <-done
}

func TestHandshakes(t *testing.T) {
	root, other := newAuthority(t), newAuthority(t)
	soon := time.Now().Add(time.Hour)
	server := func(change func(*tls.Config)) *tls.Config {
		c := &tls.Config{Certificates: []tls.Certificate{root.issue(t, "web", soon)}, ClientCAs: root.pool()}
		change(c)
		return c
	}
	client := func(change func(*tls.Config)) *tls.Config {
		c := &tls.Config{RootCAs: root.pool(), ServerName: "web"}
		change(c)
		return c
	}
	same := func(*tls.Config) {}
	mutual := func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }
	showing := func(k tls.Certificate) func(*tls.Config) {
		return func(c *tls.Config) { c.Certificates = []tls.Certificate{k} }
	}
	version := func(v uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MinVersion, c.MaxVersion = v, v }
	}
	protocol := func(name string) func(*tls.Config) { return func(c *tls.Config) { c.NextProtos = []string{name} } }
	cipher := func(id uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{id} }
	}
	f := func(name string, c, s *tls.Config, atClient, atServer Handshake) {
		t.Helper()
		ce, se := shake(c, s)
		if got := HandshakeOf(certificate.Reason(ce)); got != atClient {
			t.Errorf("%s: client has %s, not %s, of %v", name, got, atClient, ce)
		}
		if got := HandshakeOf(certificate.Reason(se)); got != atServer {
			t.Errorf("%s: server has %s, not %s, of %v", name, got, atServer, se)
		}
	}
	f("good", client(same), server(same), HandshakeOK, HandshakeOK)
	f("mutual", client(showing(root.issue(t, "me", soon))), server(mutual), HandshakeOK, HandshakeOK)
	f("no certificate", client(same), server(mutual), HandshakeNoCertificate, HandshakeNoCertificate)
	f("server's is over", client(same), server(showing(root.issue(t, "web", time.Now().Add(-time.Hour)))), HandshakeExpired, HandshakeOther)
	f("client's is over", client(showing(root.issue(t, "me", time.Now().Add(-time.Hour)))), server(mutual), HandshakeExpired, HandshakeExpired)
	f("server's is of another root", client(same), server(showing(other.issue(t, "web", soon))), HandshakeUnknownCA, HandshakeOther)
	f("server's is another's", client(func(c *tls.Config) { c.ServerName = "shop" }), server(same), HandshakeNameMismatch, HandshakeOther)
	f("versions", client(version(tls.VersionTLS12)), server(version(tls.VersionTLS13)), HandshakeProtocol, HandshakeProtocol)
	f("application protocols", client(protocol("h2")), server(protocol("istio")), HandshakeProtocol, HandshakeProtocol)
	f("ciphers", client(cipher(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)), server(cipher(tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)), HandshakeOther, HandshakeProtocol)
}

func TestHandshakeOf(t *testing.T) {
	f := func(reason string, want Handshake) {
		t.Helper()
		for _, r := range []string{reason, "peer_" + reason} {
			if got := HandshakeOf(r); got != want {
				t.Errorf("%q is %s, not %s", r, got, want)
			}
		}
	}
	f("", HandshakeOK)
	f("not_yet_valid", HandshakeExpired)
	f("pin_mismatch", HandshakeNameMismatch)
	f("unknown_server_name", HandshakeNameMismatch)
	f("revoked", HandshakeRevoked)
	f("revocation_unknown", HandshakeOther)
	f("alert", HandshakeOther)
	f("not_tls", HandshakeProtocol)
	f("timeout", HandshakeOther)
	f("handshake", HandshakeOther)
}
