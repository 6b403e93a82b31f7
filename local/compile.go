package local

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// Compile returns the snapshot of one proxy as Up would give it, without starting anything: NAMESPACE/NAME[/INSTANCE] of
// a workload (its first instance unless named; default/local is the client) or of a gateway. Addresses are those of the
// first mesh on a machine; where no --app says otherwise, every application is taken to be at 127.0.0.1 and the
// workload's port. Errors that wrap ErrInput are the caller's.
func Compile(objects []*config.Object, o Options, workload string) (*model.Snapshot, []config.Finding, error) {
	o = o.orDefault()
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	namespace, name, instance, err := splitWorkload(workload, o.Namespace)
	if err != nil {
		return nil, nil, err
	}
	mesh, findings := compile.New(objects, compile.Options{MeshConfig: o.MeshConfig, Locality: o.Locality, ExecProbes: o.ExecProbes})
	templates := mesh.Templates()
	for i := range o.Apps {
		if err := o.Apps[i].fits(templates); err != nil {
			return nil, findings, err
		}
	}
	p := newPlanner(&sockets{offline: true}, block{n: 1})
	p.apps, p.replicas, p.assume, p.client = o.Apps, o.MaxReplicas, true, o.Proxy
	plan := p.plan(templates, mesh.Local(), mesh.Gateways())
	s, err := plan.snapshot(mesh, namespace, name, instance)
	return s, findings, err
}

func splitWorkload(text, namespace string) (ns, name, instance string, err error) {
	parts := strings.Split(text, "/")
	for _, part := range parts {
		if part == "" {
			parts = nil
		}
	}
	switch len(parts) {
	case 1:
		return namespace, parts[0], "", nil
	case 2:
		return parts[0], parts[1], "", nil
	case 3:
		return parts[0], parts[1], parts[2], nil
	}
	return "", "", "", fmt.Errorf("%w: cannot read workload %q: write NAMESPACE/NAME or NAMESPACE/NAME/INSTANCE", ErrInput, text)
}

// snapshot cuts the snapshot of one instance, or of a gateway, from the mesh.
func (p *plan) snapshot(mesh *compile.Mesh, namespace, name, instance string) (*model.Snapshot, error) {
	placement := p.placement()
	var instances, workloads []string
	for _, in := range p.instances {
		workloads = append(workloads, in.Namespace+"/"+in.Workload)
		if in.Namespace != namespace || in.Workload != name {
			continue
		}
		if !in.Sidecar {
			return nil, fmt.Errorf("%w: workload %s/%s has no sidecar: an annotation or label leaves it out of the mesh", ErrInput, namespace, name)
		}
		if instance == "" || in.Name == instance {
			return mesh.For(placement, namespace, name, in.Name)
		}
		instances = append(instances, in.Name)
	}
	if len(instances) > 0 {
		return nil, fmt.Errorf("%w: workload %s/%s has no instance %s; it has %s", ErrInput, namespace, name, instance, short(instances))
	}
	for i := range p.gateways {
		g := &p.gateways[i]
		if g.Namespace == namespace && g.Name == name && instance == "" {
			return mesh.ForGateway(placement, namespace, name)
		}
		workloads = append(workloads, g.Namespace+"/"+g.Name)
	}
	return nil, fmt.Errorf("%w: there is no workload %s/%s; there are %s", ErrInput, namespace, name, short(slices.Compact(workloads)))
}
