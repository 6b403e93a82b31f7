package config

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Severity of a Finding.
type Severity string

// Severities, worst first.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

// Finding is one thing to say about an object or a file. Its JSON form is a contract.
type Finding struct {
	ID        string   `json:"id"`   // stable: OR0001...
	Code      string   `json:"code"` // Istio's IST code where one exists, else ""
	Severity  Severity `json:"severity"`
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Column    int      `json:"column"`
	Field     string   `json:"-"` // path of the field: spec.http[0].route
	Message   string   `json:"message"`
	Remedy    string   `json:"remedy"`
}

// String gives the finding on one line: `file:line:column: Kind namespace/name: field: what is wrong; what to do`.
// Parts that the finding lacks are left out.
func (f Finding) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			b.WriteString(":" + strconv.Itoa(f.Line) + ":" + strconv.Itoa(max(f.Column, 1)))
		}
		b.WriteString(": ")
	}
	if f.Kind != "" {
		b.WriteString(f.Kind)
		if f.Name != "" {
			b.WriteByte(' ')
			if f.Namespace != "" {
				b.WriteString(f.Namespace + "/")
			}
			b.WriteString(f.Name)
		}
		b.WriteString(": ")
	}
	b.WriteString(f.Sentence())
	if f.Remedy != "" {
		b.WriteString("; " + f.Remedy)
	}
	return b.String()
}

// Sentence says what is wrong, with the field that it is about.
func (f Finding) Sentence() string {
	if f.Field == "" {
		return f.Message
	}
	return f.Field + ": " + f.Message
}

// MarshalJSON writes the contract's form, which has no field of its own for the field: the message names it.
func (f Finding) MarshalJSON() ([]byte, error) {
	type plain Finding // without this method
	p := plain(f)
	p.Message = f.Sentence()
	return json.Marshal(p)
}

// Sort orders findings by file, line, column, then id and text, so that the same input always reads the same.
func Sort(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.ID, b.ID), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message),
		)
	})
}
