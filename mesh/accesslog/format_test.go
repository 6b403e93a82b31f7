package accesslog

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outrider-mesh/outrider/wire/message"
)

// example is a record in which everything is set.
func example() *Record {
	q := &message.Request{Version: message.HTTP11}
	q.SetMethod([]byte("GET"))
	q.SetScheme([]byte("http"))
	q.SetAuthority([]byte("reviews:9080"))
	q.SetPath([]byte("/v2/reviews"))
	q.SetQuery([]byte("?id=7"))
	q.Add("user-agent", "curl/8.0")
	q.Add("x-request-id", "4b2c")
	q.Add("x-forwarded-for", "10.0.0.9")
	q.Add("authorization", "Bearer s3cret")
	res, trailers := &message.Head{}, &message.Head{}
	res.Add("x-envoy-upstream-service-time", "12")
	trailers.Add("grpc-message", "no \"quotes\"")
	return &Record{
		Request: q, Path: []byte("/reviews?id=7"), Response: res, Trailers: trailers,
		Protocol: "HTTP/1.1", Start: time.Date(2026, 2, 3, 4, 5, 6, 789123456, time.FixedZone("", 3600)), Duration: 1500 * time.Microsecond,
		Status: 200, GRPCStatus: 14, Flags: []byte("-"), Details: "via_upstream",
		Received: 10, Sent: 420, ReceivedHeads: 90, SentHeads: 120,
		Attempts: 2, Cluster: "outbound|9080|v2|reviews.default.svc.cluster.local", Route: "canary", ServerName: "reviews.example.com", Host: "productpage-v1-0",
		Upstream: netip.MustParseAddrPort("127.1.0.3:9080"), UpstreamLocal: netip.MustParseAddrPort("127.0.0.1:40000"),
		Remote: netip.MustParseAddrPort("[::1]:5000"), Local: netip.MustParseAddrPort("127.0.0.1:15001"),
	}
}

func TestDefaultFormats(t *testing.T) {
	f := func(format *Format, problems []Problem, r *Record, want string) {
		t.Helper()
		if len(problems) > 0 {
			t.Errorf("a default format has problems: %v", problems)
		}
		if got := string(format.Append(nil, r)); got != want+"\n" {
			t.Errorf("got  %swant %s", got, want)
		}
	}
	text, none := ParseText("")
	f(text, none, example(), `[2026-02-03T03:05:06.789Z] "GET /reviews?id=7 HTTP/1.1" 200 - via_upstream - "-" 10 420 1 12 "10.0.0.9" "curl/8.0" "4b2c" "reviews:9080" "127.1.0.3:9080" `+
		`outbound|9080|v2|reviews.default.svc.cluster.local 127.0.0.1:40000 127.0.0.1:15001 [::1]:5000 reviews.example.com canary`)
	f(text, none, &Record{GRPCStatus: -1, Start: time.Unix(0, 0)}, `[1970-01-01T00:00:00.000Z] "- - -" 0 - - - "-" 0 0 0 - "-" "-" "-" "-" "-" - - - - - -`)
	object, none := ParseJSON("")
	f(object, none, example(), `{"authority":"reviews:9080","bytes_received":10,"bytes_sent":420,"connection_termination_details":null,"downstream_local_address":"127.0.0.1:15001",`+
		`"downstream_remote_address":"[::1]:5000","duration":1,"method":"GET","path":"/reviews?id=7","protocol":"HTTP/1.1","reason":null,"request_id":"4b2c",`+
		`"requested_server_name":"reviews.example.com","response_code":200,"response_code_details":"via_upstream","response_flags":"-","route_name":"canary",`+
		`"start_time":"2026-02-03T03:05:06.789Z","upstream_cluster":"outbound|9080|v2|reviews.default.svc.cluster.local","upstream_host":"127.1.0.3:9080",`+
		`"upstream_local_address":"127.0.0.1:40000","upstream_service_time":"12","upstream_transport_failure_reason":null,"user_agent":"curl/8.0","x_forwarded_for":"10.0.0.9"}`)
	refused := &Record{Reason: "no_route", Details: "no_route", Status: 404, Flags: []byte("NR"), GRPCStatus: -1}
	if got := string(object.Append(nil, refused)); !strings.Contains(got, `"reason":"no_route"`) || !strings.Contains(got, `"upstream_host":null`) {
		t.Errorf("got %s", got)
	}
}

