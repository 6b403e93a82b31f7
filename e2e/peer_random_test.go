package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// givenID is the id of requests that bring one.
const givenID = "my-id"

// destinations are the services that rules lead to. app3 is given HTTP/2.
var destinations = []string{"app1", "app2", "app3", "mirror"}

// roller makes random configurations and requests. What we do in another way by intent it leaves out: see docs/conformance.md.
type roller struct{ *rand.Rand }

func (r roller) one(in int) bool         { return r.IntN(in) == 0 }
func (r roller) of(all ...string) string { return all[r.IntN(len(all))] }
func (r roller) some(all ...string) (out []string) {
	for _, s := range all {
		if r.one(2) {
			out = append(out, s)
		}
	}
	return out
}

var (
	somePaths = []string{
		"/", "/a", "/a/", "/a/b", "/a/b/c", "/A", "/A/b", "/ab", "/abc", "/api/v1/items", "/api/v1", "/api//v1", "/x/../a", "/a/./b", "/a/%2e%2e/b", "/a%2Fb", "/%61", "/a%20b",
		"/a/b%25", "//a", "/a//b", "/a;p=1", "/a/..", "/a/.", "/a/b/", "/%41/b", "/a%2fb/c", "/a\\b", "/~x", "/%7Ex", "/a/%2E%2E/ab", "/.a", "/a...", "/a+b", "/a,b", "/'q'", "/a%3Fb", "/a%23b",
	}
	someQueries = []string{"", "", "", "", "?", "?k", "?k=", "?k=v", "?k=v&k=w", "?q=1&k=v", "?K=v", "?k=%76", "?k=v%20w", "?a=b?c", "?&k=v", "?k=vw", "?a/../b", "?k=v;q=1", "?=v", "?k=v&", "?q==1"}
)

func (r roller) text(values ...string) *networking.StringMatch {
	switch r.IntN(3) {
	case 0:
		return &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: r.of(values...)}}
	case 1:
		v := r.of(values...)
		return &networking.StringMatch{MatchType: &networking.StringMatch_Prefix{Prefix: v[:(len(v)+1)/2]}}
	}
	return &networking.StringMatch{MatchType: &networking.StringMatch_Regex{Regex: r.of(".*", ".+", "a.*", ".*b", "[a-z]+", "alice|bob", "v", "^v$", "(?i)alice")}}
}

func (r roller) keyed(values ...string) *networking.StringMatch {
	if r.one(4) {
		return &networking.StringMatch{}
	}
	if r.one(8) {
		return &networking.StringMatch{MatchType: &networking.StringMatch_Regex{Regex: "*"}}
	}
	return r.text(values...)
}

func (r roller) match() *networking.HTTPMatchRequest {
	m := &networking.HTTPMatchRequest{}
	if !r.one(4) {
		switch r.IntN(4) {
		case 0:
			m.Uri = &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: r.of("/", "/a", "/a/b", "/A", "/ab", "/a/", "/a b", "/api/v1", "/a%20b", "/a%2Fb", "/a%2fb/c")}}
		case 1, 2:
			m.Uri = &networking.StringMatch{MatchType: &networking.StringMatch_Prefix{Prefix: r.of("/", "/a", "/a/", "/ab", "/A", "/api", "/api/", "/a/b", "/a%", "//", "/x")}}
		case 3:
			m.Uri = &networking.StringMatch{MatchType: &networking.StringMatch_Regex{Regex: r.of("/a.*", "/.*/b", "/[a-z]+", "/a(/.*)?", ".*", "/api/v[0-9]+/.*", "/(?i)A.*", "/a/b|/ab", "(/[^/]+)+", "/a.?b")}}
		}
		m.IgnoreUriCase = r.one(3)
	}
	put := func(to *map[string]*networking.StringMatch, name string, s *networking.StringMatch) {
		if *to == nil {
			*to = map[string]*networking.StringMatch{}
		}
		(*to)[name] = s
	}
	for range r.IntN(3) {
		to := &m.Headers
		if r.one(3) {
			to = &m.WithoutHeaders
		}
		switch r.IntN(4) {
		case 0, 1:
			put(to, "x-user", r.keyed("alice", "bob", "alice,bob", "Alice"))
		case 2:
			put(to, "x-flag", r.keyed("on", "off", "ab"))
		case 3:
			put(to, r.of("cookie", "user-agent", "content-type", "x-missing", "host", "x-envoy-thing"), r.keyed("a=1", "text/plain", "trailers", "h0", "v"))
		}
	}
	if r.one(4) {
		put(&m.QueryParams, r.of("k", "q", "K", "a"), r.text("v", "1", "vw", "v w"))
	}
	if r.one(6) {
		m.Method = r.text("GET", "POST", "HEAD", "OPTIONS")
	}
	if r.one(10) {
		m.Authority = r.text("h0", "h1.default", "h0:80", "h1", "H0")
	}
	if r.one(12) {
		m.Scheme = r.text("http", "https")
	}
	if r.one(10) {
		m.Port = []uint32{80, 8080}[r.IntN(2)]
	}
	return m
}

