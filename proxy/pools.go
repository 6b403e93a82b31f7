package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/limit"
	"github.com/outrider-mesh/outrider/proxy/upstream"
)

// This file is the metrics of clusters with limits: what there is, what there may be, and how often that was not enough. The
// series are bounded by the configuration, and the exchanges pay nothing for them.

var poolLabels = []string{"direction", "destination_service", "port", "subset"}

// poolDescs are the families of one limit.
type poolDescs struct {
	what           upstream.Overflow
	current, limit *prometheus.Desc
	pool           func(*upstream.Pools) upstream.Pool
}

func describePool(what upstream.Overflow, current, most string, pool func(*upstream.Pools) upstream.Pool) poolDescs {
	name := "outrider_pool_" + string(what)
	return poolDescs{what, prometheus.NewDesc(name, current, poolLabels, nil), prometheus.NewDesc(name+"_limit", most, poolLabels, nil), pool}
}

var (
	pools = []poolDescs{
		describePool(upstream.OverflowConnections, "Connections to a destination with limits, those being opened included.",
			"Connections that there may be (maxConnections).", func(p *upstream.Pools) upstream.Pool { return p.Connections }),
		describePool(upstream.OverflowPending, "Requests that wait for a connection.",
			"Requests that may wait for a connection (http1MaxPendingRequests).", func(p *upstream.Pools) upstream.Pool { return p.Pending }),
		describePool(upstream.OverflowRequests, "Requests that the destination is working on.",
			"Requests that may be under way (http2MaxRequests).", func(p *upstream.Pools) upstream.Pool { return p.Requests }),
		describePool(upstream.OverflowRetries, "Retries under way or waiting for their back-off.",
			"Retries that may be under way (maxRetries or retryBudget).", func(p *upstream.Pools) upstream.Pool { return p.Retries }),
	}
	descOverflows = prometheus.NewDesc("outrider_pool_overflows_total",
		"Connections, requests and retries refused because a limit of the destination was reached.", append(poolLabels[:4:4], "limit"), nil)
)

// describePools is Describe for them.
func describePools(ch chan<- *prometheus.Desc) {
	for i := range pools {
		ch <- pools[i].current
		ch <- pools[i].limit
	}
	ch <- descOverflows
}

// collectPools is Collect for them.
func (p *Proxy) collectPools(ch chan<- prometheus.Metric) {
	told := map[[4]string]bool{}
	for _, c := range p.upstream.Current() {
		full, limited := c.Pools()
		l := []string{"outbound", or(c.Spec.Service.Host, c.Spec.Name), port(c.Spec.Port), c.Spec.Subset}
		if c.Spec.Kind == model.Application {
			l[0] = "inbound"
		}
		if !limited || told[[4]string(l)] {
			continue
		}
		told[[4]string(l)] = true
		for i := range pools {
			d, pool := &pools[i], pools[i].pool(&full)
			ch <- prometheus.MustNewConstMetric(d.current, prometheus.GaugeValue, float64(pool.Current), l...)
			if pool.Limit != limit.Unlimited {
				ch <- prometheus.MustNewConstMetric(d.limit, prometheus.GaugeValue, float64(pool.Limit), l...)
			}
			ch <- prometheus.MustNewConstMetric(descOverflows, prometheus.CounterValue, float64(pool.Overflows), append(l[:4:4], string(d.what))...)
		}
	}
}
