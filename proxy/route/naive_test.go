package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

// naive matches by the letter of the model's comments, one rule after the other, with strings and maps: what the index
// must agree with.
type naive struct{ t *model.Table }

// plainRequest is a request as a test writes it.
type plainRequest struct {
	method, scheme, authority, path, query string
	fields                                 [][2]string
}

func (p *plainRequest) message() *message.Request {
	r := &message.Request{}
	r.SetMethod([]byte(p.method))
	r.SetScheme([]byte(p.scheme))
	r.SetAuthority([]byte(p.authority))
	r.SetPath([]byte(p.path))
	if p.query != "" {
		r.SetQuery([]byte("?" + p.query))
	}
	for _, f := range p.fields {
		r.Add(f[0], f[1])
	}
	return r
}

func (n naive) match(p *plainRequest, defaultPort int) (rule *model.Rule, known bool, covered int, segments bool) {
	host, port := strings.ToLower(p.authority), defaultPort
	if a, err := netip.ParseAddrPort(host); err == nil && strings.HasPrefix(host, "[") {
		host, port = a.Addr().String(), int(a.Port())
	} else if h, s, ok := strings.Cut(host, ":"); ok && !strings.Contains(s, ":") {
		if v, err := strconv.ParseUint(s, 10, 16); err == nil {
			host, port = h, int(v)
		}
	}
	host = strings.Trim(host, "[]")
	v := n.host(host, port)
	if v == nil {
		if n.t.Unmatched == nil {
			return nil, false, 0, false
		}
		v = &model.VirtualHost{Rules: []model.Rule{*n.t.Unmatched}}
	} else {
		known = true
	}
	for i := range v.Rules {
		matches := v.Rules[i].Matches
		if len(matches) == 0 {
			matches = []model.Match{{}}
		}
		for j := range matches {
			if holds(&matches[j], p) {
				covered, segments = coveredBy(matches[j].Path, p.path)
				return &v.Rules[i], known, covered, segments
			}
		}
	}
	return nil, known, 0, false
}

func coveredBy(m *model.StringMatch, path string) (n int, segments bool) {
	if m == nil || m.Kind == model.Present {
		if strings.HasPrefix(path, "/") {
			return 1, false
		}
		return 0, false
	}
	switch m.Kind {
	case model.Prefix, model.CasePrefix:
		return len(m.Value), false
	case model.PathPrefix:
		return len(strings.TrimRight(m.Value, "/")), true
	}
	return len(path), false
}

func (n naive) host(host string, port int) *model.VirtualHost {
	var best *model.VirtualHost
	score := -1
	for i := range n.t.Hosts {
		h := &n.t.Hosts[i]
		if h.Port != 0 && h.Port != port {
			continue
		}
		for _, d := range h.Domains {
			d = strings.ToLower(d)
			var s int
			switch {
			case strings.Trim(d, "[]") == host:
				s = 1 << 20
				if h.Port != 0 {
					s++
				}
			case d == "*" || strings.HasPrefix(d, "*.") && strings.HasSuffix(host, d[1:]) && len(host) >= len(d):
				s = len(d)
				if h.Port != 0 {
					s += 1 << 10
				}
			default:
				continue
			}
			if s > score {
				best, score = h, s
			}
		}
	}
	return best
}

func holds(m *model.Match, p *plainRequest) bool {
	scheme := p.scheme
	if scheme == "" {
		scheme = "http"
	}
	for _, one := range []struct {
		m *model.StringMatch
		v string
	}{{m.Path, p.path}, {m.Method, p.method}, {m.Authority, p.authority}, {m.Scheme, scheme}} {
		if one.m != nil && !compare(*one.m, one.v) {
			return false
		}
	}
	for _, k := range m.Headers {
		var values []string
		for _, f := range p.fields {
			if strings.EqualFold(f[0], k.Name) {
				values = append(values, f[1])
			}
		}
		switch k.Name {
		case ":path":
			values = []string{p.path}
		case ":method":
			values = []string{p.method}
		}
		if !fieldHolds(k, values) {
			return false
		}
	}
	for _, k := range m.Query {
		value, there := "", false
		for _, one := range strings.Split(p.query, "&") {
			if name, v, _ := strings.Cut(one, "="); p.query != "" && name == k.Name {
				value, there = v, true
				break
			}
		}
		if !keyHolds(k, value, there) {
			return false
		}
	}
	return true
}

// fieldHolds compares each value of a field; inverted, none may compare.
func fieldHolds(k model.KeyMatch, values []string) bool {
	if len(values) == 0 {
		return keyHolds(k, "", false)
	}
	plain := k
	plain.Not = false
	return slices.ContainsFunc(values, func(v string) bool { return keyHolds(plain, v, true) }) != k.Not
}

func keyHolds(k model.KeyMatch, value string, there bool) bool {
	if k.Kind == model.Present {
		return there != k.Not
	}
	if k.Not {
		return !compare(k.StringMatch, value)
	}
	return there && compare(k.StringMatch, value)
}

func compare(m model.StringMatch, v string) bool {
	switch m.Kind {
	case model.Exact:
		return v == m.Value
	case model.Prefix:
		return strings.HasPrefix(v, m.Value)
	case model.PathPrefix:
		p := strings.TrimRight(m.Value, "/")
		return v == p || strings.HasPrefix(v, p+"/")
	case model.CaseIgnored:
		return strings.EqualFold(v, m.Value)
	case model.CasePrefix:
		return strings.HasPrefix(strings.ToLower(v), strings.ToLower(m.Value))
	case model.Present:
		return true
	}
	all := regexp.MustCompile("(?s:" + m.Value + ")")
	all.Longest()
	loc := all.FindStringIndex(v) // the leftmost, longest: the whole value where any match is
	return loc != nil && loc[0] == 0 && loc[1] == len(v)
}

