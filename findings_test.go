package outrider_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
)

var update = flag.Bool("update", false, "rewrite docs/findings.md")

// TestFindingsPage compares docs/findings.md with the findings that there are, and sees that no id means two things.
func TestFindingsPage(t *testing.T) {
	type finding struct{ id, code, meaning string }
	var all []finding
	for _, d := range config.IDs {
		all = append(all, finding{d.ID, d.Code, d.Meaning})
	}
	for _, d := range compile.IDs() {
		all = append(all, finding{d.ID, d.Code, d.Meaning})
	}
	slices.SortFunc(all, func(a, b finding) int { return strings.Compare(a.id, b.id) })
	var page bytes.Buffer
	page.WriteString(findingsHead)
	shape := regexp.MustCompile(`^OR\d{4}$`)
	for i, f := range all {
		if !shape.MatchString(f.id) || f.meaning == "" {
			t.Errorf("%q: an id is OR and four digits, and has a meaning", f.id)
		}
		if i > 0 && all[i-1].id == f.id {
			t.Errorf("%s means two things: %q and %q", f.id, all[i-1].meaning, f.meaning)
		}
		code := f.code
		if code == "" {
			code = "-"
		}
		fmt.Fprintf(&page, "| %s | %s | %s |\n", f.id, code, f.meaning)
	}
	const file = "docs/findings.md"
	if *update {
		if err := os.WriteFile(file, page.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if is, err := os.ReadFile(file); err != nil || !bytes.Equal(is, page.Bytes()) {
		t.Errorf("%s is not what the findings are (%v): go test -run TestFindingsPage -update .", file, err)
	}
}

const findingsHead = `# Findings

What ` + "`outrider check`" + ` and ` + "`outrider up`" + ` can say about a set of files. An id is stable: it keeps its meaning and is never reused. Istio's code stands beside it
where Istio has one for the same; IST0106 is what an API server or istiod's webhook would refuse. Each finding names file, line, column, object and field,
what is wrong and what to do. This page is written by ` + "`go test -run TestFindingsPage -update .`" + `

A comment silences one, with a reason: at the end of a line for the field of that line, on a line of its own for the field that follows, before a document's first
field for the whole object.

    # outrider:ignore OR2048 production runs twenty replicas

| id | Istio's code | what it says |
|---|---|---|
`
