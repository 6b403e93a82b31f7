package link

import (
	"errors"
	"net"
	"sync"
)

const (
	// spillPiece is how many bytes at a time TLS is given to turn into records that leave in one write.
	spillPiece = 64 << 10
	// maxSpill bounds what TLS may have to say of itself (answers to KeyUpdate, alerts) while the socket is full.
	maxSpill = 1 << 20
	// maxKeptSpill is the largest spill that is pooled.
	maxKeptSpill = 128 << 10
)

var (
	errNotCarried = errors.New("cannot write without waiting: TLS does not run over what Link.Replay returned")
	errSpill      = errors.New("cannot write: too much of what TLS has to say waits to be read")
)

// spill is a piece of memory for what the socket did not take.
type spill struct{ b []byte }

var spills = sync.Pool{New: func() any { return &spill{make([]byte, 0, spillPiece/2)} }}

func putSpill(s *spill) {
	if cap(s.b) <= maxKeptSpill {
		s.b = s.b[:0]
		spills.Put(s)
	}
}

// carrier is what TLS runs over. Writes wait, until TryWrite is called for the first time: from then on what the socket
// does not take is kept, as TLS cannot be told that only a part of a record was taken.
type carrier struct {
	net.Conn
	l     *Link
	first *Buffer // what is read before all else
	// now and fd are the reader's own: TLS is to read from fd what is there, and not to wait.
	now bool
	fd  uintptr

	// mu guards the rest: besides the link's writer, the reader makes TLS write, of TLS's own.
	mu         sync.Mutex
	spilling   bool
	collecting bool   // TryWrite is in the midst of a write to TLS: its records go out together
	draining   bool   // Drain writes what was kept, and what comes meanwhile comes behind it
	kept       *spill // nil where nothing is
	sent       int    // bytes of kept that are written
	err        error
}

func (c *carrier) Read(p []byte) (int, error) {
	if c.first == nil {
		if c.now {
			return c.readSocket(p)
		}
		return c.Conn.Read(p)
	}
	n := copy(p, c.first.Bytes())
	c.first.Skip(n)
	if c.first.Len() == 0 {
		PutBuffer(c.first)
		c.first = nil
	}
	return n, nil
}

func (c *carrier) Write(p []byte) (int, error) {
	c.mu.Lock()
	if !c.spilling {
		c.mu.Unlock()
		return c.Conn.Write(p)
	}
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if c.kept == nil {
		c.kept = spills.Get().(*spill)
	}
	if len(c.kept.b)+len(p) > maxSpill {
		c.err = errSpill
		return 0, c.err
	}
	c.kept.b = append(c.kept.b, p...)
	if !c.collecting && !c.draining {
		c.push()
	}
	return len(p), c.err
}

// push writes what is kept as far as the socket takes it, called with mu.
func (c *carrier) push() {
	if c.kept == nil || c.err != nil {
		return
	}
	n, err := c.l.push(c.kept.b[c.sent:])
	c.sent += n
	c.err = err
	if c.sent == len(c.kept.b) {
		putSpill(c.kept)
		c.kept, c.sent = nil, 0
	}
}

// tryWrite is TryWrite through t, the TLS connection that runs over c.
func (c *carrier) tryWrite(t net.Conn, p []byte) (n int, err error) {
	for {
		c.mu.Lock()
		c.spilling, c.collecting = true, false
		if !c.draining {
			c.push()
		}
		full, err := c.kept != nil || c.draining, c.err
		c.collecting = n < len(p) && !full && err == nil
		more := c.collecting
		c.mu.Unlock()
		if !more {
			return n, err
		}
		k, err := t.Write(p[n:min(len(p), n+spillPiece)])
		n += k
		if err != nil {
			c.mu.Lock()
			c.collecting = false
			c.mu.Unlock()
			return n, err
		}
	}
}

// drain waits until nothing is kept any more.
func (c *carrier) drain() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	for c.kept != nil && c.err == nil {
		s, sent := c.kept, c.sent
		c.kept, c.sent = nil, 0
		c.mu.Unlock()
		_, err := c.Conn.Write(s.b[sent:])
		putSpill(s)
		c.mu.Lock()
		if c.err == nil {
			c.err = err
		}
	}
	c.draining = false
	return c.err
}

// spills says whether TryWrite was called.
func (c *carrier) spills() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spilling
}

func (c *carrier) holds() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept != nil || c.draining
}

// TryWrite writes what the socket takes without waiting: n < len(p) with a nil error says that it is full. A link has one
// writer, and that one calls it. On a secured link, whose TLS must run over what Replay returned, the last bytes taken may
// not be on their way yet, but kept (Spilled); nothing more is taken before they are.
func (l *Link) TryWrite(p []byte) (n int, err error) {
	if !l.Secured() {
		return l.push(p)
	}
	if l.carrier.l == nil {
		return 0, errNotCarried
	}
	return l.carrier.tryWrite(l.conn, p)
}

// Spilled says whether bytes that TryWrite took wait to be written: by the next TryWrite, of nothing if need be, or by Drain.
func (l *Link) Spilled() bool { return l.Secured() && l.carrier.l != nil && l.carrier.holds() }

// Drain waits until what TryWrite took is written. It is the writer's, as is TryWrite; Interrupt and Cut end it with an
// error, after which nothing can be written any more: bytes may be lost.
func (l *Link) Drain() error {
	if !l.Secured() || l.carrier.l == nil {
		return nil
	}
	return l.carrier.drain()
}
