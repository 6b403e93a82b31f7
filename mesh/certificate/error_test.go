package certificate

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// holdsNoKey fails if text has any line of the keys' PEM, or a piece of their bytes as %v, %x or %q would write them.
func holdsNoKey(t testing.TB, what, text string, ids ...*identity) {
	t.Helper()
	for _, id := range ids {
		var pieces []string
		for _, line := range strings.Split(string(id.key), "\n") {
			if len(line) > 20 && !strings.HasPrefix(line, "-----") {
				pieces = append(pieces, line[:20])
			}
		}
		for _, form := range []string{"%v", "%x", "%X", "%#v"} {
			s := fmt.Sprintf(form, id.key[40:60])
			pieces = append(pieces, strings.Trim(strings.TrimPrefix(s, "[]byte"), "[]{}"))
		}
		for _, p := range pieces {
			if strings.Contains(text, p) {
				t.Errorf("%s holds a key: %q in %.300q", what, p, text)
			}
		}
	}
}

func TestKeysAreNeverShown(t *testing.T) {
	ca := newAuthority(t, "root")
	id := ca.leaf(t, "a.test")
	dir := t.TempDir()
	place(t, dir, id)
	chain := mutual(id, ca.trust(), "a.test")
	file := filed(dir)
	s := serve(t, nil, chain, file)
	client := model.ClientTLS{Mode: model.MutualTLS, Certificate: id.secret()}
	c := connect(t, &client)
	_, wrong := FromSecret(map[string][]byte{"tls.crt": ca.pem, "tls.key": id.key})
	_, broken := NewServer([]model.ServerTLS{{Names: []string{"x"}, Mode: model.SimpleTLS, Certificates: []model.Certificate{
		{Name: "inline", CertFile: string(id.cert), KeyFile: string(id.key)},
	}}}, nil, silent)
	_, half := NewServer([]model.ServerTLS{{Names: []string{"x"}, Mode: model.SimpleTLS, Certificates: []model.Certificate{
		{Name: "half", CertFile: filepath.Join(dir, "tls.crt"), KeyFile: string(id.key)},
	}}}, nil, silent)
	if wrong == nil || broken == nil || half == nil {
		t.Fatal("no error")
	}
	m := chain.Certificates[0].Material
	for _, v := range []any{
		s, c,
		struct{ s *Server }{s},

		s.chains[0], s.chains[0].own[0], s.pool, *s.pool, s.Config(), s.chains[0].current(), c.Config("a.test"), c.state.Load(),
		chain, &chain, client, &client, chain.Certificates, m, *m,
		[]model.Material{*m},
		map[string]*model.Material{"a": m},
		wrong, broken, half, s.Expiries(), &Error{"expired", wrong},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			holdsNoKey(t, fmt.Sprintf("%T with %s", v, verb), fmt.Sprintf(verb, v), id)
		}
		if j, err := json.Marshal(v); err == nil {
			holdsNoKey(t, fmt.Sprintf("%T as JSON", v), string(j), id)
		}
		for _, h := range []func(*strings.Builder) slog.Handler{
			func(b *strings.Builder) slog.Handler { return slog.NewTextHandler(b, nil) },
			func(b *strings.Builder) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b strings.Builder
			slog.New(h(&b)).Info("x", "value", v)
			holdsNoKey(t, fmt.Sprintf("%T in a log", v), b.String(), id)
		}
	}
}

