package http2

import "sync"

// output is a connection's write buffer: frames are appended to one half while the other is being written.
type output struct {
	fill, drain *buffer
	sent        int // bytes of drain that are written
	answers     int // frames in fill that answer a frame of the peer
	flushing    bool
	starved     bool // a Send stopped because there was too much
}

// buffer is half a write buffer. A connection with nothing to write has none.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, 16<<10)} }}

// maxKeptBuffer is the largest buffer that is pooled.
const maxKeptBuffer = 320 << 10

func putBuffer(b *buffer) {
	if cap(b.b) <= maxKeptBuffer {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

// begin returns what frames are to be appended to; set takes it back.
func (o *output) begin() []byte {
	if o.fill == nil {
		o.fill = buffers.Get().(*buffer)
	}
	return o.fill.b
}

func (o *output) set(b []byte) { o.fill.b = b }

// pending returns how many bytes wait to be written.
func (o *output) pending() (n int) {
	if o.fill != nil {
		n = len(o.fill.b)
	}
	if o.drain != nil {
		n += len(o.drain.b) - o.sent
	}
	return n
}

// next returns what is to be written next, nothing where there is nothing.
func (o *output) next() []byte {
	if o.drain != nil && o.sent == len(o.drain.b) {
		putBuffer(o.drain)
		o.drain, o.sent = nil, 0
	}
	if o.drain == nil {
		if o.fill == nil || len(o.fill.b) == 0 {
			return nil
		}
		o.drain, o.fill, o.answers = o.fill, nil, 0
	}
	return o.drain.b[o.sent:]
}

// discard drops what nobody will read. What a Flush under way is writing stays until it is done.
func (o *output) discard() {
	if o.fill != nil {
		putBuffer(o.fill)
		o.fill = nil
	}
	if o.drain != nil && !o.flushing {
		putBuffer(o.drain)
		o.drain, o.sent = nil, 0
	}
}

// Flush writes what waits to be written with w, until there is nothing left or w takes less than it was given. What w did
// not take stays for the next Flush. Only one Flush is under way at a time: another returns at once, as the first will
// write what was appended before. After an error of w nothing more is sent, and the error is returned once.
// Where a Send had stopped for too much waiting, Writable is called from here when half of it is gone.
func (c *Conn) Flush(w func(p []byte) (n int, err error)) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	o := &c.out
	if o.flushing {
		return nil
	}
	o.flushing = true
	for {
		p := o.next()
		if len(p) == 0 {
			break
		}
		c.wmu.Unlock()
		n, err := w(p)
		c.wmu.Lock()
		o.sent += n
		if err != nil {
			o.flushing, c.closed = false, true
			o.discard()
			return err
		}
		if o.starved && o.pending() <= c.o.WriteBuffer/2 {
			o.starved = false
			c.wake()
		}
		if n < len(p) {
			break
		}
	}
	o.flushing = false
	return nil
}

// Pending returns how many bytes wait to be flushed. A reader does well not to Receive more while it is over twice
// Options.WriteBuffer: the peer does not read what it asks for.
func (c *Conn) Pending() int {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.out.pending()
}

// answer returns the buffer for a frame that answers one of the peer's: such frames must not pile up.
func (c *Conn) answer() ([]byte, *Error) {
	b := c.out.begin()
	if c.out.answers++; c.out.answers > maxUnread {
		return b, errUnread
	}
	return b, nil
}
