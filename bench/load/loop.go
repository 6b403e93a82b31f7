//go:build linux

// Package load drives one proxy under test: a generator and a backend that share one thread and one epoll set, so that
// the measuring costs little and runs on a CPU of its own.
//
// The loop never sleeps while a measurement runs: a sleeping peer would have to be woken by the proxy's writes, and that
// wake-up, an interrupt between CPUs, would be charged to the proxy.
package load

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// bufferSize is what one read takes at most: more than the largest answer, so that it is mostly read in one call.
const bufferSize = 64 << 10

// handler is a socket of the loop: a listener, a backend's connection or a client's connection.
type handler interface {
	// ready is called when the socket can be read or written (epoll's event bits).
	ready(events uint32)
}

// Loop is one epoll set with its sockets. One goroutine uses it; only Stop may be called from others.
type Loop struct {
	fd       int
	handlers []handler // by file descriptor
	events   []unix.EpollEvent
	buffer   []byte    // what the current ready call read; nobody keeps it
	unsent   []flusher // those who have something to send, gathered over this turn
	stopped  atomic.Bool
	err      error // the first error of the loop itself
}

// flusher is a connection that gathers what it sends.
type flusher interface{ flush() }

// ErrStopped is returned by what waits on a loop after Stop.
var ErrStopped = errors.New("stopped")

// NewLoop returns an empty loop.
func NewLoop() (*Loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot create an epoll set: %w", err)
	}
	return &Loop{fd: fd, events: make([]unix.EpollEvent, 512), buffer: make([]byte, bufferSize)}, nil
}

// Stop makes whatever runs on l return with ErrStopped soon. It may be called from any goroutine.
func (l *Loop) Stop() { l.stopped.Store(true) }

// Close closes the epoll set; the sockets belong to their clients and backends.
func (l *Loop) Close() error { return unix.Close(l.fd) }

// turn sends what is gathered and handles what is ready now, without waiting.
func (l *Loop) turn() error {
	if l.stopped.Load() {
		return ErrStopped
	}
	for i := 0; i < len(l.unsent); i++ { // a connection that replaces another joins meanwhile
		l.unsent[i].flush()
		l.unsent[i] = nil
	}
	l.unsent = l.unsent[:0]
	n, err := unix.EpollWait(l.fd, l.events, 0)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("cannot wait for sockets: %w", err)
	}
	for i := range max(n, 0) {
		e := &l.events[i]
		// A handler earlier in this batch may have closed this one's socket.
		if h := l.handlers[e.Fd]; h != nil {
			h.ready(e.Events)
		}
	}
	return l.err
}

// add watches fd for h.
func (l *Loop) add(fd int, h handler) error {
	for len(l.handlers) <= fd {
		l.handlers = append(l.handlers, nil)
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("cannot watch a socket: %w", err)
	}
	l.handlers[fd] = h
	return nil
}

// watch changes what fd is watched for.
func (l *Loop) watch(fd int, events uint32) {
	e := unix.EpollEvent{Events: events, Fd: int32(fd)}
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_MOD, fd, &e); err != nil && l.err == nil {
		l.err = fmt.Errorf("cannot watch a socket: %w", err)
	}
}

// drop closes fd, which also ends watching it.
func (l *Loop) drop(fd int) {
	l.handlers[fd] = nil
	_ = unix.Close(fd) // nothing is buffered in a socket that we read and write directly
}

// read fills the loop's buffer from fd. It returns nil bytes and no error where nothing is there yet, and errClosed where the
// other side has closed.
func (l *Loop) read(fd int) ([]byte, error) {
	n, err := unix.Read(fd, l.buffer)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil, nil
	case err != nil:
		return nil, err
	case n == 0:
		return nil, errClosed
	}
	return l.buffer[:n], nil
}

var errClosed = errors.New("the connection was closed")

// socket returns a TCP socket over IPv4 without delay, and the address in the system's form.
func socket(addr string) (int, *unix.SockaddrInet4, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || !ap.Addr().Is4() {
		return -1, nil, fmt.Errorf("%q is no IPv4 address with a port", addr)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("cannot create a socket: %w", err)
	}
	return fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, nil
}

// connect returns a socket connected to addr. It may wait: on loopback the kernel completes the handshake by itself, as
// long as the listener's backlog has room.
func connect(addr string) (int, error) {
	fd, sa, err := socket(addr)
	if err != nil {
		return -1, err
	}
	if err = unix.Connect(fd, sa); err == nil {
		err = prepare(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("cannot connect to %s: %w", addr, err)
	}
	return fd, nil
}

// prepare makes a connected socket what the loop expects: non-blocking, and sending at once.
func prepare(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}
