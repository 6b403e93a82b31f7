package cli

import (
	"encoding/json"
	"io"

	"github.com/outrider-mesh/outrider/config"
)

// writeJSON writes {"findings":[…]}, every field of a finding always present.
func writeJSON(w io.Writer, r *report) error {
	type finding config.Finding // without its own MarshalJSON, which would escape < and >
	out := struct {
		Findings []finding `json:"findings"`
	}{[]finding{}}
	for _, f := range r.findings {
		f.Message = f.Sentence()
		out.Findings = append(out.Findings, finding(f))
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
