package compile

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
)

// delegates are the VirtualServices without hosts, by namespace/name. Their rules stand in the places of the rules of other
// VirtualServices, the roots, that name them.
type delegates map[string]*delegate

type delegate struct {
	object *config.Object
	spec   *networking.VirtualService
	named  bool // by a root
}

func readDelegates(objects []*config.Object) delegates {
	out := delegates{}
	for _, o := range objects {
		if spec, ok := o.Spec.(*networking.VirtualService); ok && len(spec.Hosts) == 0 {
			out[key(o.Namespace, o.Name)] = &delegate{object: o, spec: spec}
		}
	}
	return out
}

// check reports the delegates that nobody names, and what of them is for roots only.
func (d delegates) check(objects []*config.Object, r *report) {
	for _, o := range objects {
		one := d[key(o.Namespace, o.Name)]
		if one == nil || one.object != o {
			continue
		}
		if !one.named {
			r.warn(o, noRoot, "spec.hosts", "delegate to it, or name the hosts that its rules are for", "it names no hosts, and no VirtualService delegates to it: it has no effect")
		}
		for _, part := range []struct {
			field string
			n     int
		}{{"spec.tls", len(one.spec.Tls)}, {"spec.tcp", len(one.spec.Tcp)}} {
			if part.n > 0 {
				r.warn(o, noEffect, part.field, "write it in a VirtualService with hosts", "%s has no effect in a VirtualService without hosts: only http rules are delegated", part.field)
			}
		}
	}
}

// delegated returns the rules that stand in the place of rule number i of o: those of its delegate that lie within its match, in
// their order, each with what it leaves out and the root's rule has (Istio). Without the delegate, the rule is not there.
func (m *Mesh) delegated(o *config.Object, h *networking.HTTPRoute, i int, all delegates, r *report) []*virtualRule {
	root := newVirtualRule(o, h, i)
	field := root.field + ".delegate"
	name := key(cmp.Or(h.Delegate.Namespace, o.Namespace), h.Delegate.Name)
	d := all[name]
	switch {
	case d == nil:
		r.error(o, delegateGone, field+".name", "check the name and namespace, or add the VirtualService", "there is no VirtualService %s without hosts; the rule has no effect", name)
		return nil
	case !visible(d.spec.ExportTo, m.config.GetDefaultVirtualServiceExportTo(), d.object.Namespace).includes(o.Namespace):
		d.named = true
		r.error(o, delegateGone, field+".name", "add this namespace to its exportTo", "VirtualService %s is not exported to namespace %s; the rule has no effect", name, o.Namespace)
		return nil
	}
	d.named = true
	if written := m.virtualMatches(o, h.Match, root.field, r); len(h.Match) > 0 && len(written) == 0 {
		return nil
	}
	root.base.Request = headerEdits(o, root.field+".headers.request", h.Headers.GetRequest(), r)
	root.base.Response = headerEdits(o, root.field+".headers.response", h.Headers.GetResponse(), r)
	root.base.CORS = corsPolicy(o, root.field+".corsPolicy", h.CorsPolicy, r)
	matches := m.named(h.Match, o.Namespace)
	var out []*virtualRule
	for j, sub := range d.spec.Http {
		v := newVirtualRule(d.object, sub, j)
		if sub.Delegate != nil {
			r.error(d.object, delegateClash, v.field+".delegate", "write the route here", "%s delegates to this VirtualService already, and one that is delegated to cannot delegate; the rule has no effect", describe(o))
			continue
		}
		m.virtualMatches(d.object, sub.Match, v.field, r)
		merged, clash := common(matches, m.named(sub.Match, d.object.Namespace))
		if clash >= 0 {
			r.error(d.object, delegateClash, element(v.field+".match", clash), "match a part of what the root's rule matches: a longer prefix, or another property",
				"it does not lie within the match of %s of %s (%s), which delegates to it; %s has no effect there", root.field, describe(o), at(root.base.Origin), v.field)
			continue
		}
		v.matches = m.virtualMatches(d.object, merged, v.field, nil)
		if len(merged) > 0 && len(v.matches) == 0 {
			continue
		}
		m.act(v, sub, r)
		m.inherit(v, sub, root, h, r)
		v.unite()
		out = append(out, v)
	}
	return out
}

