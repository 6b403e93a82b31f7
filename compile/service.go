package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// service is one host that the mesh serves: a Kubernetes Service, or one host of a ServiceEntry.
type service struct {
	model.Service
	object     *config.Object
	origin     model.Origin
	entry      bool // a ServiceEntry
	headless   bool
	resolution networking.ServiceEntry_Resolution
	exported   visibility
	addresses  []string
	altNames   []string // that its servers' certificates may have (ServiceEntry)
	ports      []*port
	linkerd    *linkerdRoute         // what Linkerd's annotations say of its routes; nil without any
	accrual    *model.Accrual        // and of its endpoints
	constraint *model.RetryAllowance // of the retries of all its routes together (XBackendTrafficPolicy); nil is none
	absent     []model.Rule          // the answer at a port that it lacks
}

func (s *service) port(number int) *port {
	for _, p := range s.ports {
		if p.number == number {
			return p
		}
	}
	return nil
}

// services is the index of all services by host.
type services struct {
	hosts []string // sorted
	// byHost has the services of one host, best first: Kubernetes before ServiceEntry, then older.
	byHost map[string][]*service
}

// find returns the service that host means to a client in namespace, nil without one: its own namespace's before any other's.
func (s *services) find(host, namespace string) *service {
	var found *service
	for _, c := range s.byHost[host] {
		if !c.exported.includes(namespace) {
			continue
		}
		if c.Namespace == namespace {
			return c
		}
		if found == nil {
			found = c
		}
	}
	return found
}

// all calls yield for every service in the order of hosts.
func (s *services) all(yield func(*service) bool) {
	for _, h := range s.hosts {
		for _, c := range s.byHost[h] {
			if !yield(c) {
				return
			}
		}
	}
}

// readServices builds the index.
func (m *Mesh) readServices(objects []*config.Object, r *report) {
	m.services.byHost = map[string][]*service{}
	slicesOf := map[string][]*discoveryv1.EndpointSlice{}
	for _, o := range objects {
		if s, ok := o.Spec.(*discoveryv1.EndpointSlice); ok {
			if of := o.Labels[discoveryv1.LabelServiceName]; of != "" {
				slicesOf[o.Namespace+"/"+of] = append(slicesOf[o.Namespace+"/"+of], s)
			}
		}
	}
	for _, o := range objects {
		if spec, ok := o.Spec.(*corev1.Service); ok {
			s := m.kubernetesService(o, spec, slicesOf[o.Namespace+"/"+o.Name])
			s.linkerd, s.accrual = readLinkerdRoute(o, r), failureAccrual(o, r)
			m.addService(s, r)
		}
	}
	for _, o := range objects {
		if spec, ok := o.Spec.(*networking.ServiceEntry); ok {
			m.readServiceEntry(o, spec, r)
		}
	}
	m.services.hosts = slices.Sorted(maps.Keys(m.services.byHost))
	m.services.all(func(s *service) bool {
		s.absent = []model.Rule{{Origin: s.origin, Reply: &model.Reply{Status: 503, Outcome: "no_route", Body: s.portsText()}}}
		return true
	})
}

// portsText says to whom asked for a port that s lacks which ones it has.
func (s *service) portsText() string {
	if len(s.ports) == 0 {
		return "no route: " + s.Host + " has no ports\n"
	}
	return "no route: " + s.Host + " does not serve this port; its ports: " + portList(s) + "\n"
}

func (m *Mesh) addService(s *service, r *report) {
	others := m.services.byHost[s.Host]
	for _, o := range others {
		if o.Namespace != s.Namespace {
			continue
		}
		if o.entry && s.entry && o.resolution == s.resolution {
			for _, p := range s.ports {
				if o.port(p.number) == nil {
					p.service = o
					o.ports = append(o.ports, p)
				}
			}
			o.altNames = append(slices.Clip(o.altNames), s.altNames...)
			return
		}
		if !o.entry && s.entry && len(s.altNames) > 0 { // such an entry decorates the Service, as in Istio
			o.altNames = append(o.altNames, s.altNames...)
		}
		r.warn(s.object, serviceTwice, "spec", "give one of them another host, or remove it",
			"host %s is served by %s (%s) already", s.Host, describe(o.object), at(o.origin))
		return
	}
	m.services.byHost[s.Host] = append(others, s)
}

// describe names an object for people.
func describe(o *config.Object) string { return o.Kind + " " + o.Namespace + "/" + o.Name }

// at names a place for people.
func at(o model.Origin) string {
	if o.File == "" {
		return "no file"
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

func (m *Mesh) kubernetesService(o *config.Object, spec *corev1.Service, endpoints []*discoveryv1.EndpointSlice) *service {
	s := &service{
		Service: model.Service{Host: fullName(o.Name, o.Namespace, m.domain), Name: o.Name, Namespace: o.Namespace},
		object:  o,
		origin:  origin(o, "", ""),
	}
	var exports []string
	if a, ok := o.Annotations["networking.istio.io/exportTo"]; ok {
		for _, e := range strings.Split(a, ",") {
			if e = strings.TrimSpace(e); e != "" {
				exports = append(exports, e)
			}
		}
	}
	s.exported = visible(exports, m.config.GetDefaultServiceExportTo(), o.Namespace)
	s.headless = spec.Spec.ClusterIP == corev1.ClusterIPNone
	for _, ip := range append([]string{spec.Spec.ClusterIP}, spec.Spec.ClusterIPs...) {
		if address(ip) && !slices.Contains(s.addresses, ip) {
			s.addresses = append(s.addresses, ip)
		}
	}
	for i := range spec.Spec.Ports {
		sp := &spec.Spec.Ports[i]
		if !stream(sp.Protocol) {
			continue
		}
		p := &port{service: s, number: int(sp.Port), name: sp.Name, selector: spec.Spec.Selector}
		p.protocol, p.declared = protocolOf(sp.Name, sp.AppProtocol, p.number)
		if sp.TargetPort.Type == intstr.String {
			p.targetName = sp.TargetPort.StrVal
		} else {
			p.targetNumber = int(sp.TargetPort.IntVal)
		}
		switch {
		case spec.Spec.Type == corev1.ServiceTypeExternalName:
			p.source = listed
			if spec.Spec.ExternalName != "" {
				p.fixed = []candidate{{endpoint: model.Endpoint{Address: authority(spec.Spec.ExternalName, cmp.Or(p.targetNumber, p.number)), Weight: 1}}}
			}
		case len(spec.Spec.Selector) == 0:
			p.source, p.selector = listed, nil
			p.fixed = sliceEndpoints(p.name, endpoints)
		}
		s.ports = append(s.ports, p)
	}
	return s
}

// sliceEndpoints returns the ready endpoints of EndpointSlices for the service port called name.
func sliceEndpoints(name string, all []*discoveryv1.EndpointSlice) []candidate {
	var out []candidate
	for _, s := range all {
		for _, sp := range s.Ports {
			if sp.Port == nil || (sp.Name == nil && name != "") || (sp.Name != nil && *sp.Name != name) {
				continue
			}
			for _, e := range s.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready {
					continue
				}
				for _, a := range e.Addresses {
					c := candidate{endpoint: model.Endpoint{Address: authority(a, int(*sp.Port)), Weight: 1}}
					if e.TargetRef != nil {
						c.endpoint.Instance = e.TargetRef.Name
					}
					if e.NodeName != nil {
						c.node = *e.NodeName
					}
					if e.Zone != nil {
						c.endpoint.Locality.Zone = *e.Zone
					}
					out = append(out, c)
				}
			}
		}
	}
	return out
}
