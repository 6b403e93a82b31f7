package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var policyBlocks = covers("loadBalancer.", "loadBalancer.simple", "loadBalancer.consistentHash", "connectionPool.", "connectionPool.tcp.",
	"connectionPool.tcp.connectTimeout", "tls")

var policyCoverage = covers("portLevelSettings.", "portLevelSettings.port").and(policyBlocks, policyBlocks.under("portLevelSettings."))

var destinationRuleCoverage = covers("host", "exportTo", "workloadSelector", "subsets.", "subsets.name", "subsets.labels", "trafficPolicy.", "subsets.trafficPolicy.").
	and(policyCoverage.under("trafficPolicy."), policyCoverage.under("subsets.trafficPolicy."))

// destinationRule is one DestinationRule, or several of a namespace that were merged because they have the same host.
type destinationRule struct {
	object   *config.Object // the first
	host     string
	exported visibility
	selector map[string]string // of the clients in its namespace that it is for; nil is all, of any namespace
	policy   *networking.TrafficPolicy
	origin   model.Origin // of policy
	subsets  []*subset
}

// subset is a part of a service's endpoints, with a policy of its own.
type subset struct {
	name   string
	labels map[string]string
	policy *networking.TrafficPolicy
	origin model.Origin
}

func (d *destinationRule) subset(name string) *subset {
	for _, s := range d.subsets {
		if s.name == name {
			return s
		}
	}
	return nil
}

// ruleSet holds a namespace's DestinationRules.
type ruleSet struct {
	exact map[string][]*destinationRule
	wild  []*destinationRule // longest host first
}

// find returns the rule with the most specific host that covers host and that fits; of equal ones, one with a selector.
func (s *ruleSet) find(host string, fits func(*destinationRule) bool) *destinationRule {
	if s == nil {
		return nil
	}
	for _, d := range s.exact[host] {
		if fits(d) {
			return d
		}
	}
	for _, d := range s.wild {
		if within(host, d.host) && fits(d) {
			return d
		}
	}
	return nil
}

// readDestinationRules builds the index, merging rules of one namespace, host and visibility.
func (m *Mesh) readDestinationRules(objects []*config.Object, r *report) {
	m.rules = map[string]*ruleSet{}
	for _, o := range objects {
		spec, ok := o.Spec.(*networking.DestinationRule)
		if !ok {
			continue
		}
		destinationRuleCoverage.missing(spec.ProtoReflect(), func(field string) { r.without(o, "spec."+field) })
		m.addDestinationRule(o, spec, r)
	}
	for _, namespace := range sortedKeys(m.rules) {
		selectorFirst := func(a, b *destinationRule) int { return cmp.Compare(min(len(b.selector), 1), min(len(a.selector), 1)) }
		set := m.rules[namespace]
		slices.SortStableFunc(set.wild, func(a, b *destinationRule) int {
			return cmp.Or(cmp.Compare(len(b.host), len(a.host)), selectorFirst(a, b))
		})
		for _, same := range set.exact {
			slices.SortStableFunc(same, selectorFirst)
		}
	}
}

