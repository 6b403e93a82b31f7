package route

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

func TestHostOrder(t *testing.T) {
	host := func(name string, port int, domains ...string) model.VirtualHost {
		return model.VirtualHost{Name: name, Port: port, Domains: domains, Rules: []model.Rule{{Origin: model.Origin{Name: name}}}}
	}
	c := compileRules(t, &model.Table{Hosts: []model.VirtualHost{
		host("exact any", 0, "reviews", "reviews.default.svc.cluster.local"),
		host("exact 9080", 9080, "reviews"),
		host("second claim", 9080, "reviews", "only-second"),
		host("wide any", 0, "*.example.com"),
		host("long any", 0, "*.api.example.com"),
		host("wide 8080", 8080, "*.example.com"),
		host("exact under wide", 0, "www.example.com"),
		host("dot", 0, "reviews."),
		host("v6", 0, "[2001:db8::1]", "fe80::1"),
		host("v6 81", 81, "2001:DB8::1"),
		host("v4", 0, "10.0.0.1"),
		host("upper", 0, "UPPER.example.org"),
	}, Unmatched: &model.Rule{Origin: model.Origin{Name: "none"}}})
	f := func(authority, want string) {
		t.Helper()
		r := (&plainRequest{authority: authority, path: "/"}).message()
		m := c.Match(r, 80, &Scratch{})
		if !m.Found || m.Rule.Origin.Name != want || m.Known != (want != "none") {
			t.Errorf("%s: got %+v, want %s", authority, m.Rule, want)
		}
	}
	f("reviews", "exact any")
	f("REVIEWS", "exact any")
	f("reviews:80", "exact any")
	f("reviews:9080", "exact 9080")
	f("reviews:09080", "exact 9080")
	f("reviews:", "exact any")
	f("reviews.default.svc.cluster.local:1", "exact any")
	f("only-second:9080", "second claim")
	f("only-second", "none")
	f("reviews.", "dot")
	f("reviews.:9080", "dot")
	f("a.example.com", "wide any")
	f("a.b.example.com", "wide any")
	f("a.example.com:8080", "wide 8080")
	f("a.api.example.com", "long any")
	f("a.api.example.com:8080", "wide 8080") // a port goes before length
	f("api.example.com", "wide any")
	f("example.com", "none")
	f(".example.com", "none")
	f("a.example.com.", "none")
	f("www.example.com:8080", "exact under wide")
	f("[2001:db8::1]", "v6")
	f("[2001:DB8::1]:80", "v6")
	f("[2001:db8::1]:81", "v6 81")
	f("2001:db8::1", "v6")
	f("[fe80::1]:5", "v6")
	f("[2001:db8::1]81", "none")
	f("[2001:db8::1", "none")
	f("[reviews]", "none")
	f("10.0.0.1:15", "v4")
	f("upper.EXAMPLE.org", "upper")
	f("reviews:http", "none")
	f("reviews:65536", "none")
	f("reviews:99999999999999999999", "none")
	f("", "none")
	f(":", "none")
	f("]", "none")
}

func TestDefaultPort(t *testing.T) {
	c := compileRules(t, &model.Table{Hosts: []model.VirtualHost{{Name: "a", Port: 9080, Domains: []string{"a"}, Rules: []model.Rule{{}}}}})
	r := (&plainRequest{authority: "a", path: "/"}).message()
	if !c.Match(r, 9080, &Scratch{}).Found || c.Match(r, 80, &Scratch{}).Known {
		t.Error("the default port is not the port of an authority without one")
	}
}

func TestNoRule(t *testing.T) {
	c := compileRules(t, &model.Table{Hosts: []model.VirtualHost{{Name: "a", Domains: []string{"a"}, Rules: []model.Rule{
		{Matches: []model.Match{{Path: &model.StringMatch{Kind: model.Exact, Value: "/x"}}}},
	}}}})
	r := (&plainRequest{authority: "a", path: "/"}).message()
	if m := c.Match(r, 80, &Scratch{}); m.Found || !m.Known {
		t.Errorf("got %+v", m)
	}
	r.SetAuthority([]byte("b"))
	if m := c.Match(r, 80, &Scratch{}); m.Found || m.Known {
		t.Errorf("got %+v", m)
	}
}

