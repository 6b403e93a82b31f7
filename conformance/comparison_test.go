package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	comparisonBegin = "<!-- The comparison below is written by `go test ./conformance -run Peers -update`. -->"
	comparisonEnd   = "<!-- End of the comparison. -->"
)

// writeComparison puts the comparison into docs/conformance.md.
func writeComparison(kinds [][]*table, names, abouts []string, did func(name string, s *scenario) behaviour) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nCompared: %s. Cells of the first tables are how many of a class's cases are forwarded; of the others, what the client gets. **Bold** is what is forwarded.\n",
		strings.Join(abouts, ", "))
	for i, title := range []string{"Requests", "Requests of HTTP/2, to an application of HTTP/1.1", "Responses"} {
		fmt.Fprintf(&b, "\n### %s\n\n| class | cases | RFC refuses | %s |\n|---|---|---|%s\n", title, strings.Join(names, " | "), strings.Repeat("---|", len(names)))
		for _, file := range kinds[i] {
			for _, c := range file.classes {
				refused := 0
				for _, s := range c.cases {
					if s.verdict == "refuse" {
						refused++
					}
				}
				fmt.Fprintf(&b, "| %s | %d | %d |", c.title, len(c.cases), refused)
				for _, name := range names {
					n := 0
					for _, s := range c.cases {
						n += min(1, did(name, s).forwards)
					}
					fmt.Fprintf(&b, " %d |", n)
				}
				b.WriteByte('\n')
			}
		}
	}
	for i, title := range []string{"requests", "requests of HTTP/2", "responses"} {
		fmt.Fprintf(&b, "\n### Where %s are treated differently\n", title)
		for _, file := range kinds[i] {
			for _, c := range file.classes {
				writeDifferences(&b, c, names, did)
			}
		}
	}
	path := filepath.Join("..", "docs", "conformance.md")
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(page), comparisonBegin)
	_, after, ok2 := strings.Cut(rest, comparisonEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the comparison", path)
	}
	return os.WriteFile(path, []byte(before+comparisonBegin+"\n"+b.String()+"\n"+comparisonEnd+after), 0o600)
}

// writeDifferences writes a table of the cases of a class that somebody treats in another way than we do.
func writeDifferences(b *strings.Builder, c *class, names []string, did func(name string, s *scenario) behaviour) {
	var rows []string
	argued := false
	for _, s := range c.cases {
		differs := false
		for _, name := range names {
			differs = differs || did(name, s).forwards != did(names[0], s).forwards
		}
		if !differs {
			continue
		}
		row := fmt.Sprintf("| %s | %s, %s |", cell(s.name), s.verdict, s.rfc)
		for _, name := range names {
			k := did(name, s)
			if k.forwards > 0 {
				row += fmt.Sprintf(" **%s** |", k.answers)
			} else {
				row += fmt.Sprintf(" %s |", k.answers)
			}
		}
		if s.why != "" {
			argued = true
		}
		rows = append(rows, row+" "+cell(s.why)+" |")
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n**%s.** %s\n\n| case | RFC | %s |", c.title, c.prose, strings.Join(names, " | "))
	if argued {
		b.WriteString(" why we do so |\n|---|---|---|" + strings.Repeat("---|", len(names)) + "\n")
	} else {
		b.WriteString("\n|---|---|" + strings.Repeat("---|", len(names)) + "\n")
	}
	for _, row := range rows {
		if !argued {
			row = strings.TrimSuffix(row, "  |")
		}
		b.WriteString(row + "\n")
	}
}

// cell makes text fit for a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
