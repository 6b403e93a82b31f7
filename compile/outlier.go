package compile

import (
	"fmt"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/outlier"
)

// outlierCoverage leaves out consecutiveErrors, which Istio no longer reads.
var outlierCoverage = covers("splitExternalLocalOriginErrors", "consecutiveLocalOriginFailures", "consecutiveGatewayErrors", "consecutive5xxErrors", "interval",
	"baseEjectionTime", "maxEjectionPercent", "minHealthPercent", "outlierDetectionHttpErrorCodes")

// defaultPanic is the percentage of healthy endpoints below which Envoy uses them all; outlierDetection without minHealthPercent
// switches that off (Istio).
const defaultPanic = 50

// protect gives c what lets its endpoints rest: the outlierDetection of its policy, else its service's failure accrual.
func (m *Mesh) protect(c *cluster, p policy) {
	if c.Kind != model.Listed {
		return // its endpoints are whatever the requests name
	}
	c.Panic = defaultPanic
	switch accrual := c.port.service.accrual; {
	case p.outlier != nil:
		c.Outlier, c.Panic = outlierDetection(p.outlier), uint32(max(p.outlier.MinHealthPercent, 0))
		if p.detector.object != nil {
			c.Outlier.Origin = p.detector.origin("")
		} else {
			o := m.configOrigin("defaultTrafficPolicy.outlierDetection")
			c.Outlier.Origin = &o
		}
	case accrual != nil && !opaque(c.Protocol):
		c.Accrual, c.Panic = accrual, 0
	}
}

// outlierDetection translates s, with Istio's defaults for what it leaves out.
func outlierDetection(s *networking.OutlierDetection) *model.Outlier {
	d := outlier.Defaults()
	out := &model.Outlier{
		Consecutive5xx: d.Consecutive5xx, ConsecutiveGateway: s.ConsecutiveGatewayErrors.GetValue(), ConsecutiveLocalOrigin: d.ConsecutiveLocalOrigin,
		Split: s.SplitExternalLocalOriginErrors, Interval: model.Duration(d.Interval), BaseEjection: model.Duration(d.BaseEjection), MaxEjectionPercent: d.MaxEjectionPercent,
	}
	if s.Consecutive_5XxErrors != nil {
		out.Consecutive5xx = s.Consecutive_5XxErrors.Value
	}
	if n := s.ConsecutiveLocalOriginFailures.GetValue(); n > 0 {
		out.ConsecutiveLocalOrigin = n
	}
	if t := duration(s.Interval); t.Std() >= time.Millisecond {
		out.Interval = t
	}
	if t := duration(s.BaseEjectionTime); t.Std() >= time.Millisecond {
		out.BaseEjection = t
	}
	if s.MaxEjectionPercent > 0 {
		out.MaxEjectionPercent = min(int(s.MaxEjectionPercent), 100)
	}
	for _, status := range s.OutlierDetectionHttpErrorCodes {
		out.Statuses = append(out.Statuses, int(status))
	}
	return out
}

// checkPolicy reports what of a policy for host, at field, does nothing or something else than it says.
func (m *Mesh) checkPolicy(o *config.Object, field string, p *networking.TrafficPolicy, host string, r *report) {
	if p == nil {
		return
	}
	svc := m.services.find(host, o.Namespace)
	requests := func(number int) bool {
		if svc == nil {
			return true
		}
		for _, p := range svc.ports {
			if (number == 0 || number == p.number) && !opaque(p.protocol) {
				return true
			}
		}
		return false
	}
	checkPool(o, field+".connectionPool", p.ConnectionPool, requests(0), r)
	checkBudget(o, field+".connectionPool", p.ConnectionPool, p.RetryBudget, r)
	checkCounts(o, field+".outlierDetection", p.OutlierDetection, r)
	for i, l := range p.PortLevelSettings {
		at := element(field+".portLevelSettings", i)
		if n := int(l.Port.GetNumber()); svc != nil && svc.port(n) == nil {
			r.warn(o, unknownPort, at+".port.number", "name one of the service's ports, not the application's", "%s has no port %d, so that these settings have no effect; its ports: %s", host, n, portList(svc))
		}
		checkPool(o, at+".connectionPool", l.ConnectionPool, requests(int(l.Port.GetNumber())), r)
		checkBudget(o, at+".connectionPool", l.ConnectionPool, p.RetryBudget, r)
		checkCounts(o, at+".outlierDetection", l.OutlierDetection, r)
	}
}

