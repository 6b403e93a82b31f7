package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func connect(t testing.TB, m *model.ClientTLS) *Client {
	t.Helper()
	c, err := newClient(m, nil, silent, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServerCertificates(t *testing.T) {
	ca, wrong := newAuthority(t, "root"), newAuthority(t, "wrong root")
	mid := ca.sub(t, "intermediate")
	edit := func(f func(*x509.Certificate)) *identity { return ca.issue(t, ecKey(t), "server.test", f) }
	good := edit(func(c *x509.Certificate) {
		c.DNSNames = append(c.DNSNames, "*.wild.test")
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/default/sa/server"}}
		c.IPAddresses = []net.IP{net.ParseIP("10.1.2.3"), net.ParseIP("2001:db8::1")}
	})
	later := time.Now().Add(time.Hour)
	f := func(what string, m model.ClientTLS, host string, id *identity, reason string) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			t.Helper()
			if m.Mode == "" {
				m.Mode = model.SimpleTLS
			}
			c := connect(t, &m)
			p := id.pair(t)
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				got := meet(t, &tls.Config{Certificates: []tls.Certificate{p}, MaxVersion: version}, c.Config(host, "h2"))
				wants(t, "client", got.clientErr, reason)
				if heard := Reason(got.serverErr); reason != "" && heard != "peer_bad_certificate" && heard != "peer_"+reason {
					t.Errorf("server heard %s", heard)
				}
			}
		})
	}
	trust := model.ClientTLS{Trust: ca.trust()}
	with := func(f func(*model.ClientTLS)) model.ClientTLS {
		c := trust
		f(&c)
		return c
	}
	names := func(n ...string) model.ClientTLS {
		return with(func(c *model.ClientTLS) { c.SubjectAltNames = n })
	}
	f("host", trust, "server.test", good, "")
	f("host with a dot", trust, "server.test.", good, "")
	f("host in capitals", trust, "SERVER.test", good, "")
	f("host under a wildcard", trust, "a.wild.test", good, "")
	f("host two labels under a wildcard", trust, "a.b.wild.test", good, "name_mismatch")
	f("address", trust, "10.1.2.3", good, "")
	f("IPv6 address", trust, "[2001:db8::1]", good, "")
	f("another address", trust, "10.1.2.4", good, "name_mismatch")
	f("another host", trust, "other.test", good, "name_mismatch")
	f("SNI", with(func(c *model.ClientTLS) { c.SNI = "server.test" }), "other.test", good, "")
	f("another SNI", with(func(c *model.ClientTLS) { c.SNI = "other.test" }), "server.test", good, "name_mismatch")
	f("names instead of host", names("other.test", "server.test"), "elsewhere.test", good, "")
	f("names, none", names("other.test"), "server.test", good, "name_mismatch")
	f("URI", names("spiffe://cluster.local/ns/default/sa/server"), "server.test", good, "")
	f("intermediate", trust, "server.test", mid.leaf(t, "server.test"), "")
	f("intermediate, names", names("server.test"), "x", mid.leaf(t, "server.test"), "")

	for _, m := range []model.ClientTLS{trust, names("server.test")} { // verified by crypto/tls, and by us
		kind := fmt.Sprintf(", %d names", len(m.SubjectAltNames))
		f("wrong CA"+kind, m, "server.test", wrong.leaf(t, "server.test"), "unknown_ca")
		f("expired"+kind, m, "server.test", edit(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired")
		f("not yet valid"+kind, m, "server.test", edit(func(c *x509.Certificate) { c.NotBefore = later }), "not_yet_valid")
		f("wrong usage"+kind, m, "server.test", edit(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "wrong_usage")
		m.Trust = nil
		f("system roots"+kind, m, "server.test", good, "unknown_ca")
		m.Trust = ca.trust(ca.revoke(t, later, big.NewInt(1<<40)))
		f("not revoked"+kind, m, "server.test", good, "")
		m.Trust = ca.trust(ca.revoke(t, later, good.leaf.SerialNumber))
		f("revoked"+kind, m, "server.test", good, "revoked")
		m.Trust = ca.trust(wrong.revoke(t, later))
		f("revocation unknown"+kind, m, "server.test", good, "revocation_unknown")
	}
	f("skipped", model.ClientTLS{SkipVerify: true, SubjectAltNames: []string{"other.test"}}, "x.test", wrong.leaf(t, "server.test"), "")
	c := connect(t, &model.ClientTLS{Mode: model.SimpleTLS, Trust: ca.trust()})
	wants(t, "client", meet(t, &tls.Config{Certificates: []tls.Certificate{good.pair(t)}}, c.Config("")).clientErr, "handshake") // nobody is anybody
}

func TestWeakSignature(t *testing.T) {
	openssl := tool(t, "openssl")
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(openssl, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("openssl makes no SHA-1 certificate here: %v\n%s", err, out)
		}
	}
	run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=root", "-days", "2", "-sha256")
	run("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=server.test", "-addext", "subjectAltName=DNS:server.test")
	run("x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "tls.crt", "-days", "1", "-sha1", "-copy_extensions", "copy")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	if pair.Leaf.SignatureAlgorithm != x509.SHA1WithRSA {
		t.Fatalf("signed with %v", pair.Leaf.SignatureAlgorithm)
	}
	for _, names := range [][]string{nil, {"server.test"}} {
		c := connect(t, &model.ClientTLS{Mode: model.SimpleTLS, SubjectAltNames: names, Trust: &model.Certificate{Name: "ca", CAFile: filepath.Join(dir, "ca.crt")}})
		m := meet(t, &tls.Config{Certificates: []tls.Certificate{pair}}, c.Config("server.test"))
		wants(t, "client", m.clientErr, "weak_signature")
	}
}

// TestSystemRoots runs itself again with roots of its own for the system's.
func TestSystemRoots(t *testing.T) {
	const env = "OUTRIDER_TEST_SYSTEM_ROOTS"
	if dir := os.Getenv(env); dir != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
		if err != nil {
			t.Fatal(err)
		}
		for _, names := range [][]string{nil, {"server.test"}} {
			c := connect(t, &model.ClientTLS{Mode: model.SimpleTLS, SubjectAltNames: names})
			m := meet(t, &tls.Config{Certificates: []tls.Certificate{pair}}, c.Config("server.test"))
			wants(t, "client", m.clientErr, "")
			wants(t, "server", m.serverErr, "")
		}
		return
	}
	dir := t.TempDir()
	ca := newAuthority(t, "root")
	id := ca.leaf(t, "server.test")
	write(t, dir, "tls.crt", id.cert)
	write(t, dir, "tls.key", id.key)
	cmd := exec.Command(os.Args[0], "-test.run=^TestSystemRoots$", "-test.v")
	cmd.Env = append(os.Environ(), env+"="+dir, "SSL_CERT_FILE="+write(t, dir, "ca.crt", ca.pem), "SSL_CERT_DIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestClientShowsItsCertificate(t *testing.T) {
	ca := newAuthority(t, "root")
	id, other := ca.leaf(t, "client.test"), newAuthority(t, "other").leaf(t, "client.test")
	s := serve(t, nil, mutual(ca.leaf(t, "server.test"), ca.trust(), "*"))
	f := func(m model.ClientTLS, reason, heard string) {
		t.Helper()
		m.Trust = ca.trust()
		got := meet(t, s.Config(), connect(t, &m).Config("server.test"))
		wants(t, "server", got.serverErr, reason)
		wants(t, "client", got.clientErr, heard)
	}
	f(model.ClientTLS{Mode: model.MutualTLS, Certificate: id.secret()}, "", "")
	f(model.ClientTLS{Mode: model.MutualTLS, Certificate: other.secret()}, "unknown_ca", "peer_unknown_ca") // not kept back
	f(model.ClientTLS{Mode: model.SimpleTLS, Certificate: id.secret()}, "no_certificate", "peer_no_certificate")
}

func TestClientConfigIsKept(t *testing.T) {
	ca := newAuthority(t, "root")
	dir := t.TempDir()
	c := connect(t, &model.ClientTLS{Mode: model.SimpleTLS, Trust: ca.trust()})
	one := c.Config("a.test", "h2", "http/1.1")
	if c.Config("a.test", "h2", "http/1.1") != one || c.Config("a.test.", "h2", "http/1.1") != one {
		t.Error("the same arguments give another configuration")
	}
	if c.Config("a.test", "h2") == one || c.Config("b.test", "h2", "http/1.1") == one {
		t.Error("other arguments give the same configuration")
	}
	sni := connect(t, &model.ClientTLS{Mode: model.SimpleTLS, SNI: "s.test"})
	if sni.Config("a.test") != sni.Config("b.test") || sni.Config("a.test").ServerName != "s.test" {
		t.Error("with SNI the host matters")
	}
	for i := range 3 * maxHosts {
		c.Config(fmt.Sprintf("host-%d.test", i))
	}
	if n := len(c.state.Load().configs); n > maxHosts {
		t.Errorf("%d hosts are kept", n)
	}
	filed, err := NewClient(&model.ClientTLS{Mode: model.SimpleTLS, Trust: &model.Certificate{Name: "ca", CAFile: write(t, dir, "ca.crt", ca.pem)}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Client{c, sni, filed} {
		c.Config("a.test", "h2", "http/1.1")
		if n := testing.AllocsPerRun(100, func() { c.Config("a.test", "h2", "http/1.1") }); n != 0 {
			t.Errorf("%+v: Config allocates %v times", c.model, n)
		}
	}
}

func TestNewClientKeepsOld(t *testing.T) {
	ca := newAuthority(t, "root")
	m := model.ClientTLS{Mode: model.SimpleTLS, Trust: ca.trust()}
	old := connect(t, &m)
	again := model.ClientTLS{Mode: model.SimpleTLS, Trust: ca.trust()}
	if c, err := NewClient(&again, old, nil); err != nil || c != old {
		t.Errorf("nothing changed, and the client did: %v", err)
	}
	again.SNI = "a.test"
	if c, err := NewClient(&again, old, nil); err != nil || c == old {
		t.Errorf("the name changed, and the client did not: %v", err)
	}
	again.SNI, again.Trust = "", newAuthority(t, "another").trust()
	if c, err := NewClient(&again, old, nil); err != nil || c == old {
		t.Errorf("the roots changed, and the client did not: %v", err)
	}
}
