package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checker collects what an API server or istiod's webhook would refuse about one object that decoded well.
// Its methods take the path of a field, so that a check reads as one line of a table.
type checker struct {
	object   *Object
	findings []Finding
}

// bad records an error.
func (c *checker) bad(id, field, message, remedy string) {
	if len(c.findings) < maxPerFile {
		c.findings = append(c.findings, c.object.Finding(id, Error, field, message, remedy))
	}
}

// unless records an error where something does not hold.
func (c *checker) unless(ok bool, id, field, message, remedy string) {
	if !ok {
		c.bad(id, field, message, remedy)
	}
}

// required wants a field to be present.
func (c *checker) required(ok bool, field, remedy string) bool {
	c.unless(ok, idRequired, field, "is required and missing", remedy)
	return ok
}

// within wants a number in a range, limits included.
func within[N int | int32 | int64 | uint32 | uint64 | float64](c *checker, field string, n, low, high N) bool {
	ok := n >= low && n <= high
	c.unless(ok, idRange, field, fmt.Sprintf("%v is out of range", n), fmt.Sprintf("write a number from %v to %v", low, high))
	return ok
}

// port wants a TCP port.
func (c *checker) port(field string, n int64) { within(c, field, n, 1, 65535) }

// oneOf wants one of a few words.
func (c *checker) oneOf(field, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	remedy := "write one of " + strings.Join(allowed, ", ")
	if len(allowed) == 1 {
		remedy = "write " + allowed[0]
	}
	if guess := nearest(value, allowed); guess != "" {
		remedy = "did you mean " + guess + "?"
	}
	c.bad(idEnum, field, clip(strconv.Quote(value))+" is not one of the values allowed", remedy)
}

// atMost wants a list that is not too long.
func (c *checker) atMost(field string, n, most int, what string) {
	c.unless(n <= most, idTooMany, field, fmt.Sprintf("has %d %s, more than the limit of %d", n, what, most), "split it into several objects")
}

// exclusive wants at most one of several fields of a parent.
func (c *checker) exclusive(parent string, fields ...string) {
	first := ""
	for _, f := range fields {
		path := parent + "." + f
		n := c.object.node.find(path)
		if n == nil || n.shape == null || n.shape == list && len(n.items) == 0 {
			continue
		}
		if first != "" {
			c.bad(idExclusive, path, first+" and "+f+" exclude each other", "remove one of them")
			return
		}
		first = f
	}
}

// regex wants an RE2 expression that matches as a whole.
func (c *checker) regex(field, expression string) {
	if len(expression) > 4096 {
		c.bad(idRegex, field, "the regular expression has more than 4096 characters", "shorten it")
		return
	}
	_, err := regexp.Compile("^(?:" + expression + ")$")
	if err == nil {
		return
	}
	reason := err.Error()
	if e, ok := err.(*syntax.Error); ok {
		reason = e.Code.String()
		if e.Expr != "" && len(e.Expr) < len(expression) {
			reason += " " + clip(e.Expr)
		}
	}
	remedy := "write it in RE2 syntax"
	if strings.Contains(expression, "(?=") || strings.Contains(expression, "(?!") || strings.Contains(expression, "(?<") {
		remedy = "RE2 has no look-around; use several matches or withoutHeaders"
	}
	c.bad(idRegex, field, "the regular expression does not compile: "+reason, remedy)
}

// label wants a DNS label (RFC 1123): namespaces, Service names, ports' names.
func (c *checker) label(field, name string) {
	if len(validation.IsDNS1123Label(name)) > 0 {
		c.bad(idName, field, clip(strconv.Quote(name))+" is not a valid name", "use at most 63 lower-case letters, digits and -, with a letter or digit at both ends")
	}
}

// subdomain wants a DNS subdomain (RFC 1123): most objects' names.
func (c *checker) subdomain(field, name string) {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		c.bad(idName, field, clip(strconv.Quote(name))+" is not a valid name", "use at most 253 lower-case letters, digits, - and ., with a letter or digit at both ends")
	}
}

