package compile

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// Linkerd's annotations, of a Service or a route.
const (
	retryHTTP       = "retry.linkerd.io/http"
	retryGRPC       = "retry.linkerd.io/grpc"
	retryLimit      = "retry.linkerd.io/limit"
	retryTimeout    = "retry.linkerd.io/timeout"
	timeoutRequest  = "timeout.linkerd.io/request"
	timeoutResponse = "timeout.linkerd.io/response"
	timeoutIdle     = "timeout.linkerd.io/idle"
	accrualMode     = "balancer.linkerd.io/failure-accrual"
	accrualPrefix   = accrualMode + "-consecutive-"
	balancerAlpha   = "balancer.alpha.linkerd.io/"
	accrualRate     = balancerAlpha + "failure-accrual-success-rate-"
)

// linkerdRoute is what Linkerd's annotations say of an object's routes. A route with any of those of retries follows none of them of
// its Service's, and so it is with time limits (Linkerd).
type linkerdRoute struct {
	retries                 *model.Retries // nil says nothing
	request, response, idle *model.Duration
	retried, limited        bool // an annotation of retries, of time limits, is there
}

var (
	retryAnnotations   = []string{retryHTTP, retryGRPC, retryLimit, retryTimeout}
	timeoutAnnotations = []string{timeoutRequest, timeoutResponse, timeoutIdle}
)

// annotated reads annotations of one object.
type annotated struct {
	*config.Object
	report *report
}

func annotation(name string) string { return "metadata.annotations[" + name + "]" }

func (a annotated) bad(name, remedy, format string, args ...any) {
	a.report.error(a.Object, badValue, annotation(name), remedy, "%s; the annotation has no effect", fmt.Sprintf(format, args...))
}

func (a annotated) without(name string) {
	a.report.warn(a.Object, noEffect, annotation(name), "remove it, or keep it for a version that has it", "%s has no effect yet", name)
}

// readLinkerdRoute reads retries and time limits; nil without any.
func readLinkerdRoute(o *config.Object, r *report) *linkerdRoute {
	a := annotated{o, r}
	has := func(name string) bool { _, ok := o.Annotations[name]; return ok }
	retried, limited := slices.ContainsFunc(retryAnnotations, has), slices.ContainsFunc(timeoutAnnotations, has)
	if !retried && !limited {
		return nil
	}
	return &linkerdRoute{
		retries: a.retries(), request: a.duration(timeoutRequest), response: a.duration(timeoutResponse), idle: a.duration(timeoutIdle),
		retried: retried, limited: limited,
	}
}

// retries are on statuses that are named, and wherever the request was certainly not processed; an attempt that took longer than
// its own limit, which the last one has not, counts as failed. As Linkerd does, they are for every method, and words may be written large.
func (a annotated) retries() *model.Retries {
	p := &model.Retries{Attempts: 1, Unsafe: true}
	if text, ok := a.Annotations[retryHTTP]; ok && !a.statuses(p, text) {
		p.On, p.Statuses = nil, nil
	}
	if text, ok := a.Annotations[retryGRPC]; ok {
		for word := range strings.SplitSeq(strings.ToLower(text), ",") {
			if !slices.Contains([]string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}, word) {
				a.bad(retryGRPC, "write some of cancelled, deadline-exceeded, internal, resource-exhausted and unavailable, with commas and without blanks", "%q is no condition", word)
				continue
			}
			p.On = append(p.On, word)
		}
	}
	limit, hasLimit := a.number(retryLimit)
	perTry := a.duration(retryTimeout)
	if perTry != nil && *perTry > 0 {
		p.PerTry, p.LastUnbound = *perTry, true
		p.On = append(p.On, "per-try-timeout")
	}
	if len(p.On) == 0 {
		for _, name := range []string{retryLimit, retryTimeout} {
			if _, ok := a.Annotations[name]; ok && a.Annotations[retryHTTP] == "" && a.Annotations[retryGRPC] == "" {
				a.report.warn(a.Object, ineffective, annotation(name), "add "+retryHTTP+" or "+retryGRPC, "%s has no effect: nothing says what is retried", name)
			}
		}
		return nil
	}
	if hasLimit && limit > 0 {
		p.Attempts = uint32(min(limit, math.MaxUint32))
	}
	p.On = append([]string{"connect-failure", "refused-stream"}, p.On...)
	for _, name := range []string{retryTimeout, retryGRPC, retryHTTP} { // the last one is where they come from
		if _, ok := a.Annotations[name]; ok {
			at := origin(a.Object, annotation(name), "")
			p.Origin = &at
		}
	}
	return p
}

