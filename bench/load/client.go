//go:build linux

package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// How long what must come may take before the measurement is given up; a machine that others use is slow, not broken.
const patience = 30 * time.Second

// tolerated is the number of failed requests after which a measurement is given up.
const tolerated = 100

// Target is where a Client's requests go, and how.
type Target struct {
	Addr  string // an IPv4 address with a port
	Conns int
	// Streams is the number of requests that may be under way on each connection, over HTTP/2 without TLS; 0 is HTTP/1.1.
	Streams int
	// TLS, where it is set, opens each connection with TLS (HTTP/1.1).
	TLS *tls.Config
}

// Client holds connections to one address and sends the same request on them again and again.
type Client struct {
	loop    *Loop
	target  Target
	request Request
	slots   int
	conns   []clientSide

	done   uint64 // answered as they should be
	failed uint64
	first  error // the first failure
	err    error // what ended the client: a connection that could not be replaced

	// What an answer starts: the next request at once (saturating), or a place in the queue of free slots.
	saturating bool
	free       queue
	// Latencies are recorded from the intended start, for requests that were meant to start after recordFrom.
	recordFrom time.Time
	latency    *Histogram
}

// clientSide is one connection of a Client.
type clientSide interface {
	close()
}

// slot is a place for one request under way: a connection of HTTP/1, a stream of HTTP/2.
type slot struct {
	client   *Client
	conn     sender
	busy     bool
	intended time.Time
}

// sender sends the client's request on a slot of its own; what fails, it tells the slot.
type sender interface {
	send(s *slot)
}

// Dial opens the connections.
func (l *Loop) Dial(t Target, r Request) (*Client, error) {
	c := &Client{loop: l, target: t, request: r, slots: t.Conns * max(t.Streams, 1), latency: &Histogram{}}
	c.free = newQueue(c.slots)
	if t.TLS != nil && t.Streams > 0 || r.InFlight > 0 && t.Streams == 0 {
		return nil, errors.New("the load tool speaks HTTP/2 without TLS only, and streams over HTTP/2 only")
	}
	open := c.openHTTP1
	if t.Streams > 0 {
		open = c.openHTTP2
	}
	for range t.Conns {
		if err := open(); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// Close closes all connections.
func (c *Client) Close() {
	for _, n := range c.conns {
		n.close()
	}
	c.conns = nil
}

// Done returns how many requests, or messages of a stream, were answered as they should be.
func (c *Client) Done() uint64 { return c.done }

// Failures returns how many requests were not answered as they should be, and what was wrong with the first.
func (c *Client) Failures() (uint64, error) { return c.failed, c.first }

// Latency returns what Pace recorded.
func (c *Client) Latency() *Histogram { return c.latency }

// Saturate keeps one request under way on every slot for d. Requests are still under way when it returns, so that
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

// Each sends one request on every slot, at most parallel of them at a time, and waits for all answers.
func (c *Client) Each(parallel int) error {
	left := c.slots // the queue's order makes these pops reach each slot once
	end := time.Now().Add(patience)
	for left > 0 || c.underWay() > 0 {
		for left > 0 && c.free.n > 0 && c.underWay() < parallel {
			c.free.pop().send()
			left--
		}
		if time.Now().After(end) {
			return fmt.Errorf("cannot get an answer on each of %d connections within %s", c.target.Conns, patience)
		}
		if err := c.turn(); err != nil {
			return err
		}
	}
	return nil
}

// Pace sends requests at the given mean rate per second for warm and then for d, whatever the answers do: the moments
// are those of a Poisson process drawn from seed, and a request that finds no free slot starts late and counts
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
			s := c.free.pop()
			s.intended = next
			s.send()
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

func (c *Client) underWay() int { return c.slots - c.free.n }

// fault counts a failure.
func (c *Client) fault(err error) {
	c.failed++
	if c.first == nil {
		c.first = err
	}
}

func (s *slot) send() {
	s.busy = true
	s.conn.send(s)
}

// complete counts an answer as it should be.
func (s *slot) complete() {
	s.client.done++
	s.ended()
}

// ended notes that the request is answered.
func (s *slot) ended() {
	c := s.client
	if c.saturating {
		s.send()
		return
	}
	if !s.intended.IsZero() && !s.intended.Before(c.recordFrom) {
		c.latency.Record(time.Since(s.intended))
	}
	s.idle()
}

// idle makes s free for another request.
func (s *slot) idle() {
	s.busy, s.intended = false, time.Time{}
	s.client.free.push(s)
}

// queue is a ring of slots: first in, first out, so that a paced load uses all of them in turn.
type queue struct {
	ring []*slot
	head int
	n    int
}

func newQueue(size int) queue { return queue{ring: make([]*slot, size)} }

func (q *queue) push(s *slot) {
	q.ring[(q.head+q.n)%len(q.ring)] = s
	q.n++
}

// pop returns nil where q is empty.
func (q *queue) pop() *slot {
	if q.n == 0 {
		return nil
	}
	s := q.ring[q.head]
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return s
}
