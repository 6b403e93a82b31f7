package telemetry

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func BenchmarkRecord(b *testing.B) {
	m := New(reviews, Options{})
	h := m.HTTP(Edge{Reporter: Source, Peer: productpage, Service: reviewsService})
	h.Record(&Exchange{Status: 503, GRPCStatus: -1, Flags: UO})
	b.ReportAllocs()
	for b.Loop() {
		h.Record(ok)
	}
}

func BenchmarkRecordParallel(b *testing.B) {
	h := New(reviews, Options{}).HTTP(Edge{Reporter: Source, Peer: productpage, Service: reviewsService})
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			h.Record(ok)
		}
	})
}

func BenchmarkInbound(b *testing.B) {
	i := New(reviews, Options{}).Inbound(Edge{Service: reviewsService})
	header := AppendPeer(nil, productpage)
	b.ReportAllocs()
	for b.Loop() {
		i.HTTP(header, "")
	}
}

// sink is a client that reads everything at once.
type sink struct {
	header http.Header
	bytes  int64
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(int) {}

func (s *sink) Write(p []byte) (int, error) {
	s.bytes += int64(len(p))
	return len(p), nil
}

// BenchmarkScrape writes 20 edges with 2 endings each.
func BenchmarkScrape(b *testing.B) {
	m := New(reviews, Options{})
	i := m.Inbound(Edge{Service: reviewsService})
	for n := range 20 {
		p := productpage
		p.Name += string(rune('a' + n))
		h := i.HTTP(AppendPeer(nil, p), "")
		h.Record(ok)
		h.Record(&Exchange{Status: 503, GRPCStatus: -1, Flags: UO})
	}
	f := func(name, accept, encoding string) {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/stats/prometheus", nil)
			r.Header.Set("Accept", accept)
			if encoding != "" {
				r.Header.Set("Accept-Encoding", encoding)
			}
			b.ReportAllocs()
			for b.Loop() {
				s := sink{header: http.Header{}}
				m.Handler().ServeHTTP(&s, r)
				b.SetBytes(s.bytes)
			}
		})
	}
	f("text", "text/plain;version=0.0.4", "")
	f("gzip", "text/plain;version=0.0.4", "gzip")
	f("openmetrics", "application/openmetrics-text;version=1.0.0", "")
	f("protobuf", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "")
}
