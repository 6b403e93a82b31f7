package compile

import (
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// maxTable bounds a Maglev table, as Envoy does (a prime below it), and a ring's least number of entries.
const (
	maxTable = 5000011
	maxRing  = 8 << 20
)

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

// duration reads a length of time; nil and negative ones are 0.
func duration(d *durationpb.Duration) model.Duration { return model.Duration(max(d.AsDuration(), 0)) }
