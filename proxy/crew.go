package proxy

import "sync"

// crew keeps goroutines that have run an exchange of HTTP/2 for the next ones: their stacks have grown already, which
// otherwise each exchange would pay for. The goroutine that parked last runs first, so those beyond need stay parked and
// are let go by trim. It bounds nothing: where none is parked, one is started, and bounds are those of the streams.
type crew struct {
	mu      sync.Mutex
	parked  []*hand
	least   int  // parked at a time since the last trim
	closed  bool // nobody parks any more
	running sync.WaitGroup
}

// hand is one goroutine of a crew. It ends when work brings nil.
type hand struct{ work chan *stream }

// maxParked bounds how many goroutines wait for work, each with its stack of some 8 KiB.
const maxParked = 1024

// run serves k in a goroutine: one that is parked, or a new one, which close waits for.
func (w *crew) run(k *stream) {
	w.mu.Lock()
	n := len(w.parked) - 1
	if n < 0 {
		w.least = 0
		w.running.Add(1)
		w.mu.Unlock()
		go w.stay(&hand{make(chan *stream, 1)}, k) // close waits for it
		return
	}
	h := w.parked[n]
	w.parked[n] = nil
	w.parked = w.parked[:n]
	w.least = min(w.least, n)
	w.mu.Unlock()
	h.work <- k
}

// stay serves k and what comes after it.
func (w *crew) stay(h *hand, k *stream) {
	defer w.running.Done()
	for k != nil {
		k.serve()
		w.mu.Lock()
		if w.closed || len(w.parked) >= maxParked {
			w.mu.Unlock()
			return
		}
		w.parked = append(w.parked, h)
		w.mu.Unlock()
		k = <-h.work
	}
}

// trim lets go of half of those that nothing was asked of since the last trim.
func (w *crew) trim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dismiss((w.least + 1) / 2)
	w.least = len(w.parked)
}

// close lets all go and waits for them. Nothing is run any more.
func (w *crew) close() {
	w.mu.Lock()
	w.closed = true
	w.dismiss(len(w.parked))
	w.mu.Unlock()
	w.running.Wait()
}

// dismiss lets n go, those that have been parked longest, called with mu.
func (w *crew) dismiss(n int) {
	for _, h := range w.parked[:n] {
		h.work <- nil // there is room for it: who is parked was given nothing
	}
	w.parked = append(w.parked[:0], w.parked[n:]...)
	clear(w.parked[len(w.parked) : len(w.parked)+n])
}
