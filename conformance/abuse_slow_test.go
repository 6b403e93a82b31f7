package conformance

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrider-mesh/outrider/proxy"
)

// impatient ends what clients hold up within a test's patience.
var impatient = proxy.Limits{StreamIdle: 1500 * time.Millisecond}

// A body that does not go on is not waited for without end: 408, and a close.
func TestSlowBody(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{limits: impatient})
	f := func(name, begin string) {
		t.Run(name, func(t *testing.T) {
			before := m.abuse(t, "slow_body")
			m.siege(t, gateway, "slow_body", 32, func() {
				var all []*client
				for range 20 {
					c := dial(t, m.Address(gateway))
					c.send(begin)
					all = append(all, c)
				}
				for _, c := range all {
					if a, err := c.read("POST"); err != nil || a.status != 408 {
						t.Errorf("got %d, %v", a.status, err)
					}
					if _, err := c.read("POST"); err == nil || err.Error() != "close" {
						t.Errorf("stays open: %v", err)
					}
				}
			})
			eventually(t, "twenty slow bodies are counted", func() bool { return m.abuse(t, "slow_body")-before == 20 })
		})
	}
	const head = "POST / HTTP/1.1\r\nHost: app\r\n"
	f("none of it", head+"Content-Length: 100\r\n\r\n")
	f("a part", head+"Content-Length: 100\r\n\r\nhalf")
	f("no last chunk", head+"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
	f("half a line", head+"Transfer-Encoding: chunked\r\n\r\n4")
}

// The same on a stream, whose connection goes on.
func TestSlowBody2(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{limits: impatient})
	m.siege(t, gateway, "slow_body", 32, func() {
		c := dial2(t, m.Address(gateway))
		var all []uint32
		for range 20 {
			all = append(all, c.open(false, request2("POST", "/")...))
			c.frame(http2.FrameData, 0, all[len(all)-1], 'h', 'a', 'l', 'f')
		}
		for _, id := range all {
			if got := c.await(id); got != "408" {
				t.Errorf("got %q", got)
			}
		}
		if got := c.await(c.get("/")); got != "200" {
			t.Errorf("then %q", got)
		}
	})
	eventually(t, "twenty slow bodies are counted", func() bool { return m.abuse(t, "slow_body") == 20 })
}

// A client that does not read its answer is let go of: what it has must not pass for a whole one.
func TestSlowRead(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{limits: impatient})
	m.siege(t, inbound, "slow_read", 48, func() {
		var all []*client
		for range 8 {
			c := dial(t, m.Address(inbound))
			c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
			all = append(all, c)
		}
		eventually(t, "eight ends", func() bool { return m.abuse(t, "slow_read") == 8 })
		for _, c := range all {
			if _, err := io.Copy(io.Discard, c); err == nil {
				t.Error("it ends like a whole answer")
			}
		}
	})
}

// A stream whose window is not opened is reset, and its connection goes on.
func TestSlowReadOfAStream(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{limits: impatient})
	m.siege(t, gateway, "slow_read", 48, func() {
		c := dial2(t, m.Address(gateway), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		c.quiet = true
		var all []uint32
		for range 10 {
			all = append(all, c.get("/"))
		}
		for _, id := range all {
			if got := c.await(id); got != "200 reset INTERNAL_ERROR" {
				t.Errorf("got %q", got)
			}
		}
		id := c.get(aside)
		if err := c.fr.WriteWindowUpdate(id, 100); err != nil {
			t.Fatal(err)
		}
		if got := c.await(id); got != "200" {
			t.Errorf("then %q", got)
		}
	})
	eventually(t, "ten slow readers are counted", func() bool { return m.abuse(t, "slow_read") == 10 })
}

// A client that opens all windows and does not read its socket is cut off, with all its streams at once.
func TestSlowReadOfASocket(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{limits: impatient})
	m.siege(t, gateway, "slow_read", 64, func() {
		c := dial2(t, m.Address(gateway), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		_ = c.fr.WriteWindowUpdate(0, 1<<30)
		for range 20 {
			c.get("/")
		}
		eventually(t, "its end", func() bool { return m.abuse(t, "slow_read") > 0 })
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("it stays open")
		}
	})
	if n := m.abuse(t, "slow_read"); n != 1 {
		t.Errorf("counted %v", n)
	}
}
