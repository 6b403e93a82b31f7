package conformance

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestLimitsInDocs: docs/conformance.md names each limit that is counted, and no other.
func TestLimitsInDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\|.*\\| `([a-z_]+)` \\|[^|\n]*\\|$").FindAllSubmatch(text, -1) {
		if name := string(m[1]); name != "outrider_downstream_connections_refused_total" {
			told[name] = true
		}
	}
	counted := map[string]bool{}
	families, err := start(t, newBackend(t).address(), setting{}).metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				if f.GetName() == "outrider_abuse_total" && l.GetName() == "limit" {
					counted[l.GetValue()] = true
				}
			}
		}
	}
	if len(counted) == 0 || !maps.Equal(told, counted) {
		t.Errorf("the docs name %v, counted are %v", slices.Sorted(maps.Keys(told)), slices.Sorted(maps.Keys(counted)))
	}
}
