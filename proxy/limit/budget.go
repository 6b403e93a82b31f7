package limit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Budget is Envoy's retry budget: retries may be so much of what is going on. It may be used by many at the same time.
type Budget struct {
	share atomic.Uint64 // of the requests, in millionths of one
	least atomic.Uint32
}

// NewBudget returns a budget of percent of the requests under way (retryBudget.percent, 0 to 100, Envoy's default is 20), but of
// least retries at any rate (minRetryConcurrency; the default is 3).
func NewBudget(percent float64, least uint32) *Budget {
	b := new(Budget)
	b.Configure(percent, least)
	return b
}

// Configure changes the budget.
func (b *Budget) Configure(percent float64, least uint32) {
	b.share.Store(uint64(min(max(percent, 0), 100)*1e4 + 0.5))
	b.least.Store(least)
}

// Most returns how many retries may run, or wait for their back-off, at once; requests counts those under way and those that
// wait for a connection. A fraction of a retry is none.
func (b *Budget) Most(requests int) uint32 {
	return max(uint32(min(uint64(max(requests, 0))*b.share.Load()/1e6, Unlimited)), b.least.Load())
}

// Allowance is Linkerd's retry budget, and the Gateway API's: each request allows for a part of a retry, for a while, and a few retries
// are allowed each second at any rate. It may be used by many at the same time.
type Allowance struct {
	mu      sync.Mutex
	deposit int64 // of a request, in thousandths of a retry
	reserve int64
	past    // what was saved and not spent: with a slot goes what was spent in it as well
}

// retry is what one costs.
const retry = 1000

// NewAllowance returns a budget of ratio retries for each request of the last ttl, and perSecond retries in each second of it besides.
// Linkerd's and the Gateway API's defaults are 0.2, 10 and 10 s; ratio may be from 0 to 1000, ttl from 1 s to 1 h.
func NewAllowance(ratio, perSecond float64, ttl time.Duration, now int64) (*Allowance, error) {
	switch {
	case !(ratio >= 0 && ratio <= 1000):
		return nil, fmt.Errorf("retryRatio is %v: it must be between 0 and 1000", ratio)
	case !(perSecond >= 0 && perSecond <= 1e9):
		return nil, fmt.Errorf("minRetriesPerSecond is %v: it must be between 0 and 1000000000", perSecond)
	case ttl < time.Second || ttl > time.Hour:
		return nil, fmt.Errorf("ttl is %v: it must be between 1s and 1h", ttl)
	}
	return &Allowance{
		deposit: int64(ratio*retry + 0.5),
		reserve: int64(perSecond*retry*ttl.Seconds() + 0.5),
		past:    newPast(10, int64(ttl)/10, now),
	}, nil
}

// Request counts one that is no retry.
func (a *Allowance) Request(now int64) {
	a.mu.Lock()
	a.advance(now)
	a.add(a.deposit)
	a.mu.Unlock()
}

// Retry says whether one may be made, and counts it if so.
func (a *Allowance) Retry(now int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(now)
	if a.sum+a.reserve < retry {
		return false
	}
	a.add(-retry)
	return true
}
