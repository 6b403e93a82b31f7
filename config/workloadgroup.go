package config

import (
	"math"
	"net/url"
	"strconv"
	"strings"

	networkingv1 "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkWorkloadGroup wants what Istio's CRD and webhook want: a template, which need not have an address, and a probe of one method.
func checkWorkloadGroup(c *checker, g *networkingv1.WorkloadGroup) {
	c.labels("spec.metadata.labels", g.Metadata.GetLabels())
	for key := range g.Metadata.GetAnnotations() {
		if len(validation.IsQualifiedName(strings.ToLower(key))) > 0 {
			c.bad(idName, "spec.metadata.annotations["+key+"]", clip(strconv.Quote(key))+" is not a valid annotation", "use [prefix/]name of letters, digits, -, _ and .")
		}
	}
	if c.required(g.Template != nil, "spec.template", "write what the group's workloads have in common: template: {ports: ..., serviceAccount: ...}") {
		if g.Template.Address != "" {
			c.entryAddress("spec.template", g.Template)
		}
		c.entryRest("spec.template", g.Template)
	}
	if g.Probe != nil {
		c.probe("spec.probe", g.Probe)
	}
}

func (c *checker) probe(field string, p *networkingv1.ReadinessProbe) {
	for _, n := range []struct {
		name  string
		value int32
	}{
		{"initialDelaySeconds", p.InitialDelaySeconds},
		{"timeoutSeconds", p.TimeoutSeconds},
		{"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold},
		{"failureThreshold", p.FailureThreshold},
	} {
		within(c, field+"."+n.name, n.value, 0, math.MaxInt32)
	}
	switch m := p.HealthCheckMethod.(type) {
	case *networkingv1.ReadinessProbe_HttpGet:
		c.httpProbe(field+".httpGet", m.HttpGet)
	case *networkingv1.ReadinessProbe_TcpSocket:
		c.port(field+".tcpSocket.port", int64(m.TcpSocket.Port))
		c.probeHost(field+".tcpSocket.host", m.TcpSocket.Host)
	case *networkingv1.ReadinessProbe_Grpc:
		c.port(field+".grpc.port", int64(m.Grpc.Port))
	case *networkingv1.ReadinessProbe_Exec:
		c.required(len(m.Exec.Command) > 0, field+".exec.command", "list the program and its arguments")
	default:
		c.required(false, field+".httpGet", "write one of httpGet, tcpSocket, grpc and exec")
	}
}

func (c *checker) httpProbe(field string, h *networkingv1.HTTPHealthCheckConfig) {
	c.port(field+".port", int64(h.Port))
	c.probeHost(field+".host", h.Host)
	if h.Scheme != "" {
		c.oneOf(field+".scheme", h.Scheme, "HTTP", "HTTPS")
	}
	if _, err := url.Parse(h.Path); err != nil {
		c.bad(idValue, field+".path", clip(strconv.Quote(h.Path))+" is not a path", "write a path as a client sends it: /healthz, with % and two digits for what is not allowed in one")
	}
	for i, header := range h.HttpHeaders {
		at := item(field+".httpHeaders", i)
		c.headerName(at+".name", header.Name)
		c.headerValue(at+".value", header.Value)
	}
}

func (c *checker) probeHost(field, host string) {
	if host != "" {
		c.host(field, host)
	}
}
