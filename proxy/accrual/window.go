package accrual

// window counts an endpoint's requests of late, in ten steps.
type window struct {
	next          int64 // when the running step ends; 0 before the first request
	steps         [10]struct{ all, failed uint32 }
	at            int
	total, failed uint32
}

// count counts a request, and says whether r wants the endpoint to rest for a failure. Nothing is counted for nil.
func (w *window) count(r *Rate, now int64, failed bool) (low bool) {
	if r == nil || r.Threshold == 0 {
		return false
	}
	size := max(int64(r.Window)/int64(len(w.steps)), 1)
	if w.next == 0 {
		w.next = now + size
	}
	if now >= w.next {
		n := 1 + (now-w.next)/size
		w.next += n * size
		for range min(n, int64(len(w.steps))) {
			w.at = (w.at + 1) % len(w.steps)
			s := &w.steps[w.at]
			w.total, w.failed = w.total-s.all, w.failed-s.failed
			s.all, s.failed = 0, 0
		}
	}
	w.steps[w.at].all++
	w.total++
	if !failed {
		return false
	}
	w.steps[w.at].failed++
	w.failed++
	return w.total >= r.MinRequests && float64(w.total-w.failed) < r.Threshold*float64(w.total)
}
