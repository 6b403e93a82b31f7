package config

import (
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// The Gateway API's XBackendTrafficPolicy (gateway.networking.x-k8s.io/v1alpha1), an experiment: how often a Service may be
// tried again, by all routes together.

// defaultTrafficPolicy leaves a retryConstraint as the API server does, and fills in what that leaves out of a minRetryRate.
func defaultTrafficPolicy(p *gatewayx.XBackendTrafficPolicy) {
	c := p.Spec.RetryConstraint
	if c == nil {
		return
	}
	if c.Budget == nil {
		c.Budget = &gatewayx.BudgetDetails{}
	}
	if c.MinRetryRate == nil {
		c.MinRetryRate = &gatewayx.RequestRate{}
	}
	fallback(&c.Budget.Percent, 20)
	fallback(&c.Budget.Interval, gatewayv1.Duration("10s"))
	fallback(&c.MinRetryRate.Count, 10)
	fallback(&c.MinRetryRate.Interval, gatewayv1.Duration("1s"))
}

func checkTrafficPolicy(c *checker, p *gatewayx.XBackendTrafficPolicy) {
	policyTargets(c, p.Spec.TargetRefs, func(t gatewayv1.LocalPolicyTargetReference) gatewayv1.LocalPolicyTargetReference { return t })
	r := p.Spec.RetryConstraint
	if r == nil {
		return
	}
	const budget, rate = "spec.retryConstraint.budget", "spec.retryConstraint.minRetryRate"
	within(c, budget+".percent", *r.Budget.Percent, 0, 100)
	if t, ok := c.gatewayDuration(budget+".interval", r.Budget.Interval); ok {
		c.unless(t >= time.Second && t <= time.Hour, idDuration, budget+".interval", "interval "+t.String()+" is out of range", "write a duration from 1s to 1h")
	}
	within(c, rate+".count", *r.MinRetryRate.Count, 1, 1_000_000)
	if t, ok := c.gatewayDuration(rate+".interval", r.MinRetryRate.Interval); ok {
		c.unless(t > 0 && t <= time.Hour, idDuration, rate+".interval", "interval "+t.String()+" is out of range", "write a duration from 1ms to 1h")
	}
}
