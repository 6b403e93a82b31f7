// Package upstream holds the live clusters of a proxy: endpoints, their connections and counters, all the state that outlives a snapshot.
//
// Configuration is replaced, state is kept: a Change builds the clusters of a new snapshot over the endpoints that are
// there already, by cluster name and address; Commit makes it the one in force and retires what is no longer named.
package upstream

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// Idle limits: how long a connection is kept (Istio's http.idleTimeout), and one to an address that only traffic named.
const (
	idleTimeout     = time.Hour
	passthroughIdle = 5 * time.Minute
)

// Set is all live clusters of one proxy.
type Set struct {
	metrics *telemetry.Metrics
	log     *slog.Logger
	// speak makes the connection of HTTP/2 over a link, with a handler for what happens there.
	speak   func(*Shared) *mux.Mux
	clock   balance.Clock
	serving sync.WaitGroup // their readers

	mu      sync.Mutex
	state   map[key]*Endpoint
	dialled map[string]*dialled
	limits  map[string]*limits // by cluster; what never had any has none here
	current map[string]*Cluster
	// breakers and watched are replaced as a whole.
	breakers   map[string]*Breaker
	allowances map[string]allowance // the same; one change at a time reads it without mu
	watched    []*Health
	accruing   []*Cluster
	sweeps     int
}

// key names an endpoint's state. How it is spoken to is part of it: a connection that was made in the clear, or to whom another
// configuration trusted, must never be used under a new one.
type key struct {
	cluster, address string
	tls              *certificate.Client
}

// NewSet returns an empty set that counts in m. speak makes the HTTP/2 of a new connection over its Link. All instants that
// the set is given are clock's.
func NewSet(m *telemetry.Metrics, log *slog.Logger, speak func(*Shared) *mux.Mux, clock balance.Clock) *Set {
	return &Set{metrics: m, log: log, speak: speak, clock: clock, state: map[key]*Endpoint{}, dialled: map[string]*dialled{}, current: map[string]*Cluster{}}
}

// Change is a set of clusters that is ready to be put in force.
type Change struct {
	set *Set
	// Clusters are the new clusters by name.
	Clusters map[string]*Cluster
	state    map[key]*Endpoint
	dialled  map[string]*dialled
	breakers map[string]*Breaker
	limits   map[string]*limits

	allowances map[string]allowance
}

// Prepare builds clusters and the breakers before them; nothing that is in force changes.
func (s *Set) Prepare(specs []model.Cluster, breakers []model.Breaker) (*Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := &Change{set: s, Clusters: make(map[string]*Cluster, len(specs)), state: make(map[key]*Endpoint, len(s.state)), dialled: map[string]*dialled{}, limits: map[string]*limits{}, breakers: map[string]*Breaker{}, allowances: map[string]allowance{}}
	for i := range specs {
		c, err := ch.cluster(&specs[i])
		if err != nil {
			ch.release()
			return nil, fmt.Errorf("cluster %q: %w", specs[i].Name, err)
		}
		ch.Clusters[specs[i].Name] = c
	}
	if err := ch.guard(breakers); err != nil {
		ch.release()
		return nil, err
	}
	return ch, nil
}

// cluster builds one cluster over the endpoints that s has. It is called with s locked.
func (ch *Change) cluster(spec *model.Cluster) (*Cluster, error) {
	s := ch.set
	c := &Cluster{Spec: spec, set: s, ConnectTimeout: spec.ConnectTimeout.Std(), Members: make([]Member, len(spec.Endpoints))}
	if c.ConnectTimeout <= 0 {
		c.ConnectTimeout = DefaultConnectTimeout
	}
	old := s.current[spec.Name]
	if old == nil {
		old = &Cluster{}
	}
	var err error
	if spec.TLS != nil {
		if c.TLS, err = certificate.NewClient(spec.TLS, old.TLS, s.log); err != nil {
			return nil, err
		}
	}
	hosts, now := make([]*balance.Host, len(spec.Endpoints)), s.clock()
	for i := range spec.Endpoints {
		e := &spec.Endpoints[i]
		k := key{spec.Name, e.Address, c.TLS}
		ep := s.state[k]
		if ep == nil {
			ep = &Endpoint{address: e.Address, set: s}
			ep.vitals.Since.Store(now)
		}
		ch.state[k] = ep
		hosts[i] = &balance.Host{Key: e.Address, Weight: e.Weight, Priority: e.Priority, Locality: e.Locality, Share: e.Share, Vitals: &ep.vitals}
		c.Members[i] = Member{Endpoint: ep, Host: hosts[i], Spec: e}
	}
	if c.Balancer, err = balance.NewPool(spec.LoadBalancer, spec.Panic, hosts, old.Balancer, s.clock); err != nil {
		return nil, err
	}
	if c.Tally = old.Tally; c.Tally == nil {
		c.Tally = new(Tally)
	}
	if err := ch.health(c, old); err != nil {
		return nil, err
	}
	if spec.LoadBalancer.Hash != nil {
		c.Hasher = balance.NewHasher(spec.LoadBalancer.Hash)
	}
	ch.limit(c)
	if c.Retries, err = ch.Allowance("", spec.Retries); err != nil {
		return nil, err
	}
	if spec.Kind == model.Passthrough {
		if c.dialled = s.dialled[spec.Name]; c.dialled == nil || old.TLS != c.TLS {
			c.dialled = &dialled{endpoints: map[string]*Endpoint{}, set: s}
		}
		ch.dialled[spec.Name] = c.dialled
	}
	if spec.Kind != model.Application {
		c.count(s.metrics)
	}
	return c, nil
}

