package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// filed is a SIMPLE chain whose certificate is in files of dir.
func filed(dir string) model.ServerTLS {
	return model.ServerTLS{Names: []string{"*"}, Mode: model.SimpleTLS, Certificates: []model.Certificate{{
		Name: "web", CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"),
	}}}
}

// place writes id as Kubernetes mounts Secrets: a directory of its own, and a symbolic link that is switched over.
func place(t testing.TB, dir string, id *identity) {
	t.Helper()
	version, err := os.MkdirTemp(dir, "..version")
	if err != nil {
		t.Fatal(err)
	}
	write(t, version, "tls.crt", id.cert)
	write(t, version, "tls.key", id.key)
	link := filepath.Join(dir, "..new")
	if err := os.Symlink(version, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
}

func TestReloadUnderLoad(t *testing.T) {
	ca := newAuthority(t, "root")
	dir := t.TempDir()
	place(t, dir, ca.leaf(t, "server.test"))
	s := serve(t, nil, filed(dir))
	var wg sync.WaitGroup
	var shaken atomic.Int64
	end := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				m := meet(t, s.Config(), &tls.Config{ServerName: "server.test", RootCAs: ca.roots()})
				if m.clientErr != nil || m.serverErr != nil {
					t.Errorf("a handshake failed: %v, %v", m.clientErr, m.serverErr)
				}
				shaken.Add(1)
			}
		})
	}
	for range 20 {
		id := ca.leaf(t, "server.test")
		place(t, dir, id)
		m := meet(t, s.Config(), &tls.Config{ServerName: "server.test", RootCAs: ca.roots()})
		if m.clientErr != nil || !m.client.PeerCertificates[0].Equal(id.leaf) {
			t.Errorf("the new certificate is not shown: %v", m.clientErr)
		}
	}
	close(end)
	wg.Wait()
	if shaken.Load() == 0 {
		t.Error("nobody shook hands")
	}
}

func TestReloadLeavesConnectionsAlone(t *testing.T) {
	ca := newAuthority(t, "root")
	dir := t.TempDir()
	place(t, dir, ca.leaf(t, "server.test"))
	s := serve(t, nil, filed(dir))
	l, err := tls.Listen("tcp", "127.0.0.1:0", s.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "server.test", RootCAs: ca.roots()})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		place(t, dir, ca.leaf(t, "server.test"))
		wants(t, "server", meet(t, s.Config(), &tls.Config{InsecureSkipVerify: true}).serverErr, "")
	}
	c.Close()
	<-done
}

