package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// The tests of this file are named after flaws that other proxies and servers have had. Each shows that the whole class is
// shut, on every listener and in both versions where that matters. The tables have more cases of most of them.

// refused has clients of HTTP/1 send bytes that must be answered with a status of 400 or more and a close, and of which no
// whole request may reach the application.
func refused(t *testing.T, requests ...string) {
	t.Helper()
	b := newBackend(t)
	m := start(t, b.address(), setting{})
	for _, request := range requests {
		for _, at := range everywhere {
			c := dial(t, m.Address(at))
			c.send(request)
			a, err := c.read("GET")
			if err != nil || a.status < 400 {
				t.Errorf("%s: %q is answered %d, %v", at, request, a.status, err)
				continue
			}
			c.ended()
		}
	}
	if _, messages := b.since(0); len(messages) > 0 {
		t.Errorf("the application has got %q", messages)
	}
}

// reset2 has clients of HTTP/2 send requests whose streams must be reset, and of which nothing may reach the application.
func reset2(t *testing.T, requests ...[][2]string) {
	t.Helper()
	b := newBackend(t)
	m := start(t, b.address(), setting{})
	for _, fields := range requests {
		for _, at := range everywhere {
			c := dial2(t, m.Address(at))
			if got := c.await(c.open(true, fields...)); got != "reset PROTOCOL_ERROR" {
				t.Errorf("%s: %q comes to %q", at, fields, got)
			}
		}
	}
	if raw, _ := b.since(0); len(raw) > 0 {
		t.Errorf("the application has got %q", raw)
	}
}

// with is a GET with more fields.
func with(name, value string) [][2]string {
	return append(request2("GET", "/"), [2]string{name, value})
}

// forwards has a client of HTTP/1 send a request and returns what the application gets of it.
func forwards(t *testing.T, at, request string, o setting) string {
	t.Helper()
	b := newBackend(t)
	m := start(t, b.address(), o)
	c := dial(t, m.Address(at))
	c.send(request)
	if a := c.must("GET"); a.status != 200 {
		t.Errorf("%s: %q is answered %d", at, request, a.status)
	}
	_ = m.Close()
	b.wait()
	raw, _ := b.since(0)
	return string(raw)
}

// guarded answers what its rule matches with 403, before everything else.
func guarded(match model.Match, host string, paths string) func(s *model.Snapshot) {
	return func(s *model.Snapshot) {
		s.Settings.PathNormalization = paths
		v := &s.Tables[0].Hosts[0]
		rule := model.Rule{Matches: []model.Match{match}, Reply: &model.Reply{Status: 403, Body: "guarded"}}
		if host == "" {
			v.Rules = append([]model.Rule{rule}, v.Rules...)
			return
		}
		s.Tables[0].Hosts = append(s.Tables[0].Hosts, model.VirtualHost{Name: "guarded", Domains: []string{host}, Rules: []model.Rule{rule}})
	}
}

// holds has requests that must all meet the guard, from clients of both versions.
func holds(t *testing.T, guard func(s *model.Snapshot), host string, paths ...string) {
	t.Helper()
	b := newBackend(t)
	m := start(t, b.address(), setting{edit: guard})
	for _, path := range paths {
		for _, at := range everywhere {
			c := dial(t, m.Address(at))
			c.send("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			if a := c.must("GET"); a.status != 403 {
				t.Errorf("%s: %s at %s is answered %d", at, path, host, a.status)
			}
			c2 := dial2(t, m.Address(at))
			fields := request2("GET", path)
			fields[2][1] = host
			if got := c2.await(c2.open(true, fields...)); got != "403" {
				t.Errorf("%s, HTTP/2: %s at %s comes to %q", at, path, host, got)
			}
		}
	}
	if raw, _ := b.since(0); len(raw) > 0 {
		t.Errorf("the application has got %q", raw)
	}
}

func admin() model.Match {
	return model.Match{Path: &model.StringMatch{Kind: model.PathPrefix, Value: "/admin"}}
}

func TestCVE_2019_9900_NULInHeader(t *testing.T) {
	refused(t,
		"GET / HTTP/1.1\r\nHost: app\r\nX: a\x00b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: app\r\nX\x00: a\r\n\r\n",
		"GET /\x00 HTTP/1.1\r\nHost: app\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: app\x00\r\n\r\n",
	)
	reset2(t, with("x", "a\x00b"), with("x\x00", "a"), request2("GET", "/\x00"), request2("G\x00T", "/"))
}

