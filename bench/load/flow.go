//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// chunk is how much an end of a Flow writes at a time.
const chunk = 64 << 10

// verified is how many bytes each end of a connection compares with what was sent; it counts the others unseen, so that
// the load does not pay for a copy.
const verified = 4 * chunk

// pattern is what both ends send, again and again.
var pattern = func() []byte {
	b := make([]byte, chunk)
	draw := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(draw.Uint32())
	}
	return b
}()

// Flow holds connections over which both ends send as fast as they can, in pieces of 64 KiB. What it counts as done are bytes
// that have arrived, at either end.
type Flow struct {
	loop    *Loop
	far     *FarEnd
	conns   []*flowEnd
	arrived uint64
	failed  uint64
	first   error
}

// FarEnd is the other end of Flows: it sends and takes bytes on each connection that is made to it.
type FarEnd struct {
	*Backend
	arrived uint64
}

// flowEnd is one end of one connection.
type flowEnd struct {
	loop     *Loop
	fd       int
	arrived  *uint64
	lost     func(error) // the connection is over
	received int         // bytes, as far as they are compared
	writes   bool        // watched for room to write
	at       int         // what to send next, in pattern
}

// ServeBytes starts the other end of Flows on l with the given number of loopback addresses.
func (l *Loop) ServeBytes(addresses int) (*FarEnd, error) {
	d := &FarEnd{}
	d.Backend = &Backend{loop: l, begin: d.accept}
	for range addresses {
		if err := d.listen(); err != nil {
			d.Close()
			return nil, err
		}
	}
	return d, nil
}

// Arrived returns how many bytes have arrived at d.
func (d *FarEnd) Arrived() uint64 { return d.arrived }

func (d *FarEnd) accept(n *listener, fd int) handler {
	e := &flowEnd{loop: d.loop, fd: fd, arrived: &d.arrived}
	e.lost = func(error) { // a proxy closes when its client has
		delete(n.conns, fd)
		e.close()
	}
	n.conns[fd] = e
	return e
}

// DialBytes opens connections to addr, behind which d is.
func (l *Loop) DialBytes(addr string, conns int, d *FarEnd) (*Flow, error) {
	f := &Flow{loop: l, far: d}
	for range conns {
		fd, err := connect(addr)
		if err != nil {
			f.Close()
			return nil, err
		}
		e := &flowEnd{loop: l, fd: fd, arrived: &f.arrived}
		e.lost = func(err error) {
			f.failed++
			if f.first == nil {
				f.first = err
			}
			e.close()
		}
		f.conns = append(f.conns, e)
		if err := l.add(fd, e); err != nil {
			f.Close()
			return nil, err
		}
		e.write()
	}
	return f, nil
}

// write begins to send: the far end does when the first bytes arrive.
func (e *flowEnd) write() {
	e.writes = true
	e.loop.watch(e.fd, unix.EPOLLIN|unix.EPOLLOUT)
}

// Saturate moves bytes for d.
func (f *Flow) Saturate(d time.Duration) error {
	end := time.Now().Add(d)
	for i := 0; i%8 != 0 || time.Now().Before(end); i++ {
		if f.failed > 0 {
			return f.first
		}
		if err := f.loop.turn(); err != nil {
			return err
		}
	}
	return nil
}

// Done returns how many bytes have arrived at either end, those of other Flows to the same FarEnd included.
func (f *Flow) Done() uint64 { return f.arrived + f.far.arrived }

// Failures returns how many connections were lost, and why the first was.
func (f *Flow) Failures() (uint64, error) { return f.failed, f.first }

// Drain does nothing: bytes are always under way.
func (f *Flow) Drain() error { return nil }

// Close closes all connections.
func (f *Flow) Close() {
	for _, e := range f.conns {
		e.close()
	}
	f.conns = nil
}

func (e *flowEnd) close() {
	if e.fd >= 0 {
		e.loop.drop(e.fd)
		e.fd = -1
	}
}

func (e *flowEnd) ready(events uint32) {
	if !e.writes {
		e.write()
	}
	if events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if err := e.receive(); err != nil {
			e.lost(err)
			return
		}
	}
	if events&unix.EPOLLOUT != 0 {
		n, err := unix.Write(e.fd, pattern[e.at:])
		if err != nil && err != unix.EAGAIN {
			e.lost(fmt.Errorf("cannot send: %w", err))
			return
		}
		e.at = (e.at + max(n, 0)) % len(pattern)
	}
}

var errPattern = errors.New("other bytes arrived than were sent")

// receive takes what has arrived, at most a loop's buffer full.
func (e *flowEnd) receive() error {
	if e.received < verified {
		b, err := e.loop.read(e.fd)
		if err != nil {
			return err
		}
		*e.arrived += uint64(len(b))
		for len(b) > 0 {
			want := pattern[e.received%len(pattern):]
			n := min(len(want), len(b))
			if !bytes.Equal(b[:n], want[:n]) {
				return errPattern
			}
			e.received += n
			b = b[n:]
		}
		return nil
	}
	// With MSG_TRUNC the kernel drops the bytes of a TCP socket and tells how many they were (tcp(7)).
	n, _, err := unix.Recvfrom(e.fd, e.loop.buffer, unix.MSG_TRUNC)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return err
	case n == 0:
		return errClosed
	}
	*e.arrived += uint64(n)
	return nil
}
