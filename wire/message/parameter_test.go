package message

import (
	"net/url"
	"strings"
	"testing"
)

func TestParameter(t *testing.T) {
	f := func(query, name, want string, there bool) {
		t.Helper()
		var r Request
		r.SetQuery([]byte(query))
		if v, ok := r.Parameter(name); string(v) != want || ok != there {
			t.Errorf("%s of %s: %q, %v", name, query, v, ok)
		}
	}
	f("", "a", "", false)
	f("?", "a", "", false)
	f("?a", "a", "", true)
	f("?a=", "a", "", true)
	f("?a=1", "a", "1", true)
	f("?b=2&a=1&a=3", "a", "1", true)
	f("?ab=2&a=1", "a", "1", true)
	f("?ba=2", "a", "", false)
	f("?a=b=c&d", "a", "b=c", true)
	f("?&&a=1&", "a", "1", true)
	f("?a=%20+", "a", "%20+", true)
	f("?%61=1", "a", "", false)
	f("?x=?a=1", "a", "", false)
}

// FuzzParameter holds Parameter against net/url on queries without escapes and semicolons, which net/url reads otherwise.
func FuzzParameter(f *testing.F) {
	f.Add("a=1&b&c=2", "c")
	f.Fuzz(func(t *testing.T, query, name string) {
		if name == "" || strings.ContainsAny(query+name, "%+;&=") && strings.ContainsAny(name+strings.NewReplacer("&", "", "=", "").Replace(query), "%+;&=") {
			return
		}
		var r Request
		r.SetQuery([]byte("?" + query))
		got, ok := r.Parameter(name)
		want, _ := url.ParseQuery(query)
		if ok != want.Has(name) || string(got) != want.Get(name) {
			t.Errorf("%q of %q: %q, %v; net/url has %q", name, query, got, ok, want[name])
		}
	})
}
