package certificate

import (
	"crypto/tls"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func TestResumption(t *testing.T) {
	ca := newAuthority(t, "root")
	client := ca.leaf(t, "client.test")
	open := simple(ca.leaf(t, "a"), "*.open.test")
	closed := mutual(ca.leaf(t, "a"), ca.trust(), "*.closed.test", "closed.test")
	picky := mutual(ca.leaf(t, "a"), ca.trust(), "picky.test")
	picky.SubjectAltNames = []string{"somebody.else"}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := serve(t, nil, open, closed, picky)
		// One cache for every name: a client that would carry its tickets anywhere.
		thief := &anyName{ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		pair := client.pair(t)
		dial := func(s *Server, name string, shown bool) met {
			t.Helper()
			cfg := &tls.Config{ServerName: name, InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: thief}
			if shown {
				cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
			}
			return meet(t, s.Config(), cfg)
		}
		f := func(s *Server, name string, shown, resumed bool, reason string) {
			t.Helper()
			m := dial(s, name, shown)
			wants(t, "server", m.serverErr, reason)
			if m.server.DidResume != resumed {
				t.Errorf("%s, %s: resumed %v, want %v", tls.VersionName(version), name, m.server.DidResume, resumed)
			}
			if reason == "" && shown && len(m.server.PeerCertificates) == 0 && s.Chain(m.server).Mode == model.MutualTLS {
				t.Errorf("%s: who the client is was lost", name)
			}
		}
		f(s, "a.open.test", false, false, "")
		f(s, "a.open.test", false, true, "")
		f(s, "A.open.test", false, true, "")
		f(s, "a.open.test", false, true, "")  // tickets of resumed sessions are good too
		f(s, "b.open.test", false, false, "") // RFC 6066: not under another name
		f(s, "closed.test", false, false, "no_certificate")
		f(s, "closed.test", true, false, "")
		f(s, "closed.test", false, true, "") // the session is the client's
		f(s, "picky.test", true, false, "name_mismatch")

		f(s, "closed.test", true, true, "")
		after := serve(t, s, closed, open) // a new configuration, the same ways in
		f(after, "closed.test", true, true, "")
		f(after, "closed.test", true, true, "")
		f(s, "closed.test", true, true, "")

		distrust := closed
		distrust.Trust = newAuthority(t, "another").trust()
		f(serve(t, after, distrust), "closed.test", true, false, "unknown_ca")
		revoked := closed
		revoked.Trust = ca.trust(ca.revoke(t, ca.cert.NotAfter, client.leaf.SerialNumber))
		f(after, "closed.test", true, true, "") // for a ticket
		f(serve(t, after, revoked), "closed.test", true, true, "revoked")
		f(serve(t, nil, closed), "closed.test", true, false, "") // another listener
	}
}

// anyName keeps one session, and gives it out for any name.
type anyName struct{ tls.ClientSessionCache }

func (c *anyName) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("any") }

func (c *anyName) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		c.ClientSessionCache.Put("any", s)
	}
}

func TestClientResumes(t *testing.T) {
	ca := newAuthority(t, "root")
	s := serve(t, nil, simple(ca.leaf(t, "server.test"), "server.test"))
	for _, m := range []model.ClientTLS{
		{Mode: model.SimpleTLS, Trust: ca.trust()},
		{Mode: model.SimpleTLS, Trust: ca.trust(), SubjectAltNames: []string{"server.test"}},
		{Mode: model.SimpleTLS, SkipVerify: true},
	} {
		c := connect(t, &m)
		for i := range 3 {
			got := meet(t, s.Config(), c.Config("server.test", "h2"))
			if got.clientErr != nil || got.client.DidResume != (i > 0) {
				t.Errorf("%+v, handshake %d: resumed %v, %v", m, i, got.client.DidResume, got.clientErr)
			}
		}
	}
	dir := t.TempDir()
	c := connect(t, &model.ClientTLS{Mode: model.SimpleTLS, Trust: &model.Certificate{Name: "ca", CAFile: write(t, dir, "ca.crt", ca.pem)}})
	wants(t, "client", meet(t, s.Config(), c.Config("server.test")).clientErr, "")
	write(t, dir, "ca.crt", newAuthority(t, "another").pem)
	if m := meet(t, s.Config(), c.Config("server.test")); Reason(m.clientErr) != "unknown_ca" {
		t.Errorf("a session outlived the roots that it was begun under: %v", m.clientErr)
	}
}
