package telemetry

import (
	"bytes"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

func TestBuckets(t *testing.T) {
	if len(Buckets) != bucketCount {
		t.Fatalf("%d buckets", len(Buckets))
	}
	f := func(v int64) {
		t.Helper()
		for unit, b := range map[int64]*bounds{1: byteBounds, int64(time.Millisecond): timeBounds} {
			want := 0
			for want < len(Buckets) && float64(v)/float64(unit) > Buckets[want] {
				want++
			}
			var h histogram
			h.observe(b, v, 0)
			if h.counts[want].Load() != 1 {
				t.Errorf("%d in units of %d is not in bucket %d", v, unit, want)
			}
		}
	}
	f(0)
	f(math.MaxInt64)
	for n := range 63 {
		f(1<<n - 1)
		f(1 << n)
		f(1<<n + 1)
	}
	for _, unit := range []float64{1, 1e6} {
		for _, u := range Buckets {
			for d := range int64(5) {
				f(max(int64(u*unit)+d-2, 0))
			}
		}
	}
	for range 10000 {
		f(rand.Int64() >> rand.IntN(63))
	}
	var h histogram
	h.observeBytes(-1)
	h.observeTime(-time.Second)
	if h.counts[0].Load() != 2 || h.sum.Load() != 0 {
		t.Error("what is below 0 does not count as 0")
	}
}

// What scrapes see is what the client library's own vectors would show of the same observations, byte for byte.
func TestLikeVectors(t *testing.T) {
	at := time.Unix(1e9, 0)
	m := New(reviews, Options{Clock: func() time.Time { return at }})
	registry := prometheus.NewPedanticRegistry()
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "istio_requests_total", Help: "Requests that ended, however they did.",
	}, labelNames)
	registry.MustRegister(requests)
	histogram := func(name, help string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: Buckets}, labelNames)
		registry.MustRegister(v)
		return v
	}
	duration := histogram("istio_request_duration_milliseconds", "Time from a request's first byte to the end of its answer, in milliseconds.")
	received := histogram("istio_request_bytes", "Bytes received of a request, head included.")
	sent := histogram("istio_response_bytes", "Bytes sent of an answer, head included.")
	for _, e := range []Edge{
		{Reporter: Source, Peer: productpage, Service: reviewsService},
		{Reporter: Destination, Peer: productpage, Service: reviewsService},
		{Reporter: Destination},
	} {
		h, l := m.HTTP(e), m.labels(&e)
		for n := range 300 {
			x := Exchange{
				Status: 200 + n%3, GRPCStatus: n % 2, GRPC: n%4 == 0, Flags: Flags(n % 5), Duration: time.Duration(n*n*n) * time.Millisecond / 8,
				RequestBytes: int64(n), ResponseBytes: int64(n * n),
			}
			h.Record(&x)
			own := endingOf(&x).labels()
			values := append(append([]string{}, l[:]...), own[:]...)
			requests.WithLabelValues(values...).Inc()
			duration.WithLabelValues(values...).Observe(float64(x.Duration) / 1e6)
			received.WithLabelValues(values...).Observe(float64(x.RequestBytes))
			sent.WithLabelValues(values...).Observe(float64(x.ResponseBytes))
		}
	}
	ours := prometheus.NewPedanticRegistry()
	ours.MustRegister(m)
	text := func(g prometheus.Gatherer) []byte {
		t.Helper()
		families, err := g.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		for _, f := range families {
			if !strings.HasPrefix(f.GetName(), "istio_") {
				continue
			}
			if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes()
	}
	got, want := text(ours), text(registry)
	if !bytes.Equal(got, want) {
		g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
		for i := range min(len(g), len(w)) {
			if !bytes.Equal(g[i], w[i]) {
				t.Fatalf("line %d:\ngot  %s\nwant %s", i+1, g[i], w[i])
			}
		}
		t.Fatalf("%d lines, not %d", len(g), len(w))
	}
	if c := gather(t, m, "istio_requests_total").Metric[0].Counter.CreatedTimestamp.AsTime(); !c.Equal(at) {
		t.Errorf("created at %v", c)
	}
}

// No observation is lost, and no scrape sees a count that differs from the buckets, or anything that falls.
func TestExactUnderConcurrency(t *testing.T) {
	m := New(reviews, Options{})
	e := Edge{Reporter: Source, Peer: productpage, Service: reviewsService}
	const workers, rounds = 4, 3000
	var g sync.WaitGroup
	for w := range workers {
		g.Go(func() {
			h, c := m.HTTP(e), m.TCP(e)
			for r := range rounds {
				h.Record(&Exchange{Status: 200 + r%2, GRPCStatus: -1, Duration: time.Duration(r) * time.Millisecond, RequestBytes: int64(w), ResponseBytes: 1})
				h.Messages(1, 2)
				c.Opened(0)
				c.Bytes(3, 4, 0)
				c.Closed(0)
			}
			m.Release(h)
			m.ReleaseTCP(c)
		})
	}
	last := map[string]float64{}
	scrape := func() map[string]float64 {
		families, err := m.Gatherer().Gather()
		if err != nil {
			t.Error(err)
		}
		now := map[string]float64{}
		for _, f := range families {
			for _, s := range f.Metric {
				key := f.GetName() + labelsOf(s)["response_code"]
				now[key] += s.Counter.GetValue()
				if h := s.Histogram; h != nil {
					now[key+" count"], now[key+" sum"] = float64(h.GetSampleCount()), h.GetSampleSum()
					below := uint64(0)
					for _, b := range h.Bucket {
						if b.GetCumulativeCount() < below || b.GetCumulativeCount() > h.GetSampleCount() {
							t.Errorf("%s: buckets %v of %d", key, h.Bucket, h.GetSampleCount())
						}
						below = b.GetCumulativeCount()
					}
				}
			}
		}
		for _, code := range []string{"200", "201"} {
			if now["istio_requests_total"+code] != now["istio_request_duration_milliseconds"+code+" count"] {
				t.Errorf("%s: %v requests, %v durations", code, now["istio_requests_total"+code], now["istio_request_duration_milliseconds"+code+" count"])
			}
		}
		if now[tcpFamilies[0]] < now[tcpFamilies[1]] {
			t.Error("more connections closed than opened")
		}
		for k, v := range last {
			if now[k] < v {
				t.Errorf("%s fell from %v to %v", k, v, now[k])
			}
		}
		last = now
		return now
	}
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			scrape()
		}
	}
	const all, half = workers * rounds, workers * rounds / 2
	got := scrape()
	want := map[string]float64{
		"istio_requests_total200": half, "istio_requests_total201": half,
		"istio_request_bytes200 count": half, "istio_request_bytes200 sum": half * (workers - 1) / 2.0,
		"istio_response_bytes201 count": half, "istio_response_bytes201 sum": half,
		"istio_request_duration_milliseconds200 count": half,
		"istio_request_duration_milliseconds200 sum":   workers * (rounds / 2) * (rounds/2 - 1),
		"istio_request_duration_milliseconds201 sum":   workers * (rounds / 2) * (rounds / 2),
		"istio_request_messages_total":                 all, "istio_response_messages_total": 2 * all,
		tcpFamilies[0]: all, tcpFamilies[1]: all, tcpFamilies[2]: 3 * all, tcpFamilies[3]: 4 * all,
	}
	maps.DeleteFunc(got, func(k string, _ float64) bool { _, there := want[k]; return !there })
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
