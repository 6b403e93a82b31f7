package proxy

import (
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/outlier"
)

// TestOutlier ejects the endpoint that fails and lets it return.
func TestOutlier(t *testing.T) {
	t.Parallel()
	p := newPair(t, true, func(c *model.Cluster) {
		c.Outlier = &model.Outlier{
			Consecutive5xx: 3, Interval: model.Duration(50 * time.Millisecond), BaseEjection: model.Duration(3 * time.Second), MaxEjectionPercent: 50,
		}
	})
	p.get(8)
	if n := p.asked[0].Load(); n != 3 {
		t.Errorf("the ill endpoint was asked %d times, want 3", n)
	}
	ejected := 0
	p.upstream.Current()["outbound|80||"+service].Health.Ejected(func(string, outlier.Reason) { ejected++ })
	if ejected != 1 {
		t.Errorf("%d endpoints are ejected", ejected)
	}
	if n := valueOf(t, p.Proxy, "outrider_endpoint_ejected", "reason=consecutive_5xx"); n != 1 {
		t.Errorf("outrider_endpoint_ejected is %v", n)
	}
	p.heals(0)
}

// TestAccrual lets an endpoint rest after failures in a row, probes it with one request at a time, and takes it back.
func TestAccrual(t *testing.T) {
	t.Parallel()
	p := newPair(t, true, func(c *model.Cluster) {
		c.Accrual = &model.Accrual{MaxFailures: 3, MinPenalty: model.Duration(2 * time.Second), MaxPenalty: model.Duration(3 * time.Second)}
	})
	p.get(8)
	if n := p.asked[0].Load(); n < 3 || n > 4 { // the first probe may have been due
		t.Errorf("the ill endpoint was asked %d times, want 3", n)
	}
	bad := 0
	eventually(t, "two probes", func() bool {
		if p.get(1) == 503 {
			bad++
		}
		return bad >= 2
	})
	p.heals(5)
}
