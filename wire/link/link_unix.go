//go:build unix

package link

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pair returns two connections that are each other's ends, with nothing but this machine's memory between them.
func Pair() (a, b net.Conn, err error) {
	syscall.ForkLock.RLock() // a probe's command, started between the two, would hold them
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, cerr := net.FileConn(f) // a copy of the descriptor, that does not block
		_ = f.Close()
		ends[i], err = c, errors.Join(err, cerr)
	}
	if err != nil {
		for _, c := range ends {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, nil, err
	}
	return ends[0], ends[1], nil
}

// tryReceive reads once without waiting; false asks to be called again when the descriptor is readable.
func (l *Link) tryReceive(fd uintptr) bool {
	b := GetBuffer()
	var n int
	var err error
	if l.Secured() {
		n, err = l.carrier.readNow(l.conn, fd, b.data[b.end:])
	} else {
		n, err = readFD(fd, b.data[b.end:])
	}
	if n == 0 && errors.Is(err, syscall.EAGAIN) {
		PutBuffer(b)
		return false
	}
	if n > 0 {
		b.end += n
		l.got = b
		return true
	}
	PutBuffer(b)
	l.err = err
	if err == nil {
		l.err = io.EOF
	}
	return true
}

// readNow reads from t, the TLS connection that runs over c, without waiting: EAGAIN says that no whole record is there.
// TLS keeps what has come of one, and goes on with it at the next read, as that error is a temporary one (net.Error).
func (c *carrier) readNow(t net.Conn, fd uintptr, p []byte) (n int, err error) {
	c.now, c.fd = true, fd
	n, err = t.Read(p)
	c.now = false
	return n, err
}

// readSocket reads what TLS asks for during readNow.
func (c *carrier) readSocket(p []byte) (n int, err error) {
	n, err = readFD(c.fd, p)
	switch {
	case n == 0 && err == nil && len(p) > 0:
		err = io.EOF
	case err != nil && !errors.Is(err, syscall.EAGAIN):
		err = os.NewSyscallError("read", err)
	}
	return n, err
}

func readFD(fd uintptr, p []byte) (n int, err error) {
	for {
		n, err = syscall.Read(int(fd), p)
		if err != syscall.EINTR { //nolint:errorlint // an Errno as the kernel gave it
			return max(n, 0), err
		}
	}
}

// tryAsk is tryReceive that writes l.out once it has seen that nothing is there to read.
func (l *Link) tryAsk(fd uintptr) bool {
	if l.asked {
		return l.tryReceive(fd)
	}
	if l.tryReceive(fd) {
		if l.got != nil {
			PutBuffer(l.got)
			l.got = nil
		}
		l.err = ErrStale
		return true
	}
	l.asked = true
	p := l.out
	for len(p) > 0 {
		n, err := syscall.Write(int(fd), p)
		if n > 0 {
			p = p[n:]
			continue
		}
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if errors.Is(err, syscall.EAGAIN) {
			_, err = l.conn.Write(p) // waits for room
			p = nil
		}
		if err != nil {
			l.err = err
			if len(p) == len(l.out) {
				l.err = ErrStale // it refused the first byte: the peer's reset came in between
			}
			return true
		}
	}
	return false
}

// push writes what the socket takes of p without waiting.
func (l *Link) push(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	l.pushing, l.pushed, l.pushErr = p, 0, nil
	err = l.raw.Control(l.dispatch)
	l.pushing = nil
	if err == nil {
		err = l.pushErr
	}
	return l.pushed, err
}

// tryPush writes once; a write that took less than all has filled the socket.
func (l *Link) tryPush(fd uintptr) {
	for {
		n, err := syscall.Write(int(fd), l.pushing)
		switch {
		case n > 0:
			l.pushed = n
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EAGAIN):
			l.pushErr = os.NewSyscallError("write", err)
		}
		return
	}
}

// Fresh says whether a kept connection can take a request: its peer has neither closed it nor sent bytes that nobody
// asked for, which could be taken for the answer to the next request.
func (l *Link) Fresh() bool {
	n, err := l.peek()
	if n > 0 && l.Secured() {
		return l.quiet()
	}
	return errors.Is(err, syscall.EAGAIN)
}

// Ended says whether the peer has ended its side with nothing left to read, without waiting or reading.
func (l *Link) Ended() bool {
	n, err := l.peek()
	if n > 0 && l.Secured() {
		return l.farewell()
	}
	return n == 0 && err == nil || err != nil && !errors.Is(err, syscall.EAGAIN)
}

// maxAlert is the length of an encrypted TLS alert at most (TLS 1.2's with an explicit nonce); no request is so short.
const maxAlert = 31

// farewell says whether a secured peer has ended its side with nothing left to read but the alert that says so.
func (l *Link) farewell() (yes bool) {
	_ = l.raw.Control(func(fd uintptr) {
		var b [maxAlert + 1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		yes = err == nil && n <= maxAlert && halfClosed(int(fd))
	})
	return yes
}

// Pending says whether bytes are there to read.
func (l *Link) Pending() bool {
	n, _ := l.peek()
	return n > 0
}

// peek looks at the next byte without taking it or waiting.
func (l *Link) peek() (n int, err error) {
	cerr := l.raw.Control(func(fd uintptr) {
		var one [1]byte
		for {
			n, _, err = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			if !errors.Is(err, syscall.EINTR) {
				return
			}
		}
	})
	if cerr != nil {
		return 0, cerr
	}
	return max(n, 0), err
}

// Traffic is what has passed on a connection, by the kernel's count.
type Traffic struct {
	Sent, Received int64 // bytes; sent ones are acknowledged
}

// Traffic returns what has passed so far, or false where the kernel does not say, or knows only what TLS made of it.
func (l *Link) Traffic() (t Traffic, ok bool) {
	if l.Secured() {
		return Traffic{}, false
	}
	_ = l.raw.Control(func(fd uintptr) { t, ok = traffic(int(fd)) })
	return t, ok
}

// Acked returns how many bytes the peer's kernel has acknowledged, TLS's own included, or false where ours does not say.
func (l *Link) Acked() (n int64, ok bool) {
	var t Traffic
	_ = l.raw.Control(func(fd uintptr) { t, ok = traffic(int(fd)) })
	return t.Sent, ok
}

// Used is Traffic as it will be once the peer has acknowledged all that was written, without what nobody has read yet:
// what Traffic says later, less this, has been written and read since, or waits to be read.
func (l *Link) Used() (t Traffic, ok bool) {
	if l.Secured() {
		return Traffic{}, false
	}
	_ = l.raw.Control(func(fd uintptr) { t, ok = used(int(fd)) })
	return t, ok
}
