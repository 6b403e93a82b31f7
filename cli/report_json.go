package cli

import (
	"encoding/json"
	"io"

	"github.com/outrider-mesh/outrider/config"
)

// writeJSON writes {"findings":[…]}, every field of a finding always present.
func writeJSON(w io.Writer, r *report) error {
	out := struct {
		Findings []config.Finding `json:"findings"`
	}{r.findings}
	if out.Findings == nil {
		out.Findings = []config.Finding{}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