// checkCounts reports counts of errors that are never reached.
func checkCounts(o *config.Object, field string, s *networking.OutlierDetection, r *report) {
	if s == nil {
		return
	}
	out := outlierDetection(s)
	gateway, all := out.ConsecutiveGateway, out.Consecutive5xx
	switch {
	case gateway == 0 && all == 0 && !out.Split:
		r.warn(o, neverEjects, field, "give consecutive5xxErrors or consecutiveGatewayErrors a number above 0", "no endpoint is ever ejected: no kind of error is counted")
	case all > 0 && gateway >= all:
		r.warn(o, ineffective, field+".consecutiveGatewayErrors", "write a number below consecutive5xxErrors, or consecutive5xxErrors: 0",
			"consecutiveGatewayErrors %d has no effect: after %d errors of any kind (consecutive5xxErrors) the endpoint is ejected already", gateway, all)
	}
}

// checkOutliers reports outlierDetections whose maxEjectionPercent is less than one endpoint of a service that they are for.
func (m *Mesh) checkOutliers(r *report) {
	for _, namespace := range sortedKeys(m.rules) {
		set := m.rules[namespace]
		for _, host := range sortedKeys(set.exact) {
			for _, d := range set.exact[host] {
				if svc := m.services.find(host, namespace); svc != nil {
					d.checkOutliers(svc, r)
				}
			}
		}
	}
}

func (d *destinationRule) checkOutliers(svc *service, r *report) {
	for _, p := range svc.ports {
		if p.source == named {
			m := d.settings(p.number, nil)
			if m.outlier != nil {
				r.warn(m.detector.object, neverEjects, m.detector.field, "list the endpoints in the ServiceEntry", "no endpoint of %s is ever ejected: it has none but what requests name (resolution NONE)", svc.Host)
			}
			continue
		}
		whole := d.settings(p.number, nil)
		if neverEjected(whole, p.endpoints(nil), svc.Host, r) {
			continue
		}
		for _, sub := range d.subsets {
			s := d.settings(p.number, sub)
			neverEjected(s, p.endpoints(sub.labels), fmt.Sprintf("subset %q of %s", sub.name, svc.Host), r)
		}
	}
}

// neverEjected says whether it has reported that p ejects none of n endpoints.
func neverEjected(p policy, n int, of string, r *report) bool {
	if p.outlier == nil || n == 0 {
		return false
	}
	s := outlier.Settings{MaxEjectionPercent: outlierDetection(p.outlier).MaxEjectionPercent}
	if s.Most(n) > 0 {
		return false
	}
	field := p.detector.field
	if p.detector.object.Has(field + ".maxEjectionPercent") {
		field += ".maxEjectionPercent"
	}
	endpoints := "endpoints"
	if n == 1 {
		endpoints = "endpoint"
	}
	r.warn(p.detector.object, neverEjects, field, fmt.Sprintf("write maxEjectionPercent: %d or more", (100+n-1)/n),
		"no endpoint of %s is ever ejected: maxEjectionPercent %d of %d %s, as many as are written here, is less than one", of, s.MaxEjectionPercent, n, endpoints)
	return true
}

// endpoints counts those of p that its workloads, as they are written, and its fixed ones make; 0 where the files cannot tell: a
// DaemonSet has as many as there are nodes, and a name may stand for any number.
func (p *port) endpoints(labels map[string]string) int {
	n := 0
	for _, w := range p.workloads {
		if selects(labels, w.Labels) {
			if w.Kind == "DaemonSet" {
				return 0
			}
			n += w.Replicas
		}
	}
	for _, c := range p.fixed {
		if selects(labels, c.labels) {
			if host, _ := splitAddress(c.endpoint.Address); !address(host) {
				return 0
			}
			n++
		}
	}
	return n
}
