package compile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// split is an SMI TrafficSplit: a root service whose requests go to leaves. A leaf may be the root itself; the leaf's own
// split, if any, is not followed.
type split struct {
	object      *config.Object
	origin      model.Origin
	root        *service
	conditional bool
	matches     []model.Match // of a conditional split; what none matches goes to the root's own endpoints
	leaves      []leaf
}

type leaf struct {
	service *service // nil where there is none
	name    string
	weight  uint32
	field   string
}

// readSplits translates all TrafficSplits; the first of a root service has it.
func (m *Mesh) readSplits(objects []*config.Object, r *report) {
	groups := map[string]*config.Object{}
	for _, o := range objects {
		if _, ok := o.Spec.(*config.HTTPRouteGroup); ok {
			groups[key(o.Namespace, o.Name)] = o
		}
	}
	for _, o := range objects {
		spec, ok := o.Spec.(*config.TrafficSplit)
		if !ok {
			continue
		}
		root := m.splitService(spec.Service, o.Namespace)
		if root == nil {
			r.error(o, unknownHost, "spec.service", "check the name, or add the Service", "root service %s of namespace %s is not there", spec.Service, o.Namespace)
			continue
		}
		if first := m.splits[root]; first != nil {
			r.error(o, splitConflict, "spec.service", "keep one TrafficSplit for each root service",
				"service %s is split by TrafficSplit %s/%s (%s) already, which comes first (order: %s); this one has no effect",
				root.Host, first.object.Namespace, first.object.Name, position(first.object), orderText(o))
			continue
		}
		t := &split{object: o, origin: origin(o, "spec.backends", ""), root: root, conditional: len(spec.Matches) > 0}
		for i, ref := range spec.Matches {
			group := groups[key(o.Namespace, ref.Name)]
			if group == nil {
				r.error(o, groupMissing, element("spec.matches", i)+".name", "check the name, or add the HTTPRouteGroup", "there is no HTTPRouteGroup %s/%s; nothing matches it", o.Namespace, ref.Name)
				continue
			}
			t.matches = append(t.matches, groupMatches(group, group.Spec.(*config.HTTPRouteGroup), r)...)
		}
		for i, b := range spec.Backends {
			t.leaves = append(t.leaves, leaf{service: m.splitService(b.Service, o.Namespace), name: b.Service, weight: b.Weight, field: element("spec.backends", i)})
		}
		m.splits[root] = t
		t.report(r)
	}
}

// splitService finds a service as a TrafficSplit of namespace writes it: short, with the namespace, or in full.
func (m *Mesh) splitService(name, namespace string) *service {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, host := range []string{fullName(name, namespace, m.domain), name + ".svc." + m.domain, name + "." + m.domain} {
		if s := m.services.find(host, namespace); s != nil && s.Namespace == namespace {
			return s
		}
	}
	return nil
}

// report names the leaves that get nothing although they have a weight.
func (t *split) report(r *report) {
	for _, l := range t.leaves {
		if l.weight == 0 {
			continue // it may come later
		}
		if l.service == nil {
			r.warn(t.object, leafMissing, l.field+".service", "check the name, or add the Service; a leaf of weight 0 may be absent", "service %s is not there; the others get its share", l.name)
			continue
		}
		for _, p := range t.root.ports {
			if lp := l.service.port(p.number); lp == nil || !alike(p, lp) {
				r.warn(t.object, leafPort, l.field+".service", "give it that port: leaves are called at the root service's port number",
					"service %s has no port %s (it has %s); there, the others get its share", l.name, p.text(), portList(l.service))
			}
		}
	}
}

// rules returns the rules for requests to port p of the root.
func (t *split) rules(s *scope, p *port, plain func(*scope, *port) []model.Rule) []model.Rule {
	to, any := t.destinations(s, p)
	if !any { // as if there were no split
		return plain(s, p)
	}
	shared := model.Rule{Origin: t.origin, Route: &model.Route{Destinations: to, Retries: s.defaults(p, to)}}
	p.service.linkerd.shape(p, shared.Route) // as where the root's own endpoints answer
	if !t.conditional {
		return []model.Rule{shared}
	}
	rest := plain(s, p)
	if len(t.matches) == 0 {
		return rest
	}
	shared.Matches = t.matches
	return append([]model.Rule{shared}, rest...)
}

// destinations are the leaves that have port p; false where none of them has a weight.
func (t *split) destinations(s *scope, p *port) (to []model.Destination, any bool) {
	for _, l := range t.leaves {
		if l.service == nil {
			continue
		}
		lp := l.service.port(p.number)
		if lp == nil || !alike(p, lp) {
			continue
		}
		c, f := s.cluster(lp, "")
		to = append(to, s.destination(c, f, l.weight, 503))
		any = any || l.weight > 0
	}
	return to, any
}

// groupMatches translates an HTTPRouteGroup: its matches are alternatives.
func groupMatches(o *config.Object, g *config.HTTPRouteGroup, r *report) []model.Match {
	var out []model.Match
	for i, spec := range g.Matches {
		field := element(g.Field, i)
		ok := true
		widened := func(expression, at string) *model.StringMatch {
			if _, err := regexp.Compile(expression); err != nil {
				badRegex(o, at, err, r)
				ok = false
			}
			return &model.StringMatch{Kind: model.Regex, Value: expression}
		}
		var m model.Match
		if spec.PathRegex != "" {
			m.Path = widened("(?:"+spec.PathRegex+").*", field+".pathRegex")
		}
		for _, h := range spec.Headers {
			m.Headers = append(m.Headers, model.KeyMatch{
				Name:        strings.ToLower(h.Name),
				StringMatch: *widened(".*(?:"+h.Regex+").*", fmt.Sprintf("%s.headers[%s]", field, h.Name)),
			})
		}
		switch {
		case !ok:
		case len(spec.Methods) == 0 || slices.Contains(spec.Methods, "*"):
			out = append(out, m)
		default:
			for _, method := range spec.Methods {
				one := m
				one.Method = &model.StringMatch{Kind: model.Exact, Value: method}
				out = append(out, one)
			}
		}
	}
	return out
}
