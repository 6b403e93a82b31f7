package compile

import (
	"slices"
	"strconv"
	"strings"
)

// fullName resolves a host as a rule in namespace writes it: a name without a dot is a service of that namespace.
func fullName(host, namespace, domain string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || host == "*" || strings.ContainsAny(host, ".:") {
		return host
	}
	return host + "." + namespace + ".svc." + domain
}

func wildcard(host string) bool { return strings.HasPrefix(host, "*") }

// within says whether every name that inner stands for is one that outer stands for.
func within(inner, outer string) bool {
	if !wildcard(outer) {
		return inner == outer
	}
	if wildcard(inner) {
		inner = inner[1:]
	}
	return strings.HasSuffix(inner, outer[1:])
}

// narrower returns the one of two hosts that lies within the other.
func narrower(a, b string) (string, bool) {
	switch {
	case within(a, b):
		return a, true
	case within(b, a):
		return b, true
	}
	return "", false
}

// routable says whether host has one of the forms that a route table knows.
func routable(host string) bool {
	rest := host
	if host == "*" {
		return true
	}
	if strings.HasPrefix(host, "*.") {
		rest = host[2:]
	}
	return rest != "" && !strings.Contains(rest, "*")
}

// address says whether host is an IP address, not a name.
func address(host string) bool {
	if strings.Contains(host, ":") {
		return true
	}
	return host != "" && strings.Trim(host, "0123456789.") == ""
}

// authority joins host and port, with brackets where the host has colons.
func authority(host string, port int) string {
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(port)
}

// visibility is the set of namespaces that an object is exported to.
type visibility struct {
	all bool
	in  []string
}

// visible reads an exportTo of an object in namespace; empty takes the mesh's default, and without one, everywhere.
func visible(exportTo, defaults []string, namespace string) visibility {
	if len(exportTo) == 0 {
		exportTo = defaults
	}
	if len(exportTo) == 0 {
		return visibility{all: true}
	}
	var v visibility
	for _, e := range exportTo {
		switch e {
		case "*":
			return visibility{all: true}
		case ".":
			v.in = append(v.in, namespace)
		case "~":
		default:
			v.in = append(v.in, e)
		}
	}
	slices.Sort(v.in)
	v.in = slices.Compact(v.in)
	return v
}

func (v visibility) includes(namespace string) bool { return v.all || slices.Contains(v.in, namespace) }

func (v visibility) equal(w visibility) bool { return v.all == w.all && slices.Equal(v.in, w.in) }

// private says that nobody but namespace itself sees the object.
func (v visibility) private(namespace string) bool {
	return !v.all && len(v.in) == 1 && v.in[0] == namespace
}

// selects says whether labels have all pairs of selector.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
