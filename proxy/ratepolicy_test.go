package proxy

import (
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Linkerd's limits: one for all, one that some accounts share, and one for each other account; who names none shares one, too.
func TestRateLimitAccounts(t *testing.T) {
	o := newOrigin(t, nil)
	s := inboundOf(o.address())
	some := hourly(2)
	some.Only = []string{"shop/batch", "far/batch"}
	each := hourly(1, model.RateKey{Account: true})
	each.Except = some.Only
	s.RateLimits = []model.RateLimit{{Name: "policy", Keys: 10, GRPC: 8, Limits: []model.TokenLimit{hourly(7), some, each}}}
	s.Tables[0].Hosts[0].RateLimits = []string{"policy"}
	p := start(t, model.Seal(s), Limits{})
	c := dial(t, p, "inbound|8080")
	for i, step := range []struct {
		peer string
		want int
	}{
		{"shop;a;batch", 200},
		{"far;b;batch;app;v1", 200},
		{"shop;c;batch", 429},
		{"shop;a;web", 200},
		{"shop;b;web;app", 429}, // another workload of the same account
		{"far;a;web", 200},
		{"", 200},
		{"far;nobody", 429}, // as one that says nothing
		{"other;a;x", 200},
		{"other;b;y", 200},
		{"other;c;z", 429}, // the seven of all
	} {
		field := ""
		if step.peer != "" {
			field = "X-Outrider-Peer: " + step.peer + "\r\n"
		}
		c.send("GET / HTTP/1.1\r\nHost: anything\r\n" + field + "\r\n")
		if a := c.read("GET"); a.status != step.want {
			t.Errorf("request %d of %q: got %d, want %d", i, step.peer, a.status, step.want)
		}
	}
}
