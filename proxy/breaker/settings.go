package breaker

import (
	"fmt"
	"time"
)

// Strategy says what bounds the executions that run at once.
type Strategy uint8

const (
	// Semaphore counts executions against Settings.MaxConcurrent.
	Semaphore Strategy = iota
	// Thread leaves the bound to whoever runs the executions (in Hystrix a thread pool, here connections and their
	// queue); what is refused there is reported as ThreadPoolRejected.
	Thread
)

// String returns the name that the property and the dashboard use.
func (s Strategy) String() string {
	if s == Thread {
		return "THREAD"
	}
	return "SEMAPHORE"
}

// Settings are the Hystrix properties of one command that mean something to a proxy. They may be changed while the
// breaker runs. Settings are comparable: equal ones change nothing.
type Settings struct {
	Enabled                  bool          // circuitBreaker.enabled: false admits everything; the counts are kept
	RequestVolumeThreshold   int           // circuitBreaker.requestVolumeThreshold: fewer requests in the window judge nothing
	ErrorThresholdPercentage int           // circuitBreaker.errorThresholdPercentage, 0 to 100: opens at or above it
	SleepWindow              time.Duration // circuitBreaker.sleepWindowInMilliseconds: a probe is due when more than it has passed
	ForceOpen                bool          // circuitBreaker.forceOpen: wins over ForceClosed
	ForceClosed              bool          // circuitBreaker.forceClosed

	RollingWindow  time.Duration // metrics.rollingStats.timeInMilliseconds: of the counts and of the health
	RollingBuckets int           // metrics.rollingStats.numBuckets: of the counts only; divides the window's milliseconds
	HealthInterval time.Duration // metrics.healthSnapshot.intervalInMilliseconds: the health's bucket, and how often it is judged

	PercentileEnabled    bool          // metrics.rollingPercentile.enabled: false reports -1 for every latency
	PercentileWindow     time.Duration // metrics.rollingPercentile.timeInMilliseconds
	PercentileBuckets    int           // metrics.rollingPercentile.numBuckets: divides the window's milliseconds
	PercentileBucketSize int           // metrics.rollingPercentile.bucketSize: the newest samples that a bucket keeps

	Strategy       Strategy      // execution.isolation.strategy; Hystrix's default is Thread, a proxy's Semaphore
	MaxConcurrent  int           // execution.isolation.semaphore.maxConcurrentRequests, for Semaphore
	TimeoutEnabled bool          // execution.timeout.enabled
	Timeout        time.Duration // execution.isolation.thread.timeoutInMilliseconds, for either strategy

	FallbackEnabled       bool // fallback.enabled
	FallbackMaxConcurrent int  // fallback.isolation.semaphore.maxConcurrentRequests
}

// Defaults returns Hystrix's own defaults, but for the strategy: a proxy has no threads to isolate.
func Defaults() Settings {
	return Settings{
		Enabled:                  true,
		RequestVolumeThreshold:   20,
		ErrorThresholdPercentage: 50,
		SleepWindow:              5 * time.Second,
		RollingWindow:            10 * time.Second,
		RollingBuckets:           10,
		HealthInterval:           500 * time.Millisecond,
		PercentileEnabled:        true,
		PercentileWindow:         time.Minute,
		PercentileBuckets:        6,
		PercentileBucketSize:     100,
		Strategy:                 Semaphore,
		MaxConcurrent:            10,
		TimeoutEnabled:           true,
		Timeout:                  time.Second,
		FallbackEnabled:          true,
		FallbackMaxConcurrent:    10,
	}
}

// Bounds on what a breaker may hold in memory: Hystrix has none, and falls over instead.
const (
	maxBuckets = 100_000
	maxSamples = 1_000_000
)

// Check says what is wrong with the settings, naming the Hystrix property, or nil.
func (s *Settings) Check() error {
	switch {
	case s.RequestVolumeThreshold < 0:
		return fmt.Errorf("circuitBreaker.requestVolumeThreshold is %d: it must not be negative", s.RequestVolumeThreshold)
	case s.ErrorThresholdPercentage < 0 || s.ErrorThresholdPercentage > 100:
		return fmt.Errorf("circuitBreaker.errorThresholdPercentage is %d: it must be between 0 and 100", s.ErrorThresholdPercentage)
	case s.SleepWindow < 0:
		return fmt.Errorf("circuitBreaker.sleepWindowInMilliseconds is %d: it must not be negative", s.SleepWindow.Milliseconds())
	case s.HealthInterval < time.Millisecond:
		return fmt.Errorf("metrics.healthSnapshot.intervalInMilliseconds is %d: it must be at least 1", s.HealthInterval.Milliseconds())
	case s.RollingWindow < s.HealthInterval:
		return fmt.Errorf("metrics.rollingStats.timeInMilliseconds is %d: it must be at least metrics.healthSnapshot.intervalInMilliseconds, %d", s.RollingWindow.Milliseconds(), s.HealthInterval.Milliseconds())
	case s.RollingWindow/s.HealthInterval > maxBuckets:
		return fmt.Errorf("metrics.rollingStats.timeInMilliseconds holds %d times metrics.healthSnapshot.intervalInMilliseconds: at most %d are kept", s.RollingWindow/s.HealthInterval, maxBuckets)
	case s.MaxConcurrent < 0:
		return fmt.Errorf("execution.isolation.semaphore.maxConcurrentRequests is %d: it must not be negative", s.MaxConcurrent)
	case s.FallbackMaxConcurrent < 0:
		return fmt.Errorf("fallback.isolation.semaphore.maxConcurrentRequests is %d: it must not be negative", s.FallbackMaxConcurrent)
	case s.TimeoutEnabled && s.Timeout <= 0:
		return fmt.Errorf("execution.isolation.thread.timeoutInMilliseconds is %d: it must be positive; execution.timeout.enabled: false turns it off", s.Timeout.Milliseconds())
	}
	if err := divides("metrics.rollingStats", s.RollingWindow, s.RollingBuckets); err != nil {
		return err
	}
	if !s.PercentileEnabled {
		return nil
	}
	if s.PercentileBucketSize < 1 || s.PercentileBucketSize > maxSamples/max(s.PercentileBuckets, 1) {
		return fmt.Errorf("metrics.rollingPercentile.bucketSize is %d: it must be at least 1, and all buckets together hold at most %d", s.PercentileBucketSize, maxSamples)
	}
	return divides("metrics.rollingPercentile", s.PercentileWindow, s.PercentileBuckets)
}

// divides checks that a window falls into buckets of whole milliseconds, as Hystrix asks.
func divides(property string, window time.Duration, buckets int) error {
	if buckets < 1 || buckets > maxBuckets {
		return fmt.Errorf("%s.numBuckets is %d: it must be between 1 and %d", property, buckets, maxBuckets)
	}
	ms := window.Milliseconds()
	if ms < int64(buckets) || ms%int64(buckets) != 0 {
		return fmt.Errorf("%s.timeInMilliseconds is %d: it must be a multiple of %s.numBuckets, %d", property, ms, property, buckets)
	}
	return nil
}
