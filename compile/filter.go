package compile

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// filters translates the filters of one rule, or of one of its backends.
type filters struct {
	mesh    *Mesh
	object  *config.Object
	rule    *model.Rule
	route   *model.Route // nil for a backend
	mirrors *[]mirrorRef // nil for a backend
	backend bool
	report  *report
	failed  string // why requests must be answered 500 (gRPC: UNAVAILABLE): a filter that cannot be applied must not be skipped
}

func (f *filters) add(spec *gatewayv1.HTTPRouteFilter, field string) {
	switch {
	case spec.Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier && spec.RequestHeaderModifier != nil:
		f.edit(&f.rule.Request, spec.RequestHeaderModifier)
	case spec.Type == gatewayv1.HTTPRouteFilterResponseHeaderModifier && spec.ResponseHeaderModifier != nil:
		f.edit(&f.rule.Response, spec.ResponseHeaderModifier)
	case spec.Type == gatewayv1.HTTPRouteFilterRequestMirror && f.backend:
		f.report.warn(f.object, noEffect, field+".requestMirror", "write it among the filters of the rule", "requestMirror of a single backend has no effect yet; its requests are not mirrored")
	case spec.Type == gatewayv1.HTTPRouteFilterRequestMirror && spec.RequestMirror != nil:
		f.mirror(spec.RequestMirror, field+".requestMirror")
	case f.backend:
		f.fail(field, string(spec.Type))
	case spec.Type == gatewayv1.HTTPRouteFilterRequestRedirect && spec.RequestRedirect != nil:
		f.redirect(spec.RequestRedirect)
	case spec.Type == gatewayv1.HTTPRouteFilterURLRewrite && spec.URLRewrite != nil:
		f.rewrite(spec.URLRewrite)
	case spec.Type == gatewayv1.HTTPRouteFilterCORS && spec.CORS != nil:
		f.cors(spec.CORS)
	default:
		f.fail(field, string(spec.Type))
	}
}

func (f *filters) fail(field, kind string) {
	f.failed = "filter " + kind + " of " + describe(f.object) + " cannot be applied\n"
	f.report.error(f.object, badFilter, field, "remove the filter, or keep it for a version that has it",
		"filter %s cannot be applied here; its requests are %s, since it must not be skipped", kind, unroutedText(f.object))
}

func (f *filters) edit(e *model.HeaderEdits, spec *gatewayv1.HTTPHeaderFilter) {
	fields := func(all []gatewayv1.HTTPHeader) (out []model.NameValue) {
		for _, h := range all {
			out = append(out, model.NameValue{Name: strings.ToLower(string(h.Name)), Value: h.Value})
		}
		return out
	}
	for _, name := range spec.Remove {
		e.Remove = append(e.Remove, strings.ToLower(name))
	}
	e.Set = append(e.Set, fields(spec.Set)...)
	e.Add = append(e.Add, fields(spec.Add)...)
}

func (f *filters) redirect(spec *gatewayv1.HTTPRequestRedirectFilter) {
	out := &model.Redirect{Status: 302, Path: pathModifier(spec.Path), PortFrom: "request"}
	if spec.StatusCode != nil {
		out.Status = *spec.StatusCode
	}
	if spec.Scheme != nil {
		out.Scheme, out.PortFrom = strings.ToLower(*spec.Scheme), "scheme"
	}
	if spec.Hostname != nil {
		out.Host = string(*spec.Hostname)
	}
	if spec.Port != nil {
		out.Port, out.PortFrom = int(*spec.Port), ""
	}
	f.rule.Redirect = out
}

func (f *filters) rewrite(spec *gatewayv1.HTTPURLRewriteFilter) {
	out := &model.Rewrite{Path: pathModifier(spec.Path)}
	if spec.Hostname != nil {
		out.Authority = string(*spec.Hostname)
	}
	f.route.Rewrite = out
}

func pathModifier(spec *gatewayv1.HTTPPathModifier) *model.PathRewrite {
	switch {
	case spec == nil:
		return nil
	case spec.Type == gatewayv1.FullPathHTTPPathModifier && spec.ReplaceFullPath != nil:
		full := *spec.ReplaceFullPath
		if full == "" {
			full = "/"
		}
		return &model.PathRewrite{Full: full}
	case spec.Type == gatewayv1.PrefixMatchHTTPPathModifier && spec.ReplacePrefixMatch != nil:
		prefix := *spec.ReplacePrefixMatch
		return &model.PathRewrite{Prefix: &prefix}
	}
	return nil
}

