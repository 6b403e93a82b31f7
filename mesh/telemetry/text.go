package telemetry

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Handler writes the metrics as text 0.0.4, OpenMetrics or protobuf, by Accept.
// A family that cannot be collected is logged and left out, and the others are written.
//
// The text forms of the families with many labels are written here: the client library checks and escapes all labels
// again for each of a histogram's 22 lines, which is nearly all that a scrape costs; BenchmarkScrape. The rest is its own.
func (m *Metrics) Handler() http.Handler {
	general := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          scrapeLog{m.log},
	})
	offered := expfmt.DefaultOpenMetricsAcceptedFormats()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		format := expfmt.NegotiateAccept(r.Header, offered...)
		if t := format.FormatType(); t == expfmt.TypeTextPlain || t == expfmt.TypeOpenMetrics {
			m.serveText(w, r, format)
			return
		}
		general.ServeHTTP(w, r)
	})
}

func (m *Metrics) serveText(w http.ResponseWriter, r *http.Request, format expfmt.Format) {
	families, err := m.registry.Gather()
	if err != nil {
		scrapeLog{m.log}.Println(err)
		if len(families) == 0 {
			http.Error(w, "cannot collect metrics: "+err.Error(), http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", string(format))
	w.Header()["Vary"] = []string{"Accept", "Accept-Encoding"}
	out := io.Writer(w)
	if acceptsGzip(r.Header) {
		w.Header().Set("Content-Encoding", "gzip")
		z := zippers.Get().(*gzip.Writer)
		defer zippers.Put(z)
		z.Reset(w)
		defer z.Close() // fails where the client is gone
		out = z
	}
	if err := m.writeText(out, families, format); err != nil {
		m.log.Debug("cannot write metrics", "reason", err)
	}
}

// zippers compress to a 70th in less than half of the time that the default level takes for a 120th; BenchmarkScrape.
var zippers = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, 3)
	if err != nil {
		panic(err) // there is such a level
	}
	return z
}}

// acceptsGzip says whether an Accept-Encoding names gzip, and not with a quality of 0.
func acceptsGzip(h http.Header) bool {
	for _, v := range h["Accept-Encoding"] {
		for coding := range strings.SplitSeq(v, ",") {
			name, parameter, _ := strings.Cut(coding, ";")
			quality, given := strings.CutPrefix(strings.TrimSpace(parameter), "q=")
			if strings.TrimSpace(name) == "gzip" && (!given || strings.Trim(quality, "0.") != "") {
				return true
			}
		}
	}
	return false
}

// writeText writes families in one of the text forms.
func (m *Metrics) writeText(w io.Writer, families []*dto.MetricFamily, format expfmt.Format) error {
	own := map[string]bool{}
	for _, f := range m.families.all() {
		own[f.name] = true
	}
	general := expfmt.NewEncoder(w, format)
	t := text{w: w, open: format.FormatType() == expfmt.TypeOpenMetrics}
	for _, f := range families {
		if own[f.GetName()] {
			t.family(f)
			continue
		}
		if err := t.flush(); err != nil {
			return err
		}
		if err := general.Encode(f); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if c, ok := general.(expfmt.Closer); ok { // OpenMetrics has an end mark
		return c.Close()
	}
	return nil
}

// text writes counters, gauges and histograms that have labels and whose names need no quotes.
type text struct {
	w      io.Writer
	open   bool // OpenMetrics 1.0, not text 0.0.4
	buf    []byte
	labels []byte // of the metric at hand, without braces
	err    error
}

const flushAt = 32 << 10 // bytes

func (t *text) flush() error {
	if t.err == nil && len(t.buf) > 0 {
		_, t.err = t.w.Write(t.buf)
	}
	t.buf = t.buf[:0]
	return t.err
}

func (t *text) family(f *dto.MetricFamily) {
	name := f.GetName()
	title := name
	if t.open && f.GetType() == dto.MetricType_COUNTER {
		title = strings.TrimSuffix(name, "_total")
	}
	t.buf = append(append(append(append(t.buf, "# HELP "...), title...), ' '), f.GetHelp()...)
	t.buf = append(append(append(append(t.buf, "\n# TYPE "...), title...), ' '), strings.ToLower(f.GetType().String())...)
	t.buf = append(t.buf, '\n')
	for _, m := range f.Metric {
		t.labels = t.labels[:0]
		for _, l := range m.Label {
			t.labels = append(append(append(t.labels, l.GetName()...), '=', '"'), escaper.Replace(l.GetValue())...)
			t.labels = append(t.labels, '"', ',')
		}
		t.labels = t.labels[:len(t.labels)-1]
		switch {
		case m.Histogram != nil:
			t.histogram(name, m.Histogram)
		case m.Counter != nil:
			t.line(name, "", nil)
			t.end(m.Counter.GetValue(), false)
		default:
			t.line(name, "", nil)
			t.end(m.Gauge.GetValue(), false)
		}
		if len(t.buf) >= flushAt && t.flush() != nil {
			return
		}
	}
}

func (t *text) histogram(name string, h *dto.Histogram) {
	var le [32]byte
	for _, b := range h.Bucket {
		t.line(name, "_bucket", t.float(le[:0], b.GetUpperBound()))
		t.end(float64(b.GetCumulativeCount()), true)
	}
	t.line(name, "_bucket", []byte("+Inf"))
	t.end(float64(h.GetSampleCount()), true)
	t.line(name, "_sum", nil)
	t.end(h.GetSampleSum(), false)
	t.line(name, "_count", nil)
	t.end(float64(h.GetSampleCount()), true)
}

// line begins a line; le is the upper bound of a bucket, if it is one.
func (t *text) line(name, suffix string, le []byte) {
	t.buf = append(append(append(append(t.buf, name...), suffix...), '{'), t.labels...)
	if le != nil {
		t.buf = append(append(append(t.buf, `,le="`...), le...), '"')
	}
	t.buf = append(t.buf, '}', ' ')
}

// end ends a line; count says that v is a whole number of observations.
func (t *text) end(v float64, count bool) {
	switch {
	case !t.open:
		t.buf = strconv.AppendFloat(t.buf, v, 'g', -1, 64)
	case count:
		t.buf = strconv.AppendUint(t.buf, uint64(v), 10)
	default:
		t.buf = t.float(t.buf, v)
	}
	t.buf = append(t.buf, '\n')
}

// float appends v, which OpenMetrics tells from a whole number.
func (t *text) float(dst []byte, v float64) []byte {
	start := len(dst)
	dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
	if t.open && !strings.ContainsAny(string(dst[start:]), "e.") {
		dst = append(dst, '.', '0')
	}
	return dst
}

// escaper escapes a label's value.
var escaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
