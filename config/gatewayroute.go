package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// The Gateway API's routes other than HTTPRoute. TCPRoute, TLSRoute and GRPCRoute were promoted without changes, so every version
// reads as v1.

func defaultTCPRoute(r *gatewayv1.TCPRoute) {
	defaultParents(r.Spec.ParentRefs)
	for i := range r.Spec.Rules {
		defaultBackends(r.Spec.Rules[i].BackendRefs)
	}
}

func defaultTLSRoute(r *gatewayv1.TLSRoute) {
	defaultParents(r.Spec.ParentRefs)
	for i := range r.Spec.Rules {
		defaultBackends(r.Spec.Rules[i].BackendRefs)
	}
}

func defaultBackends(refs []gatewayv1.BackendRef) {
	for i := range refs {
		defaultBackend(&refs[i].BackendObjectReference)
		fallback(&refs[i].Weight, 1)
	}
}

// defaultGRPCRoute has a rule without matches match everything, as the API server leaves it.
func defaultGRPCRoute(r *gatewayv1.GRPCRoute) {
	defaultParents(r.Spec.ParentRefs)
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		for j := range rule.Matches {
			m := &rule.Matches[j]
			if m.Method != nil {
				fallback(&m.Method.Type, gatewayv1.GRPCMethodMatchExact)
			}
			for k := range m.Headers {
				fallback(&m.Headers[k].Type, gatewayv1.GRPCHeaderMatchExact)
			}
		}
		defaultGRPCFilters(rule.Filters)
		for j := range rule.BackendRefs {
			b := &rule.BackendRefs[j]
			defaultBackend(&b.BackendObjectReference)
			fallback(&b.Weight, 1)
			defaultGRPCFilters(b.Filters)
		}
	}
}

func defaultGRPCFilters(filters []gatewayv1.GRPCRouteFilter) {
	for i := range filters {
		if m := filters[i].RequestMirror; m != nil {
			defaultBackend(&m.BackendRef)
			if m.Fraction != nil {
				fallback(&m.Fraction.Denominator, 100)
			}
		}
	}
}

func checkTCPRoute(c *checker, r *gatewayv1.TCPRoute) {
	c.parents(r.Spec.ParentRefs)
	c.oneRule(len(r.Spec.Rules))
	for i := range r.Spec.Rules {
		c.connectionRule(item("spec.rules", i), r.Spec.Rules[i].Name, r.Spec.Rules[i].BackendRefs)
	}
}

func checkTLSRoute(c *checker, r *gatewayv1.TLSRoute) {
	c.parents(r.Spec.ParentRefs)
	c.required(len(r.Spec.Hostnames) > 0, "spec.hostnames", "name the hosts of the TLS handshake")
	c.hostnames(r.Spec.Hostnames, 1024)
	c.oneRule(len(r.Spec.Rules))
	for i := range r.Spec.Rules {
		c.connectionRule(item("spec.rules", i), r.Spec.Rules[i].Name, r.Spec.Rules[i].BackendRefs)
	}
}

func (c *checker) oneRule(n int) {
	c.required(n > 0, "spec.rules", "write one rule with backendRefs")
	c.unless(n <= 1, idTooMany, "spec.rules", fmt.Sprintf("has %d rules, more than the limit of 1", n), "a connection meets one rule; remove the others")
}

// connectionRule checks a rule for connections: where they go.
func (c *checker) connectionRule(field string, name *gatewayv1.SectionName, refs []gatewayv1.BackendRef) {
	if name != nil {
		c.subdomain(field+".name", string(*name))
	}
	c.required(len(refs) > 0, field+".backendRefs", "name at least one Service and its port")
	c.atMost(field+".backendRefs", len(refs), 16, "backends")
	for i := range refs {
		at := item(field+".backendRefs", i)
		c.backend(at, &refs[i].BackendObjectReference)
		c.backendWeight(at+".weight", *refs[i].Weight)
	}
}

