package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"
)

// tree is a piece of Envoy's configuration, to be written as JSON.
type tree = map[string]any

// envoyRoutes are the routes that istiod makes of a VirtualService for the sidecars' listener of a port. Clusters are named
// as the destinations' hosts.
func envoyRoutes(v *networking.VirtualService, port uint32) (out []tree) {
	for _, h := range v.Http {
		matches := h.Match
		if len(matches) == 0 {
			matches = []*networking.HTTPMatchRequest{nil}
		}
		for _, m := range matches {
			if m != nil && m.Port != 0 && m.Port != port {
				continue
			}
			r := envoyRoute(h, port)
			r["match"] = envoyMatch(m)
			out = append(out, r)
		}
	}
	if out == nil { // the service's own
		h := &networking.HTTPRoute{Name: "default", Route: []*networking.HTTPRouteDestination{{Destination: &networking.Destination{Host: "app1"}}}}
		r := envoyRoute(h, port)
		r["match"] = envoyMatch(nil)
		out = append(out, r)
	}
	return out
}

func envoyText(s *networking.StringMatch) tree {
	switch k := s.MatchType.(type) {
	case *networking.StringMatch_Exact:
		return tree{"exact": k.Exact}
	case *networking.StringMatch_Prefix:
		return tree{"prefix": k.Prefix}
	case *networking.StringMatch_Regex:
		return tree{"safe_regex": tree{"regex": k.Regex}}
	}
	panic("no comparison")
}

// present says that a comparison is of presence.
func present(s *networking.StringMatch) bool {
	return s == nil || s.MatchType == nil || s.GetRegex() == "*"
}

func envoyKeyed(name string, s *networking.StringMatch) tree {
	if present(s) {
		return tree{"name": name, "present_match": true}
	}
	return tree{"name": name, "string_match": envoyText(s)}
}

func envoyMatch(m *networking.HTTPMatchRequest) tree {
	out := tree{"prefix": "/"}
	if m == nil {
		return out
	}
	var headers, query []tree
	for name, s := range m.Headers {
		headers = append(headers, envoyKeyed(name, s))
	}
	for name, s := range m.WithoutHeaders {
		k := envoyKeyed(name, s)
		k["invert_match"] = true
		if !present(s) {
			k["treat_missing_header_as_empty"] = true
		}
		headers = append(headers, k)
	}
	switch k := m.Uri.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		out = tree{"path": k.Exact}
	case *networking.StringMatch_Prefix:
		out = tree{"prefix": k.Prefix}
	case *networking.StringMatch_Regex:
		out = tree{"safe_regex": tree{"regex": k.Regex}}
	}
	out["case_sensitive"] = !m.IgnoreUriCase
	for name, s := range map[string]*networking.StringMatch{":method": m.Method, ":authority": m.Authority, ":scheme": m.Scheme} {
		if s != nil {
			headers = append(headers, envoyKeyed(name, s))
		}
	}
	for name, s := range m.QueryParams {
		query = append(query, envoyKeyed(name, s))
	}
	out["headers"], out["query_parameters"] = headers, query
	return out
}

// edits are what Envoy does to the fields of heads.
type edits struct {
	authority                     string
	requestAdd, responseAdd       []tree
	requestRemove, responseRemove []string
}

func (e *edits) add(h *networking.Headers) {
	added := func(all map[string]string, action string) (out []tree) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if strings.EqualFold(name, "host") || name == ":authority" {
				e.authority = cmp.Or(e.authority, all[name])
				continue
			}
			out = append(out, tree{"header": tree{"key": name, "value": all[name]}, "append_action": action})
		}
		return out
	}
	const set, also = "OVERWRITE_IF_EXISTS_OR_ADD", "APPEND_IF_EXISTS_OR_ADD"
	req, res := h.GetRequest(), h.GetResponse()
	e.requestAdd = append(append(e.requestAdd, added(req.GetSet(), set)...), added(req.GetAdd(), also)...)
	e.responseAdd = append(append(e.responseAdd, added(res.GetSet(), set)...), added(res.GetAdd(), also)...)
	e.requestRemove = append(e.requestRemove, req.GetRemove()...)
	e.responseRemove = append(e.responseRemove, res.GetRemove()...)
}

