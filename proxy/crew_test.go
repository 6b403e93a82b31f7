package proxy

import (
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// parkedIn returns how many goroutines of w wait for work.
func parkedIn(w *crew) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.parked)
}

// Exchanges that come one after the other need as many goroutines as run at a time, those are let go when they are not
// needed any more, and each request has its own answer.
func TestCrewIsReusedAndLetGo(t *testing.T) {
	const together = 20
	var gate sync.WaitGroup
	gate.Add(together)
	address := goServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Together") != "" {
			gate.Done()
			gate.Wait()
		}
		_, _ = io.WriteString(w, r.URL.Path)
	})
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Protocol = model.HTTP2 }, address), Limits{})
	c := goClient(t, p, 2)
	get := func(path string, together bool) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://app"+path, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if together {
			r.Header.Set("X-Together", "1")
		}
		res, err := c.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = res.Body.Close() }()
		if b, _ := io.ReadAll(res.Body); string(b) != path || res.StatusCode != 200 {
			t.Errorf("%s was answered with %d %q", path, res.StatusCode, b)
		}
	}
	get("/first", false) // so that all share one connection
	var all sync.WaitGroup
	for i := range together {
		all.Go(func() { get("/"+string(rune('a'+i)), true) })
	}
	all.Wait()
	eventually(t, "some have parked", func() bool { return parkedIn(&p.crew) > 0 }) // the sweeper may have let others go
	for range 3 * together {
		get("/again", false)
	}
	if n := parkedIn(&p.crew); n > together+1 {
		t.Errorf("%d goroutines for %d exchanges at a time", n, together)
	}
	eventually(t, "all are let go", func() bool { p.crew.trim(); return parkedIn(&p.crew) == 0 })
	get("/anew", false)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if n := parkedIn(&p.crew); n != 0 {
		t.Errorf("%d goroutines are left behind Close", n)
	}
}
