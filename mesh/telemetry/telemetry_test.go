package telemetry

import (
	"bytes"
	"io"
	"math"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var (
	productpage = model.Peer{
		Namespace: "default", Name: "productpage-v1", ServiceAccount: "bookinfo-productpage", App: "productpage", Version: "v1",
		CanonicalName: "productpage", CanonicalRevision: "v1", Cluster: "Kubernetes",
	}
	reviews = model.Peer{
		Namespace: "prod", Name: "reviews-v2", ServiceAccount: "bookinfo-reviews", App: "reviews", Version: "v2",
		CanonicalName: "reviews", CanonicalRevision: "v2", Cluster: "east",
	}
	reviewsService = model.Service{Host: "reviews.prod.svc.cluster.local", Name: "reviews", Namespace: "prod"}
	ok             = &Exchange{Status: 200, GRPCStatus: -1, Duration: 7 * time.Millisecond, RequestBytes: 120, ResponseBytes: 420}
)

// clock is a clock that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// gather returns the family of that name, or nil.
func gather(t testing.TB, m *Metrics, name string) *dto.MetricFamily {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f
		}
	}
	return nil
}

func labelsOf(m *dto.Metric) map[string]string {
	l := map[string]string{}
	for _, p := range m.Label {
		l[p.GetName()] = p.GetValue()
	}
	return l
}

// requests sums istio_requests_total.
func requests(t testing.TB, m *Metrics) (series int, sum float64) {
	t.Helper()
	f := gather(t, m, "istio_requests_total")
	for _, s := range f.GetMetric() {
		sum += s.Counter.GetValue()
	}
	return len(f.GetMetric()), sum
}

