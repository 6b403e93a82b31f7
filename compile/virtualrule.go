package compile

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// virtualRule translates the http route number i of o; nil where it cannot be run at all.
func (m *Mesh) virtualRule(o *config.Object, h *networking.HTTPRoute, i int, r *report) *virtualRule {
	v := newVirtualRule(o, h, i)
	v.matches = m.virtualMatches(o, h.Match, v.field, r)
	if len(h.Match) > 0 && len(v.matches) == 0 {
		return nil
	}
	m.act(v, h, r)
	v.unite()
	return v
}

func newVirtualRule(o *config.Object, h *networking.HTTPRoute, i int) *virtualRule {
	field := element("spec.http", i)
	return &virtualRule{object: o, field: field, base: model.Rule{Origin: origin(o, field, cmp.Or(h.Name, element("http", i)))}}
}

// virtualMatches translates the matches of the rule at field that can ever hold.
func (m *Mesh) virtualMatches(o *config.Object, all []*networking.HTTPMatchRequest, field string, r *report) []virtualMatch {
	var out []virtualMatch
	for j, match := range all {
		if vm, ok := m.virtualMatch(o, match, element(field+".match", j), r); ok {
			out = append(out, vm)
		}
	}
	return out
}

// act translates what a rule does.
func (m *Mesh) act(v *virtualRule, h *networking.HTTPRoute, r *report) {
	o, field := v.object, v.field
	v.base.Request = headerEdits(o, field+".headers.request", h.Headers.GetRequest(), r)
	v.base.Response = headerEdits(o, field+".headers.response", h.Headers.GetResponse(), r)
	v.base.CORS = corsPolicy(o, field+".corsPolicy", h.CorsPolicy, r)
	if h.Fault != nil && (h.Redirect != nil || h.DirectResponse != nil) {
		r.warn(o, noEffect, field+".fault", "write it in a rule with a route", "a fault has no effect yet in a rule that answers by itself")
	}
	if h.Redirect != nil || h.DirectResponse != nil {
		for _, name := range []string{"timeout", "retries", "mirror", "mirrors"} {
			if o.Has(field + "." + name) {
				r.warn(o, ineffective, field+"."+name, "write it in a rule with a route, or remove it", "%s has no effect in a rule that answers by itself", name)
			}
		}
	}
	switch {
	case h.Redirect != nil:
		v.base.Redirect = redirect(o, field+".redirect", h.Redirect, r)
		if p := v.base.Redirect.Path; p != nil && p.Prefix != nil {
			v.matchRoot()
		}
	case h.DirectResponse != nil:
		v.base.Reply = directResponse(o, field+".directResponse", h.DirectResponse, r)
	case len(h.Route) > 0:
		m.forward(o, v, h, r)
	default:
		r.error(o, noAction, field, "add route, redirect or directResponse", "the rule has no route, redirect or directResponse; its requests are answered 503")
		v.base.Reply = &model.Reply{Status: 503, Outcome: "no_route", Body: fmt.Sprintf("no route: %s of VirtualService %s/%s says nothing about where requests go\n", v.base.Origin.Rule, o.Namespace, o.Name)}
	}
}