func TestServerErrors(t *testing.T) {
	ca := newAuthority(t, "root")
	id := ca.leaf(t, "a.test")
	dir := t.TempDir()
	place(t, dir, id)
	origin := &model.Origin{Kind: "Gateway", Namespace: "default", Name: "web", Rule: "servers[1]", File: "gw.yaml", Line: 12}
	f := func(edit func(*model.ServerTLS), message ...string) {
		t.Helper()
		c := simple(id, "a.test")
		c.Origin = origin
		edit(&c)
		s, err := NewServer([]model.ServerTLS{c}, nil, silent)
		if err == nil || s != nil {
			t.Errorf("no error, want %q", message)
			return
		}
		for _, part := range append(message, "cannot serve TLS for ", "(Gateway default/web servers[1], gw.yaml:12): ") {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("no %q in %q", part, err)
			}
		}
	}
	cert := func(c model.Certificate) func(*model.ServerTLS) {
		return func(s *model.ServerTLS) { s.Certificates = []model.Certificate{c} }
	}
	gone := filepath.Join(dir, "gone")
	f(func(c *model.ServerTLS) { c.Certificates = nil }, "it has no certificate: set credentialName")
	f(cert(model.Certificate{Name: "default/web"}), "secret default/web: its material is not here")
	f(cert(model.Certificate{Name: "default/web", Material: &model.Material{CA: ca.pem}}), "secret default/web has no key pair: add tls.crt and tls.key")
	f(cert(model.Certificate{Name: "default/web", Material: &model.Material{Cert: id.cert, Key: ca.leaf(t, "b").key}}), "secret default/web: its private key does not belong to")
	f(cert(model.Certificate{Name: gone, CertFile: gone, KeyFile: gone}), "cannot read a certificate file", gone, "no such file")
	f(cert(model.Certificate{Name: dir, CertFile: dir, KeyFile: dir}), dir, "is not a regular file")
	f(cert(model.Certificate{Name: "web", CertFile: gone}), "web needs both a certificate file and a key file")
	f(cert(model.Certificate{Name: "web", CertFile: filepath.Join(dir, "tls.key"), KeyFile: filepath.Join(dir, "tls.crt")}), "tls.key holds a private key where a certificate belongs")
	f(cert(model.Certificate{Name: "web", CertFile: string(id.cert), KeyFile: string(id.key)}), "holds PEM where the path of a file belongs")
	f(func(c *model.ServerTLS) { c.Mode = "ISTIO_MUTUAL" }, "unknown mode \"ISTIO_MUTUAL\"")
	f(func(c *model.ServerTLS) { c.Mode = model.MutualTLS }, "mode MUTUAL needs roots to verify clients with")
	f(func(c *model.ServerTLS) { c.Mode, c.Trust = model.OptionalMutualTLS, id.secret() }, "secret default/secret has no roots to verify peers with", "default/secret-cacert")
	f(func(c *model.ServerTLS) {
		c.Mode, c.Trust = model.MutualTLS, &model.Certificate{Name: "ca", CertFile: gone}
	}, "ca has no file of roots")
	f(func(c *model.ServerTLS) {
		c.Mode, c.Trust = model.MutualTLS, &model.Certificate{Name: "ca", CAFile: filepath.Join(dir, "tls.crt"), CRLFile: filepath.Join(dir, "tls.crt")}
	}, "tls.crt holds no revocation list")
	f(func(c *model.ServerTLS) { c.MinVersion = "1.2" }, "unknown minProtocolVersion \"1.2\": use TLSV1_0")
	f(func(c *model.ServerTLS) { c.MaxVersion = "1.2" }, "unknown maxProtocolVersion \"1.2\"")
	f(func(c *model.ServerTLS) { c.MinVersion, c.MaxVersion = "TLSV1_3", "TLSV1_2" }, "maxProtocolVersion TLSV1_2 is below")
	f(func(c *model.ServerTLS) { c.MaxVersion = "TLSV1_1" }, "maxProtocolVersion TLSV1_1 is below the least version, TLS 1.2")
	f(func(c *model.ServerTLS) { c.CipherSuites = []string{"AES128-GCM-SHA256", "NULL-MD5"} }, "unknown cipher suite \"NULL-MD5\"")
	f(func(c *model.ServerTLS) { c.SPKI = []string{"zz"} }, "verifyCertificateSpki \"zz\" is not")
	f(func(c *model.ServerTLS) { c.Hashes = []string{"zz"} }, "verifyCertificateHash \"zz\" is not")
	f(func(c *model.ServerTLS) { c.Names = nil }, "has no server names")
	for _, name := range []string{"", "A.test", "*.", "a.*.test", "*a.test", "a b", "a.test.", "ns/a.test"} {
		f(func(c *model.ServerTLS) { c.Names = []string{name} }, "is not a server name")
	}
	one, two := simple(id, "a.test"), simple(id, "b.test", "a.test")
	one.Origin = origin
	if _, err := NewServer([]model.ServerTLS{one, two}, nil, silent); err == nil || !strings.Contains(err.Error(), "a.test is already served (Gateway default/web servers[1], gw.yaml:12)") {
		t.Errorf("a name twice: %v", err)
	}
	one.MinVersion, two = "x", simple(id, "b.test")
	two.MinVersion = "y"
	if _, err := NewServer([]model.ServerTLS{one, two}, nil, silent); err == nil || strings.Count(err.Error(), "unknown minProtocolVersion") != 2 {
		t.Errorf("not every chain at fault is told: %v", err)
	}
}

func TestClientErrors(t *testing.T) {
	id := newAuthority(t, "root").leaf(t, "a.test")
	gone := filepath.Join(t.TempDir(), "gone")
	f := func(m model.ClientTLS, message string) {
		t.Helper()
		if c, err := NewClient(&m, nil, silent); err == nil || c != nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%v, want %q", err, message)
		}
	}
	f(model.ClientTLS{}, "unknown mode \"\"")
	f(model.ClientTLS{Mode: model.MutualTLS}, "mode MUTUAL needs a certificate to show")
	f(model.ClientTLS{Mode: model.MutualTLS, Certificate: &model.Certificate{Name: "default/c"}}, "secret default/c: its material is not here")
	f(model.ClientTLS{Mode: model.SimpleTLS, Trust: id.secret()}, "secret default/secret has no roots")
	f(model.ClientTLS{Mode: model.SimpleTLS, Trust: &model.Certificate{Name: gone, CAFile: gone}}, gone)
}

func TestExpiredMaterialIsLogged(t *testing.T) {
	ca := newAuthority(t, "root")
	f := func(from, to time.Duration, word string) {
		t.Helper()
		id := ca.issue(t, ecKey(t), "a.test", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) })
		var b strings.Builder
		if _, err := NewServer([]model.ServerTLS{simple(id, "*")}, nil, slog.New(slog.NewTextHandler(&b, nil))); err != nil {
			t.Error(err)
		}
		if word == "" && b.Len() > 0 || !strings.Contains(b.String(), word) {
			t.Errorf("want %q, logged %q", word, b.String())
		}
	}
	f(-time.Hour, time.Hour, "")
	f(-2*time.Hour, -time.Hour, "has expired")
	f(time.Hour, 2*time.Hour, "is not valid yet")
}
