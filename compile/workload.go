package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// workload is a template, and what the mesh knows of it.
type workload struct {
	Template
	object     *config.Object
	entry      *networking.WorkloadEntry // of a WorkloadEntry or WorkloadGroup, its group's template included
	containers []TemplatePort            // a pod's container ports
	node       string                    // that a pod asks to run on
	router     bool                      // a gateway proxy, not an application
	services   []*port                   // service ports that select it, Kubernetes Services first, in the order of objects
}

// key names a workload in maps.
func key(namespace, name string) string { return namespace + "/" + name }

// target returns the workload's port that requests to p go to, 0 if it has none.
func (w *workload) target(p *port) int {
	if w.entry != nil {
		return entryTarget(p, w.entry)
	}
	if p.targetName == "" {
		return cmp.Or(p.targetNumber, p.number)
	}
	for _, c := range w.containers {
		if c.Name == p.targetName {
			return c.Port
		}
	}
	return 0
}

// readWorkloads builds the index of workloads, and connects services to the ones that they select.
func (m *Mesh) readWorkloads(objects []*config.Object, r *report) {
	owned := map[string]bool{}
	for _, o := range objects {
		owned[o.Kind+" "+key(o.Namespace, o.Name)] = true
	}
	groups := readGroups(objects, m.options.ExecProbes, r)
	m.workloads = map[string]*workload{}
	for _, o := range objects {
		w := m.workload(o, owned, groups, r)
		if w == nil {
			continue
		}
		if other := m.workloads[key(w.Namespace, w.Name)]; other != nil {
			r.warn(o, workloadTwice, "metadata.name", "give one of them another name",
				"workload %s/%s is there already (%s, %s); this one is left out", w.Namespace, w.Name, describe(other.object), at(other.Origin))
			continue
		}
		m.workloads[key(w.Namespace, w.Name)] = w
	}
	m.readRouters()
	m.selectWorkloads()
	for _, w := range m.workloads {
		w.setPorts()
	}
}

// workload makes a workload of o, nil if o is none.
func (m *Mesh) workload(o *config.Object, known map[string]bool, g *groups, r *report) *workload {
	switch s := o.Spec.(type) {
	case *appsv1.Deployment:
		return m.podWorkload(o, &s.Spec.Template.ObjectMeta, &s.Spec.Template.Spec, replicas(s.Spec.Replicas))
	case *appsv1.StatefulSet:
		return m.podWorkload(o, &s.Spec.Template.ObjectMeta, &s.Spec.Template.Spec, replicas(s.Spec.Replicas))
	case *appsv1.DaemonSet:
		return m.podWorkload(o, &s.Spec.Template.ObjectMeta, &s.Spec.Template.Spec, 1)
	case *appsv1.ReplicaSet:
		if ownedBy(s.OwnerReferences, o.Namespace, known) {
			return nil
		}
		return m.podWorkload(o, &s.Spec.Template.ObjectMeta, &s.Spec.Template.Spec, replicas(s.Spec.Replicas))
	case *corev1.Pod:
		if ownedBy(s.OwnerReferences, o.Namespace, known) {
			return nil
		}
		return m.podWorkload(o, &s.ObjectMeta, &s.Spec, 1)
	case *networking.WorkloadEntry:
		workloadEntryCoverage.missing(s.ProtoReflect(), func(field string) { r.without(o, "spec."+field) })
		return m.entryWorkload(o, s, g.entries[o])
	case *networking.WorkloadGroup:
		return m.groupWorkload(g.of(o))
	}
	return nil
}

func replicas(n *int32) int {
	if n == nil {
		return 1
	}
	return max(int(*n), 0)
}

// ownedBy says whether an owner of the object is there too, or the Deployment above a ReplicaSet that is not.
func ownedBy(owners []metav1.OwnerReference, namespace string, known map[string]bool) bool {
	for _, w := range owners {
		if known[w.Kind+" "+key(namespace, w.Name)] {
			return true
		}
		if i := strings.LastIndexByte(w.Name, '-'); w.Kind == "ReplicaSet" && i > 0 && known["Deployment "+key(namespace, w.Name[:i])] {
			return true
		}
	}
	return false
}

func (m *Mesh) podWorkload(o *config.Object, meta *metav1.ObjectMeta, spec *corev1.PodSpec, n int) *workload {
	w := &workload{object: o, node: cmp.Or(spec.NodeName, spec.NodeSelector[nodeLabel]), router: strings.Contains(meta.Annotations["inject.istio.io/templates"], "gateway"), Template: Template{
		Peer:        m.peer(o.Namespace, o.Name, cmp.Or(spec.ServiceAccountName, spec.DeprecatedServiceAccount), meta.Labels),
		Kind:        o.Kind,
		Labels:      meta.Labels,
		Annotations: meta.Annotations,
		Locality:    podLocality(meta.Labels, spec.NodeSelector),
		Replicas:    n,
		Sidecar:     meshed(meta.Labels, meta.Annotations),
		Origin:      origin(o, "", ""),
	}}
	containers := slices.Clone(spec.Containers)
	for _, c := range spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		if c.Name == "istio-proxy" {
			w.router = w.router || slices.Contains(c.Args, "router")
			continue
		}
		for _, p := range c.Ports {
			if !stream(p.Protocol) {
				continue
			}
			protocol, _ := protocolOf(p.Name, nil, int(p.ContainerPort))
			w.containers = append(w.containers, TemplatePort{Name: p.Name, Port: int(p.ContainerPort), Protocol: protocol})
		}
	}
	return w
}

