package upstream

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/limit"
)

// Overflow names the limit that was reached.
type Overflow string

// The limits of a cluster, as metrics and answers name them.
const (
	OverflowConnections Overflow = "connections"
	OverflowPending     Overflow = "pending"
	OverflowRequests    Overflow = "requests"
	OverflowRetries     Overflow = "retries"
)

// ErrOverflow says that a limit of the cluster was reached: Envoy's 503 with the flag UO.
type ErrOverflow struct{ What Overflow }

func (e *ErrOverflow) Error() string {
	return "the limit of " + string(e.What) + " of the destination is reached"
}

// ErrInterrupted says that the wait for a connection was ended by Turn.Interrupt.
var ErrInterrupted = errors.New("the wait for a connection was ended")

var (
	errPending     = &ErrOverflow{OverflowPending}
	errConnections = &ErrOverflow{OverflowConnections}
)

// ErrTooMany is Admit's ErrOverflow.
var ErrTooMany error = &ErrOverflow{OverflowRequests}

// limits bound one cluster. They are kept across configurations, by the cluster's name, as its connections are, and stay,
// bounding nothing, where a configuration takes them away.
//
// Locks are taken in this order: limits.mu, then Endpoint.mu.
type limits struct {
	clock                      balance.Clock
	requests, pending, retries *limit.Count
	budget                     *limit.Budget
	budgeted                   atomic.Bool                  // the budget stands in for a fixed number of retries
	recent                     atomic.Pointer[limit.Recent] // what the budget is a share of, where that is not what is under way
	tuning                     atomic.Pointer[tuning]
	refused                    atomic.Uint64 // opaque connections that found no room

	// queued counts who waits or is about to look whether it has to: whoever gives something back looks at it, afterwards,
	// so that one of the two sees the other.
	queued atomic.Int32
	excess atomic.Bool // more connections than may be: one that is given back is closed

	mu        sync.Mutex
	gate      *limit.Gate // before connections, those being dialled included
	endpoints []*Endpoint // those in force, whose idle connections can make room
}

// tuning is how long connections live and what their sockets are told.
type tuning struct {
	perConnection  uint32 // requests; 0 is any number
	idle, duration int64  // nanoseconds; 0 is for ever
	dialer         net.Dialer
}

// untuned is what holds where no limits do.
var untuned = tuning{idle: int64(idleTimeout)}

func newLimits(clock balance.Clock) *limits {
	const none = limit.Unlimited
	l := &limits{clock: clock, requests: limit.NewCount(none), pending: limit.NewCount(none), retries: limit.NewCount(none)}
	l.budget, l.gate = limit.NewBudget(0, 0), limit.NewGate(none)
	l.tuning.Store(&untuned)
	return l
}

// configure puts spec in force, nil being no limits, over the endpoints that a configuration names.
func (l *limits) configure(spec *model.Limits, endpoints []*Endpoint) {
	if spec == nil {
		spec = &model.Limits{}
	}
	l.requests.Configure(most(spec.Requests))
	l.pending.Configure(most(spec.Pending))
	if b := spec.Budget; b != nil {
		l.budget.Configure(b.Percent, b.Least)
	}
	l.remember(spec.Budget)
	l.tuning.Store(tune(spec))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retries.Configure(most(spec.Retries))
	l.budgeted.Store(spec.Budget != nil)
	l.endpoints = endpoints
	for _, e := range endpoints {
		l.attach(e)
	}
	l.gate.Configure(most(spec.Connections))
	l.admit()
}

// remember begins to count what begins, where the budget b has an interval; as long as that stays the same, it goes on.
func (l *limits) remember(b *model.RetryBudget) {
	switch was := l.recent.Load(); {
	case b == nil || b.Interval <= 0:
		l.recent.Store(nil)
	case was == nil || was.Span() != b.Interval.Std():
		l.recent.Store(limit.NewRecent(b.Interval.Std(), l.clock()))
	}
}

func most(n *uint32) uint32 {
	if n == nil {
		return limit.Unlimited
	}
	return *n
}

