package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networkingv1 "istio.io/api/networking/v1alpha3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// API groups.
const (
	groupIstio      = "networking.istio.io"
	groupSecurity   = "security.istio.io"
	groupTelemetry  = "telemetry.istio.io"
	groupExtensions = "extensions.istio.io"
	groupInstall    = "install.istio.io"
	groupGateway    = "gateway.networking.k8s.io"
	groupGatewayX   = "gateway.networking.x-k8s.io"
	groupSplit      = "split.smi-spec.io"
	groupSpecs      = "specs.smi-spec.io"
	groupAccess     = "access.smi-spec.io"
	groupLinkerd    = "policy.linkerd.io"
	groupProfiles   = "linkerd.io"
	groupOutrider   = "outrider.dev"
)

// kind is how one kind of object is read.
type kind struct {
	versions    []string // the newest first
	clusterWide bool
	label       bool // the name is a DNS label rather than a subdomain
	decode      func(d *decoder, n *node) (spec any, meta *metav1.ObjectMeta)
	defaults    func(spec any)
	check       func(c *checker, spec any)
}

func (k *kind) has(version string) bool { return slices.Contains(k.versions, version) }

var (
	istioVersions   = []string{"v1", "v1beta1", "v1alpha3"}
	gatewayVersions = []string{"v1", "v1beta1"}
)