// forward translates route, and what is done on the way.
func (m *Mesh) forward(o *config.Object, v *virtualRule, h *networking.HTTPRoute, r *report) {
	route := &model.Route{Timeout: duration(h.Timeout), Fault: fault(o, v.field+".fault", h.Fault, r)}
	v.retries = m.retries(o, v.field+".retries", h.Retries, r)
	v.mirrors = m.mirrors(o, v.field, h)
	checkShares(o, v.field, h, r)
	route.Retries = v.retries.retries
	checkRetries(o, v.field, route, r)
	if w := h.Rewrite; w != nil {
		route.Rewrite = m.rewrite(o, v, w, r)
	}
	var sum uint32
	for j, d := range h.Route {
		field := element(v.field+".route", j)
		if d.Weight < 0 {
			r.error(o, badValue, field+".weight", "use a weight of 0 or more", "weight %d is negative; it counts as 0", d.Weight)
		}
		weight := uint32(max(d.Weight, 0))
		sum += weight
		v.destinations = append(v.destinations, virtualDestination{
			object:   o,
			host:     fullName(d.Destination.GetHost(), o.Namespace, m.domain),
			subset:   d.Destination.GetSubset(),
			port:     int(d.Destination.GetPort().GetNumber()),
			weight:   weight,
			request:  headerEdits(o, field+".headers.request", d.Headers.GetRequest(), r),
			response: headerEdits(o, field+".headers.response", d.Headers.GetResponse(), r),
			field:    field + ".destination",
		})
	}
	if sum == 0 && len(h.Route) > 1 {
		r.error(o, noWeight, v.field+".route", "give one of the destinations a weight", "all destinations have weight 0; the rule's requests are answered 503")
		v.destinations = nil
		v.base.Reply = &model.Reply{Status: 503, Outcome: "no_route", Body: fmt.Sprintf("no route: all destinations of %s of VirtualService %s/%s have weight 0\n", v.base.Origin.Rule, o.Namespace, o.Name)}
		return
	}
	v.base.Route = route
}

// rewrite translates rewrite. Where no path is matched, "/" is what Envoy replaces.
func (m *Mesh) rewrite(o *config.Object, v *virtualRule, w *networking.HTTPRewrite, r *report) *model.Rewrite {
	out := &model.Rewrite{Authority: w.Authority}
	switch {
	case w.UriRegexRewrite != nil:
		if _, err := regexp.Compile(w.UriRegexRewrite.Match); err != nil {
			badRegex(o, v.field+".rewrite.uriRegexRewrite.match", err, r)
			break
		}
		out.Path = &model.PathRewrite{Regex: &model.RegexRewrite{Pattern: w.UriRegexRewrite.Match, Substitution: w.UriRegexRewrite.Rewrite}}
	case w.Uri != "":
		prefix := w.Uri
		out.Path = &model.PathRewrite{Prefix: &prefix}
		v.matchRoot()
	}
	if out.Authority == "" && out.Path == nil {
		return nil
	}
	return out
}

// matchRoot gives every match a path, so that a prefix is there to be replaced.
func (v *virtualRule) matchRoot() {
	root := &model.StringMatch{Kind: model.Prefix, Value: "/"}
	if len(v.matches) == 0 {
		v.base.Matches = []model.Match{{Path: root}}
	}
	for i := range v.matches {
		if v.matches[i].Path == nil {
			v.matches[i].Path = root
		}
	}
}

func (m *Mesh) virtualMatch(o *config.Object, h *networking.HTTPMatchRequest, field string, r *report) (virtualMatch, bool) {
	v := virtualMatch{port: int(h.Port), labels: h.SourceLabels, namespace: h.SourceNamespace}
	v.gateways = m.gatewayNames(h.Gateways, o.Namespace)
	ok := true
	read := func(s *networking.StringMatch, name string, fold bool) *model.StringMatch {
		if s == nil || s.MatchType == nil {
			return nil
		}
		sm, good := stringMatch(o, s, field+"."+name, fold, r)
		ok = ok && good
		return &sm
	}
	v.Path = read(h.Uri, "uri", h.IgnoreUriCase)
	v.Method = read(h.Method, "method", false)
	v.Authority = read(h.Authority, "authority", false)
	v.Scheme = read(h.Scheme, "scheme", false)
	keyed := func(all map[string]*networking.StringMatch, name string, header, not bool) (out []model.KeyMatch) {
		for _, k := range sortedKeys(all) {
			at, s := field+"."+name+"["+k+"]", all[k]
			if header {
				if pseudo(k) {
					r.warn(o, noEffect, at, "use the match's own field of that name", "header %q in a match has no effect: it is not a header field", k)
					continue
				}
				if strings.HasPrefix(k, "@request.auth.claims") {
					r.warn(o, noEffect, at, "keep it for a version that has JWT authentication", "matching JWT claims has no effect yet: this match never holds")
					ok = false
					continue
				}
				k = strings.ToLower(k)
			}
			sm := model.StringMatch{Kind: model.Present}
			if s != nil && s.MatchType != nil && s.GetRegex() != "*" {
				var good bool
				sm, good = stringMatch(o, s, at, false, r)
				ok = ok && good
			}
			out = append(out, model.KeyMatch{Name: k, StringMatch: sm, Not: not})
		}
		return out
	}
	v.Headers = append(keyed(h.Headers, "headers", true, false), keyed(h.WithoutHeaders, "withoutHeaders", true, true)...)
	v.Query = keyed(h.QueryParams, "queryParams", false, false)
	return v, ok
}

