package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var serviceEntryCoverage = covers("hosts", "addresses", "ports", "location", "resolution", "workloadSelector", "exportTo", "subjectAltNames", "endpoints.").
	and(workloadEntryCoverage.under("endpoints."))

var workloadEntryCoverage = covers("address", "ports", "labels", "locality", "weight", "serviceAccount")

// readServiceEntry adds one service for each host.
func (m *Mesh) readServiceEntry(o *config.Object, spec *networking.ServiceEntry, r *report) {
	serviceEntryCoverage.missing(spec.ProtoReflect(), func(field string) { r.without(o, "spec."+field) })
	var addresses []string
	for i, a := range spec.Addresses {
		ip, bits, _ := strings.Cut(a, "/")
		if bits == "" || (bits == "32" && !strings.Contains(ip, ":")) || bits == "128" {
			addresses = append(addresses, ip)
			continue
		}
		r.warn(o, noEffect, fmt.Sprintf("spec.addresses[%d]", i), "list single addresses, or use the host's name",
			"address range %s has no effect yet", a)
	}
	for i, h := range spec.Hosts {
		host := fullName(h, o.Namespace, m.domain)
		if !routable(host) || host == "*" {
			r.error(o, badValue, fmt.Sprintf("spec.hosts[%d]", i), `use a full name, or "*." before a suffix`, "host %q cannot be a service", h)
			continue
		}
		s := &service{
			Service:    model.Service{Host: host, Name: host, Namespace: o.Namespace},
			object:     o,
			origin:     origin(o, fmt.Sprintf("spec.hosts[%d]", i), ""),
			entry:      true,
			resolution: spec.Resolution,
			exported:   visible(spec.ExportTo, m.config.GetDefaultServiceExportTo(), o.Namespace),
			addresses:  addresses,
			altNames:   spec.SubjectAltNames,
		}
		if wildcard(host) && len(spec.Hosts) > 1 {
			s.addresses = nil // they are the exact hosts'
		}
		for j, sp := range spec.Ports {
			if strings.EqualFold(sp.Protocol, "UDP") {
				if i == 0 {
					r.warn(o, notProxied, fmt.Sprintf("spec.ports[%d].protocol", j), "let clients send datagrams themselves", "port %d (UDP) of %s is left alone: datagrams are not carried", sp.Number, host)
				}
				continue
			}
			s.ports = append(s.ports, m.entryPort(s, o, spec, sp, i == 0, r))
		}
		m.addService(s, r)
	}
}

func (m *Mesh) entryPort(s *service, o *config.Object, spec *networking.ServiceEntry, sp *networking.ServicePort, first bool, r *report) *port {
	p := &port{service: s, number: int(sp.Number), name: sp.Name, targetNumber: int(sp.TargetPort), source: listed}
	p.protocol, p.declared = entryProtocol(sp.Protocol)
	switch {
	case spec.WorkloadSelector != nil:
		p.source, p.selector = selected, spec.WorkloadSelector.Labels
		return p
	case spec.Resolution == networking.ServiceEntry_NONE:
		p.source = named
		return p
	case len(spec.Endpoints) == 0 && spec.Resolution != networking.ServiceEntry_STATIC:
		if !wildcard(s.Host) {
			p.fixed = []candidate{{endpoint: model.Endpoint{Address: authority(s.Host, entryTarget(p, nil)), Weight: 1}}}
		} else if first {
			r.warn(o, noEffect, "spec.resolution", "use resolution NONE, or list endpoints", "resolution %s of the wildcard host %s has no effect yet", spec.Resolution, s.Host)
		}
		return p
	}
	for i, e := range spec.Endpoints {
		if strings.HasPrefix(e.Address, "unix://") || e.Address == "" {
			if first {
				r.warn(o, noEffect, fmt.Sprintf("spec.endpoints[%d].address", i), "give it an IP address or a name", "endpoint address %q has no effect yet", e.Address)
			}
			continue
		}
		p.fixed = append(p.fixed, candidate{labels: e.Labels, endpoint: model.Endpoint{
			Address:  authority(e.Address, entryTarget(p, e)),
			Weight:   max(e.Weight, 1),
			Locality: localityOf(e.Locality, "/"),
		}})
	}
	return p
}

// entryTarget is the port that a WorkloadEntry serves p at: its own for p's name, else the service's target, else p's number.
func entryTarget(p *port, e *networking.WorkloadEntry) int {
	if e != nil {
		if n, ok := e.Ports[p.name]; ok {
			return int(n)
		}
		if n, ok := e.Ports[p.targetName]; ok && p.targetName != "" {
			return int(n)
		}
	}
	if p.targetNumber != 0 {
		return p.targetNumber
	}
	return p.number
}

// localityOf reads "region/zone/subzone".
func localityOf(s, separator string) model.Locality {
	parts := strings.SplitN(s, separator, 3)
	l := model.Locality{Region: parts[0]}
	if len(parts) > 1 {
		l.Zone = parts[1]
	}
	if len(parts) > 2 {
		l.SubZone = parts[2]
	}
	return l
}

// sortedKeys returns the keys of a map in order, as everything that is made from a map must be.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
