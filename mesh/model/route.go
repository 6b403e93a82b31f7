package model

// Table routes the HTTP requests of one listener.
type Table struct {
	Name  string        `json:"name"`
	Hosts []VirtualHost `json:"hosts"`
	// Unmatched decides for a host that no VirtualHost names; nil answers 404 no_route.
	Unmatched *Rule `json:"unmatched,omitempty"`
	// Service is what those of Unmatched count for that the proxy answers itself (Istio's BlackHoleCluster).
	Service Service `json:"service,omitzero"`
}

// VirtualHost holds the rules for a set of host names. The host of a request is looked up in this order: exact name with
// the request's port, exact name with port 0, longest wildcard with the port, longest wildcard with port 0.
// Where two VirtualHosts of a table claim the same domain and port, the first one has it.
// A request that reaches a VirtualHost and matches none of its rules is answered 404 no_route.
type VirtualHost struct {
	Name string `json:"name"`
	// Domains are lower-case host names without port: exact, "*.suffix" (one or more labels), or "*".
	Domains []string `json:"domains"`
	// Port is the port of the authority that this host is for (80 where a request's Host has none); 0 is any.
	Port int `json:"port,omitempty"`
	// Service is what requests count for that the proxy answers itself, by one of the rules or in spite of it; the zero
	// Service is the first destination's, or nobody's.
	Service Service `json:"service,omitzero"`
	Rules   []Rule  `json:"rules"`
	// RateLimits name those that a request of one of the rules must meet, in the order in which they are asked.
	RateLimits []string `json:"rateLimits,omitempty"`
	// Opaque, where set, decides in place of Rules for a connection whose bytes turn out not to be HTTP (a port of protocol Auto).
	Opaque []Rule `json:"opaque,omitempty"`
}

// Rule is one step of a VirtualHost; the first whose Matches hold decides. Exactly one of Route, Redirect and Reply is set.
type Rule struct {
	Origin Origin `json:"origin"`
	// Matches are alternatives; none means every request.
	Matches  []Match     `json:"matches,omitempty"`
	Route    *Route      `json:"route,omitempty"`
	Redirect *Redirect   `json:"redirect,omitempty"`
	Reply    *Reply      `json:"reply,omitempty"`
	Request  HeaderEdits `json:"request,omitzero"`
	Response HeaderEdits `json:"response,omitzero"`
	CORS     *CORS       `json:"cors,omitempty"`
}

// Match is one condition: everything set in it must hold. The zero Match holds for every request.
type Match struct {
	Path      *StringMatch `json:"path,omitempty"` // the normalised path, without query
	Method    *StringMatch `json:"method,omitempty"`
	Authority *StringMatch `json:"authority,omitempty"` // as received, with port if it had one
	Scheme    *StringMatch `json:"scheme,omitempty"`
	Headers   []KeyMatch   `json:"headers,omitempty"`
	Query     []KeyMatch   `json:"query,omitempty"`
}

// StringKind says how a StringMatch compares.
type StringKind string

// The ways to compare. Regex is RE2 over the whole value (Istio, Gateway API); SMI's half-anchored expressions are widened by the compiler.
const (
	Exact       StringKind = "exact"
	Prefix      StringKind = "prefix"      // raw string prefix: "/foo" holds for "/foobar"
	PathPrefix  StringKind = "pathPrefix"  // by path segment: "/foo" holds for "/foo" and "/foo/bar" only (Gateway API)
	Regex       StringKind = "regex"       // full match
	Present     StringKind = "present"     // there, with any value
	CaseIgnored StringKind = "caseIgnored" // exact, ASCII case folded
	CasePrefix  StringKind = "casePrefix"  // prefix, ASCII case folded
)

// StringMatch compares one value.
type StringMatch struct {
	Kind  StringKind `json:"kind"`
	Value string     `json:"value,omitempty"`
}

// KeyMatch compares the value of a header field or query parameter. Of several fields of one name, one has to
// compare, each by itself; inverted, none may.
type KeyMatch struct {
	Name string `json:"name"` // headers: lower case; ":authority", ":method" and ":path" stand for these
	StringMatch
	// Not inverts the comparison. A missing value counts as empty unless Kind is Present (Istio's withoutHeaders).
	Not bool `json:"not,omitempty"`
}

