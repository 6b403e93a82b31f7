package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	networkingv1 "istio.io/api/networking/v1alpha3"
)

// The checks of istio.go and destination.go are those of Istio's CRDs and of istiod's webhook, except that a duration of 0 is taken
// wherever Istio's own samples write one.

func checkVirtualService(c *checker, v *networkingv1.VirtualService) {
	delegate := len(v.Hosts) == 0
	if delegate && len(v.Gateways) > 0 {
		c.required(false, "spec.hosts", "name the hosts that the rules are for; only a delegate has neither hosts nor gateways")
	}
	mesh := len(v.Gateways) == 0
	for i, g := range v.Gateways {
		mesh = mesh || g == "mesh"
		c.gatewayName(item("spec.gateways", i), g)
	}
	c.exportTo("spec.exportTo", v.ExportTo)
	for i, h := range v.Hosts {
		field := item("spec.hosts", i)
		c.wildcardHost(field, h, true)
		if mesh && h == "*" {
			c.bad(idHost, field, "the host * is not allowed for the mesh", "name gateways, or write the hosts out")
		}
		for j := range i {
			if validWildcard(h) && covers(h, v.Hosts[j]) {
				c.bad(idRepeated, field, fmt.Sprintf("%s and %s are hosts of the same rules twice", clip(v.Hosts[j]), clip(h)), "remove the narrower one")
				break
			}
		}
	}
	if len(v.Http)+len(v.Tls)+len(v.Tcp) == 0 {
		c.required(false, "spec.http", "write at least one of http, tls and tcp")
	}
	for i, r := range v.Http {
		c.httpRoute(item("spec.http", i), r, delegate)
	}
	for i, r := range v.Tls {
		c.tlsRoute(item("spec.tls", i), r, v.Hosts)
	}
	for i, r := range v.Tcp {
		field := item("spec.tcp", i)
		for j, m := range r.Match {
			c.l4Match(item(field+".match", j), m.DestinationSubnets, m.Port, m.SourceLabels, m.Gateways)
		}
		c.l4Destinations(field+".route", r.Route)
	}
}

// httpRoute checks one rule: one action, and each part of it.
func (c *checker) httpRoute(field string, r *networkingv1.HTTPRoute, delegate bool) {
	switch {
	case r.Delegate != nil:
		c.unless(!delegate, idExclusive, field+".delegate", "a delegate cannot delegate again", "write the route here")
		c.exclusive(field, "delegate", "route")
		c.exclusive(field, "delegate", "redirect")
		c.exclusive(field, "delegate", "directResponse")
		c.required(r.Delegate.Name != "", field+".delegate.name", "name a VirtualService without hosts")
	case r.Redirect == nil && r.DirectResponse == nil && len(r.Route) == 0:
		c.required(false, field+".route", "write one of route, redirect, directResponse and delegate")
	default:
		c.exclusive(field, "route", "redirect", "directResponse")
		c.exclusive(field, "redirect", "rewrite")
	}
	for i, m := range r.Match {
		c.httpMatch(item(field+".match", i), m)
	}
	c.httpDestinations(field+".route", r.Route)
	c.redirect(field+".redirect", r.Redirect)
	c.directResponse(field+".directResponse", r.DirectResponse)
	c.rewrite(field+".rewrite", r.Rewrite)
	c.duration(field+".timeout", r.Timeout)
	c.retries(field+".retries", r.Retries)
	c.fault(field+".fault", r.Fault)
	c.cors(field+".corsPolicy", r.CorsPolicy)
	c.headers(field+".headers", r.Headers)
	c.exclusive(field, "mirror", "mirrors")
	c.exclusive(field, "mirrorPercent", "mirrorPercentage")
	if r.Mirror != nil {
		c.destination(field+".mirror", r.Mirror)
	}
	c.percent(field+".mirrorPercentage", r.MirrorPercentage)
	//lint:ignore SA1019 the field is deprecated, and still written
	if p := r.GetMirrorPercent(); p != nil {
		within(c, field+".mirrorPercent", p.Value, 0, 100)
	}
	for i, m := range r.Mirrors {
		at := item(field+".mirrors", i)
		if c.required(m.Destination != nil, at+".destination", "write destination: {host: ...}") {
			c.destination(at+".destination", m.Destination)
		}
		c.percent(at+".percentage", m.Percentage)
	}
}

