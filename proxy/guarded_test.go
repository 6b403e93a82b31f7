package proxy

import (
	"fmt"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// guarded is s with everything that protects against services that fail, none of which has to act.
func guarded(s *model.Snapshot) *model.Snapshot {
	for i := range s.Tables {
		for j := range s.Tables[i].Hosts {
			for k := range s.Tables[i].Hosts[j].Rules {
				if r := s.Tables[i].Hosts[j].Rules[k].Route; r != nil {
					r.Retries = &model.Retries{Attempts: 3, On: []string{"5xx", "reset", "connect-failure"}, PerTry: model.Duration(2 * time.Second)}
				}
			}
		}
	}
	for i := range s.Clusters {
		c := &s.Clusters[i]
		b := model.Breaker{
			Name: fmt.Sprintf("default/b%d", i), Group: c.Service.Host, Enabled: true, RequestVolumeThreshold: 20, ErrorThresholdPercentage: 50,
			SleepWindow: model.Duration(5 * time.Second), RollingWindow: model.Duration(10 * time.Second), RollingBuckets: 10,
			HealthInterval: model.Duration(500 * time.Millisecond), PercentileEnabled: true, PercentileWindow: model.Duration(time.Minute),
			PercentileBuckets: 6, PercentileBucketSize: 100, MaxConcurrent: 100, TimeoutEnabled: true, Timeout: model.Duration(time.Second),
			FallbackEnabled: true, FallbackMaxConcurrent: 10, FallbackReply: &model.Reply{Status: 200},
		}
		c.Limits = &model.Limits{Connections: u32(100), Pending: u32(100), Requests: u32(100), Retries: u32(3)}
		c.Outlier = &model.Outlier{
			Consecutive5xx: 5, ConsecutiveGateway: 5, Interval: model.Duration(10 * time.Second), BaseEjection: model.Duration(30 * time.Second), MaxEjectionPercent: 50,
		}
		c.Breakers, s.Breakers = []string{b.Name}, append(s.Breakers, b)
	}
	return model.Seal(s)
}

// In steady state all of it together allocates nothing either.
func TestGuardedExchangeAllocatesNothing(t *testing.T) {
	exchangesAllocateNothing(t, func(addresses ...string) *model.Snapshot { return guarded(busySnapshot(addresses...)) })
}

// BenchmarkGuarded is BenchmarkExchange with and without all that protects.
func BenchmarkGuarded(b *testing.B) {
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("guarded=%v", with), func(b *testing.B) {
			o := newOrigin(b, fixed(300))
			s := busySnapshot(o.address())
			if with {
				s = guarded(s)
			}
			l := newLoop(b, start(b, s, Limits{}), requests[1].request)
			b.ReportAllocs()
			for b.Loop() {
				l.run(b, 1)
			}
		})
	}
}
