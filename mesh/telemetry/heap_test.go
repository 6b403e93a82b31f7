package telemetry

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// heapPerEdge returns the bytes of heap that an edge with one ending holds.
func heapPerEdge() float64 {
	const edges = 2000
	heap := func() float64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return float64(s.HeapAlloc)
	}
	names := make([]string, edges)
	for i := range names {
		names[i] = fmt.Sprint("reviews-", i)
	}
	m := New(productpage, Options{})
	before := heap()
	for _, n := range names {
		m.HTTP(Edge{Reporter: Source, Peer: model.Peer{Namespace: "prod", Name: n}, Service: reviewsService}).Record(ok)
	}
	after := heap()
	runtime.KeepAlive(m)
	runtime.KeepAlive(names)
	return (after - before) / edges
}

func TestEdgeIsSmall(t *testing.T) {
	t.Log(heapPerEdge())
}