// peer says what metrics call a workload.
func (m *Mesh) peer(namespace, name, account string, labels map[string]string) model.Peer {
	return model.Peer{
		Namespace:         namespace,
		Name:              name,
		ServiceAccount:    cmp.Or(account, "default"),
		App:               labels["app"],
		Version:           labels["version"],
		CanonicalName:     cmp.Or(labels["service.istio.io/canonical-name"], labels["app.kubernetes.io/name"], labels["app"], name),
		CanonicalRevision: cmp.Or(labels["service.istio.io/canonical-revision"], labels["app.kubernetes.io/version"], labels["version"], "latest"),
		Cluster:           "Kubernetes",
	}
}

// meshed says whether a workload gets a sidecar. A label wins over an annotation, as in Istio.
func meshed(labels, annotations map[string]string) bool {
	return annotations["outrider.dev/sidecar"] != "false" && cmp.Or(labels["sidecar.istio.io/inject"], annotations["sidecar.istio.io/inject"]) != "false"
}

// podLocality is where a pod says that it runs: Istio's label, or the node that it asks for.
func podLocality(labels, nodes map[string]string) model.Locality {
	if l := labels["istio-locality"]; l != "" {
		return localityOf(l, ".")
	}
	from := func(k string) string { return cmp.Or(nodes[k], labels[k]) }
	return model.Locality{
		Region:  from("topology.kubernetes.io/region"),
		Zone:    from("topology.kubernetes.io/zone"),
		SubZone: from("topology.istio.io/subzone"),
	}
}

// selectWorkloads connects the ports of services with the workloads of their namespace that they select.
func (m *Mesh) selectWorkloads() {
	// By namespace and one label, so that a selector looks at few workloads.
	byLabel := map[[3]string][]*workload{}
	for _, k := range sortedKeys(m.workloads) {
		w := m.workloads[k]
		for l, v := range w.Labels {
			at := [3]string{w.Namespace, l, v}
			byLabel[at] = append(byLabel[at], w)
		}
	}
	m.services.inOrder(func(s *service) {
		for _, p := range s.ports {
			if p.source != selected || len(p.selector) == 0 {
				continue
			}
			var few []*workload
			for i, l := range sortedKeys(p.selector) {
				if have := byLabel[[3]string{s.Namespace, l, p.selector[l]}]; i == 0 || len(have) < len(few) {
					few = have
				}
			}
			for _, w := range few {
				if selects(p.selector, w.Labels) {
					p.workloads = append(p.workloads, w)
					w.services = append(w.services, p)
				}
			}
		}
	})
}

// inOrder calls f for every service: Kubernetes Services before ServiceEntries, then in the order of objects.
func (s *services) inOrder(f func(*service)) {
	all := slices.Collect(s.all)
	slices.SortStableFunc(all, func(a, b *service) int {
		if a.entry != b.entry {
			if b.entry {
				return -1
			}
			return 1
		}
		return compareObjects(a.object, b.object)
	})
	for _, s := range all {
		f(s)
	}
}

// setPorts lists the ports that w serves: its containers', and those that services target.
func (w *workload) setPorts() {
	have := map[int]bool{}
	for _, p := range w.services {
		n := w.target(p)
		if n == 0 || have[n] {
			continue
		}
		have[n] = true
		tp := TemplatePort{Port: n, Protocol: p.protocol}
		if w.entry != nil {
			tp.Name = p.name
		}
		for _, c := range w.containers {
			if c.Port == n {
				tp.Name = c.Name
			}
		}
		w.Ports = append(w.Ports, tp)
	}
	for _, c := range w.containers {
		if !have[c.Port] {
			have[c.Port] = true
			w.Ports = append(w.Ports, c)
		}
	}
	if w.entry != nil {
		for _, name := range sortedKeys(w.entry.Ports) {
			n := int(w.entry.Ports[name])
			if !have[n] {
				have[n] = true
				protocol, _ := protocolOf(name, nil, n)
				w.Ports = append(w.Ports, TemplatePort{Name: name, Port: n, Protocol: protocol})
			}
		}
	}
	slices.SortFunc(w.Ports, func(a, b TemplatePort) int { return cmp.Compare(a.Port, b.Port) })
}

// serves returns the first service port that requests to w's port n count for, nil if none targets it.
func (w *workload) serves(n int) *port {
	for _, p := range w.services {
		if w.target(p) == n {
			return p
		}
	}
	return nil
}

// local is the built-in client workload.
func (m *Mesh) local() *workload {
	labels := map[string]string{"app": "local"}
	return &workload{Template: Template{
		Peer: m.peer("default", "local", "", labels), Kind: "Local", Labels: labels, Locality: m.options.Locality, Replicas: 1, Sidecar: true,
		Origin: model.Origin{Kind: "Local", Namespace: "default", Name: "local"},
	}}
}

// names lists workloads as namespace/name, sorted.
func names(all []*workload) []string {
	out := make([]string, 0, len(all))
	for _, w := range all {
		out = append(out, key(w.Namespace, w.Name))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// compareObjects orders objects for conflicts: oldest first in a cluster, path and position in files.
func compareObjects(a, b *config.Object) int {
	if c := a.Created.Compare(b.Created); c != 0 {
		return c
	}
	if !a.Created.IsZero() {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
	}
	return cmp.Or(cmp.Compare(a.Source.File, b.Source.File), cmp.Compare(a.Source.Line, b.Source.Line), cmp.Compare(a.Source.Column, b.Source.Column))
}

// position says for people where o stands in that order.
func position(o *config.Object) string {
	if o.Created.IsZero() {
		return fmt.Sprintf("%s:%d", o.Source.File, o.Source.Line)
	}
	return "created " + o.Created.UTC().Format("2006-01-02T15:04:05Z")
}
