package certificate

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

var silent = slog.New(slog.DiscardHandler)

// serve makes a Server that looks at its files on each handshake.
func serve(t testing.TB, old *Server, chains ...model.ServerTLS) *Server {
	t.Helper()
	s, err := newServer(chains, old, silent, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// simple is a SIMPLE chain for names, whose table is the first of them.
func simple(i *identity, names ...string) model.ServerTLS {
	return model.ServerTLS{Names: names, Mode: model.SimpleTLS, Table: names[0], Protocol: model.HTTP, Certificates: []model.Certificate{*i.secret()}}
}

func mutual(i *identity, trust *model.Certificate, names ...string) model.ServerTLS {
	c := simple(i, names...)
	c.Mode, c.Trust = model.MutualTLS, trust
	return c
}

func TestServerName(t *testing.T) {
	ca := newAuthority(t, "root")
	id := func(name string) *identity { return ca.leaf(t, name) }
	named := serve(t, nil,
		simple(id("exact.example.com"), "exact.example.com", "other.test"),
		simple(id("one"), "*.example.com"),
		simple(id("two"), "*.deep.example.com"),
		simple(id("three"), "*.com"))
	open := serve(t, nil, simple(id("exact.example.com"), "exact.example.com"), simple(id("any"), "*"))
	f := func(s *Server, name, table string) {
		t.Helper()
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			m := meet(t, s.Config(), &tls.Config{ServerName: name, InsecureSkipVerify: true, MaxVersion: version})
			if table == "" {
				wants(t, "server", m.serverErr, "unknown_server_name")
				wants(t, "client", m.clientErr, "peer_unknown_server_name")
				if c := s.Chain(m.server); c != nil {
					t.Errorf("%s: chain %v", name, c.Names)
				}
				continue
			}
			if m.serverErr != nil || m.clientErr != nil {
				t.Errorf("%s: %v, %v", name, m.serverErr, m.clientErr)
				continue
			}
			c := s.Chain(m.server)
			if c == nil || c.Table != table {
				t.Errorf("%s: chain %+v, want %s", name, c, table)
			}
			if cn := m.client.PeerCertificates[0]; slices.Contains([]string{"exact.example.com"}, table) && cn.DNSNames[0] != table {
				t.Errorf("%s: showed %s", name, cn.DNSNames)
			}
		}
	}
	f(named, "exact.example.com", "exact.example.com")
	f(named, "EXACT.Example.COM", "exact.example.com")
	f(named, "other.test", "exact.example.com")
	f(named, "a.example.com", "*.example.com")
	f(named, "a.b.example.com", "*.example.com")
	f(named, "a.deep.example.com", "*.deep.example.com")
	f(named, "a.b.deep.example.com", "*.deep.example.com")
	f(named, "deep.example.com", "*.example.com")
	f(named, "example.com", "*.com")
	f(named, "com", "")
	f(named, "example.org", "")
	f(named, "", "")
	f(open, "", "*")
	f(open, "example.org", "*")
	f(open, "127.0.0.1", "*") // an address is no server name: the client sends none
	f(open, "exact.example.com", "exact.example.com")
}

func TestMatch(t *testing.T) {
	id := newAuthority(t, "root").leaf(t, "a")
	pass := model.ServerTLS{Names: []string{"p.test", "*.p.test"}, Mode: model.PassthroughTLS, Table: "pass"}
	s := serve(t, nil, simple(id, "a.test"), pass)
	if !s.Passes() || serve(t, nil, simple(id, "a.test")).Passes() {
		t.Error("Passes does not say whether a chain is PASSTHROUGH")
	}
	f := func(name, table string) {
		t.Helper()
		c := s.Match([]byte(name))
		if c == nil && table != "" || c != nil && c.Table != table {
			t.Errorf("%q: %+v, want %q", name, c, table)
		}
	}
	f("a.test", "a.test")
	f("A.TEST", "a.test")
	f("p.test", "pass")
	f("x.p.test", "pass")
	f("*.p.test", "")
	f(".p.test", "")
	f("", "")
	f("*", "")
	f(strings.Repeat("x", 300)+".p.test", "")
	f(strings.Repeat("x", 240)+".p.test", "pass")
	m := meet(t, s.Config(), &tls.Config{ServerName: "p.test", InsecureSkipVerify: true})
	wants(t, "server", m.serverErr, "unknown_server_name") // nothing here may be shown for what passes through
	name := []byte("x.y.z.p.test")
	if n := testing.AllocsPerRun(100, func() { s.Match(name) }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}

func TestClientCertificates(t *testing.T) {
	ca, wrong := newAuthority(t, "root"), newAuthority(t, "wrong root")
	mid := ca.sub(t, "intermediate")
	server := ca.leaf(t, "server.test")
	edit := func(f func(*x509.Certificate)) *identity { return ca.issue(t, ecKey(t), "client.test", f) }
	good := edit(func(c *x509.Certificate) {
		c.DNSNames = append(c.DNSNames, "*.wild.test")
		c.EmailAddresses = []string{"ops@client.test"}
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/default/sa/client"}}
		c.IPAddresses = []net.IP{net.ParseIP("10.1.2.3"), net.ParseIP("2001:db8::1")}
	})
	under := mid.leaf(t, "client.test")
	spki := sha256.Sum256(good.leaf.RawSubjectPublicKeyInfo)
	sum := sha256.Sum256(good.leaf.Raw)
	base := mutual(server, ca.trust(), "*")
	with := func(f func(*model.ServerTLS)) model.ServerTLS {
		c := base
		f(&c)
		return c
	}
	names := func(n ...string) model.ServerTLS { return with(func(c *model.ServerTLS) { c.SubjectAltNames = n }) }
	crl := func(lists ...[]byte) model.ServerTLS {
		return with(func(c *model.ServerTLS) { c.Trust = ca.trust(lists...) })
	}
	optional := with(func(c *model.ServerTLS) { c.Mode = model.OptionalMutualTLS })
	later := time.Now().Add(time.Hour)

	f := func(what string, c model.ServerTLS, id *identity, reason, heard string) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			t.Helper()
			s := serve(t, nil, c)
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				cfg := &tls.Config{ServerName: "server.test", RootCAs: ca.roots(), MaxVersion: version}
				if id != nil {
					p := id.pair(t)
					cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &p, nil }
				}
				m := meet(t, s.Config(), cfg)
				wants(t, "server", m.serverErr, reason)
				if heard == "peer_no_certificate" && version == tls.VersionTLS12 {
					wants(t, "client", m.clientErr, "peer_handshake") // TLS 1.2 has no better alert
				} else {
					wants(t, "client", m.clientErr, heard)
				}
				if reason == "" && id != nil && c.Mode != model.SimpleTLS && len(m.server.PeerCertificates) == 0 {
					t.Error("the server did not see the client's certificate")
				}
			}
		})
	}
	f("SIMPLE", simple(server, "*"), nil, "", "")
	f("SIMPLE ignores", simple(server, "*"), wrong.leaf(t, "client.test"), "", "")
	f("MUTUAL", base, good, "", "")
	f("MUTUAL, intermediate", base, under, "", "")
	f("MUTUAL, none", base, nil, "no_certificate", "peer_no_certificate")
	f("OPTIONAL_MUTUAL, none", optional, nil, "", "")
	f("OPTIONAL_MUTUAL", optional, good, "", "")
	f("OPTIONAL_MUTUAL, wrong", optional, wrong.leaf(t, "client.test"), "unknown_ca", "peer_unknown_ca")
	f("OPTIONAL_MUTUAL, names, none", with(func(c *model.ServerTLS) {
		c.Mode, c.SubjectAltNames = model.OptionalMutualTLS, []string{"client.test"}
	}), nil, "", "")
	f("OPTIONAL_MUTUAL, names, another", with(func(c *model.ServerTLS) {
		c.Mode, c.SubjectAltNames = model.OptionalMutualTLS, []string{"another.test"}
	}), good, "name_mismatch", "peer_bad_certificate")

	f("wrong CA", base, wrong.leaf(t, "client.test"), "unknown_ca", "peer_unknown_ca")
	f("expired", base, edit(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired", "peer_expired")
	f("not yet valid", base, edit(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "not_yet_valid", "peer_expired")
	f("wrong usage", base, edit(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "wrong_usage", "peer_bad_certificate")

	f("DNS name", names("other.test", "CLIENT.test"), good, "", "")
	f("DNS name under a wildcard", names("a.wild.test"), good, "", "")
	f("a wildcard is one label", names("a.b.wild.test"), good, "name_mismatch", "peer_bad_certificate")
	f("a wildcard is not its parent", names("wild.test"), good, "name_mismatch", "peer_bad_certificate")
	f("a wildcard itself", names("*.wild.test"), good, "", "")
	f("URI", names("spiffe://cluster.local/ns/default/sa/client"), good, "", "")
	f("another URI", names("spiffe://cluster.local/ns/default/sa/client2"), good, "name_mismatch", "peer_bad_certificate")
	f("e-mail", names("ops@client.test"), good, "", "")
	f("address", names("10.1.2.3"), good, "", "")
	f("IPv6 address", names("2001:0db8::0:1"), good, "", "")
	f("another address", names("10.1.2.4"), good, "name_mismatch", "peer_bad_certificate")
	f("common names are no names", names("common name of client.test"), good, "name_mismatch", "peer_bad_certificate")

	pin := func(spki, hash string) model.ServerTLS {
		return with(func(c *model.ServerTLS) {
			if spki != "" {
				c.SPKI = []string{spki}
			}
			if hash != "" {
				c.Hashes = []string{hash}
			}
		})
	}
	none := strings.Repeat("00", 32)
	f("key pin", pin(base64.StdEncoding.EncodeToString(spki[:]), ""), good, "", "")
	f("hash pin", pin("", strings.ToUpper(hex.EncodeToString(sum[:]))), good, "", "")
	f("hash pin with colons", pin("", colons(sum[:])), good, "", "")
	f("either pin is enough", pin(base64.StdEncoding.EncodeToString(spki[:]), none), good, "", "")
	f("another pin", pin("", none), good, "pin_mismatch", "peer_bad_certificate")
	f("a pin is no trust", pin(base64.StdEncoding.EncodeToString(spki[:]), ""), wrong.leaf(t, "client.test"), "unknown_ca", "peer_unknown_ca")

	f("not revoked", crl(ca.revoke(t, later, big.NewInt(1<<40))), good, "", "")
	f("revoked", crl(ca.revoke(t, later, good.leaf.SerialNumber)), good, "revoked", "peer_bad_certificate")
	f("another authority's list", crl(wrong.revoke(t, later)), good, "revocation_unknown", "peer_bad_certificate")
	f("old list", crl(ca.revoke(t, time.Now().Add(-time.Minute))), good, "revocation_unknown", "peer_bad_certificate")
	f("revoked in an old list", crl(ca.revoke(t, time.Now().Add(-time.Minute), good.leaf.SerialNumber), ca.revoke(t, later)), good, "revoked", "peer_bad_certificate")
	f("intermediate, one list", crl(ca.revoke(t, later)), under, "revocation_unknown", "peer_bad_certificate")
	f("intermediate, both lists", crl(ca.revoke(t, later), mid.revoke(t, later)), under, "", "")
	f("intermediate revoked", crl(ca.revoke(t, later, mid.cert.SerialNumber), mid.revoke(t, later)), under, "revoked", "peer_bad_certificate")
	f("revoked under an intermediate", crl(ca.revoke(t, later), mid.revoke(t, later, under.leaf.SerialNumber)), under, "revoked", "peer_bad_certificate")
	forged := &authority{cert: ca.cert, key: wrong.key}
	f("forged list", crl(forgedList(t, forged, later)), good, "revocation_unknown", "peer_bad_certificate")
}

func colons(b []byte) string {
	var parts []string
	for _, x := range b {
		parts = append(parts, hex.EncodeToString([]byte{x}))
	}
	return strings.Join(parts, ":")
}

// forgedList is a list in a's name with another key.
func forgedList(t *testing.T, a *authority, next time.Time) []byte {
	t.Helper()
	signer := *a.cert
	signer.PublicKey = a.key.Public()
	return (&authority{cert: &signer, key: a.key}).revoke(t, next)
}

func TestALPN(t *testing.T) {
	id := newAuthority(t, "root").leaf(t, "a")
	tcp := simple(id, "tcp.test")
	tcp.Protocol = model.TCP
	s := serve(t, nil, simple(id, "http.test"), tcp)
	f := func(name string, offered []string, got, reason string) {
		t.Helper()
		m := meet(t, s.Config(), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: offered})
		wants(t, "server", m.serverErr, reason)
		if m.server.NegotiatedProtocol != got {
			t.Errorf("%s %v: %q, want %q", name, offered, m.server.NegotiatedProtocol, got)
		}
		if reason != "" {
			wants(t, "client", m.clientErr, "peer_"+reason)
		}
	}
	f("http.test", []string{"h2", "http/1.1"}, "h2", "")
	f("http.test", []string{"http/1.1", "h2"}, "h2", "")
	f("http.test", []string{"http/1.1"}, "http/1.1", "")
	f("http.test", []string{"http/1.0"}, "http/1.0", "")
	f("http.test", nil, "", "")
	f("http.test", []string{"istio-peer-exchange"}, "", "alpn")
	f("tcp.test", []string{"postgresql"}, "", "")
	f("tcp.test", nil, "", "")
}

func TestVersions(t *testing.T) {
	id := newAuthority(t, "root").leaf(t, "a")
	f := func(least, newest string, lo, hi, want uint16) {
		t.Helper()
		c := simple(id, "*")
		c.MinVersion, c.MaxVersion = least, newest
		m := meet(t, serve(t, nil, c).Config(), &tls.Config{InsecureSkipVerify: true, MinVersion: lo, MaxVersion: hi})
		if want == 0 {
			wants(t, "server", m.serverErr, "version")
			wants(t, "client", m.clientErr, "peer_version")
		} else if m.serverErr != nil || m.server.Version != want {
			t.Errorf("%s-%s, client %x-%x: %x, %v", least, newest, lo, hi, m.server.Version, m.serverErr)
		}
	}
	const v10, v11, v12, v13 = tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13
	f("", "", v10, v13, v13)
	f("", "", v12, v12, v12)
	f("", "", v10, v11, 0)
	f("TLS_AUTO", "TLS_AUTO", v10, v11, 0)
	f("TLSV1_0", "", v10, v10, v10)
	f("TLSV1_1", "", v10, v10, 0)
	f("TLSV1_1", "TLSV1_1", v10, v13, v11)
	f("TLSV1_3", "", v10, v12, 0)
	f("", "TLSV1_2", v10, v13, v12)
}

func TestCipherSuites(t *testing.T) {
	ca := newAuthority(t, "root")
	both := simple(ca.issue(t, rsaKey(), "a", nil), "*")
	both.Certificates = append(both.Certificates, *ca.leaf(t, "a").secret())
	f := func(names []string, client []uint16, want uint16) {
		t.Helper()
		c := both
		c.CipherSuites = names
		m := meet(t, serve(t, nil, c).Config(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: client})
		if want == 0 {
			wants(t, "server", m.serverErr, "cipher")
			wants(t, "client", m.clientErr, "peer_handshake")
		} else if m.serverErr != nil || m.server.CipherSuite != want {
			t.Errorf("%v: %s, %v", names, tls.CipherSuiteName(m.server.CipherSuite), m.serverErr)
		}
	}
	f([]string{"ECDHE-ECDSA-AES256-GCM-SHA384"}, nil, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)
	f([]string{"ECDHE-RSA-CHACHA20-POLY1305"}, nil, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)
	f([]string{"TLS_AES_128_GCM_SHA256", "ecdhe-rsa-aes128-gcm-sha256"}, nil, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)
	f([]string{"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"}, nil, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA)
	f([]string{"AES128-SHA"}, []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}, tls.TLS_RSA_WITH_AES_128_CBC_SHA)
	f([]string{"ECDHE-RSA-AES128-GCM-SHA256"}, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}, 0)
	c := both
	c.CipherSuites = []string{"ECDHE-RSA-AES128-GCM-SHA256"}
	if m := meet(t, serve(t, nil, c).Config(), &tls.Config{InsecureSkipVerify: true}); m.server.Version != tls.VersionTLS13 {
		t.Errorf("suites of TLS 1.2 keep TLS 1.3 out: %v", m.serverErr)
	}
	for name := range openssl {
		if ids, err := suites([]string{name}); err != nil || len(ids) != 1 {
			t.Errorf("%s: %v, %v", name, ids, err)
		}
	}
}

