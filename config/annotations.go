package config

import (
	"slices"
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

// otherModes says whether a name is for another mode of failure accrual than consecutive, which is told of with the mode.
func otherModes(name string) bool {
	mode, ok := strings.CutPrefix(name, "failure-accrual-")
	return ok && !strings.HasPrefix(mode, "consecutive-")
}

// annotations warns of those that do not exist; field is metadata.annotations of the object or of its template.
func (c *checker) annotations(field string, annotations map[string]string) {
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
