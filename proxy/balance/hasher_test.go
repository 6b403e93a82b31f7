package balance

import (
	"bytes"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

func requestOf(query string, fields ...string) *message.Request {
	r := &message.Request{}
	r.SetAuthority([]byte("a:80"))
	r.SetPath([]byte("/"))
	r.SetQuery([]byte(query))
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Add(name, value)
	}
	return r
}

func TestHasher(t *testing.T) {
	ttl := model.Duration(0)
	v4 := netip.MustParseAddr("10.0.0.7")
	f := func(h model.HashKey, r *message.Request, source netip.Addr, want ...string) {
		t.Helper()
		rnd := NewRand(1)
		k, set := NewHasher(&h).Key(r, source, &rnd, &Scratch{})
		if set != nil {
			t.Errorf("%+v: a cookie: %s", h, set)
		}
		if k.Has != (len(want) == 1) || k.Has && k.Hash != xxhash.Sum64String(want[0]) {
			t.Errorf("%+v: got %+v, want the hash of %q", h, k, want)
		}
	}
	header := model.HashKey{Header: "x-user"}
	f(header, requestOf("", "X-User: ann"), v4, "ann")
	f(header, requestOf("", "x-user: "), v4, "")
	f(header, requestOf("", "x-user: b", "x-user: a", "x-usher: q"), v4, "ab")
	f(header, requestOf("", "x-user: a", "x-user: b"), v4, "ab")
	f(header, requestOf(""), v4)
	f(model.HashKey{Header: "user-agent"}, requestOf("", "User-Agent: curl"), v4, "curl")
	f(model.HashKey{Header: "host"}, requestOf(""), v4, "a:80")
	f(model.HashKey{Header: ":authority"}, &message.Request{}, v4)

	query := model.HashKey{Query: "id"}
	f(query, requestOf("?a=b&id=7%20&id=8"), v4, "7%20")
	f(query, requestOf("?id"), v4, "")
	f(query, requestOf("?ids=1"), v4)
	f(query, requestOf(""), v4)

	source := model.HashKey{SourceIP: true}
	f(source, requestOf(""), v4, "10.0.0.7")
	f(source, requestOf(""), netip.MustParseAddr("::ffff:10.0.0.7"), "10.0.0.7")
	f(source, requestOf(""), netip.MustParseAddr("2001:DB8:0::1"), "2001:db8::1")
	f(source, requestOf(""), netip.MustParseAddr("fe80::1%eth0"), "fe80::1")
	f(source, requestOf(""), netip.Addr{})

	for _, c := range []model.Cookie{{Name: "user"}, {Name: "user", TTL: &ttl}} {
		cookie := model.HashKey{Cookie: &c}
		f(cookie, requestOf("", "cookie: user=ann"), v4, "ann")
		f(cookie, requestOf("", `cookie: a=b; user="ann"; user=bob`), v4, "ann")
		f(cookie, requestOf("", "cookie: xuser=a;  user = ann ;c"), v4, "ann")
		f(cookie, requestOf("", "cookie: a=user", "cookie: user=a=b"), v4, "a=b")
		f(cookie, requestOf("", `cookie: user="`), v4, `"`)
	}
	read := model.HashKey{Cookie: &model.Cookie{Name: "user"}}
	f(read, requestOf("", "cookie: a=b; user; User=x; user2=y"), v4)
	f(read, requestOf("", "cookie: user="), v4)
	f(read, requestOf("", `cookie: user=""`), v4)
	f(read, requestOf(""), v4)

	for _, h := range []*model.HashKey{nil, {}, {Cookie: &model.Cookie{}}} {
		if k, set := NewHasher(h).Key(requestOf(""), v4, nil, nil); k.Has || set != nil {
			t.Errorf("%+v has a key", h)
		}
	}
}

