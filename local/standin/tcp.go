package standin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
)

// connections are those that a raw port has open, with the goroutines that serve them.
type connections struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[net.Conn]bool // nil once closed
}

// serve calls f on each connection that l accepts, in a goroutine of its own. Who called f closes nothing: release does.
func (c *connections) serve(l net.Listener, f func(net.Conn)) {
	c.open = map[net.Conn]bool{}
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // l is closed
			}
			if !c.add(conn) {
				return
			}
			c.wg.Go(func() { f(conn) })
		}
	})
}

func (c *connections) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		_ = conn.Close()
		return false
	}
	c.open[conn] = true
	return true
}

// forget takes conn off the list; it is the caller's to close.
func (c *connections) forget(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

// close closes every connection.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		_ = conn.Close()
	}
	c.open = nil
}

// serveEcho sends back what it receives, on every connection that l accepts.
func serveEcho(l net.Listener) (shut func(context.Context) error) {
	c := &connections{}
	c.serve(l, func(conn net.Conn) {
		echo(conn, conn)
		c.forget(conn)
		_ = conn.Close()
	})
	return func(ctx context.Context) error {
		err := l.Close()
		ended := make(chan struct{})
		go func() { // ends with the connections, at the latest below
			c.wg.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-ctx.Done():
		}
		c.close()
		<-ended
		return err
	}
}

// echo copies from r to conn until the peer has said all, and tells it so.
func echo(conn net.Conn, r io.Reader) {
	if _, err := io.Copy(conn, r); err != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// serveDetected serves connections that open like HTTP with web, and echoes the others.
func serveDetected(l net.Listener, web site) (shut func(context.Context) error) {
	c := &connections{}
	detected := &handed{addr: l.Addr(), c: make(chan net.Conn), closed: make(chan struct{})}
	c.serve(l, func(conn net.Conn) {
		r := bufio.NewReaderSize(conn, 4096)
		isHTTP := opensLikeHTTP(r)
		if isHTTP {
			c.forget(conn)
			select {
			case detected.c <- &peeked{Conn: conn, r: r}:
				return
			case <-detected.closed:
			}
		} else {
			echo(conn, r)
			c.forget(conn)
		}
		_ = conn.Close()
	})
	end := web.serve(detected)
	return func(ctx context.Context) error {
		err := errors.Join(l.Close(), end(ctx))
		c.close() // those that never said what they speak among them
		c.wg.Wait()
		return err
	}
}

// handed is a listener of connections that somebody else accepted.
type handed struct {
	addr   net.Addr
	c      chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case conn := <-h.c:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handed) Addr() net.Addr { return h.addr }

// peeked is a connection whose first bytes were read ahead.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// openings are how HTTP connections begin.
var openings = []string{"GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS ", "TRACE ", "CONNECT ", "PRI * HTTP/2.0\r\n"}

// opensLikeHTTP waits for as many bytes as it takes to tell.
func opensLikeHTTP(r *bufio.Reader) bool {
	for n := 1; ; n++ {
		b, err := r.Peek(n)
		if err != nil {
			return false
		}
		open := false
		for _, o := range openings {
			if string(b) == o {
				return true
			}
			open = open || strings.HasPrefix(o, string(b))
		}
		if !open {
			return false
		}
	}
}
