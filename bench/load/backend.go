//go:build linux

package load

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Backend answers GET and POST on a number of loopback addresses with bytes prepared at start, over HTTP/1.1 or, on
// connections that begin with its preface, HTTP/2. The last path segment of a request says how many bytes of body it
// wants: "/api/reviews/300". "Get" and "Watch" there are gRPC methods: one message for one, and one for each.
type Backend struct {
	loop      *Loop
	listeners []*listener
	answers   map[int][]byte // whole, over HTTP/1.1
	sized     map[int]*sized // over HTTP/2
	message   []byte         // what gRPC gets
	refused   int
	// begin returns what serves a new connection; nil is HTTP.
	begin func(n *listener, fd int) handler
}

// MessageSize is the size of the backend's gRPC messages, and of those that it answers, without their prefix.
const MessageSize = 100

type listener struct {
	backend *Backend
	fd      int
	addr    string
	served  uint64
	conns   map[int]interface{ close() }
}

// http1Server is one connection of a proxy to the backend over HTTP/1.1, or one that has not shown what it speaks.
type http1Server struct {
	listener *listener
	fd       int
	head     []byte // an incomplete head
	body     int    // bytes of the current request's body that are still to come
	answer   []byte // what the current request gets
	unsent   []byte // the rest of an answer that did not fit into the socket
}

// refusal is the answer to what the backend cannot serve: a size it has no answer for, or framing it cannot read.
var refusal = []byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

// Serve starts a backend on l with the given number of loopback addresses and one answer for each body size in bytes.
func (l *Loop) Serve(addresses int, sizes ...int) (*Backend, error) {
	b := &Backend{loop: l, answers: map[int][]byte{}, sized: map[int]*sized{}, message: Message(MessageSize)}
	for _, size := range sizes {
		if b.answers[size] != nil {
			continue
		}
		if kindSized+len(b.answers) == encodings {
			return nil, fmt.Errorf("the backend prepares at most %d sizes of answers", encodings-kindSized)
		}
		a := answerOf(size)
		b.sized[size] = sizedOf(kindSized+len(b.answers), size, a[len(a)-size:])
		b.answers[size] = a
	}
	for range addresses {
		if err := b.listen(); err != nil {
			b.Close()
			return nil, err
		}
	}
	return b, nil
}

func (b *Backend) listen() error {
	fd, sa, err := socket("127.0.0.1:0")
	if err != nil {
		return err
	}
	n := &listener{backend: b, fd: fd, conns: map[int]interface{ close() }{}}
	if err := n.open(sa); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("cannot listen on a loopback address: %w", err)
	}
	b.listeners = append(b.listeners, n)
	return nil
}

func (n *listener) open(sa *unix.SockaddrInet4) error {
	if err := unix.Bind(n.fd, sa); err != nil {
		return err
	}
	if err := unix.Listen(n.fd, 4096); err != nil {
		return err
	}
	if err := unix.SetNonblock(n.fd, true); err != nil {
		return err
	}
	bound, err := unix.Getsockname(n.fd)
	if err != nil {
		return err
	}
	in4 := bound.(*unix.SockaddrInet4)
	n.addr = netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port)).String()
	return n.backend.loop.add(n.fd, n)
}

// answerFields are the header fields of an answer with a body of size bytes.
func answerFields(size int) []Field {
	return []Field{
		{"Content-Type", "application/json"},
		{"Content-Length", strconv.Itoa(size)},
		{"Date", "Thu, 01 Jan 2026 00:00:00 GMT"},
		{"Server", "backend"},
		{"Cache-Control", "no-store"},
	}
}

// answerOf returns a whole answer of HTTP/1.1 with a body of size bytes of JSON-like text.
func answerOf(size int) []byte {
	a := []byte("HTTP/1.1 200 OK\r\n")
	for _, f := range answerFields(size) {
		a = append(a, f.Name+": "+f.Value+"\r\n"...)
	}
	a = append(a, "\r\n"...)
	return append(a, bytes.Repeat([]byte(`{"id":1,"stars":5},`), size/19+1)[:size]...)
}