// random makes tables and requests of few words, so that they meet.
type random struct{ *rand.Rand }

func (r random) one(of ...string) string { return of[r.IntN(len(of))] }

func (r random) path() string {
	var b strings.Builder
	for range r.IntN(4) {
		b.WriteString("/" + r.one("a", "b", "ab", "A", "abc", ""))
	}
	if b.Len() == 0 || r.IntN(8) == 0 {
		b.WriteString("/")
	}
	return b.String()
}

func (r random) text(value string) model.StringMatch {
	switch k := model.StringKind(r.one("exact", "prefix", "pathPrefix", "regex", "present", "caseIgnored", "casePrefix", "exact", "prefix", "pathPrefix")); k {
	case model.Regex:
		return model.StringMatch{Kind: k, Value: r.one(".*", value, value+".*", "^"+value+"/?.*$", "(?i)"+value, "("+value+"|/a).*", "[^/]*"+value, value+"|/b")}
	default:
		return model.StringMatch{Kind: k, Value: value}
	}
}

func (r random) keys(names ...string) (l []model.KeyMatch) {
	for range r.IntN(3) {
		l = append(l, model.KeyMatch{Name: r.one(names...), StringMatch: r.text(r.one("1", "2", "", "12")), Not: r.IntN(3) == 0})
	}
	return l
}

func (r random) rule(i int) model.Rule {
	rule := model.Rule{Origin: model.Origin{Line: i}}
	for range r.IntN(4) {
		var m model.Match
		if r.IntN(5) > 0 {
			t := r.text(r.path())
			m.Path = &t
		}
		if r.IntN(4) == 0 {
			m.Method = &model.StringMatch{Kind: model.Exact, Value: r.one("GET", "PUT")}
		}
		if r.IntN(8) == 0 {
			m.Scheme = &model.StringMatch{Kind: model.Exact, Value: r.one("http", "https")}
		}
		if r.IntN(8) == 0 {
			t := r.text(r.one("a.b", "A.b", "a.b:80"))
			m.Authority = &t
		}
		if r.IntN(3) == 0 {
			m.Headers = r.keys("x-a", "cookie", ":path", ":method")
		}
		if r.IntN(3) == 0 {
			m.Query = r.keys("q", "qq")
		}
		rule.Matches = append(rule.Matches, m)
	}
	return rule
}

func (r random) table() *model.Table {
	t := &model.Table{}
	n := 0
	for i := range 1 + r.IntN(4) {
		h := model.VirtualHost{Name: fmt.Sprint(i), Port: []int{0, 0, 80, 8080}[r.IntN(4)]}
		for range 1 + r.IntN(3) {
			h.Domains = append(h.Domains, r.one("a.b", "c.a.b", "*.b", "*.a.b", "*", "a.b.", "[::1]", "A.B"))
		}
		for range r.IntN(30) {
			n++
			h.Rules = append(h.Rules, r.rule(n))
		}
		t.Hosts = append(t.Hosts, h)
	}
	if r.IntN(2) == 0 {
		rule := r.rule(n + 1)
		t.Unmatched = &rule
	}
	return t
}

func (r random) request() *plainRequest {
	p := &plainRequest{
		method: r.one("GET", "PUT"), scheme: r.one("", "http", "https"), path: r.path(),
		authority: r.one("a.b", "A.b", "c.a.b", "d.c.a.b", "x.b", "b", ".b", "a..b", "a.b.", "", "[::1]", "::1", "z") + r.one("", "", ":80", ":8080", ":9"),
		query:     r.one("", "q=1", "q=2&q=1", "qq", "q&qq=12", "=&q=", "qqq=1"),
	}
	if r.IntN(20) == 0 {
		p.path = r.one("", "*")
	}
	for range r.IntN(4) {
		p.fields = append(p.fields, [2]string{r.one("x-a", "X-A", "cookie", "x-b"), r.one("1", "2", "", "12")})
	}
	return p
}

func compileRules(t testing.TB, m *model.Table) *Table[*model.Rule] {
	t.Helper()
	c, err := Compile(m, func(_ *model.VirtualHost, r *model.Rule) (*model.Rule, error) { return r, nil })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIndexAgreesWithLinearScan(t *testing.T) {
	found := 0
	for seed := range uint64(400) {
		r := random{rand.New(rand.NewPCG(seed, 1))}
		m := r.table()
		c, n, s := compileRules(t, m), naive{m}, &Scratch{}
		for range 200 {
			p := r.request()
			want, known, covered, segments := n.match(p, 80)
			got := c.Match(p.message(), 80, s)
			if got.Found != (want != nil) || got.Known != known {
				t.Fatalf("seed %d: %+v: found %v, known %v; want %v, %v", seed, p, got.Found, got.Known, want != nil, known)
			}
			if want == nil {
				continue
			}
			found++
			if got.Rule.Origin.Line != want.Origin.Line || got.Prefix != covered || got.Segments != segments {
				t.Fatalf("seed %d: %+v: rule %d, prefix %d, segments %v; want %d, %d, %v",
					seed, p, got.Rule.Origin.Line, got.Prefix, got.Segments, want.Origin.Line, covered, segments)
			}
		}
	}
	if found < 20000 {
		t.Errorf("only %d requests matched: the test says too little", found)
	}
}
