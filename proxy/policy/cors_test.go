package policy

import (
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

func seconds(n int) *model.Duration {
	d := model.Duration(n) * 1e9
	return &d
}

func TestCORS(t *testing.T) {
	c := model.CORS{
		AllowOrigins: []model.StringMatch{{Kind: model.Exact, Value: "https://a.example"}, {Kind: model.Regex, Value: `https://.*\.b\.example`}},
		AllowMethods: []string{"GET", "PUT"}, AllowHeaders: []string{"x-a", "x-b"}, ExposeHeaders: []string{"x-c"},
		MaxAge: seconds(90), AllowCredentials: true,
	}
	preflight := func(c model.CORS, line string, fields ...string) (bool, string) {
		t.Helper()
		p, err := NewCORS(&c)
		if err != nil {
			t.Fatal(err)
		}
		var resp message.Response
		ok := p.Preflight(request(t, line, fields...), &resp)
		if ok && resp.Status != 200 {
			t.Errorf("status %d", resp.Status)
		}
		return ok, dump(&resp.Head)
	}
	f := func(c model.CORS, origin string, handled bool, want string) {
		t.Helper()
		ok, got := preflight(c, "OPTIONS a /", "origin: "+origin, "Access-Control-Request-Method: PUT", "access-control-request-headers: x-q,x-r")
		if ok != handled || got != want {
			t.Errorf("%s: handled %v\n%s", origin, ok, got)
		}
	}
	all := "access-control-allow-credentials: true\naccess-control-allow-methods: GET,PUT\naccess-control-allow-headers: x-a,x-b\naccess-control-max-age: 90\naccess-control-expose-headers: x-c\n"
	f(c, "https://a.example", true, "access-control-allow-origin: https://a.example\n"+all)
	f(c, "https://x.b.example", true, "access-control-allow-origin: https://x.b.example\n"+all)
	f(c, "https://c.example", false, "")
	f(c, "https://a.example.evil", false, "")
	c.RefuseUnmatched = true
	f(c, "https://c.example", true, "")
	f(model.CORS{AllowOrigins: []model.StringMatch{{Kind: model.Exact, Value: "*"}}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}}, "https://c.example", true,
		"access-control-allow-origin: https://c.example\naccess-control-allow-methods: PUT\naccess-control-allow-headers: x-q,x-r\n")
	f(model.CORS{AllowOrigins: []model.StringMatch{{Kind: model.Exact, Value: "*"}}, AllowMethods: []string{"GET", "*"}, AllowHeaders: []string{"x-a", "*"}, MaxAge: seconds(0)}, "https://c.example", true,
		"access-control-allow-origin: https://c.example\naccess-control-allow-methods: GET,*\naccess-control-allow-headers: x-a,*\naccess-control-max-age: 0\n")
	f(model.CORS{}, "https://c.example", false, "")

	for _, fields := range [][]string{nil, {"origin: https://a.example"}, {"access-control-request-method: GET"}, {"origin: ", "access-control-request-method: GET"}} {
		if ok, _ := preflight(c, "OPTIONS a /", fields...); ok {
			t.Errorf("%v is a preflight", fields)
		}
	}
	if ok, _ := preflight(c, "GET a /", "origin: https://a.example", "access-control-request-method: GET"); ok {
		t.Error("a GET is a preflight")
	}
	if _, err := NewCORS(&model.CORS{AllowMethods: []string{"a\r\nb"}}); err == nil {
		t.Error("a method with a line's end is taken")
	}
	if _, err := NewCORS(&model.CORS{AllowOrigins: []model.StringMatch{{Kind: model.Regex, Value: "("}}}); err == nil {
		t.Error("a bad expression is taken")
	}
}

func TestCORSMark(t *testing.T) {
	p, err := NewCORS(&model.CORS{
		AllowOrigins:  []model.StringMatch{{Kind: model.Prefix, Value: "https://a."}},
		ExposeHeaders: []string{"x-c", "x-d"}, AllowMethods: []string{"GET"}, AllowCredentials: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var resp message.Response
	f := func(origin, want string) {
		t.Helper()
		resp.Reset()
		resp.Add("access-control-allow-origin", "*")
		p.Mark([]byte(origin), &resp)
		if got := dump(&resp.Head); got != want {
			t.Errorf("%s: got\n%s", origin, got)
		}
	}
	f("https://a.example", "access-control-allow-origin: https://a.example\naccess-control-allow-credentials: true\naccess-control-expose-headers: x-c,x-d\n")
	f("https://b.example", "access-control-allow-origin: *\n")
	f("", "access-control-allow-origin: *\n")

	var none *CORS
	none.Mark([]byte("https://a.example"), &resp)
	if none.Preflight(request(t, "OPTIONS a /", "origin: x", "access-control-request-method: GET"), &resp) {
		t.Error("nil answers")
	}
	origin := []byte("https://a.example")
	r := request(t, "OPTIONS a /", "origin: https://a.example", "access-control-request-method: GET")
	run := func() {
		resp.Reset()
		p.Mark(origin, &resp)
		resp.Reset()
		p.Preflight(r, &resp)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
