package local

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/proxy"
	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// breakerRow is a circuit breaker of one client, as it is at this moment.
type breakerRow struct {
	Name, Client, Guards string
	State, Class         string        // Class dresses the state
	For                  time.Duration // how long it has been in the state
	NextProbe            string        // when a request may be the next probe; "" where none is needed
	Requests, Errors     uint64        // that the breaker judges by
	ErrorPercentage      int
	Refused, Full        uint64 // all that it refused since the start, and those of them that the bulkhead did
	Fallbacks            uint64
}

// breakerRows returns the breakers that had requests or are not closed, the open ones first, and how many others there are.
func (m *Mesh) breakerRows() (rows []breakerRow, unused int) {
	now := proxy.Now()
	var s breaker.Snapshot
	for _, b := range m.breakers(nil) {
		b.Breaker.Snapshot(&s, now)
		if s.State == breaker.Closed && s.Total == [breaker.EventCount]uint64{} {
			unused++
			continue
		}
		next := ""
		switch {
		case s.State == breaker.HalfOpen:
			next = "under way"
		case s.State == breaker.Open && s.NextProbe == 0:
			next = "the next request"
		case s.State == breaker.Open:
			next = "in " + time.Duration(s.NextProbe).Round(100*time.Millisecond).String()
		}
		rows = append(rows, breakerRow{
			Name: b.Namespace + "/" + b.Name, Client: b.Client, Guards: b.Group,
			State: strings.ReplaceAll(s.State.String(), "_", " "), Class: classOf(s.State),
			For:       time.Duration(now - s.Since).Truncate(time.Second),
			NextProbe: next,
			Requests:  s.Requests, Errors: s.Errors, ErrorPercentage: s.ErrorPercentage,
			Refused: s.Total[breaker.ShortCircuited] + s.Total[breaker.SemaphoreRejected], Full: s.Total[breaker.SemaphoreRejected],
			Fallbacks: s.Total[breaker.FallbackSuccess],
		})
	}
	slices.SortFunc(rows, func(a, b breakerRow) int {
		return cmp.Or(cmp.Compare(rank(a.Class), rank(b.Class)), strings.Compare(a.Name, b.Name), strings.Compare(a.Client, b.Client))
	})
	return rows, unused
}

// classOf is how a state is to look.
func classOf(s breaker.State) string {
	switch s {
	case breaker.Open, breaker.ForcedOpen:
		return "error"
	case breaker.HalfOpen:
		return "warning"
	}
	return ""
}

// rank puts what looks worse first.
func rank(class string) int { return slices.Index([]string{"error", "warning", ""}, class) }
