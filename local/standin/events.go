package standin

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What a stream of events is unless asked otherwise, and at most.
const (
	eventCount    = 5
	eventInterval = 100 * time.Millisecond
	mostEvents    = 10000
)

var eventStream = []string{"text/event-stream"}

// eventsAsked is how many server-sent events the request asks for, and how long to wait between two; count is 0 where it
// asks for none. "?events=3&every=1s" asks, and so does Accept: text/event-stream. A query that means something else by
// these names is no mistake: stand-ins answer any.
func eventsAsked(r *http.Request) (count int, every time.Duration) {
	if accept := r.Header["Accept"]; len(accept) == 1 && strings.Contains(accept[0], eventStream[0]) {
		count = eventCount
	}
	every = eventInterval
	if !strings.Contains(r.URL.RawQuery, "events=") && count == 0 {
		return 0, 0
	}
	query := r.URL.Query()
	if n, err := strconv.Atoi(query.Get("events")); err == nil && n > 0 && n <= mostEvents {
		count = n
	}
	if d, err := time.ParseDuration(query.Get("every")); err == nil && d >= 0 && d <= time.Minute {
		every = d
	}
	return count, every
}

// sendEvents sends the answer, which is one line, count times as an event, each flushed by itself.
func sendEvents(w http.ResponseWriter, r *http.Request, answer []byte, count int, every time.Duration) {
	header := w.Header()
	header["Content-Type"] = eventStream
	header["Cache-Control"] = []string{"no-cache"}
	flush := http.NewResponseController(w).Flush
	var b []byte
	for i := range count {
		if i > 0 && !pause(r.Context(), every) {
			return
		}
		b = append(b[:0], "id: "...)
		b = strconv.AppendInt(b, int64(i+1), 10)
		b = append(b, "\ndata: "...)
		b = append(b, answer...)
		b = append(b, '\n')
		if _, err := w.Write(b); err != nil {
			return // the client is gone
		}
		if err := flush(); err != nil {
			return
		}
	}
}