func TestOperators(t *testing.T) {
	f := func(format, text, object string) {
		t.Helper()
		compiled, problems := ParseText(format)
		if got := string(compiled.Append(nil, example())); got != text+"\n" || len(problems) > 0 {
			t.Errorf("%s is %q, not %q, with problems %v", format, got, text, problems)
		}
		key, _ := json.Marshal(map[string]string{"k": format})
		compiled, problems = ParseJSON(string(key))
		if got := string(compiled.Append(nil, example())); got != `{"k":`+object+"}\n" || len(problems) > 0 {
			t.Errorf("%s is %s, not %s, with problems %v", format, got, object, problems)
		}
	}
	f("%REQ(:PATH)%", "/v2/reviews?id=7", `"/v2/reviews?id=7"`)
	f("%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%", "/reviews", `"/reviews"`)
	f("%REQ_WITHOUT_QUERY(:PATH)%", "/v2/reviews", `"/v2/reviews"`)
	f("%REQ(:PATH):14%", "/v2/reviews?id", `"/v2/reviews?id"`)
	f("%REQ(:PATH):3%", "/v2", `"/v2"`)
	f("%REQ(:SCHEME)% %REQ(Host)%", "http reviews:9080", `"http reviews:9080"`)
	f("%REQ(X-None?USER-AGENT):4%", "curl", `"curl"`)
	f("%REQ(X-None)%", "-", "null")
	f("a %REQ(X-None)% b", "a - b", `"a - b"`)
	f("%RESP(:STATUS)% %RESPONSE_CODE%", "200 200", `"200 200"`)
	f("%RESP(x-none?:status)%", "200", `"200"`)
	f("%TRAILER(GRPC-MESSAGE)%", `no \"quotes\"`, `"no \"quotes\""`)
	f("%GRPC_STATUS%", "Unavailable", `"Unavailable"`)
	f("%GRPC_STATUS(SNAKE_STRING)%", "UNAVAILABLE", `"UNAVAILABLE"`)
	f("%GRPC_STATUS(NUMBER)%", "14", "14")
	f("%GRPC_STATUS_NUMBER%", "14", "14")
	f("%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%", "2026/02/03T03:05:06+0000 1770087906", `"2026/02/03T03:05:06+0000 1770087906"`)
	f("%START_TIME(%s.%3f %6f %f %E3S %j %e %b %%)%", "1770087906.789 789123 789123456 06.789 034  3 Feb %", `"1770087906.789 789123 789123456 06.789 034  3 Feb %"`)
	f("%REQUEST_HEADERS_BYTES% %RESPONSE_HEADERS_BYTES% %UPSTREAM_REQUEST_ATTEMPT_COUNT%", "90 120 2", `"90 120 2"`)
	f("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "::1", `"::1"`)
	f("%DOWNSTREAM_REMOTE_PORT%", "5000", "5000")
	f("%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_LOCAL_PORT%", "127.1.0.3:9080 40000", `"127.1.0.3:9080 40000"`)
	f("100%% of %RESPONSE_CODE%", "100% of 200", `"100% of 200"`)
	f("%HOSTNAME%", "productpage-v1-0", `"productpage-v1-0"`)
	f("%OUTRIDER_REASON%", "-", "null")
}

// Values that JSON has besides strings stay, and objects nest.
func TestJSONFormats(t *testing.T) {
	f, problems := ParseJSON(`{"b":{"y":"%RESPONSE_CODE%","x":[1,true,null,"%PROTOCOL%"]},"a\n\"":1.50}`)
	if got, want := string(f.Append(nil, example())), `{"a\n\"":1.50,"b":{"x":[1,true,null,"HTTP/1.1"],"y":200}}`+"\n"; got != want || len(problems) > 0 {
		t.Errorf("got %s, want %s; %v", got, want, problems)
	}
}

func TestProblems(t *testing.T) {
	f := func(format, text string) {
		t.Helper()
		compiled, problems := ParseText(format)
		if got := string(compiled.Append(nil, example())); len(problems) != 1 || got != text+"\n" {
			t.Errorf("%s is %q, not %q, with problems %v", format, got, text, problems)
		}
		for _, p := range problems {
			if p.Text == "" || p.Why == "" || p.Remedy == "" {
				t.Errorf("%s: %+v", format, p)
			}
		}
	}
	f("a %FILTER_STATE(x:PLAIN)% b", "a %FILTER_STATE(x:PLAIN)% b")
	f("%RESPONSE_CODE(1)%", "%RESPONSE_CODE(1)%")
	f("%REQ%", "%REQ%")
	f("50% of %RESPONSE_CODE%", "50% of 200")
	f("%REQ(X", "%REQ(X")
	f("%START_TIME(%Q)%", "%START_TIME(%Q)%")
	f("%GRPC_STATUS(LOUD)%", "%GRPC_STATUS(LOUD)%")
	f("%REQ(Authorization)%", "[redacted]")

	for _, format := range []string{`[1]`, `{"a":`, `null`, `{} {}`, `plain`} {
		compiled, problems := ParseJSON(format)
		if got := compiled.Append(nil, example()); len(problems) != 1 || !strings.Contains(string(got), `"response_code":200`) {
			t.Errorf("%s: %s %v", format, got, problems)
		}
	}
	if compiled, problems := ParseJSON(`{"a":"%NOPE%"}`); len(problems) != 1 || string(compiled.Append(nil, example())) != `{"a":"%NOPE%"}`+"\n" {
		t.Errorf("%v", problems)
	}
}

// inject puts a value into every place of a record that a client or its configuration chooses.
func inject(value []byte) *Record {
	q := &message.Request{}
	q.SetMethod(value)
	q.SetAuthority(value)
	q.SetPath(value)
	q.SetQuery(value)
	q.Append(message.UserAgent, []byte("user-agent"), value)
	q.Append(message.XRequestID, []byte("x-request-id"), value)
	q.Append(message.XForwardedFor, []byte("x-forwarded-for"), value)
	res := &message.Head{}
	res.Append(message.XEnvoyUpstreamServiceTime, []byte("x-envoy-upstream-service-time"), value)
	return &Record{Request: q, Response: res, Path: value, GRPCStatus: -1, Protocol: "HTTP/2", ServerName: string(value), Route: string(value), Cluster: string(value), UpstreamHost: string(value), TransportFailure: string(value)}
}

// Whatever a value is, a line stays one line of printable bytes, its quotes stay pairs, and JSON stays JSON.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"plain", "a\nb", "\"\\", "\x00\x1b[31m", "\xff\xfe", "é", "\u2028\u0085", "a\" 200 - \"", "\\\""} {
		f.Add([]byte(s))
	}
	text, _ := ParseText("")
	object, _ := ParseJSON("")
	f.Fuzz(func(t *testing.T, value []byte) {
		r := inject(value)
		line := string(text.Append(nil, r))
		if body := strings.TrimSuffix(line, "\n"); strings.ContainsFunc(body, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("the line %q", line)
		}
		quotes := 0
		for i := 0; i < len(line); i++ {
			switch line[i] {
			case '\\':
				i++
			case '"':
				quotes++
			}
		}
		if quotes != 14 {
			t.Errorf("%d quotes in %q", quotes, line)
		}
		line = string(object.Append(nil, r))
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil || strings.Count(line, "\n") != 1 || len(got) != 25 {
			t.Fatalf("%v in %q", err, line)
		}
		if utf8.Valid(value) && len(value) > 0 && got["user_agent"] != string(value) {
			t.Errorf("%q became %q", value, got["user_agent"])
		}
	})
}

func TestAppendAllocatesNothing(t *testing.T) {
	text, _ := ParseText("")
	object, _ := ParseJSON("")
	r, line := example(), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		line = text.Append(line[:0], r)
		line = object.Append(line[:0], r)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	text, _ := ParseText("")
	r, line := example(), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		line = text.Append(line[:0], r)
	}
}
