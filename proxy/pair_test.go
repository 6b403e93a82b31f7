package proxy

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// pair is a proxy before two endpoints, of which the first answers 503 while it is ill, and a client.
type pair struct {
	*Proxy
	t      *testing.T
	client *client
	ill    atomic.Bool
	asked  [2]atomic.Int64 // each endpoint, so many times
}

// newPair starts one whose cluster is as edit makes it.
func newPair(t *testing.T, ill bool, edit func(c *model.Cluster)) *pair {
	t.Helper()
	p := &pair{t: t}
	p.ill.Store(ill)
	at := [2]string{}
	for i := range at {
		at[i] = goServer(t, func(w http.ResponseWriter, _ *http.Request) {
			p.asked[i].Add(1)
			if i == 0 && p.ill.Load() {
				w.WriteHeader(503)
			}
		})
	}
	p.Proxy = start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) { edit(&s.Clusters[0]) }, at[0], at[1]), Limits{})
	p.client = dial(t, p.Proxy, "outbound")
	return p
}

// get sends so many requests, one after the other, and returns the status of the last.
func (p *pair) get(times int) (status int) {
	p.t.Helper()
	for range times {
		p.client.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		status = p.client.read("GET").status
	}
	return status
}

// heals makes the first endpoint well, and sends requests, none of which may fail, until it was asked more often than before by more than that.
func (p *pair) heals(by int64) {
	p.t.Helper()
	p.ill.Store(false)
	before := p.asked[0].Load()
	eventually(p.t, "the endpoint that was ill is asked again", func() bool {
		if s := p.get(1); s != 200 {
			p.t.Fatalf("an answer of %d", s)
		}
		return p.asked[0].Load() > before+by
	})
}
