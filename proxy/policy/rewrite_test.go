package policy

import (
	"bytes"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/route"
	"github.com/outrider-mesh/outrider/wire/message"
)

// matched returns what a match of one path comparison covers, by the matcher that the proxy uses.
func matched(t testing.TB, m model.StringMatch, r *message.Request) (prefix int, segments bool) {
	t.Helper()
	table, err := route.Compile(&model.Table{Unmatched: &model.Rule{Matches: []model.Match{{Path: &m}}}},
		func(*model.VirtualHost, *model.Rule) (bool, error) { return true, nil })
	if err != nil {
		t.Fatal(err)
	}
	got := table.Match(r, 80, &route.Scratch{})
	if !got.Found {
		t.Fatalf("%s %q does not match %q", m.Kind, m.Value, r.Path())
	}
	return got.Prefix, got.Segments
}

func rewrite(t testing.TB, kind model.StringKind, value string, w model.PathRewrite, target string) string {
	t.Helper()
	r := request(t, "GET a "+target)
	prefix, segments := matched(t, model.StringMatch{Kind: kind, Value: value}, r)
	c, err := NewRewrite(&model.Rewrite{Path: &w})
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(r, prefix, segments, &Scratch{})
	return string(r.Path()) + string(r.Query())
}

func TestReplacePrefixMatch(t *testing.T) {
	f := func(target, match, replacement, want string) {
		t.Helper()
		if got := rewrite(t, model.PathPrefix, match, model.PathRewrite{Prefix: &replacement}, target); got != want {
			t.Errorf("%s, prefix %s by %q: got %s, want %s", target, match, replacement, got, want)
		}
	}
	// The table of Gateway API's HTTPPathModifier.
	f("/foo/bar", "/foo", "/xyz", "/xyz/bar")
	f("/foo/bar", "/foo", "/xyz/", "/xyz/bar")
	f("/foo/bar", "/foo/", "/xyz", "/xyz/bar")
	f("/foo/bar", "/foo/", "/xyz/", "/xyz/bar")
	f("/foo", "/foo", "/xyz", "/xyz")
	f("/foo/", "/foo", "/xyz", "/xyz/")
	f("/foo/bar", "/foo", "", "/bar")
	f("/foo/", "/foo", "", "/")
	f("/foo", "/foo", "", "/")
	f("/foo/", "/foo", "/", "/")
	f("/foo", "/foo", "/", "/")
	// Beyond it.
	f("/", "/", "/xyz", "/xyz/")
	f("/bar", "/", "/xyz", "/xyz/bar")
	f("/foo/bar?a=/foo&b", "/foo", "/xyz", "/xyz/bar?a=/foo&b")
	f("/foo//evil.example/x", "/foo", "/", "/evil.example/x")
	f("/foo//evil.example/x", "/foo", "", "/evil.example/x")
	f("/foo/a//b", "/foo", "/xyz", "/xyz/a//b")
}

func TestRawPrefix(t *testing.T) {
	f := func(kind model.StringKind, target, match, replacement, want string) {
		t.Helper()
		if got := rewrite(t, kind, match, model.PathRewrite{Prefix: &replacement}, target); got != want {
			t.Errorf("%s, %s %s by %q: got %s, want %s", target, kind, match, replacement, got, want)
		}
	}
	f(model.Prefix, "/foobar", "/foo", "/xyz", "/xyzbar")
	f(model.Prefix, "/foo/bar", "/foo/", "/", "/bar")
	f(model.Prefix, "/foo/bar", "/foo", "/", "/bar") // Envoy would forward //bar
	f(model.Prefix, "/bar", "/", "/v2/", "/v2/bar")
	f(model.Prefix, "/bar", "/", "/v2", "/v2bar") // as Envoy and Istio
	f(model.Prefix, "/foobar", "/foo", "", "/bar")
	f(model.Prefix, "/foo", "/foo", "", "/")
	f(model.Prefix, "/foo?q", "/foo", "/x", "/x?q")
	f(model.CasePrefix, "/FOO/bar", "/foo", "/x", "/x/bar")
	f(model.Exact, "/foo", "/foo", "/x/y", "/x/y")
	f(model.CaseIgnored, "/Foo", "/foo", "/x", "/x")
	f(model.Regex, "/foo?q", "/f.*", "/x", "/x?q") // all of the path, as Envoy
	f(model.Present, "/foo", "", "/x/", "/x/foo")
	// A raw prefix may end inside a segment: what is left must not climb.
	f(model.Prefix, "/foo../admin", "/foo", "/app/", "/admin")
	f(model.Prefix, "/foo../admin", "/foo", "/", "/admin")
	f(model.Prefix, "/foo%2E./admin", "/foo", "/app/sub/", "/app/admin")
	f(model.Prefix, "/foo../../../admin", "/foo../", "/app/", "/app/../../admin") // the request had it: normalisation is off
}

