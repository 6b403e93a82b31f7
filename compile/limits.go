package compile

import (
	"cmp"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var poolCoverage = covers("http.h2UpgradePolicy").and(inboundPoolCoverage)

// inboundPoolCoverage lists what of a connectionPool is for servers too. Whether to upgrade is a client's choice.
var inboundPoolCoverage = covers("tcp.", "tcp.maxConnections", "tcp.connectTimeout", "tcp.tcpKeepalive", "tcp.maxConnectionDuration", "tcp.idleTimeout",
	"http.", "http.http1MaxPendingRequests", "http.http2MaxRequests", "http.maxRequestsPerConnection", "http.maxRetries", "http.idleTimeout",
	"http.useClientProtocol", "http.maxConcurrentStreams", "http.http2KeepAlive")

// defaultConnect is what proxies wait for a connection unless told otherwise (Istio).
const defaultConnect = 10 * time.Second

// connectTimeout is how long a connection may take to be made; 0 is defaultConnect.
func (m *Mesh) connectTimeout(pool *networking.ConnectionPoolSettings) model.Duration {
	if t := pool.GetTcp().GetConnectTimeout(); t != nil {
		return duration(t)
	}
	if t := m.config.GetConnectTimeout(); t != nil && t.AsDuration() != defaultConnect {
		return duration(t)
	}
	return 0
}

// limits translates connectionPool and retryBudget, nil where they limit nothing. A number of 0 is none, as in Istio.
func (m *Mesh) limits(pool *networking.ConnectionPoolSettings, b *networking.TrafficPolicy_RetryBudget, opaque bool) *model.Limits {
	tcp, http := pool.GetTcp(), pool.GetHttp()
	l := model.Limits{
		Connections:   bound(tcp.GetMaxConnections()),
		Pending:       bound(http.GetHttp1MaxPendingRequests()),
		Requests:      bound(http.GetHttp2MaxRequests()),
		Retries:       bound(http.GetMaxRetries()),
		Budget:        budget(b),
		PerConnection: uint32(max(http.GetMaxRequestsPerConnection(), 0)),
		Duration:      duration(tcp.GetMaxConnectionDuration()),
		KeepAlive:     keepAlive(m.config.GetTcpKeepalive(), tcp.GetTcpKeepalive()),
	}
	idle := tcp.GetIdleTimeout()
	if t := http.GetIdleTimeout(); t != nil && !opaque {
		idle = t
	}
	if idle != nil {
		d := duration(idle)
		l.Idle = &d
	}
	if l == (model.Limits{}) {
		return nil
	}
	return &l
}

func bound(n int32) *uint32 {
	if n <= 0 {
		return nil
	}
	u := uint32(n)
	return &u
}

// budget translates retryBudget: 20 percent and 3, unless it says otherwise, of what is under way, or of what begins within budgetInterval.
func budget(b *networking.TrafficPolicy_RetryBudget) *model.RetryBudget {
	if b == nil {
		return nil
	}
	out := &model.RetryBudget{Percent: 20, Least: cmp.Or(b.MinRetryConcurrency, 3)}
	if b.Percent != nil {
		out.Percent = min(max(b.Percent.Value, 0), 100)
	}
	if t := duration(b.BudgetInterval); t.Std() >= time.Millisecond {
		out.Interval = t
	}
	return out
}

// keepAlive is the mesh's setting, value by value overridden by the pool's (Istio).
func keepAlive(mesh, own *networking.ConnectionPoolSettings_TCPSettings_TcpKeepalive) *model.TCPKeepAlive {
	if mesh == nil && own == nil {
		return nil
	}
	k := &model.TCPKeepAlive{Probes: cmp.Or(own.GetProbes(), mesh.GetProbes()), Time: duration(mesh.GetTime()), Interval: duration(mesh.GetInterval())}
	if t := own.GetTime(); t != nil {
		k.Time = duration(t)
	}
	if t := own.GetInterval(); t != nil {
		k.Interval = duration(t)
	}
	return k
}

// bounds are the numbers of connectionPool of which 0 is none.
var bounds = []string{"tcp.maxConnections", "http.http1MaxPendingRequests", "http.http2MaxRequests", "http.maxRetries"}

// checkPool reports limits that do other than their names say. requests says that requests may go through the pool.
func checkPool(o *config.Object, field string, pool *networking.ConnectionPoolSettings, requests bool, r *report) {
	written := []int32{pool.GetTcp().GetMaxConnections(), pool.GetHttp().GetHttp1MaxPendingRequests(), pool.GetHttp().GetHttp2MaxRequests(), pool.GetHttp().GetMaxRetries()}
	for i, name := range bounds {
		if at := field + "." + name; written[i] == 0 && o.Has(at) {
			remedy := "write 1 or more, or remove it"
			if name == "http.maxRetries" {
				remedy = "to switch retries off, write retries: {attempts: 0} in a VirtualService's rule; else write 1 or more"
			}
			r.warn(o, limitSurprise, at, remedy, "0 is as if it were not written, as in Istio: there is no limit")
		}
	}
	if !requests {
		return
	}
	connections, pending, most := pool.GetTcp().GetMaxConnections() > 0, pool.GetHttp().GetHttp1MaxPendingRequests() > 0, pool.GetHttp().GetHttp2MaxRequests() > 0
	switch {
	case connections && !pending && !most:
		r.inform(o, limitSurprise, field+".tcp.maxConnections", "add http.http1MaxPendingRequests to refuse those beyond a queue, or http.http2MaxRequests to bound the requests under way",
			"maxConnections alone refuses no HTTP request: beyond it they wait for a connection, without limit")
	case pending && !connections && !most:
		r.inform(o, limitSurprise, field+".http.http1MaxPendingRequests", "add tcp.maxConnections, or http.http2MaxRequests to bound the requests under way",
			"http1MaxPendingRequests alone bounds no load: without maxConnections a request waits only while a connection is being made for it, so that bursts are refused and slow endpoints are not spared")
	}
}

// checkBudget reports a maxRetries beside the retryBudget that comes in its place.
func checkBudget(o *config.Object, field string, pool *networking.ConnectionPoolSettings, b *networking.TrafficPolicy_RetryBudget, r *report) {
	if n := pool.GetHttp().GetMaxRetries(); n > 0 && b != nil {
		r.warn(o, ineffective, field+".http.maxRetries", "remove one of them", "maxRetries %d has no effect: retryBudget comes in its place", n)
	}
}
