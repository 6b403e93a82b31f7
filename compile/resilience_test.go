package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// resilienceText writes what of a route is about failures, and marks the clusters that it mirrors to. The defaults, which nearly
// all routes have, are left out: "outside" and "inbound" are told apart by their conditions.
func resilienceText(route *model.Route, used map[string]bool) string {
	out := retriesText(route.Retries)
	if f := route.Fault; f != nil {
		out += fmt.Sprintf(" fault{delay=%s@%g%% abort=%d/grpc %d@%g%%}", f.Delay, f.DelayPercent, f.AbortStatus, f.AbortGRPC, f.AbortPercent)
	}
	for _, m := range route.Mirrors {
		used[m.Cluster] = true
		out += fmt.Sprintf(" mirror %s@%g%%", m.Cluster, m.Percent)
	}
	return out
}

func retriesText(p *model.Retries) string {
	if p == nil {
		return ""
	}
	text := fmt.Sprintf("%d on %s", p.Attempts, strings.Join(p.On, ","))
	if len(p.Statuses) > 0 {
		text += fmt.Sprint(" ", p.Statuses)
	}
	switch text {
	case "2 on connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes":
		text = "default"
	case "2 on reset-before-request":
		text = "inbound"
	}
	if p.PerTry != 0 {
		text += " perTry=" + p.PerTry.String()
	}
	if p.Backoff != 0 {
		text += " backoff=" + p.Backoff.String()
	}
	if p.LeastWait != 0 {
		text += " leastWait=" + p.LeastWait.String()
	}
	if a := p.Allowance; a != nil {
		text += " " + allowanceText(a)
	}
	for _, flag := range []struct {
		name string
		set  bool
	}{{"same-hosts", p.SameHosts}, {"remote", p.RemoteLocalities}, {"unsafe", p.Unsafe}, {"last-unbound", p.LastUnbound}} {
		if flag.set {
			text += " " + flag.name
		}
	}
	if p.Origin != nil {
		text += " <" + originText(*p.Origin) + ">"
	}
	if text == "default" || text == "inbound" {
		return ""
	}
	return " retries{" + text + "}"
}

func allowanceText(a *model.RetryAllowance) string {
	return fmt.Sprintf("allowance{%q ratio=%g perSecond=%g ttl=%s <%s>}", a.Name, a.Ratio, a.PerSecond, a.TTL, originText(*a.Origin))
}

// protectionText writes what limits the use of a cluster, and what lets its endpoints rest.
func protectionText(c *model.Cluster) string {
	out := ""
	if l := c.Limits; l != nil {
		var parts []string
		number := func(name string, n *uint32) {
			if n != nil {
				parts = append(parts, fmt.Sprintf("%s=%d", name, *n))
			}
		}
		number("connections", l.Connections)
		number("pending", l.Pending)
		number("requests", l.Requests)
		number("retries", l.Retries)
		if l.Budget != nil {
			parts = append(parts, fmt.Sprintf("budget=%g%%/%d", l.Budget.Percent, l.Budget.Least))
			if l.Budget.Interval != 0 {
				parts = append(parts, "interval="+l.Budget.Interval.String())
			}
		}
		if l.PerConnection != 0 {
			parts = append(parts, fmt.Sprintf("perConnection=%d", l.PerConnection))
		}
		if l.Idle != nil {
			parts = append(parts, "idle="+l.Idle.String())
		}
		if l.Duration != 0 {
			parts = append(parts, "duration="+l.Duration.String())
		}
		if k := l.KeepAlive; k != nil {
			parts = append(parts, fmt.Sprintf("keepAlive=%d/%s/%s", k.Probes, k.Time, k.Interval))
		}
		out += " limits{" + strings.Join(parts, " ") + "}"
	}
	if c.Retries != nil {
		out += " " + allowanceText(c.Retries)
	}
	if o := c.Outlier; o != nil {
		out += fmt.Sprintf(" outlier{5xx=%d gateway=%d local=%d split=%t statuses=%v interval=%s base=%s max=%d%% <%s>}",
			o.Consecutive5xx, o.ConsecutiveGateway, o.ConsecutiveLocalOrigin, o.Split, o.Statuses, o.Interval, o.BaseEjection, o.MaxEjectionPercent, originText(*o.Origin))
	}
	if a := c.Accrual; a != nil {
		out += fmt.Sprintf(" accrual{%d %s..%s jitter=%g <%s>}", a.MaxFailures, a.MinPenalty, a.MaxPenalty, a.Jitter, originText(*a.Origin))
		if a.Rate != nil {
			out += fmt.Sprintf(" rate{%g in %s of %d}", a.Rate.Threshold, a.Rate.Window, a.Rate.MinRequests)
		}
	}
	if c.Kind == model.Listed && c.Panic != 50 {
		out += fmt.Sprintf(" panic=%d", c.Panic)
	}
	return out
}