// inherit gives v, which sub says, what the root's rule has and sub does not.
func (m *Mesh) inherit(v *virtualRule, sub *networking.HTTPRoute, root *virtualRule, h *networking.HTTPRoute, r *report) {
	if sub.Headers == nil {
		v.base.Request, v.base.Response = root.base.Request, root.base.Response
	}
	if sub.CorsPolicy == nil {
		v.base.CORS = root.base.CORS
	}
	if v.base.Route == nil {
		return
	}
	if sub.Timeout == nil {
		v.base.Route.Timeout = duration(h.Timeout)
	}
	if sub.Retries == nil {
		v.retries = m.retries(root.object, root.field+".retries", h.Retries, r)
		v.base.Route.Retries = v.retries.retries
	}
	if sub.Fault == nil {
		v.base.Route.Fault = fault(root.object, root.field+".fault", h.Fault, r)
	}
	v.mirrors = m.inheritedMirrors(v, sub, root, h)
	if sub.Rewrite == nil && h.Rewrite != nil {
		root.matches = nil // the path to be replaced is v's
		v.base.Route.Rewrite = m.rewrite(root.object, root, h.Rewrite, r)
		if w := v.base.Route.Rewrite; w != nil && w.Path != nil && w.Path.Prefix != nil {
			v.matchRoot()
		}
	}
}

// named returns matches with the names of gateways in full, so that they mean the same in another namespace.
func (m *Mesh) named(all []*networking.HTTPMatchRequest, namespace string) []*networking.HTTPMatchRequest {
	out := slices.Clone(all)
	for i, match := range all {
		if len(match.Gateways) > 0 {
			out[i] = proto.CloneOf(match)
			out[i].Gateways = m.gatewayNames(match.Gateways, namespace)
		}
	}
	return out
}

// common returns the matches for what both a root's rule and its delegate's rule match. Each of the delegate's must lie within one
// of the root's; clash is the first that does not, -1 where all do.
func common(root, sub []*networking.HTTPMatchRequest) (merged []*networking.HTTPMatchRequest, clash int) {
	if len(root) == 0 {
		return sub, -1
	}
	if len(sub) == 0 {
		return root, -1
	}
	for i, s := range sub {
		n := len(merged)
		for _, r := range root {
			if narrows(s, r) {
				merged = append(merged, both(r, s))
			}
		}
		if len(merged) == n {
			return nil, i
		}
	}
	return merged, -1
}

// narrows says whether a delegate's match lies within a root's, property by property.
func narrows(s, r *networking.HTTPMatchRequest) bool {
	keyed := func(s, r map[string]*networking.StringMatch) bool {
		for k, v := range s {
			if !among(v, r[k]) {
				return false
			}
		}
		return true
	}
	switch {
	case !among(s.Uri, r.Uri), !among(s.Scheme, r.Scheme), !among(s.Method, r.Method), !among(s.Authority, r.Authority):
		return false
	case !keyed(s.Headers, r.Headers), !keyed(s.WithoutHeaders, r.WithoutHeaders), !keyed(s.QueryParams, r.QueryParams):
		return false
	case s.IgnoreUriCase != r.IgnoreUriCase:
		return false
	case s.Port != 0 && r.Port != 0 && s.Port != r.Port:
		return false
	case s.SourceNamespace != "" && r.SourceNamespace != "" && s.SourceNamespace != r.SourceNamespace:
		return false
	}
	for k, v := range s.SourceLabels {
		if w, ok := r.SourceLabels[k]; ok && v != w {
			return false
		}
	}
	return len(r.Gateways) == 0 || !slices.ContainsFunc(s.Gateways, func(g string) bool { return !slices.Contains(r.Gateways, g) })
}

// among says whether what s matches is certainly among what r matches; nil matches everything. Of expressions and of "present",
// nothing is certain.
func among(s, r *networking.StringMatch) bool {
	if s == nil || r == nil {
		return true
	}
	if exact := r.GetExact(); exact != "" {
		return s.GetExact() == exact
	}
	prefix := r.GetPrefix()
	value := cmp.Or(s.GetPrefix(), s.GetExact())
	return prefix != "" && value != "" && strings.HasPrefix(value, prefix)
}

// both returns a match for what r and s match, where s narrows r.
func both(r, s *networking.HTTPMatchRequest) *networking.HTTPMatchRequest {
	out := proto.CloneOf(r)
	one := func(to **networking.StringMatch, own *networking.StringMatch) {
		if own != nil {
			*to = own
		}
	}
	one(&out.Uri, s.Uri)
	one(&out.Scheme, s.Scheme)
	one(&out.Method, s.Method)
	one(&out.Authority, s.Authority)
	keyed := func(to *map[string]*networking.StringMatch, own map[string]*networking.StringMatch) {
		if *to == nil {
			*to = own
		} else {
			maps.Copy(*to, own)
		}
	}
	keyed(&out.Headers, s.Headers)
	keyed(&out.WithoutHeaders, s.WithoutHeaders)
	keyed(&out.QueryParams, s.QueryParams)
	if out.SourceLabels == nil {
		out.SourceLabels = s.SourceLabels
	} else {
		maps.Copy(out.SourceLabels, s.SourceLabels)
	}
	out.Port = cmp.Or(s.Port, r.Port)
	out.SourceNamespace = cmp.Or(s.SourceNamespace, r.SourceNamespace)
	if len(s.Gateways) > 0 {
		out.Gateways = s.Gateways
	}
	return out
}
