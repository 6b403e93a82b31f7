package message

import (
	"fmt"
	"strings"
	"testing"
)

// load makes a Head as a codec does, of lines "name: value".
func load(t *testing.T, lines ...string) *Head {
	t.Helper()
	h := new(Head)
	raw := strings.Join(lines, "\r\n") + "\r\n\r\n"
	h.Load([]byte(raw))
	at := 0
	for _, line := range lines {
		name, rest, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("no colon in %q", line)
		}
		value := strings.TrimSpace(rest)
		off := at + len(name) + 1
		if value != "" {
			off += strings.Index(rest, value)
		}
		h.AppendAt(IdentifyString(name), at, len(name), off, len(value))
		at += len(line) + 2
	}
	return h
}

func list(h *Head) string {
	var b strings.Builder
	for i := range h.Len() {
		if _, name, value := h.Field(i); len(name) > 0 {
			fmt.Fprintf(&b, "%s=%s;", name, value)
		}
	}
	return b.String()
}

func TestHeadEdits(t *testing.T) {
	h := load(t, "X-A: 1", "Host:h", "x-a:  2 ", "Cookie: c", "X-B:", "Cookie: d")
	f := func(edit, want string) {
		t.Helper()
		if got := list(h); got != want {
			t.Errorf("%s: %s, want %s", edit, got, want)
		}
		// What is written is the list, line by line.
		lines := strings.NewReplacer("=", ": ", ";", "\r\n").Replace(want)
		if got := string(h.AppendLines([]byte("kept"), Other)); got != "kept"+lines {
			t.Errorf("%s: written %q, want %q", edit, got, lines)
		}
	}
	f("loaded", "X-A=1;Host=h;x-a=2;Cookie=c;X-B=;Cookie=d;")
	h.Set("x-A", "3")
	f("set, several", "X-A=3;Host=h;Cookie=c;X-B=;Cookie=d;")
	h.Set("x-a", "")
	f("set to nothing", "X-A=;Host=h;Cookie=c;X-B=;Cookie=d;")
	h.Set("x-c", "4")
	f("set, new", "X-A=;Host=h;Cookie=c;X-B=;Cookie=d;x-c=4;")
	h.SetBytes(Host, "host", []byte("i"))
	f("set a known one", "X-A=;Host=i;Cookie=c;X-B=;Cookie=d;x-c=4;")
	h.Add("x-a", "5")
	f("add", "X-A=;Host=i;Cookie=c;X-B=;Cookie=d;x-c=4;x-a=5;")
	h.Append(Other, []byte("X-D"), []byte("6"))
	f("append", "X-A=;Host=i;Cookie=c;X-B=;Cookie=d;x-c=4;x-a=5;X-D=6;")
	h.RemoveName("X-a")
	f("remove by name", "Host=i;Cookie=c;X-B=;Cookie=d;x-c=4;X-D=6;")
	h.Remove(Cookie)
	f("remove by id", "Host=i;X-B=;x-c=4;X-D=6;")
	h.Remove(Cookie)
	h.RemoveNamed(Other, []byte("x-d"))
	h.RemoveNamed(Cookie, []byte("cookie"))
	f("remove by name in bytes", "Host=i;X-B=;x-c=4;")
	h.Add("Cookie", "e")
	f("add what was removed", "Host=i;X-B=;x-c=4;Cookie=e;")
	if got := string(h.AppendLines(nil, Host)); got != "X-B: \r\nx-c: 4\r\nCookie: e\r\n" {
		t.Errorf("without Host: %q", got)
	}
	if got := string(h.AppendLines(nil, Date)); got != "Host: i\r\nX-B: \r\nx-c: 4\r\nCookie: e\r\n" {
		t.Errorf("without Date: %q", got)
	}
	for i := range h.Len() {
		h.RemoveAt(i)
	}
	f("remove all", "")
	h.Set("x-c", "7")
	f("set what was removed", "x-c=7;")
	h.Reset()
	f("reset", "")
	if _, ok := h.Get(Cookie); ok {
		t.Error("Cookie is there after Reset")
	}
}

