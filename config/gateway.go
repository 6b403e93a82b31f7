package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
)

// The defaults and checks here are those of the Gateway API's CRDs (standard channel; the experimental channel's fields are taken too).

// fallback gives an absent value its default.
func fallback[T any](p **T, value T) {
	if *p == nil {
		*p = new(value)
	}
}

func defaultGateway(g *gatewayv1.Gateway) {
	for i := range g.Spec.Listeners {
		l := &g.Spec.Listeners[i]
		fallback(&l.AllowedRoutes, gatewayv1.AllowedRoutes{})
		fallback(&l.AllowedRoutes.Namespaces, gatewayv1.RouteNamespaces{})
		fallback(&l.AllowedRoutes.Namespaces.From, gatewayv1.NamespacesFromSame)
		for j := range l.AllowedRoutes.Kinds {
			fallback(&l.AllowedRoutes.Kinds[j].Group, gatewayv1.GroupName)
		}
		if l.TLS != nil {
			fallback(&l.TLS.Mode, gatewayv1.TLSModeTerminate)
			for j := range l.TLS.CertificateRefs {
				fallback(&l.TLS.CertificateRefs[j].Group, "")
				fallback(&l.TLS.CertificateRefs[j].Kind, "Secret")
			}
		}
	}
	for i := range g.Spec.Addresses {
		fallback(&g.Spec.Addresses[i].Type, gatewayv1.IPAddressType)
	}
}

func defaultParents(refs []gatewayv1.ParentReference) {
	for i := range refs {
		fallback(&refs[i].Group, gatewayv1.GroupName)
		fallback(&refs[i].Kind, "Gateway")
	}
}

func defaultHTTPRoute(r *gatewayv1.HTTPRoute) {
	defaultParents(r.Spec.ParentRefs)
	if r.Spec.Rules == nil {
		r.Spec.Rules = []gatewayv1.HTTPRouteRule{{}}
	}
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		if rule.Matches == nil {
			rule.Matches = []gatewayv1.HTTPRouteMatch{{}}
		}
		for j := range rule.Matches {
			defaultMatch(&rule.Matches[j])
		}
		defaultFilters(rule.Filters)
		for j := range rule.BackendRefs {
			b := &rule.BackendRefs[j]
			defaultBackend(&b.BackendObjectReference)
			fallback(&b.Weight, 1)
			defaultFilters(b.Filters)
		}
	}
}

func defaultMatch(m *gatewayv1.HTTPRouteMatch) {
	fallback(&m.Path, gatewayv1.HTTPPathMatch{})
	fallback(&m.Path.Type, gatewayv1.PathMatchPathPrefix)
	fallback(&m.Path.Value, "/")
	for i := range m.Headers {
		fallback(&m.Headers[i].Type, gatewayv1.HeaderMatchExact)
	}
	for i := range m.QueryParams {
		fallback(&m.QueryParams[i].Type, gatewayv1.QueryParamMatchExact)
	}
}

func defaultBackend(b *gatewayv1.BackendObjectReference) {
	fallback(&b.Group, "")
	fallback(&b.Kind, "Service")
}

func defaultFilters(filters []gatewayv1.HTTPRouteFilter) {
	for i := range filters {
		f := &filters[i]
		if f.RequestRedirect != nil {
			fallback(&f.RequestRedirect.StatusCode, 302)
		}
		if f.RequestMirror != nil {
			defaultBackend(&f.RequestMirror.BackendRef)
			if f.RequestMirror.Fraction != nil {
				fallback(&f.RequestMirror.Fraction.Denominator, 100)
			}
		}
		if f.CORS != nil && f.CORS.MaxAge == 0 {
			f.CORS.MaxAge = 5
		}
	}
}

