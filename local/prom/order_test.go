package prom

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// Series that many targets have anew at each scrape are no trouble for those who query meanwhile; the race detector looks on.
func TestSeriesAppearUnderQueries(t *testing.T) {
	const targets, each = 8, 300
	p, err := Open(Options{Interval: 250 * time.Millisecond, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	var next, scrapes atomic.Int64
	var all []Target
	for i := range targets {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			fmt.Fprintln(w, "appears{n=\"0\"} 1")
			for range each {
				fmt.Fprintf(w, "appears{n=\"%d\"} 1\n", next.Add(1))
			}
			scrapes.Add(1)
		}))
		t.Cleanup(s.Close)
		all = append(all, Target{Job: fmt.Sprint("app-", i), Address: s.Listener.Addr().String(), Path: "/", Labels: map[string]string{"instance": fmt.Sprint(i)}})
	}
	p.SetTargets(all)
	// A machine that is busy may need longer than the interval, which ends a scrape: what was there once is in the range.
	there := func() int {
		samples, err := p.Query(t.Context(), `last_over_time(appears{n="0"}[1h])`, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return len(samples)
	}
	end := time.Now().Add(time.Minute)
	for there() < targets {
		if time.Now().After(end) {
			t.Fatalf("%d of %d targets were scraped", there(), targets)
		}
	}
	for begin := scrapes.Load(); scrapes.Load() < begin+10*targets && time.Now().Before(end); {
		if n := there(); n != targets {
			t.Fatalf("%d targets are there, want %d", n, targets)
		}
	}
}
