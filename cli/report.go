package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
)

// report is the outcome of a checking verb: what was found, and what counts as failure.
type report struct {
	verb     string // "check"
	findings []config.Finding
	failOn   config.Severity
}

// formats are the values of -o of every checking verb.
var formats = map[string]func(io.Writer, *report) error{
	"text":   writeText,
	"json":   writeJSON,
	"sarif":  writeSARIF,
	"junit":  writeJUnit,
	"github": writeGitHub,
}

const formatNames = "text, json, sarif, junit, github"

// severityRank orders severities, worst first. An unknown one ranks as an error: better loud than lost.
func severityRank(s config.Severity) int {
	switch s {
	case config.Info:
		return 2
	case config.Warning:
		return 1
	}
	return 0
}

// failing says whether f is at or above the severity that fails the verb.
func (r *report) failing(f *config.Finding) bool {
	return severityRank(f.Severity) <= severityRank(r.failOn)
}

// failed says whether any finding fails the verb. It does not depend on the format.
func (r *report) failed() bool {
	return slices.ContainsFunc(r.findings, func(f config.Finding) bool { return r.failing(&f) })
}

// write writes the findings as data.
func (r *report) write(w io.Writer, format string) error {
	f, ok := formats[format]
	if !ok {
		return fmt.Errorf("unknown output format %q: choose one of %s", format, formatNames)
	}
	return f(w, r)
}

// counts says how many findings there are, in words: "2 errors, 1 warning".
func (r *report) counts() string {
	n := map[config.Severity]int{}
	for _, f := range r.findings {
		n[f.Severity]++
	}
	var parts []string
	for _, s := range []config.Severity{config.Error, config.Warning, config.Info} {
		switch c := n[s]; {
		case c == 1:
			parts = append(parts, "1 "+singular[s])
		case c > 1:
			parts = append(parts, fmt.Sprintf("%d %s", c, plural[s]))
		}
	}
	if len(parts) == 0 {
		return "no findings"
	}
	return strings.Join(parts, ", ")
}

var (
	singular = map[config.Severity]string{config.Error: "error", config.Warning: "warning", config.Info: "note"}
	plural   = map[config.Severity]string{config.Error: "errors", config.Warning: "warnings", config.Info: "notes"}
)

// sentence is what a finding says, in one line: the object, the field, what is wrong, what to do.
func sentence(f *config.Finding) string {
	var b strings.Builder
	if o := objectName(f); o != "" {
		b.WriteString(o + ": ")
	}
	b.WriteString(f.Sentence())
	if f.Remedy != "" {
		b.WriteString("; " + f.Remedy)
	}
	return b.String()
}

// objectName is "Kind namespace/name" with the parts that are known.
func objectName(f *config.Finding) string {
	name := f.Name
	if f.Namespace != "" && name != "" {
		name = f.Namespace + "/" + name
	}
	return strings.TrimSpace(f.Kind + " " + name)
}

// meaning is what a kind of finding is about, or nothing for an id that is not listed.
func meaning(id string) string {
	for _, d := range config.IDs {
		if d.ID == id {
			return d.Meaning
		}
	}
	for _, d := range compile.IDs() {
		if d.ID == id {
			return d.Meaning
		}
	}
	return ""
}
