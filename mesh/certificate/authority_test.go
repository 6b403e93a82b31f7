package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// authority is a test's own CA.
type authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	pem   []byte // its certificate
	chain []byte // what its leaves carry besides themselves
}

// identity is a certificate with its key.
type identity struct {
	leaf      *x509.Certificate
	cert, key []byte // PEM
}

var (
	serials atomic.Int64
	rsaKey  = sync.OnceValue(func() crypto.Signer {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return k
	})
)

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	return (*authority)(nil).sub(t, name)
}

// sub makes an intermediate of a; of nil, a root.
func (a *authority) sub(t testing.TB, name string) *authority {
	t.Helper()
	key := ecKey(t)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	parent, signer := c, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	s := &authority{cert: cert, key: key, pem: block("CERTIFICATE", der)}
	if a != nil {
		s.chain = append(s.pem, a.chain...)
	}
	return s
}

// issue makes a leaf for name, good for either side, which edit changes before it is signed.
func (a *authority) issue(t testing.TB, key crypto.Signer, name string, edit func(*x509.Certificate)) *identity {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: "common name of " + name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if name != "" {
		c.DNSNames = []string{name}
	}
	if edit != nil {
		edit(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{leaf: leaf, cert: append(block("CERTIFICATE", der), a.chain...), key: block("PRIVATE KEY", pkcs8)}
}

// leaf is issue with a new ECDSA key and nothing edited.
func (a *authority) leaf(t testing.TB, name string) *identity { return a.issue(t, ecKey(t), name, nil) }

// revoke makes a revocation list.
func (a *authority) revoke(t testing.TB, next time.Time, serials ...*big.Int) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next}
	for _, n := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return block("X509 CRL", der)
}

// secret is i as a Secret's material.
func (i *identity) secret() *model.Certificate {
	return &model.Certificate{Name: "default/secret", Material: &model.Material{Cert: i.cert, Key: i.key}}
}

// trust is a as a Secret's roots.
func (a *authority) trust(crls ...[]byte) *model.Certificate {
	m := &model.Material{CA: a.pem}
	for _, l := range crls {
		m.CRL = append(m.CRL, l...)
	}
	return &model.Certificate{Name: "default/secret-cacert", Material: m}
}

func (i *identity) pair(t testing.TB) tls.Certificate {
	t.Helper()
	p, err := tls.X509KeyPair(i.cert, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (a *authority) roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// write puts content into a file of dir and makes it old enough for its time to be believed.
func write(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(tmp, old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// met is how a handshake went on either side.
type met struct {
	server, client       tls.ConnectionState
	serverErr, clientErr error
}

// meet lets a client and a server shake hands over loopback, and a byte go from server to client: in TLS 1.3 a client
// hears only then whether its certificate was taken, and gets its ticket.
func meet(t testing.TB, server, client *tls.Config) met {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var m met
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			m.serverErr = err
			return
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(30 * time.Second))
		c := tls.Server(raw, server)
		if m.serverErr = c.Handshake(); m.serverErr == nil {
			_, m.serverErr = c.Write([]byte("!"))
		}
		m.server = c.ConnectionState()
		_ = raw.(*net.TCPConn).CloseWrite()
		_, _ = raw.Read(make([]byte, 1024)) // until the client has read: a reset must not overtake the alert
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.SetDeadline(time.Now().Add(30 * time.Second))
	c := tls.Client(raw, client)
	if m.clientErr = c.Handshake(); m.clientErr == nil {
		_, m.clientErr = c.Read(make([]byte, 1))
	}
	m.client = c.ConnectionState()
	raw.Close()
	<-done
	return m
}

// wants checks a side's error by its reason, "" for none.
func wants(t testing.TB, side string, err error, reason string) {
	t.Helper()
	if got := Reason(err); got != reason {
		t.Errorf("%s: got %q (%v), want %q", side, got, err, reason)
	}
}