func checkGateway(c *checker, g *gatewayv1.Gateway) {
	c.required(g.Spec.GatewayClassName != "", "spec.gatewayClassName", "name a GatewayClass; any name will do here")
	c.required(len(g.Spec.Listeners) > 0, "spec.listeners", "write at least one listener")
	c.atMost("spec.listeners", len(g.Spec.Listeners), 64, "listeners")
	names, places := map[string]bool{}, map[string]bool{}
	for i := range g.Spec.Listeners {
		l, field := &g.Spec.Listeners[i], item("spec.listeners", i)
		if c.required(l.Name != "", field+".name", "name the listener") {
			c.subdomain(field+".name", string(l.Name))
			c.unless(!names[string(l.Name)], idRepeated, field+".name", "the listener name "+clip(string(l.Name))+" is used twice", "give each listener a name of its own")
			names[string(l.Name)] = true
		}
		c.port(field+".port", int64(l.Port))
		c.listener(field, l)
		hostname := ""
		if l.Hostname != nil {
			hostname = string(*l.Hostname)
			c.routeHostname(field+".hostname", hostname)
		}
		place := fmt.Sprint(l.Port, l.Protocol, hostname)
		c.unless(!places[place], idRepeated, field, "another listener has the same port, protocol and hostname", "change one of them")
		places[place] = true
	}
}

func (c *checker) listener(field string, l *gatewayv1.Listener) {
	if c.required(l.Protocol != "", field+".protocol", "write such as HTTP") && !strings.Contains(string(l.Protocol), "/") {
		c.oneOf(field+".protocol", string(l.Protocol), "HTTP", "HTTPS", "TLS", "TCP", "UDP")
	}
	switch l.Protocol {
	case gatewayv1.HTTPProtocolType, gatewayv1.TCPProtocolType, gatewayv1.UDPProtocolType:
		c.unless(l.TLS == nil, idExclusive, field+".tls", "a listener of protocol "+string(l.Protocol)+" has no TLS", "write protocol: HTTPS or TLS")
		if l.Protocol != gatewayv1.HTTPProtocolType && l.Hostname != nil && *l.Hostname != "" {
			c.bad(idExclusive, field+".hostname", "a listener of protocol "+string(l.Protocol)+" has no hostname", "remove it")
		}
	case gatewayv1.HTTPSProtocolType:
		c.unless(l.TLS == nil || *l.TLS.Mode == gatewayv1.TLSModeTerminate, idExclusive, field+".tls.mode", "protocol HTTPS ends TLS", "write mode: Terminate, or protocol: TLS")
	case gatewayv1.TLSProtocolType:
		c.required(l.TLS != nil, field+".tls", "write tls: {mode: ...}")
	}
	if l.TLS != nil {
		c.oneOf(field+".tls.mode", string(*l.TLS.Mode), "Terminate", "Passthrough")
		if *l.TLS.Mode == gatewayv1.TLSModeTerminate {
			c.required(len(l.TLS.CertificateRefs)+len(l.TLS.Options) > 0, field+".tls.certificateRefs", "name the Secret of the certificate")
		}
	}
	from := field + ".allowedRoutes.namespaces"
	c.oneOf(from+".from", string(*l.AllowedRoutes.Namespaces.From), "All", "Selector", "Same", "None")
	if *l.AllowedRoutes.Namespaces.From == gatewayv1.NamespacesFromSelector {
		if c.required(l.AllowedRoutes.Namespaces.Selector != nil, from+".selector", "write the labels of the namespaces") {
			c.labels(from+".selector.matchLabels", l.AllowedRoutes.Namespaces.Selector.MatchLabels)
		}
	}
	for i := range l.AllowedRoutes.Kinds {
		c.required(l.AllowedRoutes.Kinds[i].Kind != "", item(field+".allowedRoutes.kinds", i)+".kind", "name a kind such as HTTPRoute")
	}
}

// routeHostname wants a lower-case DNS name that may begin with "*." and is no address.
func (c *checker) routeHostname(field, name string) {
	if _, err := netip.ParseAddr(name); err == nil {
		c.bad(idHost, field, name+" is an IP address", "write a DNS name")
		return
	}
	if plain := strings.TrimPrefix(name, "*."); len(name) > 253 || len(validation.IsDNS1123Subdomain(plain)) > 0 {
		c.bad(idHost, field, clip(strconv.Quote(name))+" is not a valid hostname", "write a lower-case DNS name, optionally with *. at its beginning; without port")
	}
}

