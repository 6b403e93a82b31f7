package local

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestPageShowsUnready has an application that does not pass its probe: the page says what its last answer was.
func TestPageShowsUnready(t *testing.T) {
	group := `apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web}
spec:
  metadata: {labels: {app: web}}
  template: {ports: {http: 8080}}
  probe: {periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1000, exec: {command: [/bin/sh, -c, "echo '<still> loading'; exit 7"]}}
`
	f := run(t, Options{StandIns: true, NoPrometheus: true, ExecProbes: true}, map[string]string{"mesh.yaml": documents(webService, group)})
	row := regexp.MustCompile(`<tr><td><code>web-0</code> <code>\S+:8080</code></td><td><span class="error">its application does not pass its probe</span>: command /bin/sh: exit code 7: &lt;still&gt; loading</td>` +
		`<td>it does</td><td><span class="quiet">all</span></td><td><code>web.default.svc.cluster.local:80</code></td></tr>`)
	f.until("the page says why", func() bool { return row.MatchString(f.body(http.DefaultClient, f.Ready().Admin+"/")) })
}

// TestPageShowsEjected looks at the page while an endpoint is ejected, while so many are that all are asked, and once they
// are back: which endpoint, of what, by whom, why and until when.
func TestPageShowsEjected(t *testing.T) {
	rule := `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, interval: 50ms, baseEjectionTime: TIME, maxEjectionPercent: 100, minHealthPercent: 50}
`
	with := func(time string) map[string]string {
		return map[string]string{"mesh.yaml": documents(webService, deployment("v1", 3, ""), strings.Replace(rule, "TIME", time, 1))}
	}
	f := run(t, Options{StandIns: true, NoPrometheus: true}, with("1h"))
	page := func() string { t.Helper(); return f.body(http.DefaultClient, f.Ready().Admin+"/") }
	left := regexp.MustCompile("<h2>Endpoints left out</h2>")
	row := func(instance, why string) *regexp.Regexp {
		return regexp.MustCompile(`<tr><td><code>` + instance + `</code> <code>\S+:\d+</code></td><td><span class="error">consecutive 5xx</span>` + why + `</td>` +
			`<td>\d\d:\d\d:\d\d, in (1h0m0s|59m\d+s)</td><td><code>local</code></td><td><code>web.default.svc.cluster.local:80</code></td></tr>`)
	}
	if text := page(); left.MatchString(text) || !regexp.MustCompile(`\d objects, unchanged since the start`).MatchString(text) {
		t.Errorf("at first the page is\n%s", text)
	}
	f.behave("status=503", "web-v1-0")
	f.until("the page says that one is ejected", func() bool {
		f.body(f.client, "http://web/")
		return row("web-v1-0", "").MatchString(page())
	})
	f.behave("status=503", "web-v1-1")
	f.until("the page says that all are asked", func() bool {
		f.body(f.client, "http://web/")
		return row("web-v1-1", ` <span class="quiet">asked all the same: too few others are healthy \(minHealthPercent\)</span>`).MatchString(page())
	})
	f.behave("", "web-v1-0", "web-v1-1")
	f.write("mesh.yaml", with("100ms")["mesh.yaml"])
	f.until("nobody is left out", func() bool { return !left.MatchString(page()) })
	if text := page(); !regexp.MustCompile(`changed 1 time since the start`).MatchString(text) {
		t.Errorf("after an edit the page is\n%s", text)
	}
}
