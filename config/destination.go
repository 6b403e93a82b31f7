package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	networkingv1 "istio.io/api/networking/v1alpha3"
)

func checkDestinationRule(c *checker, r *networkingv1.DestinationRule) {
	if c.required(r.Host != "", "spec.host", "name the service that the rule is for") {
		c.wildcardHost("spec.host", r.Host, true)
	}
	c.exportTo("spec.exportTo", r.ExportTo)
	c.trafficPolicy("spec.trafficPolicy", r.TrafficPolicy)
	names := map[string]bool{}
	for i, s := range r.Subsets {
		field := item("spec.subsets", i)
		if c.required(s.Name != "", field+".name", "name the subset") {
			c.subset(field+".name", s.Name)
			c.unless(!names[s.Name], idRepeated, field+".name", "the subset "+clip(s.Name)+" is defined twice", "give each subset a name of its own")
			names[s.Name] = true
		}
		c.labels(field+".labels", s.Labels)
		c.trafficPolicy(field+".trafficPolicy", s.TrafficPolicy)
	}
	if w := r.WorkloadSelector; w != nil {
		c.labels("spec.workloadSelector.matchLabels", w.MatchLabels)
	}
}

func (c *checker) trafficPolicy(field string, p *networkingv1.TrafficPolicy) {
	if p == nil {
		return
	}
	c.loadBalancer(field+".loadBalancer", p.LoadBalancer)
	c.connectionPool(field+".connectionPool", p.ConnectionPool)
	c.outlierDetection(field+".outlierDetection", p.OutlierDetection)
	c.clientTLS(field+".tls", p.Tls)
	for i, s := range p.PortLevelSettings {
		at := item(field+".portLevelSettings", i)
		if c.required(s.Port != nil, at+".port", "write port: {number: ...}") {
			c.portSelector(at+".port", s.Port)
		}
		c.loadBalancer(at+".loadBalancer", s.LoadBalancer)
		c.connectionPool(at+".connectionPool", s.ConnectionPool)
		c.outlierDetection(at+".outlierDetection", s.OutlierDetection)
		c.clientTLS(at+".tls", s.Tls)
	}
	if t := p.Tunnel; t != nil {
		c.required(t.TargetHost != "", field+".tunnel.targetHost", "name the host to reach through the tunnel")
		c.port(field+".tunnel.targetPort", int64(t.TargetPort))
		if t.Protocol != "" {
			c.oneOf(field+".tunnel.protocol", t.Protocol, "CONNECT", "POST")
		}
	}
	if b := p.RetryBudget; b != nil {
		if b.Percent != nil {
			within(c, field+".retryBudget.percent", b.Percent.Value, 0, 100)
		}
		c.duration(field+".retryBudget.budgetInterval", b.BudgetInterval)
	}
}

// slowStart says whether new endpoints can be warmed up: LEAST_CONN is LEAST_REQUEST's old name, and UNSPECIFIED is that too.
func slowStart(l *networkingv1.LoadBalancerSettings) bool {
	return l.LbPolicy == nil || l.GetConsistentHash() == nil && l.GetSimple() != networkingv1.LoadBalancerSettings_RANDOM && l.GetSimple() != networkingv1.LoadBalancerSettings_PASSTHROUGH
}

func (c *checker) loadBalancer(field string, l *networkingv1.LoadBalancerSettings) {
	if l == nil {
		return
	}
	if h := l.GetConsistentHash(); h != nil {
		c.consistentHash(field+".consistentHash", h)
	}
	c.locality(field+".localityLbSetting", l.LocalityLbSetting)
	c.exclusive(field, "localityLbSetting", "zoneAwareLbSetting")
	c.exclusive(field, "warmupDurationSecs", "warmup")
	c.duration(field+".warmupDurationSecs", l.GetWarmupDurationSecs())
	warm := c.object.Has(field+".warmup") || c.object.Has(field+".warmupDurationSecs")
	if warm && !slowStart(l) {
		c.bad(idExclusive, field, "warm-up works with ROUND_ROBIN and LEAST_REQUEST only", "change simple, or remove the warm-up")
	}
	if w := l.Warmup; w != nil {
		if c.required(w.Duration != nil, field+".warmup.duration", "write how long a new endpoint warms up") {
			c.duration(field+".warmup.duration", w.Duration)
		}
		if w.MinimumPercent != nil {
			within(c, field+".warmup.minimumPercent", w.MinimumPercent.Value, 0, 100)
		}
		if w.Aggression != nil {
			c.unless(w.Aggression.Value >= 1, idRange, field+".warmup.aggression", fmt.Sprintf("%v is out of range", w.Aggression.Value), "write a number of at least 1")
		}
	}
}