// kinds are all kinds that are read, by group and kind. Two groups may have a kind of the same name (Gateway).
var kinds = map[[2]string]*kind{
	{"", "Namespace"}:                     {versions: []string{"v1"}, clusterWide: true, label: true, decode: whole[corev1.Namespace]},
	{"", "Service"}:                       {versions: []string{"v1"}, label: true, decode: whole[corev1.Service], defaults: on(defaultService), check: checks(checkService)},
	{"", "ServiceAccount"}:                {versions: []string{"v1"}, decode: whole[corev1.ServiceAccount]},
	{"", "ConfigMap"}:                     {versions: []string{"v1"}, decode: whole[corev1.ConfigMap], check: checks(checkConfigMap)},
	{"", "Secret"}:                        {versions: []string{"v1"}, decode: readSecret, defaults: on(defaultSecret), check: checks(checkSecret)},
	{"", "Pod"}:                           {versions: []string{"v1"}, decode: whole[corev1.Pod], defaults: on(defaultPod), check: checks(checkPod)},
	{"apps", "Deployment"}:                {versions: []string{"v1"}, decode: whole[appsv1.Deployment], defaults: on(defaultDeployment), check: checks(checkDeployment)},
	{"apps", "StatefulSet"}:               {versions: []string{"v1"}, decode: whole[appsv1.StatefulSet], defaults: on(defaultStatefulSet), check: checks(checkStatefulSet)},
	{"apps", "DaemonSet"}:                 {versions: []string{"v1"}, decode: whole[appsv1.DaemonSet], defaults: on(defaultDaemonSet), check: checks(checkDaemonSet)},
	{"apps", "ReplicaSet"}:                {versions: []string{"v1"}, decode: whole[appsv1.ReplicaSet], defaults: on(defaultReplicaSet), check: checks(checkReplicaSet)},
	{"discovery.k8s.io", "EndpointSlice"}: {versions: []string{"v1"}, decode: whole[discoveryv1.EndpointSlice], defaults: on(defaultEndpointSlice), check: checks(checkEndpointSlice)},

	{groupIstio, "VirtualService"}:  {versions: istioVersions, decode: fromIstio[networkingv1.VirtualService], check: checks(checkVirtualService)},
	{groupIstio, "DestinationRule"}: {versions: istioVersions, decode: fromIstio[networkingv1.DestinationRule], check: checks(checkDestinationRule)},
	{groupIstio, "ServiceEntry"}:    {versions: istioVersions, decode: fromIstio[networkingv1.ServiceEntry], check: checks(checkServiceEntry)},
	{groupIstio, "WorkloadEntry"}:   {versions: istioVersions, decode: fromIstio[networkingv1.WorkloadEntry], check: checks(checkWorkloadEntry)},
	{groupIstio, "WorkloadGroup"}:   {versions: istioVersions, decode: fromIstio[networkingv1.WorkloadGroup], check: checks(checkWorkloadGroup)},
	{groupIstio, "Gateway"}:         {versions: istioVersions, decode: fromIstio[networkingv1.Gateway], check: checks(checkIstioGateway)},
	{groupIstio, "Sidecar"}:         {versions: istioVersions, decode: fromIstio[networkingv1.Sidecar], check: checks(checkSidecar)},

	{groupGateway, "Gateway"}:          {versions: gatewayVersions, decode: whole[gatewayv1.Gateway], defaults: on(defaultGateway), check: checks(checkGateway)},
	{groupGateway, "HTTPRoute"}:        {versions: gatewayVersions, decode: whole[gatewayv1.HTTPRoute], defaults: on(defaultHTTPRoute), check: checks(checkHTTPRoute)},
	{groupGateway, "GRPCRoute"}:        {versions: []string{"v1", "v1alpha2"}, decode: whole[gatewayv1.GRPCRoute], defaults: on(defaultGRPCRoute), check: checks(checkGRPCRoute)},
	{groupGateway, "TCPRoute"}:         {versions: []string{"v1", "v1alpha2"}, decode: whole[gatewayv1.TCPRoute], defaults: on(defaultTCPRoute), check: checks(checkTCPRoute)},
	{groupGateway, "TLSRoute"}:         {versions: []string{"v1", "v1alpha3", "v1alpha2"}, decode: whole[gatewayv1.TLSRoute], defaults: on(defaultTLSRoute), check: checks(checkTLSRoute)},
	{groupGateway, "BackendTLSPolicy"}: {versions: []string{"v1", "v1alpha3"}, decode: whole[gatewayv1.BackendTLSPolicy], check: checks(checkBackendTLSPolicy)},
	{groupGateway, "ReferenceGrant"}:   {versions: gatewayVersions, decode: whole[gatewayv1beta1.ReferenceGrant], check: checks(checkReferenceGrant)},

	{groupGatewayX, "XBackendTrafficPolicy"}: {versions: []string{"v1alpha1"}, decode: whole[gatewayx.XBackendTrafficPolicy], defaults: on(defaultTrafficPolicy), check: checks(checkTrafficPolicy)},

	{groupSplit, "TrafficSplit"}:   {versions: []string{"v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"}, decode: decodeTrafficSplit, check: checks(checkTrafficSplit)},
	{groupSpecs, "HTTPRouteGroup"}: {versions: []string{"v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"}, decode: decodeHTTPRouteGroup, check: checks(checkHTTPRouteGroup)},

	{groupLinkerd, "Server"}:                   {versions: []string{"v1beta3", "v1beta2", "v1beta1"}, decode: decodeLinkerdServer, check: checks(checkLinkerdServer)},
	{groupLinkerd, "HTTPLocalRateLimitPolicy"}: {versions: []string{"v1alpha1"}, decode: decodeLinkerdRateLimit, check: checks(checkLinkerdRateLimit)},
	{groupProfiles, "ServiceProfile"}:          {versions: []string{"v1alpha2"}, decode: decodeServiceProfile, check: checks(checkServiceProfile)},

	{groupOutrider, "CircuitBreaker"}: {versions: []string{"v1alpha1"}, decode: decodeCircuitBreaker, defaults: on(defaultCircuitBreaker), check: checks(checkCircuitBreaker)},
	{groupOutrider, "RateLimit"}:      {versions: []string{"v1alpha1"}, decode: decodeRateLimit, defaults: on(defaultRateLimit), check: checks(checkRateLimit)},
}

// refusedKinds can never be honoured; each is an error that names what to use.
var refusedKinds = map[[2]string]string{
	{groupIstio, "EnvoyFilter"}:           "it patches Envoy's own configuration, and there is no Envoy here; use VirtualService (headers, timeout, retries, corsPolicy, directResponse), DestinationRule (connectionPool, outlierDetection) and RateLimit of outrider.dev (limits of each proxy, and those that a rate limit service counts)",
	{groupExtensions, "WasmPlugin"}:       "it loads code into Envoy, and there is no Envoy here; use VirtualService headers, AuthorizationPolicy or RequestAuthentication, or do it in the application",
	{groupExtensions, "TrafficExtension"}: "it loads code into Envoy, and there is no Envoy here; use VirtualService headers, AuthorizationPolicy or RequestAuthentication, or do it in the application",
}

