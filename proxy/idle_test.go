package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// short is a limit that is over soon, quiet a time in which it would act.
const short, quiet = 1200 * time.Millisecond, 2500 * time.Millisecond

// pieces is a body that comes piece by piece, with a wait before each.
func pieces(wait time.Duration, all ...string) io.Reader {
	r, w := io.Pipe()
	go func() { // ends with the body
		for _, p := range all {
			time.Sleep(wait)
			_, _ = io.WriteString(w, p)
		}
		_ = w.Close()
	}()
	return r
}

// slowly is a body that takes longer than short in all, and never nearly as long without a byte.
const slowly = "a body in so many pieces"

// Who is quiet because there is nothing to say is not ended, whoever it is; neither is who is slow.
func TestQuietIsNotSlow(t *testing.T) {
	t.Parallel()
	one := []byte{0, 0, 0, 0, 1, 'x'} // a gRPC message
	address := goServer(t, func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		switch r.URL.Path {
		case "/poll":
			_, _ = io.Copy(io.Discard, r.Body)
			time.Sleep(quiet)
		case "/events":
			_, _ = io.WriteString(w, "one")
			_ = c.Flush()
			time.Sleep(quiet)
			_, _ = io.WriteString(w, "two")
			return
		case "/answers-first":
			_ = c.EnableFullDuplex()
			_ = c.Flush()
		case "/thinks":
			time.Sleep(quiet)
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	})
	for _, server := range []model.Protocol{model.HTTP, model.HTTP2} {
		p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Protocol = server }, address), Limits{StreamIdle: short})
		f := func(name string, version int, path string, body io.Reader, edit func(r *http.Request), want string) {
			t.Run(name+" before "+string(server), func(t *testing.T) {
				t.Parallel()
				r := request("POST", "http://app"+path, body)
				if edit != nil {
					edit(r)
				}
				res, got := fetch(t, goClient(t, p, version), r)
				if res.StatusCode != 200 || got != want {
					t.Errorf("got %d %q", res.StatusCode, got)
				}
			})
		}
		grpc := func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc") }
		f("a long poll 1", 1, "/poll", strings.NewReader("body"), nil, "")
		f("a long poll 2", 2, "/poll", strings.NewReader("body"), nil, "")
		f("events 1", 1, "/events", nil, nil, "onetwo")
		f("events 2", 2, "/events", nil, nil, "onetwo")
		f("a slow body 1", 1, "/", pieces(short/10, strings.Split(slowly, "")...), nil, slowly)
		f("a slow body 2", 2, "/", pieces(short/10, strings.Split(slowly, "")...), nil, slowly)
		f("a body behind the answer", 2, "/answers-first", pieces(quiet, "late"), nil, "late")
		f("a gRPC stream that nobody has spoken on", 2, "/", pieces(quiet, string(one)), grpc, string(one))
		f("a gRPC stream between messages", 2, "/", io.MultiReader(strings.NewReader(string(one)), pieces(quiet, string(one))), grpc, string(one)+string(one))
		t.Run("a body that waits to be asked for before "+string(server), func(t *testing.T) {
			t.Parallel()
			c := dial(t, p, "outbound")
			c.send("POST /thinks HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
			if a := c.read("POST"); a.status != 100 {
				t.Fatalf("got %+v", a)
			}
			c.send("body")
			if a := c.read("POST"); a.status != 200 || a.body != "body" {
				t.Errorf("got %+v", a)
			}
		})
		t.Run("half a gRPC message before "+string(server), func(t *testing.T) {
			t.Parallel()
			rest, end := io.Pipe()
			defer end.Close()
			r := request("POST", "http://app/", io.MultiReader(strings.NewReader(string(one[:5])), rest))
			grpc(r)
			if res, _ := fetch(t, goClient(t, p, 2), r); res.Header.Get("Grpc-Status") != "2" || res.Header.Get("X-Outrider-Reason") != "slow_body" {
				t.Errorf("got %v", res)
			}
		})
		t.Run("a body that was asked for before "+string(server), func(t *testing.T) {
			t.Parallel()
			c := dial(t, p, "outbound")
			c.send("POST / HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
			if a := c.read("POST"); a.status != 100 {
				t.Fatalf("got %+v", a)
			}
			if a := c.read("POST"); a.status != 408 || a.field("x-outrider-reason") != "slow_body" {
				t.Errorf("got %+v", a)
			}
		})
	}
}

// Tunnels are their ends' business.
func TestQuietTunnel(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		b, err := r.ReadByte()
		if err != nil {
			return
		}
		if b == 'G' {
			_, _ = readHead(r)
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		}
		// So much that some of it waits for the client to read.
		for range 64 {
			if _, err := c.Write(make([]byte, 256<<10)); err != nil {
				return
			}
		}
	})
	s := opaqueOf(o.address())
	f := func(name, listener, begin string, read bool) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, s, Limits{StreamIdle: short})
			c := dial(t, p, listener)
			c.send(begin)
			if read {
				_ = c.read("HEAD")
			}
			time.Sleep(quiet)
			if n, err := io.CopyN(io.Discard, c.r, 64*256<<10); err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	f("TCP", "db", "x", false)
	f("CONNECT", "outbound", "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\nx", true)
	f("an upgrade", "outbound", "GET / HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", true)
}

// A client that takes a little, now and then, is not stuck.
func TestStuck(t *testing.T) {
	l, peer := linked(t)
	var s stay
	const limit = 1000
	take := func() {
		t.Helper()
		before, _ := l.Acked()
		if _, err := l.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an acknowledgement", func() bool { n, ok := l.Acked(); return !ok || n > before })
	}
	f := func(mark uint32, at int64, want bool) {
		t.Helper()
		if got := s.stuck(mark, at, limit, l); got != want {
			t.Errorf("%d at %d: %v", mark, at, got)
		}
	}
	f(1, 100, false)
	f(1, 700, false)
	take()
	f(1, 1200, false)
	f(1, 1600, false)
	f(1, 1700, true)
	f(3, 1800, false) // another wait
	f(3, 2799, false)
	f(3, 2800, true)
	_ = peer
}
