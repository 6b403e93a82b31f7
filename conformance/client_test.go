package conformance

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long anything may take before a test gives up on it.
const patience = 30 * time.Second

// client is a raw connection that keeps what it got.
type client struct {
	t testing.TB
	net.Conn
	r   *bufio.Reader
	raw bytes.Buffer
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return over(t, nc)
}

// over makes a client of a connection.
func over(t testing.TB, nc net.Conn) *client {
	c := &client{t: t, Conn: nc}
	c.r = bufio.NewReader(io.TeeReader(nc, &c.raw))
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatalf("cannot send: %v", err)
	}
}

// response is one that was read.
type response struct {
	status     int
	head, body string
}

// How a connection ends, in the words of the tables.
var (
	errClose = errors.New("close") // between two responses
	errCut   = errors.New("cut")   // in the middle of one
	errHang  = errors.New("hang")  // nothing comes, and it stays open
)

// read reads one response to a request of that method; an error is one of the ways that a connection ends.
func (c *client) read(method string) (a response, err error) {
	before := c.raw.Len() - c.r.Buffered()
	defer func() {
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = errHang
		case a.head == "" && c.raw.Len()-c.r.Buffered() == before:
			err = errClose
		default:
			err = errCut
		}
	}()
	if a.head, err = readHead(c.r); err != nil {
		return a, err
	}
	if _, err = fmt.Sscanf(a.head, "HTTP/1.%d %d", new(int), &a.status); err != nil {
		return a, fmt.Errorf("not a response: %q", a.head)
	}
	switch {
	case method == "HEAD" || a.status < 200 || a.status == 204 || a.status == 304 || method == "CONNECT" && a.status/100 == 2:
	case strings.EqualFold(field(a.head, "transfer-encoding"), "chunked"):
		a.body, err = readChunked(c.r)
	case field(a.head, "content-length") != "":
		var n int64
		if n, err = strconv.ParseInt(field(a.head, "content-length"), 10, 64); err != nil {
			return a, err
		}
		var b bytes.Buffer
		_, err = io.CopyN(&b, c.r, n)
		a.body = b.String()
	default:
		var b []byte
		b, err = io.ReadAll(c.r)
		a.body = string(b)
	}
	return a, err
}

// must reads one response.
func (c *client) must(method string) response {
	c.t.Helper()
	a, err := c.read(method)
	if err != nil {
		c.t.Fatalf("no response but %v: %q", err, c.raw.String())
	}
	return a
}

// ended waits for the proxy to end the connection.
func (c *client) ended() {
	c.t.Helper()
	if a, err := c.read("GET"); !errors.Is(err, errClose) {
		c.t.Fatalf("got %+v (%v), want the end of the connection", a, err)
	}
}

var requestLine = regexp.MustCompile(`(?m)^([A-Z]+) \S+ HTTP/1\.[01]\r$`)

// play has the client do what the case says and returns what came of it, in the words of its answer, and the bytes that
// the client got. A connection that is to stay open is tried with a probe. wait says how long to wait at most.
func (s *scenario) play(t testing.TB, address string) (answer string, got []byte) {
	t.Helper()
	c := dial(t, address)
	defer c.Close()
	var methods []string
	for _, m := range requestLine.FindAllSubmatch(s.sent(), -1) {
		methods = append(methods, string(m[1]))
	}
	var did []string
	finals := 0
	read := func() (response, error) {
		method := "GET"
		if finals < len(methods) {
			method = methods[finals]
		}
		a, err := c.read(method)
		if err != nil {
			if a.status != 0 {
				did = append(did, strconv.Itoa(a.status))
			}
			did = append(did, err.Error())
			return a, err
		}
		did = append(did, strconv.Itoa(a.status))
		if a.status >= 200 {
			finals++
		}
		return a, nil
	}
	for _, st := range s.steps {
		switch {
		case st.end:
			_ = c.Conn.(*net.TCPConn).CloseWrite()
		case st.wait != 0:
			for {
				a, err := read()
				if err != nil {
					return strings.Join(did, " "), c.raw.Bytes()
				}
				if a.status == st.wait {
					break
				}
			}
		default:
			_, _ = c.Write(st.send) // the proxy may have closed already
		}
	}
	want := strings.Fields(strings.TrimSuffix(s.want, " fresh"))
	last := want[len(want)-1]
	ends := last == errClose.Error() || last == errCut.Error()
	for ends || len(did) < len(want) {
		if _, err := read(); err != nil {
			return strings.Join(did, " "), c.raw.Bytes()
		}
	}
	got = bytes.Clone(c.raw.Bytes())
	if last == "101" {
		return strings.Join(did, " "), got
	}
	c.send("GET " + probe + " HTTP/1.1\r\nHost: app\r\n\r\n")
	if a, err := c.read("GET"); err != nil || a.status != 200 || a.body != probe {
		did = append(did, fmt.Sprintf("and then %d %q %v", a.status, a.body, err))
	}
	return strings.Join(did, " "), got
}

// What a proxy adds by itself and differs from run to run, or from listener to listener.
var (
	addedToRequest  = regexp.MustCompile(`(?m)^(x-request-id: [0-9a-f-]{36}|x-forwarded-proto: http|x-forwarded-for: 127\.0\.0\.1|x-envoy-attempt-count: 1|sec-websocket-key: [A-Za-z0-9+/]{22}==)\r\n`)
	addedToResponse = regexp.MustCompile(`(?m)^(date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT|x-envoy-upstream-service-time: \d+|x-outrider-reason: \w+)\r\n`)
	probes          = regexp.MustCompile(`GET ` + probe + ` HTTP/1\.1\r\nHost: app\r\n\r\n`)
)

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatal("does not come: " + what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// logTo makes a logger that writes to b, or to nothing.
func logTo(b *bytes.Buffer) *slog.Logger {
	if b == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
