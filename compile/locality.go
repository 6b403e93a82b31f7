package compile

import (
	"cmp"
	"math"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// Labels that say where something runs.
const (
	networkLabel = "topology.istio.io/network"
	regionLabel  = "topology.kubernetes.io/region"
	zoneLabel    = "topology.kubernetes.io/zone"
	subZoneLabel = "topology.istio.io/subzone"
	nodeLabel    = "kubernetes.io/hostname"
)

// trafficAnnotation says on a Service or ServiceEntry what a Service's trafficDistribution says; it comes first (Istio).
const trafficAnnotation = "networking.istio.io/traffic-distribution"

// site is where a client or an endpoint runs, with its labels.
type site struct {
	locality model.Locality
	node     string
	labels   map[string]string
}

// label returns a label's value; those about the place come from where it is known to be.
func (p *site) label(name string) string {
	known := ""
	switch name {
	case regionLabel:
		known = p.locality.Region
	case zoneLabel:
		known = p.locality.Zone
	case subZoneLabel:
		known = p.locality.SubZone
	case nodeLabel:
		known = p.node
	}
	return cmp.Or(known, p.labels[name])
}

// preference is what a cluster prefers by locality: shares, or an order of priorities.
type preference struct {
	distribute []*networking.LocalityLoadBalancerSetting_Distribute
	failover   []*networking.LocalityLoadBalancerSetting_Failover
	labels     []string // failoverPriority
	// always says that priorities hold although nothing is ever ejected, so that only those that are empty are left.
	always bool
}

// preference returns what a cluster of svc prefers: by its DestinationRule, whose setting replaces all others as a whole, by
// the Service, or by the mesh; nil for nothing.
func (m *Mesh) preference(s *networking.LoadBalancerSettings, svc *service) *preference {
	set := s.GetLocalityLbSetting()
	if set == nil {
		if labels := svc.nearby(); labels != nil {
			return &preference{labels: labels, always: true}
		}
		set = m.config.GetLocalityLbSetting()
	}
	if set.GetEnabled() != nil && !set.Enabled.Value {
		return nil
	}
	if len(set.GetDistribute()) > 0 {
		return &preference{distribute: set.Distribute}
	}
	return &preference{failover: set.GetFailover(), labels: set.GetFailoverPriority()}
}

// nearby returns the labels by which endpoints that are near are preferred, where the Service asks for that.
func (s *service) nearby() []string {
	wish := s.object.Annotations[trafficAnnotation]
	if spec, ok := s.object.Spec.(*corev1.Service); ok && wish == "" && spec.Spec.TrafficDistribution != nil {
		wish = *spec.Spec.TrafficDistribution
	}
	switch strings.ToLower(wish) {
	case "preferclose":
		return []string{networkLabel, regionLabel, zoneLabel, subZoneLabel}
	case "prefersamezone":
		return []string{networkLabel, regionLabel, zoneLabel}
	case "prefersamenode":
		return []string{networkLabel, regionLabel, zoneLabel, subZoneLabel, nodeLabel}
	}
	return nil
}

// applies says whether what endpoints a client uses, and how, depends on where it is. Priorities need endpoints that can be
// ejected: without, the first would never be left (Istio).
func (c *cluster) applies() bool {
	return c.prefers != nil && (len(c.prefers.distribute) > 0 || c.prefers.always || c.Outlier != nil)
}

// key tells places apart by their locality and those labels.
func (p *site) key(labels []string) string {
	var b strings.Builder
	l := p.locality
	for _, part := range []string{l.Region, l.Zone, l.SubZone} {
		b.WriteString(part)
		b.WriteByte(0)
	}
	for _, name := range labels {
		b.WriteString(p.label(name))
		b.WriteByte(0)
	}
	return b.String()
}

// asked returns the labels of a client that decide.
func (p *preference) asked() []string {
	var names []string
	for _, l := range p.labels {
		if name, _, given := strings.Cut(l, "="); !given {
			names = append(names, name)
		}
	}
	return names
}

// seenFrom is a key of what decides about c's endpoints for a client; "" where nothing of it does.
func (c *cluster) seenFrom(client *site) string {
	if !c.applies() {
		return ""
	}
	return client.key(c.prefers.asked())
}

// sight is what of a client decides about the endpoints of a view's clusters.
type sight struct {
	local  bool // its place, and these labels
	labels []string
}

// seenFrom is a key of what decides about the endpoints of v for a client; "" where nothing of it does.
func (v *view) seenFrom(client *site) string {
	if v.sight == nil {
		v.sight = &sight{}
		for _, c := range v.clusters {
			if c.applies() {
				v.sight.local = true
				v.sight.labels = append(v.sight.labels, c.prefers.asked()...)
			}
		}
		slices.Sort(v.sight.labels)
		v.sight.labels = slices.Compact(v.sight.labels)
	}
	if !v.sight.local {
		return ""
	}
	return client.key(v.sight.labels)
}

// siteOf is where a gateway runs: where its pods say, if there are any.
func (m *Mesh) siteOf(g *gateway) *site {
	p := &site{labels: g.Labels}
	for _, w := range m.routers {
		if w.Namespace == g.Namespace && w.Name == g.Name {
			p.locality, p.node = w.Locality, w.node
		}
	}
	return p
}

// preferred gives the endpoints of all priorities or shares for a client, and leaves out those that it must not use.
func (p *preference) preferred(all []candidate, client *site) []model.Endpoint {
	if len(p.distribute) > 0 {
		return distributed(all, p.distribute, client)
	}
	rank := make([]int, len(all))
	if len(p.labels) > 0 {
		for i := range all {
			rank[i] = p.byLabels(&all[i], client)
		}
	}
	if len(p.labels) == 0 || len(p.failover) > 0 {
		for i := range all {
			// There are five ranks by locality, which tell apart those of one rank by labels.
			rank[i] = 5*rank[i] + p.byLocality(all[i].endpoint.Locality, client.locality)
		}
	}
	used := slices.Compact(slices.Sorted(slices.Values(rank)))
	out := make([]model.Endpoint, 0, len(all))
	for i := range all {
		e := all[i].endpoint
		e.Priority = uint32(slices.Index(used, rank[i]))
		out = append(out, e)
	}
	return out
}

// byLabels ranks an endpoint by how many of the labels, from the first on, have the client's value, or the one written down.
func (p *preference) byLabels(c *candidate, client *site) int {
	at := site{locality: c.endpoint.Locality, node: c.node, labels: c.labels}
	for i, l := range p.labels {
		name, want, given := strings.Cut(l, "=")
		if !given {
			want = client.label(name)
		}
		if at.label(name) != want {
			return len(p.labels) - i
		}
	}
	return 0
}

// byLocality ranks: 0 for the same subzone, 1 the same zone, 2 the same region, 3 others, of which 4 are those that no
// failover of the client's region leads to.
func (p *preference) byLocality(l, client model.Locality) int {
	switch {
	case l == client:
		return 0
	case l.Region == client.Region && l.Zone == client.Zone:
		return 1
	case l.Region == client.Region:
		return 2
	}
	for _, f := range p.failover {
		if f.From == client.Region {
			if l.Region != f.To {
				return 4
			}
			break
		}
	}
	return 3
}

// distributed gives endpoints the shares that the first rule for the client's locality names. An endpoint whose locality it
// does not name is left out; without a rule all are as they were.
func distributed(all []candidate, rules []*networking.LocalityLoadBalancerSetting_Distribute, client *site) []model.Endpoint {
	at := slices.IndexFunc(rules, func(d *networking.LocalityLoadBalancerSetting_Distribute) bool {
		return covered(client.locality, d.From)
	})
	share := map[model.Locality]uint32{}
	if at >= 0 {
		share = shares(all, rules[at].To)
	}
	out := make([]model.Endpoint, 0, len(all))
	for i := range all {
		e := all[i].endpoint
		if e.Share = share[e.Locality]; e.Share > 0 || at < 0 {
			out = append(out, e)
		}
	}
	return out
}

// shares divides the weights among localities. Where a pattern covers several, they share its weight by the weights of their
// endpoints; a locality is the most exact pattern's.
func shares(all []candidate, to map[string]uint32) map[model.Locality]uint32 {
	weights := map[model.Locality]uint64{}
	for i := range all {
		weights[all[i].endpoint.Locality] += uint64(all[i].endpoint.Weight)
	}
	patterns := sortedKeys(to)
	slices.SortStableFunc(patterns, func(a, b string) int { return cmp.Compare(exactness(b), exactness(a)) })
	taken, out := map[model.Locality]bool{}, map[model.Locality]uint32{}
	for _, pattern := range patterns {
		var mine []model.Locality
		sum := uint64(0)
		for l, w := range weights {
			if !taken[l] && covered(l, pattern) {
				mine = append(mine, l)
				sum += w
			}
		}
		for _, l := range mine {
			taken[l] = true
			out[l] = uint32(math.Ceil(float64(to[pattern]) * float64(weights[l]) / float64(sum)))
		}
	}
	return out
}

// covered says whether a pattern REGION/ZONE/SUBZONE covers l. A part that is "*", or left out at the end, covers any.
func covered(l model.Locality, pattern string) bool {
	p := localityOf(pattern, "/")
	fits := func(have, want string, open bool) bool { return want == "*" || want == have || open && want == "" }
	return fits(l.Region, p.Region, false) && fits(l.Zone, p.Zone, true) && fits(l.SubZone, p.SubZone, true)
}

// exactness is how many parts a pattern names.
func exactness(pattern string) int {
	n := 0
	for _, part := range strings.Split(pattern, "/") {
		if part != "*" && part != "" {
			n++
		}
	}
	return n
}

// checkLocality reports settings of a DestinationRule that have no effect. whole is the rule's own policy, which a subset's
// adds to.
func (m *Mesh) checkLocality(o *config.Object, field string, p, whole *networking.TrafficPolicy, r *report) {
	always := m.config.GetDefaultTrafficPolicy().GetOutlierDetection() != nil
	check := func(field string, s *networking.LoadBalancerSettings, outlier bool) {
		l := s.GetLocalityLbSetting()
		if l == nil || l.Enabled != nil && !l.Enabled.Value || outlier || always || len(l.Distribute) > 0 {
			return
		}
		for name, there := range map[string]bool{"failover": len(l.Failover) > 0, "failoverPriority": len(l.FailoverPriority) > 0} {
			if there {
				r.warn(o, noEffect, field+".localityLbSetting."+name, "add outlierDetection to the same policy",
					"%s has no effect without outlierDetection: no endpoint is ever ejected, so none fails over", name)
			}
		}
	}
	check(field+".loadBalancer", p.GetLoadBalancer(), p.GetOutlierDetection() != nil || whole.GetOutlierDetection() != nil)
	for i, l := range p.GetPortLevelSettings() {
		check(element(field+".portLevelSettings", i)+".loadBalancer", l.LoadBalancer, l.OutlierDetection != nil)
	}
}
