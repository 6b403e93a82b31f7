package proxy

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// aheadOf makes a listener of undeclared protocol from which unread bytes lead nowhere.
func aheadOf(address string) *model.Snapshot {
	return snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Listeners[0].Protocol, s.Listeners[0].Detect = model.Auto, model.Duration(20*time.Millisecond)
	}, address)
}

// idling waits until detection is over for every connection of p, and none was ended.
func idling(t *testing.T, p *Proxy, n int) {
	t.Helper()
	eventually(t, "the end of detection", func() bool {
		idle := 0
		for _, c := range p.conns.list(nil) {
			if d := c.watch.deadline.Load(); d != fired && d&idleBit != 0 {
				idle++
			}
		}
		return idle == n
	})
}

// A client may open connections ahead of its requests, however many, and be slow to use them: it is not cut off for its
// silence where no server could speak first.
func TestOpenedAhead(t *testing.T) {
	const n = 50
	p := start(t, aheadOf(newOrigin(t, nil).address()), Limits{})
	var all [n]*client
	for i := range all {
		all[i] = dial(t, p, "outbound")
	}
	idling(t, p, n)
	for _, c := range all {
		c.send(get("/"))
		if a := c.read("GET"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	}
	if got := tcpTotals(t, p.metrics.Gatherer()); len(got) != 0 {
		t.Errorf("connections of HTTP were counted as opaque ones: %v", got)
	}
}

// It is let go when the head's time is over, and when the proxy leaves, and then in order.
func TestOpenedAheadEnds(t *testing.T) {
	o := newOrigin(t, nil)
	t.Run("in time", func(t *testing.T) {
		p := start(t, aheadOf(o.address()), Limits{HeadTimeout: 50 * time.Millisecond})
		c := dial(t, p, "outbound")
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Errorf("got %v, want an end in order", err)
		}
	})
	t.Run("in a drain", func(t *testing.T) {
		p := start(t, aheadOf(o.address()), Limits{})
		c := dial(t, p, "outbound")
		idling(t, p, 1)
		if err := p.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Errorf("got %v, want an end in order", err)
		}
	})
}