// statuses reads a list of 5xx, gateway-error, NNN and NNN-MMM; it is false where one of them is none of these.
func (a annotated) statuses(p *model.Retries, text string) bool {
	for word := range strings.SplitSeq(text, ",") {
		if lower := strings.ToLower(word); lower == "5xx" || lower == "gateway-error" {
			p.On = append(p.On, lower)
			continue
		}
		first, last, span := strings.Cut(word, "-")
		if !span {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || from < 100 || to > 599 || from > to {
			a.bad(retryHTTP, "write such as 5xx, gateway-error, 503 or 500-504, with commas and without blanks", "%q is no status", word)
			return false
		}
		for ; from <= to; from++ {
			if !slices.Contains(p.Statuses, from) {
				p.Statuses = append(p.Statuses, from)
			}
		}
	}
	if len(p.Statuses) > 0 {
		p.On = append(p.On, "retriable-status-codes")
	}
	return true
}

// number reads a whole number; false where there is none.
func (a annotated) number(name string) (uint64, bool) {
	text, ok := a.Annotations[name]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		a.bad(name, "write such as 3", "%q is no whole number", text)
		return 0, false
	}
	return n, true
}

// duration reads a length of time as Linkerd writes it: a whole number and a unit, or 0; nil where there is none.
func (a annotated) duration(name string) *model.Duration {
	text, ok := a.Annotations[name]
	if !ok {
		return nil
	}
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	unit, known := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[text[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 32)
	if known = known || text == "0"; err != nil || n < 0 || !known {
		a.bad(name, "write a whole number with ms, s, m, h or d, such as 1500ms", "%q is no duration", text)
		return nil
	}
	d := model.Duration(time.Duration(min(n, int64(century/max(unit, 1)))) * unit)
	return &d
}

// shape gives a route of port p what the annotations say.
func (l *linkerdRoute) shape(p *port, route *model.Route) {
	if l == nil || opaque(p.protocol) {
		return
	}
	l.apply(route)
}

func (l *linkerdRoute) apply(route *model.Route) {
	if l.retries != nil {
		route.Retries = l.retries
	}
	if l.request != nil {
		route.Timeout = *l.request
	}
	if l.response != nil {
		route.BackendTimeout = *l.response
	}
	if l.idle != nil {
		route.Idle = *l.idle
	}
}

// shape gives a route of h, a rule's at field, what its annotations say. As in Linkerd, they come before its own fields.
func (h *apiRoute) shape(route *model.Route, field string, r *report) {
	l := h.linkerd
	if l == nil {
		return
	}
	overrules := func(written bool, part, name string) {
		if written {
			r.warn(h.object, ineffective, field+part, "keep one of them", "%s has no effect: the annotation %s comes first", part[strings.LastIndexByte(part, '.')+1:], name)
		}
	}
	overrules(l.retries != nil && route.Retries != nil && route.Retries.Origin != nil && route.Retries.Origin.Kind == h.object.Kind, ".retry", "retry.linkerd.io")
	overrules(l.request != nil && route.Timeout != 0, ".timeouts.request", timeoutRequest)
	overrules(l.response != nil && route.BackendTimeout != 0, ".timeouts.backendRequest", timeoutResponse)
	l.apply(route)
}

// meshed says whether h is for a Service.
func (h *apiRoute) meshed() bool {
	return slices.ContainsFunc(h.parents, func(p parentRef) bool { return p.service })
}

// implied sends the requests of h's rules that name no backends to port p of the Service that h is for, where h has annotations of
// Linkerd's, which does so. Otherwise they are answered 500, as the Gateway API wants it.
func (h *apiRoute) implied(s *scope, p *port, all []entry) []entry {
	for i := range all {
		from := all[i].from
		if from.implied == nil {
			continue
		}
		route := *from.implied
		c, f := s.cluster(p, "")
		route.Destinations = []model.Destination{s.destination(c, f, 1, 503)}
		route.Retries = s.settle(retryRule{retries: route.Retries}, route.Destinations)
		route.Mirrors = h.mirrors(s, from.mirrors, false, nil)
		all[i].rule.Route, all[i].rule.Reply = &route, nil
	}
	return all
}

// inherited gives the rules of h, a route of a Service's port, what the Service's annotations say and h does not.
func (l *linkerdRoute) inherited(h *apiRoute, p *port, all []entry) []entry {
	if l == nil || opaque(p.protocol) {
		return all
	}
	for i := range all {
		route := all[i].rule.Route
		if route == nil {
			continue
		}
		own := *l
		if h.linkerd != nil && h.linkerd.retried {
			own.retries = nil
		}
		if h.linkerd != nil && h.linkerd.limited {
			own.request, own.response, own.idle = nil, nil, nil
		}
		if route.Retries != nil && route.Retries.Origin != nil && route.Retries.Origin.Kind == h.object.Kind {
			own.retries = nil
		}
		if route.Timeout != 0 {
			own.request = nil
		}
		if route.BackendTimeout != 0 {
			own.response = nil
		}
		own.apply(route)
	}
	return all
}

// failureAccrual reads a Service's circuit breaking for each of its endpoints; nil without.
func failureAccrual(o *config.Object, r *report) *model.Accrual {
	a := annotated{o, r}
	mode, ok := o.Annotations[accrualMode]
	for _, name := range sortedKeys(o.Annotations) {
		switch {
		case strings.HasPrefix(name, accrualRate):
			if mode != "unified" {
				r.warn(o, ineffective, annotation(name), "write "+accrualMode+": unified, or remove it", "%s has no effect without %s: unified", name, accrualMode)
			}
		case strings.HasPrefix(name, balancerAlpha):
			a.without(name)
		case !ok && strings.HasPrefix(name, accrualPrefix):
			r.warn(o, ineffective, annotation(name), "add "+accrualMode+": consecutive", "%s has no effect without %s", name, accrualMode)
		}
	}
	switch {
	case !ok:
		return nil
	case mode != "consecutive" && mode != "unified":
		a.bad(accrualMode, "write consecutive or unified", "%q is no mode of failure accrual", mode)
		return nil
	}
	out := &model.Accrual{MaxFailures: 7, MinPenalty: model.Duration(time.Second), MaxPenalty: model.Duration(time.Minute), Jitter: 0.5}
	if n, ok := a.number(accrualPrefix + "max-failures"); ok {
		out.MaxFailures = uint32(n)
	}
	if d := a.duration(accrualPrefix + "min-penalty"); d != nil {
		out.MinPenalty = *d
	}
	if d := a.duration(accrualPrefix + "max-penalty"); d != nil {
		out.MaxPenalty = *d
	}
	if text, ok := o.Annotations[accrualPrefix+"jitter-ratio"]; ok {
		if f, err := strconv.ParseFloat(text, 64); err == nil && f >= 0 && f <= 100 {
			out.Jitter = f
		} else {
			a.bad(accrualPrefix+"jitter-ratio", "write a number from 0 to 100, such as 0.5", "%q is no ratio", text)
		}
	}
	if out.MaxPenalty == 0 || out.MinPenalty > out.MaxPenalty {
		r.error(o, badValue, annotation(accrualMode), "write a max-penalty above 0 that is not below min-penalty", "penalties from %s to %s are none; no endpoint rests", out.MinPenalty, out.MaxPenalty)
		return nil
	}
	if mode == "unified" {
		out.Rate = a.accrualRate()
	}
	if out.MaxFailures == 0 && (out.Rate == nil || out.Rate.Threshold == 0) {
		r.error(o, badValue, annotation(accrualPrefix+"max-failures"), "write 1 or more", "0 failures are none; no endpoint rests")
		return nil
	}
	at := origin(o, annotation(accrualMode), "")
	out.Origin = &at
	return out
}

// accrualRate is what the mode unified adds, with Linkerd's defaults for what is not written or not valid.
func (a annotated) accrualRate() *model.AccrualRate {
	out := &model.AccrualRate{Threshold: 0.8, Window: model.Duration(10 * time.Second), MinRequests: 5}
	if text, ok := a.Annotations[accrualRate+"threshold"]; ok {
		if f, err := strconv.ParseFloat(text, 64); err == nil && f >= 0 && f <= 1 {
			out.Threshold = f
		} else {
			a.bad(accrualRate+"threshold", "write a number from 0 to 1, such as 0.8", "%q is no share", text)
		}
	}
	if d := a.duration(accrualRate + "window"); d != nil {
		if *d >= model.Duration(10*time.Millisecond) {
			out.Window = *d
		} else {
			a.bad(accrualRate+"window", "write 10ms or more", "%s is too short a window", *d)
		}
	}
	if n, ok := a.number(accrualRate + "min-requests"); ok {
		if n <= 1_000_000 {
			out.MinRequests = uint32(n)
		} else {
			a.bad(accrualRate+"min-requests", "write 1000000 or less", "%d requests are too many", n)
		}
	}
	return out
}

// checkLinkerd reports annotations of Services that something else leaves without effect.
func (m *Mesh) checkLinkerd(r *report) {
	m.services.all(func(svc *service) bool {
		client := m.scope(svc.Namespace, nil)
		if v := m.virtual(client, svc.Host); v != nil && len(v.rules) > 0 && svc.linkerd != nil {
			m.overruled(svc, slices.Concat(retryAnnotations, timeoutAnnotations), v.object, "routes the service", r)
		}
		d := client.rule(svc)
		if svc.accrual == nil || d == nil {
			return true
		}
		for _, p := range svc.ports {
			if s := d.settings(p.number, nil); s.outlier != nil {
				m.overruled(svc, []string{accrualMode}, s.detector.object, "has an outlierDetection", r)
				break
			}
		}
		return true
	})
}

func (m *Mesh) overruled(svc *service, names []string, by *config.Object, why string, r *report) {
	for _, name := range names {
		if _, ok := svc.object.Annotations[name]; ok {
			r.warn(svc.object, twoShapers, annotation(name), "keep one of them", "%s has no effect: %s (%s) %s", name, describe(by), position(by), why)
		}
	}
}
