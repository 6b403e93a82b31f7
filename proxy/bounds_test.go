package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// held returns the bytes of heap and stacks that are in use after a collection.
func held() int64 {
	runtime.GC()
	runtime.GC() // the first one only moves pools to their victim cache
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// peak watches the heap while f runs, and returns by how much it grew at most.
func peak(f func()) int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // garbage is not to count
	base := held()
	var top atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				top.Store(max(top.Load(), int64(m.HeapInuse+m.StackInuse)))
			}
		}
	}()
	f()
	close(stop)
	<-done
	return top.Load() - base
}

// discard reads a body away: n bytes, or chunks.
func discard(r *bufio.Reader, n int64, chunked bool) error {
	if !chunked {
		_, err := io.CopyN(io.Discard, r, n)
		return err
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if _, err := fmt.Sscanf(line, "%x", &n); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, r, n+2); err != nil || n == 0 {
			return err
		}
	}
}

// Bodies of any size pass through a fixed amount of memory, both ways, in either framing.
func TestLargeBodiesInFlatMemory(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() || raceEnabled {
		size = 64 << 20
	}
	block := make([]byte, 1<<20)
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			n := contentLength(head)
			chunked := strings.Contains(strings.ToLower(head), "transfer-encoding: chunked")
			if n > 0 || chunked {
				if err := discard(r, n, chunked); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				continue
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
			for range size >> 20 {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
		}
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	down := peak(func() {
		c.send(get("/"))
		if _, err := readHead(c.r); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, c.r, size); err != nil {
			t.Fatal(err)
		}
	})
	up := peak(func() {
		c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n", size))
		for range size >> 20 {
			if _, err := c.Write(block); err != nil {
				t.Fatal(err)
			}
		}
		if a := c.read("POST"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	})
	chunked := peak(func() {
		c.send("POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range size >> 20 {
			c.send("100000\r\n")
			if _, err := c.Write(block); err != nil {
				t.Fatal(err)
			}
			c.send("\r\n")
		}
		c.send("0\r\n\r\n")
		if a := c.read("POST"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	})
	t.Logf("%d MiB: the heap grew by %d KiB down, %d KiB up, %d KiB up in chunks", size>>20, down>>10, up>>10, chunked>>10)
	const limit = 8 << 20
	if max(down, up, chunked) > limit {
		t.Errorf("the heap grew by %d bytes down, %d up, %d up in chunks", down, up, chunked)
	}
}

// Clients that do not read, and applications that do not, hold a bounded amount of memory each.
func TestSlowReadersHoldLittle(t *testing.T) {
	const clients, size = 50, 8 << 20
	block := make([]byte, 1<<20)
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := readHead(r); err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		for range size >> 20 {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	before := held()
	var all []*client
	for range clients {
		c := dial(t, p, "outbound")
		c.send(get("/"))
		all = append(all, c)
	}
	eventually(t, "all requests", func() bool { return o.connections() == clients })
	for _, c := range all {
		if _, err := c.r.Peek(1); err != nil {
			t.Fatal(err)
		}
	}
	// What is still on its way into the sockets takes and gives back buffers: what counts is what rests.
	var per int64
	eventually(t, "at most 128 KiB for each client that does not read", func() bool {
		per = (held() - before) / clients
		return per <= 128<<10
	})
	t.Logf("%d KiB for each client that does not read (its own side and the application's included)", per>>10)
	for _, c := range all {
		_ = c.Close()
	}
	settled(t, p)
}

// An idle connection costs a goroutine and a little state, no buffer.
func TestIdleConnectionsHoldLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's shadow is not what is measured")
	}
	n := 2000
	if testing.Short() {
		n = 200
	}
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	warm := dial(t, p, "outbound")
	warm.send(get("/"))
	warm.read("GET")
	conns := make([]net.Conn, n)
	address := p.Address("outbound")
	buf := make([]byte, 4<<10)
	before := held()
	for i := range conns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Skipf("no more connections than %d: %v", i, err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, get("/")); err != nil { // used once, then idle
			t.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	eventually(t, "all connections", func() bool { return p.conns.count() == int64(n)+1 })
	var per int64
	eventually(t, "at most 10 KiB for each idle connection", func() bool {
		per = (held() - before) / int64(n)
		return per <= 10<<10
	})
	t.Logf("%d bytes for each of %d idle connections (the client's side in this process included)", per, n)
}

// Connections beyond the limit are closed at once, and room that comes back is used.
func TestConnectionLimit(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, o.address()), Limits{Connections: 3})
	serve := func(c *client) bool {
		_, err := io.WriteString(c, get("/"))
		if err != nil {
			return false
		}
		a, err := c.tryRead("GET")
		return err == nil && a.status == 200
	}
	var all []*client
	for i := range 3 {
		c := dial(t, p, "outbound")
		if !serve(c) {
			t.Fatalf("connection %d is refused", i)
		}
		all = append(all, c)
	}
	for range 5 {
		if c := dial(t, p, "outbound"); serve(c) {
			t.Fatal("a connection beyond the limit is served")
		}
	}
	if n := p.stats.refused.Load(); n != 5 {
		t.Errorf("%d connections counted as refused, want 5", n)
	}
	_ = all[1].Close()
	eventually(t, "room", func() bool { return serve(dial(t, p, "outbound")) })
}
