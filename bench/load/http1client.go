//go:build linux

package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// http1Client is one connection of HTTP/1.1; at most one request is under way on it.
type http1Client struct {
	slot
	request []byte
	fd      int
	tls     *tls.Conn // nil without TLS
	head    []byte    // an incomplete head
	left    int       // bytes of the answer's body that are still to come
}

func (c *Client) openHTTP1() error {
	n := &http1Client{slot: slot{client: c}, request: c.request.http1(), fd: -1}
	n.conn = n
	if err := n.open(); err != nil {
		return err
	}
	c.conns = append(c.conns, n)
	c.free.push(&n.slot)
	return nil
}

func (n *http1Client) open() error {
	t := &n.client.target
	fd, err := connect(t.Addr)
	if err != nil {
		return err
	}
	if t.TLS != nil {
		if n.tls, err = handshake(fd, t.TLS); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("cannot open TLS with %s: %w", t.Addr, err)
		}
	}
	n.fd = fd
	return n.client.loop.add(fd, n)
}

// handshake opens TLS on a connected socket that does not block. Nobody but the proxy is needed for it, so it may wait.
func handshake(fd int, config *tls.Config) (*tls.Conn, error) {
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, err
	}
	wait := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, err
	}
	c := tls.Client(&fdConn{fd}, config)
	if err := c.HandshakeContext(context.Background()); err != nil {
		return nil, err
	}
	return c, unix.SetNonblock(fd, true)
}

func (n *http1Client) close() {
	if n.fd >= 0 {
		n.client.loop.drop(n.fd)
		n.fd = -1
	}
}

func (n *http1Client) send(*slot) {
	var sent int
	var err error
	if n.tls != nil {
		sent, err = n.tls.Write(n.request)
	} else {
		sent, err = unix.Write(n.fd, n.request)
	}
	if err == nil && sent < len(n.request) {
		err = fmt.Errorf("only %d of %d bytes fit into the socket", sent, len(n.request))
	}
	if err != nil {
		n.fail(fmt.Errorf("cannot send the request: %w", err))
	}
}

func (n *http1Client) ready(uint32) {
	if n.tls != nil {
		n.readTLS()
		return
	}
	b, err := n.client.loop.read(n.fd)
	if err != nil {
		n.fail(err)
		return
	}
	if len(b) > 0 {
		n.take(b)
	}
}

// readTLS takes all that has arrived: what TLS has buffered, no readiness tells.
func (n *http1Client) readTLS() {
	for c := n.tls; n.tls == c && n.fd >= 0; {
		b := n.client.loop.buffer
		k, err := c.Read(b)
		if k > 0 {
			n.take(b[:k])
		}
		if err == errAgain {
			return
		}
		if err != nil {
			n.fail(err)
			return
		}
	}
}

// take handles answer bytes.
func (n *http1Client) take(b []byte) {
	if !n.busy {
		n.fail(fmt.Errorf("%d bytes arrived that nobody asked for", len(b)))
		return
	}
	if n.left > 0 {
		n.left -= len(b)
	} else {
		if len(n.head) > 0 {
			n.head = append(n.head, b...)
			b = n.head
		}
		h, err := parseHead(b)
		if err == nil && h.size == 0 {
			if len(n.head) == 0 {
				n.head = append(n.head, b...)
			}
			return
		}
		n.head = n.head[:0]
		if err == nil {
			err = n.check(b, h)
		}
		if err != nil {
			n.fail(err)
			return
		}
		n.left = h.body - (len(b) - h.size)
	}
	switch {
	case n.left < 0:
		n.fail(fmt.Errorf("the answer is %d bytes longer than its Content-Length", -n.left))
	case n.left == 0:
		n.complete()
	}
}

func (n *http1Client) check(b []byte, h head) error {
	if s := status(b); s != 200 {
		return fmt.Errorf("the answer is %q", b[:min(len(b), 60)])
	}
	if h.body != n.client.request.Answer {
		return fmt.Errorf("the answer's Content-Length is %d, not %d", h.body, n.client.request.Answer)
	}
	return nil
}

// fail counts a failed request, or a connection lost between two, and puts a new connection in this one's place.
func (n *http1Client) fail(err error) {
	n.client.fault(err)
	wasBusy := n.busy
	n.head, n.left, n.busy, n.intended = n.head[:0], 0, false, time.Time{}
	n.close()
	if err := n.open(); err != nil {
		n.client.err = err // ends the next turn; nothing uses this connection any more
		return
	}
	if wasBusy {
		n.idle()
	}
}