// pseudo says whether Istio ignores a header of this name in a match.
func pseudo(name string) bool {
	switch name {
	case "uri", "scheme", "method", "authority":
		return true
	}
	return false
}

// stringMatch translates s; it is false where its expression cannot be compiled.
func stringMatch(o *config.Object, s *networking.StringMatch, field string, fold bool, r *report) (model.StringMatch, bool) {
	switch k := s.MatchType.(type) {
	case *networking.StringMatch_Exact:
		if fold {
			return model.StringMatch{Kind: model.CaseIgnored, Value: k.Exact}, true
		}
		return model.StringMatch{Kind: model.Exact, Value: k.Exact}, true
	case *networking.StringMatch_Prefix:
		if fold {
			return model.StringMatch{Kind: model.CasePrefix, Value: k.Prefix}, true
		}
		return model.StringMatch{Kind: model.Prefix, Value: k.Prefix}, true
	case *networking.StringMatch_Regex:
		if _, err := regexp.Compile(k.Regex); err != nil {
			badRegex(o, field, err, r)
			return model.StringMatch{}, false
		}
		return model.StringMatch{Kind: model.Regex, Value: k.Regex}, true
	}
	return model.StringMatch{Kind: model.Present}, true
}

func badRegex(o *config.Object, field string, err error, r *report) {
	r.error(o, badPattern, field, "use RE2 syntax (no look-around, no back-references)", "%s; what it is part of is left out", err)
}

// headerEdits translates one direction of headers.
func headerEdits(o *config.Object, field string, h *networking.Headers_HeaderOperations, r *report) model.HeaderEdits {
	var e model.HeaderEdits
	fields := func(all map[string]string, name string) (out []model.NameValue) {
		for _, k := range sortedKeys(all) {
			value, ok := literal(all[k])
			if !ok {
				r.warn(o, noEffect, field+"."+name+"["+k+"]", "write %% for a percent sign", "the value of %s uses %%...%%, which has no effect yet; the field is left alone", k)
				continue
			}
			lower := strings.ToLower(k)
			if lower == ":authority" {
				lower = "host"
			}
			if strings.HasPrefix(lower, ":") || (lower == "host" && (name == "add" || strings.HasSuffix(field, ".response"))) {
				r.error(o, badValue, field+"."+name+"["+k+"]", "only the request's host can be set", "header %s cannot be changed here; it is left alone", k)
				continue
			}
			out = append(out, model.NameValue{Name: lower, Value: value})
		}
		return out
	}
	for _, k := range h.GetRemove() {
		lower := strings.ToLower(k)
		if strings.HasPrefix(lower, ":") || lower == "host" {
			r.error(o, badValue, field+".remove", "a request always has a host", "header %s cannot be removed", k)
			continue
		}
		e.Remove = append(e.Remove, lower)
	}
	e.Set = fields(h.GetSet(), "set")
	e.Add = fields(h.GetAdd(), "add")
	return e
}

// literal undoes Envoy's escape of the percent sign; it is false where the value has a command operator.
func literal(s string) (string, bool) {
	if !strings.Contains(s, "%") {
		return s, true
	}
	rest := strings.ReplaceAll(s, "%%", "")
	return strings.ReplaceAll(s, "%%", "%"), !strings.Contains(rest, "%")
}

