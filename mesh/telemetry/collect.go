package telemetry

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// family is a metric family whose series are plain counters of this package and become Prometheus's only while a scrape
// reads them. The client library's own vectors hold every label and bucket of every series four times over, which is
// twelve times the memory.
type family struct {
	name  string
	desc  *prometheus.Desc
	names []string
	order []int // of names, sorted by name, as the exposition wants them
}

func newFamily(name, help string, names []string) *family {
	f := &family{name: name, desc: prometheus.NewDesc(name, help, names, nil), names: names}
	for i := range names {
		f.order = append(f.order, i)
	}
	slices.SortFunc(f.order, func(a, b int) int {
		if names[a] < names[b] {
			return -1
		}
		return 1
	})
	return f
}

// pairs gives names their values. It refers to both, so that neither may change.
func pairs(names, values []string) []dto.LabelPair {
	p := make([]dto.LabelPair, len(names))
	for i := range p {
		p[i].Name, p[i].Value = &names[i], &values[i]
	}
	return p
}

// sorted puts the labels that a handle decides, which all its series share, and those that a series decides in order.
func (f *family) sorted(shared, own []dto.LabelPair) []*dto.LabelPair {
	p := make([]*dto.LabelPair, len(f.order))
	for i, from := range f.order {
		if from < len(shared) {
			p[i] = &shared[from]
		} else {
			p[i] = &own[from-len(shared)]
		}
	}
	return p
}

// sample is one series as a scrape reads it.
type sample struct {
	desc      *prometheus.Desc
	labels    []*dto.LabelPair
	counter   *dto.Counter
	gauge     *dto.Gauge
	histogram *dto.Histogram
}

// Desc is part of prometheus.Metric.
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write is part of prometheus.Metric.
func (s *sample) Write(out *dto.Metric) error {
	out.Label, out.Counter, out.Gauge, out.Histogram = s.labels, s.counter, s.gauge, s.histogram
	return nil
}

func (f *family) counter(labels []*dto.LabelPair, born *timestamppb.Timestamp, v uint64) *sample {
	value := float64(v)
	return &sample{desc: f.desc, labels: labels, counter: &dto.Counter{Value: &value, CreatedTimestamp: born}}
}

// reading is a histogram at one moment, and the memory of all that its sample refers to.
type reading struct {
	sample    sample
	histogram dto.Histogram
	buckets   [bucketCount]dto.Bucket
	pointers  [bucketCount]*dto.Bucket
	counts    [bucketCount + 1]uint64 // cumulative
	sum       float64
}

// read sums in the given unit.
func (f *family) read(h *histogram, unit float64, labels []*dto.LabelPair, born *timestamppb.Timestamp) *reading {
	r := new(reading)
	r.sum = float64(h.sum.Load()) * unit
	count := uint64(0)
	for i := range r.counts {
		count += h.counts[i].Load()
		r.counts[i] = count
	}
	for i := range r.buckets {
		r.buckets[i].UpperBound, r.buckets[i].CumulativeCount = &Buckets[i], &r.counts[i]
		r.pointers[i] = &r.buckets[i]
	}
	g := &r.histogram
	g.SampleCount, g.SampleSum, g.Bucket, g.CreatedTimestamp = &r.counts[bucketCount], &r.sum, r.pointers[:], born
	r.sample.desc, r.sample.labels, r.sample.histogram = f.desc, labels, g
	return r
}

// families are those whose series come and go.
type families struct {
	requests, duration, requestBytes, responseBytes *family
	requestMessages, responseMessages               *family
	opened, closed, sent, received                  *family
	upstreams, failures                             *family
	abuse, handshakes, protocols, expiry            *family
}

func newFamilies() families {
	messageNames := labelNames[:messageLabelCount]
	return families{
		requests: newFamily("istio_requests_total", "Requests that ended, however they did.", labelNames),
		duration: newFamily("istio_request_duration_milliseconds",
			"Time from a request's first byte to the end of its answer, in milliseconds.", labelNames),
		requestBytes:     newFamily("istio_request_bytes", "Bytes received of a request, head included.", labelNames),
		responseBytes:    newFamily("istio_response_bytes", "Bytes sent of an answer, head included.", labelNames),
		requestMessages:  newFamily("istio_request_messages_total", "gRPC messages that clients sent.", messageNames),
		responseMessages: newFamily("istio_response_messages_total", "gRPC messages that servers sent.", messageNames),
		opened: newFamily("istio_tcp_connections_opened_total",
			"TCP connections whose endpoint was connected, or could not be.", tcpLabelNames),
		closed:   newFamily("istio_tcp_connections_closed_total", "TCP connections that ended.", tcpLabelNames),
		sent:     newFamily("istio_tcp_sent_bytes_total", "Bytes sent to TCP clients.", tcpLabelNames),
		received: newFamily("istio_tcp_received_bytes_total", "Bytes received from TCP clients.", tcpLabelNames),
		upstreams: newFamily("outrider_upstream_requests_total",
			"Attempts that an endpoint was sent, by its answer's status; 0 where none came.", upstreamNames),
		failures: newFamily("outrider_request_failures_total",
			"Requests, and connections that are passed on unread, that ended neither with an application's answer nor with one that is configured, by x-outrider-reason.", failureNames),
		abuse: newFamily("outrider_abuse_total", "Times that a limit against abuse of a protocol acted.", abuseNames),
		handshakes: newFamily("outrider_tls_handshakes_total",
			"TLS handshakes, by what the sidecar was in them and how they ended.", handshakeLabels),
		protocols: newFamily("outrider_protocol_detected_total",
			"Connections to ports of no declared protocol, by what they spoke.", protocolLabels),
		expiry: newFamily("outrider_certificate_expiry_timestamp_seconds",
			"When a certificate, trust bundle or revocation list in use ends, in seconds since 1970.", certificateNames),
	}
}