// metadata checks what every object has.
func (c *checker) metadata(m *metav1.ObjectMeta, k *kind) {
	switch {
	case m.Name == "":
		remedy := "give the object a name"
		if m.GenerateName != "" {
			remedy = "an object from a file needs a name of its own, not generateName"
		}
		c.required(false, "metadata.name", remedy)
	case k.label:
		c.label("metadata.name", m.Name)
	default:
		c.subdomain("metadata.name", m.Name)
	}
	if !k.clusterWide {
		c.label("metadata.namespace", c.object.Namespace)
	}
	c.labels("metadata.labels", m.Labels)
	c.annotations("metadata.annotations", m.Annotations)
	for key := range m.Annotations {
		if len(validation.IsQualifiedName(strings.ToLower(key))) > 0 {
			c.bad(idName, "metadata.annotations["+key+"]", clip(strconv.Quote(key))+" is not a valid annotation", "use [prefix/]name of letters, digits, -, _ and .")
		}
	}
}

// labels checks keys and values of labels or of a selector.
func (c *checker) labels(field string, labels map[string]string) {
	for key, value := range labels {
		if len(validation.IsQualifiedName(key)) > 0 {
			c.bad(idLabel, field+"["+key+"]", clip(strconv.Quote(key))+" is not a valid label", "use [prefix/]name of at most 63 letters, digits, -, _ and .")
		}
		if len(validation.IsValidLabelValue(value)) > 0 {
			c.bad(idLabel, field+"["+key+"]", clip(strconv.Quote(value))+" is not a valid label value", "use at most 63 letters, digits, -, _ and ., with a letter or digit at both ends")
		}
	}
}

// headerName wants a field name of RFC 9110 §5.1.
func (c *checker) headerName(field, name string) {
	if !validToken(name) {
		c.bad(idHeader, field, clip(strconv.Quote(name))+" is not a valid header name", "use letters, digits and !#$%&'*+-.^_`|~")
	}
}

// headerValue wants no control characters: they could split the message.
func (c *checker) headerValue(field, value string) {
	if strings.ContainsAny(value, "\r\n\x00") {
		c.bad(idHeader, field, "the header value has a line end or a NUL", "remove it")
	}
}

// validToken says whether s is a token of RFC 9110 §5.6.2: a method, a header name.
func validToken(s string) bool {
	for i := range len(s) {
		b := s[i]
		if (b < '0' || b > '9') && (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(b)) {
			return false
		}
	}
	return s != ""
}

// host wants a DNS name or an address without wildcard.
func (c *checker) host(field, host string) {
	if _, err := netip.ParseAddr(host); err == nil {
		return
	}
	c.unless(validDomain(host), idHost, field, clip(strconv.Quote(host))+" is not a valid host name", "write a DNS name or an IP address, without scheme, port and path")
}

// wildcardHost wants a DNS name that may be "*" or begin with "*.", or, if address, an IP address.
func (c *checker) wildcardHost(field, host string, address bool) {
	if address {
		if _, err := netip.ParseAddr(host); err == nil {
			return
		}
	}
	if !validWildcard(host) {
		c.bad(idHost, field, clip(strconv.Quote(host))+" is not a valid host name", "write a DNS name, optionally with *. at its beginning; without scheme, port and path")
	}
}

// validWildcard says whether a host is a DNS name whose first label may be, or begin with, a "*", as Istio has it.
func validWildcard(host string) bool {
	if host == "*" {
		return true
	}
	if rest, wild := strings.CutPrefix(host, "*"); wild {
		host = strings.TrimPrefix(strings.TrimPrefix(rest, "-"), ".")
	}
	return validDomain(host)
}

// validDomain says whether s is a DNS name as Istio sees it: labels of letters, digits, - and _, in either case.
func validDomain(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 255 {
		return false
	}
	for l := range strings.SplitSeq(s, ".") {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for i := range len(l) {
			b := l[i]
			if (b < '0' || b > '9') && (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') && b != '-' && b != '_' {
				return false
			}
		}
	}
	return true
}

// covers says whether two host patterns have hosts in common, one being as wide as the other or wider.
func covers(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if a == b {
		return true
	}
	wide := func(w, h string) bool {
		return strings.HasPrefix(w, "*") && strings.HasSuffix(strings.TrimPrefix(h, "*"), w[1:])
	}
	return wide(a, b) || wide(b, a)
}

// item is the path of a list's item.
func item(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
