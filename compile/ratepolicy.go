package compile

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// policyServer is the target of an HTTPLocalRateLimitPolicy: a port of some pods.
type policyServer struct {
	object *config.Object
	pods   labels.Selector
	port   intstr.IntOrString
}

// takes says whether the server is port of w.
func (s *policyServer) takes(w *workload, port int) bool {
	if w.Namespace != s.object.Namespace || !s.pods.Matches(labels.Set(w.Labels)) {
		return false
	}
	if s.port.Type == intstr.Int {
		return int(s.port.IntVal) == port
	}
	named := func(p TemplatePort) bool { return p.Port == port && p.Name == s.port.StrVal }
	return slices.ContainsFunc(w.containers, named) || slices.ContainsFunc(w.Ports, named)
}

// readRatePolicies lists Linkerd's HTTPLocalRateLimitPolicies after the RateLimits; the first of a Server has it, as in Linkerd.
func (m *Mesh) readRatePolicies(objects []*config.Object, r *report) {
	servers, taken := map[string]*config.Object{}, map[*config.Object]*config.Object{}
	for _, o := range objects {
		if s, ok := o.Spec.(*config.LinkerdServer); ok {
			servers[key(o.Namespace, o.Name)] = o
			if s.PodSelector == nil {
				r.without(o, "spec.externalWorkloadSelector")
			}
		}
	}
	for _, o := range objects {
		spec, ok := o.Spec.(*config.LinkerdRateLimit)
		if !ok {
			continue
		}
		const field = "spec.targetRef.name"
		server := servers[key(o.Namespace, spec.TargetRef.Name)]
		if server == nil {
			r.error(o, limitTarget, field, "check the name, or add the Server", "there is no Server %s/%s; nothing is limited", o.Namespace, spec.TargetRef.Name)
			continue
		}
		if first := taken[server]; first != nil {
			r.warn(o, limitTarget, field, "keep one of them", "%s (%s) is for the same Server and comes first (order: %s); this one limits nothing", describe(first), position(first), orderText(o))
			continue
		}
		taken[server] = o
		of := server.Spec.(*config.LinkerdServer)
		pods, err := metav1.LabelSelectorAsSelector(of.PodSelector) // of none: nothing; config has checked the others
		if err != nil {
			continue
		}
		l := &rateLimit{object: o, spec: &config.RateLimit{Keys: config.RateKeys}, server: &policyServer{object: server, pods: pods, port: of.Port}}
		l.model = policyLimit(o, spec)
		m.rates = append(m.rates, l)
	}
}

// policyLimit is what the policy says, as Linkerd counts: so many a second, and at once.
func policyLimit(o *config.Object, spec *config.LinkerdRateLimit) model.RateLimit {
	from := origin(o, "spec", "")
	out := model.RateLimit{Name: o.Kind + "/" + key(o.Namespace, o.Name), GRPC: 8, Keys: config.RateKeys, Origin: &from}
	rate := func(n int) *model.TokenLimit {
		out.Limits = append(out.Limits, model.TokenLimit{Requests: n, Per: model.Duration(time.Second), Burst: n})
		return &out.Limits[len(out.Limits)-1]
	}
	if spec.Total != nil {
		rate(spec.Total.RequestsPerSecond)
	}
	var others []string
	for _, v := range spec.Overrides {
		t := rate(v.RequestsPerSecond)
		for _, ref := range v.ClientRefs {
			account := key(o.Namespace, ref.Name)
			if ref.Namespace != "" {
				account = key(ref.Namespace, ref.Name)
			}
			if !slices.Contains(others, account) { // the first override has it
				t.Only, others = append(t.Only, account), append(others, account)
			}
		}
		if len(t.Only) == 0 {
			out.Limits = out.Limits[:len(out.Limits)-1]
		}
	}
	if spec.Identity != nil {
		t := rate(spec.Identity.RequestsPerSecond)
		t.By, t.Except = []model.RateKey{{Account: true}}, others
	}
	return out
}

// checkPolicyLimit reports a policy whose Server takes no requests.
func (m *Mesh) checkPolicyLimit(l *rateLimit, r *report) {
	for _, name := range sortedKeys(m.workloads) {
		w := m.workloads[name]
		if slices.ContainsFunc(w.Ports, func(p TemplatePort) bool { return l.server.takes(w, p.Port) && !opaque(p.Protocol) }) {
			return
		}
	}
	r.warn(l.object, limitTarget, "spec.targetRef.name", "compare the Server's podSelector and port with the pods, and name the Service's port after its protocol",
		"%s (%s) is no port of a workload that takes requests; nothing is limited", describe(l.server.object), position(l.server.object))
}