func (c *checker) consistentHash(field string, h *networkingv1.LoadBalancerSettings_ConsistentHashLB) {
	switch k := h.HashKey.(type) {
	case nil:
		c.required(false, field, "write one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName")
	case *networkingv1.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		c.headerName(field+".httpHeaderName", k.HttpHeaderName)
	case *networkingv1.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		c.required(k.HttpQueryParameterName != "", field+".httpQueryParameterName", "name the parameter")
	case *networkingv1.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		at := field + ".httpCookie"
		if c.required(k.HttpCookie.Name != "", at+".name", "name the cookie") {
			c.unless(validToken(k.HttpCookie.Name), idHeader, at+".name", clip(strconv.Quote(k.HttpCookie.Name))+" is not a cookie's name", "use letters, digits, - and _")
		}
		c.duration(at+".ttl", k.HttpCookie.Ttl)
		c.cookieText(at+".path", k.HttpCookie.Path)
		for i, a := range k.HttpCookie.Attributes {
			c.required(a.Name != "", item(at+".attributes", i)+".name", "name the attribute")
			c.cookieText(item(at+".attributes", i)+".name", a.Name)
			c.cookieText(item(at+".attributes", i)+".value", a.Value)
		}
	}
	const most = 8 << 20 // Envoy's limit
	//lint:ignore SA1019 the field is deprecated, and still written
	if n := max(h.GetMinimumRingSize(), h.GetRingHash().GetMinimumRingSize()); n > most {
		at := field + ".ringHash.minimumRingSize"
		if !c.object.Has(at) {
			at = field + ".minimumRingSize"
		}
		within(c, at, n, 1, most)
	}
	if m := h.GetMaglev(); m != nil && m.TableSize != 0 {
		if !prime(m.TableSize) || m.TableSize > 5000011 {
			c.bad(idRange, field+".maglev.tableSize", fmt.Sprintf("%d is not a prime of at most 5000011", m.TableSize), "write a prime such as 65537")
		}
	}
}

// cookieText wants nothing that could end the cookie or the header.
func (c *checker) cookieText(field, s string) {
	c.unless(!strings.ContainsAny(s, ";\r\n\x00"), idHeader, field, "the text has a character that ends a cookie", "remove it")
}

func prime(n uint64) bool {
	for d := uint64(2); d*d <= n && d < 3000; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}

// localityLabels are the labels of which Istio's failover takes care.
var localityLabels = []string{"topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"}

func (c *checker) locality(field string, l *networkingv1.LocalityLoadBalancerSetting) {
	if l == nil {
		return
	}
	c.exclusive(field, "distribute", "failover")
	if len(l.Failover) > 0 {
		for i, label := range l.FailoverPriority {
			if slices.Contains(localityLabels, label) {
				c.bad(idExclusive, item(field+".failoverPriority", i), "failover and the label "+label+" exclude each other", "remove one of them")
			}
		}
	}
	for i, d := range l.Distribute {
		at := item(field+".distribute", i)
		c.required(d.From != "", at+".from", "name the clients' locality: REGION/ZONE/SUBZONE or *")
		sum := uint64(0)
		for locality, w := range d.To {
			sum += uint64(w)
			c.unless(w > 0, idWeight, at+".to["+locality+"]", "the weight is 0", "leave out the locality, which gets nothing then, or write 1 to 100")
		}
		c.unless(sum == 100, idWeight, at+".to", fmt.Sprintf("the weights sum up to %d", sum), "let them sum up to 100")
	}
	for i, f := range l.Failover {
		at := item(field+".failover", i)
		c.required(f.From != "", at+".from", "name a region")
		c.required(f.To != "", at+".to", "name a region")
		c.unless(f.From != f.To || f.From == "", idValue, at+".to", "the failover leads from "+clip(f.From)+" to itself", "name another region")
		c.unless(!strings.ContainsAny(f.From, "/*"), idValue, at+".from", clip(f.From)+" is no region", "write a region only, without a zone or *")
		c.unless(!strings.ContainsAny(f.To, "/*"), idValue, at+".to", clip(f.To)+" is no region", "write a region only, without a zone or *")
	}
}

