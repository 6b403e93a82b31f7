//go:build linux

package main

import (
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// guard adds to a snapshot what protects against services that fail: retries on every route; limits, outlier detection and
// a breaker on every cluster that is not the application. Nothing of it ever has to act in a measurement: it shows what it
// costs to have it.
func guard(s *model.Snapshot) {
	for i := range s.Tables {
		for j := range s.Tables[i].Hosts {
			rules := s.Tables[i].Hosts[j].Rules
			for k := range rules {
				rules[k].Route.Retries = &model.Retries{
					Attempts: 3, On: []string{"5xx", "reset", "connect-failure", "refused-stream"}, PerTry: model.Duration(2 * time.Second),
				}
			}
		}
	}
	guarded := map[string]bool{}
	for i := range s.Clusters {
		c := &s.Clusters[i]
		if c.Kind == model.Application {
			continue
		}
		most, retries, idle := uint32(1024), uint32(3), model.Duration(time.Minute)
		c.Limits = &model.Limits{Connections: &most, Pending: &most, Requests: &most, Retries: &retries, Idle: &idle}
		c.Outlier = &model.Outlier{
			Consecutive5xx: 5, ConsecutiveGateway: 5, ConsecutiveLocalOrigin: 5,
			Interval: model.Duration(10 * time.Second), BaseEjection: model.Duration(30 * time.Second), MaxEjectionPercent: 50,
		}
		b := hystrixOf(c.Service)
		c.Breakers = []string{b.Name}
		if !guarded[b.Name] {
			guarded[b.Name] = true
			s.Breakers = append(s.Breakers, b)
		}
	}
}

// hystrixOf is a breaker with Hystrix's defaults, but for the bulkhead, which is as wide as the load needs it, and a
// fallback.
func hystrixOf(s model.Service) model.Breaker {
	return model.Breaker{
		Name: s.Namespace + "/" + s.Name, Group: s.Host,
		Enabled: true, RequestVolumeThreshold: 20, ErrorThresholdPercentage: 50, SleepWindow: model.Duration(5 * time.Second),
		RollingWindow: model.Duration(10 * time.Second), RollingBuckets: 10, HealthInterval: model.Duration(500 * time.Millisecond),
		PercentileEnabled: true, PercentileWindow: model.Duration(time.Minute), PercentileBuckets: 6, PercentileBucketSize: 100,
		MaxConcurrent: 1024, TimeoutEnabled: true, Timeout: model.Duration(time.Second), FallbackEnabled: true, FallbackMaxConcurrent: 10,
		FallbackReply: &model.Reply{Status: 200, Body: "[]"},
	}
}