func TestLabels(t *testing.T) {
	f := func(name string, self model.Peer, principal string, e Edge, x Exchange, want map[string]string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			m := New(self, Options{Principal: principal})
			m.HTTP(e).Record(&x)
			for _, family := range []string{
				"istio_requests_total", "istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes",
			} {
				f := gather(t, m, family)
				if len(f.GetMetric()) != 1 {
					t.Fatalf("%s has %d series", family, len(f.GetMetric()))
				}
				got := labelsOf(f.Metric[0])
				if len(got) != 25 {
					t.Errorf("%s has %d labels, not Istio's 25", family, len(got))
				}
				for k, v := range want {
					if got[k] != v {
						t.Errorf("%s: %s is %q, not %q", family, k, got[k], v)
					}
				}
				for k, v := range got {
					if _, ok := want[k]; !ok {
						t.Errorf("%s: label %s=%q, which Istio lacks", family, k, v)
					}
				}
			}
		})
	}
	side := func(prefix, workload, ns, app, version, canonical, revision, cluster, principal string) map[string]string {
		return map[string]string{
			prefix + "_workload": workload, prefix + "_workload_namespace": ns, prefix + "_app": app, prefix + "_version": version,
			prefix + "_canonical_service": canonical, prefix + "_canonical_revision": revision,
			prefix + "_cluster": cluster, prefix + "_principal": principal,
		}
	}
	all := func(sets ...map[string]string) map[string]string {
		sum := map[string]string{}
		for _, s := range sets {
			for k, v := range s {
				sum[k] = v
			}
		}
		return sum
	}
	const (
		productpageID = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
		reviewsID     = "spiffe://cluster.local/ns/prod/sa/bookinfo-reviews"
	)
	f("source", productpage, "", Edge{Reporter: Source, Peer: reviews, Service: reviewsService}, *ok, all(
		side("source", "productpage-v1", "default", "productpage", "v1", "productpage", "v1", "Kubernetes", "unknown"),
		side("destination", "reviews-v2", "prod", "reviews", "v2", "reviews", "v2", "east", "unknown"),
		map[string]string{
			"reporter": "source", "destination_service": "reviews.prod.svc.cluster.local",
			"destination_service_name": "reviews", "destination_service_namespace": "prod",
			"request_protocol": "http", "response_code": "200", "grpc_response_status": "", "response_flags": "-",
			"connection_security_policy": "unknown",
		}))
	f("destination", reviews, "", Edge{Reporter: Destination, Peer: productpage, Service: reviewsService, Security: "none"}, *ok, all(
		side("source", "productpage-v1", "default", "productpage", "v1", "productpage", "v1", "Kubernetes", "unknown"),
		side("destination", "reviews-v2", "prod", "reviews", "v2", "reviews", "v2", "east", "unknown"),
		map[string]string{
			"reporter": "destination", "destination_service": "reviews.prod.svc.cluster.local",
			"destination_service_name": "reviews", "destination_service_namespace": "prod",
			"request_protocol": "http", "response_code": "200", "grpc_response_status": "", "response_flags": "-",
			"connection_security_policy": "none",
		}))
	f("source with mTLS", productpage, productpageID,
		Edge{Reporter: Source, Peer: model.Peer{Namespace: "elsewhere", Name: "reviews-v2"}, PeerPrincipal: reviewsID, Service: reviewsService, Security: "mutual_tls"},
		Exchange{Status: 200, GRPCStatus: 14, GRPC: true, Flags: URX | UF}, all(
			side("source", "productpage-v1", "default", "productpage", "v1", "productpage", "v1", "Kubernetes", productpageID),
			side("destination", "reviews-v2", "prod", "unknown", "unknown", "unknown", "latest", "Kubernetes", reviewsID),
			map[string]string{
				"reporter": "source", "destination_service": "reviews.prod.svc.cluster.local",
				"destination_service_name": "reviews", "destination_service_namespace": "prod",
				"request_protocol": "grpc", "response_code": "200", "grpc_response_status": "14", "response_flags": "URX,UF",
				"connection_security_policy": "unknown",
			}))
	f("destination with mTLS", reviews, reviewsID, Edge{Reporter: Destination, PeerPrincipal: productpageID, Service: reviewsService},
		Exchange{Status: 0, GRPCStatus: -1, Flags: DC}, all(
			side("source", "unknown", "default", "unknown", "unknown", "unknown", "latest", "unknown", productpageID),
			side("destination", "reviews-v2", "prod", "reviews", "v2", "reviews", "v2", "east", reviewsID),
			map[string]string{
				"reporter": "destination", "destination_service": "reviews.prod.svc.cluster.local",
				"destination_service_name": "reviews", "destination_service_namespace": "prod",
				"request_protocol": "http", "response_code": "0", "grpc_response_status": "", "response_flags": "DC",
				"connection_security_policy": "mutual_tls",
			}))
	bare := model.Peer{Namespace: "default", Name: "client"}
	f("source that knows little", bare, "", Edge{Reporter: Source, Service: model.Service{Name: "PassthroughCluster"}},
		Exchange{Status: 503, GRPCStatus: -1, Flags: UH}, all(
			side("source", "client", "default", "", "", "unknown", "latest", "Kubernetes", "unknown"),
			side("destination", "unknown", "unknown", "unknown", "unknown", "unknown", "latest", "unknown", "unknown"),
			map[string]string{
				"reporter": "source", "destination_service": "unknown",
				"destination_service_name": "PassthroughCluster", "destination_service_namespace": "unknown",
				"request_protocol": "http", "response_code": "503", "grpc_response_status": "", "response_flags": "UH",
				"connection_security_policy": "unknown",
			}))
	f("destination that knows little", model.Peer{Namespace: "default", Name: "server", CanonicalName: "server"}, "",
		Edge{Reporter: Destination}, *ok, all(
			side("source", "unknown", "unknown", "unknown", "unknown", "unknown", "latest", "unknown", "unknown"),
			side("destination", "server", "default", "", "", "server", "latest", "Kubernetes", "unknown"),
			map[string]string{
				"reporter": "destination", "destination_service": "server",
				"destination_service_name": "server", "destination_service_namespace": "default",
				"request_protocol": "http", "response_code": "200", "grpc_response_status": "", "response_flags": "-",
				"connection_security_policy": "none",
			}))
}

func TestHistograms(t *testing.T) {
	m := New(productpage, Options{})
	m.HTTP(Edge{Reporter: Source}).Record(&Exchange{
		Status: 200, GRPCStatus: -1, Duration: 1500 * time.Microsecond, RequestBytes: 300, ResponseBytes: 3600001,
	})
	f := func(name string, sum, first float64) {
		t.Helper()
		h := gather(t, m, name).Metric[0].Histogram
		if h.GetSampleCount() != 1 || h.GetSampleSum() != sum {
			t.Errorf("%s: %d samples, sum %v", name, h.GetSampleCount(), h.GetSampleSum())
		}
		want := []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}
		if len(h.Bucket) != len(want) {
			t.Fatalf("%s has %d buckets", name, len(h.Bucket))
		}
		for i, b := range h.Bucket {
			if b.GetUpperBound() != want[i] || (b.GetCumulativeCount() == 1) != (want[i] >= first) {
				t.Errorf("%s: bucket %v has %d", name, b.GetUpperBound(), b.GetCumulativeCount())
			}
		}
	}
	f("istio_request_duration_milliseconds", 1.5, 5)
	f("istio_request_bytes", 300, 500)
	f("istio_response_bytes", 3600001, math.Inf(1))
}

