package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/proxy/outlier"
	"github.com/outrider-mesh/outrider/proxy/upstream"
)

var (
	clusterLabels   = upstreamLabels[:3:3]
	descRetries     = prometheus.NewDesc("outrider_retries_total", "Attempts after a request's first.", clusterLabels, nil)
	descRetriesOK   = prometheus.NewDesc("outrider_retries_succeeded_total", "Requests that were answered well after a retry.", clusterLabels, nil)
	descRetriesOver = prometheus.NewDesc("outrider_retries_abandoned_total", "Requests that were not sent again though their policy names what befell them, by what stood against it: exhausted, budget, body.", append(clusterLabels, "reason"), nil)
	descEjected     = prometheus.NewDesc("outrider_endpoint_ejected", "1 for each endpoint that is not asked: by what outlier detection ejected it for, failure_accrual, or unready where its application does not pass its probe.", append(upstreamLabels[:4:4], "reason"), nil)
	descEjections   = prometheus.NewDesc("outrider_endpoint_ejections_total", "Ejections of endpoints.", append(clusterLabels, "reason"), nil)
	descSpared      = prometheus.NewDesc("outrider_endpoint_ejections_spared_total", "Endpoints that failed but were not ejected, as too many are (maxEjectionPercent).", clusterLabels, nil)
	descEndpoints   = prometheus.NewDesc("outrider_endpoints", "Endpoints of a destination that lets failing ones rest, or has some that are not ready, by whether they may be picked.", append(clusterLabels, "state"), nil)
	descPanic       = prometheus.NewDesc("outrider_panic", "1 where so few endpoints are healthy that all are used (minHealthPercent).", clusterLabels, nil)

	resilienceDescs = []*prometheus.Desc{descRetries, descRetriesOK, descRetriesOver, descEjected, descEjections, descSpared, descEndpoints, descPanic}
)

// accrued is why an endpoint rests that failure accrual leaves out.
const accrued = "failure_accrual"

// collectResilience tells of a cluster's retries, where there were any, and of endpoints that are not
// asked, where there may be some.
func collectResilience(ch chan<- prometheus.Metric, c *upstream.Cluster, l []string) {
	tell := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, more ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, append(l[:3:3], more...)...)
	}
	count := func(d *prometheus.Desc, n uint64, more ...string) {
		tell(d, prometheus.CounterValue, float64(n), more...)
	}
	t := c.Tally
	retried, exhausted, refused, unkept := t.Retried.Load(), t.Exhausted.Load(), t.Refused.Load(), t.Unkept.Load()
	if retried+exhausted+refused+unkept > 0 {
		count(descRetries, retried)
		count(descRetriesOK, t.Succeeded.Load())
		count(descRetriesOver, exhausted, "exhausted")
		count(descRetriesOver, refused, "budget")
		count(descRetriesOver, unkept, "body")
	}
	unready, healthy, ejected, accruing := 0, 0, 0, false
	told := map[string]bool{} // an address may be there twice
	for i := range c.Members {
		m := &c.Members[i]
		if !m.Host.Down.Load() {
			healthy++
		}
		if m.Spec.Unready {
			if unready++; !told[m.Address()] {
				told[m.Address()] = true
				tell(descEjected, prometheus.GaugeValue, 1, m.Address(), "unready")
			}
		}
		if m.Accrual != nil {
			accruing = true
			if m.Accrual.Down() {
				if ejected++; !told[m.Address()+accrued] {
					told[m.Address()+accrued] = true
					tell(descEjected, prometheus.GaugeValue, 1, m.Address(), accrued)
				}
			}
		}
	}
	if h := c.Health; h != nil {
		s := h.Stats()
		ejected += s.Active
		for r := range outlier.ReasonCount {
			count(descEjections, s.Enforced[r], r.String())
		}
		count(descSpared, s.Overflow)
		h.Ejected(func(address string, reason outlier.Reason) {
			tell(descEjected, prometheus.GaugeValue, 1, address, reason.String())
		})
	} else if unready == 0 && !accruing {
		return
	}
	tell(descEndpoints, prometheus.GaugeValue, float64(healthy), "healthy")
	tell(descEndpoints, prometheus.GaugeValue, float64(ejected), "ejected")
	tell(descEndpoints, prometheus.GaugeValue, float64(unready), "unready")
	panicking := 0.0
	if c.Balancer.Panicking() {
		panicking = 1
	}
	tell(descPanic, prometheus.GaugeValue, panicking)
}
