package telemetry

import (
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
	r := httptest.NewRequest("GET", "/stats/prometheus", nil)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, r)
		b.SetBytes(int64(w.Body.Len()))
	}
}
