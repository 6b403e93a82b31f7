package upstream

import (
	"fmt"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/limit"
)

// Tally counts what became of the retries of a cluster's requests. It is kept across configurations, by the cluster's name.
type Tally struct {
	Retried   atomic.Uint64 // attempts after the first
	Succeeded atomic.Uint64 // requests that a retry brought an answer which no policy objects to
	// Requests that were not sent again although their policy names what befell them:
	Exhausted atomic.Uint64 // no attempts were left
	Refused   atomic.Uint64 // the budget, or the limit of retries under way, did not allow it
	Unkept    atomic.Uint64 // their body was too long to be kept
}

// allowance is a retry budget with what it was made from.
type allowance struct {
	spec model.RetryAllowance
	*limit.Allowance
}

// Allowance returns the retry budget that spec names, or else the one of the route whose own that name is. One that was there
// before, and has not changed, goes on with what it has counted.
func (ch *Change) Allowance(name string, spec *model.RetryAllowance) (*limit.Allowance, error) {
	if spec == nil {
		return nil, nil //nolint:nilnil // none is asked for, none is made
	}
	if spec.Name != "" {
		name = spec.Name
	}
	bare := *spec
	bare.Origin = nil
	a, ok := ch.allowances[name]
	if !ok {
		a, ok = ch.set.allowances[name]
	}
	if !ok || a.spec != bare {
		made, err := limit.NewAllowance(spec.Ratio, spec.PerSecond, spec.TTL.Std(), ch.set.clock())
		if err != nil {
			return nil, fmt.Errorf("retry budget: %w", err)
		}
		a = allowance{bare, made}
	}
	ch.allowances[name] = a
	return a.Allowance, nil
}
