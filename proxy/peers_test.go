package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/meshtest"
)

const nginxConf = `daemon off; master_process off; worker_processes 1; pid %[1]s/nginx.pid; error_log %[1]s/error.log crit;
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  upstream app { server %[3]s; keepalive 4; }
  server { listen %[2]s; location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; } }
}
`

const haproxyConf = `defaults
  mode http
  timeout client 10s
  timeout server 10s
  timeout connect 1s
frontend in
  bind %[2]s
  default_backend app
backend app
  server app %[3]s
`

// peer runs another proxy in front of the application and returns its address, or "" where it is not installed.
func peer(t *testing.T, program, conf, application string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Logf("%s is not installed, so nothing is compared with it", program)
		return ""
	}
	dir := t.TempDir()
	address := meshtest.Address(t)
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, conf, dir, address, application), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append(args, file)...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, program+" listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return address
}

// describe answers each request with what it is: method, path and body.
func describe(c net.Conn, r *bufio.Reader) {
	for {
		head, err := readHead(r)
		if err != nil {
			return
		}
		var body string
		if strings.Contains(strings.ToLower(head), "transfer-encoding: chunked") {
			if body, _, err = readChunked(r); err != nil {
				return
			}
		} else {
			b := make([]byte, contentLength(head))
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			body = string(b)
		}
		method, rest, _ := strings.Cut(head, " ")
		path, _, _ := strings.Cut(rest, " ")
		answer := method + " " + path + " " + body
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(answer))
		if method != "HEAD" {
			_, _ = io.WriteString(c, answer)
		}
	}
}

// behaviour is what a proxy does with some bytes: "200 GET / " for each request that the application answered, "refused" for a
// 4xx or 5xx, and "" at the end of the connection without a word.
//
// The client ends its side once it has the n answers that are wanted: to nginx that means that it has gone.
func behaviour(t *testing.T, address, request string, n int) string {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	c := &client{t: t, Conn: nc, r: bufio.NewReader(nc)}
	c.send(request)
	var did []string
	for {
		if len(did) == n {
			_ = nc.(*net.TCPConn).CloseWrite()
		}
		method := "GET"
		if strings.HasPrefix(request, "HEAD") {
			method = "HEAD"
		}
		a, err := c.tryRead(method)
		switch {
		case err != nil:
			return strings.Join(did, ", ")
		case a.status >= 400:
			did = append(did, "refused")
		case a.status >= 200:
			did = append(did, fmt.Sprintf("%d %s", a.status, a.body))
		}
	}
}