func TestRecordAllocatesNothing(t *testing.T) {
	m := New(reviews, Options{})
	h := m.HTTP(Edge{Reporter: Source, Peer: productpage, Service: reviewsService})
	late := &Exchange{Status: 504, GRPCStatus: -1, Flags: UT}
	u := m.Upstream(reviewsService, 9080, "v2", "127.1.0.1:9080")
	i := m.Inbound(Edge{Service: reviewsService})
	header := AppendPeer(nil, productpage)
	call := &Exchange{Status: 200, GRPCStatus: 14, GRPC: true}
	bare := &Exchange{Status: 503, GRPCStatus: -1, GRPC: true}
	c := m.TCP(Edge{Reporter: Source, Peer: productpage, Service: reviewsService})
	f := func(name string, run func()) {
		t.Helper()
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	f("HTTP.Record", func() { h.Record(ok); h.Record(late) })
	f("HTTP.Failed", func() { h.Failed("route_timeout", UT) })
	f("Upstream.Record", func() { u.Record(200); u.Record(503) })
	f("HTTP.Record of gRPC", func() { h.Record(call); h.Record(bare) })
	f("HTTP.Messages", func() { h.Messages(1, 2) })
	f("TCP", func() { c.Opened(0); c.Bytes(1, 2, 0); c.Closed(0) })
	f("TCP that failed", func() { c.Opened(UF | URX); c.Bytes(0, 0, UF|URX); c.Closed(UF | URX) })
	f("Inbound.TCP", func() { i.TCP(nil, "spiffe://cluster.local/ns/default/sa/x").Opened(0) })
	f("Inbound.HTTP", func() { i.HTTP(header, "").Record(ok) })
	f("Inbound.HTTP with a principal", func() { i.HTTP(header, "spiffe://cluster.local/ns/default/sa/x").Record(ok) })
	f("Inbound.HTTP without a header", func() { i.HTTP(nil, "").Record(ok) })
}

func TestRetention(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	m := New(productpage, Options{Clock: c.read, Retain: time.Minute})
	e := Edge{Reporter: Source, Peer: reviews, Service: reviewsService}
	want := func(series int, sum float64) {
		t.Helper()
		if n, s := requests(t, m); n != series || s != sum {
			t.Errorf("%d series with %v requests, not %d with %v", n, s, series, sum)
		}
	}
	old := m.HTTP(e)
	old.Record(ok)
	next := m.HTTP(e)
	if old != next {
		t.Fatal("two handles for one edge")
	}
	m.Release(old)
	c.move(time.Hour)
	next.Record(ok)
	want(1, 2) // in use by the next generation
	m.Release(next)
	c.move(time.Minute - 1)
	want(1, 2) // retained
	back := m.HTTP(e)
	back.Record(ok)
	c.move(time.Hour)
	want(1, 3) // came back in time and went on counting
	m.Release(back)
	c.move(time.Minute)
	want(0, 0) // gone
	for _, name := range []string{"istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"} {
		if f := gather(t, m, name); f != nil {
			t.Errorf("%s is still there", name)
		}
	}
	fresh := m.HTTP(e)
	fresh.Record(ok)
	back.Record(ok)                                                // an exchange that ends after its edge is gone
	back.Record(&Exchange{Status: 500, GRPCStatus: -1, Flags: UC}) // nor does it bring the edge back
	want(1, 1)
}

func TestUpstream(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	m := New(productpage, Options{Clock: c.read})
	u := m.Upstream(reviewsService, 9080, "v2", "127.1.0.4:9080")
	u.Record(200)
	u.Record(200)
	u.Record(0)
	m.Upstream(model.Service{Name: "PassthroughCluster"}, 0, "", "").Record(502)
	if u != m.Upstream(reviewsService, 9080, "v2", "127.1.0.4:9080") {
		t.Error("two handles for one endpoint")
	}
	const want = `# HELP outrider_upstream_requests_total Attempts that an endpoint was sent, by its answer's status; 0 where none came.
# TYPE outrider_upstream_requests_total counter
outrider_upstream_requests_total{destination_service="PassthroughCluster",endpoint="",port="",response_code="502",subset=""} 1
outrider_upstream_requests_total{destination_service="reviews.prod.svc.cluster.local",endpoint="127.1.0.4:9080",port="9080",response_code="0",subset="v2"} 1
outrider_upstream_requests_total{destination_service="reviews.prod.svc.cluster.local",endpoint="127.1.0.4:9080",port="9080",response_code="200",subset="v2"} 2
`
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want), "outrider_upstream_requests_total"); err != nil {
		t.Error(err)
	}
	m.ReleaseUpstream(u)
	m.ReleaseUpstream(u)
	c.move(5*time.Minute - 1)
	if len(gather(t, m, "outrider_upstream_requests_total").Metric) != 3 {
		t.Error("the series of a released endpoint are gone at once")
	}
	c.move(1)
	if n := len(gather(t, m, "outrider_upstream_requests_total").Metric); n != 1 {
		t.Errorf("%d series: those of a released endpoint stay", n)
	}
	u.Record(503)
	if len(gather(t, m, "outrider_upstream_requests_total").Metric) != 1 {
		t.Error("a late attempt brought the endpoint back")
	}
}

