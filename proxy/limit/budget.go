package limit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Budget is Envoy's retry budget: retries may be so much of what is going on. It may be used by many at the same time.
type Budget struct {
	share    atomic.Uint64 // of the requests, in millionths of one
	least    atomic.Uint32
	retries  atomic.Int64
	overflow atomic.Uint64
}

// NewBudget returns a budget of percent of the requests under way (retryBudget.percent, 0 to 100, Envoy's default is 20), but of
// least retries at any rate (minRetryConcurrency; the default is 3).
func NewBudget(percent float64, least uint32) *Budget {
	b := new(Budget)
	b.Configure(percent, least)
	return b
}

// Configure changes the budget. Retries that run go on.
func (b *Budget) Configure(percent float64, least uint32) {
	b.share.Store(uint64(min(max(percent, 0), 100)*1e4 + 0.5))
	b.least.Store(least)
}

// Take admits a retry while fewer run, or wait for their back-off, than the budget allows; requests counts those under way
// and those that wait for a connection. What was taken has to be given back, once.
func (b *Budget) Take(requests int) bool {
	if b.retries.Add(1) <= b.most(requests) {
		return true
	}
	b.retries.Add(-1)
	b.overflow.Add(1)
	return false
}

// most returns the retries that may be at once; a fraction of one is none.
func (b *Budget) most(requests int) int64 {
	return max(int64(uint64(max(requests, 0))*b.share.Load()/1e6), int64(b.least.Load()))
}

// Give takes a retry off that was taken.
func (b *Budget) Give() { b.retries.Add(-1) }

// Retries returns how many run.
func (b *Budget) Retries() int { return int(max(0, b.retries.Load())) }

// Remaining returns how many more there may be, by that many requests.
func (b *Budget) Remaining(requests int) int { return int(max(0, b.most(requests)-b.retries.Load())) }

// Overflows returns how often a retry was refused.
func (b *Budget) Overflows() uint64 { return b.overflow.Load() }

// Allowance is Linkerd's retry budget, and the Gateway API's: each request allows for a part of a retry, for a while, and a few retries
// are allowed each second at any rate. It may be used by many at the same time.
type Allowance struct {
	mu       sync.Mutex
	deposit  int64 // of a request, in thousandths of a retry
	reserve  int64
	past     // what was saved and not spent: with a slot goes what was spent in it as well
	overflow uint64
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
		a.overflow++
		return false
	}
	a.add(-retry)
	return true
}

// Remaining returns how many retries may be made at once.
func (a *Allowance) Remaining(now int64) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.advance(now)
	return int(max(0, a.sum+a.reserve) / retry)
}

// Overflows returns how often a retry was refused.
func (a *Allowance) Overflows() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.overflow
}
