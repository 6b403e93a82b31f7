package telemetry

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// full returns metrics with series in every family and values that are hard to write.
func full() *Metrics {
	m := New(productpage, Options{})
	odd := Edge{Reporter: Source, Peer: model.Peer{Name: "a\\b\"c\nd é", App: "{}"}, Service: model.Service{Name: "\\n"}}
	for _, e := range []Edge{odd, {Reporter: Destination}} {
		h, c := m.HTTP(e), m.TCP(e)
		for n := range 3000 {
			h.Record(&Exchange{Status: 200 + n%3*100, GRPCStatus: n % 2, GRPC: n%3 == 0, Duration: time.Duration(n*n) * time.Microsecond, RequestBytes: int64(n) << 30, ResponseBytes: 1})
		}
		h.Messages(12345678, 0)
		h.Failed("upstream_connect", UF|URX)
		c.Opened(UF)
		c.Bytes(1<<53, 1<<62, UF)
	}
	m.Upstream(reviewsService, 9080, "v2", "127.1.0.1:9080").Record(200)
	m.Generation("v", true)
	m.Certificates(func() []certificate.Expiry {
		return []certificate.Expiry{{Name: "\"", NotAfter: time.Unix(1700000001, 0)}, {Name: "gone", NotAfter: time.Unix(-5, 0)}}
	})
	return m
}

// What is written here is what the client library would write, byte for byte.
func TestTextLikePromhttp(t *testing.T) {
	m := full()
	f := func(accept, encoding string) {
		t.Helper()
		get := func(h http.Handler) (string, string) {
			r, w := httptest.NewRequest("GET", "/stats/prometheus", nil), httptest.NewRecorder()
			r.Header.Set("Accept", accept)
			if encoding != "" {
				r.Header.Set("Accept-Encoding", encoding)
			}
			h.ServeHTTP(w, r)
			body, text := io.Reader(w.Body), new(strings.Builder)
			if w.Header().Get("Content-Encoding") == "gzip" {
				z, err := gzip.NewReader(w.Body)
				if err != nil {
					t.Fatal(err)
				}
				body = z
			}
			if _, err := io.Copy(text, body); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(w.Code, w.Header()), text.String()
		}
		gotHead, got := get(m.Handler())
		wantHead, want := get(promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
		if gotHead != wantHead {
			t.Errorf("Accept %q: head %q, not %q", accept, gotHead, wantHead)
		}
		g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Fatalf("Accept %q: line %d:\ngot  %s\nwant %s", accept, i+1, g[i], w[i])
			}
		}
		if len(g) != len(w) {
			t.Errorf("Accept %q: %d lines, not %d", accept, len(g), len(w))
		}
	}
	f("", "")
	f("text/plain;version=0.0.4", "gzip")
	f("text/plain;version=0.0.4", "deflate, gzip;q=0.5")
	f("text/plain;version=0.0.4", "gzip;q=0")
	f("text/plain;version=1.0.0;escaping=allow-utf-8", "")
	f("application/openmetrics-text;version=1.0.0", "")
	f("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1", "gzip") // Prometheus 3
	f("application/openmetrics-text;version=0.0.1", "")
	f("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "gzip")
}

// unwell is a collector that fails.
type unwell struct{ desc *prometheus.Desc }

func (u unwell) Describe(c chan<- *prometheus.Desc) { c <- u.desc }

func (u unwell) Collect(c chan<- prometheus.Metric) {
	c <- prometheus.NewInvalidMetric(u.desc, errors.New("not today"))
}

func TestUnwellCollector(t *testing.T) {
	var log bytes.Buffer
	m := New(productpage, Options{Log: logTo(&log)})
	if err := m.Register(unwell{prometheus.NewDesc("outrider_unwell", "Fails.", nil, nil)}); err != nil {
		t.Fatal(err)
	}
	m.HTTP(Edge{Reporter: Source}).Record(ok)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/stats/prometheus", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "istio_requests_total{") {
		t.Errorf("one bad collector spoils the scrape: %d", w.Code)
	}
	if !strings.Contains(log.String(), "not today") {
		t.Errorf("the log says %q", log.String())
	}
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
