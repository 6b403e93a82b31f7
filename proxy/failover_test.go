package proxy

import (
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// TestFailover sends requests to the endpoint nearby until it fails, then to the one of the next priority, and back.
func TestFailover(t *testing.T) {
	t.Parallel()
	p := newPair(t, false, func(c *model.Cluster) {
		c.Endpoints[1].Priority = 1
		c.Outlier = &model.Outlier{
			Consecutive5xx: 2, Interval: model.Duration(50 * time.Millisecond), BaseEjection: model.Duration(3 * time.Second), MaxEjectionPercent: 100,
		}
	})
	p.get(10)
	if near, far := p.asked[0].Load(), p.asked[1].Load(); near != 10 || far != 0 {
		t.Errorf("%d requests went nearby and %d further, want all nearby", near, far)
	}
	p.ill.Store(true)
	p.get(2)
	if s := p.get(1); s != 200 || p.asked[1].Load() != 1 {
		t.Errorf("after two failures nearby: status %d, and %d requests went further", s, p.asked[1].Load())
	}
	p.heals(0)
}