func TestFullRewrite(t *testing.T) {
	f := func(full, target, want string) {
		t.Helper()
		if got := rewrite(t, model.Prefix, "", model.PathRewrite{Full: full}, target); got != want {
			t.Errorf("%s to %s: got %s, want %s", target, full, got, want)
		}
	}
	f("/x", "/foo/bar?a=b", "/x?a=b")
	f("x", "/foo", "/x")
	f("//evil.example", "/foo", "/evil.example")
	f(`/\evil.example`, "/foo", "/evil.example")
	f("/x", "*", "*")
}

func TestRegexRewrite(t *testing.T) {
	f := func(pattern, substitution, target, want string) {
		t.Helper()
		w := model.PathRewrite{Regex: &model.RegexRewrite{Pattern: pattern, Substitution: substitution}}
		if got := rewrite(t, model.Prefix, "/", w, target); got != want {
			t.Errorf("%s, %s by %s: got %s, want %s", target, pattern, substitution, got, want)
		}
	}
	f(`^/service/([^/]+)(/.*)$`, `\2/instance/\1`, "/service/foo/v1/api?x=1", "/v1/api/instance/foo?x=1")
	f(`one`, `two`, "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz")
	f(`^(.*?)one(.*)$`, `\1two\2`, "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz")
	f(`(?i)/xxx/`, `/yyy/`, "/aaa/XxX/bbb", "/aaa/yyy/bbb")
	f(`^/nothing`, `/x`, "/foo", "/foo")
	f(`^/foo`, ``, "/foo", "/")
	f(`^/foo`, ``, "/foo//evil.example", "/evil.example")
	f(`^/(a)?b`, `/[\1]\0`, "/b", "/[]/b")
	f(`b`, `\\$1`, "/b", "/$1")
	f(`c`, `\\$1`, "/b/c", `/b/\$1`)
	f(`^/foo`, `/app/`, "/foo../admin", "/admin")
}

