package compile

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// report collects findings; nil takes and forgets them, for work whose findings were already reported.
type report struct {
	findings []config.Finding
	seen     map[config.Finding]bool
}

func (r *report) add(o *config.Object, id ID, severity config.Severity, field, message, remedy string) {
	if r == nil {
		return
	}
	var f config.Finding
	if o != nil {
		f = o.Finding(id.ID, severity, field, message, remedy)
	} else {
		f = config.Finding{ID: id.ID, Severity: severity, Field: field, Message: message, Remedy: remedy}
	}
	f.Code = id.Code
	if r.seen[f] {
		return
	}
	if r.seen == nil {
		r.seen = map[config.Finding]bool{}
	}
	r.seen[f] = true
	r.findings = append(r.findings, f)
}

func (r *report) error(o *config.Object, id ID, field, remedy, format string, args ...any) {
	r.add(o, id, config.Error, field, fmt.Sprintf(format, args...), remedy)
}

func (r *report) warn(o *config.Object, id ID, field, remedy, format string, args ...any) {
	r.add(o, id, config.Warning, field, fmt.Sprintf(format, args...), remedy)
}

func (r *report) inform(o *config.Object, id ID, field, remedy, format string, args ...any) {
	r.add(o, id, config.Info, field, fmt.Sprintf(format, args...), remedy)
}

// removed are fields that Istio's types still have, and what came in their place.
var removed = map[string]string{
	"consecutiveErrors": "write consecutive5xxErrors, or consecutiveGatewayErrors for 502, 503 and 504 only, as consecutiveErrors was",
}

// without warns of a field that this version reads and leaves alone.
func (r *report) without(o *config.Object, field string) {
	name := field[strings.LastIndexByte(field, '.')+1:]
	if remedy, gone := removed[name]; gone {
		r.warn(o, noEffect, field, remedy, "%s has no effect: Istio no longer reads it", name)
		return
	}
	r.warn(o, noEffect, field, "remove it, or keep it for a version that has it", "%s has no effect yet", name)
}

// sorted returns the findings in the order of the files.
func (r *report) sorted() []config.Finding {
	config.Sort(r.findings)
	return r.findings
}

// origin says where field of o stands; rule is the name or path by which people know it.
func origin(o *config.Object, field, rule string) model.Origin {
	p := o.Position(field)
	return model.Origin{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Rule: rule, File: p.File, Line: p.Line}
}

// coverage lists the fields of a message that have an effect, as dotted JSON paths. A path that ends in "." is looked into; any
// other is understood whole. What is set and not listed is reported, so that no field is dropped in silence, even one that a
// later version of the API adds.
type coverage map[string]bool

func covers(paths ...string) coverage {
	c := coverage{}
	for _, p := range paths {
		c[p] = true
	}
	return c
}

// under returns c with every path below prefix.
func (c coverage) under(prefix string) coverage {
	out := coverage{}
	for p := range c {
		out[prefix+p] = true
	}
	return out
}

// and returns the union of c and others.
func (c coverage) and(others ...coverage) coverage {
	for _, o := range others {
		for p := range o {
			c[p] = true
		}
	}
	return c
}

// missing calls yield with the path of each field of m that is set and not covered, in the order of the schema.
func (c coverage) missing(m protoreflect.Message, yield func(field string)) { c.walk(m, "", "", yield) }

func (c coverage) walk(m protoreflect.Message, path, field string, yield func(string)) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		p, at := path+f.JSONName(), field+f.JSONName()
		switch {
		case c[p]:
		case !c[p+"."] || f.IsMap() || f.Message() == nil:
			yield(at)
		case f.IsList():
			for j := range m.Get(f).List().Len() {
				c.walk(m.Get(f).List().Get(j).Message(), p+".", fmt.Sprintf("%s[%d].", at, j), yield)
			}
		default:
			c.walk(m.Get(f).Message(), p+".", at+".", yield)
		}
	}
}