func checkGRPCRoute(c *checker, r *gatewayv1.GRPCRoute) {
	c.parents(r.Spec.ParentRefs)
	c.hostnames(r.Spec.Hostnames, 16)
	c.atMost("spec.rules", len(r.Spec.Rules), 16, "rules")
	matches, names := 0, map[string]bool{}
	for i := range r.Spec.Rules {
		rule, field := &r.Spec.Rules[i], item("spec.rules", i)
		if rule.Name != nil {
			c.subdomain(field+".name", string(*rule.Name))
			c.unless(!names[string(*rule.Name)], idRepeated, field+".name", "the rule name "+clip(string(*rule.Name))+" is used twice", "give each rule a name of its own")
			names[string(*rule.Name)] = true
		}
		matches += len(rule.Matches)
		c.atMost(field+".matches", len(rule.Matches), 64, "matches")
		for j := range rule.Matches {
			c.grpcMatch(item(field+".matches", j), &rule.Matches[j])
		}
		c.grpcFilters(field+".filters", rule.Filters)
		c.atMost(field+".backendRefs", len(rule.BackendRefs), 16, "backends")
		for j := range rule.BackendRefs {
			b, at := &rule.BackendRefs[j], item(field+".backendRefs", j)
			c.backend(at, &b.BackendObjectReference)
			c.backendWeight(at+".weight", *b.Weight)
			c.grpcFilters(at+".filters", b.Filters)
		}
	}
	c.atMost("spec.rules", matches, 128, "matches in all rules together")
}

