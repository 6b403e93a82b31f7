package config

import (
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServiceProfile is Linkerd's (linkerd.io/v1alpha2). Its object is called like the service's host, and holds for the clients of its
// namespace, or, in the service's own, for all that have none.
type ServiceProfile struct {
	Routes []ProfileRoute
	// RetryBudget is for all retryable routes together, with every default filled in.
	RetryBudget ProfileBudget
	// Overrides share the requests by weight in place of the service's own endpoints.
	Overrides []ProfileOverride
}

// ProfileRoute is what holds for the requests that its condition is for; the first such route of a profile has a request.
type ProfileRoute struct {
	Name      string
	Condition RequestMatch
	Classes   []ResponseClass
	Retryable bool
	Timeout   time.Duration // 0 is none
}

// RequestMatch is a condition on a request: everything that is set must hold.
type RequestMatch struct {
	PathRegex string // of the whole path, without query
	Method    string
	All, Any  []RequestMatch // nil where not written
	Not       *RequestMatch
}

// ResponseClass says of some statuses whether they are failures; the first class that has a status decides.
type ResponseClass struct {
	Condition ResponseMatch
	Failure   bool
}

// ResponseMatch is a condition on a status: everything that is set must hold.
type ResponseMatch struct {
	Status   *StatusRange
	All, Any []ResponseMatch
	Not      *ResponseMatch
}

// StatusRange has both ends; 0 is no end.
type StatusRange struct{ Min, Max int }

// ProfileBudget allows Ratio retries for each request of the last TTL, and PerSecond ones besides.
type ProfileBudget struct {
	Ratio     float64
	PerSecond int
	TTL       time.Duration
}

// ProfileOverride is a service, by host, with a port or the one that was asked for, and its share.
type ProfileOverride struct {
	Authority string
	// Weight is in thousandths, at most 1e9.
	Weight uint32
}

// maxConditions bounds how deep the conditions of a ServiceProfile lie within one another.
const maxConditions = 16

func decodeServiceProfile(d *decoder, n *node) (any, *metav1.ObjectMeta) {
	p := &ServiceProfile{RetryBudget: ProfileBudget{Ratio: 0.2, PerSecond: 10, TTL: 10 * time.Second}}
	meta := d.header(n, func(n *node) {
		d.members(n, map[string]func(*node){
			"routes":       func(n *node) { d.each(n, func(n *node) { p.Routes = append(p.Routes, d.profileRoute(n)) }) },
			"retryBudget":  func(n *node) { d.profileBudget(n, &p.RetryBudget) },
			"dstOverrides": func(n *node) { d.each(n, func(n *node) { p.Overrides = append(p.Overrides, d.profileOverride(n)) }) },
			"opaquePorts":  func(n *node) { d.each(n, func(n *node) { d.text(n) }) },
		})
	})
	return p, meta
}

func (d *decoder) profileRoute(n *node) (r ProfileRoute) {
	d.members(n, map[string]func(*node){
		"name":        func(n *node) { r.Name = d.text(n) },
		"condition":   func(n *node) { r.Condition = d.requestMatch(n, 0) },
		"isRetryable": func(n *node) { r.Retryable = d.truth(n) },
		"timeout":     func(n *node) { r.Timeout = d.goDuration(n) },
		"responseClasses": func(n *node) {
			d.each(n, func(n *node) {
				var c ResponseClass
				d.members(n, map[string]func(*node){
					"condition": func(n *node) { c.Condition = d.responseMatch(n, 0) },
					"isFailure": func(n *node) { c.Failure = d.truth(n) },
				})
				r.Classes = append(r.Classes, c)
			})
		},
	})
	return r
}

func (d *decoder) requestMatch(n *node, depth int) (m RequestMatch) {
	if d.tooDeep(n, depth) {
		return m
	}
	list := func(to *[]RequestMatch) func(*node) {
		return func(n *node) {
			*to = []RequestMatch{}
			d.each(n, func(n *node) { *to = append(*to, d.requestMatch(n, depth+1)) })
		}
	}
	d.members(n, map[string]func(*node){
		"pathRegex": func(n *node) { m.PathRegex = d.text(n) },
		"method":    func(n *node) { m.Method = d.text(n) },
		"all":       list(&m.All),
		"any":       list(&m.Any),
		"not": func(n *node) {
			not := d.requestMatch(n, depth+1)
			m.Not = &not
		},
	})
	return m
}

func (d *decoder) responseMatch(n *node, depth int) (m ResponseMatch) {
	if d.tooDeep(n, depth) {
		return m
	}
	list := func(to *[]ResponseMatch) func(*node) {
		return func(n *node) {
			*to = []ResponseMatch{}
			d.each(n, func(n *node) { *to = append(*to, d.responseMatch(n, depth+1)) })
		}
	}
	d.members(n, map[string]func(*node){
		"status": func(n *node) {
			m.Status = &StatusRange{}
			d.members(n, map[string]func(*node){
				"min": func(n *node) { m.Status.Min = d.count(n) },
				"max": func(n *node) { m.Status.Max = d.count(n) },
			})
		},
		"all": list(&m.All),
		"any": list(&m.Any),
		"not": func(n *node) {
			not := d.responseMatch(n, depth+1)
			m.Not = &not
		},
	})
	return m
}

func (d *decoder) tooDeep(n *node, depth int) bool {
	if depth < maxConditions {
		return false
	}
	d.add(n, idLimit, "conditions lie more than "+strconv.Itoa(maxConditions)+" deep", "write it with fewer levels")
	return true
}

func (d *decoder) profileBudget(n *node, b *ProfileBudget) {
	d.members(n, map[string]func(*node){
		"retryRatio":          func(n *node) { b.Ratio = d.fraction(n) },
		"minRetriesPerSecond": func(n *node) { b.PerSecond = d.count(n) },
		"ttl":                 func(n *node) { b.TTL = d.goDuration(n) },
	})
}

func (d *decoder) profileOverride(n *node) (o ProfileOverride) {
	d.members(n, map[string]func(*node){
		"authority": func(n *node) { o.Authority = d.text(n) },
		"weight":    func(n *node) { o.Weight = uint32(d.weight(n)) },
	})
	return o
}

// truth reads a boolean.
func (d *decoder) truth(n *node) bool {
	if n.shape != boolean {
		d.wrong(n, "a boolean")
		return false
	}
	return n.truth()
}

// count reads a whole number.
func (d *decoder) count(n *node) int {
	i, err := strconv.ParseInt(n.value, 10, 32)
	if n.shape != number || err != nil {
		d.wrong(n, "a whole number")
	}
	return int(i)
}

// fraction reads a number.
func (d *decoder) fraction(n *node) float64 {
	f, err := strconv.ParseFloat(n.value, 64)
	if n.shape != number || err != nil {
		d.wrong(n, "a number")
	}
	return f
}

// goDuration reads a duration as Go writes it, not negative.
func (d *decoder) goDuration(n *node) time.Duration {
	t, err := time.ParseDuration(d.text(n))
	if n.shape == text && (err != nil || t < 0) {
		d.add(n, idDuration, clip(strconv.Quote(n.value))+" is no duration", "write such as 500ms, 1.5s or 1m")
		return 0
	}
	return t
}

func checkServiceProfile(c *checker, p *ServiceProfile) {
	for i := range p.Routes {
		r, field := &p.Routes[i], item("spec.routes", i)
		c.required(r.Name != "", field+".name", "name the route")
		c.requestMatch(field+".condition", &r.Condition)
		for j := range r.Classes {
			c.responseMatch(item(field+".responseClasses", j)+".condition", &r.Classes[j].Condition)
		}
	}
	const budget = "spec.retryBudget"
	within(c, budget+".retryRatio", p.RetryBudget.Ratio, 0, 1000)
	within(c, budget+".minRetriesPerSecond", p.RetryBudget.PerSecond, 0, 1_000_000)
	c.unless(p.RetryBudget.TTL >= time.Second && p.RetryBudget.TTL <= time.Minute, idDuration, budget+".ttl", "ttl "+p.RetryBudget.TTL.String()+" is out of range", "write a duration from 1s to 60s")
	for i, o := range p.Overrides {
		c.required(o.Authority != "", item("spec.dstOverrides", i)+".authority", "name a service by its full host, such as web.shop.svc.cluster.local")
	}
}

func (c *checker) requestMatch(field string, m *RequestMatch) {
	if m.PathRegex != "" {
		c.regex(field+".pathRegex", m.PathRegex)
	}
	c.unless(m.Method == "" || validToken(m.Method), idEnum, field+".method", clip(strconv.Quote(m.Method))+" is not a method", "write such as GET")
	c.required(m.PathRegex != "" || m.Method != "" || m.All != nil || m.Any != nil || m.Not != nil, field, "write pathRegex, method, all, any or not")
	for i := range m.All {
		c.requestMatch(item(field+".all", i), &m.All[i])
	}
	for i := range m.Any {
		c.requestMatch(item(field+".any", i), &m.Any[i])
	}
	if m.Not != nil {
		c.requestMatch(field+".not", m.Not)
	}
}

func (c *checker) responseMatch(field string, m *ResponseMatch) {
	if s := m.Status; s != nil {
		within(c, field+".status.min", max(s.Min, -1), 0, 599)
		within(c, field+".status.max", max(s.Max, -1), 0, 599)
		c.required(s.Min != 0 || s.Max != 0, field+".status", "write min, max or both")
		c.unless(s.Max == 0 || s.Min <= s.Max, idRange, field+".status.max", "max is below min", "write both the other way round")
	}
	c.required(m.Status != nil || m.All != nil || m.Any != nil || m.Not != nil, field, "write status, all, any or not")
	for i := range m.All {
		c.responseMatch(item(field+".all", i), &m.All[i])
	}
	for i := range m.Any {
		c.responseMatch(item(field+".any", i), &m.Any[i])
	}
	if m.Not != nil {
		c.responseMatch(field+".not", m.Not)
	}
}

// Has says whether m is for a status.
func (m *ResponseMatch) Has(status int) bool {
	if s := m.Status; s != nil && (status < s.Min || s.Max != 0 && status > s.Max) {
		return false
	}
	for i := range m.All {
		if !m.All[i].Has(status) {
			return false
		}
	}
	any := m.Any == nil
	for i := range m.Any {
		any = any || m.Any[i].Has(status)
	}
	return any && (m.Not == nil || !m.Not.Has(status))
}
