package e2e

import (
	"sync"
	"testing"
)

// load is what runs beside a test until it is over, and no longer than a test that fails: what would go on asking a mesh that
// has ended takes the machine away from all tests after it.
type load struct {
	sync.WaitGroup
	over chan struct{} // closed when all have to end
	end  func()        // closes it, and waits for them
}

// newLoad comes before the mesh: of a test that fails the mesh ends first, so that nobody waits for its answers.
func newLoad(t *testing.T) *load {
	l := &load{over: make(chan struct{})}
	l.end = sync.OnceFunc(func() {
		close(l.over)
		l.Wait()
	})
	t.Cleanup(l.end)
	return l
}
