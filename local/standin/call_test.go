package standin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest"
)

// sidecar answers some services itself, and has ratings answer the others.
func sidecar(t *testing.T, ratings *App) (address string) {
	t.Helper()
	h := newHandler(ratings, 9080)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "nowhere" {
			w.Header().Set(reasonHeader, "no_route")
			refuse(w, codes.Unavailable, "nothing is 100 % there")
			return
		}
		h.ServeHTTP(w, r)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestGRPCCalls(t *testing.T) {
	ratings := New(Options{Namespace: "default", Workload: "ratings", Instance: "ratings-0"}, Role{})
	o := web("i")
	o.Proxy = sidecar(t, ratings)
	calls, err := ParseCalls("grpc://ratings:9080/, grpc://ratings:9080/acme.Cart/Get grpc://nowhere/ http://ratings:9080/h")
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, o, Role{Calls: calls}, Port{Port: 1, Protocol: model.HTTP}, Port{Port: 2, Protocol: model.GRPC})
	f := func(got answer) {
		t.Helper()
		if len(got.Calls) != len(calls) {
			t.Fatalf("%d calls: %s", len(got.Calls), got.Calls)
		}
		var nested answer
		if err := json.Unmarshal(got.Calls[0], &nested); err != nil {
			t.Fatalf("%v: %s", err, got.Calls[0])
		}
		if nested.Instance != "ratings-0" || nested.Port != 9080 || nested.Method != "POST" || nested.Host != "ratings:9080" || nested.Path != echoMethod || nested.Calls == nil {
			t.Errorf("nested answer: %s", got.Calls[0])
		}
		if h := nested.Headers; h["x-request-id"] != "7" || h["traceparent"] != "tp" || h["x-b3-traceid"] != "t" || h["end-user"] != "jason" || h["authorization"] != "" || h["outrider-stand-in"] != "" {
			t.Errorf("what is passed on: %v", h)
		}
		for i, want := range []string{
			`{"url":"grpc://ratings:9080/acme.Cart/Get","status":0,"code":"OK","instance":"default/ratings-0"}`,
			`{"url":"grpc://nowhere/","status":14,"code":"UNAVAILABLE","reason":"no_route","error":"nothing is 100 % there"}`,
		} {
			var a, b any
			if err := json.Unmarshal([]byte(want), &a); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(got.Calls[i+1], &b); err != nil || !reflect.DeepEqual(a, b) {
				t.Errorf("got  %s\nwant %s", got.Calls[i+1], want)
			}
		}
		if err := json.Unmarshal(got.Calls[3], &nested); err != nil || nested.Path != "/h" || nested.Method != "GET" {
			t.Errorf("by HTTP: %s", got.Calls[3])
		}
	}
	_, body := do(t, request(t, "GET", "http://"+a.Address(1)+"/", "X-Request-Id: 7", "Traceparent: tp", "X-B3-TraceId: t", "End-User: jason", "Authorization: secret", "Outrider-Stand-In: delay=1ms"), http1)
	var got answer
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	f(got)
	conn := dial(t, a, 2, "i")
	e, err := unary(t, conn, "x-request-id", "7", "traceparent", "tp", "x-b3-traceid", "t", "end-user", "jason", "authorization", "secret", "outrider-stand-in", "delay=1ms")
	if err != nil {
		t.Fatal(err)
	}
	f(e.answer)

	chat := open(t, conn, "/"+echoService+"/Chat", true, true)
	for i, want := range []int{len(calls), 0} {
		if err := chat.SendMsg(ask("")); err != nil {
			t.Fatal(err)
		}
		if e := receive(t, chat); len(e.Calls) != want {
			t.Errorf("answer %d tells of %d calls, want %d", i, len(e.Calls), want)
		}
	}
	if err := chat.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := chat.RecvMsg(schema().newResponse()); err == nil {
		t.Error("one answer too many")
	}
}

