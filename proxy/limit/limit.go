// Package limit decides how much may be going on at once, and how often: connections, requests, those that wait, retries, and requests by the second.
//
// Everything is a function of what was called and of the instants that the caller gives (nanoseconds from any fixed
// moment). Nothing in here waits: a Gate says whose turn it is, and its owner tells them.
package limit

import (
	"math"
	"sync/atomic"
)

// Unlimited is a limit that nothing reaches: what Istio sets where connectionPool sets none.
const Unlimited = math.MaxUint32

// Count is how many of something there are at once, and how many there may be. Where Envoy lets a few more through when
// many ask at the same time, this never does. It may be used by many at the same time.
type Count struct {
	most     atomic.Uint32
	current  atomic.Int64
	overflow atomic.Uint64
}

// NewCount returns a count of nothing that may reach most. 0 allows none.
func NewCount(most uint32) *Count {
	c := new(Count)
	c.most.Store(most)
	return c
}

// Configure changes how many there may be. What is there already stays, even above it.
func (c *Count) Configure(most uint32) { c.most.Store(most) }

// Take adds one if there is room, and counts an overflow if not. What was taken has to be given back, once.
func (c *Count) Take() bool {
	if c.current.Add(1) <= int64(c.most.Load()) {
		return true
	}
	c.current.Add(-1)
	c.overflow.Add(1)
	return false
}

// Give takes one off that was taken.
func (c *Count) Give() { c.current.Add(-1) }

// Current returns how many there are.
func (c *Count) Current() int { return int(max(0, c.current.Load())) }

// Most returns how many there may be.
func (c *Count) Most() uint32 { return c.most.Load() }

// Overflows returns how often there was no room.
func (c *Count) Overflows() uint64 { return c.overflow.Load() }
