package http2

import "testing"

// TestNoAllocations holds the engine to no allocation for an exchange, once its buffers have grown, at either end.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a pool drops what it is given now and then")
	}
	m := newMeshPair()
	for range 50 {
		m.exchanges(t, 50)
	}
	if n := testing.AllocsPerRun(200, func() { m.exchanges(t, 1) }); n > 0 {
		t.Errorf("%v allocations for one exchange", n)
	}
	if n := testing.AllocsPerRun(50, func() { m.exchanges(t, 50) }); n > 0 {
		t.Errorf("%v allocations for fifty exchanges", n)
	}
}