func (f *families) all() []*family {
	return []*family{
		f.requests, f.duration, f.requestBytes, f.responseBytes, f.requestMessages, f.responseMessages,
		f.opened, f.closed, f.sent, f.received, f.upstreams, f.failures, f.abuse, f.handshakes, f.protocols, f.expiry,
	}
}

// Describe makes Metrics the collector of the families whose series come and go.
func (m *Metrics) Describe(c chan<- *prometheus.Desc) {
	for _, f := range m.families.all() {
		c <- f.desc
	}
}

// Collect first drops the series whose time is over.
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	m.mu.Lock()
	m.sweep()
	edges := make([]*edge, 0, len(m.edges))
	for _, e := range m.edges {
		edges = append(edges, e)
	}
	endpoints := make([]*Upstream, 0, len(m.endpoints))
	for _, u := range m.endpoints {
		endpoints = append(endpoints, u)
	}
	failing := make([]*failures, 0, len(m.failures))
	for _, f := range m.failures {
		failing = append(failing, f)
	}
	m.mu.Unlock()

	said := map[[messageLabelCount]string]*messages{}
	for _, e := range edges {
		m.collectEdge(c, e)
		if n := e.messages.Load(); n != nil {
			said[[messageLabelCount]string(e.labels[:])] = n.with(said[[messageLabelCount]string(e.labels[:])])
		}
	}
	for labels, n := range said {
		born, p := created(n.born), pairs(labelNames[:messageLabelCount], labels[:])
		l := m.families.requestMessages.sorted(p, nil)
		c <- m.families.requestMessages.counter(l, born, n.request.Load())
		c <- m.families.responseMessages.counter(l, born, n.response.Load())
	}
	for _, u := range endpoints {
		u.collect(c)
	}
	for _, f := range failing {
		f.collect(c)
	}
	m.collectConnections(c)
}

// with adds what another edge counted under the same labels: edges may differ in connection_security_policy alone.
func (n *messages) with(other *messages) *messages {
	if other == nil {
		return n
	}
	sum := &messages{born: min(n.born, other.born)}
	sum.request.Store(n.request.Load() + other.request.Load())
	sum.response.Store(n.response.Load() + other.response.Load())
	return sum
}

func (m *Metrics) collectEdge(c chan<- prometheus.Metric, e *edge) {
	list, flows := known(&e.series), known(&e.flows)
	if len(list) == 0 && len(flows) == 0 {
		return
	}
	f := &m.families
	shared := pairs(labelNames[:edgeLabelCount], e.labels[:])
	for _, s := range list {
		own := s.ending.labels()
		born, l := created(s.born), f.requests.sorted(shared, pairs(labelNames[edgeLabelCount:], own[:]))
		duration := f.duration.read(&s.duration, 1e-3, l, born)
		c <- f.requests.counter(l, born, duration.counts[bucketCount])
		c <- &duration.sample
		c <- &f.requestBytes.read(&s.requestBytes, 1, l, born).sample
		c <- &f.responseBytes.read(&s.responseBytes, 1, l, born).sample
	}
	for _, w := range flows {
		own := []string{"tcp", w.flags.String()}
		born, l := created(w.born), f.opened.sorted(shared, pairs(tcpLabelNames[edgeLabelCount:], own))
		closed := w.closed.Load() // before opened, of which there are never fewer
		c <- f.opened.counter(l, born, w.opened.Load())
		c <- f.closed.counter(l, born, closed)
		c <- f.sent.counter(l, born, w.sent.Load())
		c <- f.received.counter(l, born, w.received.Load())
	}
}

func (u *Upstream) collect(c chan<- prometheus.Metric) {
	f := u.m.families.upstreams
	shared := pairs(upstreamNames[:len(u.labels)], u.labels[:])
	for _, a := range known(&u.answers) {
		own := []string{strconv.Itoa(a.status)}
		l := f.sorted(shared, pairs(upstreamNames[len(u.labels):], own))
		c <- f.counter(l, created(a.born), a.count.Load())
	}
}

func created(unixNano int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(0, unixNano)) }
