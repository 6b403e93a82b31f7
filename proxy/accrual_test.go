package proxy

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// TestAccrualRate lets an endpoint rest that answers 429 too often, in the mode that counts it, and not in the other.
func TestAccrualRate(t *testing.T) {
	f := func(name string, rate *model.AccrualRate, want int64) {
		t.Run(name, func(t *testing.T) {
			var asked [2]atomic.Int64
			at := [2]string{}
			for i := range at {
				at[i] = goServer(t, func(w http.ResponseWriter, _ *http.Request) {
					asked[i].Add(1)
					if i == 0 {
						w.WriteHeader(http.StatusTooManyRequests)
					}
				})
			}
			p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
				s.Clusters[0].Accrual = &model.Accrual{MaxFailures: 3, MinPenalty: model.Duration(time.Hour), MaxPenalty: model.Duration(time.Hour), Rate: rate}
			}, at[0], at[1]), Limits{})
			c := dial(t, p, "outbound")
			for range 40 {
				c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
				c.read("GET")
			}
			if n := asked[0].Load(); n != want {
				t.Errorf("the endpoint that is asked too much was asked %d times, want %d", n, want)
			}
		})
	}
	f("consecutive", nil, 20)
	f("unified", &model.AccrualRate{Threshold: 0.8, Window: model.Duration(time.Hour), MinRequests: 5}, 5)
}