func TestCVE_2019_9901_PathNormalisation(t *testing.T) {
	holds(t, guarded(admin(), "", "BASE"), "app",
		"/admin", "/admin/", "/x/../admin", "/./admin", "/x/%2e%2e/admin", "/%61dmin", "/x/..\\admin", "/x/.%2E/admin/y", "/admin/x/..")
}

// Also CVE-2021-31920, and ISTIO-SECURITY-2021-005 as a whole: escaped and doubled slashes.
func TestCVE_2021_29492_EscapedSlashes(t *testing.T) {
	holds(t, guarded(admin(), "", "DECODE_AND_MERGE_SLASHES"), "app",
		"/%2Fadmin", "/%2fadmin", "/%5Cadmin", "/%5cadmin", "/x/..%2fadmin", "/x%2F..%5Cadmin", "//admin", "/x/..//admin", "/%2F%2Fadmin%2F")
	if got := forwards(t, gateway, "GET /%2Fadmin HTTP/1.1\r\nHost: app\r\n\r\n", setting{edit: guarded(admin(), "", "BASE")}); !strings.HasPrefix(got, "GET /%2Fadmin ") {
		t.Errorf("BASE forwards %q: what was matched is what must go on", got)
	}
}

func TestCVE_2021_31920_DoubledSlashes(t *testing.T) {
	holds(t, guarded(admin(), "", "MERGE_SLASHES"), "app", "//admin", "/\\admin", "/\\admin/..\\admin", "///admin//x", "/x/..//admin", "/.//admin")
}

func TestCVE_2021_32779_Fragment(t *testing.T) {
	refused(t, "GET /admin#x HTTP/1.1\r\nHost: app\r\n\r\n", "GET /x#/../admin HTTP/1.1\r\nHost: app\r\n\r\n", "GET /?a#b HTTP/1.1\r\nHost: app\r\n\r\n")
	reset2(t, request2("GET", "/admin#x"), request2("GET", "/?a#b"))
}

// A fragment hid a path from a policy about that very path, and the application took what stood before it. Here no fragment
// comes as far as a rule, in no form of a target, under no normalization; and "%23", which is none, is neither made one nor
// taken for an end: whoever guards the path alone lets it through, byte for byte.
func TestCVE_2021_39156_FragmentHidesPath(t *testing.T) {
	secret := model.Match{Path: &model.StringMatch{Kind: model.Exact, Value: "/user/profile"}}
	for _, paths := range []string{"NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"} {
		b := newBackend(t)
		m := start(t, b.address(), setting{edit: guarded(secret, "", paths)})
		for _, at := range everywhere {
			for _, target := range []string{
				"/user/profile#section1", "/user/profile#", "/user/profile#/../x", "/user/profile?a=b#c", "/#/user/profile",
				"http://app/user/profile#section1", "http://app#/user/profile", "#/user/profile",
			} {
				c := dial(t, m.Address(at))
				c.send("GET " + target + " HTTP/1.1\r\nHost: app\r\n\r\n")
				if a := c.must("GET"); a.status != 400 {
					t.Errorf("%s, %s: %s is answered %d", at, paths, target, a.status)
				}
				c.ended()
				c2 := dial2(t, m.Address(at))
				if got := c2.await(c2.open(true, request2("GET", target)...)); got != "reset PROTOCOL_ERROR" {
					t.Errorf("%s, %s, HTTP/2: %s comes to %q", at, paths, target, got)
				}
			}
			c := dial(t, m.Address(at))
			c.send("GET /user/profile HTTP/1.1\r\nHost: app\r\n\r\n")
			if a := c.must("GET"); a.status != 403 {
				t.Errorf("%s, %s: the guard answers %d", at, paths, a.status)
			}
		}
		if raw, _ := b.since(0); len(raw) > 0 {
			t.Errorf("%s: the application has got %q", paths, raw)
		}
	}
	for _, paths := range []string{"NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"} {
		got := forwards(t, gateway, "GET /user/profile%23section1 HTTP/1.1\r\nHost: app\r\n\r\n", setting{edit: guarded(secret, "", paths)})
		if !strings.HasPrefix(got, "GET /user/profile%23section1 ") {
			t.Errorf("%s: forwarded as %q", paths, got)
		}
	}
}

