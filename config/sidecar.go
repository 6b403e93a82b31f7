package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	networkingv1 "istio.io/api/networking/v1alpha3"
)

// checkSidecar holds a Sidecar to what istiod's webhook refuses.
func checkSidecar(c *checker, s *networkingv1.Sidecar) {
	if s.WorkloadSelector != nil {
		c.labels("spec.workloadSelector.labels", s.WorkloadSelector.Labels)
	}
	places := map[string]bool{}
	for i, l := range s.Ingress {
		field := item("spec.ingress", i)
		if c.required(l.Port != nil, field+".port", "write port: {number, protocol, name}") {
			c.sidecarPort(field+".port", l.Port)
			place := fmt.Sprint(l.Port.Number)
			c.unless(!places[place], idRepeated, field+".port.number", "port "+place+" is listened on twice", "remove one of the two listeners")
			places[place] = true
		}
		c.bind(field+".bind", l.Bind)
		c.defaultEndpoint(field+".defaultEndpoint", l.DefaultEndpoint)
		if l.Tls != nil {
			secure := l.Port != nil && (strings.EqualFold(l.Port.Protocol, "HTTPS") || strings.EqualFold(l.Port.Protocol, "TLS"))
			c.serverTLS(field+".tls", l.Tls, secure)
		}
		c.connectionPool(field+".connectionPool", l.ConnectionPool)
	}
	c.connectionPool("spec.inboundConnectionPool", s.InboundConnectionPool)
	rest := false
	for i, l := range s.Egress {
		field := item("spec.egress", i)
		if l.Port == nil {
			c.unless(!rest, idRepeated, field, "two egress listeners name no port", "merge their hosts, or give one of them a port")
			rest = true
			c.unless(l.Bind == "", idExclusive, field+".bind", "a bind needs a port", "write port, or remove bind")
		} else {
			c.sidecarPort(field+".port", l.Port)
		}
		c.bind(field+".bind", l.Bind)
		if c.required(len(l.Hosts) > 0, field+".hosts", "write such as ./* or istio-system/*") {
			for j, h := range l.Hosts {
				c.egressHost(item(field+".hosts", j), h)
			}
		}
	}
}

// sidecarPort checks a listener's port; number 0 belongs to a Unix socket.
func (c *checker) sidecarPort(field string, p *networkingv1.SidecarPort) {
	within(c, field+".number", p.Number, 0, 65535)
	if c.required(p.Protocol != "", field+".protocol", "write such as HTTP") {
		c.oneOf(field+".protocol", strings.ToUpper(p.Protocol), "HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TCP", "TLS", "MONGO", "MYSQL", "REDIS", "HTTP_PROXY")
	}
}

// bind takes an address or a Unix socket.
func (c *checker) bind(field, bind string) {
	if bind != "" && !strings.HasPrefix(bind, "unix://") {
		c.address(field, bind)
	}
}

// defaultEndpoint takes 127.0.0.1, [::1], 0.0.0.0 or [::] with a port, or a Unix socket, as Istio does.
func (c *checker) defaultEndpoint(field, endpoint string) {
	if endpoint == "" || strings.HasPrefix(endpoint, "unix://") {
		return
	}
	host, port, err := net.SplitHostPort(endpoint)
	n, perr := strconv.Atoi(port)
	valid := err == nil && perr == nil && n >= 1 && n <= 65535
	switch host {
	case "127.0.0.1", "0.0.0.0", "::1", "::":
	default:
		valid = false
	}
	c.unless(valid, idHost, field, clip(strconv.Quote(endpoint))+" is not an endpoint of the workload itself", "write 127.0.0.1:PORT, 0.0.0.0:PORT or unix:///PATH")
}

// egressHost takes NAMESPACE/HOST, where the namespace may be . * or ~.
func (c *checker) egressHost(field, h string) {
	namespace, host, qualified := strings.Cut(h, "/")
	if !qualified {
		c.bad(idHost, field, clip(strconv.Quote(h))+" names no namespace", "write NAMESPACE/HOST, such as ./* or */api.example.com")
		return
	}
	namespace = strings.TrimPrefix(namespace, "~")
	if namespace != "" && namespace != "*" && namespace != "." {
		c.label(field, namespace)
	}
	c.wildcardHost(field, host, false)
}
