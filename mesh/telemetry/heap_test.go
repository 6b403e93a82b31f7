package telemetry

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// An edge that requests of one ending pass holds 1.4 KB of heap; it was 17 with the client library's vectors.
func TestEdgeIsSmall(t *testing.T) {
	const edges, most = 2000, 2048
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
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
	each := (heap() - before) / edges
	runtime.KeepAlive(m)
	runtime.KeepAlive(names)
	t.Logf("%d bytes", each)
	if each > most {
		t.Errorf("an edge holds %d bytes of heap, more than %d", each, most)
	}
}