func TestCVE_2021_39155_HostCase(t *testing.T) {
	for _, host := range []string{"secret.example", "SECRET.example", "Secret.Example:80"} {
		holds(t, guarded(model.Match{}, "secret.example", ""), host, "/")
	}
}

// Who nominates a field takes it out of the message; not so with what others rest on.
func TestCVE_2021_33197_HopByHop(t *testing.T) {
	for _, field := range []string{
		"Authorization: Basic x", "Cookie: a=b", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "Forwarded: for=1.2.3.4",
		"If-Match: \"1\"", "X-Forwarded-Client-Cert: By=x", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Range: bytes=0-1",
	} {
		name, _, _ := strings.Cut(field, ":")
		got := forwards(t, inbound, "GET / HTTP/1.1\r\nHost: app\r\n"+field+"\r\nConnection: close, "+name+"\r\n\r\n", setting{})
		if !strings.Contains(got, field) {
			t.Errorf("%s is gone: %q", name, got)
		}
	}
}

// Envoy's own fields, by which one proxy tells the next what it has done, are no client's to set.
func TestCVE_2023_27487_OriginalPath(t *testing.T) {
	for _, at := range []string{outbound, gateway} {
		got := forwards(t, at, "GET /x HTTP/1.1\r\nHost: app\r\nX-Envoy-Original-Path: /admin\r\nX-ENVOY-original-host: other\r\n\r\n", setting{})
		if strings.Contains(strings.ToLower(got), "x-envoy-original") {
			t.Errorf("%s: %q", at, got)
		}
	}
}

func TestCVE_2023_27491_InvalidHTTP2ToHTTP1(t *testing.T) {
	reset2(t,
		with("x", "a\r\nx-evil: 1"), with("x", "a\nb"), with("x", "a\rb"), with("x\r\ny", "a"), with("x y", "a"), with("X", "a"),
		with("transfer-encoding", "chunked"), with("connection", "close"), with("upgrade", "h2c"), with("te", "gzip"),
		request2("GET / HTTP/1.1\r\nx: y", "/"), request2("GET", "/ HTTP/1.1\r\nx: y"), request2("GET", "/a b"), request2("GET", "a"), request2("GET", ""),
		[][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "app\r\nx: y"}, {":path", "/"}},
		[][2]string{{":method", "GET"}, {":scheme", "http\r\nx: y"}, {":authority", "app"}, {":path", "/"}},
	)
}

// What a client writes into an answer of ours stays one value.
func TestCVE_2023_27493_UnescapedValues(t *testing.T) {
	b := newBackend(t)
	m := start(t, b.address(), setting{edit: func(s *model.Snapshot) {
		v := &s.Tables[0].Hosts[0]
		v.Rules = []model.Rule{{Redirect: &model.Redirect{Status: 301, Scheme: "https", PortFrom: "scheme"}}}
	}})
	for _, path := range []string{"/%0d%0aSet-Cookie:%20a=b", "/?a=%0d%0aSet-Cookie:%20a=b", "/\\\\evil.example/%2e%2e", "//evil.example/%0a"} {
		for _, at := range everywhere {
			c := dial(t, m.Address(at))
			c.send("GET " + path + " HTTP/1.1\r\nHost: app\r\n\r\n")
			a := c.must("GET")
			location := field(a.head, "location")
			if a.status != 301 || field(a.head, "set-cookie") != "" || !strings.HasPrefix(location, "https://app") || strings.ContainsAny(location, "\r\n") {
				t.Errorf("%s: %s is answered %q", at, path, a.head)
			}
		}
	}
}

func TestCVE_2023_35944_SchemeCase(t *testing.T) {
	b := newBackend(t)
	m := start(t, b.address(), setting{})
	for _, at := range everywhere {
		for _, scheme := range []string{"https", "HTTPS", "hTTpS"} {
			c := dial(t, m.Address(at))
			c.send("GET " + scheme + "://app/ HTTP/1.1\r\nHost: app\r\n\r\n")
			if a := c.must("GET"); a.status != 400 {
				t.Errorf("%s: %s in the clear is answered %d", at, scheme, a.status)
			}
		}
		for _, scheme := range []string{"http", "HTTP", "HTTPS", "hTTpS"} {
			c := dial2(t, m.Address(at))
			fields := request2("GET", "/scheme")
			fields[1][1] = scheme
			if got := c.await(c.open(true, fields...)); got != "200" {
				t.Errorf("%s: :scheme %s comes to %q", at, scheme, got)
			}
		}
	}
	_ = m.Close()
	b.wait()
	raw, messages := b.since(0)
	if len(messages) != 4*len(everywhere) || bytes.Contains(bytes.ToLower(raw), []byte("x-forwarded-proto: https")) {
		t.Errorf("the application is told that a connection in the clear is TLS: %q", raw)
	}
}