func (c *checker) httpMatch(field string, m *networkingv1.HTTPMatchRequest) {
	c.stringMatch(field+".uri", m.Uri, true)
	c.stringMatch(field+".scheme", m.Scheme, true)
	c.stringMatch(field+".method", m.Method, true)
	c.stringMatch(field+".authority", m.Authority, true)
	for name, value := range m.Headers {
		c.headerMatch(field+".headers["+name+"]", name, value)
	}
	for name, value := range m.WithoutHeaders {
		c.headerMatch(field+".withoutHeaders["+name+"]", name, value)
	}
	for name, value := range m.QueryParams {
		c.unless(name != "", idRequired, field+".queryParams", "a parameter's name is empty", "write the name")
		c.stringMatch(field+".queryParams["+name+"]", value, false)
	}
	if m.Port != 0 {
		c.port(field+".port", int64(m.Port))
	}
	c.labels(field+".sourceLabels", m.SourceLabels)
	if m.SourceNamespace != "" {
		c.label(field+".sourceNamespace", m.SourceNamespace)
	}
	for i, g := range m.Gateways {
		c.gatewayName(item(field+".gateways", i), g)
	}
}

// headerMatch takes a header's name, or the form for a JWT's claim.
func (c *checker) headerMatch(field, name string, m *networkingv1.StringMatch) {
	if !strings.HasPrefix(name, "@request.auth.claims") {
		c.headerName(field, name)
	}
	if r, ok := m.GetMatchType().(*networkingv1.StringMatch_Regex); ok && r.Regex == "*" {
		return // Istio's own spelling of "present"
	}
	c.stringMatch(field, m, false)
}

// stringMatch checks the regular expression; needed wants one of the three forms.
func (c *checker) stringMatch(field string, m *networkingv1.StringMatch, needed bool) {
	if m == nil {
		return
	}
	if m.MatchType == nil && needed {
		c.required(false, field, "write one of exact, prefix and regex")
	}
	if r, ok := m.MatchType.(*networkingv1.StringMatch_Regex); ok {
		c.regex(field+".regex", r.Regex)
	}
}

func (c *checker) httpDestinations(field string, route []*networkingv1.HTTPRouteDestination) {
	total := int64(0)
	for i, d := range route {
		at := item(field, i)
		if c.required(d.Destination != nil, at+".destination", "write destination: {host: ...}") {
			c.destination(at+".destination", d.Destination)
		}
		total += c.weight(at+".weight", d.Weight)
		c.headers(at+".headers", d.Headers)
	}
	if len(route) > 1 && total == 0 {
		c.bad(idWeight, field, "the weights of all destinations are zero", "give at least one destination a weight")
	}
}

func (c *checker) l4Destinations(field string, route []*networkingv1.RouteDestination) {
	c.required(len(route) > 0, field, "write at least one destination")
	total := int64(0)
	for i, d := range route {
		at := item(field, i)
		if c.required(d.Destination != nil, at+".destination", "write destination: {host: ...}") {
			c.destination(at+".destination", d.Destination)
		}
		total += c.weight(at+".weight", d.Weight)
	}
	if len(route) > 1 && total == 0 {
		c.bad(idWeight, field, "the weights of all destinations are zero", "give at least one destination a weight")
	}
}

// weight returns the weight as far as it is valid.
func (c *checker) weight(field string, w int32) int64 {
	if w < 0 {
		c.bad(idWeight, field, fmt.Sprintf("the weight %d is negative", w), "write a weight of at least 0")
		return 1
	}
	return int64(w)
}

func (c *checker) destination(field string, d *networkingv1.Destination) {
	if c.required(d.Host != "", field+".host", "name a service") {
		c.unless(d.Host != "*", idHost, field+".host", "the host * is not allowed", "name a service")
		c.wildcardHost(field+".host", d.Host, true)
	}
	if d.Subset != "" {
		c.subset(field+".subset", d.Subset)
	}
	c.portSelector(field+".port", d.Port)
}

// subset wants a DNS label in either case.
func (c *checker) subset(field, name string) {
	if !validDomain(name) || len(name) > 63 || strings.ContainsAny(name, "._") {
		c.bad(idName, field, clip(strconv.Quote(name))+" is not a valid subset name", "use at most 63 letters, digits and -, with a letter or digit at both ends")
	}
}

func (c *checker) portSelector(field string, p *networkingv1.PortSelector) {
	if p != nil {
		c.port(field+".number", int64(p.Number))
	}
}

