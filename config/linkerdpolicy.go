package config

import (
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// LinkerdServer is a port of some pods (policy.linkerd.io Server). What it allows has no effect; HTTPLocalRateLimitPolicies are for it.
type LinkerdServer struct {
	PodSelector              *metav1.LabelSelector `json:"podSelector,omitempty"`
	ExternalWorkloadSelector *metav1.LabelSelector `json:"externalWorkloadSelector,omitempty"`
	Port                     intstr.IntOrString    `json:"port"` // a container port's number or name
	ProxyProtocol            string                `json:"proxyProtocol,omitempty"`
	AccessPolicy             string                `json:"accessPolicy,omitempty"`
}

// LinkerdRateLimit is an HTTPLocalRateLimitPolicy (policy.linkerd.io/v1alpha1): each proxy counts for itself.
type LinkerdRateLimit struct {
	TargetRef struct {
		Group string `json:"group,omitempty"`
		Kind  string `json:"kind"`
		Name  string `json:"name"`
	} `json:"targetRef"`
	Total     *LinkerdRate          `json:"total,omitempty"`    // of all clients together
	Identity  *LinkerdRate          `json:"identity,omitempty"` // of each client by its identity
	Overrides []LinkerdRateOverride `json:"overrides,omitempty"`
}

// LinkerdRate is how many requests a second, and at once.
type LinkerdRate struct {
	RequestsPerSecond int `json:"requestsPerSecond"`
}

// LinkerdRateOverride holds for some clients together, in place of Identity.
type LinkerdRateOverride struct {
	RequestsPerSecond int             `json:"requestsPerSecond"`
	ClientRefs        []LinkerdClient `json:"clientRefs"`
}

// LinkerdClient is a ServiceAccount, of the policy's namespace unless it names another.
type LinkerdClient struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func decodeLinkerdServer(d *decoder, n *node) (any, *metav1.ObjectMeta) {
	s := &LinkerdServer{}
	meta := d.header(n, func(n *node) { d.into(n, reflect.ValueOf(s).Elem()) })
	return s, meta
}

func decodeLinkerdRateLimit(d *decoder, n *node) (any, *metav1.ObjectMeta) {
	l := &LinkerdRateLimit{}
	meta := d.header(n, func(n *node) { d.into(n, reflect.ValueOf(l).Elem()) })
	return l, meta
}

func checkLinkerdServer(c *checker, s *LinkerdServer) {
	c.unless((s.PodSelector != nil) != (s.ExternalWorkloadSelector != nil), idExclusive, "spec.podSelector", "is to be written, or externalWorkloadSelector, and not both", "write podSelector: {matchLabels: ...}")
	if s.PodSelector != nil {
		_, err := metav1.LabelSelectorAsSelector(s.PodSelector)
		c.unless(err == nil, idLabel, "spec.podSelector", fmt.Sprintf("is no selector: %v", err), "write matchLabels, or matchExpressions with key, operator and values")
	}
	if s.Port.Type == intstr.Int {
		c.port("spec.port", int64(s.Port.IntVal))
	} else {
		c.required(s.Port.StrVal != "", "spec.port", "write a container port's number or name")
	}
	if s.AccessPolicy != "all-unauthenticated" && s.AccessPolicy != "audit" { // which let everything through
		c.warn(idLaterGuard, "", "Server denies nothing yet: everything that its accessPolicy and authorization policies would refuse is let through", "do not rely on it here")
	}
	if s.ProxyProtocol != "" && s.ProxyProtocol != "unknown" {
		c.warn(idLater, "spec.proxyProtocol", "proxyProtocol has no effect yet: a port's protocol is that of its Service", "name the Service's port after its protocol, such as http or grpc")
	}
}

func checkLinkerdRateLimit(c *checker, l *LinkerdRateLimit) {
	if c.required(l.TargetRef.Kind != "", "spec.targetRef.kind", "write kind: Server") {
		c.oneOf("spec.targetRef.kind", l.TargetRef.Kind, "Server")
	}
	if l.TargetRef.Kind == "Server" {
		c.oneOf("spec.targetRef.group", l.TargetRef.Group, groupLinkerd)
	}
	c.required(l.TargetRef.Name != "", "spec.targetRef.name", "name the Server")
	c.required(l.Total != nil || l.Identity != nil || len(l.Overrides) > 0, "spec", "write total, identity or overrides")
	rate := func(field string, n int) {
		if within(c, field, n, 1, mostTokens) && l.Total != nil && field != "spec.total.requestsPerSecond" {
			c.unless(n <= l.Total.RequestsPerSecond, idRange, field, fmt.Sprintf("%d is more than the total of %d", n, l.Total.RequestsPerSecond), "write no more than total.requestsPerSecond")
		}
	}
	if l.Total != nil {
		rate("spec.total.requestsPerSecond", l.Total.RequestsPerSecond)
	}
	if l.Identity != nil {
		rate("spec.identity.requestsPerSecond", l.Identity.RequestsPerSecond)
	}
	for i, o := range l.Overrides {
		field := item("spec.overrides", i)
		rate(field+".requestsPerSecond", o.RequestsPerSecond)
		c.required(len(o.ClientRefs) > 0, field+".clientRefs", "name at least one ServiceAccount")
		for j, ref := range o.ClientRefs {
			at := item(field+".clientRefs", j)
			if c.required(ref.Kind != "", at+".kind", "write kind: ServiceAccount") {
				c.oneOf(at+".kind", ref.Kind, "ServiceAccount")
			}
			if c.required(ref.Name != "", at+".name", "name the ServiceAccount") {
				c.subdomain(at+".name", ref.Name)
			}
			if ref.Namespace != "" {
				c.label(at+".namespace", ref.Namespace)
			}
		}
	}
}