// The CRD's forms of a gRPC service and method.
var (
	grpcServiceForm = regexp.MustCompile(`^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`)
	grpcMethodForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

func (c *checker) grpcMatch(field string, m *gatewayv1.GRPCRouteMatch) {
	if method := m.Method; method != nil {
		at := field + ".method"
		c.oneOf(at+".type", string(*method.Type), "Exact", "RegularExpression")
		c.required(method.Service != nil || method.Method != nil, at+".service", "write service, method or both")
		for _, part := range []struct {
			name  string
			value *string
			form  *regexp.Regexp
		}{{"service", method.Service, grpcServiceForm}, {"method", method.Method, grpcMethodForm}} {
			switch {
			case part.value == nil:
			case len(*part.value) > 1024:
				c.bad(idTooMany, at+"."+part.name, "the "+part.name+" has more than 1024 characters", "shorten it")
			case *method.Type == gatewayv1.GRPCMethodMatchRegularExpression:
				c.regex(at+"."+part.name, *part.value)
			default:
				c.unless(part.form.MatchString(*part.value), idValue, at+"."+part.name, clip(strconv.Quote(*part.value))+" is not the name of a gRPC "+part.name, "write such as com.example.Greeter and SayHello, without slashes")
			}
		}
	}
	c.atMost(field+".headers", len(m.Headers), 16, "headers")
	names := map[string]bool{}
	for i := range m.Headers {
		h, at := &m.Headers[i], item(field+".headers", i)
		c.headerName(at+".name", string(h.Name))
		name := strings.ToLower(string(h.Name))
		c.unless(!names[name], idRepeated, at+".name", "the header "+clip(name)+" is matched twice", "write one match for it")
		names[name] = true
		c.oneOf(at+".type", string(*h.Type), "Exact", "RegularExpression")
		c.required(h.Value != "", at+".value", "write the value")
		if *h.Type == gatewayv1.GRPCHeaderMatchRegularExpression {
			c.regex(at+".value", h.Value)
		}
	}
}

// grpcFilterFields is each filter type's own field; the others must be absent.
var grpcFilterFields = map[gatewayv1.GRPCRouteFilterType]string{
	gatewayv1.GRPCRouteFilterRequestHeaderModifier:  "requestHeaderModifier",
	gatewayv1.GRPCRouteFilterResponseHeaderModifier: "responseHeaderModifier",
	gatewayv1.GRPCRouteFilterRequestMirror:          "requestMirror",
	gatewayv1.GRPCRouteFilterExtensionRef:           "extensionRef",
}

func (c *checker) grpcFilters(field string, filters []gatewayv1.GRPCRouteFilter) {
	c.atMost(field, len(filters), 16, "filters")
	seen := map[gatewayv1.GRPCRouteFilterType]bool{}
	for i := range filters {
		f, at := &filters[i], item(field, i)
		own, known := grpcFilterFields[f.Type]
		if !known {
			c.oneOf(at+".type", string(f.Type), "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef")
			continue
		}
		for _, name := range slices.Sorted(maps.Values(grpcFilterFields)) {
			if written := c.object.Has(at + "." + name); written && name != own {
				c.bad(idExclusive, at+"."+name, "a filter of type "+string(f.Type)+" has no "+name, "remove it, or correct the type")
			} else if !written && name == own {
				c.required(false, at+"."+name, "write what the filter does")
			}
		}
		if seen[f.Type] && f.Type != gatewayv1.GRPCRouteFilterRequestMirror && f.Type != gatewayv1.GRPCRouteFilterExtensionRef {
			c.bad(idRepeated, at+".type", "the filter "+string(f.Type)+" is written twice", "merge the two")
		}
		seen[f.Type] = true
		same := gatewayv1.HTTPRouteFilter{RequestHeaderModifier: f.RequestHeaderModifier, ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror}
		c.filter(at, &same, nil)
	}
}

// policyTargets checks what a policy is for.
func policyTargets[T any](c *checker, refs []T, plain func(T) gatewayv1.LocalPolicyTargetReference) {
	c.required(len(refs) > 0, "spec.targetRefs", "name the Service that the policy is for")
	c.atMost("spec.targetRefs", len(refs), 16, "targets")
	for i, ref := range refs {
		t, field := plain(ref), item("spec.targetRefs", i)
		c.required(t.Kind != "", field+".kind", "write such as Service")
		c.required(t.Name != "", field+".name", "name the Service")
	}
}

func checkBackendTLSPolicy(c *checker, p *gatewayv1.BackendTLSPolicy) {
	policyTargets(c, p.Spec.TargetRefs, func(t gatewayv1.LocalPolicyTargetReferenceWithSectionName) gatewayv1.LocalPolicyTargetReference {
		return t.LocalPolicyTargetReference
	})
	v, field := &p.Spec.Validation, "spec.validation"
	switch {
	case len(v.CACertificateRefs) == 0 && v.WellKnownCACertificates == nil:
		c.required(false, field+".caCertificateRefs", "name a ConfigMap with ca.crt, or write wellKnownCACertificates: System")
	case len(v.CACertificateRefs) > 0 && v.WellKnownCACertificates != nil && *v.WellKnownCACertificates != "":
		c.bad(idExclusive, field+".wellKnownCACertificates", "caCertificateRefs and wellKnownCACertificates exclude each other", "remove one of them")
	}
	c.atMost(field+".caCertificateRefs", len(v.CACertificateRefs), 8, "references")
	for i, ref := range v.CACertificateRefs {
		c.required(ref.Kind != "", item(field+".caCertificateRefs", i)+".kind", "write such as ConfigMap")
		c.required(ref.Name != "", item(field+".caCertificateRefs", i)+".name", "name the ConfigMap")
	}
	if c.required(v.Hostname != "", field+".hostname", "name the host that the backend's certificate is for") {
		c.routeHostname(field+".hostname", string(v.Hostname))
		c.unless(!strings.HasPrefix(string(v.Hostname), "*"), idHost, field+".hostname", "a wildcard is no name of a server", "write the full name")
	}
	c.atMost(field+".subjectAltNames", len(v.SubjectAltNames), 5, "names")
	for i, n := range v.SubjectAltNames {
		at := item(field+".subjectAltNames", i)
		c.oneOf(at+".type", string(n.Type), "Hostname", "URI")
		c.unless((n.Hostname != "") == (n.Type == gatewayv1.HostnameSubjectAltNameType), idExclusive, at+".hostname", "hostname and type: Hostname belong together", "write both or none")
		c.unless((n.URI != "") == (n.Type == gatewayv1.URISubjectAltNameType), idExclusive, at+".uri", "uri and type: URI belong together", "write both or none")
	}
}