func (c *checker) redirect(field string, r *networkingv1.HTTPRedirect) {
	if r == nil {
		return
	}
	if r.Uri == "" && r.Authority == "" && r.Scheme == "" && r.PrefixRewrite == "" && r.RedirectPort == nil {
		c.required(false, field, "write at least one of uri, prefixRewrite, authority, scheme and port")
	}
	c.exclusive(field, "uri", "prefixRewrite")
	if r.Scheme != "" {
		c.oneOf(field+".scheme", r.Scheme, "http", "https")
	}
	if r.RedirectCode != 0 {
		c.oneOf(field+".redirectCode", strconv.Itoa(int(r.RedirectCode)), "301", "302", "303", "307", "308")
	}
	if p, ok := r.RedirectPort.(*networkingv1.HTTPRedirect_Port); ok {
		c.port(field+".port", int64(p.Port))
	}
	c.headerValue(field+".uri", r.Uri)
	c.headerValue(field+".authority", r.Authority)
}

func (c *checker) directResponse(field string, r *networkingv1.HTTPDirectResponse) {
	if r == nil {
		return
	}
	if c.required(r.Status != 0, field+".status", "write the status to answer with") {
		within(c, field+".status", r.Status, 200, 599)
	}
	const most = 1 << 20
	if n := max(len(r.Body.GetString_()), len(r.Body.GetBytes())); n > most {
		c.bad(idTooMany, field+".body", fmt.Sprintf("the body has %d bytes, more than the limit of %d", n, most), "serve it from an application")
	}
}

func (c *checker) rewrite(field string, r *networkingv1.HTTPRewrite) {
	if r == nil {
		return
	}
	if r.Uri == "" && r.Authority == "" && r.UriRegexRewrite == nil {
		c.required(false, field, "write at least one of uri, uriRegexRewrite and authority")
	}
	c.exclusive(field, "uri", "uriRegexRewrite")
	if x := r.UriRegexRewrite; x != nil && c.required(x.Match != "", field+".uriRegexRewrite.match", "write the expression to replace") {
		c.regex(field+".uriRegexRewrite.match", x.Match)
	}
}

// duration takes 0 and anything from a millisecond on.
func (c *checker) duration(field string, d *durationpb.Duration) {
	if d == nil {
		return
	}
	switch t := d.AsDuration(); {
	case t < 0:
		c.bad(idDuration, field, "the duration "+t.String()+" is negative", "write a duration of at least 1ms")
	case t > 0 && t < time.Millisecond:
		c.bad(idDuration, field, "the duration "+t.String()+" is below 1ms", "write a duration of at least 1ms")
	}
}

// span is a duration that cannot be 0.
func (c *checker) span(field string, d *durationpb.Duration) {
	if d != nil && d.AsDuration() == 0 {
		c.bad(idDuration, field, "the duration is 0", "write a duration of at least 1ms, or leave it out for the default")
		return
	}
	c.duration(field, d)
}

// retryWords are the conditions that Envoy knows; numbers are statuses.
var retryWords = []string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited", "retriable-4xx", "refused-stream",
	"retriable-status-codes", "retriable-headers", "http3-post-connect-failure",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

func (c *checker) retries(field string, r *networkingv1.HTTPRetry) {
	if r == nil {
		return
	}
	c.unless(r.Attempts >= 0, idRange, field+".attempts", fmt.Sprintf("%d is out of range", r.Attempts), "write 0 (no retries) or more")
	if r.Attempts == 0 && (r.PerTryTimeout != nil || r.RetryOn != "" || r.RetryRemoteLocalities != nil) {
		c.bad(idExclusive, field+".attempts", "attempts is 0, which switches retries off, and other fields of them are set", "write attempts, or remove the others")
	}
	c.duration(field+".perTryTimeout", r.PerTryTimeout)
	c.duration(field+".backoff", r.Backoff)
	for word := range strings.SplitSeq(r.RetryOn, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		if status, err := strconv.Atoi(word); err == nil {
			within(c, field+".retryOn", status, 100, 599)
			continue
		}
		c.oneOf(field+".retryOn", word, retryWords...)
	}
}

func (c *checker) fault(field string, f *networkingv1.HTTPFaultInjection) {
	if f == nil {
		return
	}
	if f.Delay == nil && f.Abort == nil {
		c.required(false, field, "write at least one of delay and abort")
	}
	if d := f.Delay; d != nil {
		field := field + ".delay"
		c.percent(field+".percentage", d.Percentage)
		//lint:ignore SA1019 the field is deprecated, and still written
		within(c, field+".percent", d.Percent, 0, 100)
		switch t := d.HttpDelayType.(type) {
		case *networkingv1.HTTPFaultInjection_Delay_FixedDelay:
			c.duration(field+".fixedDelay", t.FixedDelay)
		case *networkingv1.HTTPFaultInjection_Delay_ExponentialDelay:
			c.bad(idValue, field+".exponentialDelay", "Istio does not support it", "use fixedDelay")
		default:
			c.required(false, field+".fixedDelay", "write how long to wait")
		}
	}
	if a := f.Abort; a != nil {
		field := field + ".abort"
		c.percent(field+".percentage", a.Percentage)
		switch t := a.ErrorType.(type) {
		case *networkingv1.HTTPFaultInjection_Abort_HttpStatus:
			within(c, field+".httpStatus", t.HttpStatus, 200, 599)
		case *networkingv1.HTTPFaultInjection_Abort_GrpcStatus:
			c.grpcStatus(field+".grpcStatus", t.GrpcStatus)
		case *networkingv1.HTTPFaultInjection_Abort_Http2Error:
			c.bad(idValue, field+".http2Error", "Istio does not support it", "use httpStatus or grpcStatus")
		default:
			c.required(false, field+".httpStatus", "write the status to answer with")
		}
	}
}