func (c *checker) connectionPool(field string, p *networkingv1.ConnectionPoolSettings) {
	if p == nil {
		return
	}
	if p.Tcp == nil && p.Http == nil {
		c.required(false, field, "write at least one of tcp and http")
	}
	atLeastZero := func(at string, n int32) {
		c.unless(n >= 0, idRange, at, fmt.Sprintf("%d is out of range", n), "write a number of at least 0")
	}
	if t := p.Tcp; t != nil {
		at := field + ".tcp"
		atLeastZero(at+".maxConnections", t.MaxConnections)
		c.span(at+".connectTimeout", t.ConnectTimeout)
		c.duration(at+".maxConnectionDuration", t.MaxConnectionDuration)
		c.duration(at+".idleTimeout", t.IdleTimeout)
		c.duration(at+".tcpKeepalive.time", t.TcpKeepalive.GetTime())
		c.duration(at+".tcpKeepalive.interval", t.TcpKeepalive.GetInterval())
	}
	if h := p.Http; h != nil {
		at := field + ".http"
		atLeastZero(at+".http1MaxPendingRequests", h.Http1MaxPendingRequests)
		atLeastZero(at+".http2MaxRequests", h.Http2MaxRequests)
		atLeastZero(at+".maxRequestsPerConnection", h.MaxRequestsPerConnection)
		atLeastZero(at+".maxRetries", h.MaxRetries)
		atLeastZero(at+".maxConcurrentStreams", h.MaxConcurrentStreams)
		c.duration(at+".idleTimeout", h.IdleTimeout)
		c.duration(at+".http2KeepAlive.interval", h.Http2KeepAlive.GetInterval())
		c.duration(at+".http2KeepAlive.timeout", h.Http2KeepAlive.GetTimeout())
		if h.UseClientProtocol && h.H2UpgradePolicy == networkingv1.ConnectionPoolSettings_HTTPSettings_UPGRADE {
			c.bad(idExclusive, at+".useClientProtocol", "useClientProtocol and h2UpgradePolicy: UPGRADE exclude each other", "remove one of them")
		}
	}
}

func (c *checker) outlierDetection(field string, o *networkingv1.OutlierDetection) {
	if o == nil {
		return
	}
	c.span(field+".interval", o.Interval)
	c.span(field+".baseEjectionTime", o.BaseEjectionTime)
	within(c, field+".maxEjectionPercent", o.MaxEjectionPercent, 0, 100)
	within(c, field+".minHealthPercent", o.MinHealthPercent, 0, 100)
	if o.ConsecutiveLocalOriginFailures.GetValue() > 0 && !o.SplitExternalLocalOriginErrors {
		c.bad(idExclusive, field+".consecutiveLocalOriginFailures", "it needs splitExternalLocalOriginErrors: true", "add that, or remove it")
	}
	for i, s := range o.OutlierDetectionHttpErrorCodes {
		within(c, item(field+".outlierDetectionHttpErrorCodes", i), s, 100, 599)
	}
}

func (c *checker) clientTLS(field string, t *networkingv1.ClientTLSSettings) {
	if t == nil {
		return
	}
	if t.Mode == networkingv1.ClientTLSSettings_MUTUAL && t.CredentialName == "" {
		c.required(t.ClientCertificate != "", field+".clientCertificate", "mode MUTUAL needs clientCertificate and privateKey, or credentialName")
		c.required(t.PrivateKey != "", field+".privateKey", "mode MUTUAL needs clientCertificate and privateKey, or credentialName")
	}
	if t.InsecureSkipVerify.GetValue() && t.CaCertificates != "" {
		c.bad(idExclusive, field+".insecureSkipVerify", "caCertificates and insecureSkipVerify exclude each other", "remove insecureSkipVerify")
	}
}