func (m *Mesh) addDestinationRule(o *config.Object, spec *networking.DestinationRule, r *report) {
	host := fullName(spec.Host, o.Namespace, m.domain)
	set := m.rules[o.Namespace]
	if set == nil {
		set = &ruleSet{exact: map[string][]*destinationRule{}}
		m.rules[o.Namespace] = set
	}
	exported := visible(spec.ExportTo, m.config.GetDefaultDestinationRuleExportTo(), o.Namespace)
	selector := spec.WorkloadSelector.GetMatchLabels()
	if len(selector) > 0 {
		exported = visibility{in: []string{o.Namespace}}
	}
	same := set.wild
	if !wildcard(host) {
		same = set.exact[host]
	}
	var d *destinationRule
	for _, other := range same {
		if other.host == host && other.exported.equal(exported) && maps.Equal(other.selector, selector) {
			d = other
			break
		}
	}
	if d == nil {
		d = &destinationRule{object: o, host: host, exported: exported, selector: selector}
		if wildcard(host) {
			set.wild = append(set.wild, d)
		} else {
			set.exact[host] = append(set.exact[host], d)
		}
	}
	if d.policy == nil && spec.TrafficPolicy != nil {
		d.policy, d.origin = spec.TrafficPolicy, origin(o, "spec.trafficPolicy", "")
	} else if spec.TrafficPolicy != nil {
		r.warn(o, noEffect, "spec.trafficPolicy", "merge the two DestinationRules",
			"trafficPolicy has no effect: that of %s (%s) for the same host comes first", d.object.Name, position(d.object))
	}
	m.reportTLS(o, "spec.trafficPolicy", spec.TrafficPolicy, r)
	m.checkHash(o, "spec.trafficPolicy", spec.TrafficPolicy, r)
	for i, s := range spec.Subsets {
		field := fmt.Sprintf("spec.subsets[%d]", i)
		if first := d.subset(s.Name); first != nil {
			r.warn(o, subsetTwice, field+".name", "rename or remove one of them", "subset %q of %s is defined at %s already; this one is ignored", s.Name, host, at(first.origin))
			continue
		}
		d.subsets = append(d.subsets, &subset{name: s.Name, labels: s.Labels, policy: s.TrafficPolicy, origin: origin(o, field, s.Name)})
		m.reportTLS(o, field+".trafficPolicy", s.TrafficPolicy, r)
		m.checkHash(o, field+".trafficPolicy", s.TrafficPolicy, r)
		m.checkSubset(o, field, host, s, r)
	}
	if m.services.find(host, o.Namespace) == nil && !wildcard(host) {
		r.warn(o, unknownRule, "spec.host", "check the name and namespace, or add the Service",
			"host %s is no service that namespace %s sees; the rule has no effect", host, o.Namespace)
	}
}

// checkSubset reports labels that select none of the service's workloads, where it has any.
func (m *Mesh) checkSubset(o *config.Object, field, host string, s *networking.Subset, r *report) {
	svc := m.services.find(host, o.Namespace)
	if svc == nil || len(s.Labels) == 0 {
		return
	}
	any := false
	for _, p := range svc.ports {
		for _, w := range p.workloads {
			any = true
			if selects(s.Labels, w.Labels) {
				return
			}
		}
		for _, c := range p.fixed {
			any = true
			if selects(s.Labels, c.labels) {
				return
			}
		}
	}
	if any {
		r.error(o, emptySubset, field+".labels", "use labels that the service's workloads have", "subset %q of %s selects no workload", s.Name, host)
	}
}

// reportTLS reports the TLS modes that this version cannot keep.
func (m *Mesh) reportTLS(o *config.Object, field string, p *networking.TrafficPolicy, r *report) {
	report := func(field string, t *networking.ClientTLSSettings) {
		switch {
		case t == nil || t.Mode == networking.ClientTLSSettings_DISABLE:
		case refuses(t):
			r.error(o, tlsRefused, field+".mode", "set mode DISABLE if plaintext is right, or keep it for a version that has TLS",
				"TLS mode %s cannot be kept by this version; requests are answered 503, never sent in plaintext", t.Mode)
		default:
			r.warn(o, noEffect, field+".mode", "remove it, or keep it for a version that has it",
				"TLS mode %s has no effect yet: requests between sidecars are plaintext", t.Mode)
		}
	}
	report(field+".tls", p.GetTls())
	for i, l := range p.GetPortLevelSettings() {
		report(fmt.Sprintf("%s.portLevelSettings[%d].tls", field, i), l.Tls)
	}
}

// refuses says whether a peer must be spoken to with TLS that only the user's own settings can open.
func refuses(t *networking.ClientTLSSettings) bool {
	return t != nil && (t.Mode == networking.ClientTLSSettings_SIMPLE || t.Mode == networking.ClientTLSSettings_MUTUAL)
}

