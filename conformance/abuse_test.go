package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/proxy"
)

// abuse returns how often a limit has acted, as outrider_abuse_total tells.
func (m *mesh) abuse(t testing.TB, limit string) float64 {
	return m.counter(t, "outrider_abuse_total", "limit", limit)
}

// counter returns the sum of a counter over the series that have that label.
func (m *mesh) counter(t testing.TB, name, label, value string) (sum float64) {
	t.Helper()
	families, err := m.metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, series := range f.GetMetric() {
			for _, l := range series.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					sum += series.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

// bystander is a client that asks one thing after the other while somebody else attacks.
type bystander struct {
	served, failed atomic.Int64
	why            atomic.Value
	stop           chan struct{}
	done           sync.WaitGroup
}

func (m *mesh) bystander(t testing.TB, at string) *bystander {
	b := &bystander{stop: make(chan struct{})}
	b.done.Go(func() {
		nc, err := net.Dial("tcp", m.Address(at))
		if err != nil {
			b.failed.Add(1)
			b.why.Store(err.Error())
			return
		}
		defer nc.Close()
		c := over(t, nc)
		for {
			select {
			case <-b.stop:
				return
			default:
			}
			_ = nc.SetDeadline(time.Now().Add(patience))
			_, err := io.WriteString(nc, "GET "+aside+" HTTP/1.1\r\nHost: app\r\n\r\n")
			a, err2 := c.read("GET")
			if err != nil || err2 != nil || a.status != 200 || a.body != aside {
				b.failed.Add(1)
				b.why.Store(fmt.Sprint(err, err2, a))
				return
			}
			b.served.Add(1)
			c.raw.Reset()
		}
	})
	return b
}

// inUse is the memory of heap and stacks in use after a collection.
func inUse() int64 {
	runtime.GC()
	runtime.GC() // the first one only moves pools to their victim cache
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapInuse + s.StackInuse)
}

// siege has the attack run while a bystander is served, and checks that the limit is counted ("" is for a limit that no
// counter has) and that memory grows by at most so many MiB meanwhile, the attacker's own included.
func (m *mesh) siege(t *testing.T, at, limit string, mebibytes int64, attack func()) {
	t.Helper()
	before := 0.0
	if limit != "" {
		before = m.abuse(t, limit)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // garbage is not to count
	base := inUse()
	b := m.bystander(t, at)
	var top int64
	watching := make(chan struct{})
	var watched sync.WaitGroup
	watched.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-watching:
				return
			case <-tick.C:
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				top = max(top, int64(s.HeapInuse+s.StackInuse))
			}
		}
	})
	eventually(t, "the bystander's first answer", func() bool { return b.served.Load() > 0 || b.failed.Load() > 0 })
	attack()
	n := b.served.Load()
	eventually(t, "the bystander's answer after the attack", func() bool { return b.served.Load() > n || b.failed.Load() > 0 })
	if limit != "" {
		eventually(t, "outrider_abuse_total of "+limit, func() bool { return m.abuse(t, limit) > before })
	}
	close(b.stop)
	b.done.Wait()
	close(watching)
	watched.Wait()
	if b.failed.Load() > 0 {
		t.Errorf("a bystander was not served: %v", b.why.Load())
	}
	if grown := (top - base) >> 20; grown > mebibytes {
		t.Errorf("memory grew by %d MiB", grown)
	}
}

// quick are limits that act within a test's patience.
var quick = proxy.Limits{HeadTimeout: time.Second}

// pour sends the same bytes again and again until the proxy takes no more, or most bytes are sent, and says how many were.
func pour(c net.Conn, block []byte, most int) (n int) {
	for n < most {
		k, err := c.Write(block)
		n += k
		if err != nil {
			break
		}
	}
	return n
}

// Slow heads end in time, however steadily their bytes drip: 408.
func TestSlowHead(t *testing.T) {
	b := newBackend(t)
	m := start(t, b.address(), setting{limits: quick})
	m.siege(t, gateway, "slow_head", 16, func() {
		var all sync.WaitGroup
		for range 50 {
			c := dial(t, m.Address(gateway))
			all.Go(func() {
				c.send("GET / HTTP/1.1\r\nHost: app\r\n")
				ended := make(chan struct{})
				all.Go(func() {
					tick := time.NewTicker(20 * time.Millisecond)
					defer tick.Stop()
					for {
						select {
						case <-ended:
							return
						case <-tick.C:
							_, _ = io.WriteString(c, "X")
						}
					}
				})
				defer close(ended)
				if a, err := c.read("GET"); err != nil || a.status != 408 {
					t.Errorf("got %d, %v", a.status, err)
				}
				if _, err := c.read("GET"); err == nil || err.Error() != "close" {
					t.Errorf("stays open: %v", err)
				}
			})
		}
		all.Wait()
	})
	eventually(t, "fifty slow heads are counted", func() bool { return m.abuse(t, "slow_head") == 50 })
}

// Who connects and says nothing is let go of in time.
func TestSilentClient(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{limits: quick})
	m.siege(t, gateway, "slow_handshake", 8, func() {
		for range 5 {
			c := dial(t, m.Address(gateway))
			defer c.ended()
		}
	})
}

