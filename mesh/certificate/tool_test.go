package certificate

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// tool returns where a program is, or skips.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed here", name)
	}
	return path
}

// answer accepts TLS connections with cfg until the test ends, and answers each in HTTP/1.1.
func answer(t testing.TB, cfg *tls.Config) (port string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// TestOpenSSLClient asks what another implementation makes of a Server.
func TestOpenSSLClient(t *testing.T) {
	openssl := tool(t, "openssl")
	ca := newAuthority(t, "root")
	dir := t.TempDir()
	client := ca.leaf(t, "client.test")
	cafile, crt, key := write(t, dir, "ca.crt", ca.pem), write(t, dir, "c.crt", client.cert), write(t, dir, "c.key", client.key)
	both := simple(ca.issue(t, rsaKey(), "both.test", nil), "both.test")
	both.Certificates = append(both.Certificates, *ca.leaf(t, "both.test").secret())
	s := serve(t, nil, both, mutual(ca.leaf(t, "mutual.test"), ca.trust(), "mutual.test"))
	port := answer(t, s.Config())
	f := func(want string, args ...string) {
		t.Helper()
		cmd := exec.Command(openssl, append([]string{"s_client", "-connect", "127.0.0.1:" + port, "-CAfile", cafile, "-verify_return_error"}, args...)...)
		cmd.Stdin = strings.NewReader("GET / HTTP/1.1\r\n")
		out, _ := cmd.CombinedOutput()
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("%v: no %q in\n%s", args, want, out)
		}
	}
	f("(?s)Peer signature type: ECDSA.*Verification: OK", "-servername", "both.test", "-verify_hostname", "both.test")
	f("(?s)Peer signature type: RSA-PSS.*Verification: OK", "-servername", "both.test", "-sigalgs", "RSA-PSS+SHA256")
	f("(?s)Peer signature type: RSA.*Cipher is ECDHE-RSA-", "-servername", "both.test", "-tls1_2", "-cipher", "aRSA")
	f("ALPN protocol: h2", "-servername", "both.test", "-alpn", "h2,http/1.1")
	f("alert no application protocol", "-servername", "both.test", "-alpn", "smtp")
	f("unrecognized name", "-servername", "other.test")
	f("unrecognized name", "-noservername")
	f("alert protocol version", "-servername", "both.test", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
	f("alert handshake failure", "-servername", "mutual.test", "-tls1_2")
	f("(?s)Acceptable client certificate CA names.*CN = root.*Verification: OK", "-servername", "mutual.test", "-cert", crt, "-key", key)
}

// TestOpenSSLServer asks a Client what it makes of another implementation.
func TestOpenSSLServer(t *testing.T) {
	openssl := tool(t, "openssl")
	ca := newAuthority(t, "root")
	dir := t.TempDir()
	id := ca.leaf(t, "server.test")
	cmd := exec.Command(openssl, "s_server", "-accept", "127.0.0.1:0", "-naccept", "3", "-cert", write(t, dir, "s.crt", id.cert), "-key", write(t, dir, "s.key", id.key),
		"-CAfile", write(t, dir, "ca.crt", ca.pem), "-Verify", "1", "-verify_return_error", "-alpn", "h2", "-rev")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	var address string
	lines := bufio.NewReader(out)
	for address == "" {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("openssl s_server did not start: %v\n%s", err, stderr.String())
		}
		if a, ok := strings.CutPrefix(strings.TrimSpace(line), "ACCEPT "); ok {
			address = a
		}
	}
	drained := make(chan struct{})
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, lines) }()
	defer func() { <-drained }()
	defer func() { _ = cmd.Process.Kill() }()
	c := connect(t, &model.ClientTLS{Mode: model.MutualTLS, Certificate: ca.leaf(t, "client.test").secret(), Trust: ca.trust()})
	f := func(host, reason string, resumed bool) {
		t.Helper()
		conn, err := tls.Dial("tcp", address, c.Config(host, "h2"))
		wants(t, "client", err, reason)
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("abc\n")); err != nil {
			t.Fatal(err)
		}
		back, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || back != "cba\n" {
			t.Errorf("got %q, %v", back, err)
		}
		if s := conn.ConnectionState(); s.NegotiatedProtocol != "h2" || s.DidResume != resumed {
			t.Errorf("protocol %q, resumed %v", s.NegotiatedProtocol, s.DidResume)
		}
	}
	f("server.test", "", false)
	f("server.test", "", true)
	f("other.test", "name_mismatch", false)
}

func TestCurl(t *testing.T) {
	curl := tool(t, "curl")
	ca := newAuthority(t, "root")
	cafile := write(t, t.TempDir(), "ca.crt", ca.pem)
	port := answer(t, serve(t, nil, simple(ca.leaf(t, "*.web.test"), "*.web.test")).Config())
	f := func(want string, args ...string) {
		t.Helper()
		out, err := exec.Command(curl, append([]string{
			"-sS", "--noproxy", "*", "--cacert", cafile,
			"--connect-to", "::127.0.0.1:" + port, "--max-time", "30",
		}, args...)...).CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("%v: %v, no %q in\n%s", args, err, want, out)
		}
	}
	f("hello", "--http1.1", "https://a.web.test/")
	f("hello", "--http1.0", "https://a.web.test/") // asks for http/1.0 by ALPN
	f("hello", "--no-alpn", "https://a.web.test/")
	f("unrecognized name", "https://a.other.test/")
}
