package outrider_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// TestResilienceQueries reads the queries that docs/resilience.md would have one woken by: each must be PromQL, over series
// that the proxy makes.
func TestResilienceQueries(t *testing.T) {
	text, err := os.ReadFile("docs/resilience.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "\n### What to be woken by\n")
	if !ok {
		t.Fatal("docs/resilience.md has no such section")
	}
	table, _, _ = strings.Cut(table, "\n#")
	code := sources(t, "proxy", "mesh")
	queries := 0
	for _, q := range regexp.MustCompile("`[^`]*(==|>)[^`]*`").FindAllString(table, -1) {
		queries++
		q = strings.ReplaceAll(strings.Trim(q, "`"), `\|`, "|")
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(q)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		for _, selectors := range parser.ExtractSelectors(expr) {
			for _, m := range selectors {
				// the breakers' share the beginning of their names
				if m.Name == "__name__" && !bytes.Contains(code, []byte(`"`+m.Value+`"`)) && !bytes.Contains(code, []byte(`"`+strings.TrimPrefix(m.Value, "outrider_breaker_")+`"`)) {
					t.Errorf("%s: there is no series %s", q, m.Value)
				}
			}
		}
	}
	if queries < 9 {
		t.Errorf("%d queries", queries)
	}
}

// sources returns the code below the directories, tests left out.
func sources(t *testing.T, directories ...string) []byte {
	t.Helper()
	var all []byte
	for _, directory := range directories {
		err := filepath.WalkDir(directory, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all = append(all, text...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}