func TestHeadLookups(t *testing.T) {
	h := load(t, "X-A: 1", "Cookie: c", "x-a: 2", "Cookie: d", "Date: e")
	if v, ok := h.Get(Cookie); !ok || string(v) != "c" {
		t.Errorf("Get: %q, %v", v, ok)
	}
	if _, ok := h.Get(Host); ok {
		t.Error("Get finds what is not there")
	}
	if v, ok := h.Lookup("x-A"); !ok || string(v) != "1" {
		t.Errorf("Lookup: %q, %v", v, ok)
	}
	if _, ok := h.Lookup("x-b"); ok {
		t.Error("Lookup finds what is not there")
	}
	if v, ok := h.LookupID(Date, "date"); !ok || string(v) != "e" {
		t.Errorf("LookupID: %q, %v", v, ok)
	}
	if v, ok := h.Values(nil, Cookie, "cookie"); !ok || string(v) != "c,d" {
		t.Errorf("Values: %q, %v", v, ok)
	}
	if v, ok := h.Values([]byte("z"), Other, "X-A"); !ok || string(v) != "z1,2" {
		t.Errorf("Values behind z: %q, %v", v, ok)
	}
	if v, ok := h.Values(nil, Date, "date"); !ok || string(v) != "e" || cap(v) != 1 {
		t.Errorf("Values of one: %q, %v", v, ok)
	}
	if _, ok := h.Values(nil, Host, "host"); ok {
		t.Error("Values finds what is not there")
	}
	h.RemoveAt(0)
	if v, ok := h.Lookup("x-a"); !ok || string(v) != "2" {
		t.Errorf("Lookup after RemoveAt: %q, %v", v, ok)
	}
	h.Remove(Cookie)
	if _, ok := h.Get(Cookie); ok {
		t.Error("Get finds what was removed")
	}
	if h.Footprint() < 50 {
		t.Errorf("footprint of %d bytes", h.Footprint())
	}
}

func TestIdentify(t *testing.T) {
	for id := Other + 1; id < idCount; id++ {
		name := id.String()
		if name == "" {
			t.Fatalf("ID %d has no name", id)
		}
		for _, n := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]} {
			if got := Identify([]byte(n)); got != id {
				t.Errorf("%s is %v", n, got)
			}
			if got := IdentifyString(n); got != id {
				t.Errorf("%s is %v as a string", n, got)
			}
		}
		// Another byte anywhere makes another name, above all one that differs in the folding bit alone.
		for i := range len(name) {
			for _, c := range []byte{name[i] ^ 0x20, name[i] ^ 1, name[i] ^ 0x80, name[i] ^ 0x40, 0, '\r', '_'} {
				n := []byte(name)
				n[i] = c
				want := Other
				if EqualFold(n, name) {
					want = id
				}
				for other := Other + 1; other < idCount; other++ {
					if EqualFold(n, other.String()) {
						want = other
					}
				}
				if got := Identify(n); got != want {
					t.Errorf("%q is %v, want %v", n, got, want)
				}
			}
		}
		for _, n := range []string{name + "x", "x" + name, name[1:], name[:len(name)-1]} {
			if got := IdentifyString(n); got == id {
				t.Errorf("%s is %v", n, got)
			}
		}
	}
	for _, n := range []string{"", "x", strings.Repeat("x", 31), strings.Repeat("x", 32), strings.Repeat("x", 1000), "x-custom-header"} {
		if got := IdentifyString(n) + Identify([]byte(n)); got != Other {
			t.Errorf("%q is %v", n, got)
		}
	}
}

