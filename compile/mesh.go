// Package compile turns objects into the mesh that they describe, and cuts one workload's snapshot from it; it is pure: no clock, no I/O, no goroutines.
package compile

import (
	"fmt"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// Options are the choices that objects do not make.
type Options struct {
	// MeshConfig replaces the ConfigMap istio in istio-system (key mesh); nil leaves it to that object, or to the defaults.
	MeshConfig *meshv1alpha1.MeshConfig
	// Domain is the cluster's DNS domain; "" is cluster.local.
	Domain string
	// Locality is where the built-in client workload default/local runs.
	Locality model.Locality
}

// Mesh is what a set of objects means, resolved together. It is safe for concurrent use.
type Mesh struct {
	options Options
}

// New resolves objects into a mesh. The findings say what of them has no effect, is ambiguous, or leads nowhere, by file and line.
func New(objects []*config.Object, o Options) (*Mesh, []config.Finding) {
	return &Mesh{options: o}, nil
}

// Templates returns all workloads, sorted by namespace and name: pod templates, Pods that nobody owns, WorkloadEntries.
func (m *Mesh) Templates() []Template { return nil }

// Local returns the built-in client workload default/local, or the workload of that name that the objects define.
func (m *Mesh) Local() Template { return Template{} }

// Gateways returns the gateway workloads, sorted by namespace and name.
func (m *Mesh) Gateways() []GatewayWorkload { return nil }

// Services returns what the mesh serves, sorted by host, for people to look at.
func (m *Mesh) Services() []ServiceInfo { return nil }

// For returns the sealed snapshot of one instance of a workload with a sidecar; instance "" is its first. p must not change
// once it was given: who moves an instance passes another Placement.
func (m *Mesh) For(p *Placement, namespace, workload, instance string) (*model.Snapshot, error) {
	return nil, fmt.Errorf("cannot compile workload %s/%s: there is no such workload", namespace, workload)
}

// ForGateway returns the sealed snapshot of a gateway workload.
func (m *Mesh) ForGateway(p *Placement, namespace, workload string) (*model.Snapshot, error) {
	return nil, fmt.Errorf("cannot compile gateway %s/%s: there is no such gateway", namespace, workload)
}