func TestBadRewrites(t *testing.T) {
	empty, space := "", "/a b"
	f := func(w model.Rewrite, want string) {
		t.Helper()
		_, err := NewRewrite(&w)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	f(model.Rewrite{Authority: "a\r\nb"}, "authority")
	f(model.Rewrite{Path: &model.PathRewrite{Full: "/a\nb"}}, "control character")
	f(model.Rewrite{Path: &model.PathRewrite{Prefix: &space}}, "space")
	f(model.Rewrite{Path: &model.PathRewrite{Regex: &model.RegexRewrite{Pattern: "("}}}, "regular expression")
	f(model.Rewrite{Path: &model.PathRewrite{Regex: &model.RegexRewrite{Pattern: "(a)", Substitution: `\2`}}}, "1 groups")
	f(model.Rewrite{Path: &model.PathRewrite{Regex: &model.RegexRewrite{Pattern: "a", Substitution: `\x`}}}, "neither")
	f(model.Rewrite{Path: &model.PathRewrite{Regex: &model.RegexRewrite{Pattern: "a", Substitution: `a\`}}}, "backslash")
	for _, w := range []*model.Rewrite{nil, {}, {Path: &model.PathRewrite{}}, {Path: &model.PathRewrite{Prefix: &empty}}} {
		c, err := NewRewrite(w)
		if err != nil {
			t.Fatal(err)
		}
		r := request(t, "GET a /p?q")
		c.Apply(r, 0, false, &Scratch{})
		if string(r.Authority()) != "a" || string(r.Path()) != "/p" {
			t.Errorf("%+v changed the request to %s%s", w, r.Authority(), r.Path())
		}
	}
}

func TestAuthorityRewrite(t *testing.T) {
	c, err := NewRewrite(&model.Rewrite{Authority: "b.example"})
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, "GET a:80 /p?q")
	c.Apply(r, 1, false, &Scratch{})
	if got := string(r.Authority()) + string(r.Path()) + string(r.Query()); got != "b.example/p?q" {
		t.Errorf("got %s", got)
	}
}

func TestRewriteDoesNotAllocate(t *testing.T) {
	prefix := "/xyz"
	for name, w := range map[string]model.Rewrite{
		"full":               {Authority: "b", Path: &model.PathRewrite{Full: "/x"}},
		"prefix":             {Path: &model.PathRewrite{Prefix: &prefix}},
		"unmatched regex":    {Path: &model.PathRewrite{Regex: &model.RegexRewrite{Pattern: "^/no/(.*)", Substitution: `/\1`}}},
		"nothing to rewrite": {},
	} {
		c, err := NewRewrite(&w)
		if err != nil {
			t.Fatal(err)
		}
		r, s := request(t, "GET a /foo/bar"), &Scratch{}
		path := append([]byte(nil), r.Path()...)
		run := func() {
			r.Reset()
			r.SetPath(path)
			c.Apply(r, 4, true, s)
		}
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzRewrite holds what every rewrite promises: one slash at the front, no new dot segments.
func FuzzRewrite(f *testing.F) {
	f.Add("/foo../../x", "/app/", 4, false)
	f.Add("/foo//x/./..", "", 4, true)
	f.Add("/a/%2e%2E/b", "/..", 1, false)
	f.Fuzz(func(t *testing.T, old, replacement string, prefix int, segments bool) {
		c, err := newPath(&model.PathRewrite{Prefix: &replacement})
		if err != nil {
			return
		}
		for _, p := range []*path{c, {full: replacement + "x"}} {
			out, changed := p.rewrite([]byte("before"), []byte(old), prefix, segments)
			if !bytes.HasPrefix(out, []byte("before")) {
				t.Fatalf("%q lost what was before", out)
			}
			if out = out[len("before"):]; !changed {
				continue
			}
			if len(out) == 0 || out[0] != '/' || len(out) > 1 && (out[1] == '/' || out[1] == '\\') {
				t.Errorf("%q became %q", old, out)
			}
			if p.full == "" && hasDots(out) && !hasDots([]byte(old)) {
				t.Errorf("%q became %q", old, out)
			}
		}
	})
}

func BenchmarkRewrite(b *testing.B) {
	prefix := "/xyz"
	for name, w := range map[string]model.PathRewrite{
		"prefix": {Prefix: &prefix},
		"regex":  {Regex: &model.RegexRewrite{Pattern: "^/foo/(.*)$", Substitution: `/\1`}},
	} {
		b.Run(name, func(b *testing.B) {
			c, err := NewRewrite(&model.Rewrite{Path: &w})
			if err != nil {
				b.Fatal(err)
			}
			r, s, path := &message.Request{}, &Scratch{}, []byte("/foo/bar/some/thing")
			b.ReportAllocs()
			for b.Loop() {
				r.Reset()
				r.SetPath(path)
				c.Apply(r, 4, true, s)
			}
		})
	}
}