// laterKinds are known to the mesh and not honoured yet: each object is a warning of its own.
// The text says what is not done; for guards, kinds that protect something, it says what is let through.
var laterKinds = map[[2]string]struct {
	effect string
	guard  bool
}{
	{groupSecurity, "PeerAuthentication"}:    {"mutual TLS is neither required nor offered: plaintext is accepted whatever the mode says", true},
	{groupSecurity, "AuthorizationPolicy"}:   {"no request is denied by it: everything that it would refuse is let through", true},
	{groupSecurity, "RequestAuthentication"}: {"no token is verified: requests with invalid tokens are let through", true},
	{groupAccess, "TrafficTarget"}:           {"no request is denied by it: everything that it would refuse is let through", true},
	{groupLinkerd, "ServerAuthorization"}:    {"no request is denied by it: everything that it would refuse is let through", true},
	{groupLinkerd, "AuthorizationPolicy"}:    {"no request is denied by it: everything that it would refuse is let through", true},
	{groupLinkerd, "MeshTLSAuthentication"}:  {"no client is authenticated by it", true},
	{groupLinkerd, "NetworkAuthentication"}:  {"no client is authenticated by it", true},
	{groupLinkerd, "EgressNetwork"}:          {"no request is denied by it", true},
	{groupTelemetry, "Telemetry"}:            {"metrics and traces stay as they are by default, and access logs are what meshConfig.accessLogFile says", false},
	{groupIstio, "ProxyConfig"}:              {"sidecars keep their defaults", false},
	{groupInstall, "IstioOperator"}:          {"its meshConfig is not read, and nothing is installed; write meshConfig as the ConfigMap istio in istio-system (key mesh), or give it by --mesh-config", false},
	{groupGateway, "UDPRoute"}:               {"datagrams are not carried", false},
	{groupGateway, "ListenerSet"}:            {"its listeners are not opened", false},
	{groupSpecs, "TCPRoute"}:                 {"connections go to the service that they name", false},
	{groupSpecs, "UDPRoute"}:                 {"datagrams are not carried", false},
	{groupLinkerd, "HTTPRoute"}:              {"requests do not follow it; write it as gateway.networking.k8s.io HTTPRoute", false},
}

// otherKinds are Kubernetes' own kinds in groups that the mesh reads: known, and of no use here.
var otherKinds = map[[2]string]bool{
	{"", "PersistentVolume"}: true, {"", "PersistentVolumeClaim"}: true, {"", "LimitRange"}: true,
	{"", "ResourceQuota"}: true, {"", "Endpoints"}: true, {"", "ReplicationController"}: true, {"", "Node"}: true, {"", "Event"}: true,
	{"", "PodTemplate"}: true, {"", "Binding"}: true, {"apps", "ControllerRevision"}: true,
	{groupGateway, "GatewayClass"}: true,
}

// ownGroups are the groups whose kinds are all known, so that another kind in one of them is a mistake.
var ownGroups = []string{
	"", "apps", "discovery.k8s.io", groupIstio, groupSecurity, groupTelemetry, groupExtensions, groupGateway,
	groupSplit, groupSpecs, groupAccess, groupOutrider,
}

// whole reads an object into its Go type. Status is read as far as it fits: it is written by others.
func whole[T any](d *decoder, n *node) (any, *metav1.ObjectMeta) {
	spec := new(T)
	v := reflect.ValueOf(spec).Elem()
	if n.child("status") == nil {
		d.into(n, v)
	} else {
		strict := *n
		strict.fields = slices.DeleteFunc(slices.Clone(n.fields), func(f field) bool { return f.name == "status" })
		d.into(&strict, v)
		if index, ok := layoutOf(v.Type()).fields["status"]; ok {
			lenient := decoder{lenient: true}
			lenient.into(n.child("status"), v.FieldByIndex(index))
		}
	}
	return spec, v.FieldByName("ObjectMeta").Addr().Interface().(*metav1.ObjectMeta)
}

// fromIstio reads an Istio object: its spec into the protobuf message; status is not used.
func fromIstio[T any, P interface {
	*T
	proto.Message
}](d *decoder, n *node) (any, *metav1.ObjectMeta) {
	spec := P(new(T))
	meta := d.header(n, func(n *node) { d.message(n, spec.ProtoReflect()) })
	return spec, meta
}

// header reads apiVersion, kind and metadata, and gives spec to its reader; status is not used.
func (d *decoder) header(n *node, spec func(*node)) *metav1.ObjectMeta {
	meta := &metav1.ObjectMeta{}
	for i := range n.fields {
		f := &n.fields[i]
		d.enter(f.name)
		switch f.name {
		case "apiVersion", "kind", "status":
		case "metadata":
			d.into(f.value, reflect.ValueOf(meta).Elem())
		case "spec":
			spec(f.value)
		default:
			d.leave()
			d.unknown(f, []string{"apiVersion", "kind", "metadata", "spec", "status"})
			continue
		}
		d.leave()
	}
	return meta
}

