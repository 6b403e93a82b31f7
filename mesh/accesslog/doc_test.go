package accesslog

import (
	"os"
	"strings"
	"testing"
)

// The documentation names each operator, and explains no format that would be a problem.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/access-log.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range Names() {
		if text := string(page); !strings.Contains(text, "`"+n+"`") && !strings.Contains(text, "`"+n+"(") {
			t.Errorf("docs/access-log.md does not name %s", n)
		}
	}
	list := string(page[strings.Index(string(page), "strftime's `")+len("strftime's `"):])
	list, _, _ = strings.Cut(list, "`")
	for _, verb := range append(strings.Fields(list), "%f", "%3f", "%E3S", "%E6S", "%E9S") {
		if _, bad := parseLayout(verb); bad != "" {
			t.Errorf("docs/access-log.md names %s, which has no meaning", verb)
		}
	}
}