func checkServiceEntry(c *checker, s *networkingv1.ServiceEntry) {
	c.required(len(s.Hosts) > 0, "spec.hosts", "name at least one host")
	c.atMost("spec.hosts", len(s.Hosts), 256, "hosts")
	for i, h := range s.Hosts {
		field := item("spec.hosts", i)
		c.unless(h != "*", idHost, field, "the host * is not allowed", "name the hosts")
		c.wildcardHost(field, h, false)
	}
	ranges := false
	for i, a := range s.Addresses {
		c.subnet(item("spec.addresses", i), a)
		ranges = ranges || strings.Contains(a, "/")
	}
	dns := s.Resolution != networkingv1.ServiceEntry_NONE && s.Resolution != networkingv1.ServiceEntry_STATIC
	c.unless(!dns || !ranges, idExclusive, "spec.addresses", "address ranges need resolution NONE or STATIC", "write single addresses")
	c.exportTo("spec.exportTo", s.ExportTo)
	c.exclusive("spec", "workloadSelector", "endpoints")
	names := c.servicePorts(s.Ports)
	switch {
	case s.Resolution == networkingv1.ServiceEntry_NONE && len(s.Endpoints) > 0:
		c.bad(idExclusive, "spec.endpoints", "resolution NONE has no endpoints", "write resolution: STATIC for addresses, DNS for names")
	case s.Resolution == networkingv1.ServiceEntry_DNS_ROUND_ROBIN && len(s.Endpoints) > 1:
		c.bad(idExclusive, "spec.endpoints", "resolution DNS_ROUND_ROBIN has at most one endpoint", "write resolution: DNS")
	case (s.Resolution == networkingv1.ServiceEntry_DNS || s.Resolution == networkingv1.ServiceEntry_DNS_ROUND_ROBIN) && len(s.Endpoints) == 0 && s.WorkloadSelector == nil:
		for i, h := range s.Hosts {
			c.unless(!strings.HasPrefix(h, "*"), idHost, item("spec.hosts", i), "a wildcard host cannot be resolved by DNS", "write endpoints, or the host in full")
		}
	}
	for i, e := range s.Endpoints {
		field := item("spec.endpoints", i)
		c.workloadEntry(field, e)
		if s.Resolution == networkingv1.ServiceEntry_STATIC && e.Address != "" && !strings.HasPrefix(e.Address, "unix://") {
			if _, err := netip.ParseAddr(e.Address); err != nil {
				c.bad(idHost, field+".address", clip(strconv.Quote(e.Address))+" is not an IP address, as resolution STATIC needs", "write an address, or resolution: DNS")
			}
		}
		for name := range e.Ports {
			c.unless(names[name], idValue, field+".ports["+name+"]", "the service entry has no port named "+clip(name), "use a name of spec.ports")
		}
	}
	if w := s.WorkloadSelector; w != nil {
		c.labels("spec.workloadSelector.labels", w.Labels)
	}
}

// servicePorts checks a ServiceEntry's ports and returns their names.
func (c *checker) servicePorts(ports []*networkingv1.ServicePort) map[string]bool {
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for i, p := range ports {
		field := item("spec.ports", i)
		c.port(field+".number", int64(p.Number))
		c.unless(!numbers[p.Number], idRepeated, field+".number", fmt.Sprintf("port %d is listed twice", p.Number), "remove one of them")
		numbers[p.Number] = true
		if c.required(p.Name != "", field+".name", "name the port") {
			c.unless(!names[p.Name], idRepeated, field+".name", "the port name "+clip(p.Name)+" is used twice", "give each port a name of its own")
			names[p.Name] = true
		}
		if p.TargetPort != 0 {
			c.port(field+".targetPort", int64(p.TargetPort))
		}
	}
	return names
}

func checkWorkloadEntry(c *checker, w *networkingv1.WorkloadEntry) { c.workloadEntry("spec", w) }

func (c *checker) workloadEntry(field string, w *networkingv1.WorkloadEntry) {
	c.entryAddress(field, w)
	c.entryRest(field, w)
}

// entryAddress checks where a workload is.
func (c *checker) entryAddress(field string, w *networkingv1.WorkloadEntry) {
	switch {
	case w.Address == "":
		c.required(w.Network != "", field+".address", "write where the workload is reached")
	case strings.HasPrefix(w.Address, "unix://"):
		path := strings.TrimPrefix(w.Address, "unix://")
		c.unless(strings.HasPrefix(path, "/") || strings.HasPrefix(path, "@"), idHost, field+".address", "the socket's path is not absolute", "write unix:///PATH")
		c.unless(len(w.Ports) == 0, idExclusive, field+".ports", "a Unix socket has no ports", "remove ports")
	default:
		c.host(field+".address", w.Address)
	}
}

// entryRest checks what else is said of a workload, or of those of a WorkloadGroup.
func (c *checker) entryRest(field string, w *networkingv1.WorkloadEntry) {
	for name, port := range w.Ports {
		c.port(field+".ports["+name+"]", int64(port))
		c.unless(len(name) < 63 && validDomain(name) && !strings.Contains(name, "."), idName, field+".ports["+name+"]", clip(strconv.Quote(name))+" is not a valid port name", "use letters, digits and -")
	}
	c.labels(field+".labels", w.Labels)
	if w.ServiceAccount != "" {
		c.subdomain(field+".serviceAccount", w.ServiceAccount)
	}
}
