package proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
)

// Whoever can reach an inbound port can say that it is any workload, another one each time. It makes no more series than there
// may be peers, and takes none from the workloads that were counted before, within a configuration and across changes of it.
func TestImpostorsAreBounded(t *testing.T) {
	const most = 20
	o := newOrigin(t, nil)
	s := inboundOf(o.address())
	server := New(Options{Metrics: telemetry.New(s.Workload.Peer, telemetry.Options{MaxPeers: most})})
	t.Cleanup(func() { _ = server.Close() })
	if err := server.Apply(s); err != nil {
		t.Fatal(err)
	}
	caller := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Endpoints[0].Sidecar = true }, server.Address("inbound|8080")), Limits{})
	client := dial(t, caller, "outbound")
	real := 0
	calls := func() {
		t.Helper()
		real++
		client.send(get("/"))
		if a := client.read("GET"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
		eventually(t, "the caller's own series", func() bool {
			return requestsTotal(t, server.metrics.Gatherer(), "source_workload")["local"] == float64(real)
		})
	}
	impostor, forged := dial(t, server, "inbound|8080"), 0
	lie := func(n int, header string) {
		t.Helper()
		for range n {
			forged++
			impostor.send("GET / HTTP/1.1\r\nHost: app\r\nX-Outrider-Peer: " + fmt.Sprintf(header, forged) + "\r\n\r\n")
			if a := impostor.read("GET"); a.status != 200 {
				t.Fatalf("got %+v", a)
			}
		}
		eventually(t, "that all of it is counted", func() bool {
			sum := 0.0
			for _, v := range requestsTotal(t, server.metrics.Gatherer(), "source_workload") {
				sum += v
			}
			return sum == float64(real+forged)
		})
	}
	series := func() int { return strings.Count(metricsOf(t, server), `source_workload="`) }

	calls()
	lie(2*most, "ns%[1]d;w%[1]d;sa;app%[1]d;v%[1]d;name%[1]d;r%[1]d;c%[1]d")
	calls()
	full := series()
	f := func(header string) {
		t.Helper()
		lie(500, header)
		calls()
		eventually(t, fmt.Sprintf("as many series after lies like %q as before", header), func() bool { return series() == full })
		if n := len(requestsTotal(t, server.metrics.Gatherer(), "source_workload")); n > most+1 {
			t.Errorf("%d workloads are told apart, more than %d and the unknown", n, most)
		}
	}
	f("ns%[1]d;w%[1]d;sa;app%[1]d;v%[1]d;name%[1]d;r%[1]d;c%[1]d")
	f("ns;w;sa%d") // what no series is told apart by
	f("%d%%zz;w")
	for n := range 3 {
		changed := *s
		changed.Version = fmt.Sprint("change ", n)
		if err := server.Apply(&changed); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			calls()
		}
		f("ns1;w1;sa%d;app1;v1;name1;r1;c1") // series that are there
	}
	if n := valueOf(t, server, "outrider_metrics_overflow_total", "limit=peers"); n < 2000 {
		t.Errorf("%v lies are counted as such, of %d", n, forged)
	}
}
