package compile

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// readTrafficPolicies attaches XBackendTrafficPolicies to their Services; the first of a Service has it.
func (m *Mesh) readTrafficPolicies(objects []*config.Object, r *report) {
	for _, o := range objects {
		spec, ok := o.Spec.(*gatewayx.XBackendTrafficPolicy)
		if !ok {
			continue
		}
		if spec.Spec.SessionPersistence != nil {
			r.without(o, "spec.sessionPersistence")
		}
		for i, t := range spec.Spec.TargetRefs {
			field := element("spec.targetRefs", i)
			svc := m.policyTarget(o, field, t, r)
			if svc == nil {
				continue
			}
			if spec.Spec.RetryConstraint == nil {
				continue
			}
			if first := svc.constraint; first != nil {
				r.warn(o, twoShapers, field, "keep one of them", "%s has a retryConstraint already (%s), which comes first; this one has no effect on it", svc.Host, at(*first.Origin))
				continue
			}
			svc.constraint = constraint(o, svc, spec.Spec.RetryConstraint)
		}
	}
}

// policyTarget returns the Service that a policy of the Gateway API is for, or nil.
func (m *Mesh) policyTarget(o *config.Object, field string, t gatewayv1.LocalPolicyTargetReference, r *report) *service {
	if t.Kind != "Service" || (t.Group != "" && t.Group != "core") {
		r.warn(o, noEffect, field+".kind", "refer to a Service", "target %s of group %q has no effect yet", t.Kind, t.Group)
		return nil
	}
	svc := m.services.find(fullName(string(t.Name), o.Namespace, m.domain), o.Namespace)
	if svc == nil || svc.entry || svc.Namespace != o.Namespace {
		r.error(o, unknownHost, field+".name", "check the name, or add the Service", "there is no Service %s/%s", o.Namespace, t.Name)
		return nil
	}
	return svc
}

// constraint translates c, whose defaults are filled in. All ports of the Service, and all routes to it, spend the same retries.
func constraint(o *config.Object, svc *service, c *gatewayx.RetryConstraint) *model.RetryAllowance {
	const field = "spec.retryConstraint"
	from := origin(o, field, "")
	out := &model.RetryAllowance{
		Name: "constraint of " + svc.Host, Ratio: float64(*c.Budget.Percent) / 100, Origin: &from,
		TTL: gatewayDuration(o, field+".budget.interval", c.Budget.Interval, nil),
	}
	if each := gatewayDuration(o, field+".minRetryRate.interval", c.MinRetryRate.Interval, nil).Std(); each > 0 {
		out.PerSecond = float64(*c.MinRetryRate.Count) / each.Seconds()
	}
	return out
}
