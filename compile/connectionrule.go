package compile

import (
	"fmt"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// connectionRule is one tcp or tls route of a VirtualService. Everything that it matches is known before any byte is read,
// or is the server name that the client asks for; so of all rules, one remains for each name.
type connectionRule struct {
	field        string
	base         model.Rule
	matches      []connectionMatch // none is always
	destinations []virtualDestination
}

// connectionMatch is one condition. Unlike those of http routes, all of it must hold.
type connectionMatch struct {
	names     []string // of the server, "*." before a suffix; none is any
	port      int
	gateways  []string
	labels    map[string]string
	namespace string
}

// static says whether the match has a condition that does not hold for all proxies, ports and names.
func (c *connectionMatch) static() bool {
	return len(c.names) > 0 || c.port != 0 || len(c.gateways) > 0 || len(c.labels) > 0 || c.namespace != ""
}

// holds says whether the match is for a client's proxy, seen at gateway (or inMesh), on port listen. Gateways have no source.
func (c *connectionMatch) holds(s *scope, gateway string, listen int) bool {
	if c.port != 0 && c.port != listen {
		return false
	}
	if len(c.gateways) > 0 && !slices.Contains(c.gateways, gateway) {
		return false
	}
	return gateway != inMesh || (selects(c.labels, s.labels) && (c.namespace == "" || c.namespace == s.namespace))
}

// connectionRules translates the tcp and tls routes of o.
func (m *Mesh) connectionRules(o *config.Object, spec *networking.VirtualService, r *report) (tcp, tls []*connectionRule) {
	for i, route := range spec.Tcp {
		c := &connectionRule{field: element("spec.tcp", i)}
		for j, h := range route.Match {
			if h.SourceSubnet != "" {
				r.without(o, element(c.field+".match", j)+".sourceSubnet")
			}
			match := connectionMatch{port: int(h.Port), labels: h.SourceLabels, namespace: h.SourceNamespace}
			if c.subnets(o, element(c.field+".match", j), h.DestinationSubnets, r) {
				match.gateways = m.gatewayNames(h.Gateways, o.Namespace)
				c.matches = append(c.matches, match)
			}
		}
		if c.forward(m, o, element("tcp", i), len(route.Match), route.Route, r) {
			tcp = append(tcp, c)
		}
	}
	for i, route := range spec.Tls {
		c := &connectionRule{field: element("spec.tls", i)}
		for j, h := range route.Match {
			match := connectionMatch{port: int(h.Port), labels: h.SourceLabels, namespace: h.SourceNamespace}
			for k, name := range h.SniHosts {
				if name = fullName(name, o.Namespace, m.domain); routable(name) {
					match.names = append(match.names, name)
				} else {
					r.error(o, badValue, element(element(c.field+".match", j)+".sniHosts", k), `use a full name, or "*." before a suffix`, "host %q cannot be routed", name)
				}
			}
			if len(match.names) > 0 && c.subnets(o, element(c.field+".match", j), h.DestinationSubnets, r) {
				match.gateways = m.gatewayNames(h.Gateways, o.Namespace)
				c.matches = append(c.matches, match)
			}
		}
		if len(route.Match) > 0 && c.forward(m, o, element("tls", i), len(route.Match), route.Route, r) {
			tls = append(tls, c)
		}
	}
	reportUnreachable(o, tcp, r)
	return tcp, tls
}

// subnets says whether a match is without destinationSubnets, which no proxy can keep that is told names instead of addresses.
func (c *connectionRule) subnets(o *config.Object, field string, all []string, r *report) bool {
	if len(all) > 0 {
		r.warn(o, noEffect, field+".destinationSubnets", "match by port, or name the addresses in a ServiceEntry", "destinationSubnets has no effect yet: this match never holds")
	}
	return len(all) == 0
}

func (m *Mesh) gatewayNames(all []string, namespace string) []string {
	var out []string
	for _, g := range all {
		out = append(out, m.gatewayName(g, namespace))
	}
	return out
}

// forward translates where the rule leads to; it is false where no match is left of those written.
func (c *connectionRule) forward(m *Mesh, o *config.Object, name string, written int, route []*networking.RouteDestination, r *report) bool {
	if written > 0 && len(c.matches) == 0 {
		return false
	}
	c.base = model.Rule{Origin: origin(o, c.field, name), Route: &model.Route{}}
	var sum uint32
	for j, d := range route {
		field := element(c.field+".route", j)
		if d.Weight < 0 {
			r.error(o, badValue, field+".weight", "use a weight of 0 or more", "weight %d is negative; it counts as 0", d.Weight)
		}
		weight := uint32(max(d.Weight, 0))
		sum += weight
		c.destinations = append(c.destinations, virtualDestination{
			object: o, host: fullName(d.Destination.GetHost(), o.Namespace, m.domain), subset: d.Destination.GetSubset(),
			port: int(d.Destination.GetPort().GetNumber()), weight: weight, field: field + ".destination",
		})
	}
	switch {
	case len(route) == 0:
		r.error(o, noAction, c.field, "add route", "the rule has no route; its connections are refused")
	case sum == 0 && len(route) > 1:
		r.error(o, noWeight, c.field+".route", "give one of the destinations a weight", "all destinations have weight 0; the rule's connections are refused")
	default:
		return true
	}
	c.destinations = nil
	c.base.Route = nil
	c.base.Reply = &model.Reply{Status: 503, Outcome: "no_route", Body: fmt.Sprintf("no route: %s of VirtualService %s/%s leads nowhere\n", name, o.Namespace, o.Name)}
	return true
}

// reportUnreachable names the tcp routes that follow one for every connection.
func reportUnreachable(o *config.Object, rules []*connectionRule, r *report) {
	for i, rule := range rules {
		if len(rule.matches) > 0 && !slices.ContainsFunc(rule.matches, func(c connectionMatch) bool { return !c.static() }) {
			continue
		}
		for _, late := range rules[i+1:] {
			r.warn(o, unreachable, late.field, "move it before that rule, or remove it", "%s is never reached: %s matches every connection", late.field, rule.field)
		}
		return
	}
}

// covers says whether the rule is for connections to name ("" without one), for a proxy seen at gateway, on port listen.
func (c *connectionRule) covers(s *scope, gateway string, listen int, name string) bool {
	if len(c.matches) == 0 {
		return true
	}
	return slices.ContainsFunc(c.matches, func(match connectionMatch) bool {
		return match.holds(s, gateway, listen) && (len(match.names) == 0 || slices.ContainsFunc(match.names, func(n string) bool { return within(name, n) }))
	})
}

// build makes the rule of a proxy.
func (c *connectionRule) build(s *scope, listen int, r *report) model.Rule {
	rule := c.base
	if rule.Route != nil {
		rule.Route = &model.Route{Destinations: s.destinations(c.destinations, listen, r)}
	}
	return rule
}

// names lists the server names that rules match for a proxy, in order.
func (v *virtualService) names(s *scope, gateway string, listen int) []string {
	var out []string
	for _, c := range v.tls {
		for i := range c.matches {
			if !c.matches[i].holds(s, gateway, listen) {
				continue
			}
			for _, n := range c.matches[i].names {
				if !slices.Contains(out, n) {
					out = append(out, n)
				}
			}
		}
	}
	return out
}

// connectionVirtuals returns the VirtualServices with tcp or tls routes for host that a client sees, nearest first. Sidecars
// try them all: the first route that fits decides.
func (m *Mesh) connectionVirtuals(s *scope, host string) []*virtualService {
	var out []*virtualService
	for _, v := range m.carriers {
		meets := func(h string) bool { return within(host, h) || within(h, host) }
		if v.exported.includes(s.namespace) && slices.ContainsFunc(v.hosts, meets) && s.importsVirtual(v) {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b *virtualService) int { return a.tier(s.namespace) - b.tier(s.namespace) })
	return out
}
