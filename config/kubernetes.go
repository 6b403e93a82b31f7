package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// defaultService sets what the API server would and compile needs: protocol TCP, targetPort = port, a type.
func defaultService(s *corev1.Service) {
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
}

func one(n **int32) {
	if *n == nil {
		*n = new(int32(1))
	}
}

// selectAll gives apps/v1 objects nothing: their selector is required. Replicas default to one.
func defaultDeployment(d *appsv1.Deployment) {
	one(&d.Spec.Replicas)
	defaultPorts(&d.Spec.Template.Spec)
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	one(&s.Spec.Replicas)
	defaultPorts(&s.Spec.Template.Spec)
}

func defaultReplicaSet(r *appsv1.ReplicaSet) {
	one(&r.Spec.Replicas)
	defaultPorts(&r.Spec.Template.Spec)
}

func defaultDaemonSet(d *appsv1.DaemonSet) { defaultPorts(&d.Spec.Template.Spec) }

func defaultPod(p *corev1.Pod) { defaultPorts(&p.Spec) }

// defaultPorts gives container ports their protocol.
func defaultPorts(p *corev1.PodSpec) {
	for _, containers := range [][]corev1.Container{p.InitContainers, p.Containers} {
		for i := range containers {
			for j := range containers[i].Ports {
				if port := &containers[i].Ports[j]; port.Protocol == "" {
					port.Protocol = corev1.ProtocolTCP
				}
			}
		}
	}
}

// defaultEndpointSlice gives ports their protocol; a condition that is not written counts as ready (nil stays nil).
func defaultEndpointSlice(e *discoveryv1.EndpointSlice) {
	for i := range e.Ports {
		if e.Ports[i].Protocol == nil {
			e.Ports[i].Protocol = new(corev1.ProtocolTCP)
		}
		if e.Ports[i].Name == nil {
			e.Ports[i].Name = new("")
		}
	}
}

func checkService(c *checker, s *corev1.Service) {
	c.oneOf("spec.type", string(s.Spec.Type), "ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
	c.labels("spec.selector", s.Spec.Selector)
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		if c.required(s.Spec.ExternalName != "", "spec.externalName", "name the host that the service stands for") {
			c.host("spec.externalName", s.Spec.ExternalName)
		}
	} else if s.Spec.ClusterIP != corev1.ClusterIPNone {
		c.required(len(s.Spec.Ports) > 0, "spec.ports", "list at least one port")
	}
	if d := s.Spec.TrafficDistribution; d != nil {
		c.oneOf("spec.trafficDistribution", *d, nearness...)
	}
	if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
		c.address("spec.clusterIP", ip)
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for i := range s.Spec.Ports {
		p, field := &s.Spec.Ports[i], item("spec.ports", i)
		if p.Port == 0 {
			c.required(c.object.Has(field+".port"), field+".port", "write the port's number")
		}
		if c.object.Has(field + ".port") {
			c.port(field+".port", int64(p.Port))
		}
		c.oneOf(field+".protocol", string(p.Protocol), "TCP", "UDP", "SCTP")
		if len(s.Spec.Ports) > 1 {
			c.required(p.Name != "", field+".name", "with several ports each needs a name")
		}
		if p.Name != "" {
			c.label(field+".name", p.Name)
			c.unless(!names[p.Name], idRepeated, field+".name", "the port name "+p.Name+" is used twice", "give each port a name of its own")
			names[p.Name] = true
		}
		number := fmt.Sprint(p.Port, p.Protocol)
		c.unless(!numbers[number], idRepeated, field+".port", fmt.Sprintf("port %d is listed twice", p.Port), "remove one of them")
		numbers[number] = true
		c.portOrName(field+".targetPort", p.TargetPort)
	}
}

// portOrName checks a targetPort.
func (c *checker) portOrName(field string, p intstr.IntOrString) {
	if p.Type == intstr.Int {
		c.port(field, int64(p.IntVal))
		return
	}
	if reasons := validation.IsValidPortName(p.StrVal); len(reasons) > 0 {
		c.bad(idValue, field, clip(strconv.Quote(p.StrVal))+" is not a valid port name: "+reasons[0], "name a container port, or write its number without quotes")
	}
}

// address checks an IP address.
func (c *checker) address(field, address string) {
	if _, err := netip.ParseAddr(address); err != nil {
		c.bad(idHost, field, clip(strconv.Quote(address))+" is not an IP address", "write an IPv4 or IPv6 address")
	}
}

// checkConfigMap is for the mesh's own; any other that is read holds certificate authorities.
func checkConfigMap(c *checker, m *corev1.ConfigMap) {
	if m.Namespace != "istio-system" || m.Name != "istio" {
		return
	}
	if c.required(m.Data["mesh"] != "", "data.mesh", "write the MeshConfig under the key mesh") {
		_, findings := c.object.MeshConfig()
		c.findings = append(c.findings, findings...)
	}
}