func TestBrokenReloadKeepsOld(t *testing.T) {
	ca := newAuthority(t, "root")
	dir := t.TempDir()
	first, second := ca.leaf(t, "server.test"), ca.leaf(t, "server.test")
	cert, key := write(t, dir, "tls.crt", first.cert), write(t, dir, "tls.key", first.key)
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	s, err := newServer([]model.ServerTLS{filed(dir)}, nil, log, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, want *identity, errors, renewals int) {
		t.Helper()
		for range 3 { // however often it is looked at, it is said once
			m := meet(t, s.Config(), &tls.Config{ServerName: "server.test", RootCAs: ca.roots()})
			if m.clientErr != nil || !m.client.PeerCertificates[0].Equal(want.leaf) {
				t.Errorf("%s: %v", what, m.clientErr)
			}
		}
		if n := strings.Count(logged.String(), "level=ERROR"); n != errors {
			t.Errorf("%s: %d errors in the log, want %d:\n%s", what, n, errors, logged.String())
		}
		if n := strings.Count(logged.String(), "certificate renewed"); n != renewals {
			t.Errorf("%s: %d renewals in the log, want %d:\n%s", what, n, renewals, logged.String())
		}
	}
	f("first", first, 0, 0)
	write(t, dir, "tls.crt", second.cert)
	f("certificate without its key", first, 1, 0)
	write(t, dir, "tls.key", second.key)
	f("both", second, 1, 1)
	write(t, dir, "tls.crt", second.cert[:len(second.cert)/2])
	f("cut short", second, 2, 1)
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	f("gone", second, 3, 1)
	if s, err = newServer([]model.ServerTLS{filed(dir)}, s, log, 0); err != nil {
		t.Fatalf("a new configuration while a file is gone: %v", err)
	}
	f("gone, and configured anew", second, 3, 1)
	write(t, dir, "tls.crt", second.cert)
	f("back", second, 3, 1)
	write(t, dir, "tls.crt", nil)
	f("empty", second, 4, 1)
	write(t, dir, "tls.crt", first.cert)
	write(t, dir, "tls.key", first.key)
	f("first again", first, 4, 2)

	// Caught while it is written: not a word unless it stays so.
	if err := os.WriteFile(cert, second.cert, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(cert, soon(), soon()); err != nil {
		t.Fatal(err)
	}
	f("half of a change", first, 4, 2)
	if err := os.WriteFile(key, second.key, 0o600); err != nil {
		t.Fatal(err)
	}
	f("the other half", second, 4, 3)
	holdsNoKey(t, "the log", logged.String(), first, second)
}

// soon is a file's time that counts as just now for as long as can be.
func soon() time.Time { return time.Now().Add(settled - 100*time.Millisecond) }

// TestHastyWrites changes a file of one size twice within one tick of its clock: the second change must not be missed.
func TestHastyWrites(t *testing.T) {
	ca := newAuthority(t, "root")
	dir := t.TempDir()
	one, two := ca.pem, newAuthority(t, "root").pem
	two = append(two, bytes.Repeat([]byte("\n"), max(0, len(one)-len(two)))...)
	one = append(one, bytes.Repeat([]byte("\n"), max(0, len(two)-len(one)))...)
	path := filepath.Join(dir, "ca.crt")
	now := soon()
	put := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	put(one)
	c := connect(t, &model.ClientTLS{Mode: model.SimpleTLS, Trust: &model.Certificate{Name: "ca", CAFile: path}})
	s := serve(t, nil, simple(ca.leaf(t, "server.test"), "*"))
	wants(t, "client", meet(t, s.Config(), c.Config("server.test")).clientErr, "")
	put(two)
	wants(t, "client", meet(t, s.Config(), c.Config("server.test")).clientErr, "unknown_ca")
	put(one)
	wants(t, "client", meet(t, s.Config(), c.Config("server.test")).clientErr, "")
}

func TestReloadOfRevocations(t *testing.T) {
	ca := newAuthority(t, "root")
	dir := t.TempDir()
	id := ca.leaf(t, "server.test")
	later := time.Now().Add(time.Hour)
	c := connect(t, &model.ClientTLS{Mode: model.SimpleTLS, Trust: &model.Certificate{
		Name: "ca", CAFile: write(t, dir, "ca.crt", ca.pem), CRLFile: write(t, dir, "ca.crl", ca.revoke(t, later)),
	}})
	s := serve(t, nil, simple(id, "*"))
	wants(t, "client", meet(t, s.Config(), c.Config("server.test")).clientErr, "")
	write(t, dir, "ca.crl", ca.revoke(t, later, id.leaf.SerialNumber))
	wants(t, "client", meet(t, s.Config(), c.Config("server.test")).clientErr, "revoked")
}

func TestFilesAreNotLookedAtEachTime(t *testing.T) {
	ca := newAuthority(t, "root")
	dir := t.TempDir()
	place(t, dir, ca.leaf(t, "server.test"))
	s, err := newServer([]model.ServerTLS{filed(dir)}, nil, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	before := s.chains[0].current()
	place(t, dir, ca.leaf(t, "server.test"))
	if s.chains[0].current() != before {
		t.Error("a file is looked at before it is time")
	}
	if n := testing.AllocsPerRun(100, func() { s.chains[0].current() }); n != 0 {
		t.Errorf("choosing a configuration allocates %v times", n)
	}
}

func TestExpiries(t *testing.T) {
	ca := newAuthority(t, "root")
	id := ca.leaf(t, "server.test")
	next := time.Now().Add(30 * time.Minute).Truncate(time.Second)
	s := serve(t, nil, mutual(id, ca.trust(ca.revoke(t, next)), "a.test"), simple(ca.issue(t, ecKey(t), "b", func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Hour) }), "b.test"))
	got := s.Expiries()
	want := []Expiry{
		{"default/secret-cacert", Trust, ca.cert.NotAfter},
		{"default/secret-cacert", CRL, next},
		{"default/secret", Pair, id.leaf.NotAfter},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i].Name != want[i].Name || got[i].Kind != want[i].Kind || !got[i].NotAfter.Equal(want[i].NotAfter) {
			t.Errorf("%d: got %v, want %v", i, got[i], want[i])
		}
	}
	dir := t.TempDir()
	place(t, dir, id)
	c := connect(t, &model.ClientTLS{Mode: model.MutualTLS, Certificate: &filed(dir).Certificates[0]})
	if got := c.Expiries(); len(got) != 1 || got[0].Name != "web" || !got[0].NotAfter.Equal(id.leaf.NotAfter) {
		t.Errorf("got %v", got)
	}
}
