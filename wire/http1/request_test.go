package http1

import (
	"errors"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// readHead finds the head at the start of raw and reads it, as a connection does.
func readHead(r *message.Request, raw string, lim *Limits) error {
	n, err := HeadEnd([]byte(raw), 0, lim)
	if err != nil {
		return err
	}
	if n == 0 {
		return errIncomplete
	}
	return ReadRequest(r, []byte(raw[:n]), lim)
}

// TestForwardedRequests has requests that are accepted, and the exact bytes that are written onward.
func TestForwardedRequests(t *testing.T) {
	f := func(name, raw, want string) {
		t.Helper()
		var r message.Request
		if err := readHead(&r, raw, nil); err != nil {
			t.Errorf("%s: refused: %v", name, err)
			return
		}
		if got := string(AppendRequest(nil, &r, RequestOptions{})); got != want {
			t.Errorf("%s: written\n%q, want\n%q", name, got, want)
		}
	}
	get := func(name, fields, want string) {
		t.Helper()
		f(name, "GET / HTTP/1.1\r\nHost: a\r\n"+fields+"\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"+want+"\r\n")
	}
	line := func(name, line, fields, want, host string) {
		t.Helper()
		f(name, line+"\r\n"+fields+"\r\n", want+"\r\nHost: "+host+"\r\n\r\n")
	}

	// Request lines and targets.
	line("plain", "GET / HTTP/1.1", "Host: a\r\n", "GET / HTTP/1.1", "a")
	line("path and query", "GET /a/b?c=d HTTP/1.1", "Host: a\r\n", "GET /a/b?c=d HTTP/1.1", "a")
	line("query verbatim", "GET /?x=1;y=2&%zz&a=b?c=/../ HTTP/1.1", "Host: a\r\n", "GET /?x=1;y=2&%zz&a=b?c=/../ HTTP/1.1", "a")
	line("empty query", "GET /a? HTTP/1.1", "Host: a\r\n", "GET /a? HTTP/1.1", "a")
	line("unknown method", "FROBNICATE / HTTP/1.1", "Host: a\r\n", "FROBNICATE / HTTP/1.1", "a")
	line("method with a dash", "M-SEARCH / HTTP/1.1", "Host: a\r\n", "M-SEARCH / HTTP/1.1", "a")
	line("path beginning with two slashes", "GET //a//b HTTP/1.1", "Host: a\r\n", "GET //a//b HTTP/1.1", "a")
	line("bytes above ASCII", "GET /caf\xc3\xa9 HTTP/1.1", "Host: a\r\n", "GET /caf\xc3\xa9 HTTP/1.1", "a")
	line("OPTIONS *", "OPTIONS * HTTP/1.1", "Host: a\r\n", "OPTIONS * HTTP/1.1", "a")
	line("one empty line before", "\r\nGET / HTTP/1.1", "Host: a\r\n", "GET / HTTP/1.1", "a")
	line("absolute form", "GET http://a:9080/b?c HTTP/1.1", "Host: a:9080\r\n", "GET /b?c HTTP/1.1", "a:9080")
	line("absolute form without path", "GET http://a HTTP/1.1", "Host: a\r\n", "GET / HTTP/1.1", "a")
	line("absolute form with query alone", "GET http://a?b HTTP/1.1", "Host: a\r\n", "GET /?b HTTP/1.1", "a")
	line("absolute form, scheme in capitals", "GET HTTP://a/ HTTP/1.1", "Host: a\r\n", "GET / HTTP/1.1", "a")
	line("absolute form, host in another case", "GET http://A/ HTTP/1.1", "Host: a\r\n", "GET / HTTP/1.1", "A")
	line("absolute form, standard port left out", "GET http://a:80/ HTTP/1.1", "Host: a\r\n", "GET / HTTP/1.1", "a:80")
	line("absolute form, https standard port", "GET https://a/ HTTP/1.1", "Host: a:443\r\n", "GET / HTTP/1.1", "a")
	line("absolute form for OPTIONS *", "OPTIONS http://a:8001 HTTP/1.1", "Host: a:8001\r\n", "OPTIONS * HTTP/1.1", "a:8001")
	line("absolute form for OPTIONS of a path", "OPTIONS http://a/ HTTP/1.1", "Host: a\r\n", "OPTIONS / HTTP/1.1", "a")
	line("absolute form in HTTP/1.0 without Host", "GET http://a/ HTTP/1.0", "", "GET / HTTP/1.1", "a")
	line("CONNECT", "CONNECT a:443 HTTP/1.1", "Host: a:443\r\n", "CONNECT a:443 HTTP/1.1", "a:443")
	line("CONNECT, Host without port", "CONNECT a:443 HTTP/1.1", "Host: a\r\n", "CONNECT a:443 HTTP/1.1", "a:443")
	line("CONNECT in HTTP/1.0 without Host", "CONNECT a:443 HTTP/1.0", "", "CONNECT a:443 HTTP/1.1", "a:443")
	line("CONNECT with an empty body declared", "CONNECT a:443 HTTP/1.1", "Host: a:443\r\nContent-Length: 0\r\n", "CONNECT a:443 HTTP/1.1", "a:443")
	line("CONNECT to IPv6", "CONNECT [::1]:443 HTTP/1.1", "Host: [::1]:443\r\n", "CONNECT [::1]:443 HTTP/1.1", "[::1]:443")
	line("HTTP/1.0", "GET / HTTP/1.0", "Host: a\r\n", "GET / HTTP/1.1", "a")
	line("HTTP/1.0 without Host", "GET / HTTP/1.0", "", "GET / HTTP/1.1", "")

	// Hosts.
	line("host and port", "GET / HTTP/1.1", "hOsT: a.b-c_d:65535\r\n", "GET / HTTP/1.1", "a.b-c_d:65535")
	line("empty port", "GET / HTTP/1.1", "Host: a:\r\n", "GET / HTTP/1.1", "a")
	line("IPv4", "GET / HTTP/1.1", "Host: 127.0.0.1:80\r\n", "GET / HTTP/1.1", "127.0.0.1:80")
	line("IPv6", "GET / HTTP/1.1", "Host: [2001:db8::1]:80\r\n", "GET / HTTP/1.1", "[2001:db8::1]:80")
	line("IPv6 with IPv4 at its end", "GET / HTTP/1.1", "Host: [::ffff:10.0.0.1]\r\n", "GET / HTTP/1.1", "[::ffff:10.0.0.1]")
	line("escaped host", "GET / HTTP/1.1", "Host: %61.b\r\n", "GET / HTTP/1.1", "%61.b")
	line("trailing dot", "GET / HTTP/1.1", "Host: a.b.\r\n", "GET / HTTP/1.1", "a.b.")
	line("space around Host", "GET / HTTP/1.1", "Host: \t a \t\r\n", "GET / HTTP/1.1", "a")

	// Fields.
	get("field order and case", "X-b: 1\r\nx-A: 2\r\nX-b: 3\r\n", "X-b: 1\r\nx-A: 2\r\nX-b: 3\r\n")
	get("no space after colon", "A:b\r\n", "A: b\r\n")
	get("space around a value", "A: \t b c \t \r\n", "A: b c\r\n")
	get("empty value", "A:\r\nB: \r\nC: c\r\n", "A: \r\nB: \r\nC: c\r\n")
	get("tab inside a value", "A: b\tc\r\n", "A: b\tc\r\n")
	get("bytes above ASCII in a value", "A: \x80\xff\xc3\xa9\r\n", "A: \x80\xff\xc3\xa9\r\n")
	get("colon in a value", "A: b:c: d\r\n", "A: b:c: d\r\n")
	get("all of a token in a name", "!#$%&'*+-.^_`|~09azAZ: 1\r\n", "!#$%&'*+-.^_`|~09azAZ: 1\r\n")
	get("underscore in a name", "x_a: 1\r\n", "x_a: 1\r\n")
	get("two Cookie fields stay two", "Cookie: a=1\r\nCookie: b=2\r\n", "Cookie: a=1\r\nCookie: b=2\r\n")

	// Bodies.
	get("GET without a body", "Content-Length: 0\r\n", "")
	get("GET with a body", "Content-Length: 5\r\n", "Content-Length: 5\r\n")
	get("leading zeros of a length", "Content-Length: 005\r\n", "Content-Length: 5\r\n")
	get("the largest length", "Content-Length: 9223372036854775807\r\n", "Content-Length: 9223372036854775807\r\n")
	get("chunked", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\n")
	get("chunked in capitals", "TRANSFER-ENCODING:\t CHUNKED \r\n", "Transfer-Encoding: chunked\r\n")
	get("announced trailers", "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n", "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n")
	f("POST without a length", "POST / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
	f("POST in HTTP/1.0", "POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n", "POST / HTTP/1.1\r\nHost: \r\nContent-Length: 3\r\n\r\n")
	get("100-continue", "Expect: 100-Continue\r\nContent-Length: 1\r\n", "Content-Length: 1\r\nExpect: 100-continue\r\n")
	get("100-continue, chunked", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n")
	get("100-continue without content", "Expect: 100-continue\r\n", "")
	f("100-continue in HTTP/1.0", "PUT / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")

	// Hop-by-hop fields.
	get("keep-alive", "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nA: b\r\n", "A: b\r\n")
	get("close", "Connection: close\r\nA: b\r\n", "A: b\r\n")
	get("nominated fields go", "A: 1\r\nConnection: X-Secret, a\r\nx-secret: 2\r\nB: 3\r\nX-SECRET: 4\r\n", "B: 3\r\n")
	get("nominated over two Connection fields", "A: 1\r\nB: 2\r\nC: 3\r\nConnection: a\r\nConnection: ,b,\r\n", "C: 3\r\n")
	get("nominating Connection itself hides nothing", "A: 1\r\nConnection: connection\r\nConnection: a\r\n", "")
	get("nominated X-Forwarded-For stays", "X-Forwarded-For: 1.2.3.4\r\nConnection: x-forwarded-for\r\n", "X-Forwarded-For: 1.2.3.4\r\n")
	get("nominated Forwarded stays", "Forwarded: for=1.2.3.4\r\nConnection: forwarded\r\n", "Forwarded: for=1.2.3.4\r\n")
	get("nominated client certificate stays", "X-Forwarded-Client-Cert: u\r\nConnection: x-forwarded-client-cert\r\n", "X-Forwarded-Client-Cert: u\r\n")
	get("nominated Authorization stays", "Authorization: Basic x\r\nConnection: authorization\r\n", "Authorization: Basic x\r\n")
	get("nominated Cookie stays", "Cookie: a=b\r\nConnection: close, Cookie\r\n", "Cookie: a=b\r\n")
	get("nominated If-Match stays", "If-Match: \"1\"\r\nConnection: If-Match\r\n", "If-Match: \"1\"\r\n")
	get("nominated request id stays", "X-Request-ID: 1\r\nConnection: x-request-id\r\n", "X-Request-ID: 1\r\n")
	get("nominated trace stays", "traceparent: 1\r\nb3: 0\r\nConnection: traceparent, b3\r\n", "traceparent: 1\r\nb3: 0\r\n")
	get("nominated Host stays", "Connection: host\r\n", "")
	get("nominated Content-Length stays", "Content-Length: 3\r\nConnection: content-length\r\n", "Content-Length: 3\r\n")
	get("nominated Transfer-Encoding stays", "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n", "Transfer-Encoding: chunked\r\n")
	get("Proxy-Connection goes", "Proxy-Connection: keep-alive\r\n", "")
	get("Proxy-Authorization ends here", "Proxy-Authorization: Basic x\r\nA: b\r\n", "A: b\r\n")
	get("TE goes, trailers stay known", "TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n", "TE: trailers\r\nConnection: TE\r\n")
	get("TE without trailers goes", "TE: gzip\r\nConnection: te\r\n", "")
	get("Upgrade", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
		"Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
	get("Upgrade among options", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", "Upgrade: websocket\r\nConnection: Upgrade\r\n")
	get("Upgrade that Connection does not name", "Upgrade: websocket\r\n", "")
	get("Upgrade to h2c", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", "")
	get("Upgrade to h2c or more", "Upgrade: H2C, foo/2, HTTP/2.0, TLS/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
		"Upgrade: foo/2, websocket\r\nConnection: Upgrade\r\n")
	get("HTTP2-Settings alone", "HTTP2-Settings: AAMA\r\n", "")
	f("Upgrade in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
}

// TestRefusedRequests has requests that are refused, with the status and the reason.
func TestRefusedRequests(t *testing.T) {
	f := func(name, raw string, status int, reason *Error) {
		t.Helper()
		var r message.Request
		err := readHead(&r, raw, nil)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: accepted (%v)", name, err)
			return
		}
		if e != reason || e.Status != status || e.Error() == "" {
			t.Errorf("%s: %d %s, want %d %s", name, e.Status, e.Reason, status, reason.Reason)
		}
		// Where HeadEnd refuses early, ReadRequest alone would have refused too.
		if err := ReadRequest(&r, []byte(raw), nil); err == nil {
			t.Errorf("%s: accepted by ReadRequest", name)
		}
	}
	get := func(name, fields string, status int, reason *Error) {
		t.Helper()
		f(name, "GET / HTTP/1.1\r\nHost: a\r\n"+fields+"\r\n", status, reason)
	}
	line := func(name, line string, status int, reason *Error) {
		t.Helper()
		f(name, line+"\r\nHost: a\r\n\r\n", status, reason)
	}

	// Request lines.
	line("no version", "GET /", 400, errRequestLine)
	line("no target", "GET", 400, errRequestLine)
	line("method and space alone", "GET ", 400, errRequestLine)
	line("two spaces before the target", "GET  / HTTP/1.1", 400, errRequestLine)
	line("two spaces before the version", "GET /  HTTP/1.1", 400, errRequestLine)
	line("space behind the version", "GET / HTTP/1.1 ", 400, errRequestLine)
	line("space in the target", "GET /a b HTTP/1.1", 400, errRequestLine)
	line("space before the method", " GET / HTTP/1.1", 400, errRequestLine)
	line("tab for a space", "GET\t/ HTTP/1.1", 400, errMethod)
	line("tab in the target", "GET /\ta HTTP/1.1", 400, errTarget)
	line("small method", "get / HTTP/1.1", 400, errMethod)
	line("mixed method", "Get / HTTP/1.1", 400, errMethod)
	line("control in the method", "G\x01T / HTTP/1.1", 400, errMethod)
	line("colon in the method", "GE:T / HTTP/1.1", 400, errMethod)
	line("method above ASCII", "G\xc3\x89T / HTTP/1.1", 400, errMethod)
	line("NUL in the target", "GET /\x00 HTTP/1.1", 400, errTarget)
	line("DEL in the target", "GET /\x7f HTTP/1.1", 400, errTarget)
	line("bare CR in the target", "GET /\ra HTTP/1.1", 400, errTarget)
	line("fragment", "GET /a#b HTTP/1.1", 400, errFragment)
	line("fragment in the query", "GET /a?b#c HTTP/1.1", 400, errFragment)
	line("fragment in absolute form", "GET http://a/#b HTTP/1.1", 400, errFragment)
	f("two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, errRequestLine)
	f("LF before", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, errBareLF)
	f("first line ends with LF", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400, errBareLF)
	f("field before the request line", "Host: a\r\nGET / HTTP/1.1\r\n\r\n", 400, errMethod)

	// Versions.
	line("HTTP/1.2", "GET / HTTP/1.2", 505, errVersionUnknown)
	line("HTTP/2.0", "GET / HTTP/2.0", 505, errVersionUnknown)
	line("HTTP/0.9", "GET / HTTP/0.9", 505, errVersionUnknown)
	line("HTTP/3.0", "GET / HTTP/3.0", 505, errVersionUnknown)
	line("small http", "GET / http/1.1", 400, errVersion)
	line("two digits", "GET / HTTP/1.10", 400, errVersion)
	line("leading zero", "GET / HTTP/01.1", 400, errVersion)
	line("no minor version", "GET / HTTP/1", 400, errVersion)
	line("minor version is no digit", "GET / HTTP/1.x", 400, errVersion)
	line("another protocol", "GET / HTTPS/1.1", 400, errVersion)
	line("CR in the version", "GET / HTTP/1.1\rX", 400, errBareCR)
	f("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, errPreface)
	line("HTTP/2 preface, garbled", "PRI * HTTP/1.1", 400, errPreface)

	// Targets.
	line("asterisk for GET", "GET * HTTP/1.1", 400, errTargetForm)
	line("asterisk with a query", "OPTIONS *?a HTTP/1.1", 400, errTargetForm)
	line("authority form for GET", "GET a:80 HTTP/1.1", 400, errTargetForm)
	line("relative path", "GET a/b HTTP/1.1", 400, errTargetForm)
	line("query alone", "GET ?a HTTP/1.1", 400, errTargetForm)
	line("backslash first", "GET \\a HTTP/1.1", 400, errTargetForm)
	line("scheme without slashes", "GET http:a HTTP/1.1", 400, errTargetForm)
	line("one slash behind the scheme", "GET http:/a HTTP/1.1", 400, errTargetForm)
	line("another scheme", "GET ftp://a/ HTTP/1.1", 400, errScheme)
	line("no scheme", "GET ://a/ HTTP/1.1", 400, errScheme)
	line("no authority in absolute form", "GET http:///a HTTP/1.1", 400, errAuthority)
	line("user information", "GET http://user:pw@a/ HTTP/1.1", 400, errAuthority)
	line("bad port in absolute form", "GET http://a:b/ HTTP/1.1", 400, errAuthority)
	line("origin form for CONNECT", "CONNECT / HTTP/1.1", 400, errConnectPort)
	line("absolute form for CONNECT", "CONNECT http://a:80/ HTTP/1.1", 400, errConnectPort)
	line("CONNECT without port", "CONNECT a HTTP/1.1", 400, errConnectPort)
	line("CONNECT with an empty port", "CONNECT a: HTTP/1.1", 400, errConnectPort)
	line("CONNECT with a query", "CONNECT a:443?b HTTP/1.1", 400, errConnectPort)
	line("CONNECT, another Host", "CONNECT b:443 HTTP/1.1", 400, errHostDiffers)
	f("CONNECT, another port in Host", "CONNECT a:443 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400, errHostDiffers)
	f("CONNECT with a body", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 3\r\n\r\n", 400, errConnectBody)
	f("CONNECT, chunked", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nTransfer-Encoding: chunked\r\n\r\n", 400, errConnectBody)
	line("absolute form, another Host", "GET http://b/ HTTP/1.1", 400, errHostDiffers)
	line("absolute form, another port", "GET http://a:81/ HTTP/1.1", 400, errHostDiffers)
	f("absolute form without Host", "GET http://a/ HTTP/1.1\r\n\r\n", 400, errNoHost)

	// Hosts.
	f("no Host", "GET / HTTP/1.1\r\nA: b\r\n\r\n", 400, errNoHost)
	f("no field at all", "GET / HTTP/1.1\r\n\r\n", 400, errNoHost)
	get("two Hosts", "Host: b\r\n", 400, errHosts)
	get("the same Host twice", "host: a\r\n", 400, errHosts)
	f("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, errHosts)
	for name, host := range map[string]string{
		"empty": "", "list": "a, b", "joined": "a,b", "space": "a b", "path": "a/b", "user": "u@a", "query": "a?b", "fragment": "a#b",
		"port is no number": "a:b", "signed port": "a:+80", "port too large": "a:65536", "port too long": "a:000080", "two ports": "a:80:80",
		"port alone": ":80", "scheme": "http://a", "backslash": "a\\b", "above ASCII": "\xc3\xa9", "bad escape": "a%2", "bad escape too": "%zz",
		"IPv6 without brackets": "::1", "IPv6 open": "[::1", "IPv6 empty": "[]", "IPv6 and more": "[::1]a", "IPv6 zone": "[fe80::1%25eth0]",
		"IPv6 of nine": "[1:2:3:4:5:6:7:8:9]", "IPv6 of seven": "[1:2:3:4:5:6:7]", "IPv6 with two gaps": "[1::2::3]", "IPv6 digits": "[12345::]",
		"IPv6 end": "[1:2:3:4:5:6:7:]", "IPv6 start": "[:1:2:3:4:5:6:7]", "IPv4 in IPv6": "[::1.2.3.256]", "short IPv4 in IPv6": "[::1.2.3]",
		"IPv4 in IPv6 with a zero": "[::01.2.3.4]", "IPv6 text": "[::g]", "quote": "\"a\"", "angle": "<a>",
	} {
		f("Host: "+name, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n", 400, errHost)
	}

	// Field lines.
	get("line folded with a space", "A: b\r\n c\r\n", 400, errFold)
	get("line folded with a tab", "A: b\r\n\tc\r\n", 400, errFold)
	f("space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, errFold)
	get("space before the colon", "A : b\r\n", 400, errSpaceColon)
	get("tab before the colon", "Content-Length\t: 3\r\n", 400, errSpaceColon)
	get("space in a name", "A b: c\r\n", 400, errSpaceColon)
	get("empty name", ": b\r\n", 400, errFieldName)
	get("no colon", "A\r\n", 400, errNoColon)
	get("slash in a name", "A/b: c\r\n", 400, errFieldName)
	get("NUL in a name", "A\x00: b\r\n", 400, errFieldName)
	get("name above ASCII", "A\xc3\xa9: b\r\n", 400, errFieldName)
	get("parentheses in a name", "A(b): c\r\n", 400, errFieldName)
	get("CR in a name", "A\rb: c\r\n", 400, errBareCR)
	get("NUL in a value", "A: b\x00c\r\n", 400, errControl)
	get("escape in a value", "A: \x1b[0m\r\n", 400, errControl)
	get("DEL in a long value", "A: 0123456789abcdef\x7f\r\n", 400, errControl)
	get("bare CR in a value", "A: b\rc\r\n", 400, errBareCR)
	get("CR before CRLF", "A: b\r\r\n", 400, errBareCR)
	get("field ends with LF", "A: b\nC: d\r\n", 400, errBareLF)
	get("hidden field behind LF", "A: b\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400, errBareLF)
	f("head ends with LF", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400, errBareLF)
	f("all lines end with LF", "GET / HTTP/1.1\nHost: a\n\n", 400, errBareLF)
	f("empty line is CR alone", "GET / HTTP/1.1\r\nHost: a\r\n\rA: b\r\n\r\n", 400, errBareCR)

	// Framing.
	both := "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"
	get("length and chunked", both, 400, errLengthAndTE)
	get("chunked and length", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400, errLengthAndTE)
	get("both, the one nominated", both+"Connection: content-length\r\n", 400, errLengthAndTE)
	get("length 0 and chunked", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400, errLengthAndTE)
	get("bad length and chunked", "Content-Length: x\r\nTransfer-Encoding: chunked\r\n", 400, errLengthAndTE)
	get("two lengths", "Content-Length: 3\r\nContent-Length: 4\r\n", 400, errLengths)
	get("the same length twice", "Content-Length: 3\r\nContent-Length: 3\r\n", 400, errLengths)
	for _, v := range []string{
		"3, 3", "3, 4", "3,", "+4", "-4", "", "0x4", "4a", "4 4", "4;", "\"4\"", "4.0", "1e1", "\xef\xbc\x94",
		"9223372036854775808", "18446744073709551620", "99999999999999999999",
	} {
		get("Content-Length: "+v, "Content-Length: "+v+"\r\n", 400, errLength)
	}
	for _, v := range []string{
		"", "identity", "gzip", "xchunked", "chunked, identity", "chunked, chunked", "chunked,", ", chunked", ",chunked",
		"chunked;q=1", "\"chunked\"", "chunked\tgzip", "chun ked", "gzip chunked", "chunkedx",
	} {
		get("Transfer-Encoding: "+v, "Transfer-Encoding: "+v+"\r\n", 400, errTE)
	}
	get("gzip before chunked", "Transfer-Encoding: gzip, chunked\r\n", 501, errTEUnknown)
	get("unknown coding before chunked", "Transfer-Encoding: foo;a=b , Chunked\r\n", 501, errTEUnknown)
	get("vertical tab before chunked", "Transfer-Encoding: \x0bchunked\r\n", 400, errControl)
	get("two Transfer-Encodings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400, errTE)
	get("identity and chunked in two fields", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", 400, errTE)
	f("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400, errTEVersion)
	f("both in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\n"+both+"\r\n", 400, errTEVersion)
	get("another expectation", "Expect: 200-ok\r\nContent-Length: 3\r\n", 417, errExpect)
	get("two expectations", "Expect: 100-continue, foo\r\n", 417, errExpect)
	get("empty expectation", "Expect:\r\n", 417, errExpect)
	get("connection option is no token", "Connection: a b\r\n", 400, errConnection)
	get("too many connection options", "Connection: "+strings.Repeat("a,", connectionOptions+1)+"\r\n", 400, errConnection)
	get("upgrade is no token", "Connection: upgrade\r\nUpgrade: web socket\r\n", 400, errUpgrade)
	get("upgrade version is no token", "Connection: upgrade\r\nUpgrade: foo/\r\n", 400, errUpgrade)
}

func TestRequestLimits(t *testing.T) {
	lim := &Limits{Head: 260, Fields: 4, Field: 100, Line: 50}
	f := func(name, raw string, want *Error) {
		t.Helper()
		var r message.Request
		err := readHead(&r, raw, lim)
		if want == nil && err != nil || want != nil && err != error(want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	pad := strings.Repeat("x", 100)
	// "GET /" + " HTTP/1.1\r\n" are 16 bytes, "A: \r\n" 5.
	f("line at the limit", "GET /"+pad[:34]+" HTTP/1.1\r\nHost: a\r\n\r\n", nil)
	f("line over the limit", "GET /"+pad[:35]+" HTTP/1.1\r\nHost: a\r\n\r\n", errLineTooLong)
	f("line over the limit, not complete", "GET /"+pad[:46], errLineTooLong)
	f("method over the limit", strings.ToUpper(pad), errLineTooLong)
	f("field at the limit", "GET / HTTP/1.1\r\nHost: a\r\nA: "+pad[:95]+"\r\n\r\n", nil)
	f("field over the limit", "GET / HTTP/1.1\r\nHost: a\r\nA: "+pad[:96]+"\r\n\r\n", errFieldTooLarge)
	f("field over the limit, not complete", "GET / HTTP/1.1\r\nHost: a\r\nA: "+pad[:98], errFieldTooLarge)
	f("fields at the limit", "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nA: 1\r\nA: 1\r\n\r\n", nil)
	f("fields over the limit", "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\n\r\n", errTooManyFields)
	start := "GET / HTTP/1.1\r\nHost: a\r\nA: " + pad[:80] + "\r\nA: " + pad[:80] + "\r\nA: "
	f("head at the limit", start+pad[:260-len(start)-4]+"\r\n\r\n", nil)
	f("head over the limit", start+pad[:261-len(start)-4]+"\r\n\r\n", errHeadTooLarge)
	f("head over the limit, not complete", start+pad[:261-len(start)], errHeadTooLarge)

	// ReadRequest holds to the limits by itself.
	var r message.Request
	for _, want := range []*Error{errLineTooLong, errFieldTooLarge, errHeadTooLarge} {
		raw := "GET /" + strings.Repeat("x", 60) + " HTTP/1.1\r\nHost: a\r\n\r\n"
		switch want {
		case errFieldTooLarge:
			raw = "GET / HTTP/1.1\r\nHost: a\r\nA: " + pad + "\r\n\r\n"
		case errHeadTooLarge:
			raw = "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 60) + "\r\n"
		}
		if err := ReadRequest(&r, []byte(raw), lim); err != error(want) {
			t.Errorf("ReadRequest: %v, want %v", err, want)
		}
	}
	for raw, want := range map[string]error{
		"GET / HTTP/1.1\r\nHost: a\r\nx_a: b\r\n\r\n":      errUnderscore,
		"GET / HTTP/1.1\r\nHost: a\r\nx-a: b_c\r\n\r\n":    nil,
		"GET /a_b HTTP/1.1\r\nHost: a_b\r\nx-a: b\r\n\r\n": nil,
	} {
		if err := ReadRequest(&r, []byte(raw), &Limits{NoUnderscore: true}); err != want {
			t.Errorf("%q without underscores: %v, want %v", raw, err, want)
		}
	}
	if got := (&Limits{Fields: 3}).OrDefault(); got.Fields != 3 || got.Head != 60<<10 || got.Field != 8<<10 || got.Line != 8<<10 {
		t.Errorf("zero fields are not the defaults: %+v", got)
	}
}

// TestRequestFacts looks at what a request says besides the bytes that are written.
func TestRequestFacts(t *testing.T) {
	read := func(raw string) *message.Request {
		t.Helper()
		var r message.Request
		if err := readHead(&r, raw, nil); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		return &r
	}
	r := read("POST http://a:9080/b/c?d=e HTTP/1.1\r\nHost: A:9080\r\nTE: trailers\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
	if string(r.Method()) != "POST" || string(r.Scheme()) != "http" || string(r.Authority()) != "a:9080" || string(r.Path()) != "/b/c" ||
		string(r.Query()) != "?d=e" || r.Version != message.HTTP11 || r.BodyLength != message.UnknownLength || !r.Absolute || !r.Trailers ||
		!r.ExpectContinue || r.Close || r.Len() != 0 {
		t.Errorf("%+v", r)
	}
	if got, want := string(AppendRequest(nil, r, RequestOptions{Absolute: true, Close: true})), "POST http://a:9080/b/c?d=e HTTP/1.1\r\nHost: a:9080\r\n"+
		"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n"; got != want {
		t.Errorf("absolute: %q, want %q", got, want)
	}
	r = read("OPTIONS * HTTP/1.1\r\nHost: a\r\nProxy-Authorization: b\r\n\r\n")
	if got, want := string(AppendRequest(nil, r, RequestOptions{Absolute: true})), "OPTIONS http://a HTTP/1.1\r\nHost: a\r\nProxy-Authorization: b\r\n\r\n"; got != want {
		t.Errorf("absolute OPTIONS *: %q, want %q", got, want)
	}
	r = read("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	if !r.Upgrade || string(r.UpgradeTo()) != "websocket" || r.Close {
		t.Errorf("upgrade: %+v", r)
	}
	for raw, closes := range map[string]bool{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                                       false,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":                  true,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Foo, Close\r\n\r\n":             true,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n":      true,
		"GET / HTTP/1.0\r\nHost: a\r\n\r\n":                                       true,
		"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n":             false,
		"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive, close\r\n\r\n":      true,
		"GET / HTTP/1.0\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n":       true,
		"GET http://a/ HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n":     true,
		"GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n":            false,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: a\r\nConnection: close\r\n\r\n": true,
	} {
		if r := read(raw); r.Close != closes {
			t.Errorf("%q: Close is %v", raw, r.Close)
		}
	}
	// A refused head leaves nothing that a later one could inherit.
	if err := readHead(r, "GET http://evil/ HTTP/1.0\r\nHost: b\r\nTE: trailers\r\n\r\n", nil); err == nil {
		t.Fatal("accepted")
	}
	if err := readHead(r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", nil); err != nil {
		t.Fatal(err)
	}
	if r.Absolute || r.Trailers || r.Upgrade || len(r.Scheme()) != 0 || string(r.Authority()) != "a" {
		t.Errorf("left over: %+v", r)
	}
}