func checkPod(c *checker, p *corev1.Pod) { c.pod("spec", &p.Spec) }

func checkDeployment(c *checker, d *appsv1.Deployment) {
	c.replicas(d.Spec.Replicas)
	c.template(d.Spec.Selector, &d.Spec.Template)
}

func checkStatefulSet(c *checker, s *appsv1.StatefulSet) {
	c.replicas(s.Spec.Replicas)
	c.template(s.Spec.Selector, &s.Spec.Template)
}

func checkReplicaSet(c *checker, r *appsv1.ReplicaSet) {
	c.replicas(r.Spec.Replicas)
	c.template(r.Spec.Selector, &r.Spec.Template)
}

func checkDaemonSet(c *checker, d *appsv1.DaemonSet) { c.template(d.Spec.Selector, &d.Spec.Template) }

func (c *checker) replicas(n *int32) {
	c.unless(*n >= 0, idRange, "spec.replicas", strconv.Itoa(int(*n))+" is out of range", "write a number of at least 0")
}

// template checks a pod template and that its labels are selected.
func (c *checker) template(selector *metav1.LabelSelector, t *corev1.PodTemplateSpec) {
	c.labels("spec.template.metadata.labels", t.Labels)
	c.annotations("spec.template.metadata.annotations", t.Annotations)
	if c.required(selector != nil, "spec.selector", "write matchLabels that the template's labels have") {
		c.labels("spec.selector.matchLabels", selector.MatchLabels)
		if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
			c.required(false, "spec.selector.matchLabels", "write labels that the template's labels have")
		}
		for key, value := range selector.MatchLabels {
			if t.Labels[key] != value {
				c.bad(idLabel, "spec.selector.matchLabels["+key+"]", fmt.Sprintf("the template's labels lack %s: %s", clip(key), clip(value)), "let selector and template have the same labels")
			}
		}
	}
	c.pod("spec.template.spec", &t.Spec)
}

// pod checks the part of a pod that the mesh uses: containers and their ports.
func (c *checker) pod(field string, p *corev1.PodSpec) {
	c.required(len(p.Containers) > 0, field+".containers", "list at least one container")
	if p.ServiceAccountName != "" {
		c.subdomain(field+".serviceAccountName", p.ServiceAccountName)
	}
	names := map[string]bool{}
	for i := range p.Containers {
		container, at := &p.Containers[i], item(field+".containers", i)
		if c.required(container.Name != "", at+".name", "name the container") {
			c.label(at+".name", container.Name)
			c.unless(!names[container.Name], idRepeated, at+".name", "the container name "+container.Name+" is used twice", "give each container a name of its own")
			names[container.Name] = true
		}
		ports := map[string]bool{}
		for j := range container.Ports {
			port, at := &container.Ports[j], item(at+".ports", j)
			c.port(at+".containerPort", int64(port.ContainerPort))
			c.oneOf(at+".protocol", string(port.Protocol), "TCP", "UDP", "SCTP")
			if port.Name == "" {
				continue
			}
			if reasons := validation.IsValidPortName(port.Name); len(reasons) > 0 {
				c.bad(idValue, at+".name", clip(strconv.Quote(port.Name))+" is not a valid port name: "+reasons[0], "use at most 15 lower-case letters, digits and -")
			}
			c.unless(!ports[port.Name], idRepeated, at+".name", "the port name "+port.Name+" is used twice", "give each port a name of its own")
			ports[port.Name] = true
		}
	}
}

func checkEndpointSlice(c *checker, e *discoveryv1.EndpointSlice) {
	if c.required(e.AddressType != "", "addressType", "write addressType: IPv4") {
		c.oneOf("addressType", string(e.AddressType), "IPv4", "IPv6", "FQDN")
	}
	c.atMost("endpoints", len(e.Endpoints), 1000, "endpoints")
	for i := range e.Endpoints {
		at := item("endpoints", i)
		c.required(len(e.Endpoints[i].Addresses) > 0, at+".addresses", "list the endpoint's address")
		for j, a := range e.Endpoints[i].Addresses {
			field := item(at+".addresses", j)
			switch e.AddressType {
			case discoveryv1.AddressTypeFQDN:
				c.host(field, a)
			default:
				c.address(field, a)
				if ip, err := netip.ParseAddr(a); err == nil && ip.Is4() != (e.AddressType == discoveryv1.AddressTypeIPv4) {
					c.bad(idValue, field, a+" is not of the type "+string(e.AddressType), "write addresses of one type into one EndpointSlice")
				}
			}
		}
	}
	for i := range e.Ports {
		if p := e.Ports[i].Port; p != nil {
			c.port(item("ports", i)+".port", int64(*p))
		}
		c.oneOf(item("ports", i)+".protocol", strings.ToUpper(string(*e.Ports[i].Protocol)), "TCP", "UDP", "SCTP")
	}
}
