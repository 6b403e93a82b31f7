package conformance

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// probe is the path of a request that the harness adds to see whether a connection still works.
const probe = "/probe"

// aside is the path of those who ask for something while somebody else attacks.
const aside = "/bystander"

// backend is an HTTP/1.1 application that keeps every byte that reaches it, but for bystanders'.
type backend struct {
	socket net.Listener
	wg     sync.WaitGroup
	mu     sync.Mutex
	taken  []*taken
	all    []net.Conn
	answer *answer // to the first request that is not a probe; nil answers as any other
	serve  func(c net.Conn, k *taken)
	size   int              // of ordinary answers, at least; they are padded with spaces
	pour   func(c net.Conn) // answers, until the connection ends, what neither a probe nor a bystander asks for; may be nil
}

// taken is what came on one connection.
type taken struct {
	mu       sync.Mutex
	raw      []byte
	kept     int      // of raw, with the last whole request
	messages []string // the request lines of what was there as a whole, but for probes and bystanders
	probed   bool
}

func (k *taken) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.raw = append(k.raw, p...)
	return len(p), nil
}

func newBackend(t testing.TB) *backend {
	t.Helper()
	b := &backend{}
	b.serve = b.serve1
	return b.start(t)
}

// start accepts connections.
func (b *backend) start(t testing.TB) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.socket = l
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			k := &taken{}
			b.mu.Lock()
			b.taken, b.all = append(b.taken, k), append(b.all, c)
			b.mu.Unlock()
			b.wg.Go(func() {
				defer c.Close()
				b.serve(c, k)
			})
		}
	})
	t.Cleanup(b.close)
	return b
}

func (b *backend) address() string { return b.socket.Addr().String() }

// close ends all connections and waits for what was served.
func (b *backend) close() {
	_ = b.socket.Close()
	b.mu.Lock()
	for _, c := range b.all {
		_ = c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

// whole notes a request that was there as a whole.
func (k *taken) whole(line, path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch path {
	case aside: // a siege measures memory: what its bystander asks thousands of times is not kept
		k.raw = k.raw[:k.kept]
		return
	case probe:
		k.probed = true
	default:
		k.messages = append(k.messages, line)
	}
	k.kept = len(k.raw)
}

// script sets what the next request is answered with.
func (b *backend) script(s *scenario) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = s.answer
}

// connections says how many there were.
func (b *backend) connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.taken)
}

// since returns what came on the connections from number n on: all bytes, and the request lines of whole messages.
func (b *backend) since(n int) (raw []byte, messages []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.taken[n:] {
		k.mu.Lock()
		raw = append(raw, k.raw...)
		messages = append(messages, k.messages...)
		k.mu.Unlock()
	}
	return raw, messages
}

// probed says whether a probe has come.
func (b *backend) probed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.taken, func(k *taken) bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.probed
	})
}

// special returns the answer that the case has for a request for path, once.
func (b *backend) special(path string) (a *answer) {
	if path == probe {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a, b.answer = b.answer, nil
	return a
}

// serve1 answers what comes on a connection of HTTP/1.1.
func (b *backend) serve1(c net.Conn, k *taken) {
	r := bufio.NewReader(io.TeeReader(c, k))
	for {
		head, err := readHead(r)
		if err != nil {
			return
		}
		line, _, _ := strings.Cut(head, "\r\n")
		path := strings.Fields(line + " - -")[1]
		if b.pour != nil && path != probe && path != aside {
			b.pour(c)
			return
		}
		special := b.special(path)
		if special != nil {
			_, _ = c.Write(special.early)
			if special.closes {
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(k, r)
				return
			}
		}
		if !skipBody(r, head) {
			return
		}
		k.whole(line, path)
		if special != nil {
			_, _ = c.Write(special.late)
			continue
		}
		if _, err := c.Write(ok(line, b.body(path))); err != nil {
			return
		}
	}
}

// body is that of an ordinary answer.
func (b *backend) body(path string) string { return fmt.Sprintf("%-*s", b.size, path) }

// ok is what a request is answered with unless the case says something else.
func ok(line, body string) []byte {
	n := len(body)
	if strings.HasPrefix(line, "HEAD ") {
		body = ""
	}
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", n, body)
}

// readHead reads up to and including the empty line.
func readHead(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), err
		}
		if line == "\r\n" || line == "\n" {
			return b.String(), nil
		}
	}
}

// field returns the value of a head's first field of that name.
func field(head, name string) string {
	for line := range strings.SplitSeq(head, "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(k), name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// skipBody reads the body that follows a request's head, and says whether all of it came.
func skipBody(r *bufio.Reader, head string) bool {
	if strings.Contains(strings.ToLower(field(head, "transfer-encoding")), "chunked") {
		_, err := readChunked(r)
		return err == nil
	}
	n, _ := strconv.ParseInt(field(head, "content-length"), 10, 64)
	_, err := io.CopyN(io.Discard, r, n)
	return err == nil
}

// readChunked reads a chunked body with its trailers.
func readChunked(r *bufio.Reader) (string, error) {
	var b bytes.Buffer
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return b.String(), err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 64)
		if err != nil || n < 0 {
			return b.String(), fmt.Errorf("chunk size %q", line)
		}
		if n == 0 {
			_, err := readHead(r)
			return b.String(), err
		}
		if _, err := io.CopyN(&b, r, n); err != nil {
			return b.String(), err
		}
		if end, err := r.ReadString('\n'); err != nil || strings.TrimSpace(end) != "" {
			return b.String(), fmt.Errorf("chunk ends with %q: %w", end, err)
		}
	}
}
