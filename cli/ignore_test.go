package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/config"
)

func TestSilence(t *testing.T) {
	// f checks which of the findings OR1234 on the given lines remain.
	f := func(text string, lines []int, want string) {
		t.Helper()
		var findings []config.Finding
		for _, l := range lines {
			findings = append(findings, config.Finding{ID: "OR1234", File: "a.yaml", Line: l})
		}
		var got []string
		for _, k := range silence(findings, func(string) ([]byte, bool) { return []byte(text), true }) {
			got = append(got, fmt.Sprintf("%s:%d:%d", k.ID, k.Line, k.Column))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: kept %q, want %q", text, s, want)
		}
	}
	f("a: 1\nb: 2 # outrider:ignore OR1234 known\nc: 3\n", []int{1, 2, 3}, "OR1234:1:0 OR1234:3:0")
	f("a: 1\n# outrider:ignore OR1234 known\n# more\nb: 2\nc: 3\n", []int{4, 5}, "OR1234:5:0")
	f("# outrider:ignore OR1234 the whole document\na: 1\n---\na: 1\n", []int{2, 4}, "OR1234:4:0")
	f("a: 1\n---\n# outrider:ignore OR1234 the whole document\n\na: 1\nb: 2\n", []int{1, 5, 6}, "OR1234:1:0")
	f("a: 1 # outrider:ignore OR1234\n", []int{1}, "OR1234:1:0 OR0901:1:6")
	f("a: 1 # outrider:ignore OR1234   \n", []int{1}, "OR1234:1:0 OR0901:1:6")
	f("a: 1 # outrider:ignore OR9999 another\n", []int{1}, "OR1234:1:0")
	f("a: 1 # outrider:ignore OR9999,OR1234 both\r\nb: 1\r\n", []int{1, 2}, "OR1234:2:0")
	f("a: 1 # outrider:ignore everything\n", []int{1}, "OR1234:1:0")
}

func TestSilenceWithoutTheFile(t *testing.T) {
	in := []config.Finding{{ID: "OR0001", File: "gone.yaml", Line: 1}, {ID: "OR0002"}}
	if out := silence(in, func(string) ([]byte, bool) { return nil, false }); len(out) != 2 {
		t.Errorf("kept %d findings, want 2", len(out))
	}
}
