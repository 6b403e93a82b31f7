package telemetry

import (
	"encoding/binary"
	"fmt"
	"maps"
	"testing"
)

func TestIsGRPC(t *testing.T) {
	f := func(contentType string, want bool) {
		t.Helper()
		if IsGRPC([]byte(contentType)) != want {
			t.Errorf("%q: %v", contentType, !want)
		}
	}
	f("application/grpc", true)
	f("application/grpc+proto", true)
	f("application/grpc+", true)
	f("application/grpc-web", false)
	f("application/grpc-web+proto", false)
	f("application/grpc;charset=x", false)
	f("application/grp", false)
	f("", false)
}

func TestParseGRPCStatus(t *testing.T) {
	f := func(value string, want int) {
		t.Helper()
		if got := ParseGRPCStatus([]byte(value)); got != want {
			t.Errorf("%q is %d, not %d", value, got, want)
		}
	}
	f("", -1)
	f("0", 0)
	f("14", 14)
	f("016", 16)
	f("17", 2)
	f("99999999999999999999999", 2)
	f("-1", 2)
	f("ok", 2)
}

// Where an answer says nothing of a gRPC status Envoy derives one, and Istio reports it.
func TestGRPCStatus(t *testing.T) {
	f := func(x Exchange, protocol, want string) {
		t.Helper()
		m := New(productpage, Options{})
		m.HTTP(Edge{Reporter: Source}).Record(&x)
		l := labelsOf(gather(t, m, "istio_requests_total").Metric[0])
		if l["grpc_response_status"] != want || l["request_protocol"] != protocol {
			t.Errorf("%+v has %q, protocol %q", x, l["grpc_response_status"], l["request_protocol"])
		}
	}
	f(Exchange{Status: 200, GRPCStatus: 0, GRPC: true}, "grpc", "0")
	f(Exchange{Status: 200, GRPCStatus: 16, GRPC: true}, "grpc", "16")
	f(Exchange{Status: 200, GRPCStatus: 17, GRPC: true}, "grpc", "2")
	f(Exchange{Status: 503, GRPCStatus: 4, GRPC: true}, "grpc", "4")
	f(Exchange{Status: 0, GRPCStatus: -1, GRPC: true, Flags: DC}, "grpc", "")
	for status, want := range map[int]string{
		200: "2", 400: "13", 401: "16", 403: "7", 404: "12", 418: "2", 429: "14", 500: "2", 502: "14", 503: "14", 504: "14",
	} {
		f(Exchange{Status: status, GRPCStatus: -1, GRPC: true}, "grpc", want)
	}
	f(Exchange{Status: 503, GRPCStatus: 4}, "http", "")
	f(Exchange{Status: 503, GRPCStatus: -1}, "http", "")
}

// Istio's message counters have 20 labels: what only the end of a request decides is not known when they are first
// reported (testdata/metric/*_messages.yaml.tmpl).
func TestMessageLabels(t *testing.T) {
	m := New(productpage, Options{})
	h := m.HTTP(Edge{Reporter: Source, Peer: reviews, Service: reviewsService})
	if h.Record(&Exchange{Status: 200, GRPC: true}); gather(t, m, "istio_request_messages_total") != nil {
		t.Error("messages are counted that nobody reported")
	}
	h.Messages(0, 0)
	h.Messages(3, 1)
	h.Messages(0, 4)
	h.Messages(-1, -1)
	want := labelsOf(gather(t, m, "istio_requests_total").Metric[0])
	maps.DeleteFunc(want, func(k, _ string) bool {
		switch k {
		case "request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security_policy":
			return true
		}
		return false
	})
	for name, value := range map[string]float64{"istio_request_messages_total": 3, "istio_response_messages_total": 5} {
		f := gather(t, m, name)
		if len(f.GetMetric()) != 1 || f.Metric[0].Counter.GetValue() != value {
			t.Fatalf("%s is %v", name, f)
		}
		if got := labelsOf(f.Metric[0]); !maps.Equal(got, want) || len(got) != 20 {
			t.Errorf("%s:\ngot  %v\nwant %v", name, got, want)
		}
	}
}

// Edges that differ in a label that messages lack have one series of messages, not a scrape that fails.
func TestMessagesOfTwinEdges(t *testing.T) {
	m := New(reviews, Options{})
	for n, security := range []string{"none", "mutual_tls"} {
		m.HTTP(Edge{Reporter: Destination, Peer: productpage, Service: reviewsService, Security: security}).Messages(int64(n+1), 10)
	}
	f := gather(t, m, "istio_request_messages_total")
	if len(f.Metric) != 1 || f.Metric[0].Counter.GetValue() != 3 {
		t.Errorf("messages are %v", f)
	}
}

func frame(flag byte, n int) []byte {
	p := make([]byte, prefixLength+n)
	p[0] = flag
	binary.BigEndian.PutUint32(p[1:], uint32(n))
	for i := range n {
		p[prefixLength+i] = byte(i) // zeros would hide a reader that is out of step
	}
	return p
}

func TestMessages(t *testing.T) {
	var body []byte
	for i, n := range []int{0, 1, 4, 5, 6, 0, 0, 300, 70000, 2} {
		body = append(body, frame(byte(i&1), n)...)
	}
	for piece := 1; piece < 400; piece++ {
		var m Messages
		for p := body; len(p) > 0; {
			n := min(piece, len(p))
			m.Feed(p[:n])
			p = p[n:]
		}
		if m.Count() != 10 {
			t.Fatalf("%d messages in pieces of %d, not 10", m.Count(), piece)
		}
	}
	var m Messages
	m.Feed([]byte{0, 0xff, 0xff, 0xff, 0xff}) // 4 GiB - 1, of which nothing is kept
	m.Feed(nil)
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = 0xff
	}
	for range 1<<12 - 1 {
		m.Feed(chunk)
	}
	m.Feed(chunk[1:])
	if m.Count() != 1 {
		t.Errorf("%d messages", m.Count())
	}
	m.Feed(frame(1, 3))
	if m.Count() != 2 {
		t.Errorf("%d messages after the long one", m.Count())
	}
	if m.Feed([]byte{0}); m.Count() != 3 {
		t.Error("a message does not count when it begins")
	}
	if n := testing.AllocsPerRun(100, func() { m.Feed(body) }); n != 0 {
		t.Errorf("Feed allocates %v times", n)
	}
}

// FuzzMessages feeds a body in pieces whose sizes the fuzzer chooses, and compares with a walk over the whole.
func FuzzMessages(f *testing.F) {
	f.Add(append(frame(0, 3), frame(1, 0)...), []byte{1, 2, 3})
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 1, 2}, []byte{5})
	f.Add([]byte{0, 0, 0}, []byte{})
	f.Fuzz(func(t *testing.T, body, cuts []byte) {
		want := int64(0)
		for p := body; len(p) > 0; {
			want++
			if len(p) < prefixLength {
				break
			}
			n := uint64(binary.BigEndian.Uint32(p[1:])) + prefixLength
			p = p[min(n, uint64(len(p))):]
		}
		var m Messages
		rest := body
		for _, c := range cuts {
			n := min(int(c), len(rest))
			m.Feed(rest[:n])
			rest = rest[n:]
		}
		m.Feed(rest)
		if m.Count() != want {
			t.Errorf("%x cut at %v: %d messages, not %d", body, cuts, m.Count(), want)
		}
	})
}

func BenchmarkFeed(b *testing.B) {
	for _, size := range []int{20, 16000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := frame(0, size)
			var m Messages
			b.ReportAllocs()
			for b.Loop() {
				m.Feed(p)
			}
		})
	}
}