func TestTwoAlgorithms(t *testing.T) {
	ca := newAuthority(t, "root")
	c := simple(ca.issue(t, rsaKey(), "elsewhere.test", nil), "*") // names on certificates do not matter here
	c.Certificates = append(c.Certificates, *ca.leaf(t, "elsewhere.test").secret())
	s := serve(t, nil, c)
	f := func(client *tls.Config, want x509.PublicKeyAlgorithm) {
		t.Helper()
		client.InsecureSkipVerify, client.ServerName = true, "a.test"
		m := meet(t, s.Config(), client)
		if m.serverErr != nil || m.client.PeerCertificates[0].PublicKeyAlgorithm != want {
			t.Errorf("got %v, want %v (%v)", m.client.PeerCertificates, want, m.serverErr)
		}
	}
	f(&tls.Config{}, x509.ECDSA)
	f(&tls.Config{MaxVersion: tls.VersionTLS12}, x509.ECDSA)
	f(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, x509.RSA)
	f(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, x509.ECDSA)
}

func TestNotTLS(t *testing.T) {
	s := serve(t, nil, simple(newAuthority(t, "root").leaf(t, "a"), "*"))
	here, plain := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = plain.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		plain.Close()
	}()
	wants(t, "server", tls.Server(here, s.Config()).Handshake(), "not_tls")
	here.Close()
	<-done
	here, gone := net.Pipe()
	gone.Close()
	wants(t, "server", tls.Server(here, s.Config()).Handshake(), "closed")
	here, _ = net.Pipe()
	_ = here.SetDeadline(time.Now())
	wants(t, "server", tls.Server(here, s.Config()).Handshake(), "timeout")
}
