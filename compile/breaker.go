package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// breaker is one CircuitBreaker.
type breaker struct {
	object *config.Object
	spec   *config.CircuitBreaker
	host   string
	model  model.Breaker // without its FallbackCluster, which depends on who asks
}

// breakerSet holds the CircuitBreakers that one namespace has for a host, narrower ones first.
type breakerSet struct{ breakers []*breaker }

// readBreakers indexes CircuitBreakers by namespace and host. Of two for the same target, the first has it.
func (m *Mesh) readBreakers(objects []*config.Object, r *report) {
	m.breakers = map[string]map[string]*breakerSet{}
	for _, o := range objects {
		spec, ok := o.Spec.(*config.CircuitBreaker)
		if !ok {
			continue
		}
		b := &breaker{object: o, spec: spec, host: fullName(spec.Host, o.Namespace, m.domain)}
		b.model = b.translated()
		hosts := m.breakers[o.Namespace]
		if hosts == nil {
			hosts = map[string]*breakerSet{}
			m.breakers[o.Namespace] = hosts
		}
		set := hosts[b.host]
		if set == nil {
			set = &breakerSet{}
			hosts[b.host] = set
		}
		if i := slices.IndexFunc(set.breakers, b.rivals); i >= 0 {
			first := set.breakers[i].object
			r.error(o, breakerTwice, "spec.host", "keep one of them, or narrow one by subset, port or route",
				"CircuitBreaker %s (%s) has the same target and comes first (order: %s); this one has no effect", first.Name, position(first), orderText(o))
			continue
		}
		set.breakers = append(set.breakers, b)
	}
	for _, hosts := range m.breakers {
		for _, set := range hosts {
			slices.SortStableFunc(set.breakers, compareBreakers)
		}
	}
}

// rivals says whether two breakers of one host have the same target.
func (b *breaker) rivals(other *breaker) bool {
	return b.spec.Subset == other.spec.Subset && b.spec.Port == other.spec.Port &&
		slices.Equal(slices.Sorted(slices.Values(b.model.Paths)), slices.Sorted(slices.Values(other.model.Paths))) &&
		slices.Equal(slices.Sorted(slices.Values(b.model.Methods)), slices.Sorted(slices.Values(other.model.Methods)))
}

// compareBreakers puts what is narrowed by more before what is narrowed by less; of equally many, a subset comes before a
// port, and a port before a route. Of two routes, paths with methods come first, then exact paths, then the longer ones.
func compareBreakers(a, b *breaker) int {
	set := func(is bool, n int) int {
		if is {
			return n
		}
		return 0
	}
	rank := func(x *breaker) []int {
		subset, port, route := x.spec.Subset != "", x.spec.Port != 0, x.spec.Route != nil
		exact, longest := len(x.model.Paths) > 0, 0
		for _, p := range x.model.Paths {
			exact = exact && !strings.HasSuffix(p, "*")
			longest = max(longest, len(p))
		}
		return []int{
			set(subset, 1) + set(port, 1) + set(route, 1), set(subset, 4) + set(port, 2) + set(route, 1),
			set(len(x.model.Paths) > 0, 2) + set(len(x.model.Methods) > 0, 1), set(exact, 1), longest,
		}
	}
	return slices.Compare(rank(b), rank(a))
}

