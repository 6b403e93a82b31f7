package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// shared is the model of what a rate limit service is asked, but for its cluster, which differs from client to client.
func (l *rateLimit) shared() *model.SharedLimit {
	s := l.spec.Shared
	if s == nil {
		return nil
	}
	out := &model.SharedLimit{Domain: s.Domain, Timeout: model.Duration(s.Timeout.Duration), FailOpen: *s.FailOpen}
	for _, d := range s.Descriptors {
		var entries []model.DescriptorEntry
		for _, e := range d {
			entries = append(entries, model.DescriptorEntry{
				Label: e.Key, Value: e.Value,
				From: model.RateKey{Identity: e.ClientIdentity, SourceIP: e.SourceIP, Header: strings.ToLower(e.Header)},
			})
		}
		out.Descriptors = append(out.Descriptors, entries)
	}
	return out
}

// counter is the service that l shares its limit through, by its full name; a name of two parts may leave out the rest.
func (m *Mesh) counter(l *rateLimit) string {
	host := fullName(l.spec.Shared.Host, l.object.Namespace, m.domain)
	if long := host + ".svc." + m.domain; strings.Count(host, ".") == 1 && m.services.find(host, l.object.Namespace) == nil && m.services.find(long, l.object.Namespace) != nil {
		return long
	}
	return host
}

// counts says whether port of w is where l's own service is: to ask there about its own questions would never end.
func (m *Mesh) counts(l *rateLimit, w *workload, port int) bool {
	if l.spec.Shared == nil {
		return false
	}
	svc := m.services.find(m.counter(l), l.object.Namespace)
	if svc == nil {
		return false
	}
	p := svc.port(l.spec.Shared.Port)
	return p != nil && w.target(p) == port && slices.Contains(p.workloads, w)
}

// asked returns the cluster of l's service as a client has it, or why it cannot be asked.
func (s *scope) asked(l *rateLimit) (*cluster, *refusal) {
	number := l.spec.Shared.Port
	c, f := s.target(s.mesh.counter(l), "", number, number)
	if f == nil {
		f = c.unfit(false)
	}
	return c, f
}

// share completes the limits of a snapshot: the services that they ask become part of it, also where no route leads to them.
func (m *Mesh) share(s *model.Snapshot, client *scope, at *placed, from *site) {
	for i := range s.RateLimits {
		if s.RateLimits[i].Shared == nil {
			continue
		}
		l := m.rates[slices.IndexFunc(m.rates, func(l *rateLimit) bool { return l.model.Name == s.RateLimits[i].Name })]
		own := *l.model.Shared
		own.Authority = m.counter(l) + ":" + strconv.Itoa(l.spec.Shared.Port)
		s.RateLimits[i].Shared = &own
		c, f := client.asked(l)
		if f != nil {
			continue // the finding was reported, and the proxy answers as failOpen says
		}
		own.Cluster = c.Name
		if !slices.ContainsFunc(s.Clusters, func(o model.Cluster) bool { return o.Name == c.Name }) {
			filled := at.filled(c, from).cluster
			filled.Breakers = nil // they are for requests of clients
			s.Clusters = append(s.Clusters, filled)
		}
	}
}

// checkShared reports a rate limit service that cannot be asked.
func (m *Mesh) checkShared(l *rateLimit, r *report) {
	if l.spec.Shared == nil {
		return
	}
	without := "; requests are let through unasked"
	if !*l.spec.Shared.FailOpen {
		without = "; every request is answered 500"
	}
	const field = "spec.shared"
	c, f := m.scope(l.object.Namespace, nil).asked(l)
	switch {
	case f != nil:
		at, remedy := field+".port", f.remedy
		if f.id == unknownPort {
			remedy = "name one of them"
		}
		if f.field == "host" {
			at = field + ".host"
		}
		r.error(l.object, limitService, at, remedy, "%s", strings.TrimPrefix(f.message, "destination ")+without)
	case c.port.protocol == model.HTTP:
		r.warn(l.object, limitService, field+".port", "name the port grpc",
			"%s is declared HTTP/1.1, and the protocol of rate limit services is gRPC", fmt.Sprintf("port %s of %s", c.port.text(), c.port.service.Host))
	}
}
