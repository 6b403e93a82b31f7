package standin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func TestEvents(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.Auto})
	f := func(want int, query string, fields ...string) {
		t.Helper()
		resp, body := do(t, request(t, "GET", "http://"+a.Address(1)+"/p"+query, fields...), http1)
		if want == 0 {
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || !json.Valid(body) {
				t.Errorf("%s %q: %s %s", query, fields, resp.Status, body)
			}
			return
		}
		events := strings.SplitAfter(string(body), "\n\n")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || len(events) != want+1 || events[want] != "" {
			t.Fatalf("%s %q: %s, %d events: %s", query, fields, resp.Status, len(events)-1, body)
		}
		for i, event := range events[:want] {
			id, data, _ := strings.Cut(event, "\n")
			var got answer
			if err := json.Unmarshal([]byte(strings.TrimPrefix(data, "data: ")), &got); err != nil || id != fmt.Sprint("id: ", i+1) || got.Path != "/p"+query {
				t.Errorf("event %d: %v %q", i, err, event)
			}
		}
	}
	f(3, "?events=3&every=0s")
	f(7, "?every=1ms&events=7", "Accept: text/event-stream")
	f(eventCount, "?every=1ms&events=all", "Accept: text/event-stream")
	f(1, "?events=1")
	f(0, "?events=all")
	f(0, "?events=0")
	f(0, "?events=10001")
	f(0, "?every=1s")
	f(0, "", "Accept: */*")
}

// TestEventsComeOneByOne reads one event while the next, a minute later, is still to come.
func TestEventsComeOneByOne(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.HTTP2})
	for _, protocols := range []func(*http.Protocols){http1, h2c} {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		protocols(tr.Protocols)
		resp, err := tr.RoundTrip(request(t, "GET", "http://"+a.Address(1)+"/?events=2&every=1m"))
		if err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "id: 1\n" {
			t.Errorf("%q, %v", line, err)
		}
		resp.Body.Close()
		tr.CloseIdleConnections()
	}
}
