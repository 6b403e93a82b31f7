package compile

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
	hystrix "github.com/outrider-mesh/outrider/proxy/breaker"
)

// showBreakers lists the clusters that have breakers, those that only fallbacks lead to, and the breakers.
func showBreakers(t *testing.T, b *strings.Builder, s *model.Snapshot) {
	t.Helper()
	routed := map[string]bool{}
	for i := range s.Tables {
		for _, h := range s.Tables[i].Hosts {
			for j := range h.Rules {
				ruleText(&h.Rules[j], routed)
			}
		}
	}
	for _, c := range s.Clusters {
		if strings.HasPrefix(c.Name, "outbound|") && (len(c.Breakers) > 0 || !routed[c.Name]) {
			fmt.Fprintf(b, "%s %s %v routed=%t\n", c.Name, c.Protocol, c.Breakers, routed[c.Name])
		}
	}
	for i := range s.Breakers {
		fmt.Fprintf(b, "%s%s\n", s.Breakers[i].Name, unusual(t, &s.Breakers[i]))
	}
	sealed := s.Version
	if model.Seal(s).Version != sealed {
		t.Errorf("%s/%s: the version %s is not that of its content, %s", s.Workload.Namespace, s.Workload.Name, sealed, s.Version)
	}
}

// unusual lists the fields of a breaker that are not the defaults.
func unusual(t *testing.T, b *model.Breaker) string {
	t.Helper()
	fields := func(b *model.Breaker) map[string]json.RawMessage {
		text, err := json.Marshal(b)
		out := map[string]json.RawMessage{}
		if err == nil {
			err = json.Unmarshal(text, &out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	f := config.Decode("d.yaml", []byte("apiVersion: outrider.dev/v1alpha1\nkind: CircuitBreaker\nmetadata: {name: d}\nspec: {host: d}\n"))
	plain := (&breaker{object: f.Objects[0], spec: f.Objects[0].Spec.(*config.CircuitBreaker)}).translated()
	plain.Name = b.Name
	defaults, have := fields(&plain), fields(b)
	out := ""
	for _, name := range sortedKeys(have) {
		if string(have[name]) != string(defaults[name]) {
			out += " " + name + "=" + string(have[name])
		}
	}
	return out
}

// TestBreakerProperties holds what config takes for right against what the proxy's own breakers take, and the defaults of
// the one against those of the other.
func TestBreakerProperties(t *testing.T) {
	settings := func(b *model.Breaker) hystrix.Settings {
		strategy := hystrix.Semaphore
		if b.Thread {
			strategy = hystrix.Thread
		}
		return hystrix.Settings{
			Enabled: b.Enabled, RequestVolumeThreshold: b.RequestVolumeThreshold, ErrorThresholdPercentage: b.ErrorThresholdPercentage,
			SleepWindow: b.SleepWindow.Std(), ForceOpen: b.ForceOpen, ForceClosed: b.ForceClosed,
			RollingWindow: b.RollingWindow.Std(), RollingBuckets: b.RollingBuckets, HealthInterval: b.HealthInterval.Std(),
			PercentileEnabled: b.PercentileEnabled, PercentileWindow: b.PercentileWindow.Std(), PercentileBuckets: b.PercentileBuckets,
			PercentileBucketSize: b.PercentileBucketSize, Strategy: strategy, MaxConcurrent: b.MaxConcurrent,
			TimeoutEnabled: b.TimeoutEnabled, Timeout: b.Timeout.Std(), FallbackEnabled: b.FallbackEnabled, FallbackMaxConcurrent: b.FallbackMaxConcurrent,
		}
	}
	read := func(hystrix string) (*config.CircuitBreaker, []config.Finding) {
		f := config.Decode("b.yaml", []byte("apiVersion: outrider.dev/v1alpha1\nkind: CircuitBreaker\nmetadata: {name: b}\nspec: {host: a, hystrix: "+hystrix+"}\n"))
		if len(f.Objects) == 0 {
			return nil, f.Findings
		}
		return f.Objects[0].Spec.(*config.CircuitBreaker), f.Findings
	}
	translate := func(spec *config.CircuitBreaker) model.Breaker {
		return (&breaker{object: &config.Object{Name: "b", Namespace: "default"}, spec: spec}).translated()
	}
	plain, _ := read("{}")
	m := translate(plain)
	if got := settings(&m); got != hystrix.Defaults() {
		t.Errorf("the defaults are\n%+v, the breaker's\n%+v", got, hystrix.Defaults())
	}
	if _, err := hystrix.ParseErrors(m.Statuses, m.GRPCStatuses); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(m.Statuses, m.GRPCStatuses) != fmt.Sprint(hystrix.DefaultStatuses, hystrix.DefaultGRPCStatuses) {
		t.Errorf("by default, errors are %v and %v", m.Statuses, m.GRPCStatuses)
	}

	values := []int{-1, 0, 1, 2, 3, 7, 10, 60, 100, 101, 500, 999, 1000, 10_000, 100_000, 100_001, 1_000_000, 1 << 30, 1<<31 - 1, 1 << 31}
	for _, property := range []string{
		"circuitBreaker: {requestVolumeThreshold: %d}", "circuitBreaker: {errorThresholdPercentage: %d}", "circuitBreaker: {sleepWindowInMilliseconds: %d}",
		"metrics: {rollingStats: {timeInMilliseconds: %d}}", "metrics: {rollingStats: {numBuckets: %d}}", "metrics: {healthSnapshot: {intervalInMilliseconds: %d}}",
		"metrics: {rollingStats: {timeInMilliseconds: 2147483647, numBuckets: 1}, healthSnapshot: {intervalInMilliseconds: %d}}",
		"metrics: {rollingPercentile: {timeInMilliseconds: %d}}", "metrics: {rollingPercentile: {numBuckets: %d}}", "metrics: {rollingPercentile: {bucketSize: %d}}",
		"metrics: {rollingPercentile: {enabled: false, numBuckets: %d}}", "metrics: {rollingPercentile: {numBuckets: 60, bucketSize: %d}}",
		"execution: {isolation: {thread: {timeoutInMilliseconds: %d}}}", "execution: {timeout: {enabled: false}, isolation: {thread: {timeoutInMilliseconds: %d}}}",
		"execution: {isolation: {semaphore: {maxConcurrentRequests: %d}}}", "fallback: {isolation: {semaphore: {maxConcurrentRequests: %d}}}",
	} {
		taken := 0
		for _, v := range values {
			text := "{" + fmt.Sprintf(property, v) + "}"
			spec, findings := read(text)
			if spec == nil {
				if len(findings) == 0 {
					t.Errorf("%s is refused without a finding", text)
				}
				continue
			}
			taken++
			m := translate(spec)
			s := settings(&m)
			if err := s.Check(); err != nil {
				t.Errorf("%s is taken, and the breaker refuses it: %v", text, err)
			}
			if s.RollingWindow/time.Millisecond > 1<<31 {
				t.Errorf("%s: the window is %s", text, s.RollingWindow)
			}
		}
		if taken == 0 || taken == len(values) && !strings.Contains(property, "enabled: false") {
			t.Errorf("%s: %d of %d values are taken", property, taken, len(values))
		}
	}
}