// What proxies of the mesh say to each other, and what they say of a client, is no client's to say.
func TestCVE_2024_45806_InternalHeaders(t *testing.T) {
	const spoofed = "x-outrider-peer: spoofed\r\nX-Envoy-Internal: true\r\nx-envoy-retry-on: 5xx\r\nX-Envoy-Max-Retries: 9\r\n" +
		"x-envoy-upstream-rq-timeout-ms: 1\r\nx-envoy-external-address: 9.9.9.9\r\nx-envoy-decorator-operation: evil\r\nx-envoy-attempt-count: 77\r\n"
	for _, at := range []string{outbound, gateway} {
		got := strings.ToLower(forwards(t, at, "GET / HTTP/1.1\r\nHost: app\r\n"+spoofed+"\r\n", setting{}))
		for line := range strings.SplitSeq(strings.TrimSuffix(spoofed, "\r\n"), "\r\n") {
			if strings.Contains(got, strings.ToLower(line)) {
				t.Errorf("%s: %q goes on", at, line)
			}
		}
	}
	got := forwards(t, inbound, "GET / HTTP/1.1\r\nHost: app\r\nx-outrider-peer: spoofed\r\n\r\n", setting{})
	if strings.Contains(got, "x-outrider-peer") {
		t.Errorf("the application sees what proxies say to each other: %q", got)
	}
}

// A client's bytes make no lines of their own in a log.
func TestCVE_2024_45808_LogInjection(t *testing.T) {
	var log bytes.Buffer
	b := newBackend(t)
	b.script(&scenario{answer: &answer{early: []byte("HTTP/1.1 200 OK\r\nX: \x1b[31mevil\nlevel=ERROR msg=evil\r\n\r\n")}})
	file := filepath.Join(t.TempDir(), "access.log")
	m := start(t, b.address(), setting{log: &log, edit: func(s *model.Snapshot) { s.Settings.AccessLog = &model.AccessLog{File: file} }})
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: app\r\n\r\n",
		"GET /\x1b[31m HTTP/1.1\r\nHost: app\r\n\r\n",
		"GET /%0alevel=ERROR%20msg=evil HTTP/1.1\r\nHost: app\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: app\r\nUser-Agent: a\nlevel=ERROR msg=evil\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: \x1b[31m\nlevel=ERROR\r\n\r\n",
		"GET\nlevel=ERROR / HTTP/1.1\r\n\r\n",
	} {
		for _, at := range everywhere {
			c := dial(t, m.Address(at))
			c.send(request)
			_, _ = c.read("GET")
			_ = c.Close()
		}
	}
	_ = m.Close()
	if log.Len() == 0 {
		t.Error("nothing was logged, so nothing was tested")
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(log.String(), "\n"), "\n") {
		if !strings.HasPrefix(line, "time=") || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("the log has the line %q", line)
		}
	}
	access, err := os.ReadFile(file)
	if err != nil || len(access) == 0 {
		t.Errorf("the access log has %d bytes, so nothing was tested: %v", len(access), err)
	}
	for line := range strings.Lines(string(access)) {
		if !strings.HasPrefix(line, "[2") || strings.ContainsFunc(line[:len(line)-1], func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("the access log has the line %q", line)
		}
	}
}

func TestCVE_2019_16276_SpaceBeforeColon(t *testing.T) {
	refused(t,
		"GET / HTTP/1.1\r\nHost: app\r\nX : a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: app\r\nX\t: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: app\r\nContent-Length : 3\r\n\r\nabc",
	)
	reset2(t, with("x ", "a"))
}

// Codings that only look like chunked.
func TestCVE_2022_1705_TransferEncoding(t *testing.T) {
	var all []string
	for _, coding := range []string{"xchunked", "\x0bchunked", "chunked\x0b", "chunked;a", "\"chunked\"", "chunked chunked", "x, chunked", "identity", "chunked\x00"} {
		all = append(all, "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: "+coding+"\r\n\r\n0\r\n\r\n")
	}
	refused(t, all...)
}

