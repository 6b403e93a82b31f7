package e2e

import (
	"io"
	"net"
	"sync"
)

// relay carries each connection that it accepts on another one, both ways, and passes half-closes on.
type relay struct {
	l    net.Listener
	dial func() (net.Conn, error)
	all  sync.WaitGroup
	mu   sync.Mutex
	open []net.Conn
	over bool
}

func (f *relay) accept() {
	for {
		c, err := f.l.Accept()
		if err != nil {
			return // stopped
		}
		f.all.Go(func() { f.carry(c) })
	}
}

func (f *relay) carry(c net.Conn) {
	defer c.Close()
	far, err := f.dial()
	if err != nil {
		return // the client sees its connection end
	}
	defer far.Close()
	if !f.keep(c, far) {
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, far}, {far, c}} {
		both.Go(func() {
			if _, err := io.Copy(way[0], way[1]); err != nil {
				_, _ = way[0].Close(), way[1].Close()
				return
			}
			_ = way[0].(*net.TCPConn).CloseWrite() // the peer may be gone altogether
		})
	}
	both.Wait()
}

// keep remembers connections for stop; false says that it is too late.
func (f *relay) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open = append(f.open, conns...)
	return !f.over
}

func (f *relay) stop() {
	_ = f.l.Close()
	f.mu.Lock()
	f.over = true
	for _, c := range f.open {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.all.Wait()
}