// limit finds the limits that the cluster's name has, or makes them where there were none; Commit puts the new ones in force.
func (ch *Change) limit(c *Cluster) {
	l := ch.set.limits[c.Spec.Name]
	if c.Spec.Limits != nil {
		if l == nil {
			l = newLimits(ch.set.clock)
		}
		c.limits = l
	}
	if l != nil {
		ch.limits[c.Spec.Name] = l
	}
}

// bound puts the limits of a cluster in force.
func (c *Cluster) bound(l *limits) {
	endpoints := make([]*Endpoint, len(c.Members))
	for i := range c.Members {
		endpoints[i] = c.Members[i].Endpoint
	}
	l.configure(c.Spec.Limits, endpoints)
	if c.dialled != nil {
		c.dialled.bound(l)
	}
}

// count takes the metric handles of c and its members; release gives them back.
func (c *Cluster) count(m *telemetry.Metrics) {
	spec, opaque := c.Spec, tunnelled(c.Spec)
	c.Unserved = m.HTTP(edge(spec, model.Peer{}))
	if opaque {
		c.UnservedTCP = m.TCP(edge(spec, model.Peer{}))
	}
	for i := range c.Members {
		t := &c.Members[i]
		t.Counter = m.Upstream(spec.Service, spec.Port, spec.Subset, t.Spec.Address)
		t.Edge = m.HTTP(edge(spec, t.Spec.Peer))
		if opaque {
			t.TCP = m.TCP(edge(spec, t.Spec.Peer))
		}
	}
}

// tunnelled says whether connections may be passed on to the cluster unread.
func tunnelled(c *model.Cluster) bool {
	switch c.Protocol {
	case model.TCP, model.TLS, model.HTTPS, model.HTTP2, model.GRPC, model.Auto:
		return true
	}
	return c.Kind == model.Passthrough
}

func edge(c *model.Cluster, p model.Peer) telemetry.Edge {
	return telemetry.Edge{Reporter: telemetry.Source, Peer: p, Service: c.Service, Security: "unknown"}
}

// release gives the metric handles of a change's clusters back.
func (ch *Change) release() { release(ch.set.metrics, ch.Clusters) }

func release(m *telemetry.Metrics, clusters map[string]*Cluster) {
	for _, c := range clusters {
		if c.Unserved != nil {
			m.Release(c.Unserved)
		}
		if c.UnservedTCP != nil {
			m.ReleaseTCP(c.UnservedTCP)
		}
		for i := range c.Members {
			if e := c.Members[i].Edge; e != nil {
				m.Release(e)
			}
			if t := c.Members[i].TCP; t != nil {
				m.ReleaseTCP(t)
			}
			if u := c.Members[i].Counter; u != nil {
				m.ReleaseUpstream(u)
			}
		}
	}
}

// Discard drops a change that will not be put in force.
func (ch *Change) Discard() { ch.release() }

// Commit puts the change in force and retires every endpoint that it does not name.
func (ch *Change) Commit() {
	s := ch.set
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range ch.state {
		e.revive()
	}
	for k, e := range s.state {
		if ch.state[k] != e {
			e.retire()
		}
	}
	for name, d := range s.dialled {
		if ch.dialled[name] != d {
			d.retire()
		}
	}
	s.watched, s.accruing = nil, nil
	for _, c := range ch.Clusters {
		for i := range c.Members {
			c.Members[i].keepAlive.Store(c.Spec.KeepAlive2)
		}
		if c.Health != nil {
			c.Health.watch(c, s.clock())
			s.watched = append(s.watched, c.Health)
		}
		if c.Spec.Accrual != nil {
			c.accrue()
			s.accruing = append(s.accruing, c)
		}
		if c.judged() || s.current[c.Spec.Name].judged() {
			c.ejections(s.clock())
		}
	}
	for _, b := range ch.breakers {
		b.Configure(b.settings, s.clock())
	}
	s.breakers, s.allowances = ch.breakers, ch.allowances
	for name, l := range ch.limits {
		ch.Clusters[name].bound(l)
	}
	release(s.metrics, s.current)
	s.state, s.dialled, s.limits, s.current = ch.state, ch.dialled, ch.limits, ch.Clusters
	for _, c := range s.current {
		c.Balancer.Changed() // what happened since Prepare was told to the clusters before
	}
}

// Current returns the clusters in force. The map is not to be changed.
func (s *Set) Current() map[string]*Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Sweep closes what was idle too long, and now and then what peers have closed. now is coarse monotonic nanoseconds; call it about once a second.
func (s *Set) Sweep(now int64) {
	s.mu.Lock()
	state, passed, current := s.state, s.dialled, s.current
	s.sweeps++
	peek := s.sweeps%5 == 0
	s.mu.Unlock()
	for _, e := range state {
		e.sweep(now, 0, peek)
	}
	for _, d := range passed {
		d.sweep(now, peek)
	}
	for _, c := range current {
		if c.Spec.LoadBalancer.Warmup != nil {
			c.Balancer.Changed()
		}
	}
}

// Close retires everything and waits until no connection is read any more.
func (s *Set) Close() {
	s.mu.Lock()
	for _, e := range s.state {
		e.retire()
	}
	for _, d := range s.dialled {
		d.retire()
	}
	s.mu.Unlock()
	s.serving.Wait()
}