func TestRequestAndResponseParts(t *testing.T) {
	var r Request
	b := r.Load([]byte("GET /a?b h\r\n\r\n"))
	r.SetMethodAt(0, 3)
	r.SetPathAt(4, 2)
	r.SetQueryAt(6, 2)
	r.SetAuthorityAt(9, 1)
	b[0] = 'g' // the request's own bytes, not the codec's
	if string(r.Method()) != "gET" || string(r.Path()) != "/a" || string(r.Query()) != "?b" || string(r.Authority()) != "h" {
		t.Errorf("%q %q %q %q", r.Method(), r.Path(), r.Query(), r.Authority())
	}
	r.SetMethod([]byte("PUT"))
	r.SetScheme([]byte("https"))
	r.SetAuthority([]byte("i"))
	r.SetPath([]byte("/c"))
	r.SetQuery([]byte("?d"))
	r.SetUpgradeTo([]byte("websocket"))
	r.Add("a", "b")
	if string(r.Method()) != "PUT" || string(r.Scheme()) != "https" || string(r.Authority()) != "i" || string(r.Path()) != "/c" || string(r.Query()) != "?d" ||
		string(r.UpgradeTo()) != "websocket" || !r.Upgrade {
		t.Errorf("%q %q %q %q %q", r.Method(), r.Scheme(), r.Authority(), r.Path(), r.Query())
	}
	r.SetUpgradeTo(nil)
	if r.Upgrade {
		t.Error("an upgrade to nothing")
	}
	r.Close, r.BodyLength = true, 5
	r.Reset()
	if r.Len() != 0 || r.Close || r.BodyLength != NoBody || len(r.Path()) != 0 || r.Footprint() == 0 {
		t.Errorf("after Reset: %+v", r)
	}
	var p Response
	p.Load([]byte("OK\r\n"))
	p.SetReasonAt(0, 2)
	p.SetUpgradeTo([]byte("x"))
	if string(p.Reason()) != "OK" || string(p.UpgradeTo()) != "x" {
		t.Errorf("%q %q", p.Reason(), p.UpgradeTo())
	}
	p.SetReason([]byte("No"))
	if string(p.Reason()) != "No" {
		t.Errorf("%q", p.Reason())
	}
	p.Reset()
	if len(p.Reason()) != 0 || len(p.UpgradeTo()) != 0 {
		t.Errorf("after Reset: %+v", p)
	}
}

func TestEqualFold(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"a", "A", true}, {"Host", "hOST", true}, {"a", "b", false}, {"a", "ab", false}, {"@", "`", false}, {"[", "{", false}, {"-", "\r", false},
	} {
		if got := EqualFold([]byte(c.a), c.b); got != c.want {
			t.Errorf("EqualFold %q %q: %v", c.a, c.b, got)
		}
		if got := EqualFoldBytes([]byte(c.a), []byte(c.b)); got != c.want {
			t.Errorf("EqualFoldBytes %q %q: %v", c.a, c.b, got)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	var r Request
	var dst []byte
	value := []byte("value")
	path := []byte("/a/./b")
	run := func() {
		r.Reset()
		r.Load([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
		r.SetPath(path)
		if err := r.NormalizePath(BasePath); err != nil {
			t.Fatal(err)
		}
		r.Append(Other, value, value)
		r.Set("x-request-id", "1")
		r.SetBytes(Other, "value", path)
		r.Remove(XRequestID)
		_, _ = r.Lookup("value")
		_ = IdentifyString("x-envoy-upstream-service-time")
		dst = r.AppendLines(dst[:0], Other)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkIdentify(b *testing.B) {
	names := make([][]byte, 0, 10)
	for _, n := range []string{
		"Host", "User-Agent", "Accept", "Accept-Encoding", "Content-Type", "Content-Length", "X-Request-Id", "X-Forwarded-Proto", "Traceparent", "Cookie",
	} {
		names = append(names, []byte(n))
	}
	for b.Loop() {
		for _, n := range names {
			_ = Identify(n)
		}
	}
}

// A copy says the same and shares nothing with the original.
func TestRequestCopy(t *testing.T) {
	var o, c Request
	c.Set("x-old", "gone")
	o.SetMethod([]byte("POST"))
	o.SetPath([]byte("/a"))
	o.SetAuthority([]byte("app"))
	o.Add("x-field", "1")
	o.Add("content-type", "text/plain")
	o.BodyLength, o.Trailers = 7, true
	c.CopyFrom(&o)
	o.Set("x-field", "2")
	c.Set("content-type", "text/html")
	if v, _ := c.Lookup("x-field"); string(v) != "1" {
		t.Errorf("the copy has x-field %q", v)
	}
	if v, _ := o.Get(ContentType); string(v) != "text/plain" {
		t.Errorf("the original has content-type %q", v)
	}
	if _, ok := c.Lookup("x-old"); ok || string(c.Method()) != "POST" || string(c.Path()) != "/a" || string(c.Authority()) != "app" || c.BodyLength != 7 || !c.Trailers {
		t.Errorf("got %+v", &c)
	}
}
