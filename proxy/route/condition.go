package route

import (
	"fmt"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

// condition is one compiled model.Match: everything set in it must hold.
type condition struct {
	rule      int32 // of the table
	path      *Text
	method    *Text
	authority *Text
	scheme    *Text
	headers   []field
	query     []parameter
}

// field compares the values of a header field, each by itself: one that compares is enough, or a second field of the name
// could hide the one that the application acts on (Envoy's match_headers_individually).
type field struct {
	id      message.ID
	name    string
	pseudo  pseudo
	test    Text
	present bool // the test is of presence alone
	not     bool
}

// pseudo is what a name means that is no field's own.
type pseudo uint8

const (
	aField pseudo = iota
	anAuthority
	aPath
	aMethod
)

func pseudoOf(id message.ID, name string) pseudo {
	switch {
	case id == message.Host || name == ":authority":
		return anAuthority
	case name == ":path":
		return aPath
	case name == ":method":
		return aMethod
	}
	return aField
}

// parameter compares the first value of a query parameter, undecoded (as Envoy does).
type parameter struct {
	name    string
	test    Text
	present bool
	not     bool
}

func newCondition(rule int32, m *model.Match) (c condition, err error) {
	c.rule = rule
	for _, p := range []struct {
		what string
		from *model.StringMatch
		to   **Text
	}{{"path", m.Path, &c.path}, {"method", m.Method, &c.method}, {"authority", m.Authority, &c.authority}, {"scheme", m.Scheme, &c.scheme}} {
		if p.from == nil {
			continue
		}
		t, err := NewText(*p.from)
		if err != nil {
			return c, fmt.Errorf("%s: %w", p.what, err)
		}
		*p.to = &t
	}
	for _, k := range m.Headers {
		t, err := NewText(k.StringMatch)
		if err != nil {
			return c, fmt.Errorf("header %q: %w", k.Name, err)
		}
		id := message.IdentifyString(k.Name)
		c.headers = append(c.headers, field{
			id: id, name: k.Name, pseudo: pseudoOf(id, k.Name),
			test: t, present: k.Kind == model.Present, not: k.Not,
		})
	}
	for _, k := range m.Query {
		t, err := NewText(k.StringMatch)
		if err != nil {
			return c, fmt.Errorf("query parameter %q: %w", k.Name, err)
		}
		c.query = append(c.query, parameter{name: k.Name, test: t, present: k.Kind == model.Present, not: k.Not})
	}
	return c, nil
}

func (c *condition) hold(r *message.Request) bool {
	if c.path != nil && !c.path.Match(r.Path()) {
		return false
	}
	if c.method != nil && !c.method.Match(r.Method()) {
		return false
	}
	if c.authority != nil && !c.authority.Match(r.Authority()) {
		return false
	}
	if c.scheme != nil && !c.scheme.Match(schemeOf(r)) {
		return false
	}
	for i := range c.headers {
		if !c.headers[i].hold(r) {
			return false
		}
	}
	for i := range c.query {
		p := &c.query[i]
		value, ok := r.Parameter(p.name)
		if !decide(&p.test, value, ok, p.present, p.not) {
			return false
		}
	}
	return true
}

// decide applies one comparison to a value that may be missing. A missing value never compares; but inverted, it counts
// as empty unless the test is of presence.
func decide(t *Text, value []byte, there, present, not bool) bool {
	switch {
	case !not:
		return there && t.Match(value)
	case present:
		return !there
	default:
		return !t.Match(value)
	}
}

func (f *field) hold(r *message.Request) bool {
	switch f.pseudo {
	case aPath:
		return decide(&f.test, r.Path(), true, f.present, f.not)
	case aMethod:
		return decide(&f.test, r.Method(), true, f.present, f.not)
	case anAuthority:
		a := r.Authority()
		return decide(&f.test, a, len(a) > 0, f.present, f.not)
	}
	i := r.Find(0, f.id, f.name)
	if i < 0 {
		return decide(&f.test, nil, false, f.present, f.not)
	}
	for ; i >= 0; i = r.Find(i+1, f.id, f.name) {
		if _, _, value := r.Field(i); f.present || f.test.Match(value) {
			return !f.not
		}
	}
	return f.not
}

var plain = []byte("http")

// schemeOf returns the scheme; a request that names none came without TLS.
func schemeOf(r *message.Request) []byte {
	if s := r.Scheme(); len(s) > 0 {
		return s
	}
	return plain
}
