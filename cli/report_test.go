package cli

import (
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/config"
)

var sample = []config.Finding{
	{
		ID: "OR1030", Code: "IST0106", Severity: config.Error, Kind: "VirtualService", Namespace: "shop", Name: "reviews",
		File: "a b/x.yaml", Line: 3, Column: 7, Field: "spec.http[0].route", Message: "100% of <requests>, all", Remedy: "name a route",
	},
	{ID: "OR1020", Severity: config.Info, Message: "unused"},
	{ID: "OR1022", Severity: config.Warning, Kind: "Sidecar", Namespace: "default", Name: "default", File: "/abs/y.yaml", Line: 1, Column: 1, Message: "no effect yet", Remedy: "wait"},
}

func written(t *testing.T, format string, failOn config.Severity, findings ...config.Finding) string {
	t.Helper()
	var b strings.Builder
	r := report{verb: "check", findings: findings, failOn: failOn}
	if err := r.write(&b, format); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	want := "a b/x.yaml:3:7: VirtualService shop/reviews: spec.http[0].route: 100% of <requests>, all; name a route [error OR1030 IST0106]\n" +
		"unused [info OR1020]\n" +
		"/abs/y.yaml:1:1: Sidecar default/default: no effect yet; wait [warning OR1022]\n"
	if got := written(t, "text", config.Error, sample...); got != want {
		t.Errorf("got\n%s want\n%s", got, want)
	}
}

func TestJSON(t *testing.T) {
	if got := written(t, "json", config.Error); got != "{\n  \"findings\": []\n}\n" {
		t.Errorf("nothing found: %q", got)
	}
	var out struct {
		Findings []map[string]any `json:"findings"`
	}
	text := written(t, "json", config.Error, sample...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	keys := []string{"id", "code", "severity", "kind", "namespace", "name", "file", "line", "column", "message", "remedy"}
	for i, f := range out.Findings {
		if len(f) != len(keys) {
			t.Errorf("finding %d has %d keys, want %d: %v", i, len(f), len(keys), f)
		}
		for _, k := range keys {
			if _, ok := f[k]; !ok {
				t.Errorf("finding %d lacks %q", i, k)
			}
		}
	}
	if !strings.Contains(text, "<requests>") {
		t.Error("angle brackets are escaped, which nobody can read")
	}
}

func TestGitHub(t *testing.T) {
	want := "::error file=a b/x.yaml,line=3,col=7,title=OR1030::VirtualService shop/reviews: spec.http[0].route: 100%25 of <requests>, all; name a route\n" +
		"::notice title=OR1020::unused\n" +
		"::warning file=/abs/y.yaml,line=1,col=1,title=OR1022::Sidecar default/default: no effect yet; wait\n"
	if got := written(t, "github", config.Error, sample...); got != want {
		t.Errorf("got\n%s want\n%s", got, want)
	}
	hostile := config.Finding{ID: "OR1004", Severity: config.Error, File: "a,b:c%.yaml", Message: "two\r\nlines ::error::"}
	want = "::error file=a%2Cb%3Ac%25.yaml,title=OR1004::two%0D%0Alines ::error::\n"
	if got := written(t, "github", config.Error, hostile); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestJUnit(t *testing.T) {
	f := func(failOn config.Severity, findings []config.Finding, tests, failures int) {
		t.Helper()
		text := written(t, "junit", failOn, findings...)
		var out junitSuites
		if err := xml.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		failed := 0
		for _, c := range out.Suite.Cases {
			if c.Failure != nil {
				failed++
			}
		}
		if out.Tests != tests || len(out.Suite.Cases) != tests || out.Failures != failures || failed != failures {
			t.Errorf("fail on %s: %d tests and %d failures (%d counted), want %d and %d", failOn, out.Tests, out.Failures, failed, tests, failures)
		}
	}
	f(config.Error, sample, 3, 1)
	f(config.Warning, sample, 3, 2)
	f(config.Info, sample, 3, 3)
	f(config.Error, nil, 1, 0)
}

func TestSARIF(t *testing.T) {
	var log sarifLog
	text := written(t, "sarif", config.Error, append(sample, sample[0])...)
	if err := json.Unmarshal([]byte(text), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	if log.Version != "2.1.0" || len(run.Results) != 4 || len(run.Tool.Driver.Rules) != 3 {
		t.Fatalf("version %s, %d results, %d rules", log.Version, len(run.Results), len(run.Tool.Driver.Rules))
	}
	for i, r := range run.Results {
		if run.Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID {
			t.Errorf("result %d: rule %d is not %s", i, r.RuleIndex, r.RuleID)
		}
	}
	f := func(i int, level, uri string, line int) {
		t.Helper()
		r := run.Results[i]
		if r.Level != level {
			t.Errorf("result %d: level %q, want %q", i, r.Level, level)
		}
		if uri == "" {
			if len(r.Locations) > 0 {
				t.Errorf("result %d: has a location", i)
			}
			return
		}
		p := r.Locations[0].Physical
		if p.Artifact.URI != uri || p.Region.StartLine != line {
			t.Errorf("result %d: at %s line %d, want %s line %d", i, p.Artifact.URI, p.Region.StartLine, uri, line)
		}
	}
	f(0, "error", "a%20b/x.yaml", 3)
	f(1, "note", "", 0)
	f(2, "warning", "file:///abs/y.yaml", 1)
}

func TestFailedDoesNotDependOnFormat(t *testing.T) {
	f := func(worst, failOn config.Severity, want bool) {
		t.Helper()
		r := report{findings: []config.Finding{{Severity: config.Info}, {Severity: worst}}, failOn: failOn}
		if r.failed() != want {
			t.Errorf("worst %s, fail on %s: failed is %v", worst, failOn, r.failed())
		}
	}
	f(config.Error, config.Error, true)
	f(config.Warning, config.Error, false)
	f(config.Warning, config.Warning, true)
	f(config.Info, config.Warning, false)
	f(config.Info, config.Info, true)
	if (&report{failOn: config.Info}).failed() {
		t.Error("nothing found, but failed")
	}
}