func corsPolicy(o *config.Object, field string, c *networking.CorsPolicy, r *report) *model.CORS {
	if c == nil {
		return nil
	}
	out := &model.CORS{
		AllowMethods:     c.AllowMethods,
		AllowHeaders:     c.AllowHeaders,
		ExposeHeaders:    c.ExposeHeaders,
		AllowCredentials: c.AllowCredentials.GetValue(),
		RefuseUnmatched:  c.UnmatchedPreflights == networking.CorsPolicy_IGNORE,
	}
	if c.MaxAge != nil { // 0 too: nothing is to be remembered
		age := duration(c.MaxAge)
		out.MaxAge = &age
	}
	for i, s := range c.AllowOrigins {
		if sm, ok := stringMatch(o, s, element(field+".allowOrigins", i), false, r); ok {
			out.AllowOrigins = append(out.AllowOrigins, sm)
		}
	}
	if len(c.AllowOrigins) == 0 {
		//lint:ignore SA1019 deprecated, and in use
		for _, s := range c.AllowOrigin {
			out.AllowOrigins = append(out.AllowOrigins, model.StringMatch{Kind: model.Exact, Value: s})
		}
	}
	return out
}

func redirect(o *config.Object, field string, h *networking.HTTPRedirect, r *report) *model.Redirect {
	out := &model.Redirect{Status: int(cmp.Or(h.RedirectCode, 301)), Scheme: strings.ToLower(h.Scheme), Host: h.Authority}
	if !slices.Contains([]int{301, 302, 303, 307, 308}, out.Status) {
		r.error(o, badValue, field+".redirectCode", "use 301, 302, 303, 307 or 308", "%d is no redirect; 301 is sent", out.Status)
		out.Status = 301
	}
	if host, number, ok := strings.Cut(h.Authority, ":"); ok && !strings.Contains(number, ":") {
		if n, err := strconv.ParseUint(number, 10, 16); err == nil {
			out.Host, out.Port = host, int(n)
		}
	}
	switch p := h.RedirectPort.(type) {
	case *networking.HTTPRedirect_Port:
		out.Port = int(p.Port)
	case *networking.HTTPRedirect_DerivePort:
		out.PortFrom = "scheme"
		if p.DerivePort == networking.HTTPRedirect_FROM_REQUEST_PORT {
			out.PortFrom = "request"
		}
	}
	switch {
	case h.Uri != "":
		out.Path = &model.PathRewrite{Full: h.Uri}
	case h.PrefixRewrite != "":
		prefix := h.PrefixRewrite
		out.Path = &model.PathRewrite{Prefix: &prefix}
	}
	return out
}

// maxBody bounds the body of a direct response, as Istio does.
const maxBody = 1 << 20

func directResponse(o *config.Object, field string, d *networking.HTTPDirectResponse, r *report) *model.Reply {
	out := &model.Reply{Status: int(d.Status)}
	if d.Status < 200 || d.Status > 599 {
		r.error(o, badValue, field+".status", "use a status from 200 to 599", "%d cannot be answered; 500 is sent", d.Status)
		out.Status = 500
	}
	switch b := d.Body.GetSpecifier().(type) {
	case *networking.HTTPBody_String_:
		out.Body = b.String_
	case *networking.HTTPBody_Bytes:
		out.Body = string(b.Bytes)
	}
	if !utf8.ValidString(out.Body) {
		r.warn(o, noEffect, field+".body.bytes", "serve it from an application", "a body that is not UTF-8 text has no effect yet; none is sent")
		out.Body = ""
	}
	if len(out.Body) > maxBody {
		r.error(o, badValue, field+".body", "serve it from an application", "the body has %d bytes, more than 1 MiB; it is left out", len(out.Body))
		out.Body = ""
	}
	return out
}