func tune(spec *model.Limits) *tuning {
	t := &tuning{perConnection: spec.PerConnection, idle: untuned.idle, duration: int64(spec.Duration)}
	if spec.Idle != nil {
		t.idle = int64(*spec.Idle)
	}
	if k := spec.KeepAlive; k != nil {
		t.dialer.KeepAliveConfig = net.KeepAliveConfig{
			Enable: true, Idle: orSystem(k.Time.Std()), Interval: orSystem(k.Interval.Std()), Count: int(k.Probes),
		}
		if k.Probes == 0 {
			t.dialer.KeepAliveConfig.Count = -1
		}
	}
	return t
}

// orSystem is a keep-alive time as net wants it: negative leaves the system's own.
func orSystem(d time.Duration) time.Duration {
	if d <= 0 {
		return -1
	}
	return d
}

// attach makes l count the connections of e, those that are open already included; mu is held.
func (l *limits) attach(e *Endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.limits.Load() != l {
		e.limits.Store(l)
		l.gate.Force(e.open)
	}
}

// tuning returns how long e's connections live.
func (e *Endpoint) tuning() *tuning {
	if l := e.limits.Load(); l != nil {
		return l.tuning.Load()
	}
	return &untuned
}

// Limited says whether the configuration bounds what is done with the cluster: waits and retries have to be asked for.
func (c *Cluster) Limited() bool { return c.limits != nil }

// Retry counts a retry that begins, from before its back-off on, unless as many as may be are under way (maxRetries, or the
// retry budget in its place). Where it returns true, RetryDone has to follow, once, on the same Cluster.
func (c *Cluster) Retry() bool {
	l := c.limits
	if l == nil {
		return true
	}
	if l.budgeted.Load() {
		l.mu.Lock()
		if l.budgeted.Load() { // a change may have taken the budget away, and its number must not outlast it
			l.retries.Configure(l.allowed())
		}
		l.mu.Unlock()
	}
	return l.retries.Take()
}

// allowed is how many retries the budget has room for in all.
func (l *limits) allowed() uint32 {
	if r := l.recent.Load(); r != nil {
		return l.budget.Most(r.Sum(l.clock()))
	}
	return l.budget.Most(l.requests.Current() + l.pending.Current())
}

// RetryDone ends what Retry began.
func (c *Cluster) RetryDone() {
	if c.limits != nil {
		c.limits.retries.Give()
	}
}

// Admission is an attempt's place among the requests under way. The zero Admission is none.
type Admission struct{ limits *limits }

// Admit counts an attempt that is about to be sent to e, of either version, and fails with ErrOverflow where as many as may be
// are under way (http2MaxRequests). Done ends it: before the connection is given back, as the next one may take both.
func (e *Endpoint) Admit(a *Admission) error {
	l := e.limits.Load()
	if l == nil {
		return nil
	}
	if !l.requests.Take() {
		return ErrTooMany
	}
	a.limits = l
	if r := l.recent.Load(); r != nil {
		r.Add(l.clock())
	}
	return nil
}

// Done ends an attempt; a second call does nothing.
func (a *Admission) Done() {
	if l := a.limits; l != nil {
		a.limits = nil
		l.requests.Give()
	}
}

// Pool is what a cluster with limits has of something, and how much there may be.
type Pool struct {
	Current, Limit int // limit.Unlimited where there is none
	Overflows      uint64
}

// Pools are those of one cluster.
type Pools struct{ Connections, Pending, Requests, Retries Pool }

// Pools tells how full c is; false where nothing bounds it.
func (c *Cluster) Pools() (Pools, bool) {
	l := c.limits
	if l == nil {
		return Pools{}, false
	}
	l.mu.Lock()
	connections := Pool{l.gate.Inside(), int(l.gate.Most()), l.refused.Load()}
	l.mu.Unlock()
	p := Pools{Connections: connections, Pending: poolOf(l.pending), Requests: poolOf(l.requests), Retries: poolOf(l.retries)}
	if l.budgeted.Load() {
		p.Retries.Limit = int(l.allowed())
	}
	return p, true
}

func poolOf(c *limit.Count) Pool { return Pool{c.Current(), int(c.Most()), c.Overflows()} }
