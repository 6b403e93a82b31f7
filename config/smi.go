package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TrafficSplit is SMI's split (split.smi-spec.io v1alpha1 to v1alpha4) in one form.
type TrafficSplit struct {
	// Service is the root service: the name that clients call; short, or with namespace and domain.
	Service string
	// Matches refer to HTTPRouteGroups of the same namespace; empty means that all requests are split.
	Matches []SplitMatch
	// Backends share the requests by Weight. It is empty only in a split that decodes with errors.
	Backends []SplitBackend
}

// SplitMatch refers to an HTTPRouteGroup.
type SplitMatch struct {
	Kind, Name string
}

// SplitBackend is one leaf of a split.
type SplitBackend struct {
	// Service is a Service of the same namespace.
	Service string
	// Weight is relative to the sum of the split's weights: as written where all of them are whole numbers,
	// in thousandths where one is a fraction (500m, 0.5). At most 1e9; 0 gets nothing.
	Weight uint32
}

// HTTPRouteGroup is SMI's list of matches (specs.smi-spec.io v1alpha1 to v1alpha4) in one form.
type HTTPRouteGroup struct {
	Matches []RouteMatch
	// Field is the path that the matches are written at: "matches" or "spec.matches".
	Field string
}

// RouteMatch is one entry of an HTTPRouteGroup: all that it names must hold.
type RouteMatch struct {
	Name string
	// PathRegex is anchored at the beginning of the path; empty matches any.
	PathRegex string
	// Methods may be empty or contain "*" for any.
	Methods []string
	// Headers are in the order of the text.
	Headers []HeaderRegex
}

// HeaderRegex wants a header's value to match an expression that is not anchored.
type HeaderRegex struct {
	Name, Regex string
}

// most is the greatest weight as written; 1e6 is the Gateway API's limit too.
const maxWeight = 1_000_000

func decodeTrafficSplit(d *decoder, n *node) (any, *metav1.ObjectMeta) {
	s := &TrafficSplit{}
	meta := d.header(n, func(n *node) {
		d.members(n, map[string]func(*node){
			"service":  func(n *node) { s.Service = d.text(n) },
			"matches":  func(n *node) { d.each(n, func(n *node) { s.Matches = append(s.Matches, d.splitMatch(n)) }) },
			"backends": func(n *node) { s.Backends = d.backends(n) },
		})
	})
	return s, meta
}

func (d *decoder) splitMatch(n *node) (m SplitMatch) {
	d.members(n, map[string]func(*node){
		"apiGroup": func(n *node) { d.text(n) },
		"kind":     func(n *node) { m.Kind = d.text(n) },
		"name":     func(n *node) { m.Name = d.text(n) },
	})
	return m
}

// backends reads the leaves and brings their weights to one scale.
func (d *decoder) backends(n *node) []SplitBackend {
	var backends []SplitBackend
	var thousandths []int64
	whole := true
	d.each(n, func(n *node) {
		b, milli := SplitBackend{}, int64(0)
		weighed := false
		d.members(n, map[string]func(*node){
			"service": func(n *node) { b.Service = d.text(n) },
			"weight":  func(n *node) { milli, weighed = d.weight(n), true },
		})
		if !weighed {
			d.enter("weight")
			d.add(n, idRequired, "is required and missing", "write a weight; 0 for no requests")
			d.leave()
		}
		whole = whole && milli%1000 == 0
		backends, thousandths = append(backends, b), append(thousandths, milli)
	})
	for i, w := range thousandths {
		if whole {
			w /= 1000
		}
		backends[i].Weight = uint32(w)
	}
	return backends
}

// weight reads a whole number, a fraction, or either as text or as a Kubernetes quantity (500m), in thousandths.
func (d *decoder) weight(n *node) int64 {
	if n.shape != number && n.shape != text {
		d.wrong(n, "a weight")
		return 0
	}
	q, err := resource.ParseQuantity(strings.TrimSpace(n.value))
	if err != nil {
		d.add(n, idWeight, clip(strconv.Quote(n.value))+" is not a weight", "write a number such as 90, 0.5 or 500m")
		return 0
	}
	if q.Sign() < 0 || q.CmpInt64(maxWeight) > 0 {
		d.add(n, idWeight, "the weight "+clip(n.value)+" is out of range", fmt.Sprintf("write a weight from 0 to %d", maxWeight))
		return 0
	}
	return q.MilliValue()
}