// Where there is one right answer to a client's bytes, this proxy gives it, and so do nginx and HAProxy, but for what they are
// known to see another way.
func TestPeersAgree(t *testing.T) {
	o := newOrigin(t, describe)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	peers := map[string]string{
		"outrider": p.Address("outbound"),
		"nginx":    peer(t, "nginx", nginxConf, o.address(), "-c"),
		"haproxy":  peer(t, "haproxy", haproxyConf, o.address(), "-db", "-f"),
	}
	f := func(name, request, want string, others ...string) {
		t.Helper()
		for who, address := range peers {
			if address == "" || slices.Contains(others, who) {
				continue
			}
			if got := behaviour(t, address, request, strings.Count(want, ", ")+1); got != want {
				t.Errorf("%s: %s does %q, want %q", name, who, got, want)
			}
		}
	}
	const host = "Host: app\r\n"
	post := func(fields, body string) string { return "POST / HTTP/1.1\r\n" + host + fields + "\r\n" + body }
	f("GET", "GET /a?b HTTP/1.1\r\n"+host+"\r\n", "200 GET /a?b ")
	f("pipelined", "GET /a HTTP/1.1\r\n"+host+"\r\nGET /b HTTP/1.1\r\n"+host+"\r\n", "200 GET /a , 200 GET /b ")
	f("an empty line between", "GET /a HTTP/1.1\r\n"+host+"\r\n\r\nGET /b HTTP/1.1\r\n"+host+"\r\n", "200 GET /a , 200 GET /b ")
	f("close", "GET /a HTTP/1.1\r\n"+host+"Connection: close\r\n\r\nGET /b HTTP/1.1\r\n"+host+"\r\n", "200 GET /a ")
	f("HEAD", "HEAD /a HTTP/1.1\r\n"+host+"\r\n", "200 ")
	f("length", post("Content-Length: 3\r\n", "abc"), "200 POST / abc")
	f("length, then a request", post("Content-Length: 3\r\n", "abcGET /b HTTP/1.1\r\n"+host+"\r\n"), "200 POST / abc, 200 GET /b ")
	f("chunked", post("Transfer-Encoding: chunked\r\n", "2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"), "200 POST / abc")
	f("chunked, upper case", post("Transfer-Encoding: CHUNKED\r\n", "A\r\n0123456789\r\n0\r\n\r\n"), "200 POST / 0123456789")
	f("chunked with a trailer, then a request", post("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\nX: y\r\n\r\nGET /b HTTP/1.1\r\n"+host+"\r\n"), "200 POST / a, 200 GET /b ")
	f("HTTP/1.0", "GET /a HTTP/1.0\r\n"+host+"\r\nGET /b HTTP/1.0\r\n"+host+"\r\n", "200 GET /a ")
	f("HTTP/1.0 kept alive", "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n"+host+"\r\nGET /b HTTP/1.0\r\n"+host+"\r\n", "200 GET /a , 200 GET /b ")
	f("expectation", post("Expect: 100-continue\r\nContent-Length: 3\r\n", "abc"), "200 POST / abc")
	f("absolute form", "GET http://app/a HTTP/1.1\r\n"+host+"\r\n", "200 GET /a ", "haproxy")

	f("length with a sign", post("Content-Length: +3\r\n", "abc"), "refused")
	f("negative length", post("Content-Length: -3\r\n", "abc"), "refused")
	f("length in hex", post("Content-Length: 0x3\r\n", "abc"), "refused")
	f("no length", post("Content-Length: \r\n", "abc"), "refused")
	f("lengths that differ", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), "refused")
	f("huge length", post("Content-Length: 99999999999999999999\r\n", "abc"), "refused")
	f("length and chunked", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "refused", "haproxy") // HAProxy drops the length, as RFC 9112 §6.3 allows
	f("unknown coding", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), "refused")
	f("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "refused")
	f("chunked not last", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), "refused")
	f("chunk size is no number", post("Transfer-Encoding: chunked\r\n", "xyz\r\n\r\n"), "refused")
	f("chunk size too large", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n\r\n"), "refused")
	f("chunk longer than its size", post("Transfer-Encoding: chunked\r\n", "1\r\nabc\r\n0\r\n\r\n"), "refused")
	f("space before a colon", "GET / HTTP/1.1\r\n"+host+"X : y\r\n\r\n", "refused")
	f("folded line", "GET / HTTP/1.1\r\n"+host+"X: y\r\n z\r\n\r\n", "refused", "haproxy")   // HAProxy unfolds, as RFC 9112 §5.2 allows
	f("no colon", "GET / HTTP/1.1\r\n"+host+"X\r\n\r\n", "refused", "nginx")                 // nginx drops the line
	f("NUL in a value", "GET / HTTP/1.1\r\n"+host+"X: a\x00b\r\n\r\n", "refused", "haproxy") // HAProxy 2.6 lets it through
	f("no Host", "GET / HTTP/1.1\r\n\r\n", "refused", "haproxy")                             // HAProxy asks for none
	f("two Hosts", "GET / HTTP/1.1\r\n"+host+"Host: other\r\n\r\n", "refused")
	f("version 2", "GET / HTTP/2.0\r\n"+host+"\r\n", "refused", "haproxy")     // HAProxy looks at the form only
	f("no version", "GET /\r\n\r\n", "refused", "nginx")                       // nginx serves HTTP/0.9
	f("small letters", "get / HTTP/1.1\r\n"+host+"\r\n", "refused", "haproxy") // HAProxy 2.6 takes any token, as RFC 9110 §9.1 allows
	f("space in the target", "GET /a b HTTP/1.1\r\n"+host+"\r\n", "refused")
	f("control byte in the target", "GET /a\x01b HTTP/1.1\r\n"+host+"\r\n", "refused")
	f("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "refused")
}