func (r roller) operations(request bool) *networking.Headers_HeaderOperations {
	o := &networking.Headers_HeaderOperations{Set: map[string]string{}, Add: map[string]string{}}
	names := []string{"x-a", "x-b", "x-c", "X-User", "vary"}
	if request {
		names = append(names, "user-agent", "cookie", "x-forwarded-proto")
	} else {
		names = append(names, "content-type", "set-cookie", "access-control-allow-origin", "location")
	}
	for range r.IntN(3) {
		o.Set[r.of(names...)] = r.of("s1", "s2", "with space", "100%%", "q;q")
	}
	for range r.IntN(3) {
		o.Add[r.of(names...)] = r.of("a1", "a2")
	}
	for range r.IntN(2) {
		o.Remove = append(o.Remove, r.of(names...))
	}
	if request && r.one(6) {
		o.Set[r.of("host", ":authority", "Host")] = r.of("set.example", "other.example:81")
	}
	return o
}

func (r roller) headers() *networking.Headers {
	h := &networking.Headers{}
	if !r.one(3) {
		h.Request = r.operations(true)
	}
	if !r.one(3) {
		h.Response = r.operations(false)
	}
	return h
}

func (r roller) rule() *networking.HTTPRoute {
	h := &networking.HTTPRoute{}
	for range r.IntN(4) {
		h.Match = append(h.Match, r.match())
	}
	if len(h.Match) == 0 {
		h.Match = append(h.Match, r.match())
	}
	if r.one(2) {
		h.Headers = r.headers()
	}
	switch r.IntN(8) {
	case 0:
		h.Redirect = r.redirect()
		return h
	case 1:
		h.DirectResponse = &networking.HTTPDirectResponse{Status: []uint32{200, 204, 404, 418, 503}[r.IntN(5)]}
		if r.one(2) && h.DirectResponse.Status != 204 {
			h.DirectResponse.Body = &networking.HTTPBody{Specifier: &networking.HTTPBody_String_{String_: r.of("text", "", "{\"a\":1}")}}
		}
		return h
	}
	if r.one(4) {
		h.CorsPolicy = r.cors()
	}
	d := func() *networking.HTTPRouteDestination {
		d := &networking.HTTPRouteDestination{Destination: &networking.Destination{Host: r.of(destinations[:3]...)}}
		if r.one(3) {
			d.Headers = r.headers()
		}
		return d
	}
	h.Route = []*networking.HTTPRouteDestination{d()}
	if r.one(4) { // a split, of which one part gets everything
		h.Route = append(h.Route, d())
		h.Route[r.IntN(2)].Weight = 1
		if r.one(2) {
			h.Route[0].Destination.Host = "app1"
			h.Route[1] = &networking.HTTPRouteDestination{Destination: h.Route[0].Destination, Headers: h.Route[0].Headers}
			h.Route[0].Weight, h.Route[1].Weight = 1, 1
		}
	}
	if r.one(3) {
		h.Rewrite = &networking.HTTPRewrite{}
		switch r.IntN(4) {
		case 0, 1:
			h.Rewrite.Uri = r.of("/", "/new", "/new/", "/new/path", "/%41")
		case 2:
			h.Rewrite.UriRegexRewrite = &networking.RegexRewrite{Match: r.of("/a(.*)", "ab", "^/([^/]*)/(.*)$", "/+", "b$", "x"), Rewrite: r.of("/r", `/z\1`, `/\0`, "/")}
			if strings.Contains(h.Rewrite.UriRegexRewrite.Rewrite, `\1`) && !strings.Contains(h.Rewrite.UriRegexRewrite.Match, "(") {
				h.Rewrite.UriRegexRewrite.Rewrite = "/r"
			}
		}
		if r.one(3) || (h.Rewrite.Uri == "" && h.Rewrite.UriRegexRewrite == nil) {
			h.Rewrite.Authority = r.of("re.example", "re.example:8443")
		}
	}
	if r.one(5) {
		h.Mirror = &networking.Destination{Host: "mirror"}
	}
	if r.one(3) {
		h.Retries = &networking.HTTPRetry{Attempts: int32(r.IntN(3)), RetryOn: r.of("5xx", "gateway-error", "503", "reset,connect-failure", "retriable-4xx,5xx")}
		if h.Retries.Attempts > 0 {
			h.Retries.Backoff = durationpb.New(time.Millisecond)
		} else {
			h.Retries.RetryOn = ""
		}
	}
	if r.one(6) {
		h.Timeout = durationpb.New(10 * time.Second)
	}
	if r.one(6) {
		h.Fault = &networking.HTTPFaultInjection{}
		p := &networking.Percent{Value: []float64{0, 100, 100}[r.IntN(3)]}
		if r.one(2) {
			h.Fault.Delay = &networking.HTTPFaultInjection_Delay{HttpDelayType: &networking.HTTPFaultInjection_Delay_FixedDelay{FixedDelay: durationpb.New(2 * time.Millisecond)}, Percentage: p}
		} else {
			h.CorsPolicy = nil
			h.Fault.Abort = &networking.HTTPFaultInjection_Abort{ErrorType: &networking.HTTPFaultInjection_Abort_HttpStatus{HttpStatus: []int32{503, 418, 200, 400}[r.IntN(4)]}, Percentage: p}
		}
	}
	return h
}

