package upstream

import (
	"sync"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/limit"
)

// A retry that is counted while a change takes the budget away does not put the budget's number back into force.
func TestBudgetEndsWithItsConfiguration(t *testing.T) {
	c := &Cluster{limits: newLimits(func() int64 { return 0 })}
	for range 300 {
		c.limits.configure(&model.Limits{Budget: &model.RetryBudget{Percent: 20, Least: 3}}, nil)
		var all sync.WaitGroup
		begun := make(chan struct{}, 4)
		for range cap(begun) {
			all.Go(func() {
				for i := range 50 {
					if c.Retry() {
						c.RetryDone()
					}
					if i == 5 {
						begun <- struct{}{}
					}
				}
			})
		}
		<-begun
		c.limits.configure(nil, nil)
		all.Wait()
		if p, _ := c.Pools(); p.Retries.Limit != limit.Unlimited {
			t.Fatalf("%d retries are allowed, where nothing bounds them", p.Retries.Limit)
		}
	}
}
