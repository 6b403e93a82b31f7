package standin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// answer is the contract's form.
type answer struct {
	Workload, Namespace, Instance, Version string
	Port                                   int
	Method, Host, Path                     string
	Headers                                map[string]string
	Calls                                  []json.RawMessage
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func start(t *testing.T, o Options, r Role, ports ...Port) *App {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	a := New(o, r)
	for _, p := range ports {
		if _, err := a.Serve(p, listen(t, "127.0.0.1:0")); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return a
}

func web(instance string) Options {
	return Options{Namespace: "default", Workload: "reviews-v1", Instance: instance, Version: "v1"}
}

// do sends one request on a connection of its own and returns status and body.
func do(t *testing.T, req *http.Request, protocols func(*http.Protocols)) (*http.Response, []byte) {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	protocols(tr.Protocols)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func http1(p *http.Protocols) { p.SetHTTP1(true) }
func h2c(p *http.Protocols)   { p.SetUnencryptedHTTP2(true) }

func request(t *testing.T, method, url string, fields ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Add(name, value)
	}
	return req
}

func TestAnswerIsTheContract(t *testing.T) {
	a := start(t, web("reviews-v1-0"), Role{}, Port{Port: 9080, Protocol: model.HTTP})
	req := request(t, "PUT", "http://"+a.Address(9080)+"/a%20b?x=1&y=%22", `X-Odd: q"\`, "X-Two: a", "X-Two: b", "User-Agent: t")
	req.Host = "reviews:9080"
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader("body")), 4
	resp, body := do(t, req, http1)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	const want = `{"workload":"reviews-v1","namespace":"default","instance":"reviews-v1-0","version":"v1","port":9080,` +
		`"method":"PUT","host":"reviews:9080","path":"/a%20b?x=1&y=%22",` +
		`"headers":{"content-length":"4","user-agent":"t","x-odd":"q\"\\","x-two":"a, b"},"calls":[]}` + "\n"
	if string(body) != want {
		t.Fatalf("got  %s\nwant %s", body, want)
	}
}

func TestAbsoluteForm(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 80, Protocol: model.HTTP})
	conn, err := net.Dial("tcp", a.Address(80))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET http://reviews:9080/p?q HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n")
	b, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(b), `"host":"reviews:9080","path":"/p?q"`) {
		t.Fatalf("%v %s", err, b)
	}
}

func TestProtocols(t *testing.T) {
	a := start(t, web("i"), Role{},
		Port{Port: 1, Protocol: model.HTTP}, Port{Port: 2, Protocol: model.HTTP2},
		Port{Port: 3, Protocol: model.TCP}, Port{Port: 4, Protocol: model.Auto})
	for port, speaks := range map[int][]func(*http.Protocols){1: {http1}, 2: {http1, h2c}, 4: {http1, h2c}} {
		for _, p := range speaks {
			resp, body := do(t, request(t, "GET", "http://"+a.Address(port)+"/"), p)
			if resp.StatusCode != 200 || !json.Valid(body) {
				t.Errorf("port %d: %s %s", port, resp.Status, body)
			}
		}
	}
	for _, port := range []int{3, 4} {
		conn, err := net.Dial("tcp", a.Address(port))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "PING 1\r\n")
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(conn)
		if err != nil || string(b) != "PING 1\r\n" {
			t.Errorf("port %d echoes %q, %v", port, b, err)
		}
		conn.Close()
	}
}

func TestPortsComeAndGo(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.HTTP})
	addr := a.Address(1)
	if again, err := a.Serve(Port{Port: 1, Protocol: model.HTTP}, listen(t, "127.0.0.1:0")); err != nil || again != addr {
		t.Fatalf("the same port again: %s, %v; want %s", again, err, addr)
	}
	if _, err := a.Serve(Port{Port: 1, Protocol: model.TCP}, listen(t, "127.0.0.1:0")); err == nil {
		t.Fatal("a port cannot be served in two ways")
	}
	for range 2 {
		if err := a.Unserve(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if a.Address(1) != "" {
		t.Fatal("a port that is gone has no address")
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Fatal("a port that is gone still accepts")
	}
}

func TestShutdownEndsOpenConnections(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.TCP}, Port{Port: 2, Protocol: model.Auto}, Port{Port: 3, Protocol: model.HTTP})
	for port := range 3 {
		conn, err := net.Dial("tcp", a.Address(port+1))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestCalls(t *testing.T) {
	ratings := start(t, Options{Namespace: "default", Workload: "ratings", Instance: "ratings-0"}, Role{}, Port{Port: 9080, Protocol: model.HTTP})
	var asked atomic.Pointer[http.Request]
	sidecar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r)
		switch r.URL.Host {
		case "ratings:9080":
			_, body := do(t, request(t, "GET", "http://"+ratings.Address(9080)+r.URL.Path), http1)
			_, _ = w.Write(body)
		default:
			w.Header().Set("x-outrider-reason", "no_route")
			http.Error(w, "nothing \"there\"", http.StatusServiceUnavailable)
		}
	}))
	defer sidecar.Close()
	o := web("i")
	o.Proxy = strings.TrimPrefix(sidecar.URL, "http://")
	calls, err := ParseCalls("http://ratings:9080/r, http://nowhere/,http://127.0.0.1:1/\n")
	if err != nil || len(calls) != 3 {
		t.Fatal(calls, err)
	}
	a := start(t, o, Role{Calls: calls[:2]}, Port{Port: 9080, Protocol: model.HTTP})
	_, body := do(t, request(t, "GET", "http://"+a.Address(9080)+"/",
		"X-Request-Id: 7", "Traceparent: tp", "B3: b", "X-B3-TraceId: t", "Authorization: secret", "Outrider-Stand-In: delay=1ms"), http1)
	var got answer
	if err := json.Unmarshal(body, &got); err != nil || len(got.Calls) != 2 {
		t.Fatalf("%v: %s", err, body)
	}
	var nested answer
	if err := json.Unmarshal(got.Calls[0], &nested); err != nil || nested.Instance != "ratings-0" || nested.Path != "/r" {
		t.Errorf("nested answer: %v %s", err, got.Calls[0])
	}
	if want := `{"url":"http://nowhere/","status":503,"reason":"no_route","body":"nothing \"there\""}`; string(got.Calls[1]) != want {
		t.Errorf("failed call: %s\nwant %s", got.Calls[1], want)
	}
	r := asked.Load()
	if r.Header.Get("x-request-id") != "7" || r.Header.Get("traceparent") != "tp" || r.Header.Get("b3") != "b" || r.Header.Get("x-b3-traceid") != "t" {
		t.Errorf("trace headers are lost: %v", r.Header)
	}
	if r.Header.Get("authorization") != "" || r.Header.Get(askHeader) != "" {
		t.Errorf("too much is passed on: %v", r.Header)
	}

	sidecar.Close()
	_, body = do(t, request(t, "GET", "http://"+a.Address(9080)+"/"), http1)
	if err := json.Unmarshal(body, &got); err != nil || !strings.Contains(string(got.Calls[0]), `"error"`) {
		t.Errorf("without a sidecar: %v %s", err, body)
	}
	if _, err := ParseCalls("reviews:9080"); err == nil {
		t.Error("a call without scheme must be refused")
	}
}

func TestMisbehaviour(t *testing.T) {
	a := start(t, web("i"), Role{Behaviour: Behaviour{Status: 503}}, Port{Port: 1, Protocol: model.HTTP})
	status := func(fields ...string) int {
		resp, _ := do(t, request(t, "GET", "http://"+a.Address(1)+"/", fields...), http1)
		return resp.StatusCode
	}
	if got := status(); got != 503 {
		t.Errorf("by role: %d", got)
	}
	if got := status("outrider-stand-in: status=418"); got != 418 {
		t.Errorf("by request: %d", got)
	}
	if got := status("outrider-stand-in: colour=red"); got != 400 {
		t.Errorf("by a request that cannot be read: %d", got)
	}
	if got := status("outrider-stand-in: status=204"); got != 204 {
		t.Errorf("without a body: %d", got)
	}
	a.SetBehaviour(Behaviour{})
	if got := status(); got != 200 {
		t.Errorf("healed: %d", got)
	}
	const delay = 30 * time.Millisecond
	a.SetBehaviour(Behaviour{Delay: delay})
	before := time.Now()
	if got := status(); got != 200 || time.Since(before) < delay {
		t.Errorf("delayed: %d after %v", got, time.Since(before))
	}
}

func TestStatusOfGRPCOverHTTP(t *testing.T) {
	for code, want := range map[int]int{
		1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
		0: 200, 204: 204, 418: 418, 599: 599,
	} {
		if got := (Behaviour{Status: code}).http(); got != want {
			t.Errorf("status=%d is answered %d, want %d", code, got, want)
		}
	}
}

func TestRatio(t *testing.T) {
	b := Behaviour{Status: 503, Ratio: 0.3}
	const n = 20000
	struck := 0
	for range n {
		if b.strikes() {
			struck++
		}
	}
	// Six standard deviations of a binomial draw: about one false alarm in 500 million runs.
	if mean, sd := 0.3*n, 64.8; float64(struck) < mean-6*sd || float64(struck) > mean+6*sd {
		t.Errorf("%d of %d misbehave, want about %.0f", struck, n, mean)
	}
	if (Behaviour{Ratio: 0.5}).strikes() {
		t.Error("a ratio of nothing is nothing")
	}
}

func TestParseBehaviour(t *testing.T) {
	f := func(text string, want Behaviour) {
		t.Helper()
		got, err := ParseBehaviour(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := ParseBehaviour(got.String()); err != nil || again != got {
			t.Errorf("%q is written %q", text, got)
		}
	}
	f("", Behaviour{})
	f(" status=503  ratio=0.5 delay=50ms ", Behaviour{Status: 503, Ratio: 0.5, Delay: 50 * time.Millisecond})
	f("delay=1.5s", Behaviour{Delay: 1500 * time.Millisecond})
	f("status=1", Behaviour{Status: 1})
	f("status=16", Behaviour{Status: 16})
	for _, bad := range []string{"status", "status=99", "status=0", "status=17", "status=199", "status=600", "status=x", "ratio=0", "ratio=1.1", "ratio=NaN", "delay=-1s", "delay=5", "x=1"} {
		if b, err := ParseBehaviour(bad); err == nil {
			t.Errorf("%q: read as %+v", bad, b)
		}
	}
}

func TestNamesAreCanonical(t *testing.T) {
	for _, name := range append([]string{askHeader}, propagated...) {
		if textproto.CanonicalMIMEHeaderKey(name) != name {
			t.Errorf("%s: no request ever has a field of that key", name)
		}
	}
}

func TestAppendString(t *testing.T) {
	for _, s := range []string{"", "plain", `q"b\`, "tab\tnul\x00del\x7f", "ü€😀", "bad\xff\xc3"} {
		var got string
		if err := json.Unmarshal(appendString(nil, s), &got); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); strings.ReplaceAll(got, "\ufffd\ufffd", "\ufffd") != want {
			t.Errorf("%q came back as %q", s, got)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	a := New(Options{Workload: "w", Namespace: "default", Instance: "w-0", Version: "v1", Log: slog.New(slog.DiscardHandler)}, Role{})
	h := newHandler(a, 9080)
	r := httptest.NewRequest("GET", "/a?b=c", nil)
	r.Header = http.Header{"User-Agent": {"bench"}, "Accept": {"*/*"}, "X-Request-Id": {"5a7b"}, "X-Forwarded-Proto": {"http"}}
	w := &nowhere{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) WriteHeader(int)             {}
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