// rule returns the DestinationRule that a client in namespace uses for s: its own namespace's, else the service's, else the
// root's; the first with any match decides, and only the other namespaces' exported rules count.
func (m *Mesh) rule(namespace string, labels map[string]string, s *service) *destinationRule {
	own := func(d *destinationRule) bool {
		return selects(d.selector, labels) && (namespace != m.root || d.exported.private(namespace))
	}
	if d := m.rules[namespace].find(s.Host, own); d != nil {
		return d
	}
	for _, from := range []string{s.Namespace, m.root} {
		exported := func(d *destinationRule) bool {
			return d.exported.includes(namespace) && !d.exported.private(from) && len(d.selector) == 0
		}
		if d := m.rules[from].find(s.Host, exported); d != nil {
			return d
		}
	}
	return nil
}

// policy is the part of a TrafficPolicy that a cluster takes.
type policy struct {
	balancer *networking.LoadBalancerSettings
	pool     *networking.ConnectionPoolSettings
	tls      *networking.ClientTLSSettings
}

// under returns base overridden by p: each block that p has replaces base's, and a portLevelSettings entry for port replaces
// them all, so that what it leaves out falls to the defaults.
func (base policy) under(p *networking.TrafficPolicy, port int) policy {
	if p == nil {
		return base
	}
	if p.LoadBalancer != nil {
		base.balancer = p.LoadBalancer
	}
	if p.ConnectionPool != nil {
		base.pool = p.ConnectionPool
	}
	if p.Tls != nil {
		base.tls = p.Tls
	}
	for _, l := range p.PortLevelSettings {
		if l.Port != nil && int(l.Port.Number) == port {
			return policy{balancer: l.LoadBalancer, pool: l.ConnectionPool, tls: l.Tls}
		}
	}
	return base
}

// cluster is a model.Cluster before its endpoints are known.
type cluster struct {
	model.Cluster
	port    *port
	labels  map[string]string
	refused string // why nothing may be sent there; "" otherwise
}

type clusterKey struct {
	port   *port
	subset string
	rule   *destinationRule
}

// cluster returns the cluster of p that d shapes; nil where d has no such subset.
func (m *Mesh) cluster(p *port, name string, d *destinationRule) *cluster {
	k := clusterKey{p, name, d}
	if c, ok := m.clusters[k]; ok {
		return c
	}
	c := m.newCluster(p, name, d)
	m.clusters[k] = c
	return c
}

func (m *Mesh) newCluster(p *port, name string, d *destinationRule) *cluster {
	s := p.service
	c := &cluster{port: p, Cluster: model.Cluster{
		Name:     fmt.Sprintf("outbound|%d|%s|%s", p.number, name, s.Host),
		Kind:     model.Listed,
		Service:  s.Service,
		Port:     p.number,
		Subset:   name,
		Protocol: p.protocol,
	}}
	var effective policy
	if d != nil {
		effective = effective.under(d.policy, p.number)
		if d.policy != nil {
			o := d.origin
			c.Origin = &o
		}
	}
	if name != "" {
		var sub *subset
		if d != nil {
			sub = d.subset(name)
		}
		if sub == nil {
			return nil
		}
		c.labels = sub.labels
		effective = effective.under(sub.policy, p.number)
		o := sub.origin
		c.Origin = &o
	}
	if p.source == named {
		c.Kind = model.Passthrough
		c.LoadBalancer.Policy = model.Original
	} else {
		c.LoadBalancer = balancer(effective.balancer)
	}
	if t := effective.pool.GetTcp().GetConnectTimeout(); t != nil {
		c.ConnectTimeout = duration(t)
	} else if t := m.config.GetConnectTimeout(); t != nil {
		c.ConnectTimeout = duration(t)
	}
	if refuses(effective.tls) {
		c.refused = fmt.Sprintf("DestinationRule %s/%s (%s) asks for TLS mode %s to %s, which this version cannot speak; nothing is sent in plaintext\n",
			d.object.Namespace, d.object.Name, at(d.origin), effective.tls.Mode, s.Host)
	}
	return c
}
