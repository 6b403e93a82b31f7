package mux

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/wire/http2"
)

// What one goroutine leaves to another that is writing is written before the connection ends in order, also where the
// socket has no room for it at once.
func TestLastWordsOfOthers(t *testing.T) {
	f := func(name string, full bool) {
		t.Run(name, func(t *testing.T) {
			a, peer := sockets(t, false)
			e := &end{pongs: make(chan uint64, 1)}
			e.Mux = New(linked(t, a), http2.Server, e, http2.Options{}, clock)
			held, gate := make(chan struct{}), make(chan struct{})
			first := true
			e.try = func(p []byte) (int, error) { // only one writes at a time
				if first {
					first = false
					close(held)
					<-gate
					if full {
						return 0, nil
					}
				}
				return e.Link().TryWrite(p)
			}
			e.tasks.Go(e.Flush)
			<-held
			e.run(t)
			e.HTTP.Ping(4711)
			e.Flush() // left to the first
			e.Link().InterruptRead()
			until(t, "the end", func() bool {
				e.Mux.mu.Lock()
				defer e.Mux.mu.Unlock()
				return e.closed
			})
			select {
			case <-e.done:
				t.Error("it has ended while somebody writes")
			case <-time.After(20 * time.Millisecond):
			}
			close(gate)
			_ = e.wait(t)
			if got := binary.BigEndian.Uint64(awaitFrame(t, peer, pingFrame)); got != 4711 {
				t.Errorf("got %d", got)
			}
		})
	}
	f("room", false)
	f("full", true)
}