func decodeHTTPRouteGroup(d *decoder, n *node) (any, *metav1.ObjectMeta) {
	g := &HTTPRouteGroup{Field: "spec.matches"}
	matches := func(n *node) { d.each(n, func(n *node) { g.Matches = append(g.Matches, d.routeMatch(n)) }) }
	rest := *n
	if f := n.field("matches"); f != nil && n.child("spec").child("matches") == nil {
		g.Field = "matches"
		d.enter("matches")
		matches(f.value)
		d.leave()
		rest.fields = slices.DeleteFunc(slices.Clone(n.fields), func(f field) bool { return f.name == "matches" })
	}
	meta := d.header(&rest, func(n *node) { d.members(n, map[string]func(*node){"matches": matches}) })
	return g, meta
}

func (d *decoder) routeMatch(n *node) (m RouteMatch) {
	d.members(n, map[string]func(*node){
		"name":      func(n *node) { m.Name = d.text(n) },
		"pathRegex": func(n *node) { m.PathRegex = d.text(n) },
		"methods":   func(n *node) { d.each(n, func(n *node) { m.Methods = append(m.Methods, d.text(n)) }) },
		"headers": func(n *node) {
			if n.shape == list { // the form of older samples: a list of mappings
				d.each(n, func(n *node) { m.Headers = append(m.Headers, d.headers(n)...) })
				return
			}
			m.Headers = d.headers(n)
		},
	})
	return m
}

func (d *decoder) headers(n *node) (headers []HeaderRegex) {
	if n.shape != mapping {
		d.wrong(n, "a mapping")
		return nil
	}
	for i := range n.fields {
		f := &n.fields[i]
		d.enterKey(f.name)
		headers = append(headers, HeaderRegex{f.name, d.text(f.value)})
		d.leave()
	}
	return headers
}

// members reads a mapping with a function for each field that it may have.
func (d *decoder) members(n *node, fields map[string]func(*node)) {
	if n.shape == null {
		return
	}
	if n.shape != mapping {
		d.wrong(n, "a mapping")
		return
	}
	for i := range n.fields {
		f := &n.fields[i]
		read := fields[f.name]
		if read == nil {
			known := make([]string, 0, len(fields))
			for name := range fields {
				known = append(known, name)
			}
			d.unknown(f, known)
			continue
		}
		d.enter(f.name)
		read(f.value)
		d.leave()
	}
}

// each reads a list's items.
func (d *decoder) each(n *node, read func(*node)) {
	if n.shape == null {
		return
	}
	if n.shape != list {
		d.wrong(n, "a list")
		return
	}
	for i, c := range n.items {
		d.enterIndex(i)
		read(c)
		d.leave()
	}
}

// text reads a string.
func (d *decoder) text(n *node) string {
	if n.shape != text {
		d.wrong(n, "a string")
		return ""
	}
	return n.value
}

func checkTrafficSplit(c *checker, s *TrafficSplit) {
	if c.required(s.Service != "", "spec.service", "name the service that clients call") {
		c.host("spec.service", s.Service)
	}
	c.required(len(s.Backends) > 0, "spec.backends", "list the services that share the requests")
	names := map[string]bool{}
	for i, b := range s.Backends {
		field := item("spec.backends", i)
		if c.required(b.Service != "", field+".service", "name a service") {
			c.host(field+".service", b.Service)
			c.unless(!names[b.Service], idRepeated, field+".service", "the service "+clip(b.Service)+" is listed twice", "add up the two weights")
			names[b.Service] = true
		}
	}
	for i, m := range s.Matches {
		field := item("spec.matches", i)
		if c.required(m.Kind != "", field+".kind", "write kind: HTTPRouteGroup") {
			c.oneOf(field+".kind", m.Kind, "HTTPRouteGroup")
		}
		c.required(m.Name != "", field+".name", "name an HTTPRouteGroup of this namespace")
	}
}

func checkHTTPRouteGroup(c *checker, g *HTTPRouteGroup) {
	c.required(len(g.Matches) > 0, g.Field, "write at least one match")
	names := map[string]bool{}
	for i, m := range g.Matches {
		field := item(g.Field, i)
		if c.required(m.Name != "", field+".name", "name the match") {
			c.unless(!names[m.Name], idRepeated, field+".name", "the match "+clip(m.Name)+" is defined twice", "give each match a name of its own")
			names[m.Name] = true
		}
		c.regex(field+".pathRegex", m.PathRegex)
		for j, method := range m.Methods {
			c.unless(method == "*" || validToken(method), idEnum, item(field+".methods", j), clip(strconv.Quote(method))+" is not a method", "write such as GET, or *")
		}
		for _, h := range m.Headers {
			at := field + ".headers[" + h.Name + "]"
			c.headerName(at, h.Name)
			c.regex(at, h.Regex)
		}
	}
}
