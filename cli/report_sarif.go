package cli

import (
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/outrider-mesh/outrider/config"
)

const sarifSchema = "https://json.schemastore.org/sarif-2.1.0.json"

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver sarifDriver `json:"driver"`
	} `json:"tool"`
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
}

type sarifDriver struct {
	Name           string      `json:"name"`
	Version        string      `json:"version"`
	InformationURI string      `json:"informationUri"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               string          `json:"id"`
	ShortDescription sarifText       `json:"shortDescription"`
	Help             sarifText       `json:"help"`
	Properties       *sarifRuleProps `json:"properties,omitempty"`
}

type sarifRuleProps struct {
	IstioCode string `json:"istioCode"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	RuleIndex int             `json:"ruleIndex"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations,omitempty"`
}

type sarifLocation struct {
	Physical sarifPhysical  `json:"physicalLocation"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct {
	Artifact struct {
		URI string `json:"uri"`
	} `json:"artifactLocation"`
	Region *sarifRegion `json:"region,omitempty"`
}

type sarifRegion struct {
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn,omitempty"`
}

type sarifLogical struct {
	Name               string `json:"name"`
	FullyQualifiedName string `json:"fullyQualifiedName"`
	Kind               string `json:"kind"`
}

// writeSARIF writes SARIF 2.1.0 (OASIS), with each kind of finding as a rule and each finding's place.
func writeSARIF(w io.Writer, r *report) error {
	var run sarifRun
	run.Tool.Driver = sarifDriver{Name: "outrider", Version: version(), InformationURI: "https://github.com/outrider-mesh/outrider", Rules: []sarifRule{}}
	run.ColumnKind = "unicodeCodePoints"
	run.Results = []sarifResult{}
	index := map[string]int{}
	for i := range r.findings {
		f := &r.findings[i]
		at, known := index[f.ID]
		if !known {
			at = len(run.Tool.Driver.Rules)
			index[f.ID] = at
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, ruleOf(f))
		}
		run.Results = append(run.Results, sarifResult{
			RuleID: f.ID, RuleIndex: at, Level: sarifLevel(f.Severity), Message: sarifText{sentence(f)}, Locations: locationsOf(f),
		})
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}})
}

// ruleOf describes a kind of finding: by its meaning where the id is listed, else by what was found.
func ruleOf(f *config.Finding) sarifRule {
	rule := sarifRule{ID: f.ID, ShortDescription: sarifText{f.Message}, Help: sarifText{f.Remedy}}
	if m := meaning(f.ID); m != "" {
		rule.ShortDescription.Text = m
	}
	if rule.Help.Text == "" {
		rule.Help.Text = rule.ShortDescription.Text
	}
	if f.Code != "" {
		rule.Properties = &sarifRuleProps{IstioCode: f.Code}
	}
	return rule
}

func sarifLevel(s config.Severity) string {
	switch s {
	case config.Warning:
		return "warning"
	case config.Info:
		return "note"
	}
	return "error"
}

func locationsOf(f *config.Finding) []sarifLocation {
	if f.File == "" {
		return nil
	}
	var l sarifLocation
	l.Physical.Artifact.URI = fileURI(f.File)
	if f.Line > 0 {
		l.Physical.Region = &sarifRegion{StartLine: f.Line, StartColumn: f.Column}
	}
	if f.Name != "" {
		full := strings.Join([]string{f.Kind, f.Namespace, f.Name}, "/")
		l.Logical = []sarifLogical{{Name: f.Name, FullyQualifiedName: full, Kind: "resource"}}
	}
	return []sarifLocation{l}
}

// fileURI is a relative reference for a relative path, and a file URI for an absolute one.
func fileURI(path string) string {
	u := url.URL{Path: filepath.ToSlash(path)}
	if filepath.IsAbs(path) {
		u.Scheme = "file"
	}
	return u.String()
}
