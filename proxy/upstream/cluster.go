package upstream

import (
	"slices"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/accrual"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/limit"
	"github.com/outrider-mesh/outrider/proxy/outlier"
)

// DefaultConnectTimeout is used where a cluster names none (Istio's meshConfig.connectTimeout default).
const DefaultConnectTimeout = 10 * time.Second

// maxDialled bounds the addresses that a Passthrough cluster remembers; further ones are dialled afresh each time.
const maxDialled = 1024

// Cluster is one cluster as one configuration has it: immutable, over endpoints that live on.
type Cluster struct {
	Spec           *model.Cluster
	Members        []Member
	Balancer       *balance.Pool   // over Members
	Hasher         *balance.Hasher // nil where the policy hashes nothing
	ConnectTimeout time.Duration
	// TLS speaks to the endpoints, nil for plain text. Where it names no server, the cluster's own host is asked for.
	TLS *certificate.Client
	// Unserved counts exchanges that reached no endpoint.
	Unserved *telemetry.HTTP
	// UnservedTCP counts connections that reached none; nil where none are tunnelled to the cluster.
	UnservedTCP *telemetry.TCP

	// Breakers stand before it; the first that is for a request decides.
	Breakers []*Breaker
	// Health knows who is ejected, nil where nobody ever is.
	Health *Health

	// Tally counts retries.
	Tally *Tally
	// Retries allows them; nil where nothing bounds them over time.
	Retries *limit.Allowance
	// Distrusted is done once it was said that TLS with an endpoint failed, and why.
	Distrusted sync.Once

	set     *Set
	outlier outlier.Settings
	accrual accrual.Settings
	dialled *dialled // of a Passthrough cluster
	limits  *limits  // nil where nothing is bounded
}

// judged says whether some of c's members may be down: nil has none.
func (c *Cluster) judged() bool {
	return c != nil && (c.Health != nil || c.Spec.Accrual != nil || slices.ContainsFunc(c.Spec.Endpoints, func(e model.Endpoint) bool { return e.Unready }))
}

// ejections tells the members who of them is not to be picked: ejected, at rest, or not ready.
func (c *Cluster) ejections(now int64) {
	for i := range c.Members {
		m := &c.Members[i]
		down := m.Spec.Unready || m.Outlier != nil && m.Outlier.Ejected() || m.Accrual != nil && m.Accrual.Down()
		if m.Host.Down.Load() && !down {
			m.Host.Since.Store(now) // slow start begins anew
		}
		m.Host.Down.Store(down)
	}
}

// Member is an endpoint of a cluster with what one configuration says of it.
type Member struct {
	*Endpoint
	// Host is the endpoint as the balancer sees it, with what the endpoint tells it: exchanges under way, health, latency.
	Host *balance.Host
	Spec *model.Endpoint
	// Edge counts exchanges with it, Counter what it answered; nil for the workload's own application, whose exchanges
	// the callers' side counts.
	Edge    *telemetry.HTTP
	TCP     *telemetry.TCP // where connections are tunnelled to it
	Counter *telemetry.Upstream
	// Outlier is told how each attempt ended, nil where nobody is ejected.
	Outlier *outlier.Host
	// Accrual is told so too, where failures in a row make it rest; nil where they do not.
	Accrual *accrual.Endpoint
}

// dialled holds the endpoints that requests brought to a Passthrough cluster.
type dialled struct {
	mu        sync.Mutex
	endpoints map[string]*Endpoint
	// retired says that no configuration has the cluster any more: an exchange that began before leaves nothing behind.
	retired bool
	set     *Set
	limits  *limits
}

// Dialled returns the endpoint at an address that a request names.
func (c *Cluster) Dialled(address []byte, now int64) *Endpoint {
	d := c.dialled
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.endpoints[string(address)]
	if e == nil {
		e = &Endpoint{address: string(address), set: d.set}
		e.limits.Store(d.limits)
		if d.retired || len(d.endpoints) >= maxDialled {
			e.gone = true
			return e
		}
		d.endpoints[e.address] = e
	}
	e.lastUse.Store(now)
	return e
}

// sweep ends idle connections and forgets addresses that nobody has named for a while.
func (d *dialled) sweep(now int64, peek bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := now - int64(passthroughIdle)
	for a, e := range d.endpoints {
		e.sweep(now, int64(passthroughIdle), peek)
		if active, idle := e.Connections(); active+idle == 0 && e.lastUse.Load() < before {
			delete(d.endpoints, a)
		}
	}
}

// bound makes l count the connections of all endpoints, those to come included.
func (d *dialled) bound(l *limits) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limits = l
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range d.endpoints {
		l.attach(e)
	}
}

func (d *dialled) retire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.endpoints {
		e.retire()
	}
	clear(d.endpoints)
	d.retired = true
}
