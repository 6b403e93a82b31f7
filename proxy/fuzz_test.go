package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/http2"
)

// strict is an application that checks what it is given as only a proxy that let something through would fail: each head
// has one Host and one framing, and its body ends where that says. It answers every request with 200.
func strict(unsound *atomic.Pointer[string]) func(c net.Conn, r *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			lower := strings.ToLower(head)
			lengths, chunked := strings.Count(lower, "\r\ncontent-length:"), strings.Count(lower, "\r\ntransfer-encoding:")
			if strings.Count(lower, "\r\nhost:") != 1 || lengths+chunked > 1 || strings.Contains(strings.TrimSuffix(head, "\r\n\r\n"), "\n\n") {
				unsound.Store(&head)
				return
			}
			if chunked > 0 {
				if _, _, err := readChunked(r); err != nil {
					return
				}
			} else if _, err := io.CopyN(io.Discard, r, contentLength(head)); err != nil {
				return
			}
			answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
			if strings.HasPrefix(head, "HEAD ") {
				answer = strings.TrimSuffix(answer, "ok")
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

// FuzzClient sends any bytes to a live proxy, in two pieces: it must not panic, must send the application only what is sound,
// and once the client has ended its side, must end the connection, with nothing but whole responses on it.
func FuzzClient(f *testing.F) {
	var unsound atomic.Pointer[string]
	o := newOrigin(f, strict(&unsound))
	s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Tables[0].Unmatched = nil }, o.address())
	p := start(f, s, Limits{HeadTimeout: time.Second})
	for _, seed := range []string{
		get("/"),
		get("/a") + get("/b") + "garbage",
		"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nbody" + get("/"),
		"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\n\r\n" + get("/"),
		"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx",
		"CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n" + get("/inside"),
		"HEAD http://app/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
		"\x16\x03\x01\x02\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		f.Add([]byte(seed), len(seed)/2)
	}
	f.Fuzz(func(t *testing.T, input []byte, cut int) {
		c := dial(t, p, "outbound")
		if cut = min(max(cut, 0), len(input)); cut > 0 {
			_, _ = c.Write(input[:cut])
		}
		_, _ = c.Write(input[cut:])
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		b, err := io.ReadAll(c.r)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the connection does not end; so far %q", b)
		}
		if err == nil && !bytes.HasPrefix(input, []byte(http2.Preface)) {
			sound(t, b)
		}
		_ = c.Close()
		if head := unsound.Swap(nil); head != nil {
			t.Fatalf("the application got %q", *head)
		}
	})
}

// sound checks that b is a run of whole responses to requests of any method.
func sound(t *testing.T, b []byte) {
	t.Helper()
	rest := string(b)
	for rest != "" {
		head, after, ok := strings.Cut(rest, "\r\n\r\n")
		status := 0
		if n, err := fmt.Sscanf(head, "HTTP/1.1 %d ", &status); n != 1 || err != nil || !ok {
			t.Fatalf("not a response: %q", rest)
		}
		n := int(contentLength(head + "\r\n\r\n"))
		if strings.HasPrefix(after, "HTTP/1.1 ") || after == "" {
			n = 0 // to HEAD
		}
		if len(after) < n {
			t.Fatalf("half a response, and an orderly end: %q", rest)
		}
		rest = after[n:]
	}
}
