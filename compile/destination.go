package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var policyBlocks = covers("loadBalancer.", "loadBalancer.simple", "loadBalancer.consistentHash", "loadBalancer.localityLbSetting",
	"loadBalancer.warmup", "loadBalancer.warmupDurationSecs", "connectionPool.", "outlierDetection.", "tls").
	and(poolCoverage.under("connectionPool."), outlierCoverage.under("outlierDetection."))

var policyCoverage = covers("portLevelSettings.", "portLevelSettings.port", "retryBudget").
	and(policyBlocks, policyBlocks.under("portLevelSettings."))

var destinationRuleCoverage = covers("host", "exportTo", "workloadSelector", "subsets.", "subsets.name", "subsets.labels", "trafficPolicy.", "subsets.trafficPolicy.").
	and(policyCoverage.under("trafficPolicy."), policyCoverage.under("subsets.trafficPolicy."))

// destinationRule is one DestinationRule, or several of a namespace that were merged because they have the same host.
type destinationRule struct {
	object   *config.Object // the first
	host     string
	exported visibility
	selector map[string]string // of the clients in its namespace that it is for; nil is all, of any namespace
	policy   *networking.TrafficPolicy
	shaper   *config.Object // that has policy
	origin   model.Origin   // of policy
	subsets  []*subset
	// annotations are those about load balancing.
	annotations map[string]string
	// credentials says that a client's Secrets are asked for: what comes of the rule differs by where these are looked up.
	credentials bool
}

