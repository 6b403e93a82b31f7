package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// authority issues certificates for one test.
type authority struct {
	t      *testing.T
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	pem    string
	issued int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "the test's own authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = template, nil
	a.cert, a.key, a.pem, _ = a.issue(template)
	return a
}

// issue signs a certificate with the authority's key, its own where there is none yet.
func (a *authority) issue(template *x509.Certificate) (cert *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.issued++
	template.SerialNumber = big.NewInt(a.issued)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// secret is the YAML of a Secret "entry" with a new certificate for names; its serial number tells them apart.
func (a *authority) secret(names ...string) (text string, serial int64) {
	_, _, cert, key := a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	indented := func(pem string) string { return "    " + strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\n    ") }
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: entry}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n%s\n  tls.key: |\n%s\n", indented(cert), indented(key)), a.issued
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// secureEntry is a Gateway "entry" that ends TLS with the Secret "entry".
var secureEntry = entry("HTTPS", "{mode: SIMPLE, credentialName: entry}")

// trusting is speaking over TLS, with the server's certificate verified; it counts the connections.
func (m *mesh) trusting(a *authority, version int, address string, dialled *atomic.Int64) *http.Client {
	c := m.speaking(version, address)
	t := c.Transport.(*http.Transport)
	t.TLSClientConfig = &tls.Config{RootCAs: a.pool(), ServerName: "shop.example"}
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		return dial(ctx, network, address)
	}
	return c
}

// TestVersionsByALPN asks a gateway over TLS: the client's version is chosen by ALPN, the application's by its port.
func TestVersionsByALPN(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	secret, _ := a.secret("shop.example")
	at := listenVersions(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.ProtoMajor, " ", r.Host, " ", r.Header.Get("X-Forwarded-Proto"))
	})
	for _, w := range ways {
		if w.port == "data" {
			continue // a gateway's routes lead to ports that are HTTP
		}
		t.Run(w.String(), func(t *testing.T) {
			m := up(t, named80(w.port)+secureEntry+"---\n"+secret, apps(at))
			var dialled atomic.Int64
			c := m.trusting(a, w.client, m.at("entry", 18080), &dialled)
			for range 3 {
				res := do(t, c, t.Context(), http.MethodGet, "https://shop.example/", nil)
				if got := text(t, res); got != fmt.Sprint(w.app, " shop.example https") || res.ProtoMajor != w.client {
					t.Errorf("in HTTP/%d: %s", res.ProtoMajor, got)
				}
			}
			if dialled.Load() != 1 {
				t.Errorf("%d connections for three requests in a row", dialled.Load())
			}
		})
	}
}

// TestCertificateReloads replaces a gateway's certificate under load, by clients of both versions and of gRPC: nothing
// fails, no connection is lost, and who connects afterwards is shown the new one.
func TestCertificateReloads(t *testing.T) {
	t.Parallel()
	reloads := 6
	if long {
		reloads = 40
	}
	a := newAuthority(t)
	secret, serial := a.secret("shop.example")
	app := startInterop(t, "v1")
	l := newLoad(t)
	m := up(t, named80("grpc")+secureEntry, apps(app))
	m.edit("secret.yaml", secret)
	at := m.at("entry", 18080)
	var dialled, ended, sent atomic.Int64
	channel := dialGRPC(t, at, "shop.example", grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: a.pool(), ServerName: "shop.example"})),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			dialled.Add(1)
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			return watched{c, &ended}, err
		}))
	kept := []*http.Client{m.trusting(a, 1, at, &dialled), m.trusting(a, 2, at, &dialled)}
	for _, c := range kept {
		t := c.Transport.(*http.Transport)
		dial := t.DialContext
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			return watched{c, &ended}, err
		}
	}
	const callers = 8
	l.Go(func() {
		m.crowd(t, callers, func(i int) error {
			for {
				select {
				case <-l.over:
					return nil
				default:
				}
				if err := useEntry(t.Context(), i, testpb.NewTestServiceClient(channel), kept); err != nil {
					return err
				}
				sent.Add(1)
			}
		})
	})
	shown := func() int64 {
		c, err := tls.Dial("tcp", at, &tls.Config{RootCAs: a.pool(), ServerName: "shop.example"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	m.await("the load has begun", func() bool { return sent.Load() >= 20*callers })
	for range reloads {
		if got := shown(); got != serial {
			t.Errorf("a new connection is shown certificate %d, want %d", got, serial)
		}
		before := sent.Load()
		m.await("the load goes on", func() bool { return sent.Load() >= before+20*callers })
		secret, serial = a.secret("shop.example")
		m.edit("secret.yaml", secret)
	}
	if got := shown(); got != serial {
		t.Errorf("at last a new connection is shown certificate %d, want %d", got, serial)
	}
	l.end()
	if n := ended.Load(); n != 0 { // a client of HTTP/1 may open another one whenever all are busy
		t.Errorf("%d connections were ended while certificates changed, want none", n)
	}
	t.Logf("%d requests and calls on %d connections over %d certificates", sent.Load(), dialled.Load(), reloads+1)
}

// watched is a client's connection that counts its end, where that is not the client's own doing.
type watched struct {
	net.Conn
	ended *atomic.Int64
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		w.ended.Add(1)
	}
	return n, err
}

// useEntry is one use of the gateway: a gRPC call, or a plain request that gets an answer, if only gRPC's of not being one.
func useEntry(ctx context.Context, i int, calls testpb.TestServiceClient, kept []*http.Client) error {
	if i%3 == 2 {
		_, err := calls.EmptyCall(ctx, &testpb.Empty{})
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://shop.example/", nil)
	if err != nil {
		return err
	}
	res, err := kept[i%3].Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnsupportedMediaType && res.StatusCode != http.StatusMethodNotAllowed {
		return fmt.Errorf("status %d %s", res.StatusCode, res.Header.Get("x-outrider-reason"))
	}
	return nil
}

// TestInteropByGateway runs gRPC's cases through a gateway that ends TLS.
func TestInteropByGateway(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	secret, _ := a.secret("shop.example")
	m := up(t, named80("grpc")+secureEntry+"---\n"+secret, apps(startInterop(t, "v1")))
	m.interop(t, "tls:passthrough:///"+m.at("entry", 18080), "shop.example")
}
