// Package config reads objects: it decodes Kubernetes-shaped documents strictly and keeps where each field stands.
package config

import "time"

// Object is one valid document: its type, its name, and its typed content. It is immutable once decoded.
type Object struct {
	Group, Version, Kind string
	Namespace, Name      string
	Labels, Annotations  map[string]string
	// Owners are the objects that this one was made for (metadata.ownerReferences).
	Owners []Owner
	// Created orders objects from a cluster, oldest first; zero for objects from files, whose order is path, then position.
	Created time.Time
	// Spec is the content in the upstream project's own Go type:
	//
	//	Service                     *corev1.Service (k8s.io/api; whole object, as for all Kubernetes kinds below)
	//	EndpointSlice               *discoveryv1.EndpointSlice
	//	Namespace, ServiceAccount, ConfigMap, Secret, Pod    *corev1.Namespace, ... (of a Secret, stringData is in data)
	//	Deployment, StatefulSet, DaemonSet, ReplicaSet    *appsv1.Deployment, ...
	//	VirtualService, DestinationRule, ServiceEntry, WorkloadEntry, WorkloadGroup, Gateway (Istio), Sidecar    *networkingv1.VirtualService, ... (istio.io/api/networking/v1alpha3 spec messages)
	//	Gateway, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, BackendTLSPolicy, ReferenceGrant (Gateway API)
	//	                            *gatewayv1.Gateway, *gatewayv1.HTTPRoute, ..., *gatewayv1beta1.ReferenceGrant (whole objects)
	//	TrafficSplit, HTTPRouteGroup    *TrafficSplit, *HTTPRouteGroup (this package: all versions in one form)
	//	CircuitBreaker, RateLimit   *CircuitBreaker, *RateLimit (this package)
	Spec any
	// Source is where the object stands.
	Source Source

	node *node // the document's tree of positions; nil for objects that were not read from text
}

// Owner names an object of the same namespace.
type Owner struct{ Kind, Name string }

// Source is a place in a file. Line and Column count from 1; a column counts characters.
type Source struct {
	File   string
	Line   int
	Column int
}

// Key names an object among all objects. Two objects with the same Key are the same object, whatever their version.
type Key struct {
	Group, Kind, Namespace, Name string
}

// Key returns the object's name among all objects.
func (o *Object) Key() Key {
	return Key{Group: o.Group, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
}

// Position returns the place of a field: where its name stands, and for a list's item where the item begins.
// The path is the one of the YAML text: `spec.http[1].match[0].uri`, `metadata.labels[app.kubernetes.io/name]`.
// A field that is not written gives the place of the nearest enclosing one that is; an object without text gives its Source.
func (o *Object) Position(field string) Source {
	s := o.Source
	if line, column := o.node.position(field); line > 0 {
		s.Line, s.Column = line, column
	}
	return s
}

// Has says whether the field of this path is written, be it as an explicit null. It tells an absent field from one with a zero value.
func (o *Object) Has(field string) bool {
	return o.node.find(field) != nil
}

// Finding says something about one field of the object; an empty field means the whole object.
// The code (IST0106 and the like) is the one that the table of ids has for id, or empty.
func (o *Object) Finding(id string, severity Severity, field, message, remedy string) Finding {
	s := o.Source
	if field != "" {
		s = o.Position(field)
	}
	return Finding{
		ID: id, Code: codes[id], Severity: severity,
		Kind: o.Kind, Namespace: o.Namespace, Name: o.Name,
		File: s.File, Line: s.Line, Column: s.Column,
		Field: field, Message: message, Remedy: remedy,
	}
}
