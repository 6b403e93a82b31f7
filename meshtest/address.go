// Package meshtest gives tests addresses on this machine that nobody else takes.
package meshtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports that are given away lie below those that the kernel picks by itself for connections and for port 0
// (32768 and up on Linux, 49152 and up elsewhere), and above those that servers have by custom.
const (
	first = 20000
	last  = 32767
)

// Tester is the part of testing.TB that addresses need.
type Tester interface {
	Helper()
	Fatal(args ...any)
	Cleanup(f func())
}

// Address returns a host:port of the loopback interface where nobody listens. It is the test's until the test ends: it may
// listen there, stop, begin again, or start a program that does.
func Address(t Tester) string {
	t.Helper()
	addr, release, err := Claim()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return addr
}

// Claim returns an address as Address does, which is the caller's until it releases it. A socket of UDP stands at the same
// port meanwhile: by it all that ask here, in whatever process, see that the port is taken.
func Claim() (addr string, release func(), err error) {
	for range 1000 {
		addr = fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first+1))
		claim, err := net.ListenPacket("udp4", addr)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp4", addr)
		if err != nil { // somebody who does not ask here
			_ = claim.Close()
			continue
		}
		_ = l.Close()
		return addr, func() { _ = claim.Close() }, nil
	}
	return "", nil, errors.New("cannot find a free port: a thousand are taken")
}