func (f *filters) cors(spec *gatewayv1.HTTPCORSFilter) {
	age := model.Duration(time.Duration(cmp.Or(spec.MaxAge, 5)) * time.Second)
	out := &model.CORS{RefuseUnmatched: true, MaxAge: &age}
	if spec.AllowCredentials != nil {
		out.AllowCredentials = *spec.AllowCredentials
	}
	for _, o := range spec.AllowOrigins {
		s := model.StringMatch{Kind: model.Exact, Value: string(o)}
		if scheme, host, ok := strings.Cut(string(o), "://*"); ok {
			s = model.StringMatch{Kind: model.Regex, Value: regexp.QuoteMeta(scheme) + "://.+" + regexp.QuoteMeta(host)}
		}
		out.AllowOrigins = append(out.AllowOrigins, s)
	}
	for _, x := range spec.AllowMethods {
		out.AllowMethods = append(out.AllowMethods, string(x))
	}
	for _, x := range spec.AllowHeaders {
		out.AllowHeaders = append(out.AllowHeaders, string(x))
	}
	for _, x := range spec.ExposeHeaders {
		out.ExposeHeaders = append(out.ExposeHeaders, string(x))
	}
	f.rule.CORS = out
}

// gatewayDuration reads a GEP-2257 duration, whose forms are some of Go's.
func gatewayDuration(o *config.Object, field string, d *gatewayv1.Duration, r *report) model.Duration {
	if d == nil {
		return 0
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil || v < 0 {
		r.error(o, badValue, field, "write it like 1m30s or 500ms", "%q is no duration; there is no time limit", *d)
		return 0
	}
	return model.Duration(v)
}

// routeMatchOf translates a match; it is false where an expression cannot be compiled.
func routeMatchOf(o *config.Object, spec *gatewayv1.HTTPRouteMatch, field string, r *report) (routeMatch, bool) {
	m := routeMatch{rank: rank{path: 1, length: 1, headers: len(spec.Headers), query: len(spec.QueryParams)}}
	value := "/"
	if spec.Path != nil && spec.Path.Value != nil {
		value = *spec.Path.Value
	}
	kind := gatewayv1.PathMatchPathPrefix
	if spec.Path != nil && spec.Path.Type != nil {
		kind = *spec.Path.Type
	}
	ok := true
	compiles := func(expression, field string) {
		if _, err := regexp.Compile(expression); err != nil {
			badRegex(o, field, err, r)
			ok = false
		}
	}
	m.Path = &model.StringMatch{Kind: model.PathPrefix, Value: value}
	switch kind {
	case gatewayv1.PathMatchExact:
		m.Path.Kind, m.rank.path = model.Exact, 3
	case gatewayv1.PathMatchRegularExpression:
		m.Path.Kind, m.rank.path = model.Regex, 2
		compiles(value, field+".path.value")
	}
	m.rank.length = len(value)
	if m.Path.Kind == model.PathPrefix && len(value) > 1 {
		m.rank.length = len(strings.TrimSuffix(value, "/"))
	}
	if spec.Method != nil {
		m.Method = &model.StringMatch{Kind: model.Exact, Value: string(*spec.Method)}
		m.rank.method = 1
	}
	has := func(all []model.KeyMatch, name string) bool {
		return slices.ContainsFunc(all, func(k model.KeyMatch) bool { return k.Name == name })
	}
	for i, h := range spec.Headers {
		name := strings.ToLower(string(h.Name))
		if has(m.Headers, name) {
			continue // the API: the first of a name counts
		}
		k := model.KeyMatch{Name: name, StringMatch: model.StringMatch{Kind: model.Exact, Value: h.Value}}
		if h.Type != nil && *h.Type == gatewayv1.HeaderMatchRegularExpression {
			k.Kind = model.Regex
			compiles(h.Value, element(field+".headers", i)+".value")
		}
		m.Headers = append(m.Headers, k)
	}
	for i, q := range spec.QueryParams {
		if has(m.Query, string(q.Name)) {
			continue
		}
		k := model.KeyMatch{Name: string(q.Name), StringMatch: model.StringMatch{Kind: model.Exact, Value: q.Value}}
		if q.Type != nil && *q.Type == gatewayv1.QueryParamMatchRegularExpression {
			k.Kind = model.Regex
			compiles(q.Value, element(field+".queryParams", i)+".value")
		}
		m.Query = append(m.Query, k)
	}
	return m, ok
}
