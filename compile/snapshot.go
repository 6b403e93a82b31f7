package compile

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// placed is what a placement adds to the mesh: endpoints. It is kept while the same placement is asked for; what the next one
// leaves as it is, is taken over.
type placed struct {
	placement *Placement
	retries   *model.Retries // of routes to single instances
	former    *placed
	instances map[string][]*Instance // by workload
	claims    map[string]*Instance   // by address that Sidecars bind
	endpoints map[*port][]candidate
	clusters  map[seenCluster]filledCluster
	views     map[seenView]*placedView
}

// seenCluster is a cluster as clients of one place see it; seenView a view of theirs.
type (
	seenCluster struct {
		*cluster
		from string
	}
	seenView struct {
		*view
		from string
	}
)

// filledCluster is a cluster with its endpoints, and its encoding.
type filledCluster struct {
	cluster model.Cluster
	encoded []byte
}

// placedView is a view with its endpoints.
type placedView struct {
	table    model.Table
	clusters []model.Cluster
	parts    parts
}

func (m *Mesh) at(p *Placement) *placed {
	if m.placed != nil && m.placed.placement == p {
		return m.placed
	}
	at := &placed{
		placement: p,
		retries:   m.retry.hashed,
		former:    m.placed,
		instances: map[string][]*Instance{},
		claims:    m.claims(p),
		endpoints: map[*port][]candidate{},
		clusters:  map[seenCluster]filledCluster{},
		views:     map[seenView]*placedView{},
	}
	if at.former != nil {
		at.former.former = nil
	}
	for i := range p.Instances {
		x := &p.Instances[i]
		at.instances[key(x.Namespace, x.Workload)] = append(at.instances[key(x.Namespace, x.Workload)], x)
	}
	m.placed = at
	return at
}

// candidates returns all endpoints of a service's port.
func (a *placed) candidates(p *port) []candidate {
	if p.source != selected {
		return p.fixed
	}
	if c, ok := a.endpoints[p]; ok {
		return c
	}
	out := []candidate{}
	for _, w := range p.workloads {
		number := w.target(p)
		for _, x := range a.instances[key(w.Namespace, w.Name)] {
			if c, ok := x.endpoint(w, number); ok {
				out = append(out, c)
			}
		}
	}
	a.endpoints[p] = out
	return out
}

// endpoint is where others reach an instance's port; false where nobody serves it.
func (x *Instance) endpoint(w *workload, number int) (candidate, bool) {
	for i := range x.Ports {
		p := &x.Ports[i]
		if p.Port != number || p.Listen == "" || (x.Sidecar && p.App == "") {
			continue
		}
		weight := uint32(1)
		if w.entry != nil {
			weight = max(w.entry.Weight, 1)
		}
		return candidate{labels: w.Labels, node: w.node, endpoint: model.Endpoint{
			Address: p.Listen, Weight: weight, Instance: x.Name, Peer: w.Peer, Locality: w.Locality, Sidecar: x.Sidecar, Unready: x.Unready,
		}}, true
	}
	return candidate{}, false
}

// filled returns c with its endpoints, as a client sees them.
func (a *placed) filled(c *cluster, client *site) filledCluster {
	k := seenCluster{c, c.seenFrom(client)}
	if f, ok := a.clusters[k]; ok {
		return f
	}
	var fits []candidate
	for _, e := range a.candidates(c.port) {
		if selects(c.labels, e.labels) {
			fits = append(fits, e)
		}
	}
	var endpoints []model.Endpoint
	switch {
	case len(fits) == 0:
	case c.applies():
		endpoints = c.prefers.preferred(fits, client)
	default:
		endpoints = make([]model.Endpoint, len(fits))
		for i := range fits {
			endpoints[i] = fits[i].endpoint
		}
	}
	if a.former != nil {
		if f, ok := a.former.clusters[k]; ok && slices.Equal(f.cluster.Endpoints, endpoints) {
			a.clusters[k] = f
			return f
		}
	}
	f := filledCluster{cluster: c.Cluster}
	f.cluster.Endpoints = endpoints
	calm(&f.cluster)
	f.encoded = encoded(&f.cluster)
	a.clusters[k] = f
	return f
}

// calm keeps endpoints that are not ready from being asked because few others are left, unless minHealthPercent wants it:
// Istio leaves them out altogether.
func calm(c *model.Cluster) {
	if c.Outlier == nil && slices.ContainsFunc(c.Endpoints, func(e model.Endpoint) bool { return e.Unready }) {
		c.Panic = 0
	}
}

