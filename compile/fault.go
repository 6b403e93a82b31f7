package compile

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// fault translates fault. Without a percentage it is injected into no request (Istio).
func fault(o *config.Object, field string, f *networking.HTTPFaultInjection, r *report) *model.Fault {
	if f == nil {
		return nil
	}
	out := &model.Fault{}
	if d := f.Delay; d != nil {
		at := field + ".delay"
		//lint:ignore SA1019 deprecated, and in use
		percent, set := float64(d.Percent), d.Percent != 0 || o.Has(at+".percent")
		if d.Percentage != nil {
			percent, set = d.Percentage.Value, true
		}
		if !set {
			never(o, at, "delayed", r)
		}
		if out.Delay = duration(d.GetFixedDelay()); out.Delay > 0 {
			out.DelayPercent = share(percent)
		}
	}
	if a := f.Abort; a != nil {
		at := field + ".abort"
		if a.Percentage == nil {
			never(o, at, "aborted", r)
		}
		switch t := a.ErrorType.(type) {
		case *networking.HTTPFaultInjection_Abort_HttpStatus:
			out.AbortStatus, out.AbortPercent = int(t.HttpStatus), share(a.Percentage.GetValue())
		case *networking.HTTPFaultInjection_Abort_GrpcStatus:
			if code, ok := grpcStatus(t.GrpcStatus); ok {
				out.AbortGRPC, out.AbortPercent = code, share(a.Percentage.GetValue())
			} else {
				r.error(o, badValue, at+".grpcStatus", "write such as UNAVAILABLE", "%q is no status of gRPC; no request is aborted", t.GrpcStatus)
			}
		}
	}
	if out.DelayPercent == 0 && out.AbortPercent == 0 {
		return nil
	}
	return out
}

func never(o *config.Object, field, what string, r *report) {
	r.warn(o, ineffective, field, "add percentage: {value: 100}, or less", "without a percentage no request is %s", what)
}

// share keeps a percentage in its bounds.
func share(percent float64) float64 { return min(max(percent, 0), 100) }

var grpcStatuses = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// grpcStatus reads a status by its number or name, in either spelling.
func grpcStatus(s string) (int, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, n >= 0 && n < len(grpcStatuses)
	}
	s = strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
	if s == "CANCELED" {
		return 1, true
	}
	n := slices.Index(grpcStatuses, s)
	return n, n >= 0
}

// virtualMirror is a mirror of a VirtualService's rule.
type virtualMirror struct {
	virtualDestination
	percent float64
}

// checkShares reports a percentage of mirrored requests where nothing is mirrored. A delegate's may be for the root's mirror.
func checkShares(o *config.Object, field string, h *networking.HTTPRoute, r *report) {
	spec, _ := o.Spec.(*networking.VirtualService)
	if h.Mirror != nil || len(spec.GetHosts()) == 0 {
		return
	}
	remedy := "add mirror: {host: ...}, or remove it"
	if len(h.Mirrors) > 0 {
		remedy = "write percentage: {value: ...} in each of mirrors"
	}
	for _, name := range []string{"mirrorPercent", "mirrorPercentage"} {
		if o.Has(field + "." + name) {
			r.warn(o, ineffective, field+"."+name, remedy, "%s has no effect without mirror", name)
		}
	}
}

// mirrors translates mirror, with its percentage where one is written anywhere, and mirrors, whose percentages are their own; of all
// requests unless they say otherwise. One of 0 percent is none.
func (m *Mesh) mirrors(o *config.Object, field string, h *networking.HTTPRoute) []virtualMirror {
	var out []virtualMirror
	add := func(d *networking.Destination, percent float64, field string) {
		if percent > 0 {
			out = append(out, virtualMirror{percent: share(percent), virtualDestination: virtualDestination{
				object: o, host: fullName(d.GetHost(), o.Namespace, m.domain), subset: d.GetSubset(), port: int(d.GetPort().GetNumber()), weight: 1, field: field,
			}})
		}
	}
	if h.Mirror != nil {
		percent := 100.0
		//lint:ignore SA1019 deprecated, and in use
		if old := h.MirrorPercent; old != nil {
			percent = float64(old.Value)
		}
		if h.MirrorPercentage != nil {
			percent = h.MirrorPercentage.Value
		}
		add(h.Mirror, percent, field+".mirror")
	}
	for i, p := range h.Mirrors {
		percent := 100.0
		if p.Percentage != nil {
			percent = p.Percentage.Value
		}
		add(p.Destination, percent, element(field+".mirrors", i)+".destination")
	}
	return out
}