// A list element that is empty is refused as well (tinyproxy).
func TestCVE_2026_54387_ChunkedComma(t *testing.T) {
	refused(t,
		"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked, \r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	)
}

// What is ambiguous is refused, not repaired (cloudwego/hertz#1490): a repair is right only if everybody behind makes the same.
func TestRefusedNotRepaired(t *testing.T) {
	refused(t,
		"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3, 3\r\n\r\nabc",
		"GET / HTTP/1.1\r\nHost: app\r\nX: a\r\n b\r\n\r\n",
		"GET / HTTP/1.1\nHost: app\n\n",
		"GET http://other/ HTTP/1.1\r\nHost: app\r\n\r\n",
	)
}

// What a rule can see of a query is what the application gets: to the byte (also CVE-2026-39825).
func TestCVE_2022_2880_QueryParameters(t *testing.T) {
	for _, query := range []string{"?x=1;y=2", "?a=%zz&b=1", "?%=1", "?a=1&a=2&&=", "?a+b=%20", "?", "?a=b?c=/../d"} {
		for _, at := range everywhere {
			if got := forwards(t, at, "GET /q"+query+" HTTP/1.1\r\nHost: app\r\n\r\n", setting{}); !strings.HasPrefix(got, "GET /q"+query+" HTTP/1.1\r\n") {
				t.Errorf("%s: %s goes on as %q", at, query, got)
			}
		}
	}
}

func TestCVE_2026_39825_UnseenQueryParameters(t *testing.T) {
	guard := guarded(model.Match{Query: []model.KeyMatch{{Name: "admin", StringMatch: model.StringMatch{Kind: model.Exact, Value: "1"}}}}, "", "")
	holds(t, guard, "app", "/?admin=1", "/?a=%zz&admin=1", "/?x;y&admin=1", "/?%&admin=1", "/?&&admin=1&", "/?a=b=c&admin=1", "/?"+strings.Repeat("a=b&", 500)+"admin=1")
}

// The address that a gateway adds is the one that the connection has, behind whatever the client says.
func TestCVE_2022_32148_ForwardedFor(t *testing.T) {
	for _, more := range []string{"", "Connection: X-Forwarded-For\r\n", "X-Forwarded-For: 5.6.7.8\r\n"} {
		got := forwards(t, gateway, "GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-For: 1.2.3.4\r\n"+more+"\r\n", setting{})
		var all []string
		for line := range strings.SplitSeq(got, "\r\n") {
			if k, v, ok := strings.Cut(line, ": "); ok && strings.EqualFold(k, "x-forwarded-for") {
				all = append(all, v)
			}
		}
		if last := strings.Join(all, ", "); !strings.HasPrefix(last, "1.2.3.4") || !strings.HasSuffix(last, ", 127.0.0.1") {
			t.Errorf("with %q the application is told %q", more, last)
		}
	}
}

// Names and values of past requests do not stay in memory (in Go's server they did, beyond every limit).
func TestCVE_2022_41717_HeaderMemory(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{})
	m.siege(t, gateway, "", 48, func() { // what the application keeps of 6 MB is in it
		for i := range 20 {
			c := dial2(t, m.Address(gateway))
			for j := range 50 {
				name := fmt.Sprintf("x-%d-%d-%s", i, j, strings.Repeat("n", 3000))
				if got := c.await(c.open(true, with(name, strings.Repeat("v", 3000))...)); got != "200" {
					t.Fatalf("got %q", got)
				}
			}
			defer c.Close()
		}
	})
}

// Extensions cost the proxy more reading than the body is long: they are bounded.
func TestCVE_2023_39326_ChunkExtensions(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{})
	m.siege(t, gateway, "", 16, func() {
		c := dial(t, m.Address(gateway))
		c.send("POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n")
		var sent int
		done := make(chan struct{})
		go func() { // ends with the connection
			defer close(done)
			sent = pour(c, bytes.Repeat([]byte("1;"+strings.Repeat("e", 1000)+"\r\na\r\n"), 16), 64<<20)
		}()
		if a := c.must("POST"); a.status != 400 {
			t.Errorf("got %d", a.status)
		}
		_ = c.Close()
		<-done
		if sent >= 64<<20 {
			t.Error("64 MiB of extensions are read")
		}
	})
	refused(t, "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n3;"+strings.Repeat("e", 1<<20))
}

