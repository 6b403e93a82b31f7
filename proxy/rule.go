package proxy

import (
	"fmt"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/policy"
	"github.com/outrider-mesh/outrider/proxy/upstream"
)

// rule is a model.Rule with everything resolved that an exchange needs: no name is looked up after match.
type rule struct {
	spec     *model.Rule
	name     string // in logs
	request  *policy.Edits
	response *policy.Edits
	cors     *policy.CORS
	redirect *policy.Redirect
	reply    *reply
	limits   []*rateLimit    // nil without any
	answers  *telemetry.HTTP // counts requests that the proxy answers itself; nil where they are nobody's
	// Of a route:
	fault          *fault
	mirrors        []mirrorTarget
	targets        []target
	split          *balance.Split // nil with a single target
	rewrite        *policy.Rewrite
	timeout        int64 // nanoseconds; 0 is none
	backendTimeout int64
	perTry         int64
	idle           int64
	retries        *retries
}

// target is one destination of a route.
type target struct {
	cluster  *upstream.Cluster
	request  *policy.Edits
	response *policy.Edits
	reply    *reply // instead of a cluster
}

// reply is an answer of the proxy's own.
type reply struct {
	spec    *model.Reply
	outcome outcome
}

// opaque says whether the rule leads to a port whose bytes pass unread.
func (r *rule) opaque() bool { return r.leads(opaque) }

// undeclared says whether the rule leads to a port whose protocol has to be found out.
func (r *rule) undeclared() bool {
	return r.leads(func(p model.Protocol) bool { return p == model.Auto })
}

func (r *rule) leads(to func(model.Protocol) bool) bool {
	for i := range r.targets {
		if c := r.targets[i].cluster; c != nil && c.Spec.Kind != model.Passthrough && to(c.Spec.Protocol) {
			return true
		}
	}
	return false
}

// refuses says whether the proxy answers for want of a destination, whatever the request is.
func (r *rule) refuses() bool { return r.reply != nil && r.reply.outcome != configured }

func newReply(s *model.Reply) *reply {
	if s == nil {
		return nil
	}
	return &reply{spec: s, outcome: outcomeNamed(s.Outcome)}
}

// newRule resolves s over the clusters of one generation.
func newRule(s *model.Rule, clusters map[string]*upstream.Cluster) (*rule, error) {
	r := &rule{
		spec: s, name: routeName(s),
		request: policy.NewEdits(s.Request), response: policy.NewEdits(s.Response),
		reply: newReply(s.Reply),
	}
	var err error
	if s.CORS != nil {
		if r.cors, err = policy.NewCORS(s.CORS); err != nil {
			return nil, fmt.Errorf("cors: %w", err)
		}
	}
	if s.Redirect != nil {
		if r.redirect, err = policy.NewRedirect(s.Redirect); err != nil {
			return nil, fmt.Errorf("redirect: %w", err)
		}
	}
	if s.Route == nil {
		return r, nil
	}
	r.timeout, r.backendTimeout, r.idle = int64(s.Route.Timeout), int64(s.Route.BackendTimeout), int64(s.Route.Idle)
	if s.Route.Retries != nil {
		r.perTry = int64(s.Route.Retries.PerTry)
	}
	if r.retries, err = newRetries(s.Route.Retries); err != nil {
		return nil, fmt.Errorf("retries: %w", err)
	}
	if s.Route.Rewrite != nil {
		if r.rewrite, err = policy.NewRewrite(s.Route.Rewrite); err != nil {
			return nil, fmt.Errorf("rewrite: %w", err)
		}
	}
	weights := make([]uint32, len(s.Route.Destinations))
	for i := range s.Route.Destinations {
		d := &s.Route.Destinations[i]
		weights[i] = d.Weight
		t := target{
			cluster: clusters[d.Cluster],
			request: policy.NewEdits(d.Request), response: policy.NewEdits(d.Response),
			reply: newReply(d.Reply),
		}
		if t.cluster == nil && t.reply == nil {
			return nil, fmt.Errorf("there is no cluster %q", d.Cluster)
		}
		r.targets = append(r.targets, t)
	}
	if len(weights) > 1 {
		if r.split, err = balance.NewSplit(weights); err != nil {
			return nil, fmt.Errorf("weights: %w", err)
		}
	}
	return r, nil
}
