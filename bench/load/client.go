//go:build linux

package load

import (
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// Request is what every connection of a Client sends, byte for byte, and what it must get.
type Request struct {
	Bytes  []byte
	Answer int // bytes of the answer's body
}

// How long what must come may take before the measurement is given up; a machine that others use is slow, not broken.
const patience = 30 * time.Second

// tolerated is the number of failed requests after which a measurement is given up.
const tolerated = 100

// Client holds connections to one address and sends the same request on them again and again.
type Client struct {
	loop    *Loop
	addr    string
	request Request
	conns   []*clientConn

	done   uint64 // answered as they should be
	failed uint64
	first  error // the first failure
	err    error // what ended the client: a connection that could not be replaced

	// What an answer starts: the next request at once (saturating), or a place in the queue of free connections.
	saturating bool
	free       queue
	// Latencies are recorded from the intended start, for requests that were meant to start after recordFrom.
	recordFrom time.Time
	latency    *Histogram
}

// clientConn is one connection of the generator; at most one request is under way on it.
type clientConn struct {
	client   *Client
	fd       int
	busy     bool
	intended time.Time
	head     []byte // an incomplete head
	left     int    // bytes of the answer's body that are still to come
}

// Dial opens conns connections to addr (an IPv4 address with a port).
func (l *Loop) Dial(addr string, conns int, r Request) (*Client, error) {
	c := &Client{loop: l, addr: addr, request: r, free: newQueue(conns), latency: &Histogram{}}
	for range conns {
		n := &clientConn{client: c, fd: -1}
		if err := n.open(); err != nil {
			c.Close()
			return nil, err
		}
		c.conns = append(c.conns, n)
		c.free.push(n)
	}
	return c, nil
}

func (n *clientConn) open() error {
	fd, sa, err := socket(n.client.addr)
	if err != nil {
		return err
	}
	// Blocking: on loopback the kernel completes the handshake by itself, as long as the listener's backlog has room.
	if err = unix.Connect(fd, sa); err == nil {
		err = prepare(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("cannot connect to %s: %w", n.client.addr, err)
	}
	n.fd = fd
	return n.client.loop.add(fd, n)
}

// Close closes all connections.
func (c *Client) Close() {
	for _, n := range c.conns {
		if n.fd >= 0 {
			c.loop.drop(n.fd)
			n.fd = -1
		}
	}
}

// Done returns how many requests were answered as they should be.
func (c *Client) Done() uint64 { return c.done }

// Failures returns how many requests were not answered as they should be, and what was wrong with the first.
func (c *Client) Failures() (uint64, error) { return c.failed, c.first }

// Latency returns what Pace recorded.
func (c *Client) Latency() *Histogram { return c.latency }

// Saturate keeps one request under way on every connection for d. Requests are still under way when it returns, so that
// several calls make one uninterrupted load; Drain waits for the last ones.
func (c *Client) Saturate(d time.Duration) error {
	c.saturating = true
	defer func() { c.saturating = false }()
	end := time.Now().Add(d)
	// Reading the clock at every turn would be a tenth of the generator's own cost.
	for i := 0; i%8 != 0 || time.Now().Before(end); i++ {
		for range c.free.n { // all at the beginning, later those that failed
			c.free.pop().send()
		}
		if err := c.turn(); err != nil {
			return err
		}
	}
	return nil
}

// Each sends one request on every connection, at most parallel of them at a time, and waits for all answers.
func (c *Client) Each(parallel int) error {
	left := len(c.conns) // the queue's order makes these pops reach each connection once
	end := time.Now().Add(patience)
	for want := c.done + c.failed + uint64(left); c.done+c.failed < want; {
		for left > 0 && c.free.n > 0 && c.underWay() < parallel {
			c.free.pop().send()
			left--
		}
		if time.Now().After(end) {
			return fmt.Errorf("cannot get an answer on each of %d connections within %s", len(c.conns), patience)
		}
		if err := c.turn(); err != nil {
			return err
		}
	}
	return nil
}

// Pace sends requests at the given mean rate per second for warm and then for d, whatever the answers do: the moments
// are those of a Poisson process drawn from seed, and a request that finds no free connection starts late and counts
// from the moment it was meant to start. It records those meant to start in the second part and waits for their answers.
func (c *Client) Pace(rate float64, warm, d time.Duration, seed uint64) error {
	draw := rand.New(rand.NewPCG(seed, 0))
	mean := float64(time.Second) / rate
	c.latency.Reset()
	start := time.Now()
	c.recordFrom = start.Add(warm)
	end := c.recordFrom.Add(d)
	next := start
	for now := start; now.Before(end) || next.Before(end); now = time.Now() {
		if now.After(end.Add(patience)) {
			return fmt.Errorf("cannot keep up with %.0f requests per second: %s late at the end", rate, now.Sub(next))
		}
		for c.free.n > 0 && !next.After(now) && next.Before(end) {
			n := c.free.pop()
			n.intended = next
			n.send()
			next = next.Add(time.Duration(draw.ExpFloat64() * mean))
		}
		if err := c.turn(); err != nil {
			return err
		}
	}
	return c.Drain()
}

// Drain waits until no request is under way.
func (c *Client) Drain() error {
	for end := time.Now().Add(patience); c.underWay() > 0; {
		if time.Now().After(end) {
			return fmt.Errorf("cannot get the last answers: %d requests are under way after %s", c.underWay(), patience)
		}
		if err := c.turn(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) turn() error {
	if c.err != nil {
		return c.err
	}
	if c.failed > tolerated {
		return fmt.Errorf("more than %d requests failed, the first: %w", tolerated, c.first)
	}
	return c.loop.turn()
}

func (c *Client) underWay() int { return len(c.conns) - c.free.n }

func (n *clientConn) send() {
	n.busy = true
	sent, err := unix.Write(n.fd, n.client.request.Bytes)
	if err == nil && sent < len(n.client.request.Bytes) {
		err = fmt.Errorf("only %d of %d bytes fit into the socket", sent, len(n.client.request.Bytes))
	}
	if err != nil {
		n.fail(fmt.Errorf("cannot send the request: %w", err))
	}
}

func (n *clientConn) ready(uint32) {
	b, err := n.client.loop.read(n.fd)
	if err != nil {
		n.fail(err)
		return
	}
	if len(b) > 0 {
		n.take(b)
	}
}

// take handles answer bytes.
func (n *clientConn) take(b []byte) {
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

func (n *clientConn) check(b []byte, h head) error {
	if s := status(b); s != 200 {
		return fmt.Errorf("the answer is %q", b[:min(len(b), 60)])
	}
	if h.body != n.client.request.Answer {
		return fmt.Errorf("the answer's Content-Length is %d, not %d", h.body, n.client.request.Answer)
	}
	return nil
}

func (n *clientConn) complete() {
	c := n.client
	c.done++
	n.busy = false
	if c.saturating {
		n.send()
		return
	}
	if !n.intended.IsZero() && !n.intended.Before(c.recordFrom) {
		c.latency.Record(time.Since(n.intended))
	}
	n.intended = time.Time{}
	c.free.push(n)
}

// fail counts a failed request, or a connection lost between two, and puts a new connection in this one's place.
func (n *clientConn) fail(err error) {
	c := n.client
	c.failed++
	if c.first == nil {
		c.first = err
	}
	wasBusy := n.busy
	n.head, n.left, n.busy, n.intended = n.head[:0], 0, false, time.Time{}
	c.loop.drop(n.fd)
	n.fd = -1
	if err := n.open(); err != nil {
		c.err = err // ends the next turn; nothing uses this connection any more
		return
	}
	if wasBusy {
		c.free.push(n)
	}
}

// queue is a ring of connections: first in, first out, so that a paced load uses all of them in turn.
type queue struct {
	ring []*clientConn
	head int
	n    int
}

func newQueue(size int) queue { return queue{ring: make([]*clientConn, size)} }

func (q *queue) push(n *clientConn) {
	q.ring[(q.head+q.n)%len(q.ring)] = n
	q.n++
}

// pop returns nil where q is empty.
func (q *queue) pop() *clientConn {
	if q.n == 0 {
		return nil
	}
	n := q.ring[q.head]
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return n
}