// translated is the model of what the object says.
func (b *breaker) translated() model.Breaker {
	h := &b.spec.Hystrix
	millis := func(n int) model.Duration { return model.Duration(time.Duration(n) * time.Millisecond) }
	from := origin(b.object, "spec", "")
	out := model.Breaker{
		Name:  key(b.object.Namespace, b.object.Name),
		Group: b.host,

		Enabled:                  h.CircuitBreaker.Enabled,
		RequestVolumeThreshold:   h.CircuitBreaker.RequestVolumeThreshold,
		ErrorThresholdPercentage: h.CircuitBreaker.ErrorThresholdPercentage,
		SleepWindow:              millis(h.CircuitBreaker.SleepWindowMillis),
		ForceOpen:                h.CircuitBreaker.ForceOpen,
		ForceClosed:              h.CircuitBreaker.ForceClosed,

		RollingWindow:        millis(h.Metrics.RollingStats.Millis),
		RollingBuckets:       h.Metrics.RollingStats.NumBuckets,
		HealthInterval:       millis(h.Metrics.HealthSnapshot.IntervalMillis),
		PercentileEnabled:    h.Metrics.RollingPercentile.Enabled,
		PercentileWindow:     millis(h.Metrics.RollingPercentile.Millis),
		PercentileBuckets:    h.Metrics.RollingPercentile.NumBuckets,
		PercentileBucketSize: h.Metrics.RollingPercentile.BucketSize,

		Thread:         h.Execution.Isolation.Strategy == "THREAD",
		MaxConcurrent:  h.Execution.Isolation.Semaphore.MaxConcurrentRequests,
		TimeoutEnabled: h.Execution.Timeout.Enabled,
		Timeout:        millis(h.Execution.Isolation.Thread.TimeoutMillis),

		FallbackEnabled:       h.Fallback.Enabled,
		FallbackMaxConcurrent: h.Fallback.Isolation.Semaphore.MaxConcurrentRequests,
		Origin:                &from,
	}
	if r := b.spec.Route; r != nil {
		out.Paths, out.Methods = r.Paths, r.Methods
	}
	for _, s := range b.spec.Errors.Statuses {
		out.Statuses = append(out.Statuses, string(s))
	}
	for _, s := range b.spec.Errors.GRPCStatuses {
		out.GRPCStatuses = append(out.GRPCStatuses, string(s))
	}
	if f := b.spec.Fallback; f != nil && f.Response != nil {
		out.FallbackReply = &model.Reply{Status: f.Response.Status, Body: f.Response.Body}
		for _, name := range slices.Sorted(maps.Keys(f.Response.Headers)) {
			out.FallbackReply.Headers = append(out.FallbackReply.Headers, model.NameValue{Name: strings.ToLower(name), Value: f.Response.Headers[name]})
		}
	}
	return out
}

// breakersOf returns the CircuitBreakers that stand between a client in namespace and s: those of its own namespace, else
// of the service's, else of the root's; the first that has any for the host decides, as with DestinationRules. nil is none.
func (m *Mesh) breakersOf(namespace string, s *service) *breakerSet {
	for _, from := range []string{namespace, s.Namespace, m.root} {
		if set := m.breakers[from][s.Host]; set != nil {
			return set
		}
	}
	return nil
}

// before names the breakers that stand before a port and subset, in the order in which they are asked.
func (s *breakerSet) before(port int, subset string) []string {
	var names []string
	if s != nil {
		for _, b := range s.breakers {
			if (b.spec.Port == 0 || b.spec.Port == port) && (b.spec.Subset == "" || b.spec.Subset == subset) {
				names = append(names, b.model.Name)
			}
		}
	}
	return names
}

// guards returns the breakers before the clusters that the scope uses, by name, and adds to these the ones that fallbacks
// lead to: they are part of the snapshot although no route names them.
func (s *scope) guards() []model.Breaker {
	if len(s.mesh.breakers) == 0 {
		return nil
	}
	guards := map[string]model.Breaker{}
	for done := map[string]bool{}; len(done) < len(s.clusters); {
		for _, c := range s.used() { // fallbacks add to it
			if done[c.Name] {
				continue
			}
			done[c.Name] = true
			for _, b := range c.set.all() {
				if _, ok := guards[b.model.Name]; !ok && slices.Contains(c.Breakers, b.model.Name) {
					guards[b.model.Name] = s.guard(b)
				}
			}
		}
	}
	out := make([]model.Breaker, 0, len(guards))
	for _, name := range slices.Sorted(maps.Keys(guards)) {
		out = append(out, guards[name])
	}
	return out
}

