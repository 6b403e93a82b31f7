package e2e

import (
	"bufio"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// conversation is one connection of an application that speaks in lines.
type conversation struct {
	net.Conn
	in *bufio.Reader
}

// say writes text; a client that is gone is noticed by heard.
func (c *conversation) say(text string) { _, _ = io.WriteString(c, text) }

// heard is the next line, "" at the end.
func (c *conversation) heard() string {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return ""
	}
	return line
}

// listenTCP runs an application inside the test, which serves each connection with f, and returns where.
func listenTCP(t *testing.T, f func(*conversation)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() {
				defer c.Close()
				f(&conversation{c, bufio.NewReader(c)})
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// dialogue hears a line, says one, and so on; where says begins with "", the server speaks first. It ends by half-closing
// and returns all that was heard.
func dialogue(t *testing.T, address string, says ...string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	heard := ""
	for _, text := range says {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		line, err := in.ReadString('\n')
		heard += line
		if err != nil {
			t.Fatalf("after %q: %v", heard, err)
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(in)
	if err != nil {
		t.Fatalf("after %q: %v", heard, err)
	}
	return heard + string(rest)
}
