package dashboard

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// TestMetrics reads the series of one breaker with a history and of one without.
func TestMetrics(t *testing.T) {
	r, now := busy(t, nil)
	forced := newRig(t, nil)
	s := breaker.Defaults()
	s.ForceOpen = true
	forced.Configure(s, second)
	source := list{
		{Namespace: "default", Name: "ratings", Group: "ratings.default.svc.cluster.local", Breaker: r.Breaker},
		{Namespace: "shop", Name: "cart", Group: "cart", Breaker: forced.Breaker},
		{Namespace: "shop", Name: "ratings", Group: "other", Breaker: newRig(t, nil).Breaker},
	}
	c := NewCollector(source, func() int64 { return now })
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("promtool would say: %v %v", problems, err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			name := f.GetName() + "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.Histogram != nil:
				series[name] = float64(m.Histogram.GetSampleCount())
				series[name+" sum"] = m.Histogram.GetSampleSum()
				for _, b := range m.Histogram.Bucket {
					series[fmt.Sprintf("%s %.4g", name, b.GetUpperBound())] = float64(b.GetCumulativeCount())
				}
				if len(m.Histogram.Bucket) != 31 {
					t.Errorf("%s has %d buckets", name, len(m.Histogram.Bucket))
				}
			case m.Counter != nil:
				series[name] = m.Counter.GetValue()
			default:
				series[name] = m.Gauge.GetValue()
			}
		}
	}
	f := func(name string, want float64) {
		t.Helper()
		if got, ok := series[name]; !ok || got < want-1e-9 || got > want+1e-9 {
			t.Errorf("%s is %v (%t), want %v", name, got, ok, want)
		}
	}
	const ratings = "ratings.default.svc.cluster.local"
	one := "{" + ratings + ",default/ratings"
	f("hystrix_command_is_circuit_breaker_open"+one+"}", 1)
	f("hystrix_command_is_circuit_breaker_open{cart,cart}", 1)
	f("hystrix_command_is_circuit_breaker_open{other,shop/ratings}", 0)
	f("hystrix_command_execution_semaphore_permits_in_use"+one+"}", 0)
	for e := range breaker.EventCount {
		f(fmt.Sprintf("hystrix_command_event_total{other,shop/ratings,%s,%t}", e, e.Terminal()), 0)
	}
	f("hystrix_command_event_total"+one+",success,true}", 12)
	f("hystrix_command_event_total"+one+",failure,false}", 20)
	f("hystrix_command_event_total"+one+",timeout,false}", 1)
	f("hystrix_command_event_total"+one+",short_circuited,false}", 3)
	f("hystrix_command_event_total"+one+",bad_request,true}", 1)
	f("hystrix_command_event_total"+one+",fallback_missing,true}", 25)
	f("hystrix_command_event_total"+one+",exception_thrown,false}", 26)
	f("hystrix_command_latency_execute_seconds"+one+"}", 36)
	f("hystrix_command_latency_execute_seconds"+one+"} sum", 12*.04+20*.08+1+.01+.005)
	f("hystrix_command_latency_execute_seconds"+one+"} 0.001", 1)
	f(fmt.Sprintf("hystrix_command_latency_execute_seconds%s} %.4g", one, breaker.LatencyBounds[14]), 1+1+1+12)
	f(fmt.Sprintf("hystrix_command_latency_total_seconds%s} %.4g", one, breaker.LatencyBounds[30]), 36)

	own := "{default/ratings," + ratings
	f("outrider_breaker_state"+own+",open}", 1) // values are in the order of the labels' names
	f("outrider_breaker_state"+own+",half_open}", 0)
	f("outrider_breaker_state{shop/cart,cart,forced_open}", 1)
	f("outrider_breaker_state{shop/ratings,other,closed}", 1)
	f("outrider_breaker_transitions_total{default/ratings,closed,error_threshold,"+ratings+",open}", 1)
	f("outrider_breaker_transitions_total{shop/cart,closed,reconfigured,cart,forced_open}", 1)
	f("outrider_breaker_transitions_total{shop/ratings,half_open,probe_failed,other,open}", 0)
	f("outrider_breaker_rejected_total{default/ratings,breaker_open,"+ratings+"}", 3)
	f("outrider_breaker_rejected_total{default/ratings,bulkhead_full,"+ratings+"}", 0)
	f("outrider_breaker_rejected_total{default/ratings,upstream_overflow,"+ratings+"}", 1)
	f("outrider_breaker_fallbacks_total{default/ratings,missing,"+ratings+"}", 25)
	f("outrider_breaker_fallbacks_total{default/ratings,success,"+ratings+"}", 0)
	f("outrider_breaker_window_requests"+own+"}", 34)
	f("outrider_breaker_window_errors"+own+"}", 22)
	f("outrider_breaker_next_probe_seconds"+own+"}", 2.500000001)
}

// TestMoves drives breakers through every transition, and sees that the counter's labels say what happened.
func TestMoves(t *testing.T) {
	want := map[breaker.Transition]bool{}
	seen := map[breaker.Reason]bool{}
	for reason, m := range moves {
		want[breaker.Transition{From: m.from, To: m.to, Reason: breaker.Reason(reason)}] = true
	}
	for o := breaker.Abandoned; o <= breaker.PoolRejected; o++ {
		r, _ := busy(t, nil)
		var late breaker.Ticket
		r.Admit(&late, 10*second) // the probe, which is never heard of
		r.call(20*second, ms, o)
		late.Close(20 * second)
		for _, got := range r.Tick(nil, 21*second) {
			if !want[breaker.Transition{From: got.From, To: got.To, Reason: got.Reason}] {
				t.Errorf("%s is from %s to %s", got.Reason, got.From, got.To)
			}
			seen[got.Reason] = true
		}
	}
	if len(seen) != len(moves) {
		t.Errorf("seen: %v", seen)
	}
}
