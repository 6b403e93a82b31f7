package config

import (
	"slices"
	"strconv"
	"strings"
)

// annotationNames are the annotations that configure the mesh, by their prefixes. Another with such a prefix is a mistake
// that nobody would notice: its author relies on an effect that it has not.
var annotationNames = map[string][]string{
	"outrider.dev/":       {"calls", "hash-balance-factor", "load-balancer", "reason-header", "sidecar", "stand-in"},
	"retry.linkerd.io/":   {"grpc", "http", "limit", "timeout"},
	"timeout.linkerd.io/": {"idle", "request", "response"},
	"balancer.linkerd.io/": {
		"failure-accrual", "failure-accrual-consecutive-jitter-ratio", "failure-accrual-consecutive-max-failures",
		"failure-accrual-consecutive-max-penalty", "failure-accrual-consecutive-min-penalty",
	},
}

// inert are annotations of Istio's that say something of the traffic and are not followed yet: what each would do. One that
// ends in "/" stands for all with that prefix.
var inert = []struct{ name, effect, remedy string }{
	{"proxy.istio.io/config", "the sidecar keeps its defaults", "do not rely on it here; terminationDrainDuration has an effect in MeshConfig's defaultConfig, for all sidecars"},
	{"traffic.sidecar.istio.io/", "nothing is redirected here, so that no port or address goes round the sidecar", "do not rely on it here"},
}

// inertAnnotations warns of those that have no effect yet.
func (c *checker) inertAnnotations(field string, annotations map[string]string) {
	for key := range annotations {
		for _, a := range inert {
			if key == a.name || strings.HasSuffix(a.name, "/") && strings.HasPrefix(key, a.name) {
				c.warn(idInert, field+"["+key+"]", key+" has no effect yet: "+a.effect, a.remedy)
			}
		}
	}
}

// trafficAnnotation says on a Service or ServiceEntry what a Service's trafficDistribution says, in any case of letters, or Any (Istio).
const trafficAnnotation = "networking.istio.io/traffic-distribution"

// nearness are the values of a Service's trafficDistribution (Kubernetes).
var nearness = []string{"PreferClose", "PreferSameZone", "PreferSameNode"}

// otherModes says whether a name is for another mode of failure accrual than consecutive, which is told of with the mode.
func otherModes(name string) bool {
	mode, ok := strings.CutPrefix(name, "failure-accrual-")
	return ok && !strings.HasPrefix(mode, "consecutive-")
}

// annotations warns of those that do not exist; field is metadata.annotations of the object or of its template.
func (c *checker) annotations(field string, annotations map[string]string) {
	c.inertAnnotations(field, annotations)
	if value, ok := annotations[trafficAnnotation]; ok && !slices.ContainsFunc(append([]string{"Any"}, nearness...), func(n string) bool { return strings.EqualFold(n, value) }) {
		c.warn(idEnum, field+"["+trafficAnnotation+"]", clip(strconv.Quote(value))+" is not one of the values allowed; it has no effect", "write one of Any, "+strings.Join(nearness, ", "))
	}
	for key := range annotations {
		i := strings.IndexByte(key, '/') + 1
		prefix, name := key[:i], key[i:]
		known, ours := annotationNames[prefix]
		if !ours || slices.Contains(known, name) || otherModes(name) {
			continue
		}
		remedy := "those with this prefix are " + strings.Join(known, ", ")
		if guess := nearest(name, known); guess != "" {
			remedy = "did you mean " + prefix + guess + "?"
		}
		c.warn(idAnnotation, field+"["+key+"]", "there is no such annotation; it has no effect", remedy)
	}
}