// into writes the edits into a route or a weighted cluster.
func (e *edits) into(t tree) {
	t["request_headers_to_add"], t["response_headers_to_add"] = e.requestAdd, e.responseAdd
	t["request_headers_to_remove"], t["response_headers_to_remove"] = e.requestRemove, e.responseRemove
}

func envoyRoute(h *networking.HTTPRoute, port uint32) tree {
	out, filters := tree{"name": h.Name}, tree{}
	var e edits
	e.add(h.Headers)
	switch {
	case h.Redirect != nil:
		out["redirect"] = envoyRedirect(h.Redirect, port)
	case h.DirectResponse != nil:
		d := tree{"status": h.DirectResponse.Status}
		if b := h.DirectResponse.Body; b != nil {
			d["body"] = tree{"inline_string": b.GetString_()}
		}
		out["direct_response"] = d
	default:
		out["route"] = envoyAction(h, &e)
	}
	e.into(out)
	if f := h.Fault; f != nil {
		filters["envoy.filters.http.fault"] = envoyFault(f)
	}
	if c := h.CorsPolicy; c != nil {
		filters["envoy.filters.http.cors"] = envoyCORS(c)
	}
	out["typed_per_filter_config"] = filters
	return out
}

func seconds(d time.Duration) string { return fmt.Sprintf("%gs", d.Seconds()) }

func envoyAction(h *networking.HTTPRoute, e *edits) tree {
	timeout := seconds(h.Timeout.AsDuration())
	a := tree{"timeout": timeout, "max_grpc_timeout": timeout}
	if w := h.Rewrite; w != nil {
		switch {
		case w.UriRegexRewrite != nil:
			a["regex_rewrite"] = tree{"pattern": tree{"regex": w.UriRegexRewrite.Match}, "substitution": w.UriRegexRewrite.Rewrite}
		case w.Uri != "":
			a["prefix_rewrite"] = w.Uri
		}
		e.authority = cmp.Or(w.Authority, e.authority)
	}
	if h.Mirror != nil {
		a["request_mirror_policies"] = []tree{{"cluster": h.Mirror.Host, "disable_shadow_host_suffix_append": true, "trace_sampled": false}}
	}
	if len(h.Route) == 1 {
		a["cluster"] = h.Route[0].Destination.Host
		e.add(h.Route[0].Headers)
	} else {
		var all []tree
		for _, d := range h.Route {
			if d.Weight == 0 {
				continue
			}
			c := tree{"name": d.Destination.Host, "weight": d.Weight}
			var own edits
			own.add(d.Headers)
			own.into(c)
			if own.authority != "" {
				c["host_rewrite_literal"] = own.authority
			}
			all = append(all, c)
		}
		a["weighted_clusters"] = tree{"clusters": all}
	}
	if e.authority != "" {
		a["host_rewrite_literal"] = e.authority
	}
	if p := envoyRetries(h.Retries); p != nil {
		a["retry_policy"] = p
	}
	return a
}

func envoyRetries(r *networking.HTTPRetry) tree {
	p := tree{"num_retries": 2, "retry_on": istioDefault, "retry_back_off": tree{"base_interval": "0.001s", "max_interval": "0.01s"}}
	switch {
	case r == nil:
		return p
	case r.Attempts == 0:
		return nil
	}
	p["num_retries"] = r.Attempts
	var on []string
	var codes []int
	for _, word := range strings.Split(r.RetryOn, ",") {
		if n, err := strconv.Atoi(word); err == nil {
			codes = append(codes, n)
		} else {
			on = append(on, word)
		}
	}
	if codes != nil {
		on = append(on, "retriable-status-codes")
		p["retriable_status_codes"] = codes
	}
	p["retry_on"] = strings.Join(on, ",")
	if t := r.PerTryTimeout.AsDuration(); t > 0 {
		p["per_try_timeout"] = seconds(t)
	}
	return p
}