// inheritedMirrors are those of a delegate's rule, with what it leaves out and the root's has. A percentage is inherited by itself,
// as in Istio.
func (m *Mesh) inheritedMirrors(v *virtualRule, sub *networking.HTTPRoute, root *virtualRule, h *networking.HTTPRoute) []virtualMirror {
	//lint:ignore SA1019 deprecated, and in use
	merged := &networking.HTTPRoute{Mirror: sub.Mirror, MirrorPercent: sub.MirrorPercent, MirrorPercentage: cmp.Or(sub.MirrorPercentage, h.MirrorPercentage), Mirrors: sub.Mirrors}
	//lint:ignore SA1019 deprecated, and in use
	if merged.MirrorPercent == nil {
		//lint:ignore SA1019 deprecated, and in use
		merged.MirrorPercent = h.MirrorPercent
	}
	of, field := v.object, v.field
	if sub.Mirror == nil && len(sub.Mirrors) == 0 {
		merged.Mirror, merged.Mirrors = h.Mirror, h.Mirrors
		of, field = root.object, root.field
	}
	return m.mirrors(of, field, merged)
}

// mirrors are those of a rule that the client can reach.
func (s *scope) mirrors(all []virtualMirror, listen int) []model.Mirror {
	var out []model.Mirror
	for i := range all {
		d := &all[i]
		if c, f := s.target(d.host, d.subset, d.port, listen); f == nil && c.unfit(s.gateway != "") == nil {
			out = append(out, model.Mirror{Cluster: c.Name, Percent: d.percent})
		}
	}
	return out
}

// checkMirrors reports mirrors that lead nowhere.
func (v *virtualService) checkMirrors(s *scope, r *report) {
	for _, rule := range v.rules {
		for i := range rule.mirrors {
			d := &rule.mirrors[i]
			if s.portless(&d.virtualDestination, r) {
				continue
			}
			c, f := s.target(d.host, d.subset, d.port, d.port)
			if f == nil {
				f = c.unfit(!slices.Contains(v.gateways, inMesh))
			}
			if f != nil {
				f.report(r, d.object, d.field)
			}
		}
	}
}

// mirrorRef is a RequestMirror filter.
type mirrorRef struct {
	backendRef
	percent float64
}

// mirror adds a mirror of all requests, unless it says otherwise.
func (f *filters) mirror(spec *gatewayv1.HTTPRequestMirrorFilter, field string) {
	ref := mirrorRef{backendRef: f.mesh.service(f.object, &spec.BackendRef, field+".backendRef"), percent: 100}
	switch {
	case spec.Percent != nil:
		ref.percent = share(float64(*spec.Percent))
	case spec.Fraction != nil:
		of := int32(100)
		if spec.Fraction.Denominator != nil {
			of = *spec.Fraction.Denominator
		}
		ref.percent = share(100 * float64(spec.Fraction.Numerator) / float64(max(of, 1)))
	}
	if ref.percent > 0 {
		*f.mirrors = append(*f.mirrors, ref)
	}
}

// mirrors are those of a rule that can be reached; the others are left out, and their findings go to r.
func (h *apiRoute) mirrors(s *scope, all []mirrorRef, guarded bool, r *report) []model.Mirror {
	var out []model.Mirror
	for i := range all {
		b := &all[i]
		c, f, _ := h.target(s, &b.backendRef, guarded, r)
		if f != nil {
			if f.id == badBackend {
				mirrored := *f
				mirrored.message += "; nothing is mirrored there"
				f = &mirrored
			}
			f.report(r, h.object, b.field)
			continue
		}
		out = append(out, model.Mirror{Cluster: c.Name, Percent: b.percent})
	}
	return out
}
