//go:build linux

package load

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// fdConn lets crypto/tls use a socket of the loop.
type fdConn struct{ fd int }

// errAgain is what reading a socket without anything to read gives: for crypto/tls an error that passes.
var errAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "nothing has arrived" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// Read reads what is there, or returns errAgain.
func (c *fdConn) Read(b []byte) (int, error) {
	n, err := unix.Read(c.fd, b)
	for err == unix.EINTR {
		n, err = unix.Read(c.fd, b)
	}
	switch {
	case err == unix.EAGAIN:
		return 0, errAgain
	case err != nil:
		return 0, err
	case n == 0:
		return 0, errClosed
	}
	return n, nil
}

// Write writes what fits.
func (c *fdConn) Write(b []byte) (int, error) { return unix.Write(c.fd, b) }

// Close does nothing: the socket is the loop's.
func (c *fdConn) Close() error { return nil }

// LocalAddr is unknown.
func (c *fdConn) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr is unknown.
func (c *fdConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline does nothing, as do the other two: the loop has deadlines of its own.
func (c *fdConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *fdConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *fdConn) SetWriteDeadline(time.Time) error { return nil }
