package local

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestPageShowsBreakers looks at the page before a breaker had a request, while it is open, and once it is closed again.
func TestPageShowsBreakers(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{
		"mesh.yaml": documents(webService, deployment("v1", 1, ""), strings.Replace(breakerOf, "sleepWindowInMilliseconds: 100", "sleepWindowInMilliseconds: 600000", 1)),
	})
	page := func() string { t.Helper(); return f.body(http.DefaultClient, f.Ready().Admin+"/") }
	if text := page(); !strings.Contains(text, "<h2>Circuit breakers</h2>") || !strings.Contains(text, "All 2 are closed and had no request yet") || !strings.Contains(text, `href="/hystrix.stream"`) {
		t.Errorf("at first the page is\n%s", text)
	}
	row := func(state string) *regexp.Regexp {
		return regexp.MustCompile(`<tr><td><code>default/web</code></td><td><code>local</code></td>` + state)
	}
	f.behave("status=503", "web-v1-0")
	f.until("the page says that the breaker is open", func() bool {
		f.body(f.client, "http://web/")
		return row(`<td class="error">open</td><td>\d+s</td>\s*<td>in (10m0s|9m\d+(\.\d)?s)</td><td>\d+ of \d+ <span class="quiet">100 %</span></td><td>\d+</td><td>0</td>`).MatchString(page())
	})
	f.behave("", "web-v1-0")
	f.write("mesh.yaml", documents(webService, deployment("v1", 1, ""), breakerOf))
	f.until("the page says that the breaker is closed", func() bool {
		f.body(f.client, "http://web/")
		return row(`<td class="">closed</td><td>\d+s</td>\s*<td></td><td>0 of \d+`).MatchString(page())
	})
}
