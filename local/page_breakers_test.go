package local

import (
	"io"
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
	get := func(client *http.Client, url string) string {
		t.Helper()
		r, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	page := func() string { t.Helper(); return get(http.DefaultClient, f.Ready().Admin+"/") }
	misbehave := func(how string) {
		t.Helper()
		r, err := http.Post(f.Ready().Admin+"/stand-ins/default/web-v1-0"+how, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
	}
	if text := page(); !strings.Contains(text, "<h2>Circuit breakers</h2>") || !strings.Contains(text, "All 2 are closed and had no request yet") || !strings.Contains(text, `href="/hystrix.stream"`) {
		t.Errorf("at first the page is\n%s", text)
	}
	row := func(state string) *regexp.Regexp {
		return regexp.MustCompile(`<tr><td><code>default/web</code></td><td><code>local</code></td>` + state)
	}
	misbehave("?status=503")
	f.until("the page says that the breaker is open", func() bool {
		get(f.client, "http://web/")
		return row(`<td class="error">open</td><td>\d+s</td>\s*<td>in (10m0s|9m\d+(\.\d)?s)</td><td>\d+ of \d+ <span class="quiet">100 %</span></td><td>\d+</td><td>0</td>`).MatchString(page())
	})
	misbehave("")
	f.write("mesh.yaml", documents(webService, deployment("v1", 1, ""), breakerOf))
	f.until("the page says that the breaker is closed", func() bool {
		get(f.client, "http://web/")
		return row(`<td class="">closed</td><td>\d+s</td>\s*<td></td><td>0 of \d+`).MatchString(page())
	})
}
