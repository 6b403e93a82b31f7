package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Where a route bounds how long nothing may pass, an exchange that goes on lasts as long as it likes, and one that is quiet
// ends: before its answer with one, within it as a broken one, wherever the silence is.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	const limit, beat = time.Second, 100 * time.Millisecond
	versions(t, func(_ *model.Snapshot, r *model.Rule) { r.Route.Idle = model.Duration(limit) }, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/stops":
			_, _ = io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/beats":
			for range 20 {
				_, _ = io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(beat)
			}
		default:
			n, err := io.Copy(io.Discard, r.Body)
			if n != 100 || err != nil {
				t.Errorf("a body of %d, %v", n, err)
			}
		}
	}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
		res, body := fetch(t, c, request("GET", "http://app/silent", nil))
		if res.StatusCode != 504 || res.Header.Get("x-outrider-reason") != "idle_timeout" || !strings.HasPrefix(body, "nothing has passed") {
			t.Errorf("silent: %d %v %s", res.StatusCode, res.Header, body)
		}
		if res, body = fetch(t, c, request("GET", "http://app/beats", nil)); res.StatusCode != 200 || len(body) != 20 {
			t.Errorf("an answer in pieces: %d %s", res.StatusCode, body)
		}
		if res, _ = fetch(t, c, request("PUT", "http://app/takes", &unhurried{20, beat})); res.StatusCode != 200 {
			t.Errorf("a body in pieces: %d", res.StatusCode)
		}
		if res, err := c.Do(request("GET", "http://app/stops", nil)); err != nil {
			t.Error(err)
		} else {
			if body, err := io.ReadAll(res.Body); err == nil || string(body) != "some" {
				t.Errorf("an answer that stops: %q, %v", body, err)
			}
			_ = res.Body.Close()
		}
		eventually(t, "the records", func() bool {
			got := requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")
			return got["504|SI"] == 1 && got["200|SI"] == 1 && got["200|-"] == 2
		})
	})
}