// Addresses returns the addresses that b listens at.
func (b *Backend) Addresses() []string {
	var all []string
	for _, n := range b.listeners {
		all = append(all, n.addr)
	}
	return all
}

// Served returns how many requests each address has answered.
func (b *Backend) Served() []uint64 {
	var all []uint64
	for _, n := range b.listeners {
		all = append(all, n.served)
	}
	return all
}

// Refused returns how many requests b answered with 400: a request that a proxy has changed beyond recognition.
func (b *Backend) Refused() int { return b.refused }

// Close closes all listeners and connections.
func (b *Backend) Close() {
	for _, n := range b.listeners {
		for _, c := range n.conns {
			c.close()
		}
		b.loop.drop(n.fd)
	}
	b.listeners = nil
}

func (n *listener) ready(uint32) {
	for {
		fd, _, err := unix.Accept4(n.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EAGAIN {
			return
		}
		if err == unix.ECONNABORTED || err == unix.EINTR {
			continue
		}
		if err == nil {
			err = prepare(fd)
		}
		if err == nil {
			err = n.backend.loop.add(fd, n.serve(fd))
		}
		if err != nil {
			n.backend.loop.err = fmt.Errorf("cannot accept a connection at the backend: %w", err)
			return
		}
	}
}

// serve returns what serves a new connection.
func (n *listener) serve(fd int) handler {
	if n.backend.begin != nil {
		return n.backend.begin(n, fd)
	}
	c := &http1Server{listener: n, fd: fd}
	n.conns[fd] = c
	return c
}

func (c *http1Server) close() {
	delete(c.listener.conns, c.fd)
	c.listener.backend.loop.drop(c.fd)
}

func (c *http1Server) ready(events uint32) {
	if len(c.unsent) > 0 {
		if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			c.send(c.unsent)
		}
		return // no next request before this answer is out
	}
	b, err := c.listener.backend.loop.read(c.fd)
	if err != nil {
		c.close()
		return
	}
	c.take(b)
}

// take handles request bytes. Only requests that arrive one at a time are read; a proxy does not pipeline.
func (c *http1Server) take(b []byte) {
	if len(b) == 0 {
		return
	}
	if c.body > 0 {
		c.body -= len(b)
	} else {
		if len(c.head) > 0 {
			c.head = append(c.head, b...)
			b = c.head
		}
		if k := min(len(b), len(preface)); string(b[:k]) == preface[:k] {
			if k < len(preface) {
				c.head = append(c.head[:0], b...)
				return
			}
			c.listener.serveHTTP2(c.fd, b[k:])
			return
		}
		h, err := parseHead(b)
		if err == nil && h.size == 0 {
			if len(c.head) == 0 {
				c.head = append(c.head, b...)
			}
			return
		}
		c.answer = c.listener.backend.answers[wanted(b)]
		c.head = c.head[:0]
		if err != nil || c.answer == nil {
			c.refuse()
			return
		}
		c.body = max(h.body, 0) - (len(b) - h.size)
	}
	switch {
	case c.body < 0:
		c.refuse()
	case c.body == 0:
		c.listener.served++
		c.send(c.answer)
	}
}

func (c *http1Server) refuse() {
	c.listener.backend.refused++
	_, _ = unix.Write(c.fd, refusal) // the connection ends here, whether it arrives or not
	c.close()
}

func (c *http1Server) send(b []byte) {
	n, err := unix.Write(c.fd, b)
	if err != nil && err != unix.EAGAIN {
		c.close()
		return
	}
	rest := b[max(n, 0):]
	if len(rest) > 0 && len(c.unsent) == 0 {
		c.listener.backend.loop.watch(c.fd, unix.EPOLLOUT)
	} else if len(rest) == 0 && len(c.unsent) > 0 {
		c.listener.backend.loop.watch(c.fd, unix.EPOLLIN)
	}
	c.unsent = rest
}

// wanted returns the number that ends the path of the request at the start of b; -1 where there is none.
func wanted(b []byte) int {
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	target := bytes.TrimSuffix(line, []byte(" HTTP/1.1"))
	if len(target) == len(line) {
		return -1
	}
	return number(target[bytes.LastIndexByte(target, '/')+1:])
}
