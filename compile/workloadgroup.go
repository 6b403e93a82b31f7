package compile

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// A WorkloadGroup is what WorkloadEntries are made from. In Istio a machine's agent says which group it belongs to, and the
// control plane writes an entry that is a copy of the template. From files, an entry belongs to the group of its namespace
//
//  1. that its annotation istio.io/autoRegistrationGroup names, or its ownerReferences: Istio writes both;
//  2. else whose name and the entry's address make its name (GROUP-ADDRESS, GROUP-ADDRESS-NETWORK), as Istio names it;
//  3. else all of whose labels it has, if the group has any: the one with the most, the first in order among equals.
//
// It gets from the group what it does not say itself, and the group's probe. A group without entries is a workload of its own,
// as a Deployment is: where its application runs, or what plays it, is not the objects' to say.

// Istio's annotations of WorkloadEntries.
const (
	groupAnnotation  = "istio.io/autoRegistrationGroup"
	healthAnnotation = "proxy.istio.io/health-checks-enabled" // "false" leaves an entry's health alone
)

// group is one WorkloadGroup.
type group struct {
	object  *config.Object
	spec    *networking.WorkloadGroup
	labels  map[string]string
	probe   *model.Probe
	members int
}

var workloadGroupCoverage = covers("metadata", "probe", "template.").and(workloadEntryCoverage.under("template."))

// groups are all WorkloadGroups, in order, and what each WorkloadEntry belongs to.
type groups struct {
	all     []*group
	entries map[*config.Object]*group
}

func readGroups(objects []*config.Object, commands bool, r *report) *groups {
	g := &groups{entries: map[*config.Object]*group{}}
	for _, o := range objects {
		if spec, ok := o.Spec.(*networking.WorkloadGroup); ok {
			workloadGroupCoverage.missing(spec.ProtoReflect(), func(field string) { r.without(o, "spec."+field) })
			labels := maps.Clone(spec.Template.GetLabels())
			if labels == nil {
				labels = map[string]string{}
			}
			maps.Copy(labels, spec.Metadata.GetLabels())
			g.all = append(g.all, &group{object: o, spec: spec, labels: labels, probe: probeOf(o, spec.Probe, commands, r)})
		}
	}
	for _, o := range objects {
		if e, ok := o.Spec.(*networking.WorkloadEntry); ok {
			if owner := g.owner(o, e, r); owner != nil {
				g.entries[o] = owner
				owner.members++
			}
		}
	}
	return g
}

// find returns the group of that name, nil without one.
func (g *groups) find(namespace, name string) *group {
	for _, one := range g.all {
		if one.object.Namespace == namespace && one.object.Name == name {
			return one
		}
	}
	return nil
}

// of returns the group that o is.
func (g *groups) of(o *config.Object) *group {
	return g.all[slices.IndexFunc(g.all, func(one *group) bool { return one.object == o })]
}

// owner returns the group that an entry belongs to, nil where it stands for itself.
func (g *groups) owner(o *config.Object, e *networking.WorkloadEntry, r *report) *group {
	name, field := o.Annotations[groupAnnotation], "metadata.annotations["+groupAnnotation+"]"
	if name == "" {
		for i, w := range o.Owners {
			if w.Kind == "WorkloadGroup" {
				name, field = w.Name, element("metadata.ownerReferences", i)+".name"
			}
		}
	}
	if name != "" {
		found := g.find(o.Namespace, name)
		if found == nil {
			r.warn(o, unknownGroup, field, "correct the name, or add the WorkloadGroup", "there is no WorkloadGroup %s/%s; the entry has what it says itself, and no probe", o.Namespace, name)
		}
		return found
	}
	var best *group
	for _, one := range g.all {
		if one.object.Namespace != o.Namespace {
			continue
		}
		if own := one.object.Name + "-" + strings.ReplaceAll(e.Address, ":", "-"); e.Address != "" && (o.Name == own || e.Network != "" && o.Name == own+"-"+e.Network) {
			return one
		}
		if len(one.labels) > 0 && selects(one.labels, entryLabels(o, e)) && (best == nil || len(one.labels) > len(best.labels)) {
			best = one
		}
	}
	return best
}

// entryLabels are a WorkloadEntry's own labels: those of its metadata come before those of its spec.
func entryLabels(o *config.Object, e *networking.WorkloadEntry) map[string]string {
	labels := maps.Clone(e.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, o.Labels)
	return labels
}

// complete returns e with what the group's template says where e says nothing.
func (g *group) complete(e *networking.WorkloadEntry) *networking.WorkloadEntry {
	t := g.spec.GetTemplate()
	out := proto.Clone(e).(*networking.WorkloadEntry)
	out.Address, out.Network = cmp.Or(out.Address, t.GetAddress()), cmp.Or(out.Network, t.GetNetwork())
	out.Locality, out.ServiceAccount = cmp.Or(out.Locality, t.GetLocality()), cmp.Or(out.ServiceAccount, t.GetServiceAccount())
	out.Weight = cmp.Or(out.Weight, t.GetWeight())
	if ports := maps.Clone(t.GetPorts()); len(ports) > 0 {
		maps.Copy(ports, out.Ports)
		out.Ports = ports
	}
	return out
}

