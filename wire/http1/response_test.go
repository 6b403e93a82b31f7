package http1

import (
	"errors"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

func readResponseHead(r *message.Response, raw, method string) error {
	n, err := ResponseHeadEnd([]byte(raw), 0, nil)
	if err != nil {
		return err
	}
	if n == 0 {
		return errIncomplete
	}
	return ReadResponse(r, []byte(raw[:n]), []byte(method), nil)
}

// TestForwardedResponses has responses that are accepted, and the exact bytes that a client gets.
func TestForwardedResponses(t *testing.T) {
	f := func(name, method, raw string, o ResponseOptions, want string) {
		t.Helper()
		var r message.Response
		if err := readResponseHead(&r, raw, method); err != nil {
			t.Errorf("%s: refused: %v", name, err)
			return
		}
		o.Head = method == "HEAD"
		if got := string(AppendResponse(nil, &r, o)); got != want {
			t.Errorf("%s: written\n%q, want\n%q", name, got, want)
		}
	}
	ok := func(name, fields, want string) {
		t.Helper()
		f(name, "GET", "HTTP/1.1 200 OK\r\n"+fields+"\r\n", ResponseOptions{}, "HTTP/1.1 200 OK\r\n"+want+"\r\n")
	}
	old, closing := ResponseOptions{Version: message.HTTP10}, ResponseOptions{Version: message.HTTP11, Close: true}

	ok("length", "A: b\r\nContent-Length: 5\r\nC: d\r\n", "A: b\r\nC: d\r\nContent-Length: 5\r\n")
	ok("empty", "Content-Length: 0\r\n", "Content-Length: 0\r\n")
	ok("chunked", "Transfer-Encoding: Chunked\r\nTrailer: A\r\n", "Trailer: A\r\nTransfer-Encoding: chunked\r\n")
	ok("until close", "A: b\r\n", "A: b\r\nTransfer-Encoding: chunked\r\n")
	ok("hop-by-hop fields", "Connection: keep-alive, x-a\r\nKeep-Alive: timeout=5\r\nX-A: b\r\nProxy-Connection: close\r\nContent-Length: 1\r\n", "Content-Length: 1\r\n")
	ok("nominated Set-Cookie stays", "Connection: set-cookie\r\nSet-Cookie: a=b\r\nContent-Length: 1\r\n", "Set-Cookie: a=b\r\nContent-Length: 1\r\n")
	ok("advertised Upgrade", "Upgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n", "Content-Length: 1\r\n")
	ok("Proxy-Authenticate in a 200", "Proxy-Authenticate: Basic\r\nContent-Length: 1\r\n", "Content-Length: 1\r\n")
	ok("upstream closes, client does not", "Connection: close\r\nContent-Length: 1\r\n", "Content-Length: 1\r\n")
	f("407", "GET", "HTTP/1.1 407 P\r\nProxy-Authenticate: Basic\r\nContent-Length: 1\r\n\r\n", ResponseOptions{},
		"HTTP/1.1 407 P\r\nProxy-Authenticate: Basic\r\nContent-Length: 1\r\n\r\n")
	f("no reason", "GET", "HTTP/1.1 404 \r\nContent-Length: 1\r\n\r\n", ResponseOptions{}, "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\n")
	f("no reason and no space", "GET", "HTTP/1.1 404\r\nContent-Length: 1\r\n\r\n", ResponseOptions{}, "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\n")
	f("odd reason", "GET", "HTTP/1.1 299 \xc3\xa9 \tx\r\nContent-Length: 1\r\n\r\n", ResponseOptions{}, "HTTP/1.1 299 \xc3\xa9 \tx\r\nContent-Length: 1\r\n\r\n")
	f("unknown status", "GET", "HTTP/1.1 999 No\r\nContent-Length: 1\r\n\r\n", ResponseOptions{}, "HTTP/1.1 999 No\r\nContent-Length: 1\r\n\r\n")
	f("unknown status without reason", "GET", "HTTP/1.1 599\r\nContent-Length: 1\r\n\r\n", ResponseOptions{}, "HTTP/1.1 599 \r\nContent-Length: 1\r\n\r\n")
	f("from HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", ResponseOptions{}, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
	f("HTTP/1.0 until close", "GET", "HTTP/1.0 200 OK\r\n\r\n", ResponseOptions{}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

	// Clients of several kinds.
	f("client is told to close", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", closing, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n")
	f("chunked, client is told to close", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", closing,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
	f("old client, length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", old, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n")
	f("old client, chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", old, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
	f("old client, HEAD", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", old, "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n")

	// Without a body.
	f("HEAD with a length", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ResponseOptions{}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
	f("HEAD without", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", ResponseOptions{}, "HTTP/1.1 200 OK\r\n\r\n")
	f("HEAD, chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ResponseOptions{}, "HTTP/1.1 200 OK\r\n\r\n")
	f("204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", ResponseOptions{}, "HTTP/1.1 204 No Content\r\n\r\n")
	f("204 with a length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", ResponseOptions{}, "HTTP/1.1 204 No Content\r\n\r\n")
	f("204 chunked", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", ResponseOptions{}, "HTTP/1.1 204 No Content\r\n\r\n")
	f("304", "GET", "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n", ResponseOptions{}, "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n")
	f("304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ResponseOptions{}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
	f("304 to HEAD with a length", "HEAD", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ResponseOptions{}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
	f("100", "POST", "HTTP/1.1 100 Continue\r\n\r\n", ResponseOptions{}, "HTTP/1.1 100 Continue\r\n\r\n")
	f("103", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", closing, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
	f("unknown 1xx", "GET", "HTTP/1.1 142 \r\n\r\n", ResponseOptions{}, "HTTP/1.1 142 \r\n\r\n")
	f("101", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n", ResponseOptions{},
		"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	f("101 with an empty body declared", "GET", "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n", ResponseOptions{},
		"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	f("426", "GET", "HTTP/1.1 426 U\r\nUpgrade: foo/1, h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n", closing,
		"HTTP/1.1 426 U\r\nContent-Length: 0\r\nUpgrade: foo/1\r\nConnection: Upgrade, close\r\n\r\n")
	f("CONNECT 200", "CONNECT", "HTTP/1.1 200 OK\r\n\r\n", ResponseOptions{}, "HTTP/1.1 200 OK\r\n\r\n")
	f("CONNECT 200 with framing", "CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", ResponseOptions{}, "HTTP/1.1 200 OK\r\n\r\n")
	f("CONNECT 403", "CONNECT", "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n", ResponseOptions{}, "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n")
}

// TestRefusedResponses has responses that a client gets a 502 for.
func TestRefusedResponses(t *testing.T) {
	f := func(name, method, raw, reason string) {
		t.Helper()
		var r message.Response
		err := readResponseHead(&r, raw, method)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: accepted (%v)", name, err)
			return
		}
		if e.Status != 502 || e.Reason != reason {
			t.Errorf("%s: %d %s, want 502 %s", name, e.Status, e.Reason, reason)
		}
		if err := ReadResponse(&r, []byte(raw), []byte(method), nil); err == nil || err.(*Error).Status != 502 {
			t.Errorf("%s: ReadResponse says %v", name, err)
		}
	}
	ok := func(name, fields string, reason *Error) {
		t.Helper()
		f(name, "GET", "HTTP/1.1 200 OK\r\n"+fields+"\r\n", badGateway(reason).Reason)
	}
	line := func(name, line string, reason *Error) {
		t.Helper()
		f(name, "GET", line+"\r\nContent-Length: 0\r\n\r\n", reason.Reason)
	}

	line("HTTP/1.2", "HTTP/1.2 200 OK", errStatusVersion)
	line("HTTP/2.0", "HTTP/2.0 200 OK", errStatusLine)
	line("small http", "http/1.1 200 OK", errStatusLine)
	line("no space", "HTTP/1.1200 OK", errStatusLine)
	line("two spaces", "HTTP/1.1  200 OK", errStatusLine)
	line("two digits", "HTTP/1.1 20 OK", errStatusLine)
	line("two digits alone", "HTTP/1.1 20", errStatusLine)
	line("bad upgrade", "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: a b", badGateway(errUpgrade))
	line("four digits", "HTTP/1.1 2000 OK", errStatusLine)
	line("no digits", "HTTP/1.1 2x0 OK", errStatusLine)
	line("leading zero", "HTTP/1.1 099 OK", errStatusLine)
	line("tab behind the status", "HTTP/1.1 200\tOK", errStatusLine)
	line("empty line before", "\r\nHTTP/1.1 200 OK", errStatusLine)
	line("another protocol", "SSH-2.0-OpenSSH_9.6", errStatusLine)
	line("NUL in the reason", "HTTP/1.1 200 O\x00K", badGateway(errControl))
	line("CR in the reason", "HTTP/1.1 200 O\rK", badGateway(errBareCR))
	f("line ends with LF", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", badGateway(errBareLF).Reason)
	f("too short", "GET", "HTTP/1.1\r\n\r\n", badGateway(errIncomplete).Reason)

	ok("length and chunked", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", errLengthAndTE)
	ok("two lengths", "Content-Length: 1\r\nContent-Length: 1\r\n", errLengths)
	ok("list of lengths", "Content-Length: 1, 1\r\n", errLength)
	ok("signed length", "Content-Length: +1\r\n", errLength)
	ok("gzip before chunked", "Transfer-Encoding: gzip, chunked\r\n", errTEUnknown)
	ok("chunked not last", "Transfer-Encoding: chunked, gzip\r\n", errTE)
	ok("no chunked", "Transfer-Encoding: gzip\r\n", errTE)
	ok("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", errTE)
	f("chunked in HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", badGateway(errTEVersion).Reason)
	f("ambiguous answer to HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", badGateway(errLengthAndTE).Reason)
	f("ambiguous 204", "GET", "HTTP/1.1 204 N\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", badGateway(errLengths).Reason)
	ok("folded line", "A: b\r\n c\r\n", errFold)
	ok("space before the colon", "A : b\r\n", errSpaceColon)
	ok("bare LF", "A: b\nC: d\r\n", errBareLF)
	ok("bare CR", "A: b\rC: d\r\n", errBareCR)
	ok("NUL", "A: \x00\r\n", errControl)
	ok("bad connection option", "Connection: a b\r\n", errConnection)
	f("101 without Upgrade", "GET", "HTTP/1.1 101 S\r\nConnection: Upgrade\r\n\r\n", errSwitch.Reason)
	f("101 with Upgrade not nominated", "GET", "HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", errSwitch.Reason)
	f("101 to h2c", "GET", "HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", errSwitch.Reason)
	f("100 with a body", "POST", "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", errInterimBody.Reason)
	f("103 chunked", "POST", "HTTP/1.1 103 E\r\nTransfer-Encoding: chunked\r\n\r\n", errInterimBody.Reason)
}

func TestResponseLimits(t *testing.T) {
	lim := &Limits{Head: 260, Fields: 4, Field: 100, Line: 50}
	f := func(name, raw string, want *Error) {
		t.Helper()
		var r message.Response
		err := ReadResponse(&r, []byte(raw), []byte("GET"), lim)
		if want == nil && err != nil || want != nil && (err == nil || err.Error() != want.Reason || err.(*Error).Status != 502) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	pad := strings.Repeat("x", 100)
	f("line at the limit", "HTTP/1.1 200 "+pad[:35]+"\r\n\r\n", nil)
	f("line over the limit", "HTTP/1.1 200 "+pad[:36]+"\r\n\r\n", errStatusTooLong)
	f("field at the limit", "HTTP/1.1 200 OK\r\nA: "+pad[:95]+"\r\n\r\n", nil)
	f("field over the limit", "HTTP/1.1 200 OK\r\nA: "+pad[:96]+"\r\n\r\n", badGateway(errFieldTooLarge))
	f("fields at the limit", "HTTP/1.1 200 OK\r\n"+strings.Repeat("A: b\r\n", 4)+"\r\n", nil)
	f("fields over the limit", "HTTP/1.1 200 OK\r\n"+strings.Repeat("A: b\r\n", 5)+"\r\n", badGateway(errTooManyFields))
	f("head over the limit", "HTTP/1.1 200 OK\r\n"+strings.Repeat("A: "+pad[:90]+"\r\n", 3)+"\r\n", badGateway(errHeadTooLarge))
	f("empty line is CR alone", "HTTP/1.1 200 OK\r\n\rA: b\r\n\r\n", badGateway(errBareCR))
}

// TestResponseFacts looks at what a response says besides the bytes that are written.
func TestResponseFacts(t *testing.T) {
	f := func(method, raw string, length int64, headOnly, untilClose, closes bool) {
		t.Helper()
		var r message.Response
		if err := readResponseHead(&r, raw, method); err != nil {
			t.Errorf("%q: %v", raw, err)
			return
		}
		if r.BodyLength != length || r.HeadOnly != headOnly || r.UntilClose != untilClose || r.Close != closes {
			t.Errorf("%s %q: length %d, head only %v, until close %v, close %v", method, raw, r.BodyLength, r.HeadOnly, r.UntilClose, r.Close)
		}
	}
	const unknown = message.UnknownLength
	f("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 5, false, false, false)
	f("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", 5, false, false, true)
	f("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", unknown, false, false, false)
	f("GET", "HTTP/1.1 200 OK\r\n\r\n", unknown, false, true, true)
	f("GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", 5, false, false, true)
	f("GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", 5, false, false, false)
	f("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0, true, false, false)
	f("HEAD", "HTTP/1.1 200 OK\r\n\r\n", 0, true, false, false)
	f("GET", "HTTP/1.1 204 N\r\n\r\n", 0, true, false, false)
	f("GET", "HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n", 0, true, false, false)
	f("GET", "HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", 0, true, false, true) // the body may follow after all
	f("GET", "HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n", 0, true, false, true)
	f("GET", "HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n", 0, true, false, false)
	f("GET", "HTTP/1.1 100 C\r\n\r\n", 0, true, false, false)
	f("CONNECT", "HTTP/1.1 200 OK\r\n\r\n", 0, true, false, false)
	f("CONNECT", "HTTP/1.1 502 No\r\n\r\n", unknown, false, true, true)
	f("GET", "HTTP/1.1 205 R\r\nContent-Length: 0\r\n\r\n", 0, false, false, false)
}

// TestLocalResponses writes responses that no server sent.
func TestLocalResponses(t *testing.T) {
	f := func(status int, length int64, o ResponseOptions, want string, chunked, closes bool) {
		t.Helper()
		r := message.Response{Status: status, BodyLength: length}
		r.Add("a", "b")
		if got := string(AppendResponse(nil, &r, o)); got != want {
			t.Errorf("%d, %d, %+v: written\n%q, want\n%q", status, length, o, got, want)
		}
		if c := Chunked(&r, o); c != chunked {
			t.Errorf("%d, %d, %+v: Chunked is %v", status, length, o, c)
		}
		if c := Closes(&r, o); c != closes {
			t.Errorf("%d, %d, %+v: Closes is %v", status, length, o, c)
		}
	}
	const unknown = message.UnknownLength
	old := ResponseOptions{Version: message.HTTP10}
	f(503, 3, ResponseOptions{}, "HTTP/1.1 503 Service Unavailable\r\na: b\r\nContent-Length: 3\r\n\r\n", false, false)
	f(503, 3, ResponseOptions{Head: true}, "HTTP/1.1 503 Service Unavailable\r\na: b\r\nContent-Length: 3\r\n\r\n", false, false)
	f(503, 3, ResponseOptions{Close: true}, "HTTP/1.1 503 Service Unavailable\r\na: b\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", false, true)
	f(200, unknown, ResponseOptions{}, "HTTP/1.1 200 OK\r\na: b\r\nTransfer-Encoding: chunked\r\n\r\n", true, false)
	f(200, unknown, ResponseOptions{Head: true}, "HTTP/1.1 200 OK\r\na: b\r\n\r\n", false, false)
	f(200, unknown, old, "HTTP/1.1 200 OK\r\na: b\r\nConnection: close\r\n\r\n", false, true)
	f(204, 0, old, "HTTP/1.1 204 No Content\r\na: b\r\nConnection: keep-alive\r\n\r\n", false, false)
	f(204, unknown, old, "HTTP/1.1 204 No Content\r\na: b\r\nConnection: keep-alive\r\n\r\n", false, false)
	f(304, 0, ResponseOptions{}, "HTTP/1.1 304 Not Modified\r\na: b\r\n\r\n", false, false)
	f(100, 0, ResponseOptions{Close: true}, "HTTP/1.1 100 Continue\r\na: b\r\n\r\n", false, false)
	if got := StatusText(99) + StatusText(600) + StatusText(-1); got != "" {
		t.Errorf("text of no status: %q", got)
	}
}