// checks and on give a typed function the form that the table has.
func checks[T any](f func(*checker, *T)) func(*checker, any) {
	return func(c *checker, spec any) { f(c, spec.(*T)) }
}

func on[T any](f func(*T)) func(any) { return func(spec any) { f(spec.(*T)) } }

// apiVersion joins a group and a version.
func apiVersion(group, version string) string {
	if group == "" {
		return version
	}
	return group + "/" + version
}

// groupsOf returns the apiVersions that have this kind, the newest of each.
func groupsOf(name string) []string {
	var found []string
	for id, k := range kinds {
		if id[1] == name {
			found = append(found, apiVersion(id[0], k.versions[0]))
		}
	}
	slices.Sort(found)
	return found
}

// other takes an object whose kind is not read.
func (f *decoding) other(o *Object) {
	id := [2]string{o.Group, o.Kind}
	if o.Namespace == "" {
		o.Namespace = f.namespace
	}
	if reason, ok := refusedKinds[id]; ok {
		message, remedy, _ := strings.Cut(reason, "; ")
		field := ""
		if o.Has("spec.configPatches[0].applyTo") {
			field = "spec.configPatches[0].applyTo"
		}
		f.Findings = append(f.Findings, o.Finding(idUnsupported, Error, field, o.Kind+" is not supported: "+message, remedy))
		return
	}
	if l, ok := laterKinds[id]; ok {
		rule := idLater
		if l.guard {
			rule = idLaterGuard
		}
		f.Findings = append(f.Findings, o.Finding(rule, Warning, "", o.Kind+" has no effect yet: "+l.effect, "do not rely on it here"))
		return
	}
	if message, remedy := mistaken(o); message != "" {
		f.refuse(o, o.Finding(idVersion, Error, "apiVersion", message, remedy))
		return
	}
	f.unused(o)
}

// mistaken says what is wrong with a type that looks like one of ours, or "".
func mistaken(o *Object) (message, remedy string) {
	id := [2]string{o.Group, o.Kind}
	if otherKinds[id] {
		return "", ""
	}
	written := apiVersion(o.Group, o.Version)
	own := slices.Contains(ownGroups, o.Group)
	elsewhere := groupsOf(o.Kind)
	switch {
	case own && len(elsewhere) > 0, o.Group == "extensions" && len(elsewhere) > 0:
		return fmt.Sprintf("%s has no kind %s", clip(written), o.Kind), "write apiVersion: " + strings.Join(elsewhere, " or ")
	case own:
		names := kindsIn(o.Group)
		if guess := nearest(o.Kind, names); guess != "" {
			return fmt.Sprintf("%s has no kind %s", clip(written), clip(o.Kind)), "did you mean " + guess + "?"
		}
		if o.Group != "" && o.Group != "apps" {
			return fmt.Sprintf("%s has no kind %s", clip(written), clip(o.Kind)), "the kinds here are " + strings.Join(names, ", ")
		}
	case len(o.Group) <= 64:
		for _, version := range elsewhere {
			group, _, _ := strings.Cut(version, "/")
			if distance(o.Group, group) <= 5 {
				return fmt.Sprintf("%s has no kind %s", clip(written), o.Kind), "did you mean " + version + "?"
			}
		}
	}
	return "", ""
}

// kindsIn lists all kinds of a group, read or not.
func kindsIn(group string) []string {
	names := map[string]bool{}
	for id := range kinds {
		names[id[1]] = names[id[1]] || id[0] == group
	}
	for id := range laterKinds {
		names[id[1]] = names[id[1]] || id[0] == group
	}
	for id := range refusedKinds {
		names[id[1]] = names[id[1]] || id[0] == group
	}
	maps.DeleteFunc(names, func(_ string, in bool) bool { return !in })
	return slices.Sorted(maps.Keys(names))
}

// unused counts an object that the mesh has no use for.
func (f *decoding) unused(o *Object) {
	f.count(o.Kind)
	if len(f.Unused) == 1 && f.Unused[o.Kind] == 1 {
		f.firstUnused = o.Source
	}
}

func (f *decoding) count(kind string) {
	if f.Unused == nil {
		f.Unused = map[string]int{}
	}
	f.Unused[clip(kind)]++
}