func envoyFault(f *networking.HTTPFaultInjection) tree {
	share := func(p *networking.Percent) tree {
		return tree{"numerator": int(p.GetValue() * 10000), "denominator": "MILLION"}
	}
	out := tree{"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}
	if f.Delay != nil {
		out["delay"] = tree{"fixed_delay": seconds(f.Delay.GetFixedDelay().AsDuration()), "percentage": share(f.Delay.Percentage)}
	}
	if f.Abort != nil {
		out["abort"] = tree{"http_status": f.Abort.GetHttpStatus(), "percentage": share(f.Abort.Percentage)}
	}
	return out
}

func envoyCORS(c *networking.CorsPolicy) tree {
	out := tree{
		"@type":                           "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
		"forward_not_matching_preflights": c.UnmatchedPreflights != networking.CorsPolicy_IGNORE,
		"filter_enabled":                  tree{"default_value": tree{"numerator": 100}},
		"allow_methods":                   strings.Join(c.AllowMethods, ","),
		"allow_headers":                   strings.Join(c.AllowHeaders, ","),
		"expose_headers":                  strings.Join(c.ExposeHeaders, ","),
	}
	var origins []tree
	for _, o := range c.AllowOrigins {
		origins = append(origins, envoyText(o))
	}
	out["allow_origin_string_match"] = origins
	if c.AllowCredentials != nil {
		out["allow_credentials"] = c.AllowCredentials.Value
	}
	if c.MaxAge != nil {
		out["max_age"] = strconv.FormatInt(c.MaxAge.Seconds, 10)
	}
	return out
}

func envoyRedirect(r *networking.HTTPRedirect, port uint32) tree {
	out := tree{"host_redirect": r.Authority}
	if r.PrefixRewrite != "" {
		out["prefix_rewrite"] = r.PrefixRewrite
	} else {
		out["path_redirect"] = r.Uri
	}
	if r.Scheme != "" {
		out["scheme_redirect"] = r.Scheme
	}
	n := uint32(0)
	switch p := r.RedirectPort.(type) {
	case *networking.HTTPRedirect_Port:
		n = p.Port
	case *networking.HTTPRedirect_DerivePort:
		if p.DerivePort == networking.HTTPRedirect_FROM_REQUEST_PORT {
			n = port
		}
	}
	scheme := cmp.Or(r.Scheme, "http")
	if n != 0 && !(n == 80 && scheme == "http") && !(n == 443 && scheme == "https") {
		out["port_redirect"] = n
	}
	out["response_code"] = map[uint32]string{0: "MOVED_PERMANENTLY", 301: "MOVED_PERMANENTLY", 302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT", 308: "PERMANENT_REDIRECT"}[r.RedirectCode]
	return out
}

// envoyManager is the HTTP connection manager of a sidecar's outbound listener.
func envoyManager(hosts []tree) tree {
	const extensions = "type.googleapis.com/envoy.extensions."
	filter := func(name, kind string) tree {
		return tree{"name": "envoy.filters.http." + name, "typed_config": tree{"@type": extensions + "filters.http." + name + ".v3." + kind}}
	}
	return tree{
		"@type":       extensions + "filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix": "in", "normalize_path": true, "path_with_escaped_slashes_action": "KEEP_UNCHANGED", "stream_idle_timeout": "0s", "use_remote_address": false,
		"http_protocol_options": tree{"enable_trailers": true},
		"access_log": []tree{{"name": "file", "typed_config": tree{
			"@type": extensions + "access_loggers.file.v3.FileAccessLog", "path": "ACCESS_LOG",
			"log_format": tree{"text_format_source": tree{"inline_string": "%REQ(X-SCENARIO)% %RESPONSE_CODE% %RESPONSE_FLAGS% %ROUTE_NAME%\n"}},
		}}},
		"http_filters": []tree{filter("fault", "HTTPFault"), filter("cors", "Cors"), filter("router", "Router")},
		"route_config": tree{"ignore_port_in_host_matching": true, "virtual_hosts": hosts},
	}
}
