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
	return f.String() + " [" + tag + "]"
}