// entryWorkload makes a workload of a WorkloadEntry; g is its group, or nil.
func (m *Mesh) entryWorkload(o *config.Object, e *networking.WorkloadEntry, g *group) *workload {
	if g == nil {
		return m.listedWorkload(o, e, entryLabels(o, e), o.Annotations)
	}
	labels := maps.Clone(g.labels)
	maps.Copy(labels, entryLabels(o, e))
	annotations := maps.Clone(g.spec.Metadata.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	maps.Copy(annotations, o.Annotations)
	w := m.listedWorkload(o, g.complete(e), labels, annotations)
	w.watch(g)
	return w
}

// groupWorkload makes a workload of a group that has no entries, nil of one that has.
func (m *Mesh) groupWorkload(g *group) *workload {
	if g.members > 0 {
		return nil
	}
	w := m.listedWorkload(g.object, g.complete(&networking.WorkloadEntry{}), g.labels, g.spec.Metadata.GetAnnotations())
	w.watch(g)
	return w
}

// listedWorkload makes a workload of one instance that is not a pod's.
func (m *Mesh) listedWorkload(o *config.Object, e *networking.WorkloadEntry, labels, annotations map[string]string) *workload {
	return &workload{object: o, entry: e, Template: Template{
		Peer:        m.peer(o.Namespace, o.Name, e.ServiceAccount, labels),
		Kind:        o.Kind,
		Labels:      labels,
		Annotations: annotations,
		Locality:    localityOf(e.Locality, "/"),
		Replicas:    1,
		Sidecar:     meshed(labels, annotations),
		Address:     e.Address,
		Origin:      origin(o, "", ""),
	}}
}

// watch gives w its group's probe. It is the sidecar that asks: without one nobody does, and the workload is ready.
func (w *workload) watch(g *group) {
	if w.Sidecar && w.Annotations[healthAnnotation] != "false" {
		w.Probe = g.probe
	}
}

// probeOf reads a probe, with the defaults of Istio's API; nil without one, and where nobody would ask. Its Address is as
// written. commands says that one that is a command may be run.
func probeOf(o *config.Object, p *networking.ReadinessProbe, commands bool, r *report) *model.Probe {
	if p == nil {
		return nil
	}
	seconds := func(n int32) model.Duration { return model.Duration(time.Duration(n) * time.Second) }
	out := &model.Probe{
		InitialDelay: seconds(p.InitialDelaySeconds), Period: seconds(cmp.Or(p.PeriodSeconds, 10)), Timeout: seconds(cmp.Or(p.TimeoutSeconds, 1)),
		Successes: uint32(cmp.Or(p.SuccessThreshold, 1)), Failures: uint32(cmp.Or(p.FailureThreshold, 3)),
	}
	switch q := p.HealthCheckMethod.(type) {
	case *networking.ReadinessProbe_HttpGet:
		h := q.HttpGet
		out.Address = authority(cmp.Or(h.Host, localhost), int(h.Port))
		out.HTTP = &model.HTTPProbe{TLS: h.Scheme == "HTTPS", Host: out.Address, Path: h.Path}
		if !strings.HasPrefix(h.Path, "/") {
			out.HTTP.Path = "/" + h.Path
		}
		for _, f := range h.HttpHeaders {
			out.HTTP.Headers = append(out.HTTP.Headers, model.NameValue{Name: f.Name, Value: f.Value})
		}
	case *networking.ReadinessProbe_TcpSocket:
		out.Address = authority(cmp.Or(q.TcpSocket.Host, localhost), int(q.TcpSocket.Port))
	case *networking.ReadinessProbe_Grpc:
		out.Address, out.GRPC = authority(localhost, int(q.Grpc.Port)), &model.GRPCProbe{Service: q.Grpc.Service}
	case *networking.ReadinessProbe_Exec:
		if !commands {
			r.warn(o, probeCommand, "spec.probe.exec", "allow it by --allow-exec-probes (up, compile, outrider-proxy run), or use httpGet, tcpSocket or grpc",
				"the command is not run: commands out of objects run only where they were allowed; the workloads of the group count as ready")
			return nil
		}
		out.Exec = &model.ExecProbe{Command: q.Exec.Command}
	default: // config refuses it
		return nil
	}
	return out
}

// localhost is the workload's own machine, where a probe names no host (Istio's agent).
const localhost = "localhost"

// probeAt returns the workload's probe with the address where x's application has the port that it names: the workload's own
// machine is wherever the placement has put the application. A stand-in has the instance's ports only, and no TLS: where it
// lacks the port, its first for requests is asked.
func (w *workload) probeAt(x *Instance) *model.Probe {
	if w.Probe == nil {
		return nil
	}
	out := *w.Probe
	if out.Exec != nil {
		return &out
	}
	colon := strings.LastIndexByte(out.Address, ':')
	host := strings.Trim(out.Address[:colon], "[]")
	number, _ := strconv.Atoi(out.Address[colon+1:])
	if host != w.Address && host != localhost && !loopback(host) {
		return &out
	}
	if x.StandIn && out.HTTP != nil {
		h := *out.HTTP
		h.TLS, out.HTTP = false, &h
	}
	first, requests := "", false
	for i := range x.Ports {
		p := &x.Ports[i]
		switch takes := !opaque(w.protocol(p.Port)); {
		case p.App == "":
		case p.Port == number:
			out.Address = p.App
			return &out
		case first == "", x.StandIn && takes && !requests:
			first, requests = p.App, takes
		}
	}
	switch i := strings.LastIndexByte(first, ':'); {
	case i < 0:
	case x.StandIn:
		out.Address = first
	default:
		out.Address = first[:i+1] + strconv.Itoa(number)
	}
	return &out
}

// protocol returns the protocol of one of w's ports.
func (w *workload) protocol(number int) model.Protocol {
	if i := slices.IndexFunc(w.Ports, func(p TemplatePort) bool { return p.Port == number }); i >= 0 {
		return w.Ports[i].Protocol
	}
	return model.Auto
}
