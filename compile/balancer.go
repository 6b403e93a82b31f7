package compile

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// maxTable bounds a Maglev table, as Envoy does (a prime below it), and a ring's least number of entries.
const (
	maxTable = 5000011
	maxRing  = 8 << 20
)

// Annotations for what Istio has no field for.
const (
	balancerAnnotation = "outrider.dev/load-balancer"       // on a Service, ServiceEntry or DestinationRule: PEAK_EWMA
	boundAnnotation    = "outrider.dev/hash-balance-factor" // on a DestinationRule, with consistentHash: percent
)

// balanced gives c its load balancer. A DestinationRule's annotation stands for each simple one of its own; a Service's, where
// no loadBalancer chooses a policy.
func (m *Mesh) balanced(c *cluster, s *networking.LoadBalancerSettings, d *destinationRule) {
	c.LoadBalancer = balancer(s)
	svc := c.port.service
	switch {
	case s.GetConsistentHash() != nil:
		if d != nil {
			c.LoadBalancer.Bound, _ = readBound(d.annotations[boundAnnotation])
		}
	case d != nil && d.annotations[balancerAnnotation] == string(model.PeakEWMA),
		s.GetLbPolicy() == nil && svc.object.Annotations[balancerAnnotation] == string(model.PeakEWMA):
		c.LoadBalancer = model.LoadBalancer{Policy: model.PeakEWMA}
	}
	switch c.LoadBalancer.Policy {
	case "", model.LeastRequest, model.RoundRobin:
		c.LoadBalancer.Warmup = warmup(s)
	}
	c.prefers = m.preference(s, svc)
}

// readBound reads the annotation; 0 is no bound, and whether it says one that can be kept.
func readBound(text string) (percent uint32, ok bool) {
	if text == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n < 100 {
		return 0, false
	}
	return uint32(n), true
}

// warmup reads slow start; nil is none.
func warmup(s *networking.LoadBalancerSettings) *model.Warmup {
	w := &model.Warmup{MinimumPercent: 10, Aggression: 1}
	switch {
	case s.GetWarmup() != nil:
		w.Duration = duration(s.Warmup.Duration)
		if p := s.Warmup.MinimumPercent; p != nil {
			w.MinimumPercent = min(max(p.Value, 0), 100)
		}
		if a := s.Warmup.Aggression; a != nil {
			w.Aggression = max(a.Value, 1)
		}
	default:
		w.Duration = duration(s.GetWarmupDurationSecs())
	}
	if w.Duration == 0 {
		return nil
	}
	return w
}

// annotate takes the annotations of o, as far as no rule that was merged before has them.
func (d *destinationRule) annotate(o *config.Object) {
	for _, a := range []string{balancerAnnotation, boundAnnotation} {
		if v, ok := o.Annotations[a]; ok && d.annotations[a] == "" {
			if d.annotations == nil {
				d.annotations = map[string]string{}
			}
			d.annotations[a] = v
		}
	}
}

// checkBalancers reports annotations about load balancing that mean nothing.
func (m *Mesh) checkBalancers(objects []*config.Object, r *report) {
	for _, o := range objects {
		rule, isRule := o.Spec.(*networking.DestinationRule)
		switch o.Spec.(type) {
		case *networking.DestinationRule, *networking.ServiceEntry, *corev1.Service:
		default:
			continue
		}
		if v, ok := o.Annotations[balancerAnnotation]; ok && v != string(model.PeakEWMA) {
			r.error(o, badValue, "metadata.annotations", "write PEAK_EWMA, or choose another policy by a DestinationRule's loadBalancer.simple",
				"%s: %q is no load balancer that an annotation chooses", balancerAnnotation, v)
		}
		v, ok := o.Annotations[boundAnnotation]
		if !ok {
			continue
		}
		_, valid := readBound(v)
		switch {
		case !isRule:
			r.warn(o, noEffect, "metadata.annotations", "move it to the DestinationRule that has consistentHash", "%s has an effect on a DestinationRule only", boundAnnotation)
		case !valid || v == "":
			r.error(o, badValue, "metadata.annotations", `write a percentage of at least 100, such as "125"`, "%s: %q is no percentage of at least 100; there is no bound", boundAnnotation, v)
		case !hashes(rule):
			r.warn(o, noEffect, "metadata.annotations", "add loadBalancer.consistentHash, or remove the annotation", "%s has no effect: the rule has no consistentHash", boundAnnotation)
		}
	}
}

// hashes says whether a policy of the rule has consistentHash.
func hashes(rule *networking.DestinationRule) bool {
	policies := []*networking.TrafficPolicy{rule.TrafficPolicy}
	for _, s := range rule.Subsets {
		policies = append(policies, s.TrafficPolicy)
	}
	return slices.ContainsFunc(policies, func(p *networking.TrafficPolicy) bool {
		return p.GetLoadBalancer().GetConsistentHash() != nil || slices.ContainsFunc(p.GetPortLevelSettings(), func(l *networking.TrafficPolicy_PortTrafficPolicy) bool {
			return l.LoadBalancer.GetConsistentHash() != nil
		})
	})
}