// view returns v with its endpoints, as a client sees them.
func (a *placed) view(v *view, client *site) *placedView {
	k := seenView{v, v.seenFrom(client)}
	if out, ok := a.views[k]; ok {
		return out
	}
	out := &placedView{table: v.table, clusters: make([]model.Cluster, 0, len(v.clusters)+len(v.extra))}
	add := func(c model.Cluster, text []byte) {
		out.clusters = append(out.clusters, c)
		out.parts.clusters = append(out.parts.clusters, text)
	}
	for _, c := range v.clusters {
		f := a.filled(c, client)
		add(f.cluster, f.encoded)
	}
	for i := range v.extra {
		add(v.extra[i], encoded(&v.extra[i]))
	}
	if len(v.headless) > 0 {
		hosts, clusters := a.singles(v)
		out.table.Hosts = append(slices.Clip(out.table.Hosts), hosts...)
		for i := range clusters {
			add(clusters[i], encoded(&clusters[i]))
		}
		out.parts.table = encoded(&out.table)
	} else {
		if v.encoded == nil {
			v.encoded = encoded(&v.table)
		}
		out.parts.table = v.encoded
	}
	a.views[k] = out
	return out
}

// cache holds what snapshots share. Its lock is held while one is put together.
type cache struct {
	sync.Mutex
	clusters    map[clusterKey]*cluster
	views       map[string]*view
	gateViews   map[*gateway]*gatewayView
	domainCache map[domainsKey][]string
	plainCache  map[*cluster][]model.Rule
	placed      *placed
}

func newCache() cache {
	return cache{
		clusters:    map[clusterKey]*cluster{},
		views:       map[string]*view{},
		gateViews:   map[*gateway]*gatewayView{},
		domainCache: map[domainsKey][]string{},
		plainCache:  map[*cluster][]model.Rule{},
	}
}

// For returns the sealed snapshot of one instance of a workload with a sidecar; instance "" is its first. p must not change
// once it was given: who moves an instance passes another Placement. Snapshots share what they have in common.
func (m *Mesh) For(p *Placement, namespace, workload, instance string) (*model.Snapshot, error) {
	s, shared, err := m.cut(p, namespace, workload, instance)
	if err != nil {
		return nil, fmt.Errorf("cannot compile %s/%s: %w", namespace, workload, err)
	}
	return seal(s, shared), nil
}

// cut puts a snapshot together, and says which of its parts are encoded already.
func (m *Mesh) cut(p *Placement, namespace, workload, instance string) (*model.Snapshot, parts, error) {
	w := m.workloads[key(namespace, workload)]
	if w == nil && namespace == "default" && workload == "local" {
		w = m.local()
	}
	if w == nil {
		return nil, parts{}, errors.New("there is no such workload")
	}
	if !w.Sidecar {
		return nil, parts{}, errors.New("it has no sidecar (annotation outrider.dev/sidecar or sidecar.istio.io/inject)")
	}
	m.cache.Lock()
	defer m.cache.Unlock()
	at := m.at(p)
	x := at.instance(namespace, workload, instance)
	if x == nil {
		return nil, parts{}, fmt.Errorf("it has no instance %q", instance)
	}
	s := &model.Snapshot{
		Workload: model.Workload{Peer: w.Peer, Instance: x.Name, Labels: w.Labels, Locality: w.Locality, Address: x.Address, Probe: w.probeAt(x)},
		Settings: m.settings,
	}
	in, from := m.inbound(w, x), &site{locality: w.Locality, node: w.node, labels: w.Labels}
	client := m.clientScope(namespace, w.Labels, m.sidecarOf(namespace, w.Labels))
	if x.Outbound == "" {
		s.Listeners, s.Tables, s.Clusters = reasoned(in.listeners, w.Annotations), in.tables, in.clusters
		s.RateLimits = m.limitsOf(s.Tables...)
		m.share(s, client, at, from)
		return s, parts{}, nil
	}
	seen := m.view(namespace, w.Labels)
	v := at.view(seen, from)
	s.Listeners = []model.Listener{{Name: outbound, Direction: model.Outbound, Address: x.Outbound, Protocol: model.HTTP, Table: outbound, Detect: m.detection(), Explicit: true}}
	bound, tables := boundListeners(seen.bound, x, at.claims)
	s.Listeners = reasoned(append(append(s.Listeners, bound...), in.listeners...), w.Annotations)
	s.Tables = append(append([]model.Table{v.table}, tables...), in.tables...)
	s.Clusters = append(slices.Clip(v.clusters), in.clusters...)
	s.Breakers = seen.breakers
	s.RateLimits = m.limitsOf(s.Tables...)
	m.share(s, client, at, from)
	return s, v.parts, nil
}

// reasonAnnotation on a pod template or a Gateway says whether local answers name their cause.
const reasonAnnotation = "outrider.dev/reason-header"

// reasoned is the listeners with what the annotations say of local answers.
func reasoned(listeners []model.Listener, annotations map[string]string) []model.Listener {
	reason := reasonOf(annotations)
	if reason == "" {
		return listeners
	}
	listeners = slices.Clone(listeners)
	for i := range listeners {
		listeners[i].Reason = reason
	}
	return listeners
}

func reasonOf(annotations map[string]string) string {
	switch annotations[reasonAnnotation] {
	case "true":
		return "on"
	case "false":
		return "off"
	}
	return ""
}

// instance returns the instance of that name, the first for "", nil without one.
func (a *placed) instance(namespace, workload, name string) *Instance {
	for _, x := range a.instances[key(namespace, workload)] {
		if name == "" || x.Name == name {
			return x
		}
	}
	return nil
}
