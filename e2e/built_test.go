package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// ours is the folder with this module's programs, which the first test that wants one builds: linking them takes longer
// than most tests. The last one is over when it is removed.
var ours struct {
	once sync.Once
	dir  string
	err  error
}

// built returns the path of one of this module's programs.
func built(t *testing.T, name string) string {
	t.Helper()
	ours.once.Do(func() {
		if ours.dir, ours.err = os.MkdirTemp("", "outrider-e2e-"); ours.err != nil {
			return
		}
		if out, err := exec.Command("go", "build", "-o", ours.dir, "../cmd/outrider", "../cmd/outrider-proxy").CombinedOutput(); err != nil {
			ours.err = fmt.Errorf("cannot build: %w\n%s", err, out)
		}
	})
	if ours.err != nil {
		t.Fatal(ours.err)
	}
	return filepath.Join(ours.dir, name)
}

func removeBuilt() { _ = os.RemoveAll(ours.dir) } // where it stays, the system clears its folder away