// grpcStatus takes gRPC's names of its statuses, in its two spellings, and their numbers.
func (c *checker) grpcStatus(field, status string) {
	if n, err := strconv.Atoi(status); err == nil {
		within(c, field, n, 0, 16)
		return
	}
	c.oneOf(field, strings.ToUpper(strings.ReplaceAll(status, "-", "_")), "OK", "CANCELLED", "CANCELED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
		"ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
		"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED")
}

func (c *checker) percent(field string, p *networkingv1.Percent) {
	if p != nil {
		within(c, field+".value", p.Value, 0, 100)
	}
}

func (c *checker) cors(field string, p *networkingv1.CorsPolicy) {
	if p == nil {
		return
	}
	for i, o := range p.AllowOrigins {
		c.stringMatch(item(field+".allowOrigins", i), o, true)
	}
	for i, m := range p.AllowMethods {
		c.unless(validToken(m), idValue, item(field+".allowMethods", i), clip(strconv.Quote(m))+" is not a method", "write such as GET")
	}
	for i, h := range p.AllowHeaders {
		c.headerName(item(field+".allowHeaders", i), h)
	}
	for i, h := range p.ExposeHeaders {
		c.headerName(item(field+".exposeHeaders", i), h)
	}
	c.duration(field+".maxAge", p.MaxAge)
	if t := p.MaxAge.AsDuration(); p.MaxAge != nil && t > 0 && t%time.Second != 0 {
		c.bad(idDuration, field+".maxAge", "maxAge "+t.String()+" is not whole seconds", "write whole seconds")
	}
}

func (c *checker) headers(field string, h *networkingv1.Headers) {
	if h == nil {
		return
	}
	c.headerOperations(field+".request", h.Request, true)
	c.headerOperations(field+".response", h.Response, false)
}

// headerOperations checks names and values. Of the pseudo headers only a request's authority can be set.
func (c *checker) headerOperations(field string, o *networkingv1.Headers_HeaderOperations, request bool) {
	if o == nil {
		return
	}
	for name, value := range o.Set {
		c.headerOperation(field+".set["+name+"]", name, request)
		c.headerValue(field+".set["+name+"]", value)
	}
	for name, value := range o.Add {
		c.headerOperation(field+".add["+name+"]", name, false)
		c.headerValue(field+".add["+name+"]", value)
	}
	for i, name := range o.Remove {
		c.headerOperation(item(field+".remove", i), name, false)
	}
}

func (c *checker) headerOperation(field, name string, authority bool) {
	lower := strings.ToLower(name)
	switch {
	case authority && (lower == ":authority" || lower == "host"):
	case strings.HasPrefix(name, ":"), lower == "host":
		c.bad(idHeader, field, "the header "+clip(name)+" cannot be changed here", "use rewrite for path and authority")
	default:
		c.headerName(field, name)
	}
}

func (c *checker) tlsRoute(field string, r *networkingv1.TLSRoute, hosts []string) {
	c.required(len(r.Match) > 0, field+".match", "write match: [{sniHosts: [...]}]")
	for i, m := range r.Match {
		at := item(field+".match", i)
		c.required(len(m.SniHosts) > 0, at+".sniHosts", "name the hosts of the TLS handshake")
		for j, h := range m.SniHosts {
			c.wildcardHost(item(at+".sniHosts", j), h, false)
			if !withinHosts(h, hosts) {
				c.bad(idHost, item(at+".sniHosts", j), clip(h)+" is not among the hosts of the VirtualService", "add it to spec.hosts")
			}
		}
		c.l4Match(at, m.DestinationSubnets, m.Port, m.SourceLabels, m.Gateways)
	}
	c.l4Destinations(field+".route", r.Route)
}

func withinHosts(host string, hosts []string) bool {
	for _, h := range hosts {
		if covers(host, h) {
			return true
		}
	}
	return false
}

