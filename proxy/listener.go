package proxy

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
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
}

// listen binds the address of b.
func (p *Proxy) listen(b *binding) (*listener, error) {
	s, err := net.Listen("tcp", b.spec.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", b.spec.Address, err)
	}
	l := &listener{proxy: p, asked: b.spec.Address, socket: s}
	l.live.Store(b)
	return l, nil
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

// retire stops accepting and asks each connection of l to end: an idle one at once, a busy one after its exchange.
func (l *listener) retire() {
	l.retired.Store(true)
	_ = l.socket.Close()
	for _, c := range l.proxy.conns.list(nil) {
		if c.listener == l {
			c.retire()
		}
	}
}