func TestGeneratedCookie(t *testing.T) {
	f := func(c model.Cookie, want string) {
		t.Helper()
		h, rnd, s := NewHasher(&model.HashKey{Cookie: &c}), NewRand(1), &Scratch{}
		k, set := h.Key(requestOf("", "cookie: other=1; user="), netip.Addr{}, &rnd, s)
		head, tail, _ := strings.Cut(string(set), `"; `)
		value, ok := strings.CutPrefix(head, `user="`)
		if !ok || len(value) != 16 || tail != want {
			t.Fatalf("got %s, want user=\"16 digits\"; %s", set, want)
		}
		// The client's next request, with the cookie, has the same key.
		again, none := h.Key(requestOf("", "cookie: user="+value), netip.Addr{}, &rnd, s)
		if !k.Has || again != k || none != nil {
			t.Errorf("key %+v with the cookie, %+v without; again %s", again, k, none)
		}
		if other, _ := h.Key(requestOf(""), netip.Addr{}, &rnd, s); other == k {
			t.Error("two clients got one cookie")
		}
	}
	ttl := func(d time.Duration) *model.Duration { return (*model.Duration)(&d) }
	f(model.Cookie{Name: "user", TTL: ttl(0)}, "HttpOnly")
	f(model.Cookie{Name: "user", TTL: ttl(500 * time.Millisecond)}, "HttpOnly")
	f(model.Cookie{Name: "user", TTL: ttl(90 * time.Second)}, "Max-Age=90; HttpOnly")
	f(model.Cookie{Name: "user", Path: "/a", TTL: ttl(time.Hour + time.Millisecond)}, "Max-Age=3600; Path=/a; HttpOnly")
	f(model.Cookie{Name: "user", Path: "/", TTL: ttl(0), Attributes: []model.NameValue{{Name: "SameSite", Value: "Strict"}, {Name: "Secure"}}},
		"Path=/; SameSite=Strict; Secure; HttpOnly")
}

func TestCookieIsWellFormed(t *testing.T) {
	d := model.Duration(time.Minute)
	rnd := NewRand(9)
	_, set := NewHasher(&model.HashKey{Cookie: &model.Cookie{Name: "user", Path: "/", TTL: &d}}).Key(requestOf(""), netip.Addr{}, &rnd, &Scratch{})
	c, err := http.ParseSetCookie(string(set))
	if err != nil || c.Name != "user" || c.MaxAge != 60 || c.Path != "/" || !c.HttpOnly {
		t.Errorf("%s reads as %+v, %v", set, c, err)
	}
}

func TestHasherDoesNotAllocate(t *testing.T) {
	d := model.Duration(time.Minute)
	r := requestOf("?a=b&id=7", "x-user: b", "x-user: a", "cookie: a=b; c=d")
	rnd, s, source := NewRand(1), &Scratch{}, netip.MustParseAddr("2001:db8::1")
	for name, h := range map[string]model.HashKey{
		"header": {Header: "x-user"}, "query": {Query: "id"}, "source": {SourceIP: true},
		"cookie": {Cookie: &model.Cookie{Name: "c"}}, "new cookie": {Cookie: &model.Cookie{Name: "n", Path: "/", TTL: &d}},
	} {
		c := NewHasher(&h)
		run := func() {
			if k, _ := c.Key(r, source, &rnd, s); !k.Has {
				t.Fatal(name, "has no key")
			}
		}
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzCookie holds the parser against net/http's, which knows fewer values but agrees on those that it knows.
func FuzzCookie(f *testing.F) {
	f.Add("a=b; user=x", "user=y")
	f.Add(`user="q w"`, ";;;=;user")
	f.Fuzz(func(t *testing.T, one, two string) {
		r := requestOf("")
		r.Append(message.Cookie, []byte("cookie"), []byte(one))
		r.Append(message.Cookie, []byte("Cookie"), []byte(two))
		got := cookie(r, "user")
		std := http.Request{Header: http.Header{"Cookie": {one, two}}}
		all := std.CookiesNamed("user")
		if len(all) == 0 || strings.ContainsAny(one+two, "\t\r\n\v\f") || !isASCII(one+two) {
			return
		}
		for _, c := range all {
			if bytes.Equal(got, []byte(c.Value)) {
				return
			}
		}
		// Ours may be one that net/http refuses; it must then be there.
		if !strings.Contains(one+"\n"+two, string(got)) {
			t.Errorf("%q, %q: got %q, net/http %v", one, two, got, all)
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

func BenchmarkHasher(b *testing.B) {
	h := NewHasher(&model.HashKey{Cookie: &model.Cookie{Name: "user"}})
	r, rnd, s := requestOf("", "accept: */*", "cookie: a=b; user=ann"), NewRand(1), &Scratch{}
	b.ReportAllocs()
	for b.Loop() {
		h.Key(r, netip.Addr{}, &rnd, s)
	}
}
