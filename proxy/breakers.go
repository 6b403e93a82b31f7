package proxy

import (
	"strings"

	"github.com/outrider-mesh/outrider/proxy/dashboard"
)

// Breakers appends the circuit breakers in force, for those who tell of them; their instants are Now's. It makes a Proxy a
// dashboard.Source.
func (p *Proxy) Breakers(dst []dashboard.Named) []dashboard.Named {
	for name, b := range p.upstream.Breakers() {
		namespace, name, _ := strings.Cut(name, "/")
		dst = append(dst, dashboard.Named{Namespace: namespace, Name: name, Group: b.Spec.Group, Breaker: b.Breaker})
	}
	return dst
}

// Now returns the present instant as breakers count them, in nanoseconds.
func Now() int64 { return now() }