func TestComparisons(t *testing.T) {
	f := func(kind model.StringKind, value, in string, want bool) {
		t.Helper()
		m, err := NewText(model.StringMatch{Kind: kind, Value: value})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Match([]byte(in)); got != want {
			t.Errorf("%s %q of %q: %v", kind, value, in, got)
		}
		if want && !strings.HasPrefix(in, m.begin) {
			t.Errorf("%s %q: %q does not begin with %q", kind, value, in, m.begin)
		}
	}
	f(model.Exact, "/a", "/a", true)
	f(model.Exact, "/a", "/A", false)
	f(model.Exact, "/a", "/a/", false)
	f(model.Prefix, "/a", "/ab", true)
	f(model.Prefix, "/a", "/", false)
	f(model.Prefix, "", "", true)
	f(model.PathPrefix, "/a", "/a", true)
	f(model.PathPrefix, "/a", "/a/", true)
	f(model.PathPrefix, "/a", "/a/b", true)
	f(model.PathPrefix, "/a", "/ab", false)
	f(model.PathPrefix, "/a/", "/a", true)
	f(model.PathPrefix, "/a/", "/ab", false)
	f(model.PathPrefix, "/", "/x", true)
	f(model.PathPrefix, "/", "/", true)
	f(model.CaseIgnored, "/Ab", "/aB", true)
	f(model.CaseIgnored, "/Ab", "/aBc", false)
	f(model.CasePrefix, "/Ab", "/aBc", true)
	f(model.CasePrefix, "/Ab", "/a", false)
	f(model.Present, "", "", true)
	f(model.Regex, ".*", "", true)
	f(model.Regex, "/a", "/a", true)
	f(model.Regex, "/a", "/ab", false)
	f(model.Regex, "/a", "x/a", false)
	f(model.Regex, "/a|/b", "/b", true)
	f(model.Regex, "/a|/b", "/bc", false)
	f(model.Regex, "/a|/b.*", "/ac", false)
	f(model.Regex, "^/a$", "/a", true)
	f(model.Regex, "(?i)/a.*", "/Ab", true)
	f(model.Regex, "/a.b", "/a\nb", true)
	f(model.Regex, "/api/v[0-9]+/.*", "/api/v12/x", true)
	f(model.Regex, "^/api/v[0-9]+", "/api/v12", true)
	f(model.Regex, "(/api)/.*", "/api/x", true)
	f(model.Regex, "/a\ufffd.*", "/a\xffb", true)
	f(model.Regex, "(?m)^/a$", "/a\nb", false)
	f(model.Regex, "a*?", "aaa", true)
}

func TestBeginning(t *testing.T) {
	f := func(expr, want string) {
		t.Helper()
		m, err := NewText(model.StringMatch{Kind: model.Regex, Value: expr})
		if err != nil {
			t.Fatal(err)
		}
		if m.begin != want {
			t.Errorf("%s begins with %q, want %q", expr, m.begin, want)
		}
	}
	f("/api/.*", "/api/")
	f("^/api/.*", "/api/")
	f("(/api)/.*", "/api")
	f("/api?", "/ap")
	f("(?i)/api", "")
	f("/a|/b", "/")
	f(".*", "")
	f(".*/a", "")
}

func TestCompileErrors(t *testing.T) {
	f := func(m model.Match, want ...string) {
		t.Helper()
		_, err := Compile(&model.Table{Hosts: []model.VirtualHost{{Name: "shop", Domains: []string{"a"}, Rules: []model.Rule{{}, {Matches: []model.Match{{}, m}}}}}},
			func(*model.VirtualHost, *model.Rule) (int, error) { return 0, nil })
		for _, w := range append(want, `host "shop"`, "rule 1", "match 1") {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("got %v, want an error with %q", err, w)
			}
		}
	}
	f(model.Match{Path: &model.StringMatch{Kind: model.Regex, Value: "a)|(b"}}, "path", "a)|(b")
	f(model.Match{Path: &model.StringMatch{Kind: model.Regex, Value: "((a{100}){100}){100}"}}, "path", "regular expression")
	f(model.Match{Path: &model.StringMatch{Kind: model.Regex, Value: strings.Repeat("[a-z]{1000}", 34)}}, "path", "32768")
	f(model.Match{Headers: []model.KeyMatch{{Name: "x-a", StringMatch: model.StringMatch{Kind: model.Regex, Value: "["}}}}, `header "x-a"`)
	f(model.Match{Query: []model.KeyMatch{{Name: "q", StringMatch: model.StringMatch{Kind: "like"}}}}, `query parameter "q"`, `"like"`)

	for _, domain := range []string{"", "a*", "*a", "*.", "a.*", "*.*.a"} {
		_, err := Compile(&model.Table{Hosts: []model.VirtualHost{{Name: "shop", Domains: []string{domain}}}},
			func(*model.VirtualHost, *model.Rule) (int, error) { return 0, nil })
		if err == nil || !strings.Contains(err.Error(), "shop") {
			t.Errorf("domain %q: %v", domain, err)
		}
	}

	sentinel := errors.New("no")
	for _, table := range []model.Table{{Hosts: []model.VirtualHost{{Name: "a", Rules: []model.Rule{{}}}}}, {Unmatched: &model.Rule{}}} {
		_, err := Compile(&table, func(*model.VirtualHost, *model.Rule) (int, error) { return 0, sentinel })
		if !errors.Is(err, sentinel) {
			t.Errorf("got %v", err)
		}
	}
}