// An application that answers with every status there is must not fill the sidecar with series.
func TestStatusesAreBounded(t *testing.T) {
	m := New(productpage, Options{})
	h := m.HTTP(Edge{Reporter: Source})
	u := m.Upstream(reviewsService, 9080, "", "127.1.0.4:9080")
	exchanges := 0
	for status := -1; status <= 1001; status++ {
		for grpc := -2; grpc <= 18; grpc++ {
			h.Record(&Exchange{Status: status, GRPCStatus: grpc, GRPC: true, Flags: Flags(status) & 0xff})
			exchanges++
		}
		u.Record(status)
	}
	n, sum := requests(t, m)
	if sum != float64(exchanges) {
		t.Errorf("%v requests counted, not %d", sum, exchanges)
	}
	if most := maxEndings + 10*18; n > most {
		t.Errorf("%d series, more than %d", n, most)
	}
	f := gather(t, m, "outrider_upstream_requests_total")
	sum = 0
	for _, s := range f.Metric {
		sum += s.Counter.GetValue()
	}
	if sum != 1003 || len(f.Metric) > maxEndings+10 {
		t.Errorf("%d series of %v attempts", len(f.Metric), sum)
	}
	if gather(t, m, "outrider_metrics_overflow_total") == nil || testutil.ToFloat64(m.statusLimit) == 0 {
		t.Error("the overflow is not counted")
	}
}

func TestEdgesWithEqualLabelsShareSeries(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	m := New(productpage, Options{Clock: c.read})
	twin := reviews
	twin.ServiceAccount = "another" // no label tells them apart
	a, b := m.HTTP(Edge{Reporter: Source, Peer: reviews}), m.HTTP(Edge{Reporter: Source, Peer: twin})
	a.Record(ok)
	b.Record(ok)
	m.Release(a)
	c.move(time.Hour)
	if n, sum := requests(t, m); n != 1 || sum != 2 {
		t.Errorf("%d series, %v requests", n, sum)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	m := New(reviews, Options{Clock: c.read, Retain: time.Second})
	base := Edge{Reporter: Destination, Service: reviewsService}
	keep := m.HTTP(base) // so that no series of it ever goes
	const workers, rounds = 4, 500
	var g sync.WaitGroup
	for w := range workers {
		g.Go(func() {
			for r := range rounds {
				i := m.Inbound(base)
				h := i.HTTP(AppendPeer(nil, model.Peer{Namespace: "n", Name: string(rune('a' + (w+r)%26))}), "")
				h.Record(ok)
				i.HTTP(nil, "").Record(&Exchange{Status: 200 + r%50, GRPCStatus: -1})
				u := m.Upstream(reviewsService, 1, "", string(rune('a'+r%26)))
				u.Record(200 + r%3)
				m.ReleaseUpstream(u)
				i.Close()
				c.move(10 * time.Millisecond)
			}
		})
	}
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			if _, err := m.Gatherer().Gather(); err != nil {
				t.Error(err)
			}
		}
	}
	sum := 0.0
	for _, s := range gather(t, m, "istio_requests_total").Metric {
		if labelsOf(s)["source_workload"] == unknown {
			sum += s.Counter.GetValue()
		}
	}
	if sum != workers*rounds {
		t.Errorf("%v requests counted, not %d", sum, workers*rounds)
	}
	m.Release(keep)
	c.move(time.Minute)
	if n, _ := requests(t, m); n != 0 || m.peers != 0 || m.released != 0 || len(m.edges) != 0 || len(m.endpoints) != 0 {
		t.Errorf("left behind: %d series, %d peers, %d released, %d edges, %d endpoints", n, m.peers, m.released, len(m.edges), len(m.endpoints))
	}
}