func (r roller) redirect() *networking.HTTPRedirect {
	d := &networking.HTTPRedirect{RedirectCode: []uint32{0, 301, 302, 303, 307, 308}[r.IntN(6)]}
	switch r.IntN(3) {
	case 0:
		d.Uri = r.of("/new", "/", "/new?x=1", "/new/path", "/n%20m")
	case 1:
		d.PrefixRewrite = r.of("/new", "/new/")
	}
	if r.one(2) {
		d.Authority = r.of("re.example", "re.example:8443")
	}
	if r.one(3) {
		d.Scheme = r.of("http", "https")
	}
	if d.Uri == "" && d.PrefixRewrite == "" && d.Authority == "" && d.Scheme == "" {
		d.Scheme = "https"
	}
	if strings.Contains(d.Authority, ":") {
		return d
	}
	switch r.IntN(5) {
	case 0:
		d.RedirectPort = &networking.HTTPRedirect_Port{Port: 8443}
	case 1:
		d.RedirectPort = &networking.HTTPRedirect_DerivePort{DerivePort: networking.HTTPRedirect_FROM_REQUEST_PORT}
	}
	return d
}

func (r roller) cors() *networking.CorsPolicy {
	c := &networking.CorsPolicy{AllowMethods: r.some("GET", "POST", "*"), AllowHeaders: r.some("x-a", "content-type", "*"), ExposeHeaders: r.some("x-a", "x-b")}
	for range 1 + r.IntN(2) {
		s := &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: r.of("https://one.example", "*")}}
		switch r.IntN(3) {
		case 0:
			s.MatchType = &networking.StringMatch_Prefix{Prefix: "https://one"}
		case 1:
			s.MatchType = &networking.StringMatch_Regex{Regex: `https://[a-z]+\.example`}
		}
		c.AllowOrigins = append(c.AllowOrigins, s)
	}
	if r.one(2) {
		c.AllowCredentials = wrapperspb.Bool(r.one(2))
	}
	if r.one(2) {
		c.MaxAge = durationpb.New(time.Duration(r.IntN(3)) * time.Hour)
	}
	if r.one(2) {
		c.UnmatchedPreflights = networking.CorsPolicy_UnmatchedPreflights(r.IntN(2))
	}
	return c
}

// planned is what the application answers to one attempt.
type planned struct {
	status   int
	headers  fields
	body     string
	chunked  bool
	trailers fields
}

// trial is a request with the answers that the application gives to it.
type trial struct {
	wireRequest
	port    int
	answers []planned
}