// balancer translates loadBalancer.
func balancer(s *networking.LoadBalancerSettings) model.LoadBalancer {
	switch lb := s.GetLbPolicy().(type) {
	case *networking.LoadBalancerSettings_Simple:
		switch lb.Simple {
		case networking.LoadBalancerSettings_ROUND_ROBIN:
			return model.LoadBalancer{Policy: model.RoundRobin}
		case networking.LoadBalancerSettings_RANDOM, networking.LoadBalancerSettings_PASSTHROUGH:
			// Behind PASSTHROUGH stands kube-proxy, which picks at random; there is none here to leave it to.
			return model.LoadBalancer{Policy: model.Random}
		case networking.LoadBalancerSettings_UNSPECIFIED:
			return model.LoadBalancer{}
		default: // LEAST_REQUEST and its old name, LEAST_CONN
			return model.LoadBalancer{Policy: model.LeastRequest}
		}
	case *networking.LoadBalancerSettings_ConsistentHash:
		return hashing(lb.ConsistentHash)
	}
	return model.LoadBalancer{}
}

func hashing(h *networking.LoadBalancerSettings_ConsistentHashLB) model.LoadBalancer {
	//lint:ignore SA1019 deprecated, and in use
	lb := model.LoadBalancer{Policy: model.RingHash, TableSize: min(h.GetMinimumRingSize(), maxRing), Hash: hashKey(h)}
	switch a := h.GetHashAlgorithm().(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_RingHash_:
		if n := a.RingHash.GetMinimumRingSize(); n != 0 {
			lb.TableSize = min(n, maxRing)
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_Maglev:
		lb.Policy, lb.TableSize = model.Maglev, 0
		if n := a.Maglev.GetTableSize(); prime(n) && n < maxTable {
			lb.TableSize = n
		}
	}
	return lb
}

func hashKey(h *networking.LoadBalancerSettings_ConsistentHashLB) *model.HashKey {
	switch k := h.GetHashKey().(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		return &model.HashKey{Header: strings.ToLower(k.HttpHeaderName)}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		return &model.HashKey{Query: k.HttpQueryParameterName}
	case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		if k.UseSourceIp {
			return &model.HashKey{SourceIP: true}
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		c := &model.Cookie{Name: k.HttpCookie.GetName(), Path: k.HttpCookie.GetPath()}
		if t := k.HttpCookie.GetTtl(); t != nil {
			d := duration(t)
			c.TTL = &d
		}
		for _, a := range k.HttpCookie.GetAttributes() {
			c.Attributes = append(c.Attributes, model.NameValue{Name: a.GetName(), Value: a.GetValue()})
		}
		return &model.HashKey{Cookie: c}
	}
	return nil
}

// checkHash reports what balancer cannot take as it is written.
func (m *Mesh) checkHash(o *config.Object, field string, p *networking.TrafficPolicy, r *report) {
	check := func(field string, s *networking.LoadBalancerSettings) {
		if s.GetSimple() == networking.LoadBalancerSettings_PASSTHROUGH {
			r.inform(o, differently, field+".simple", "nothing to do, unless you want another balancer",
				"PASSTHROUGH leaves the choice to kube-proxy; without one, a random endpoint is taken")
		}
		h := s.GetConsistentHash()
		if h == nil {
			return
		}
		if hashKey(h) == nil {
			r.error(o, badValue, field+".consistentHash", "name a header, a cookie, a query parameter, or set useSourceIp: true",
				"consistentHash does not say what to hash; every request goes to a random endpoint")
		}
		if n := h.GetMaglev().GetTableSize(); n != 0 && (!prime(n) || n >= maxTable) {
			r.error(o, badValue, field+".consistentHash.maglev.tableSize", "use a prime below 5000011, such as 65537",
				"tableSize %d is not a prime below %d; 65537 is used", n, maxTable)
		}
	}
	check(field+".loadBalancer", p.GetLoadBalancer())
	for i, l := range p.GetPortLevelSettings() {
		check(element(field+".portLevelSettings", i)+".loadBalancer", l.LoadBalancer)
	}
}

func prime(n uint64) bool {
	if n < 2 || n > maxTable {
		return false
	}
	for i := uint64(2); i*i <= n; i++ {
		if n%i == 0 {
			return false
		}
	}
	return true
}

// century is the longest length of time in a snapshot: who counts nanoseconds in 64 bits can add some of them.
const century = 100 * 365 * 24 * time.Hour

// duration reads a length of time; nil and negative ones are 0.
func duration(d *durationpb.Duration) model.Duration {
	return model.Duration(min(max(d.AsDuration(), 0), century))
}