// An application that answers without the body that was expected leaves nobody waiting, and its connection is not used
// again while that body may still come.
func TestCVE_2024_24791_ExpectContinue(t *testing.T) {
	for _, final := range []string{"200 OK", "417 Expectation Failed", "204 No Content", "500 Oops"} {
		b := newBackend(t)
		b.script(&scenario{answer: &answer{early: []byte("HTTP/1.1 " + final + "\r\n" + map[bool]string{false: "Content-Length: 0\r\n"}[final[0:3] == "204"] + "\r\n")}})
		m := start(t, b.address(), setting{})
		c := dial(t, m.Address(gateway))
		c.send("POST / HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 45\r\n\r\n")
		if a := c.must("POST"); fmt.Sprint(a.status) != final[:3] {
			t.Errorf("got %d, want %s", a.status, final)
		}
		for range 5 {
			next := dial(t, m.Address(gateway))
			next.send("GET " + aside + " HTTP/1.1\r\nHost: app\r\n\r\n")
			if a := next.must("GET"); a.status != 200 || a.body != aside {
				t.Errorf("behind %s: the next client gets %d %q", final, a.status, a.body)
			}
		}
		// What the first client now sends is no request of its own.
		_, _ = io.WriteString(c, "GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n1234567")
		if a, err := c.read("GET"); err == nil {
			t.Errorf("behind %s: the body is answered %+v", final, a)
		}
		_ = m.Close()
		b.wait()
		if _, messages := b.since(0); slices.ContainsFunc(messages, func(line string) bool { return strings.Contains(line, "smuggled") }) {
			t.Errorf("behind %s: the application has got %q", final, messages)
		}
	}
}

func TestCVE_2025_22871_BareLFInChunkSize(t *testing.T) {
	refused(t,
		"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\n\r\n",
	)
}

// h2c smuggling: no client gets past the proxy by a switch of protocols that it cannot read.
func TestH2CSmuggling(t *testing.T) {
	for _, at := range everywhere {
		for _, upgrade := range []string{"h2c", "H2C", "h2c, websocket", "HTTP/2.0", "h2", "TLS/1.0"} {
			got := forwards(t, at, "GET / HTTP/1.1\r\nHost: app\r\nUpgrade: "+upgrade+"\r\nHTTP2-Settings: AAMA\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n", setting{})
			for line := range strings.SplitSeq(strings.ToLower(got), "\r\n") {
				if strings.HasPrefix(line, "http2-settings") || strings.HasPrefix(line, "upgrade:") && line != "upgrade: websocket" {
					t.Errorf("%s: %q goes on", at, line)
				}
			}
		}
		for _, protocol := range []string{"h2c", "H2C", "HTTP", "h2", "TLS"} {
			b := newBackend(t)
			m := start(t, b.address(), setting{})
			c := dial2(t, m.Address(at))
			id := c.open(false, [][2]string{{":method", "CONNECT"}, {":protocol", protocol}, {":scheme", "http"}, {":authority", "app"}, {":path", "/"}}...)
			k := c.of(id)
			for len(k.heads) == 0 && k.reset == nil && c.step() {
			}
			if got := c.said(k); strings.HasPrefix(got, "2") {
				t.Errorf("%s: :protocol %s comes to %q", at, protocol, got)
			}
			if raw, _ := b.since(0); len(raw) > 0 {
				t.Errorf("%s: :protocol %s reaches the application as %q", at, protocol, raw)
			}
		}
	}
}

// A connection whose client speaks something else than it was asked to is no way around, either.
func TestNoHTTP(t *testing.T) {
	b := newBackend(t)
	m := start(t, b.address(), setting{})
	for _, bytes := range []string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "SSH-2.0-x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "\x00\x00\x00\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\nHost: app\r\n\r\n"} {
		for _, at := range everywhere {
			nc, err := net.Dial("tcp", m.Address(at))
			if err != nil {
				t.Fatal(err)
			}
			c := over(t, nc)
			c.send(bytes)
			_ = nc.(*net.TCPConn).CloseWrite()
			_, _ = io.ReadAll(c.r)
			_ = nc.Close()
		}
	}
	if raw, _ := b.since(0); len(raw) > 0 {
		t.Errorf("the application has got %q", raw)
	}
}
