package local

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// sockets chooses addresses of this machine, and holds each one until its listener takes it over: nobody else can come
// in between. Offline it takes every address for free and holds none, and so gives the same ones everywhere.
type sockets struct {
	offline bool

	mu   sync.Mutex
	held map[string]net.Listener // by address, as it was given out
}

// hold binds addr for listen, and returns it with the port that was found where it asked for any.
func (s *sockets) hold(addr string) (string, error) {
	if s.offline {
		return addr, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	if _, port, _ := net.SplitHostPort(addr); port == "0" {
		addr = l.Addr().String()
	}
	if s.held == nil {
		s.held = map[string]net.Listener{}
	}
	s.held[addr] = l
	return addr, nil
}

// listen hands over what is held at addr; where nothing is, it binds addr.
func (s *sockets) listen(addr string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.held[addr]; l != nil {
		delete(s.held, addr)
		return l, nil
	}
	return net.Listen("tcp", addr)
}

// release lets go of what nobody has taken over.
func (s *sockets) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.held {
		_ = l.Close()
	}
	clear(s.held)
}

// try says whether addr could be listened at now: nil, or why not.
func (s *sockets) try(addr string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[addr] != nil {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// take holds addr where it can be listened at, else the same host with a free port.
func (s *sockets) take(host string, port int) string {
	if port != 0 {
		if addr, err := s.hold(net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			return addr
		}
	}
	return s.free(host)
}

// free holds a free port of host; where there is none, it returns host with port 0.
func (s *sockets) free(host string) string {
	unbound := net.JoinHostPort(host, "0")
	addr, err := s.hold(unbound)
	if err != nil {
		return unbound
	}
	return addr
}

// gateway returns where a gateway's port listens: its own number, 8000 more where only root may have that, any free
// one where it is taken.
func (s *sockets) gateway(port int) string {
	own := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	addr, err := s.hold(own)
	if s.offline && port < 1024 {
		err = s.try(own) // even offline: who may not have the port must not be given it
		if !errors.Is(err, syscall.EACCES) {
			err = nil
		}
	}
	switch {
	case err == nil:
		return addr
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return s.take("127.0.0.1", port+8000)
	}
	return s.free("127.0.0.1")
}

// block is 127.N.0.0/16, from which the instances of one mesh have their addresses; the zero block gives all of them
// 127.0.0.1, for machines that have no other loopback address.
type block struct {
	n     int
	claim net.PacketConn // held while the mesh runs: other meshes see that the block is taken
}

// claimPort is where a block's claim is bound, at 127.N.0.0: nobody sends there.
const claimPort = "15001"

// claimBlock takes the first block that no other mesh on this machine has.
func claimBlock() block {
	for n := 1; n < 255; n++ {
		claim, err := net.ListenPacket("udp4", fmt.Sprintf("127.%d.0.0:%s", n, claimPort))
		if err == nil {
			return block{n: n, claim: claim}
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break // such addresses cannot be bound here
		}
	}
	return block{}
}

// address returns the address of the instance of that number, which counts from 1.
func (b block) address(number int) string {
	if b.n == 0 {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.%d.%d.%d", b.n, number>>8&255, number&255)
}

func (b block) close() error {
	if b.claim == nil {
		return nil
	}
	return b.claim.Close()
}
