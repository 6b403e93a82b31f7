package meshtest

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

func TestAddressesAreClaimed(t *testing.T) {
	const n = 500
	seen := map[string]bool{}
	for range n {
		addr := Address(t)
		if seen[addr] {
			t.Fatalf("%s is given twice", addr)
		}
		seen[addr] = true
		if c, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("somebody is at %s: %v, %v", addr, c, err)
		}
	}
	// What the kernel picks by itself is never among them.
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if seen[l.Addr().String()] {
			t.Errorf("the kernel gives %s away", l.Addr())
		}
	}
	for addr := range seen { // the owner may listen, and again
		for range 2 {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	}
}

func TestReleasedAddressesAreFree(t *testing.T) {
	addr, release, err := Claim()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := net.ListenPacket("udp4", addr); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("another could claim %s: %v, %v", addr, c, err)
	}
	release()
	again, err := net.ListenPacket("udp4", addr)
	if err != nil {
		t.Fatalf("%s stays claimed: %v", addr, err)
	}
	again.Close()
}
