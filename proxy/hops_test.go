package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// OPTIONS and TRACE go as many hops as they may, and are answered where they may go no further; other methods go on.
func TestMaxForwards(t *testing.T) {
	versions(t, nil, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "app "+r.Method+" "+strings.Join(r.Header.Values("Max-Forwards"), ","))
	}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
		f := func(method, forwards, kind, want string) {
			t.Helper()
			r := request(method, "http://app/a?b", nil)
			r.Header.Set("Authorization", "secret")
			r.Header.Set("Cookie", "secret")
			r.Header.Set("X-A", "seen")
			if forwards != "" {
				r.Header.Set("Max-Forwards", forwards)
			}
			res, body := fetch(t, c, r)
			if res.StatusCode != 200 || body != want && (kind != "message/http" || !strings.HasPrefix(body, want)) {
				t.Errorf("%s %s: %d %q, want %q", method, forwards, res.StatusCode, body, want)
			}
			if kind != "" && res.Header.Get("Content-Type") != kind || strings.Contains(body, "secret") {
				t.Errorf("%s %s: %s %q", method, forwards, res.Header.Get("Content-Type"), body)
			}
			if kind == "message/http" && !strings.Contains(strings.ToLower(body), "\r\nx-a: seen\r\n") {
				t.Errorf("the trace lacks a field: %q", body)
			}
		}
		f("OPTIONS", "", "", "app OPTIONS ")
		f("OPTIONS", "10", "", "app OPTIONS 9")
		f("OPTIONS", "1", "", "app OPTIONS 0")
		f("OPTIONS", "0", "", "")
		f("OPTIONS", "-1", "", "app OPTIONS -1")
		f("OPTIONS", "99999999999999999999", "", "app OPTIONS 99999999999999999999")
		f("TRACE", "2", "", "app TRACE 1")
		f("TRACE", "0", "message/http", "TRACE /a?b HTTP/1.1\r\nhost: app\r\n")
		f("GET", "0", "", "app GET 0")
		counts(t, p, map[string]float64{"200|-": 9})
	})
}
