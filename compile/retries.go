package compile

import (
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// defaultConditions are those of retries that name none (Istio).
var defaultConditions = []string{"connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"}

// defaultAttempts is how often such requests are sent again.
const defaultAttempts = 2

// safeConditions are those under which a request was certainly not processed. Whoever names another one wants what may have been
// processed to be sent again, whatever its method, as it is in Istio.
var safeConditions = []string{"connect-failure", "refused-stream", "reset-before-request"}

// otherConditions are the rest of those that mean something here.
var otherConditions = []string{
	"5xx", "gateway-error", "reset", "envoy-ratelimited", "retriable-4xx", "retriable-status-codes",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

// emptyConditions never hold: Istio has no field for the headers, and no proxy here speaks HTTP/3.
var emptyConditions = []string{"retriable-headers", "http3-post-connect-failure"}

// retryDefaults are the policies of routes that say nothing themselves. All routes share them.
type retryDefaults struct {
	never   *model.Retries
	outside *model.Retries // of outbound routes and gateways
	hashed  *model.Retries // the same where a destination hashes consistently
	inbound *model.Retries // of requests to the application
}

// readRetries sets the mesh's default policies: Istio's, or the MeshConfig's.
func (m *Mesh) readRetries(r *report) {
	m.retry = retryDefaults{
		never:   &model.Retries{},
		outside: &model.Retries{Attempts: defaultAttempts, On: defaultConditions},
		inbound: &model.Retries{Attempts: defaultAttempts, On: []string{"reset-before-request"}},
	}
	if spec := m.config.GetDefaultHttpRetryPolicy(); spec != nil {
		const field = "data.mesh.defaultHttpRetryPolicy"
		if spec.PerTryTimeout != nil {
			r.warn(m.configObject, ineffective, field+".perTryTimeout", "write it in the VirtualServices that want it", "perTryTimeout has no effect here: Istio takes all of the mesh's retry policy but this")
		}
		p := m.retries(m.configObject, field, spec, r)
		own := *p.retries
		own.PerTry = 0
		o := m.configOrigin("defaultHttpRetryPolicy")
		own.Origin = &o
		m.retry.outside = &own
	}
	m.retry.hashed = sameHosts(m.retry.outside)
}

// sameHosts is p with the hosts that have failed.
func sameHosts(p *model.Retries) *model.Retries {
	if p == nil || p.SameHosts || p.Attempts == 0 {
		return p
	}
	own := *p
	own.SameHosts = true
	return &own
}

// retryRule is what a route says of retries. elsewhere says that it wants other hosts even where they are chosen by a hash.
type retryRule struct {
	retries   *model.Retries
	elsewhere bool
}

// retries translates Istio's retries; nil is the mesh's default.
func (m *Mesh) retries(o *config.Object, field string, spec *networking.HTTPRetry, r *report) retryRule {
	switch {
	case spec == nil:
		return retryRule{retries: m.retry.outside}
	case spec.Attempts <= 0:
		return retryRule{retries: m.retry.never}
	}
	p := &model.Retries{
		Attempts:         uint32(spec.Attempts),
		On:               defaultConditions,
		PerTry:           duration(spec.PerTryTimeout),
		Backoff:          duration(spec.Backoff),
		RemoteLocalities: spec.RetryRemoteLocalities.GetValue(),
		SameHosts:        spec.RetryIgnorePreviousHosts != nil && !spec.RetryIgnorePreviousHosts.Value,
	}
	if o != nil {
		at := origin(o, field, "")
		p.Origin = &at
	}
	if spec.RetryOn != "" {
		p.On, p.Statuses = conditions(o, field+".retryOn", spec.RetryOn, r)
		p.Unsafe = risky(p)
	}
	return retryRule{retries: p, elsewhere: spec.RetryIgnorePreviousHosts.GetValue()}
}

// conditions reads retryOn: Envoy's conditions, and statuses.
func conditions(o *config.Object, field, text string, r *report) (on []string, statuses []int) {
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		status, err := strconv.Atoi(word)
		switch {
		case word == "" || slices.Contains(on, word):
		case slices.Contains(safeConditions, word), slices.Contains(otherConditions, word):
			on = append(on, word)
		case slices.Contains(emptyConditions, word):
			r.warn(o, ineffective, field, "remove it", "%q has no effect: nothing here can bring it about", word)
		case err != nil:
			r.error(o, badValue, field, "write conditions such as connect-failure, 5xx or 503", "%q is no condition of a retry; it is left out", word)
		case status < 100 || status > 599:
			r.error(o, badValue, field, "write a status from 100 to 599", "%d is no HTTP status; it is left out", status)
		case !slices.Contains(statuses, status):
			statuses = append(statuses, status)
		}
	}
	if len(statuses) > 0 && !slices.Contains(on, "retriable-status-codes") {
		on = append(on, "retriable-status-codes")
	}
	return on, statuses
}

// risky says whether p's conditions, which someone has written, hold for requests that may have been processed.
func risky(p *model.Retries) bool {
	return slices.ContainsFunc(p.On, func(c string) bool {
		return !slices.Contains(safeConditions, c) && (c != "retriable-status-codes" || len(p.Statuses) > 0)
	})
}

// settle is the policy for a route to those destinations. Where one of them hashes consistently, the same host is asked again:
// any other would be the wrong one (Istio).
func (s *scope) settle(p retryRule, to []model.Destination) *model.Retries {
	if p.elsewhere || p.retries == nil || !slices.ContainsFunc(to, s.hashes) {
		return p.retries
	}
	if p.retries == s.mesh.retry.outside {
		return s.mesh.retry.hashed
	}
	return sameHosts(p.retries)
}

func (s *scope) hashes(d model.Destination) bool {
	c := s.clusters[d.Cluster]
	return c != nil && (c.LoadBalancer.Policy == model.RingHash || c.LoadBalancer.Policy == model.Maglev)
}

// defaults is the policy for a route to p's own endpoints.
func (s *scope) defaults(p *port, to []model.Destination) *model.Retries {
	if opaque(p.protocol) {
		return nil
	}
	return s.settle(retryRule{retries: s.mesh.retry.outside}, to)
}

// routeRetries translates an HTTPRoute's retry: its statuses, and a connection that fails or breaks, or an attempt that takes
// too long, whatever it says; its backoff is the least wait before each (Gateway API). nil is the mesh's default.
func (m *Mesh) routeRetries(o *config.Object, field string, spec *gatewayv1.HTTPRouteRetry, r *report) *model.Retries {
	if spec == nil {
		return m.retry.outside
	}
	p := &model.Retries{Attempts: defaultAttempts, On: []string{"connect-failure", "refused-stream", "reset"}, LeastWait: gatewayDuration(o, field+".backoff", spec.Backoff, r)}
	if spec.Attempts != nil {
		p.Attempts = uint32(max(*spec.Attempts, 0))
	}
	for _, code := range spec.Codes {
		p.Statuses = append(p.Statuses, int(code))
	}
	if len(p.Statuses) > 0 {
		p.On = append(p.On, "retriable-status-codes")
		p.Unsafe = true
	}
	at := origin(o, field, "")
	p.Origin = &at
	return p
}

// checkRetries reports a limit of each try that the whole request's comes before.
func checkRetries(o *config.Object, field string, route *model.Route, r *report) {
	if p := route.Retries; p != nil && p.Origin != nil && p.PerTry > 0 && route.Timeout > 0 && p.PerTry >= route.Timeout {
		r.warn(o, ineffective, field+".retries.perTryTimeout", "write less than timeout", "perTryTimeout %s has no effect: timeout %s, which is for all tries together, comes first", p.PerTry, route.Timeout)
	}
}