// TestNestedAnswersKeepTheirForm: what an HTTP stand-in nests of a gRPC one is what that one would say by HTTP.
func TestNestedAnswersKeepTheirForm(t *testing.T) {
	last := start(t, Options{Namespace: "n", Workload: "last", Instance: "last-0", Version: "v2"}, Role{}, Port{Port: 3, Protocol: model.HTTP})
	middle := start(t, Options{Namespace: "n", Workload: "middle", Instance: "middle-0"},
		Role{Calls: []string{"http://" + last.Address(3) + "/x?y"}}, Port{Port: 2, Protocol: model.GRPC})
	first := start(t, web("i"), Role{Calls: []string{"grpc://" + middle.Address(2)}}, Port{Port: 1, Protocol: model.HTTP})
	_, body := do(t, request(t, "GET", "http://"+first.Address(1)+"/"), http1)
	var outer, inner, innermost answer
	if err := json.Unmarshal(body, &outer); err != nil || len(outer.Calls) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	want := `{"workload":"middle","namespace":"n","instance":"middle-0","version":"","port":2,` +
		`"method":"POST","host":"` + middle.Address(2) + `","path":"/outrider.echo.v1.Echo/Echo","headers":{"content-type":"application/grpc",`
	if !strings.HasPrefix(string(outer.Calls[0]), want) {
		t.Errorf("got  %s\nwant %s…", outer.Calls[0], want)
	}
	if err := json.Unmarshal(outer.Calls[0], &inner); err != nil || len(inner.Calls) != 1 {
		t.Fatalf("%v: %s", err, outer.Calls[0])
	}
	if err := json.Unmarshal(inner.Calls[0], &innermost); err != nil || innermost.Workload != "last" || innermost.Port != 3 || innermost.Path != "/x?y" || innermost.Version != "v2" {
		t.Errorf("%v: %s", err, inner.Calls[0])
	}
}

// TestCalledLater: a callee that comes back is called again soon, and a caller's deadline is the call's.
func TestCalledLater(t *testing.T) {
	late, address := start(t, web("late"), Role{}), meshtest.Address(t)
	a := start(t, web("i"), Role{Calls: []string{"grpc://" + address}}, Port{Port: 1, Protocol: model.GRPC})
	conn := dial(t, a, 1, "i")
	call := func() string {
		t.Helper()
		e, err := unary(t, conn)
		if err != nil || len(e.Calls) != 1 {
			t.Fatal(e, err)
		}
		return string(e.Calls[0])
	}
	if got := call(); !strings.Contains(got, `"UNAVAILABLE"`) {
		t.Errorf("nobody is there: %s", got)
	}
	if _, err := late.Serve(Port{Port: 1, Protocol: model.GRPC}, listen(t, address)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(call(), `"late"`); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is never called again")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	out := schema().newResponse()
	if err := conn.Invoke(ctx, echoMethod, ask(""), out); err != nil {
		t.Fatal(err)
	}
	var nested answer
	if e := read(t, out); json.Unmarshal(e.Calls[0], &nested) != nil || nested.Headers["grpc-timeout"] == "" {
		t.Errorf("the caller's deadline is not the call's: %s", e.Calls[0])
	}
}

func TestParseCalls(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, " http://a/ ,https://b:1/c?d\n": 2, "grpc://a": 1, "grpc://a:1/,grpc://a/b.C/D": 2,
	} {
		if got, err := ParseCalls(text); err != nil || len(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, bad := range []string{"a:1", "http://", "grpc:///b.C/D", "grpc://a/b", "grpc://a/b/c/d", "grpc://a//", "grpc://a/b.C/D?e", "grpc://u@a/", "ftp://a/", "http://a b/%zz"} {
		if got, err := ParseCalls(bad); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
	if _, err := ParseCalls("grpc://a/b"); err == nil || !strings.Contains(err.Error(), "package.Service/Method") {
		t.Errorf("what to write instead: %v", err)
	}
}

func TestCallsAreBounded(t *testing.T) {
	a := New(web("i"), Role{})
	for range maxCalls {
		a.calling <- struct{}{}
	}
	for _, target := range []string{"grpc://a/", "http://a/"} {
		got := string(newHandler(a, 1).call(t.Context(), nil, nil, target))
		if !json.Valid([]byte(got)) || !strings.Contains(got, fmt.Sprintf("%d calls are under way", maxCalls)) {
			t.Error(got)
		}
	}
}
