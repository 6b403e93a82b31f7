package local

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// sockets says which addresses of this machine can be listened at. The zero value asks the machine; offline takes
// every address for free, and so gives the same addresses everywhere.
type sockets struct{ offline bool }

// try says whether addr can be listened at now: nil, or why not.
func (s sockets) try(addr string) error {
	if s.offline {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// take returns addr where it can be listened at, else the same host with a free port.
func (s sockets) take(host string, port int) string {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	if port != 0 && s.try(addr) == nil {
		return addr
	}
	return s.free(host)
}

// free returns host with a port that nobody uses at this moment; with port 0 where there is none.
func (s sockets) free(host string) string {
	unbound := net.JoinHostPort(host, "0")
	if s.offline {
		return unbound
	}
	l, err := net.Listen("tcp", unbound)
	if err != nil {
		return unbound
	}
	addr := l.Addr().String()
	_ = l.Close()
	return addr
}

// gateway returns where a gateway's port listens: its own number, 8000 more where only root may have that, any free
// one where it is taken.
func (s sockets) gateway(port int) string {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if s.offline && port >= 1024 {
		return addr
	}
	err := sockets{}.try(addr) // even offline: who may not have the port must not be given it
	if s.offline && !errors.Is(err, syscall.EACCES) {
		return addr
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
