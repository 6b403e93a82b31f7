package prom

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// encoded is JSON.
type encoded = json.RawMessage

// encodeValue writes a query's result as Prometheus does: [seconds, "number"] for each point, so that NaN and infinities
// survive, and native histograms as their buckets. It does not go through json.Marshal, which takes ten allocations a point.
func encodeValue(v parser.Value) encoded {
	var b []byte
	switch v := v.(type) {
	case promql.Scalar:
		return mustJSON(v) // which writes very small and large numbers in another way; so does Prometheus
	case promql.String:
		return mustJSON(v)
	case promql.Vector:
		b = append(b, '[')
		for i := range v {
			b = appendSample(comma(b, i), &v[i])
		}
		return append(b, ']')
	case promql.Matrix:
		b = append(b, '[')
		for i := range v {
			b = appendSeries(comma(b, i), &v[i])
		}
		return append(b, ']')
	}
	return encoded("null") // the engine gives no other values
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

func appendSample(b []byte, s *promql.Sample) []byte {
	b = appendMetric(b, s.Metric)
	if s.H != nil {
		return append(appendHistogramPoint(append(b, `,"histogram":`...), s.T, s.H), '}')
	}
	return append(appendPoint(append(b, `,"value":`...), s.T, s.F), '}')
}

func appendSeries(b []byte, s *promql.Series) []byte {
	b = appendMetric(b, s.Metric)
	if len(s.Floats) > 0 {
		b = append(b, `,"values":[`...)
		for i, p := range s.Floats {
			b = appendPoint(comma(b, i), p.T, p.F)
		}
		b = append(b, ']')
	}
	if len(s.Histograms) > 0 {
		b = append(b, `,"histograms":[`...)
		for i, p := range s.Histograms {
			b = appendHistogramPoint(comma(b, i), p.T, p.H)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendMetric leaves the object open.
func appendMetric(b []byte, ls labels.Labels) []byte {
	b = append(b, `{"metric":{`...)
	i := 0
	ls.Range(func(l labels.Label) {
		b = appendJSON(comma(b, i), l.Name)
		b = appendJSON(append(b, ':'), l.Value)
		i++
	})
	return append(b, '}')
}

func appendPoint(b []byte, t int64, v float64) []byte {
	b = append(appendTime(append(b, '['), t), ',')
	return append(appendNumber(b, v), ']')
}

// appendTime writes milliseconds as seconds.
func appendTime(b []byte, t int64) []byte {
	if t < 0 {
		b = append(b, '-')
		t = -t
	}
	b = strconv.AppendInt(b, t/1000, 10)
	if rest := t % 1000; rest != 0 {
		b = append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
	}
	return b
}

// appendNumber writes a number as a string: JSON has neither NaN nor infinities.
func appendNumber(b []byte, v float64) []byte {
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return append(strconv.AppendFloat(append(b, '"'), v, format, -1, 64), '"')
}

// appendHistogramPoint writes the buckets that hold something as [bounds, lower, upper, count], where bounds says which
// of the two belong to the bucket: 0 upper, 1 lower, 2 neither, 3 both.
func appendHistogramPoint(b []byte, t int64, h *histogram.FloatHistogram) []byte {
	b = append(appendTime(append(b, '['), t), `,{"count":`...)
	b = append(appendNumber(b, h.Count), `,"sum":`...)
	b = appendNumber(b, h.Sum)
	n := 0
	for it := h.AllBucketIterator(); it.Next(); {
		bucket := it.At()
		if bucket.Count == 0 {
			continue
		}
		if n == 0 {
			b = append(b, `,"buckets":[`...)
		}
		bounds := byte('2')
		switch {
		case bucket.LowerInclusive && bucket.UpperInclusive:
			bounds = '3'
		case bucket.LowerInclusive:
			bounds = '1'
		case bucket.UpperInclusive:
			bounds = '0'
		}
		b = append(comma(b, n), '[', bounds, ',')
		b = append(appendNumber(b, bucket.Lower), ',')
		b = append(appendNumber(b, bucket.Upper), ',')
		b = append(appendNumber(b, bucket.Count), ']')
		n++
	}
	if n > 0 {
		b = append(b, ']')
	}
	return append(b, '}', ']')
}

func appendJSON(b []byte, s string) []byte { return append(b, mustJSON(s)...) }

// mustJSON is for strings, and pairs of a finite number and a string.
func mustJSON(v any) encoded {
	b, err := json.Marshal(v)
	if err != nil {
		panic("prom: a string always encodes: " + err.Error())
	}
	return b
}

// exemplars are those of one series, in the API's form.
type exemplars struct {
	SeriesLabels labels.Labels `json:"seriesLabels"`
	Exemplars    []encoded     `json:"exemplars"`
}

func exemplarsOf(r exemplar.QueryResult) exemplars {
	e := exemplars{SeriesLabels: r.SeriesLabels, Exemplars: make([]encoded, 0, len(r.Exemplars))}
	for _, x := range r.Exemplars {
		b := append([]byte(nil), `{"labels":{`...)
		i := 0
		x.Labels.Range(func(l labels.Label) {
			b = appendJSON(comma(b, i), l.Name)
			b = appendJSON(append(b, ':'), l.Value)
			i++
		})
		b = appendNumber(append(b, `},"value":`...), x.Value)
		b = appendTime(append(b, `,"timestamp":`...), x.Ts)
		e.Exemplars = append(e.Exemplars, append(b, '}'))
	}
	return e
}