// parents checks what a route is attached to.
func (c *checker) parents(refs []gatewayv1.ParentReference) {
	c.atMost("spec.parentRefs", len(refs), 32, "parents")
	for i := range refs {
		p, field := &refs[i], item("spec.parentRefs", i)
		c.required(p.Name != "", field+".name", "name a Gateway or a Service")
		if p.Port != nil {
			c.port(field+".port", int64(*p.Port))
		}
		if p.Namespace != nil {
			c.label(field+".namespace", string(*p.Namespace))
		}
	}
}

func (c *checker) hostnames(names []gatewayv1.Hostname, most int) {
	c.atMost("spec.hostnames", len(names), most, "hostnames")
	for i, h := range names {
		c.routeHostname(item("spec.hostnames", i), string(h))
	}
}

func checkHTTPRoute(c *checker, r *gatewayv1.HTTPRoute) {
	c.parents(r.Spec.ParentRefs)
	c.hostnames(r.Spec.Hostnames, 16)
	c.required(len(r.Spec.Rules) > 0, "spec.rules", "write at least one rule, or leave rules out for the default")
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
		c.rule(field, rule)
	}
	c.atMost("spec.rules", matches, 128, "matches in all rules together")
}

func (c *checker) rule(field string, r *gatewayv1.HTTPRouteRule) {
	c.atMost(field+".matches", len(r.Matches), 64, "matches")
	for i := range r.Matches {
		c.routeMatch(item(field+".matches", i), &r.Matches[i])
	}
	c.filters(field+".filters", r.Filters, r.Matches, len(r.BackendRefs) > 0)
	c.atMost(field+".backendRefs", len(r.BackendRefs), 16, "backends")
	for i := range r.BackendRefs {
		b, at := &r.BackendRefs[i], item(field+".backendRefs", i)
		c.backend(at, &b.BackendObjectReference)
		c.backendWeight(at+".weight", *b.Weight)
		c.filters(at+".filters", b.Filters, r.Matches, false)
	}
	if t := r.Timeouts; t != nil {
		request, ok1 := c.gatewayDuration(field+".timeouts.request", t.Request)
		backend, ok2 := c.gatewayDuration(field+".timeouts.backendRequest", t.BackendRequest)
		if ok1 && ok2 && request > 0 && backend > request {
			c.bad(idDuration, field+".timeouts.backendRequest", "backendRequest "+backend.String()+" is longer than request "+request.String(), "shorten it")
		}
	}
	if r.Retry != nil {
		for i, code := range r.Retry.Codes {
			within(c, item(field+".retry.codes", i), int(code), 400, 599)
		}
		c.gatewayDuration(field+".retry.backoff", r.Retry.Backoff)
		if r.Retry.Attempts != nil {
			c.unless(*r.Retry.Attempts >= 1, idRange, field+".retry.attempts", fmt.Sprintf("%d is out of range", *r.Retry.Attempts), "write 1 or more")
		}
	}
}

// backend checks a reference; a Service's needs a port.
func (c *checker) backend(field string, b *gatewayv1.BackendObjectReference) {
	c.required(b.Name != "", field+".name", "name a Service")
	if b.Namespace != nil {
		c.label(field+".namespace", string(*b.Namespace))
	}
	if *b.Kind == "Service" && (*b.Group == "" || *b.Group == "core") {
		c.required(b.Port != nil, field+".port", "write the Service's port")
	}
	if b.Port != nil {
		c.port(field+".port", int64(*b.Port))
	}
}

func (c *checker) backendWeight(field string, w int32) {
	c.unless(w >= 0 && w <= 1000000, idWeight, field, fmt.Sprintf("the weight %d is out of range", w), "write a weight from 0 to 1000000")
}

const gatewayDurationRemedy = "write whole hours, minutes, seconds or milliseconds such as 1h30m, 10s or 500ms"

