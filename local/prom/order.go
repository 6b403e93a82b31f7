package prom

import (
	"context"
	"sync"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// ordered is a store into which one sample is appended at a time.
//
// The store numbers a new series first and enters it into its index after; where two scrapes do that beside each other,
// the index is put in order under the eyes of whoever reads it (github.com/prometheus/prometheus/issues/15317), and a
// query may miss a series that has been there for long.
type ordered struct {
	storage.AppendableV2
	mu sync.Mutex
}

func (o *ordered) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return orderly{o.AppendableV2.AppenderV2(ctx), &o.mu}
}

type orderly struct {
	storage.AppenderV2
	mu *sync.Mutex
}

func (o orderly) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, with storage.AppendV2Options) (storage.SeriesRef, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.AppenderV2.Append(ref, ls, st, t, v, h, fh, with)
}
