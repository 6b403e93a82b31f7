package limit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// What has begun counts for the span, and not much longer: the same as a list of all instants.
func TestRecent(t *testing.T) {
	const span = 100
	r, dice := NewRecent(span, 0), rand.New(rand.NewPCG(3, 4))
	var begun []int64
	now := int64(0)
	for range 20000 {
		now += dice.Int64N(30)
		if dice.IntN(40) == 0 {
			now += 300
		}
		if dice.IntN(2) == 0 {
			r.Add(now)
			begun = append(begun, now)
		}
		surely, perhaps := 0, 0
		for i := len(begun) - 1; i >= 0 && now-begun[i] <= span+span/10; i-- {
			perhaps++
			if now-begun[i] <= span {
				surely++
			}
		}
		if got := r.Sum(now); got < surely || got > perhaps {
			t.Fatalf("at %d: %d, want %d to %d", now, got, surely, perhaps)
		}
	}
	if r.Span() != span {
		t.Error(r.Span())
	}
}

func TestRecentAllocations(t *testing.T) {
	r := NewRecent(time.Second, 0)
	now := int64(0)
	if n := testing.AllocsPerRun(100, func() { now += 1e7; r.Add(now); r.Sum(now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
