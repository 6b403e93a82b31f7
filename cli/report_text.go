package cli

import (
	"bufio"
	"fmt"
	"io"

	"github.com/outrider-mesh/outrider/config"
)

// writeText writes one line a finding, in the shape that editors and terminals make a link of:
//
//	file:line:column: Kind namespace/name: field: what is wrong; what to do [error OR0101 IST0101]
func writeText(w io.Writer, r *report) error {
	b := bufio.NewWriter(w)
	for i := range r.findings {
		fmt.Fprintln(b, textLine(&r.findings[i]))
	}
	return b.Flush()
}

func textLine(f *config.Finding) string {
	tag := string(f.Severity) + " " + f.ID
	if f.Code != "" {
		tag += " " + f.Code
	}
	return fmt.Sprintf("%s%s [%s]", place(f), sentence(f), tag)
}

// place is "file:line:column: ", shorter where less is known.
func place(f *config.Finding) string {
	switch {
	case f.File == "":
		return ""
	case f.Line == 0:
		return f.File + ": "
	case f.Column == 0:
		return fmt.Sprintf("%s:%d: ", f.File, f.Line)
	}
	return fmt.Sprintf("%s:%d:%d: ", f.File, f.Line, f.Column)
}
