package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

// request makes a request from "METHOD authority path[?query]" and "name: value" fields.
func request(t testing.TB, line string, fields ...string) *message.Request {
	t.Helper()
	part := strings.Split(line, " ")
	if len(part) != 3 {
		t.Fatalf("bad request line %q", line)
	}
	r := &message.Request{}
	r.SetMethod([]byte(part[0]))
	r.SetAuthority([]byte(part[1]))
	p, q, ok := strings.Cut(part[2], "?")
	r.SetPath([]byte(p))
	if ok {
		r.SetQuery([]byte("?" + q))
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Add(name, value)
	}
	return r
}

func dump(h *message.Head) string {
	var b strings.Builder
	for i := range h.Len() {
		if _, name, value := h.Field(i); len(name) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	return b.String()
}

func TestEdits(t *testing.T) {
	f := func(name string, e model.HeaderEdits, authority string, want ...string) {
		t.Helper()
		r := request(t, "GET a:80 /", "X-A: 1", "x-b: 2", "x-a: 3", "connection: close", "content-length: 5")
		NewEdits(e).Request(r)
		if got := dump(&r.Head); got != strings.Join(want, "\n")+"\n" {
			t.Errorf("%s: got\n%s", name, got)
		}
		if got := string(r.Authority()); got != authority {
			t.Errorf("%s: authority %q", name, got)
		}
	}
	nv := func(s ...string) (l []model.NameValue) {
		for i := 0; i < len(s); i += 2 {
			l = append(l, model.NameValue{Name: s[i], Value: s[i+1]})
		}
		return l
	}
	rest := []string{"connection: close", "content-length: 5"}
	f("nothing", model.HeaderEdits{}, "a:80", append([]string{"X-A: 1", "x-b: 2", "x-a: 3"}, rest...)...)
	f("remove in any case", model.HeaderEdits{Remove: []string{"x-A"}}, "a:80", append([]string{"x-b: 2"}, rest...)...)
	f("set replaces all", model.HeaderEdits{Set: nv("x-a", "9")}, "a:80", append([]string{"X-A: 9", "x-b: 2"}, rest...)...)
	f("add stands beside", model.HeaderEdits{Add: nv("x-b", "9", "x-b", "10")}, "a:80",
		append(append([]string{"X-A: 1", "x-b: 2", "x-a: 3"}, rest...), "x-b: 9", "x-b: 10")...)
	f("remove, set, add in that order", model.HeaderEdits{Remove: []string{"x-a", "x-b"}, Set: nv("x-a", "s"), Add: nv("x-a", "t")}, "a:80",
		append(rest[:len(rest):len(rest)], "x-a: s", "x-a: t")...)
	f("authority by host", model.HeaderEdits{Set: nv("Host", "b")}, "b", append([]string{"X-A: 1", "x-b: 2", "x-a: 3"}, rest...)...)
	f("authority by pseudo-header", model.HeaderEdits{Set: nv(":authority", "c:1")}, "c:1", append([]string{"X-A: 1", "x-b: 2", "x-a: 3"}, rest...)...)
}

func TestEditsNeverTouchFraming(t *testing.T) {
	for _, name := range []string{
		"Connection", "content-length", "Transfer-Encoding", "upgrade", "TE", "Trailer", "Keep-Alive",
		"Proxy-Connection", "Expect", "HTTP2-Settings", ":path", ":method", "bad name", "a:b", "", "x\r\ny",
	} {
		v := []model.NameValue{{Name: name, Value: "1"}}
		if NewEdits(model.HeaderEdits{Remove: []string{name}, Set: v, Add: v}) != nil {
			t.Errorf("%q can be edited", name)
		}
	}
	if NewEdits(model.HeaderEdits{Remove: []string{"host", ":authority"}}) != nil {
		t.Error("the authority can be removed")
	}
	for _, value := range []string{"a\r\nb: c", "a\x00", "\n"} {
		if NewEdits(model.HeaderEdits{Set: []model.NameValue{{Name: "x-a", Value: value}, {Name: "host", Value: value}}}) != nil {
			t.Errorf("value %q can be set", value)
		}
	}
}

func TestResponseEdits(t *testing.T) {
	var r message.Response
	r.Add("server", "x")
	NewEdits(model.HeaderEdits{
		Remove: []string{"Server"},
		Set:    []model.NameValue{{Name: "x-a", Value: "1"}, {Name: "host", Value: "no"}},
	}).Response(&r)
	if got := dump(&r.Head); got != "x-a: 1\n" {
		t.Errorf("got %q", got)
	}
	(*Edits)(nil).Response(&r)
	(*Edits)(nil).Request(&message.Request{})
}

func TestEditsDoNotAllocate(t *testing.T) {
	e := NewEdits(model.HeaderEdits{
		Remove: []string{"x-a", "cookie"},
		Set:    []model.NameValue{{Name: "x-b", Value: "1"}, {Name: "host", Value: "b"}},
		Add:    []model.NameValue{{Name: "x-c", Value: "2"}},
	})
	var r message.Request
	run := func() {
		r.Reset()
		r.Add("x-a", "1")
		r.Add("cookie", "a=b")
		r.Add("x-b", "0")
		e.Request(&r)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEdits(b *testing.B) {
	e := NewEdits(model.HeaderEdits{Remove: []string{"x-a"}, Set: []model.NameValue{{Name: "x-b", Value: "1"}}, Add: []model.NameValue{{Name: "x-c", Value: "2"}}})
	var r message.Request
	b.ReportAllocs()
	for b.Loop() {
		r.Reset()
		r.Add("x-a", "1")
		r.Add("x-b", "0")
		e.Request(&r)
	}
}