// subset is a part of a service's endpoints, with a policy of its own.
type subset struct {
	object *config.Object
	name   string
	labels map[string]string
	policy *networking.TrafficPolicy
	origin model.Origin
	field  string
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
	d.annotate(o)
	if d.policy == nil && spec.TrafficPolicy != nil {
		d.policy, d.shaper, d.origin = spec.TrafficPolicy, o, origin(o, "spec.trafficPolicy", "")
	} else if spec.TrafficPolicy != nil {
		r.warn(o, noEffect, "spec.trafficPolicy", "merge the two DestinationRules",
			"trafficPolicy has no effect: that of %s (%s) for the same host comes first", d.object.Name, position(d.object))
	}
	m.reportTLS(o, "spec.trafficPolicy", d, spec.TrafficPolicy, r)
	m.checkHash(o, "spec.trafficPolicy", spec.TrafficPolicy, r)
	m.checkLocality(o, "spec.trafficPolicy", spec.TrafficPolicy, nil, r)
	m.checkPolicy(o, "spec.trafficPolicy", spec.TrafficPolicy, host, r)
	for i, s := range spec.Subsets {
		field := fmt.Sprintf("spec.subsets[%d]", i)
		if first := d.subset(s.Name); first != nil {
			r.warn(o, subsetTwice, field+".name", "rename or remove one of them", "subset %q of %s is defined at %s already; this one is ignored", s.Name, host, at(first.origin))
			continue
		}
		d.subsets = append(d.subsets, &subset{object: o, name: s.Name, labels: s.Labels, policy: s.TrafficPolicy, origin: origin(o, field, s.Name), field: field})
		m.reportTLS(o, field+".trafficPolicy", d, s.TrafficPolicy, r)
		m.checkHash(o, field+".trafficPolicy", s.TrafficPolicy, r)
		m.checkLocality(o, field+".trafficPolicy", s.TrafficPolicy, spec.TrafficPolicy, r)
		m.checkPolicy(o, field+".trafficPolicy", s.TrafficPolicy, host, r)
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
	outlier  *networking.OutlierDetection
	detector location // of outlier
	tls      *networking.ClientTLSSettings
	budget   *networking.TrafficPolicy_RetryBudget
}

// location is a field of an object.
type location struct {
	object *config.Object
	field  string
}

func (p location) origin(rule string) *model.Origin {
	o := origin(p.object, p.field, rule)
	return &o
}

// under returns base overridden by p, which stands at: each block that p has replaces base's, and a portLevelSettings entry for
// port replaces them all but retryBudget, so that what it leaves out falls to the defaults.
func (base policy) under(p *networking.TrafficPolicy, port int, at location) policy {
	if p == nil {
		return base
	}
	if p.LoadBalancer != nil {
		base.balancer = p.LoadBalancer
	}
	if p.ConnectionPool != nil {
		base.pool = p.ConnectionPool
	}
	if p.OutlierDetection != nil {
		base.outlier, base.detector = p.OutlierDetection, location{at.object, at.field + ".outlierDetection"}
	}
	if p.Tls != nil {
		base.tls = p.Tls
	}
	if p.RetryBudget != nil {
		base.budget = p.RetryBudget
	}
	for i, l := range p.PortLevelSettings {
		if l.Port != nil && int(l.Port.Number) == port {
			return policy{
				balancer: l.LoadBalancer, pool: l.ConnectionPool, tls: l.Tls, budget: base.budget,
				outlier: l.OutlierDetection, detector: location{at.object, element(at.field+".portLevelSettings", i) + ".outlierDetection"},
			}
		}
	}
	return base
}

// grounded is p with what the mesh's defaultTrafficPolicy says of the blocks that p lacks.
func (m *Mesh) grounded(p policy) policy {
	d := m.config.GetDefaultTrafficPolicy()
	if p.pool == nil {
		p.pool = d.GetConnectionPool()
	}
	if p.outlier == nil {
		p.outlier, p.detector = d.GetOutlierDetection(), location{}
	}
	return p
}

// settings are what d says of a port, and of its subset where that is not nil.
func (d *destinationRule) settings(port int, sub *subset) policy {
	var p policy
	if d != nil {
		p = p.under(d.policy, port, location{d.shaper, "spec.trafficPolicy"})
	}
	if sub != nil {
		p = p.under(sub.policy, port, location{sub.object, sub.field + ".trafficPolicy"})
	}
	return p
}

// cluster is a model.Cluster before its endpoints are known.
type cluster struct {
	model.Cluster
	port       *port
	labels     map[string]string
	prefers    *preference // among localities; nil is none
	refused    string      // why nothing may be sent there; "" otherwise
	set        *breakerSet // of the client's that the breakers are from
	undeclared bool        // Protocol is Auto for want of a declaration, not because a DestinationRule wants the client's own
}

type clusterKey struct {
	port   *port
	subset string
	rule   *destinationRule
	set    *breakerSet
	from   string // the namespace of the client's Secrets, where the rule asks for any
}

// cluster returns the cluster of p that d shapes for a client; nil where d has no such subset.
func (m *Mesh) cluster(p *port, name string, d *destinationRule, client *scope) *cluster {
	k := clusterKey{port: p, subset: name, rule: d, set: m.breakersOf(client.namespace, p.service)}
	if d != nil && d.credentials {
		k.from = d.secrets(client.gateway)
	}
	if c, ok := m.clusters[k]; ok {
		return c
	}
	c := m.newCluster(p, name, d, k.from)
	if c != nil {
		if c.set = k.set; !opaque(c.Protocol) {
			c.Breakers = k.set.before(c.Port, c.Subset)
		}
	}
	m.clusters[k] = c
	return c
}

func (m *Mesh) newCluster(p *port, name string, d *destinationRule, secrets string) *cluster {
	s := p.service
	c := &cluster{port: p, Cluster: model.Cluster{
		Name:     fmt.Sprintf("outbound|%d|%s|%s", p.number, name, s.Host),
		Kind:     model.Listed,
		Service:  s.Service,
		Port:     p.number,
		Subset:   name,
		Protocol: spoken(p.protocol),
	}}
	if d != nil && d.policy != nil {
		o := d.origin
		c.Origin = &o
	}
	var sub *subset
	if name != "" {
		if d != nil {
			sub = d.subset(name)
		}
		if sub == nil {
			return nil
		}
		c.labels = sub.labels
		o := sub.origin
		c.Origin = &o
	}
	effective := m.grounded(d.settings(p.number, sub))
	if p.source == named {
		c.Kind = model.Passthrough
		c.LoadBalancer.Policy = model.Original
	} else {
		m.balanced(c, effective.balancer, d)
	}
	c.ConnectTimeout = m.connectTimeout(effective.pool)
	protocol := p.protocol
	if protocol == model.HTTPS && (originates(effective.tls) || effective.tls == nil && p.backendTLS != nil) {
		protocol = model.HTTP // what is inside the TLS that the proxy itself begins
	}
	upgraded := m.config.GetH2UpgradePolicy() == meshv1alpha1.MeshConfig_UPGRADE && p.protocol == model.HTTP
	c.Protocol, c.MaxStreams = httpPool(protocol, effective.pool.GetHttp(), upgraded)
	c.KeepAlive2 = keepAlive2(c.Protocol, effective.pool.GetHttp())
	c.undeclared = c.Protocol == model.Auto && !effective.pool.GetHttp().GetUseClientProtocol()
	c.Limits = m.limits(effective.pool, effective.budget, opaque(c.Protocol))
	if !opaque(c.Protocol) {
		c.Retries = s.constraint
	}
	m.protect(c, effective)
	m.secureCluster(c, d, effective.tls, secrets)
	return c
}

// unfit says why requests cannot be sent to c; nil where they can. A gateway sends them to ports declared TCP too.
func (c *cluster) unfit(gateway bool) *refusal {
	p := c.port
	switch {
	case c.refused != "" || !opaque(c.Protocol):
		return nil
	case secure(p.protocol):
		return &refusal{
			unfit, "port", fmt.Sprintf("port %s of %s speaks TLS, and nothing says that the mesh is to begin it: requests cannot be sent there", p.text(), p.service.Host),
			"add tls: {mode: SIMPLE} to a DestinationRule for the port, or a BackendTLSPolicy; or correct the port's protocol",
		}
	case gateway:
		return nil
	}
	return &refusal{
		unfit, "port", fmt.Sprintf("port %s of %s is declared to carry bytes: requests cannot be sent there", p.text(), p.service.Host),
		"name the port after its protocol: http, http2 or grpc",
	}
}

// httpPool says what endpoints of a port of that protocol are spoken to with, and with how many streams a connection; upgraded
// says that the mesh wants HTTP/2 there, unless pool says otherwise.
func httpPool(declared model.Protocol, pool *networking.ConnectionPoolSettings_HTTPSettings, upgraded bool) (model.Protocol, uint32) {
	if opaque(declared) {
		return spoken(declared), 0
	}
	streams := uint32(max(pool.GetMaxConcurrentStreams(), 0))
	upgrade := pool.GetH2UpgradePolicy()
	switch {
	case pool.GetUseClientProtocol():
		return model.Auto, streams
	case upgrade == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE && declared != model.GRPC:
		return model.HTTP2, streams
	case upgrade == networking.ConnectionPoolSettings_HTTPSettings_DEFAULT && upgraded:
		return model.HTTP2, streams
	}
	return declared, streams
}

// keepAlive2 is how connections of HTTP/2 are tested, nil where they are not. Without either time Istio tests nothing.
func keepAlive2(spoken model.Protocol, pool *networking.ConnectionPoolSettings_HTTPSettings) *model.KeepAlive {
	k := pool.GetHttp2KeepAlive()
	interval, timeout := duration(k.GetInterval()), duration(k.GetTimeout())
	if interval == 0 || timeout == 0 || opaque(spoken) || spoken == model.HTTP {
		return nil
	}
	return &model.KeepAlive{Interval: interval, Timeout: timeout}
}

// secureCluster gives c the TLS that its DestinationRule asks for, else its port's BackendTLSPolicy.
func (m *Mesh) secureCluster(c *cluster, d *destinationRule, t *networking.ClientTLSSettings, secrets string) {
	switch b := c.port.backendTLS; {
	case originates(t):
		c.TLS, c.refused = m.clientTLS(d.object, d.tlsField(c.port, c.Subset), t, secrets, nil)
		if c.TLS == nil {
			return
		}
		if len(c.TLS.SubjectAltNames) == 0 && !c.TLS.SkipVerify {
			c.TLS.SubjectAltNames = c.port.service.altNames
		}
	case t == nil && b != nil:
		c.TLS, c.refused = b.tls, b.refused
		if c.Origin == nil {
			o := b.origin
			c.Origin = &o
		}
	default:
		return
	}
	if host := c.port.service.Host; c.TLS.SNI == "" && opaque(c.Protocol) && !wildcard(host) {
		own := *c.TLS // bytes name no host: that of the service is asked for
		own.SNI = host
		c.TLS = &own
	}
}

// tlsField says where d's TLS settings for a port and subset are, for messages.
func (d *destinationRule) tlsField(p *port, name string) string {
	if sub := d.subset(name); sub != nil && sub.policy.GetTls() != nil {
		return sub.field + ".trafficPolicy.tls"
	}
	return "spec.trafficPolicy.tls"
}