func (s *breakerSet) all() []*breaker {
	if s == nil {
		return nil
	}
	return s.breakers
}

// guard is b as the client has it: where its fallback is a service that the client cannot reach, the error stands.
func (s *scope) guard(b *breaker) model.Breaker {
	out := b.model
	if c, f := s.fallback(b); c != nil && f == nil {
		out.FallbackCluster = c.Name
	}
	return out
}

// fallback returns the cluster that b falls back to, nil without one, or why there is none.
func (s *scope) fallback(b *breaker) (*cluster, *refusal) {
	if b.spec.Fallback == nil || b.spec.Fallback.Backend == nil {
		return nil, nil
	}
	to := b.spec.Fallback.Backend
	host, listen := fullName(to.Host, b.object.Namespace, s.mesh.domain), b.spec.Port
	if svc := s.service(b.host); listen == 0 && svc != nil && len(svc.ports) == 1 {
		listen = svc.ports[0].number
	}
	if svc := s.service(host); svc != nil && to.Port == 0 && listen == 0 && len(svc.ports) > 1 {
		return nil, &refusal{
			portNeeded, "port", fmt.Sprintf("destination %s has %d ports (%s), and nothing says which of them the fallback is", host, len(svc.ports), portList(svc)),
			"name one of them in fallback.backend.port",
		}
	}
	c, f := s.target(host, to.Subset, to.Port, listen)
	if f == nil {
		f = c.unfit(s.gateway != "")
	}
	return c, f
}

// checkBreakers reports what CircuitBreakers refer to in vain.
func (m *Mesh) checkBreakers(r *report) {
	for _, namespace := range sortedKeys(m.breakers) {
		for _, host := range sortedKeys(m.breakers[namespace]) {
			for _, b := range m.breakers[namespace][host].breakers {
				m.checkBreaker(b, r)
			}
		}
	}
}

func (m *Mesh) checkBreaker(b *breaker, r *report) {
	s := m.scope(b.object.Namespace, nil)
	if svc := m.services.find(b.host, b.object.Namespace); svc == nil {
		r.warn(b.object, breakerTarget, "spec.host", s.hint(b.host), "host %s is no service that namespace %s sees; the breaker guards nothing", b.host, b.object.Namespace)
	} else {
		m.checkTarget(b, svc, s, r)
	}
	if c, f := s.fallback(b); f != nil {
		f.report(r, b.object, "spec.fallback.backend")
	} else if c != nil && c.port.service.Host == b.host && c.Subset == b.spec.Subset && c.Port == cmp.Or(b.spec.Port, c.Port) {
		r.warn(b.object, breakerLoop, "spec.fallback.backend", "name another service, port or subset", "the fallback is the very target that the breaker guards")
	}
}

// checkTarget reports a port or subset that is not there, and ports that carry no requests.
func (m *Mesh) checkTarget(b *breaker, svc *service, s *scope, r *report) {
	ports := svc.ports
	if n := b.spec.Port; n != 0 {
		p := svc.port(n)
		if p == nil {
			r.warn(b.object, breakerTarget, "spec.port", "name one of the service's ports", "%s has no port %d (it has %s); the breaker guards nothing", b.host, n, portList(svc))
			return
		}
		ports = []*port{p}
	}
	requests := false
	for _, p := range ports {
		c, f := s.cluster(p, b.spec.Subset)
		if f != nil && f.id == unknownSubset {
			r.warn(b.object, breakerTarget, "spec.subset", f.remedy, "%s; the breaker guards nothing", f.message)
			return
		}
		requests = requests || c == nil || !opaque(c.Protocol)
	}
	if !requests && len(ports) > 0 {
		field := "spec.host"
		if b.spec.Port != 0 {
			field = "spec.port"
		}
		r.warn(b.object, breakerTarget, field, "name a port after its protocol, http, http2 or grpc, if it carries requests", "%s carries bytes there, not requests; for sidecars, the breaker guards nothing", b.host)
	}
}
