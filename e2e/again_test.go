package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// differences says what differs in a comparison, by the name of each thing compared.
type differences map[string]string

func (d differences) note(name, format string, args ...any) { d[name] = fmt.Sprintf(format, args...) }

// alike wants two proxies to do the same. What they do within fractions of a second a busy machine can keep either from: what
// differs counts where it does so each time.
func alike(t *testing.T, compare func() differences) {
	t.Helper()
	var left differences
	for attempt := range 3 {
		found := compare()
		if attempt > 0 {
			maps.DeleteFunc(found, func(name, _ string) bool { return left[name] == "" })
		}
		if left = found; len(left) == 0 {
			return
		}
		t.Logf("comparison %d: %d differ", attempt+1, len(left))
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(left)) {
		lines = append(lines, name+": "+left[name])
	}
	t.Errorf("%d differ each time:\n%s", len(lines), strings.Join(lines, "\n"))
}