func (c *checker) l4Match(field string, subnets []string, port uint32, labels map[string]string, gateways []string) {
	for i, s := range subnets {
		c.subnet(item(field+".destinationSubnets", i), s)
	}
	if port != 0 {
		c.port(field+".port", int64(port))
	}
	c.labels(field+".sourceLabels", labels)
	for i, g := range gateways {
		c.gatewayName(item(field+".gateways", i), g)
	}
}

// subnet takes an address or a range.
func (c *checker) subnet(field, s string) {
	if _, err := netip.ParsePrefix(s); err == nil {
		return
	}
	if _, err := netip.ParseAddr(s); err != nil {
		c.bad(idHost, field, clip(strconv.Quote(s))+" is not an IP address or range", "write such as 10.1.0.0/16")
	}
}

// gatewayName takes mesh, NAME, NAMESPACE/NAME and the old NAME.NAMESPACE... form.
func (c *checker) gatewayName(field, name string) {
	namespace, rest, qualified := strings.Cut(name, "/")
	valid := validDomain(name)
	if qualified {
		valid = (namespace == "." || validDomain(namespace)) && validDomain(rest)
	}
	c.unless(valid, idName, field, clip(strconv.Quote(name))+" is not a gateway's name", "write NAME, NAMESPACE/NAME or mesh")
}

// exportTo takes namespaces, and . * ~ for own, all and none.
func (c *checker) exportTo(field string, to []string) {
	for i, n := range to {
		if n != "." && n != "*" && n != "~" {
			c.label(item(field, i), n)
		}
	}
}

func checkIstioGateway(c *checker, g *networkingv1.Gateway) {
	c.required(len(g.Servers) > 0, "spec.servers", "write at least one server")
	c.labels("spec.selector", g.Selector)
	for i, s := range g.Servers {
		c.server(item("spec.servers", i), s)
	}
}

func (c *checker) server(field string, s *networkingv1.Server) {
	protocol := ""
	if c.required(s.Port != nil, field+".port", "write port: {number, name, protocol}") {
		c.port(field+".port.number", int64(s.Port.Number))
		c.required(s.Port.Name != "", field+".port.name", "name the port")
		if c.required(s.Port.Protocol != "", field+".port.protocol", "write such as HTTP") {
			protocol = strings.ToUpper(s.Port.Protocol)
			c.oneOf(field+".port.protocol", protocol, "HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "GRPC_WEB", "TCP", "TLS", "MONGO", "MYSQL", "REDIS")
		}
	}
	c.required(len(s.Hosts) > 0, field+".hosts", "name hosts, or \"*\" for all")
	for i, h := range s.Hosts {
		namespace, host, qualified := strings.Cut(h, "/")
		if !qualified {
			namespace, host = "*", h
		}
		if namespace != "*" && namespace != "." {
			c.label(item(field+".hosts", i), namespace)
		}
		c.wildcardHost(item(field+".hosts", i), host, false)
	}
	if s.Bind != "" && !strings.HasPrefix(s.Bind, "unix://") {
		c.address(field+".bind", s.Bind)
	}
	secure := protocol == "HTTPS" || protocol == "TLS"
	if secure {
		c.required(s.Tls != nil, field+".tls", "a server of protocol "+protocol+" needs tls: {mode: ...}")
	}
	if s.Tls != nil {
		c.serverTLS(field+".tls", s.Tls, secure)
	}
}

func (c *checker) serverTLS(field string, t *networkingv1.ServerTLSSettings, secure bool) {
	if !secure {
		if !t.HttpsRedirect {
			c.bad(idExclusive, field, "a server without TLS has TLS settings", "write protocol: HTTPS or TLS, or only httpsRedirect: true")
		}
		return
	}
	if t.Mode != networkingv1.ServerTLSSettings_SIMPLE && t.Mode != networkingv1.ServerTLSSettings_MUTUAL && t.Mode != networkingv1.ServerTLSSettings_OPTIONAL_MUTUAL {
		return
	}
	c.exclusive(field, "credentialName", "credentialNames", "tlsCertificates")
	if t.CredentialName != "" || len(t.CredentialNames) > 0 || len(t.TlsCertificates) > 0 {
		return
	}
	c.required(t.ServerCertificate != "", field+".serverCertificate", "write credentialName, or serverCertificate and privateKey")
	c.required(t.PrivateKey != "", field+".privateKey", "write credentialName, or serverCertificate and privateKey")
	if t.Mode != networkingv1.ServerTLSSettings_SIMPLE {
		c.required(t.CaCertificates != "", field+".caCertificates", "name the authorities of the clients' certificates")
	}
}