// TestDefaultRetries sees that every outbound route for requests has the mesh's policy, the same one, and that bytes and what leads
// out of the mesh have none.
func TestDefaultRetries(t *testing.T) {
	files := map[string]string{"a.yaml": `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}, {name: tcp, port: 81}, {name: grpc, port: 82}, {name: unnamed, port: 83}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: x}]}}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: split}
spec: {service: root, backends: [{service: web, weight: 1}, {service: root, weight: 1}]}
---
apiVersion: v1
kind: Service
metadata: {name: root}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
`}
	check := func(t *testing.T, o Options, outside func(*model.Retries) error, inbound bool) {
		m, _ := New(objectsOf(t, files), o)
		s, err := m.For(place(m), "default", "web", "")
		if err != nil {
			t.Fatal(err)
		}
		var first *model.Retries
		seen := 0
		for _, h := range s.Tables[0].Hosts {
			for _, rule := range h.Rules {
				if rule.Route == nil {
					continue
				}
				got := rule.Route.Retries
				if h.Port == 81 {
					if got != nil {
						t.Errorf("%s: a port for bytes retries: %+v", h.Name, got)
					}
					continue
				}
				if seen++; first == nil {
					first = got
				}
				if got == nil || got != first {
					t.Errorf("%s: retries %p are not the shared ones, %p", h.Name, got, first)
				} else if err := outside(got); err != nil {
					t.Errorf("%s: %v", h.Name, err)
				}
			}
		}
		if seen < 4 {
			t.Errorf("%d routes only", seen)
		}
		if u := s.Tables[0].Unmatched; u.Route.Retries != nil {
			t.Errorf("passthrough retries: %+v", u.Route.Retries)
		}
		for _, table := range s.Tables[1:] {
			got := table.Hosts[0].Rules[0].Route.Retries
			want := inbound && table.Name != "inbound|81" && table.Name != "inbound|82"
			if (got != nil) != want || got != nil && retriesText(got) != "" {
				t.Errorf("%s: retries %+v", table.Name, got)
			}
		}
	}
	t.Run("Istio's", func(t *testing.T) {
		check(t, Options{}, func(p *model.Retries) error {
			if retriesText(p) != "" {
				return fmt.Errorf("got %s", retriesText(p))
			}
			return nil
		}, true)
	})
	mesh := func(spec *networking.HTTPRetry) Options {
		return Options{MeshConfig: &meshv1alpha1.MeshConfig{DefaultHttpRetryPolicy: spec}}
	}
	t.Run("MeshConfig's", func(t *testing.T) {
		check(t, mesh(&networking.HTTPRetry{Attempts: 4, RetryOn: "503,unheard-of", PerTryTimeout: durationpb.New(1e9)}), func(p *model.Retries) error {
			if want := " retries{4 on retriable-status-codes [503] unsafe <MeshConfig /default defaultHttpRetryPolicy :0>}"; retriesText(p) != want {
				return fmt.Errorf("got %s, want %s", retriesText(p), want)
			}
			return nil
		}, true)
		_, findings := New(nil, mesh(&networking.HTTPRetry{Attempts: 4, RetryOn: "503,unheard-of,600", PerTryTimeout: durationpb.New(1e9)}))
		var got []string
		for _, f := range findings {
			got = append(got, fmt.Sprintf("%s %s %s", f.Severity, f.ID, f.Message))
		}
		want := []string{
			"warning OR2049 perTryTimeout has no effect here: Istio takes all of the mesh's retry policy but this",
			`error OR2031 "unheard-of" is no condition of a retry; it is left out`,
			"error OR2031 600 is no HTTP status; it is left out",
		}
		if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("findings %q, want %q", got, want)
		}
	})
	t.Run("none", func(t *testing.T) {
		check(t, mesh(&networking.HTTPRetry{}), func(p *model.Retries) error {
			if p.Attempts != 0 {
				return fmt.Errorf("%d attempts", p.Attempts)
			}
			return nil
		}, true)
	})
}

// TestRisky sees which written conditions let a request be sent again that may have been processed.
func TestRisky(t *testing.T) {
	f := func(text string, want bool) {
		t.Helper()
		p := &model.Retries{}
		p.On, p.Statuses = conditions(nil, "", text, nil)
		if risky(p) != want {
			t.Errorf("%s: %t", text, !want)
		}
	}
	f("connect-failure,refused-stream,reset-before-request", false)
	f("retriable-status-codes", false)
	f("http3-post-connect-failure,retriable-headers", false)
	f("503", true)
	for _, word := range otherConditions {
		f("connect-failure,"+word, word != "retriable-status-codes")
	}
}

// TestLongTimes says that a time which is meant to be endless is one to which a proxy can add: 292 years are all that it can count.
func TestLongTimes(t *testing.T) {
	endless := &durationpb.Duration{Seconds: 315_576_000_000} // the most that YAML can say
	service := annotated{Object: &config.Object{Annotations: map[string]string{"endless": "2147483647d", "none": "0"}}}
	if d := service.duration("none"); *d != 0 {
		t.Errorf("none is %v", d)
	}
	out := outlierDetection(&networking.OutlierDetection{Interval: endless, BaseEjectionTime: endless})
	for _, d := range []model.Duration{duration(endless), *service.duration("endless"), out.Interval, out.BaseEjection} {
		if d != model.Duration(century) {
			t.Errorf("%v, want %v", d, century)
		}
	}
}
