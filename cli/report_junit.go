package cli

import (
	"encoding/xml"
	"fmt"
	"io"

	"github.com/outrider-mesh/outrider/config"
)

type junitSuites struct {
	XMLName  xml.Name   `xml:"testsuites"`
	Name     string     `xml:"name,attr"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Suite    junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	File    string        `xml:"file,attr,omitempty"`
	Line    int           `xml:"line,attr,omitempty"`
	Failure *junitFailure `xml:"failure"`
	Output  string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// writeJUnit writes one test case a finding; it fails where the finding fails the verb. With nothing found, one case passes.
func writeJUnit(w io.Writer, r *report) error {
	suite := junitSuite{Name: "outrider " + r.verb}
	for i := range r.findings {
		f := &r.findings[i]
		c := junitCase{Name: caseName(f), Class: f.File, File: f.File, Line: f.Line}
		if c.Class == "" {
			c.Class = suite.Name
		}
		if r.failing(f) {
			c.Failure = &junitFailure{Message: sentence(f), Type: string(f.Severity), Text: textLine(f)}
			suite.Failures++
		} else {
			c.Output = textLine(f)
		}
		suite.Cases = append(suite.Cases, c)
	}
	if len(suite.Cases) == 0 {
		suite.Cases = []junitCase{{Name: r.verb, Class: suite.Name}}
	}
	suite.Tests = len(suite.Cases)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(junitSuites{Name: "outrider", Tests: suite.Tests, Failures: suite.Failures, Suite: suite}); err != nil {
		return fmt.Errorf("cannot write JUnit XML: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func caseName(f *config.Finding) string {
	name := f.ID
	if o := objectName(f); o != "" {
		name += " " + o
	}
	if f.Field != "" {
		name += " " + f.Field
	}
	return name
}
