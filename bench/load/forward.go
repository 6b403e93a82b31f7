//go:build linux

package load

import (
	"errors"
	"io"
	"net"
	"sync"
)

// Forward is the floor that a Go proxy with a goroutine for each connection stands on: it relays each connection of ln
// to the next of the backends, one request and one answer at a time, looks at nothing but where a message ends, and
// has no features. It returns when ln is closed and all connections have ended.
func Forward(ln net.Listener, backends []string) error {
	return between(ln, backends, func(down, up net.Conn) {
		buffer := make([]byte, bufferSize/2)
		for relayOne(up, down, buffer) && relayOne(down, up, buffer) {
		}
	})
}

// Splice is the floor for opaque bytes: io.Copy both ways, which on Linux leaves the moving to the kernel. It returns as
// Forward does.
func Splice(ln net.Listener, backends []string) error {
	return between(ln, backends, func(down, up net.Conn) {
		var other sync.WaitGroup
		other.Go(func() { pipe(up, down) })
		pipe(down, up)
		other.Wait()
	})
}

// pipe copies until src ends, and passes the end on.
func pipe(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if err != nil {
		_ = src.Close() // so that the other direction ends too
	}
	_ = dst.(*net.TCPConn).CloseWrite() // it may be gone already
}

// between relays each connection of ln, joined with one to the next of the backends, until it returns.
func between(ln net.Listener, backends []string, relay func(down, up net.Conn)) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for i := 0; ; i++ {
		down, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		addr := backends[i%len(backends)]
		conns.Go(func() {
			defer func() { _ = down.Close() }() // the peer is gone or told so by the close
			up, err := net.Dial("tcp4", addr)
			if err != nil {
				return
			}
			defer func() { _ = up.Close() }()
			relay(down, up)
		})
	}
}

// relayOne passes one message from src to dst and says whether it was whole.
func relayOne(dst, src net.Conn, buffer []byte) bool {
	have := 0
	var h head
	for h.size == 0 {
		n, err := src.Read(buffer[have:])
		have += n
		if err != nil {
			return false
		}
		if h, err = parseHead(buffer[:have]); err != nil || h.size == 0 && have == len(buffer) {
			return false
		}
	}
	left := h.size + max(h.body, 0)
	for {
		if _, err := dst.Write(buffer[:have]); err != nil {
			return false
		}
		if left -= have; left <= 0 {
			return left == 0
		}
		var err error
		if have, err = src.Read(buffer); err != nil {
			return false
		}
	}
}
