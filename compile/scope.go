package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// scope is what one client sees of the mesh while its routes are built. It collects the clusters that they use.
type scope struct {
	mesh      *Mesh
	namespace string
	labels    map[string]string // of the client, for sourceLabels
	sidecar   *sidecar          // what restricts the client; nil is nothing
	gateway   string            // of a gateway, its namespace
	clusters  map[string]*cluster
	rules     map[*service]*destinationRule
}

func (m *Mesh) scope(namespace string, labels map[string]string) *scope {
	return &scope{mesh: m, namespace: namespace, labels: labels, clusters: map[string]*cluster{}, rules: map[*service]*destinationRule{}}
}

// used returns the clusters that the scope's routes name, by name.
func (s *scope) used() []*cluster {
	out := make([]*cluster, 0, len(s.clusters))
	for _, name := range slices.Sorted(maps.Keys(s.clusters)) {
		out = append(out, s.clusters[name])
	}
	return out
}

// destinations builds the destinations of a VirtualService's rule on port listen. Findings go to r.
func (s *scope) destinations(all []virtualDestination, listen int, r *report) []model.Destination {
	var out []model.Destination
	for i := range all {
		d := &all[i]
		c, f := s.target(d.host, d.subset, d.port, listen)
		if f != nil {
			f.report(r, d.object, d.field)
		}
		dest := s.destination(c, f, d.weight, 503)
		dest.Request, dest.Response = d.request, d.response
		out = append(out, dest)
	}
	return out
}

// service returns what host means to the client, nil where it sees no such service.
func (s *scope) service(host string) *service {
	if svc := s.mesh.services.find(host, s.namespace); svc != nil {
		return svc
	}
	// A name below a wildcard ServiceEntry.
	for rest := host; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			return nil
		}
		if svc := s.mesh.services.find("*"+rest[i:], s.namespace); svc != nil {
			return svc
		}
		rest = rest[i+1:]
	}
}

// refusal says why a destination cannot be reached.
type refusal struct {
	id      ID
	field   string // below the destination's own: "host", "subset", "port"
	message string
	remedy  string
}

// reply is what the destination's share of requests is answered.
func (f *refusal) reply(status int) *model.Reply {
	return &model.Reply{Status: status, Outcome: "no_healthy_endpoint", Body: strings.TrimSuffix(f.message, "\n") + "\n"}
}

// target returns the cluster for requests to port number of host (0: its only port, or else listen), or why there is none.
func (s *scope) target(host, name string, number, listen int) (*cluster, *refusal) {
	svc := s.service(host)
	if svc == nil {
		return nil, &refusal{unknownHost, "host", fmt.Sprintf("destination host %s is no service that namespace %s sees", host, s.namespace), s.hint(host)}
	}
	id := unknownPort
	if number == 0 {
		id, number = portNeeded, listen
		if len(svc.ports) == 1 {
			number = svc.ports[0].number
		}
	}
	p := svc.port(number)
	if p == nil {
		return nil, &refusal{id, "port", fmt.Sprintf("destination %s has no port %d; its ports: %s", host, number, portList(svc)), "name one of the service's ports in destination.port.number"}
	}
	return s.cluster(p, name)
}

// cluster returns the cluster of a port for the client, or why nothing can be sent there.
func (s *scope) cluster(p *port, name string) (*cluster, *refusal) {
	c := s.mesh.cluster(p, name, s.rule(p.service), s)
	if c == nil {
		return nil, &refusal{
			unknownSubset, "subset", fmt.Sprintf("no DestinationRule that namespace %s uses for %s defines subset %q", s.namespace, p.service.Host, name),
			"add the subset to the service's DestinationRule, or correct its name",
		}
	}
	if c.refused != "" {
		return nil, &refusal{tlsRefused, "", c.refused, "set mode DISABLE if plaintext is right"}
	}
	if settled := s.clusters[c.Name]; settled != nil {
		return settled, nil
	}
	s.clusters[c.Name] = c
	return c, nil
}

// rule returns the DestinationRule that the client uses for a service, nil without one.
func (s *scope) rule(svc *service) *destinationRule {
	d, ok := s.rules[svc]
	if !ok {
		d = s.mesh.rule(s.namespace, s.labels, svc)
		s.rules[svc] = d
	}
	return d
}

// hint says what to do about a host that is no service.
func (s *scope) hint(host string) string {
	if i := strings.IndexByte(host, '.'); i > 0 && strings.Count(host, ".") == 1 {
		if full := host + ".svc." + s.mesh.domain; s.mesh.services.find(full, s.namespace) != nil {
			return "write " + full + ": a name with a dot is taken for a full name"
		}
	}
	return "check the name and namespace, or add a Service or ServiceEntry"
}

func portList(s *service) string {
	var out []string
	for _, p := range s.ports {
		out = append(out, p.text())
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// destination makes a destination of a route, which answers status where it cannot be reached; o and field say where it stands.
func (s *scope) destination(c *cluster, f *refusal, weight uint32, status int) model.Destination {
	if f != nil {
		return model.Destination{Weight: weight, Reply: f.reply(status)}
	}
	return model.Destination{Cluster: c.Name, Weight: weight}
}

// report says why a destination of o at field cannot be reached.
func (f *refusal) report(r *report, o *config.Object, field string) {
	if f.field != "" && field != "" {
		field += "." + f.field
	}
	switch f.id {
	case tlsRefused: // the DestinationRule has the finding
	default:
		r.error(o, f.id, field, f.remedy, "%s", f.message)
	}
}

// element names an element of a list field.
func element(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