func TestGeneration(t *testing.T) {
	m := New(productpage, Options{Version: "1.2.3"})
	m.Generation("one", true)
	m.Generation("two", true)
	m.Generation("broken", false)
	const want = `# HELP istio_build Build of an Istio component; always 1.
# TYPE istio_build gauge
istio_build{component="proxy",tag="1.2.3"} 1
# HELP outrider_config_generation Configurations applied since the start; the running one's number.
# TYPE outrider_config_generation gauge
outrider_config_generation 2
# HELP outrider_config_info Version of the running configuration; always 1.
# TYPE outrider_config_info gauge
outrider_config_info{version="two"} 1
# HELP outrider_config_last_apply_success Whether the configuration that came last was applied (1) or refused (0).
# TYPE outrider_config_last_apply_success gauge
outrider_config_last_apply_success 0
# HELP outrider_config_rejected_total Configurations that were refused.
# TYPE outrider_config_rejected_total counter
outrider_config_rejected_total 1
`
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want), "istio_build", "outrider_config_generation",
		"outrider_config_info", "outrider_config_last_apply_success", "outrider_config_rejected_total"); err != nil {
		t.Error(err)
	}
}

func TestSidecarsOfOneProcess(t *testing.T) {
	one, two := New(productpage, Options{Process: true}), New(reviews, Options{})
	one.HTTP(Edge{Reporter: Source}).Record(ok)
	if gather(t, two, "istio_requests_total") != nil {
		t.Error("one sidecar's requests appear at another")
	}
	if gather(t, one, "process_cpu_seconds_total") == nil || gather(t, two, "process_cpu_seconds_total") != nil {
		t.Error("process metrics must be at the one sidecar that was asked for them")
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "outrider_active_requests", Help: "Requests under way."})
	if err := one.Register(g); err != nil {
		t.Error(err)
	}
	if err := two.Register(g); err != nil {
		t.Error(err)
	}
	if err := two.Register(g); err == nil {
		t.Error("a collector was registered twice")
	}
}

// exposition returns the text of metrics that have a series in every family.
func exposition(t *testing.T, accept string) (contentType string, body []byte) {
	t.Helper()
	m := New(productpage, Options{Process: true})
	e := Edge{Reporter: Source, Peer: reviews, Service: reviewsService}
	m.HTTP(e).Record(ok)
	m.HTTP(e).Messages(1, 1)
	m.TCP(e).Opened(0)
	m.Certificates(func() []certificate.Expiry {
		return []certificate.Expiry{{Name: "workload", Kind: certificate.Pair, NotAfter: time.Unix(1700000000, 0)}}
	})
	m.Upstream(reviewsService, 9080, "v2", "127.1.0.1:9080").Record(200)
	m.Generation("v", true)
	r := httptest.NewRequest("GET", "/stats/prometheus", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Header().Get("Content-Type"), body
}

func TestExposition(t *testing.T) {
	f := func(accept, contentType, contains string) {
		t.Helper()
		got, body := exposition(t, accept)
		if !strings.HasPrefix(got, contentType) || !bytes.Contains(body, []byte(contains)) {
			t.Errorf("Accept %q is answered with %q", accept, got)
		}
	}
	f("", "text/plain; version=0.0.4", "# TYPE istio_requests_total counter\n")
	f("", "text/plain; version=0.0.4", "# TYPE istio_tcp_sent_bytes_total counter\n")
	f("", "text/plain; version=0.0.4", "# TYPE istio_response_messages_total counter\n")
	f("application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0.0", "# TYPE istio_requests counter\n")
	f("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "application/vnd.google.protobuf", "istio_requests_total")
}

// Istio's names are a contract and in milliseconds; every other family follows Prometheus's conventions.
func exempt(metric string) bool { return strings.HasPrefix(metric, "istio_") }

func TestPromlint(t *testing.T) {
	_, body := exposition(t, "")
	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !exempt(p.Metric) {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: apt install prometheus)")
	}
	_, body := exposition(t, "")
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = bytes.NewReader(body)
	out, err := cmd.CombinedOutput() // exit 3 where it only has remarks, of which Istio's names earn some
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 3 {
		t.Fatalf("promtool ends with %d: %s", code, out)
	}
	for line := range strings.Lines(string(out)) {
		if !exempt(line) {
			t.Error("promtool says:", line)
		}
	}
}

func TestFlags(t *testing.T) {
	f := func(flags Flags, want string) {
		t.Helper()
		if got := flags.String(); got != want {
			t.Errorf("%#x is %q, not %q", uint32(flags), got, want)
		}
	}
	f(0, "-")
	f(UH, "UH")
	f(DC|UO|DI, "DI,UO,DC")
	f(UT|DI, "DI,UT")
	f(URX|UF, "URX,UF")
	f(DR, "DR")
	f(flagsEnd, "-")
	if len(flagNames) > 32 || Flags(1)<<len(flagNames) != flagsEnd {
		t.Error("flags and names differ in number")
	}
}