func TestCompileCallsInOrder(t *testing.T) {
	var got []string
	_, err := Compile(&model.Table{
		Hosts:     []model.VirtualHost{{Name: "a", Rules: []model.Rule{{Origin: model.Origin{Line: 1}}, {Origin: model.Origin{Line: 2}}}}, {Name: "b", Rules: []model.Rule{{Origin: model.Origin{Line: 3}}}}},
		Unmatched: &model.Rule{Origin: model.Origin{Line: 4}},
	}, func(h *model.VirtualHost, r *model.Rule) (int, error) {
		name := "-"
		if h != nil {
			name = h.Name
		}
		got = append(got, fmt.Sprint(name, r.Origin.Line))
		return 0, nil
	})
	if err != nil || strings.Join(got, " ") != "a1 a2 b3 -4" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestHeadersAndQuery(t *testing.T) {
	f := func(m model.Match, p plainRequest, want bool) {
		t.Helper()
		p.authority, p.path = "a:81", "/"
		c := compileRules(t, &model.Table{Unmatched: &model.Rule{Matches: []model.Match{m}}})
		if got := c.Match(p.message(), 80, &Scratch{}).Found; got != want {
			t.Errorf("%+v of %+v: %v", m, p, got)
		}
	}
	key := func(name string, kind model.StringKind, value string, not bool) []model.KeyMatch {
		return []model.KeyMatch{{Name: name, StringMatch: model.StringMatch{Kind: kind, Value: value}, Not: not}}
	}
	two := plainRequest{fields: [][2]string{{"X-A", "1"}, {"x-a", "2"}}}
	f(model.Match{Headers: key("x-a", model.Exact, "1,2", false)}, two, false) // each value by itself
	f(model.Match{Headers: key("x-a", model.Exact, "1", false)}, two, true)
	f(model.Match{Headers: key("x-a", model.Exact, "2", false)}, two, true)
	f(model.Match{Headers: key("x-a", model.Exact, "2", true)}, two, false) // the first one hides no second
	f(model.Match{Headers: key("x-a", model.Exact, "3", true)}, two, true)
	f(model.Match{Headers: key("x-a", model.Present, "", true)}, two, false)
	f(model.Match{Headers: key("x-a", model.Regex, "1.*", false)}, two, true)
	f(model.Match{Headers: key("x-b", model.Exact, "", false)}, two, false) // missing is not empty
	f(model.Match{Headers: key("x-b", model.Regex, ".*", false)}, two, false)
	f(model.Match{Headers: key("x-b", model.Exact, "", true)}, two, false) // but it is, inverted
	f(model.Match{Headers: key("x-b", model.Exact, "1", true)}, two, true)
	f(model.Match{Headers: key("x-b", model.Present, "", true)}, two, true)
	f(model.Match{Headers: key("x-a", model.Present, "", true)}, two, false)
	f(model.Match{Headers: key("x-a", model.Present, "", false)}, two, true)
	f(model.Match{Headers: key("host", model.Exact, "a:81", false)}, two, true)
	f(model.Match{Headers: key(":authority", model.Prefix, "b", false)}, two, false)
	q := plainRequest{query: "a=1&a=2&b&%63=d%20e&c=f"}
	f(model.Match{Query: key("a", model.Exact, "1", false)}, q, true)
	f(model.Match{Query: key("a", model.Exact, "2", false)}, q, false)
	f(model.Match{Query: key("b", model.Exact, "", false)}, q, true)
	f(model.Match{Query: key("b", model.Present, "", false)}, q, true)
	f(model.Match{Query: key("c", model.Exact, "f", false)}, q, true)
	f(model.Match{Query: key("%63", model.Exact, "d%20e", false)}, q, true)
	f(model.Match{Query: key("d", model.Present, "", false)}, q, false)
	f(model.Match{Query: key("d", model.Prefix, "x", true)}, q, true)
}

// wide returns a table of one host with n rules of many kinds, and a request that the last one matches.
func wide(n int) (*model.Table, *message.Request) {
	h := model.VirtualHost{Name: "api", Domains: []string{"api.example.com", "*.example.org"}}
	for i := range n {
		m := model.Match{}
		switch i % 4 {
		case 0:
			m.Path = &model.StringMatch{Kind: model.Exact, Value: fmt.Sprintf("/exact/%d", i)}
		case 1:
			m.Path = &model.StringMatch{Kind: model.Prefix, Value: fmt.Sprintf("/prefix/%d/", i)}
		case 2:
			m.Path = &model.StringMatch{Kind: model.Regex, Value: fmt.Sprintf("/regex/%d/[0-9]+", i)}
		case 3:
			m.Path = &model.StringMatch{Kind: model.PathPrefix, Value: fmt.Sprintf("/segment/%d", i)}
			m.Headers = []model.KeyMatch{{Name: "x-user", StringMatch: model.StringMatch{Kind: model.Exact, Value: "b"}}}
			m.Query = []model.KeyMatch{{Name: "q", StringMatch: model.StringMatch{Kind: model.Present}}}
		}
		h.Rules = append(h.Rules, model.Rule{Matches: []model.Match{m}})
	}
	p := plainRequest{
		method: "GET", authority: "www.Example.org:80", path: fmt.Sprintf("/segment/%d/x", n-1), query: "a=b&q=1",
		fields: [][2]string{{"accept", "*/*"}, {"x-user", "a"}, {"x-user", "b"}},
	}
	return &model.Table{Hosts: []model.VirtualHost{h}}, p.message()
}

func TestMatchDoesNotAllocate(t *testing.T) {
	m, r := wide(400)
	c, s := compileRules(t, m), &Scratch{}
	regex := (&plainRequest{authority: "api.example.com", path: "/regex/398/12"}).message()
	run := func() {
		if !c.Match(r, 80, s).Found || !c.Match(regex, 80, s).Found {
			t.Fatal("no match")
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestIndexTriesFew(t *testing.T) {
	m, r := wide(400)
	c := compileRules(t, m)
	x := c.hosts.find([]byte("api.example.com"), 80)
	tried := 0
	for g := x.longest(r.Path()); g >= 0; g = x.groups[g].shorter {
		tried += len(x.groups[g].members)
	}
	// /segment/3, /segment/39 and /segment/399 begin the path.
	if tried != 3 {
		t.Errorf("of 400 rules %d are tried", tried)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a.b:80", "/a/b", "q=1&q", "1")
	f.Add("[::1]:8080", "*", "&&=", "")
	var tables []*Table[*model.Rule]
	var models []*model.Table
	for seed := range uint64(5) {
		m := random{rand.New(rand.NewPCG(seed, 2))}.table()
		models, tables = append(models, m), append(tables, compileRules(f, m))
	}
	f.Fuzz(func(t *testing.T, authority, path, query, value string) {
		p := &plainRequest{method: "GET", authority: authority, path: path, query: query, fields: [][2]string{{"x-a", value}}}
		for i, m := range models {
			rule, known, _, _ := naive{m}.match(p, 80)
			got := tables[i].Match(p.message(), 80, &Scratch{})
			// The naive host parser is for well-formed authorities only.
			if _, _, ok := message.SplitAuthority([]byte(authority)); !ok || strings.ContainsAny(authority, "[]") || strings.Count(authority, ":") > 1 || !isASCII(authority+path+value) {
				continue
			}
			if got.Known != known || got.Found != (rule != nil) || got.Found && got.Rule.Origin.Line != rule.Origin.Line {
				t.Fatalf("%+v: got %+v, want %+v", p, got, rule)
			}
		}
	})
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{4, 40, 400} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, r := wide(n)
			c, s := compileRules(b, m), &Scratch{}
			b.ReportAllocs()
			for b.Loop() {
				c.Match(r, 80, s)
			}
		})
	}
	b.Run("one rule", func(b *testing.B) {
		c, s := compileRules(b, &model.Table{Hosts: []model.VirtualHost{{Name: "a", Domains: []string{"reviews"}, Rules: []model.Rule{{}}}}}), &Scratch{}
		r := (&plainRequest{authority: "reviews:9080", path: "/reviews/0"}).message()
		b.ReportAllocs()
		for b.Loop() {
			c.Match(r, 80, s)
		}
	})
}
