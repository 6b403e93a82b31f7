package upstream

import (
	"fmt"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// Breaker is a circuit breaker as one configuration has it, over a state that is kept, by its name.
type Breaker struct {
	*breaker.Breaker
	Spec   *model.Breaker
	Errors breaker.Errors
	// Fallback is asked instead of the target, nil where Spec names no cluster.
	Fallback *Cluster
	settings breaker.Settings
}

// breaker builds one breaker; a new one begins closed.
func (ch *Change) breaker(spec *model.Breaker) (*Breaker, error) {
	b := &Breaker{Spec: spec, settings: settingsOf(spec)}
	if err := b.settings.Check(); err != nil {
		return nil, err
	}
	var err error
	if b.Errors, err = breaker.ParseErrors(spec.Statuses, spec.GRPCStatuses); err != nil {
		return nil, err
	}
	if old := ch.set.breakers[spec.Name]; old != nil {
		b.Breaker = old.Breaker
	} else {
		b.Breaker = breaker.New(b.settings, ch.set.clock())
	}
	return b, nil
}

// guard puts the breakers before their clusters.
func (ch *Change) guard(specs []model.Breaker) error {
	for i := range specs {
		b, err := ch.breaker(&specs[i])
		if err != nil {
			return fmt.Errorf("breaker %q: %w", specs[i].Name, err)
		}
		b.Fallback = ch.Clusters[specs[i].FallbackCluster]
		ch.breakers[specs[i].Name] = b
	}
	for _, c := range ch.Clusters {
		for _, name := range c.Spec.Breakers {
			c.Breakers = append(c.Breakers, ch.breakers[name])
		}
	}
	return nil
}

func settingsOf(s *model.Breaker) breaker.Settings {
	strategy := breaker.Semaphore
	if s.Thread {
		strategy = breaker.Thread
	}
	return breaker.Settings{
		Enabled: s.Enabled, RequestVolumeThreshold: s.RequestVolumeThreshold, ErrorThresholdPercentage: s.ErrorThresholdPercentage,
		SleepWindow: s.SleepWindow.Std(), ForceOpen: s.ForceOpen, ForceClosed: s.ForceClosed,
		RollingWindow: s.RollingWindow.Std(), RollingBuckets: s.RollingBuckets, HealthInterval: s.HealthInterval.Std(),
		PercentileEnabled: s.PercentileEnabled, PercentileWindow: s.PercentileWindow.Std(),
		PercentileBuckets: s.PercentileBuckets, PercentileBucketSize: s.PercentileBucketSize,
		Strategy: strategy, MaxConcurrent: s.MaxConcurrent, TimeoutEnabled: s.TimeoutEnabled, Timeout: s.Timeout.Std(),
		FallbackEnabled: s.FallbackEnabled, FallbackMaxConcurrent: s.FallbackMaxConcurrent,
	}
}

// Breakers returns the breakers in force, by name. The map is not to be changed.
func (s *Set) Breakers() map[string]*Breaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.breakers
}

// judge logs the breakers' transitions.
func (b *Breaker) judge(s *Set, now int64) {
	for _, t := range b.Tick(nil, now) {
		args := []any{"breaker", b.Spec.Name, "from", t.From.String(), "to", t.To.String(), "reason", t.Reason.String()}
		if t.Reason == breaker.ErrorThreshold {
			args = append(args, "requests", t.Requests, "errors", t.Errors)
		}
		s.log.Info("breaker changed", args...)
	}
}