// Heads beyond the limits are refused while they come, not when they are over.
func TestHeadFlood(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{})
	f := func(name, begin, block string, status int) {
		t.Run(name, func(t *testing.T) {
			m.siege(t, gateway, "head_size", 16, func() {
				c := dial(t, m.Address(gateway))
				c.send(begin)
				go pour(c, []byte(strings.Repeat(block, 1+4096/len(block))), 64<<20) // ends with the connection
				if a, err := c.read("GET"); err != nil || a.status != status {
					t.Errorf("got %d, %v", a.status, err)
				}
				_ = c.Close()
			})
		})
	}
	const line = "GET / HTTP/1.1\r\nHost: app\r\n"
	f("request line", "GET /", "a", 414)
	f("method", "A", "A", 414)
	f("field", line+"X: ", "a", 431)
	f("name", line+"X", "a", 431)
	f("fields", line, "X: y\r\n", 431)
	f("large fields", line, "X: "+strings.Repeat("y", 4000)+"\r\n", 431)
	f("cookies", line, "Cookie: a=b\r\n", 431)
}

// endlessBackend answers every request with begin and then block, for as long as anybody takes it; bystanders get what they ask for.
type endlessBackend struct {
	*backend
	started, poured atomic.Int64
}

// stall waits until n answers have begun and nobody takes more of them.
func (e *endlessBackend) stall(t *testing.T, n int64) {
	t.Helper()
	var last, calm int64
	eventually(t, "an application that is held back", func() bool {
		now := e.poured.Load()
		if calm++; now != last || e.started.Load() < n {
			calm = 0
		}
		last = now
		return calm > 50
	})
}

// counted is a connection whose sent bytes are counted.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func newEndless(t *testing.T, begin, block string) *endlessBackend {
	e := &endlessBackend{backend: &backend{}}
	block = strings.Repeat(block, 1+16384/len(block))
	e.pour = func(c net.Conn) {
		go io.Copy(io.Discard, c) //nolint:errcheck // ends with the connection
		_, _ = io.WriteString(c, begin)
		e.started.Add(1)
		pour(&counted{Conn: c, n: &e.poured}, []byte(block), 256<<20)
	}
	e.serve = e.serve1
	e.start(t)
	return e
}

// An application cannot send interim responses without end.
func TestInterimFlood(t *testing.T) {
	b := newEndless(t, "", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
	m := start(t, b.address(), setting{})
	m.siege(t, inbound, "interim", 16, func() {
		c := dial(t, m.Address(inbound))
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		n := 0
		for {
			a, err := c.read("GET")
			if err == nil && a.status == 103 {
				n++
				continue
			}
			if err != nil || a.status != 502 {
				t.Errorf("after %d: %d, %v", n, a.status, err)
			}
			break
		}
		if n > 200 {
			t.Errorf("%d interim responses", n)
		}
	})
}

// An application's head has limits too: 502, whatever it goes on to send.
func TestResponseHeadFlood(t *testing.T) {
	f := func(name, begin, block, limit string) {
		t.Run(name, func(t *testing.T) {
			b := newEndless(t, begin, block)
			m := start(t, b.address(), setting{})
			m.siege(t, inbound, limit, 16, func() {
				c := dial(t, m.Address(inbound))
				c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
				if a := c.must("GET"); a.status != 502 {
					t.Errorf("got %d", a.status)
				}
			})
		})
	}
	f("fields", "HTTP/1.1 200 OK\r\n", "X: y\r\n", "head_size")
	f("field", "HTTP/1.1 200 OK\r\nX: ", "y", "head_size")
	f("status line", "HTTP/1.1 200 ", "y", "head_size")
	f("no HTTP", "", "y", "")
}

// A client that does not read its answer holds back its application, and no memory.
func TestSlowReadHoldsBack(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{})
	m.siege(t, inbound, "", 24, func() {
		for range 8 {
			c := dial(t, m.Address(inbound))
			defer c.Close()
			c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		}
		b.stall(t, 8)
	})
}

// Pipelined requests whose answers nobody reads wait in the client's socket, not in the proxy.
func TestPipelineFlood(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{})
	m.siege(t, inbound, "", 24, func() {
		c := dial(t, m.Address(inbound))
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		n := pour(c, []byte(strings.Repeat("GET / HTTP/1.1\r\nHost: app\r\n\r\n", 500)), 64<<20)
		if n >= 64<<20 {
			t.Error("the proxy has taken 64 MiB of requests that it does not answer")
		}
		_ = c.Close()
	})
}

// Empty lines before a request have an end.
func TestEmptyLineFlood(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{})
	m.siege(t, gateway, "", 8, func() {
		c := dial(t, m.Address(gateway))
		go pour(c, bytes.Repeat([]byte("\r\n"), 4096), 16<<20) // ends with the connection
		if a := c.must("GET"); a.status != 400 {
			t.Errorf("got %d", a.status)
		}
	})
}

// More connections than a listener may have are closed at once, and counted; those there are go on.
func TestConnectionFlood(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{limits: proxy.Limits{Connections: 20}})
	held := dial(t, m.Address(inbound))
	held.send("GET /a HTTP/1.1\r\nHost: app\r\n\r\n")
	held.must("GET")
	var open []*client
	for range 19 {
		c := dial(t, m.Address(inbound))
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		c.must("GET")
		open = append(open, c)
	}
	for range 50 {
		c := dial(t, m.Address(inbound))
		if _, err := c.read("GET"); err == nil {
			t.Error("one connection too many is served")
		}
	}
	held.send("GET /b HTTP/1.1\r\nHost: app\r\n\r\n")
	held.must("GET")
	_ = open[0].Close()
	eventually(t, "room for one more", func() bool {
		c := dial(t, m.Address(inbound))
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		_, err := c.read("GET")
		return err == nil
	})
}
