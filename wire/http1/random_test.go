package http1

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// Pieces of heads, good ones more often than bad ones, for tests that put many together.
var (
	someMethods  = []string{"GET", "GET", "POST", "HEAD", "OPTIONS", "CONNECT", "PUT", "get", "PRI", "G\x00T", ""}
	someTargets  = []string{"/", "/a/b?c=d", "/a", "*", "a:80", "http://a", "http://a:80/x?y", "https://A/", "http://b/", "/a#b", "/a b", "/\x7f", "//a", "?x", "/\xc3\xa9", ""}
	someVersions = []string{"HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", ""}
	someEnds     = []string{"\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\r\n ", "\r\n\t"}
	someSpaces   = []string{": ", ": ", ": ", ": ", ":", ":\t ", " : ", ":  ", ":\r\n "}
	someNames    = []string{
		"Host", "host", "Content-Length", "Content-Length", "content-length", "Transfer-Encoding", "transfer-encoding", "Connection", "Connection",
		"Upgrade", "TE", "Expect", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "X-A", "x-a", "Trailer", "Cookie", "Authorization",
		"HTTP2-Settings", "X-Forwarded-For", "Via", "Content Length", "Content_Length", "",
	}
	someValues = []string{
		"a", "a", "a:80", "b", "chunked", "chunked", "Chunked ", "gzip, chunked", "chunked, chunked", "identity", "0", "5", "5", "+5", "5, 5", "05", "close",
		"keep-alive", "upgrade", "Upgrade, x-a", "x-a, host, content-length", "websocket", "h2c", "h2c, a/1", "trailers", "100-continue", "200-ok", "", "\x00",
		"a\tb", "a, b", "\xc3\xa9", "Basic x",
	}
)

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

// someFields returns up to six field lines, mostly sane ones.
func someFields(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(7) {
		switch r.IntN(4) {
		case 0:
			b.WriteString(pick(r, someNames) + pick(r, someSpaces) + pick(r, someValues) + pick(r, someEnds))
		case 1:
			b.WriteString(pick(r, []string{"Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close, x-a\r\n", "X-A: 1\r\n", "Upgrade: websocket\r\n", "Connection: upgrade\r\n", "Expect: 100-continue\r\n"}))
		default:
			b.WriteString(pick(r, someNames) + ": " + pick(r, someValues) + "\r\n")
		}
	}
	return b.String()
}

// TestRandomRequests puts requests together from good and bad pieces: fuzzing by bytes alone seldom gets past the request line.
func TestRandomRequests(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 15_000 {
		raw := pick(r, someMethods) + " " + pick(r, someTargets) + " " + pick(r, someVersions) + "\r\n"
		if r.IntN(4) > 0 {
			raw += "Host: a\r\n"
		}
		raw += someFields(r) + "\r\nGET /next HTTP/1.1\r\n\r\n"
		if checkRequest(t, []byte(raw)) {
			accepted++
		}
	}
	if accepted < 300 {
		t.Errorf("%d accepted: the pieces are too bad to show anything", accepted)
	}
	t.Logf("%d accepted", accepted)
}

// TestRandomResponses does the same for responses.
func TestRandomResponses(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	lines := []string{"HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 101 S", "HTTP/1.1 100 ", "HTTP/1.1 404", "HTTP/1.1 426 U", "HTTP/1.1 407 P", "HTTP/1.1 20", "HTTP/1.1 200\x00"}
	accepted := 0
	for range 15_000 {
		raw := pick(r, lines) + "\r\n" + someFields(r) + "\r\nHTTP/1.1 200 OK\r\n\r\n"
		if checkResponse(t, []byte(raw), uint8(r.IntN(8))) {
			accepted++
		}
	}
	if accepted < 300 {
		t.Errorf("%d accepted: the pieces are too bad to show anything", accepted)
	}
	t.Logf("%d accepted", accepted)
}