// Route forwards.
type Route struct {
	// Destinations share the requests by Weight. Weight 0 gets none, unless the destination stands alone.
	Destinations []Destination `json:"destinations"`
	Rewrite      *Rewrite      `json:"rewrite,omitempty"`
	// Timeout bounds the whole exchange from the end of the request's head, retries included; 0 is none.
	Timeout Duration `json:"timeout,omitempty"`
	// BackendTimeout bounds each attempt (HTTPRoute backendRequest); 0 is none.
	BackendTimeout Duration `json:"backendTimeout,omitempty"`
	// Idle bounds how long nothing of a message may pass in either direction; 0 is none.
	Idle Duration `json:"idle,omitempty"`
	// Retries is nil where a request is sent again only if it certainly was not processed.
	Retries *Retries `json:"retries,omitempty"`
	Fault   *Fault   `json:"fault,omitempty"`
	Mirrors []Mirror `json:"mirrors,omitempty"`
}

// Destination is one target of a Route.
type Destination struct {
	// Cluster names a Cluster of the snapshot; empty where Reply is set.
	Cluster string `json:"cluster,omitempty"`
	// Weight is this destination's share, as written, over the sum of all.
	Weight   uint32      `json:"weight"`
	Request  HeaderEdits `json:"request,omitzero"` // applied after the rule's
	Response HeaderEdits `json:"response,omitzero"`
	// Reply answers this destination's share instead (a backendRef that is invalid: 500, Gateway API).
	Reply *Reply `json:"reply,omitempty"`
}

// Rewrite changes a request before it is forwarded.
type Rewrite struct {
	Authority string       `json:"authority,omitempty"`
	Path      *PathRewrite `json:"path,omitempty"`
}

// PathRewrite gives a path another form; one of the three is set. The query stays as it is.
type PathRewrite struct {
	// Full replaces the whole path.
	Full string `json:"full,omitempty"`
	// Prefix replaces the part that a Prefix, PathPrefix or Exact match matched; with PathPrefix, slashes are
	// put right (Gateway API ReplacePrefixMatch). A Regex match has no matched part: the path stays (Envoy).
	Prefix *string `json:"prefix,omitempty"`
	// Regex replaces all matches of Pattern by Substitution, whose \1 ... \9 are its groups (Istio uriRegexRewrite).
	Regex *RegexRewrite `json:"regex,omitempty"`
}

// RegexRewrite is an RE2 search and replace.
type RegexRewrite struct {
	Pattern      string `json:"pattern"`
	Substitution string `json:"substitution"`
}

// Redirect answers with a Location built from the request and these replacements.
type Redirect struct {
	Status int          `json:"status"` // 301, 302, 303, 307 or 308
	Scheme string       `json:"scheme,omitempty"`
	Host   string       `json:"host,omitempty"` // without port
	Path   *PathRewrite `json:"path,omitempty"`
	// Port is what the Location names; 0 follows PortFrom.
	Port int `json:"port,omitempty"`
	// PortFrom is "request" (the port of the request's authority or, without one, of the listener), "scheme" (the
	// scheme's own port) or "" (the authority's port as it was if neither scheme nor host change it). Ports 80 of
	// http and 443 of https are left out.
	PortFrom string `json:"portFrom,omitempty"`
}

// Reply is an answer of the proxy's own.
type Reply struct {
	Status  int         `json:"status"`
	Body    string      `json:"body,omitempty"` // at most 1 MiB
	Headers []NameValue `json:"headers,omitempty"`
	// Outcome names why, where it is not simply what the user configured (directResponse): "no_route", ...
	Outcome string `json:"outcome,omitempty"`
}

// NameValue is one header field.
type NameValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// HeaderEdits change a head: first Remove, then Set (replace), then Add (append a field).
type HeaderEdits struct {
	Remove []string    `json:"remove,omitempty"`
	Set    []NameValue `json:"set,omitempty"` // the name "host" sets the authority
	Add    []NameValue `json:"add,omitempty"`
}

// CORS answers preflights and marks answers (Istio corsPolicy, Gateway API's CORS filter).
type CORS struct {
	AllowOrigins     []StringMatch `json:"allowOrigins,omitempty"` // exact "*" allows all
	AllowMethods     []string      `json:"allowMethods,omitempty"`
	AllowHeaders     []string      `json:"allowHeaders,omitempty"`
	ExposeHeaders    []string      `json:"exposeHeaders,omitempty"`
	MaxAge           *Duration     `json:"maxAge,omitempty"` // nil sends none
	AllowCredentials bool          `json:"allowCredentials,omitempty"`
	// RefuseUnmatched answers a preflight of another origin here (200, without CORS fields) instead of forwarding it.
	RefuseUnmatched bool `json:"refuseUnmatched,omitempty"`
}