// gatewayDurationForm is GEP-2257: up to four parts of up to five digits, no fractions.
var gatewayDurationForm = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// GatewayDuration reads a duration of the Gateway API (GEP-2257): 1h30m, 500ms, 0s; no fractions, no sign.
func GatewayDuration(d gatewayv1.Duration) (time.Duration, error) {
	if !gatewayDurationForm.MatchString(string(d)) {
		return 0, fmt.Errorf("%q is not a Gateway API duration", clip(string(d)))
	}
	return time.ParseDuration(string(d))
}

func (c *checker) gatewayDuration(field string, d *gatewayv1.Duration) (time.Duration, bool) {
	if d == nil {
		return 0, false
	}
	t, err := GatewayDuration(*d)
	if err != nil {
		c.bad(idDuration, field, err.Error(), gatewayDurationRemedy)
	}
	return t, err == nil
}

var (
	pathForm   = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`)
	methodList = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)

func (c *checker) routeMatch(field string, m *gatewayv1.HTTPRouteMatch) {
	path := field + ".path"
	c.oneOf(path+".type", string(*m.Path.Type), "Exact", "PathPrefix", "RegularExpression")
	value := *m.Path.Value
	switch {
	case len(value) > 1024:
		c.bad(idTooMany, path+".value", "the path has more than 1024 characters", "shorten it")
	case *m.Path.Type == gatewayv1.PathMatchRegularExpression:
		c.regex(path+".value", value)
	case !strings.HasPrefix(value, "/"):
		c.bad(idValue, path+".value", clip(strconv.Quote(value))+" is not an absolute path", "begin it with /")
	case !pathForm.MatchString(value):
		c.bad(idValue, path+".value", clip(strconv.Quote(value))+" has characters that a path cannot have", "percent-encode them; a query belongs into queryParams")
	default:
		for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			c.unless(!strings.Contains(value, part), idValue, path+".value", "a path must not contain "+part, "write the normal form of the path")
		}
		c.unless(!strings.HasSuffix(value, "/..") && !strings.HasSuffix(value, "/."), idValue, path+".value", "a path must not end with /. or /..", "write the normal form of the path")
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
		if *h.Type == gatewayv1.HeaderMatchRegularExpression {
			c.regex(at+".value", h.Value)
		}
	}
	c.atMost(field+".queryParams", len(m.QueryParams), 16, "parameters")
	params := map[string]bool{}
	for i := range m.QueryParams {
		q, at := &m.QueryParams[i], item(field+".queryParams", i)
		c.headerName(at+".name", string(q.Name))
		c.unless(!params[string(q.Name)], idRepeated, at+".name", "the parameter "+clip(string(q.Name))+" is matched twice", "write one match for it")
		params[string(q.Name)] = true
		c.oneOf(at+".type", string(*q.Type), "Exact", "RegularExpression")
		c.required(q.Value != "", at+".value", "write the value")
		if *q.Type == gatewayv1.QueryParamMatchRegularExpression {
			c.regex(at+".value", q.Value)
		}
	}
	if m.Method != nil {
		c.oneOf(field+".method", string(*m.Method), methodList...)
	}
}

// filterFields is each filter type's own field; the others must be absent.
var filterFields = map[gatewayv1.HTTPRouteFilterType]string{
	gatewayv1.HTTPRouteFilterRequestHeaderModifier:  "requestHeaderModifier",
	gatewayv1.HTTPRouteFilterResponseHeaderModifier: "responseHeaderModifier",
	gatewayv1.HTTPRouteFilterRequestMirror:          "requestMirror",
	gatewayv1.HTTPRouteFilterRequestRedirect:        "requestRedirect",
	gatewayv1.HTTPRouteFilterURLRewrite:             "urlRewrite",
	gatewayv1.HTTPRouteFilterCORS:                   "cors",
	gatewayv1.HTTPRouteFilterExternalAuth:           "externalAuth",
	gatewayv1.HTTPRouteFilterExtensionRef:           "extensionRef",
}

func (c *checker) filters(field string, filters []gatewayv1.HTTPRouteFilter, matches []gatewayv1.HTTPRouteMatch, backends bool) {
	c.atMost(field, len(filters), 16, "filters")
	seen := map[gatewayv1.HTTPRouteFilterType]bool{}
	for i := range filters {
		f, at := &filters[i], item(field, i)
		own, known := filterFields[f.Type]
		if !known {
			if c.required(f.Type != "", at+".type", "write the filter's type") {
				c.oneOf(at+".type", string(f.Type), "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS", "ExternalAuth", "ExtensionRef")
			}
			continue
		}
		for _, name := range filterFields {
			if written := c.object.Has(at + "." + name); written != (name == own) {
				if written {
					c.bad(idExclusive, at+"."+name, name+" does not belong to a filter of type "+string(f.Type), "change the type or remove the field")
				} else {
					c.required(false, at+"."+name, "a filter of type "+string(f.Type)+" needs it")
				}
			}
		}
		if seen[f.Type] && f.Type != gatewayv1.HTTPRouteFilterRequestMirror && f.Type != gatewayv1.HTTPRouteFilterExtensionRef {
			c.bad(idRepeated, at+".type", "the filter "+string(f.Type)+" is written twice", "merge the two")
		}
		seen[f.Type] = true
		c.filter(at, f, matches)
	}
	if seen[gatewayv1.HTTPRouteFilterRequestRedirect] {
		c.unless(!seen[gatewayv1.HTTPRouteFilterURLRewrite], idExclusive, field, "RequestRedirect and URLRewrite exclude each other", "remove one of them")
		c.unless(!backends, idExclusive, field, "RequestRedirect and backendRefs exclude each other", "remove one of them")
	}
}

func (c *checker) filter(field string, f *gatewayv1.HTTPRouteFilter, matches []gatewayv1.HTTPRouteMatch) {
	c.headerFilter(field+".requestHeaderModifier", f.RequestHeaderModifier)
	c.headerFilter(field+".responseHeaderModifier", f.ResponseHeaderModifier)
	if m := f.RequestMirror; m != nil {
		at := field + ".requestMirror"
		c.backend(at+".backendRef", &m.BackendRef)
		c.exclusive(at, "percent", "fraction")
		if m.Percent != nil {
			within(c, at+".percent", *m.Percent, 0, 100)
		}
		if m.Fraction != nil {
			within(c, at+".fraction.denominator", *m.Fraction.Denominator, 1, 1<<31-1)
			within(c, at+".fraction.numerator", m.Fraction.Numerator, 0, max(*m.Fraction.Denominator, 0))
		}
	}
	if r := f.RequestRedirect; r != nil {
		at := field + ".requestRedirect"
		if r.Scheme != nil {
			c.oneOf(at+".scheme", *r.Scheme, "http", "https")
		}
		if r.Hostname != nil {
			c.routeHostname(at+".hostname", string(*r.Hostname))
		}
		if r.Port != nil {
			c.port(at+".port", int64(*r.Port))
		}
		c.oneOf(at+".statusCode", strconv.Itoa(*r.StatusCode), "301", "302", "303", "307", "308")
		c.pathModifier(at+".path", r.Path, matches)
	}
	if u := f.URLRewrite; u != nil {
		if u.Hostname != nil {
			c.routeHostname(field+".urlRewrite.hostname", string(*u.Hostname))
		}
		c.pathModifier(field+".urlRewrite.path", u.Path, matches)
	}
	if f.CORS != nil {
		c.corsFilter(field+".cors", f.CORS)
	}
}

func (c *checker) headerFilter(field string, h *gatewayv1.HTTPHeaderFilter) {
	if h == nil {
		return
	}
	for _, part := range []struct {
		name    string
		headers []gatewayv1.HTTPHeader
	}{{"set", h.Set}, {"add", h.Add}} {
		c.atMost(field+"."+part.name, len(part.headers), 16, "headers")
		seen := map[string]bool{}
		for i, header := range part.headers {
			at := item(field+"."+part.name, i)
			c.headerName(at+".name", string(header.Name))
			name := strings.ToLower(string(header.Name))
			c.unless(!seen[name], idRepeated, at+".name", "the header "+clip(name)+" is named twice", "remove one of them")
			seen[name] = true
			c.required(header.Value != "", at+".value", "write the value")
			c.headerValue(at+".value", header.Value)
		}
	}
	c.atMost(field+".remove", len(h.Remove), 16, "headers")
	for i, name := range h.Remove {
		c.headerName(item(field+".remove", i), name)
	}
}

func (c *checker) pathModifier(field string, p *gatewayv1.HTTPPathModifier, matches []gatewayv1.HTTPRouteMatch) {
	if p == nil {
		return
	}
	c.oneOf(field+".type", string(p.Type), "ReplaceFullPath", "ReplacePrefixMatch")
	if full := p.Type == gatewayv1.FullPathHTTPPathModifier; full != (p.ReplaceFullPath != nil) {
		c.bad(idExclusive, field+".replaceFullPath", "replaceFullPath and type: ReplaceFullPath belong together", "write both or none")
	}
	if prefix := p.Type == gatewayv1.PrefixMatchHTTPPathModifier; prefix != (p.ReplacePrefixMatch != nil) {
		c.bad(idExclusive, field+".replacePrefixMatch", "replacePrefixMatch and type: ReplacePrefixMatch belong together", "write both or none")
	} else if prefix && (len(matches) != 1 || *matches[0].Path.Type != gatewayv1.PathMatchPathPrefix) {
		c.bad(idExclusive, field+".type", "ReplacePrefixMatch needs exactly one match of type PathPrefix in its rule", "split the rule, or use ReplaceFullPath")
	}
	for name, value := range map[string]*string{"replaceFullPath": p.ReplaceFullPath, "replacePrefixMatch": p.ReplacePrefixMatch} {
		if value != nil {
			c.headerValue(field+"."+name, *value)
			c.unless(len(*value) <= 1024, idTooMany, field+"."+name, "the path has more than 1024 characters", "shorten it")
		}
	}
}

var originForm = regexp.MustCompile(`(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)`)

func (c *checker) corsFilter(field string, f *gatewayv1.HTTPCORSFilter) {
	for i, o := range f.AllowOrigins {
		c.unless(originForm.MatchString(string(o)), idHost, item(field+".allowOrigins", i), clip(strconv.Quote(string(o)))+" is not an origin", "write such as https://example.com, or *")
		c.unless(o != "*" || len(f.AllowOrigins) == 1, idExclusive, item(field+".allowOrigins", i), "* stands alone among the origins", "remove the others")
	}
	for i, m := range f.AllowMethods {
		c.oneOf(item(field+".allowMethods", i), string(m), append(slices.Clone(methodList), "*")...)
		c.unless(m != "*" || len(f.AllowMethods) == 1, idExclusive, item(field+".allowMethods", i), "* stands alone among the methods", "remove the others")
	}
	for i, h := range f.AllowHeaders {
		c.headerName(item(field+".allowHeaders", i), string(h))
	}
	for i, h := range f.ExposeHeaders {
		c.headerName(item(field+".exposeHeaders", i), string(h))
	}
	c.unless(f.MaxAge >= 1, idRange, field+".maxAge", fmt.Sprintf("%d is out of range", f.MaxAge), "write seconds, at least 1")
}

func checkReferenceGrant(c *checker, g *gatewayv1beta1.ReferenceGrant) {
	c.required(len(g.Spec.From) > 0, "spec.from", "write who may refer")
	c.required(len(g.Spec.To) > 0, "spec.to", "write what may be referred to")
	c.atMost("spec.from", len(g.Spec.From), 16, "entries")
	c.atMost("spec.to", len(g.Spec.To), 16, "entries")
	for i, f := range g.Spec.From {
		field := item("spec.from", i)
		c.required(f.Kind != "", field+".kind", "name a kind such as HTTPRoute")
		if c.required(f.Namespace != "", field+".namespace", "name the namespace") {
			c.label(field+".namespace", string(f.Namespace))
		}
	}
	for i, t := range g.Spec.To {
		c.required(t.Kind != "", item("spec.to", i)+".kind", "name a kind such as Service")
	}
}