func (r roller) trial(hosts int) *trial {
	q := &trial{port: 80}
	for range 1 + r.IntN(2) {
		q.answers = append(q.answers, r.answer())
	}
	q.version = 1 + r.IntN(2)
	q.method = r.of("GET", "GET", "GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH")
	q.target = r.of(somePaths...) + r.of(someQueries...)
	host := fmt.Sprintf("h%d", r.IntN(hosts))
	q.authority = r.of(host, host, host, strings.ToUpper(host), host+".default", host+".default.svc.cluster.local", host+":80", host+".default.svc.cluster.local.", host+".default.svc")
	if r.one(8) {
		q.port, q.authority = 8080, host+":8080"
	}
	if r.one(12) {
		q.port = 80
		q.authority = r.of("x.wild.example", "a.b.wild.example:80", "wild.example", "X.WILD.example", ".wild.example")
	}
	if q.version == 1 && r.one(8) {
		q.target = "http://" + q.authority + q.target
	}
	add := func(name string, values ...string) {
		if v := r.of(values...); v != "-" {
			q.headers = append(q.headers, [2]string{name, v})
		}
	}
	add("x-user", "-", "alice", "bob", "", "Alice", "alice,bob", "alice, bob")
	if r.one(3) {
		add("X-User", "bob", "", "alice")
	}
	add("x-flag", "-", "-", "on", "off", "", "ab")
	add("cookie", "-", "-", "a=1", "a=1; b=2")
	if r.one(6) {
		add("cookie", "c=3")
	}
	add("user-agent", "-", "curl/8")
	add("te", "-", "-", "-", "trailers")
	add("x-a", "-", "-", "1")
	add("x-b", "-", "-", "1", "2")
	if r.one(4) {
		add("x-b", "3")
	}
	add("x-forwarded-for", "-", "-", "-", "10.1.2.3", "10.0.0.1, 192.0.2.7")
	add("x-forwarded-proto", "-", "-", "-", "-", "https", "http")
	add("x-request-id", "-", "-", "-", givenID)
	add("accept-encoding", "-", "gzip")
	add("x-envoy-thing", "-", "-", "-", "-", "1")
	if r.one(3) {
		add("origin", "https://one.example", "https://two.example", "null", "")
		if r.one(2) {
			add("access-control-request-method", "-", "GET", "PUT", "")
			add("access-control-request-headers", "-", "x-z, x-y")
			if r.one(2) {
				q.method = "OPTIONS"
			}
		}
	}
	if q.version == 1 {
		add("connection", "-", "-", "-", "close", "keep-alive", "x-a", "TE")
		add("expect", "-", "-", "-", "-", "-", "-", "100-continue")
	}
	switch q.method {
	case "POST", "PUT", "PATCH", "DELETE":
		q.body = r.of("", "body", strings.Repeat("0123456789", 200))
		q.chunked = r.one(3)
		if q.body != "" {
			add("content-type", "-", "text/plain", "application/json")
		}
		if q.chunked && r.one(2) {
			q.trailers = fields{{"x-t", r.of("1", "")}}
		}
	}
	if !q.chunked && q.body == "" || slices.ContainsFunc(q.answers, func(a planned) bool { return a.status >= 400 }) {
		q.headers = slices.DeleteFunc(q.headers, func(h [2]string) bool { return h[0] == "expect" })
	}
	return q
}

func (r roller) answer() (a planned) {
	a.status = []int{200, 200, 200, 201, 204, 304, 404, 409, 500, 503, 302}[r.IntN(11)]
	add := func(name string, values ...string) {
		if v := r.of(values...); v != "-" {
			a.headers = append(a.headers, [2]string{name, v})
		}
	}
	add("x-a", "-", "-", "up", "")
	add("x-b", "-", "up1")
	add("x-b", "-", "up2")
	add("set-cookie", "-", "u=1; Path=/")
	add("set-cookie", "-", "-", "v=2")
	add("vary", "-", "-", "Origin")
	add("content-type", "-", "text/html", "application/json")
	add("access-control-allow-origin", "-", "-", "-", "*")
	add("access-control-expose-headers", "-", "-", "-", "x-up")
	add("server", "-", "app/1")
	add("location", "-", "-", "/elsewhere")
	add("x-user", "-", "-", "-", "up")
	if a.status != 204 && a.status != 304 {
		a.body = r.of("", "hello", strings.Repeat("abcdefghij", 300))
		a.chunked = r.one(3)
		if a.chunked && r.one(2) {
			a.trailers = fields{{"x-rt", r.of("1", "2")}}
		}
	}
	return a
}
