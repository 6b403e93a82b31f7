// Package config reads objects: it decodes Kubernetes-shaped documents strictly and keeps where each field stands.
package config

import "time"

// Object is one valid document: its type, its name, and its typed content.
type Object struct {
	Group, Version, Kind string
	Namespace, Name      string
	Labels, Annotations  map[string]string
	// Created orders objects from a cluster, oldest first; zero for objects from files, whose order is path, then position.
	Created time.Time
	// Spec is the content in the upstream project's own Go type:
	//
	//	Service                     *corev1.Service (k8s.io/api; whole object, as for all Kubernetes kinds below)
	//	EndpointSlice               *discoveryv1.EndpointSlice
	//	Namespace, ServiceAccount, ConfigMap, Pod    *corev1.Namespace, ...
	//	Deployment, StatefulSet, DaemonSet, ReplicaSet    *appsv1.Deployment, ...
	//	VirtualService, DestinationRule, ServiceEntry, WorkloadEntry, Gateway (Istio)    *networkingv1.VirtualService, ... (istio.io/api/networking/v1alpha3 spec messages)
	//	Gateway, HTTPRoute, ReferenceGrant (Gateway API)    *gatewayv1.Gateway, *gatewayv1.HTTPRoute, *gatewayv1beta1.ReferenceGrant (whole objects)
	//	TrafficSplit, HTTPRouteGroup    *TrafficSplit, *HTTPRouteGroup (this package: all versions in one form)
	Spec any
	// Source is where the object stands.
	Source Source

	node *position // the document's tree of positions
}

// Source is a place in a file. Line and Column count from 1.
type Source struct {
	File   string
	Line   int
	Column int
}

// Severity of a Finding.
type Severity string

// Severities, worst first.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

// Finding is one thing to say about an object or a file. Its JSON form is a contract.
type Finding struct {
	ID        string   `json:"id"`   // stable: OR0001...
	Code      string   `json:"code"` // Istio's IST code where one exists, else ""
	Severity  Severity `json:"severity"`
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Column    int      `json:"column"`
	Field     string   `json:"-"` // path of the field: spec.http[0].route
	Message   string   `json:"message"`
	Remedy    string   `json:"remedy"`
}
