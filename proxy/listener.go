package proxy

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/wire/link"
)

// listener accepts the connections of one address. It lives as long as snapshots name it at that address.
type listener struct {
	proxy     *Proxy
	asked     string // the address as the snapshot has it
	socket    net.Listener
	live      live
	accepting sync.WaitGroup
	open      atomic.Int64 // connections
	retired   atomic.Bool
	silent    sync.Once // says once that clients wait for servers to speak first
}

// listen binds an address.
func (p *Proxy) listen(address string) (*listener, error) {
	s, err := p.bind(address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return &listener{proxy: p, asked: address, socket: s}, nil
}

// at says whether l accepts at an address, as the snapshot has it or as it was bound.
func (l *listener) at(address string) bool {
	return address == l.asked || address == l.socket.Addr().String()
}

func (l *listener) start() { l.accepting.Go(l.accept) }

// accept takes connections until the socket is closed.
func (l *listener) accept() {
	p := l.proxy
	for {
		nc, err := l.socket.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors or memory: connections that end make room.
			p.log.Warn("cannot accept", "listener", l.asked, "reason", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if int(l.open.Load()) >= p.limits.Connections {
			p.stats.refused.Add(1)
			_ = nc.Close()
			continue
		}
		c := newConn(l, nc)
		if c == nil {
			_ = nc.Close()
			continue
		}
		l.open.Add(1)
		p.stats.accepted.Add(1)
		p.conns.add(c)
		p.serving.Go(c.serve)
	}
}

// leadsTo says whether up, which was dialled for a request that came in at l, ends at l again: the request would go round
// for ever. The address is that of the connection, whatever name it was dialled by.
func (l *listener) leadsTo(up *link.Link) bool {
	own, ok := l.socket.Addr().(*net.TCPAddr)
	there, here := up.Conn().RemoteAddr().(*net.TCPAddr), up.Conn().LocalAddr().(*net.TCPAddr)
	switch {
	case !ok || there.Port != own.Port:
		return false
	case own.IP.IsUnspecified():
		return there.IP.IsLoopback() || there.IP.Equal(here.IP) // an address of this machine
	}
	return there.IP.Equal(own.IP)
}

// retire stops accepting and asks each connection of l to end: an idle one at once, a busy one after its exchange.
func (l *listener) retire() {
	l.retired.Store(true)
	_ = l.socket.Close()
	l.accepting.Wait() // the last connection that was accepted is among those below
	for _, c := range l.proxy.conns.list(nil) {
		if c.listener == l {
			c.retire()
		}
	}
}
