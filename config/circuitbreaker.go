package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CircuitBreaker is a Hystrix breaker before a service (outrider.dev/v1alpha1), with every default filled in.
type CircuitBreaker struct {
	// Host is the service that it guards; a short name is one of the object's namespace, as in Istio.
	Host string `json:"host"`
	// Subset and Port narrow it to a part of the service; "" and 0 do not.
	Subset string `json:"subset,omitempty"`
	Port   int    `json:"port,omitempty"`
	// Route narrows it to some requests; nil is all.
	Route *BreakerRoute `json:"route,omitempty"`

	Hystrix HystrixProperties `json:"hystrix"`
	Errors  BreakerErrors     `json:"errors"`
	// Fallback answers where the service does not; nil leaves the error.
	Fallback *BreakerFallback `json:"fallback,omitempty"`
}

// BreakerRoute narrows a breaker to requests. A list that is empty does not narrow.
type BreakerRoute struct {
	Paths   []string `json:"paths,omitempty"` // exact, or a prefix that ends in "*"
	Methods []string `json:"methods,omitempty"`
}

// BreakerErrors are the answers that count as errors of the service. Neither list is ever empty.
type BreakerErrors struct {
	Statuses     []StatusCode `json:"statuses"`
	GRPCStatuses []StatusCode `json:"grpcStatuses"`
}

// StatusCode is a status as people write it: 503, "5xx", UNAVAILABLE, 14.
type StatusCode string

// UnmarshalJSON takes a text or a whole number.
func (s *StatusCode) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if b[0] != '"' {
		if _, err := wholeNumber(text); err != nil {
			return fmt.Errorf("%s is no status", text)
		}
	}
	*s = StatusCode(text)
	return nil
}

// BreakerFallback has one of its fields set.
type BreakerFallback struct {
	Response *FallbackResponse `json:"response,omitempty"`
	Backend  *FallbackBackend  `json:"backend,omitempty"`
}

// FallbackResponse is an answer that is always the same.
type FallbackResponse struct {
	Status  int               `json:"status"` // 200 where none is written
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
}

// FallbackBackend is another service that is asked instead. Port 0 is its only one, or the one that the breaker is for.
type FallbackBackend struct {
	Host   string `json:"host"`
	Port   int    `json:"port,omitempty"`
	Subset string `json:"subset,omitempty"`
}

// HystrixProperties is Hystrix's own tree of command properties. What stands for nothing here, but may be written, is
// read as any and reported.
type HystrixProperties struct {
	CircuitBreaker HystrixCircuitBreaker `json:"circuitBreaker"`
	Metrics        HystrixMetrics        `json:"metrics"`
	Execution      HystrixExecution      `json:"execution"`
	Fallback       HystrixFallback       `json:"fallback"`

	RequestCache          any `json:"requestCache,omitempty"`
	RequestLog            any `json:"requestLog,omitempty"`
	Collapser             any `json:"collapser,omitempty"`
	ThreadPool            any `json:"threadpool,omitempty"`
	ThreadPoolKeyOverride any `json:"threadPoolKeyOverride,omitempty"`
	CoreSize              any `json:"coreSize,omitempty"`
	MaximumSize           any `json:"maximumSize,omitempty"`
	MaxQueueSize          any `json:"maxQueueSize,omitempty"`
	QueueThreshold        any `json:"queueSizeRejectionThreshold,omitempty"`
	KeepAlive             any `json:"keepAliveTimeMinutes,omitempty"`
	Diverge               any `json:"allowMaximumSizeToDivergeFromCoreSize,omitempty"`
}

// HystrixCircuitBreaker is circuitBreaker.*.
type HystrixCircuitBreaker struct {
	Enabled                  bool `json:"enabled"`
	RequestVolumeThreshold   int  `json:"requestVolumeThreshold"`
	SleepWindowMillis        int  `json:"sleepWindowInMilliseconds"`
	ErrorThresholdPercentage int  `json:"errorThresholdPercentage"`
	ForceOpen                bool `json:"forceOpen"`
	ForceClosed              bool `json:"forceClosed"`
}

// HystrixMetrics is metrics.*.
type HystrixMetrics struct {
	RollingStats struct {
		Millis     int `json:"timeInMilliseconds"`
		NumBuckets int `json:"numBuckets"`
	} `json:"rollingStats"`
	RollingPercentile struct {
		Enabled    bool `json:"enabled"`
		Millis     int  `json:"timeInMilliseconds"`
		NumBuckets int  `json:"numBuckets"`
		BucketSize int  `json:"bucketSize"`
	} `json:"rollingPercentile"`
	HealthSnapshot struct {
		IntervalMillis int `json:"intervalInMilliseconds"`
	} `json:"healthSnapshot"`
}

// HystrixExecution is execution.*.
type HystrixExecution struct {
	Timeout struct {
		Enabled bool `json:"enabled"`
	} `json:"timeout"`
	Isolation struct {
		Strategy  string           `json:"strategy"` // SEMAPHORE or THREAD
		Semaphore HystrixSemaphore `json:"semaphore"`
		Thread    struct {
			TimeoutMillis           int `json:"timeoutInMilliseconds"` // for either strategy
			InterruptOnTimeout      any `json:"interruptOnTimeout,omitempty"`
			InterruptOnFutureCancel any `json:"interruptOnFutureCancel,omitempty"`
			InterruptOnCancel       any `json:"interruptOnCancel,omitempty"`
		} `json:"thread"`
	} `json:"isolation"`
}

// HystrixFallback is fallback.*.
type HystrixFallback struct {
	Enabled   bool `json:"enabled"`
	Isolation struct {
		Semaphore HystrixSemaphore `json:"semaphore"`
	} `json:"isolation"`
}

// HystrixSemaphore bounds what runs at once.
type HystrixSemaphore struct {
	MaxConcurrentRequests int `json:"maxConcurrentRequests"`
}

// HystrixDefaults are those of Hystrix, but for the strategy: there are no threads here to isolate.
func HystrixDefaults() HystrixProperties {
	var h HystrixProperties
	h.CircuitBreaker = HystrixCircuitBreaker{Enabled: true, RequestVolumeThreshold: 20, SleepWindowMillis: 5000, ErrorThresholdPercentage: 50}
	h.Metrics.RollingStats.Millis, h.Metrics.RollingStats.NumBuckets = 10_000, 10
	p := &h.Metrics.RollingPercentile
	p.Enabled, p.Millis, p.NumBuckets, p.BucketSize = true, 60_000, 6, 100
	h.Metrics.HealthSnapshot.IntervalMillis = 500
	h.Execution.Timeout.Enabled = true
	h.Execution.Isolation.Strategy = "SEMAPHORE"
	h.Execution.Isolation.Semaphore.MaxConcurrentRequests = 10
	h.Execution.Isolation.Thread.TimeoutMillis = 1000
	h.Fallback.Enabled = true
	h.Fallback.Isolation.Semaphore.MaxConcurrentRequests = 10
	return h
}

func decodeCircuitBreaker(d *decoder, n *node) (any, *metav1.ObjectMeta) {
	b := &CircuitBreaker{Hystrix: HystrixDefaults()}
	meta := d.header(n, func(n *node) { d.into(n, reflect.ValueOf(b).Elem()) })
	return b, meta
}

// defaultCircuitBreaker fills in what is no Hystrix property.
func defaultCircuitBreaker(b *CircuitBreaker) {
	if b.Errors.Statuses == nil {
		b.Errors.Statuses = []StatusCode{"5xx"}
	}
	if b.Errors.GRPCStatuses == nil {
		b.Errors.GRPCStatuses = []StatusCode{"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "UNKNOWN", "DATA_LOSS", "RESOURCE_EXHAUSTED"}
	}
	if b.Fallback != nil && b.Fallback.Response != nil && b.Fallback.Response.Status == 0 {
		b.Fallback.Response.Status = 200
	}
}

// noMeaning lists the properties that a proxy has no use for, with what to do instead.
var noMeaning = []struct{ field, remedy string }{
	{"requestCache", "remove it: nothing is cached"},
	{"requestLog", "remove it: the access log has every request"},
	{"collapser", "remove it: requests are not batched"},
	{"threadpool", pool},
	{"threadPoolKeyOverride", pool},
	{"coreSize", pool},
	{"maximumSize", pool},
	{"maxQueueSize", pool},
	{"queueSizeRejectionThreshold", pool},
	{"keepAliveTimeMinutes", pool},
	{"allowMaximumSizeToDivergeFromCoreSize", pool},
	{"execution.isolation.thread.interruptOnTimeout", "remove it: what ran into the timeout is always given up"},
	{"execution.isolation.thread.interruptOnFutureCancel", "remove it: what nobody waits for is always given up"},
	{"execution.isolation.thread.interruptOnCancel", "remove it: what nobody waits for is always given up"},
}

const pool = "bound what runs at once by execution.isolation.semaphore.maxConcurrentRequests"

func checkCircuitBreaker(c *checker, b *CircuitBreaker) {
	if c.required(b.Host != "", "spec.host", "name the service to guard") {
		c.host("spec.host", b.Host)
	}
	if b.Subset != "" {
		c.subset("spec.subset", b.Subset)
	}
	if c.object.Has("spec.port") {
		c.port("spec.port", int64(b.Port))
	}
	c.breakerRoute("spec.route", b.Route)
	b.Hystrix.Check(func(field, message, remedy string) { c.bad(idRange, "spec.hystrix."+field, message, remedy) })
	c.oneOf("spec.hystrix.execution.isolation.strategy", b.Hystrix.Execution.Isolation.Strategy, "SEMAPHORE", "THREAD")
	for _, p := range noMeaning {
		if field := "spec.hystrix." + p.field; c.object.Has(field) {
			c.warn(idMeaningless, field, "the property means nothing to a proxy and has no effect", p.remedy)
		}
	}
	if b.Hystrix.CircuitBreaker.ForceOpen && b.Hystrix.CircuitBreaker.ForceClosed {
		c.warn(idMeaningless, "spec.hystrix.circuitBreaker.forceClosed", "forceClosed has no effect: forceOpen comes first, and nothing is let through", "remove one of them")
	}
	if b.Hystrix.Execution.Isolation.Strategy == "THREAD" {
		c.warn(idMeaningless, "spec.hystrix.execution.isolation.strategy", "there is no thread pool here: nothing bounds what runs at once", "write SEMAPHORE with semaphore.maxConcurrentRequests, or bound connections by a DestinationRule's connectionPool")
	}
	c.statuses("spec.errors.statuses", b.Errors.Statuses, validStatus, "write one from 100 to 599, or a class such as 5xx")
	c.statuses("spec.errors.grpcStatuses", b.Errors.GRPCStatuses, validGRPCStatus, "write a name such as UNAVAILABLE, or its number, from 1 to 16")
	c.breakerFallback("spec.fallback", b.Fallback)
}

// warn records what has no effect.
func (c *checker) warn(id, field, message, remedy string) {
	if len(c.findings) < maxPerFile {
		c.findings = append(c.findings, c.object.Finding(id, Warning, field, message, remedy))
	}
}

func (c *checker) breakerRoute(field string, r *BreakerRoute) {
	if r == nil {
		return
	}
	c.required(len(r.Paths)+len(r.Methods) > 0, field, "write paths or methods, or remove route")
	seen := map[string]bool{}
	for i, p := range r.Paths {
		at := item(field+".paths", i)
		c.unless(strings.HasPrefix(p, "/") || p == "*", idValue, at, clip(strconv.Quote(p))+" is not a path", "begin it with /")
		c.unless(!strings.Contains(strings.TrimSuffix(p, "*"), "*"), idValue, at, "only the last character may be *", "write an exact path, or a prefix that ends in *")
		c.unless(!strings.ContainsAny(p, "?#"), idValue, at, "a path has no query", "remove what follows the path: queries are not looked at")
		c.unless(!seen[p], idRepeated, at, clip(strconv.Quote(p))+" is listed twice", "remove one of them")
		seen[p] = true
	}
	for i, m := range r.Methods {
		at := item(field+".methods", i)
		c.unless(validToken(m), idValue, at, clip(strconv.Quote(m))+" is not a method", "write such as GET")
		c.unless(!seen[m], idRepeated, at, m+" is listed twice", "remove one of them")
		seen[m] = true
	}
}

func (c *checker) statuses(field string, list []StatusCode, valid func(string) bool, remedy string) {
	c.required(len(list) > 0, field, "list at least one, or remove the field for the defaults")
	for i, s := range list {
		c.unless(valid(string(s)), idValue, item(field, i), clip(strconv.Quote(string(s)))+" is not a status that can be an error", remedy)
	}
}

func validStatus(s string) bool {
	if len(s) == 3 && s[0] >= '1' && s[0] <= '5' && s[1:] == "xx" {
		return true
	}
	n, err := strconv.Atoi(s)
	return err == nil && n >= 100 && n <= 599
}

// grpcErrors are the names of gRPC's statuses in the order of their numbers, from 1 on.
var grpcErrors = []string{
	"CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

func validGRPCStatus(s string) bool {
	n, err := strconv.Atoi(s)
	return slices.Contains(grpcErrors, s) || err == nil && n >= 1 && n <= len(grpcErrors) && s == strconv.Itoa(n)
}

// framing are the fields that belong to the connection and the body's length, which the proxy writes itself.
var framing = []string{"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

// maxFallback is the longest body of a static answer, in bytes: that of a directResponse.
const maxFallback = 1 << 20

func (c *checker) breakerFallback(field string, f *BreakerFallback) {
	if f == nil {
		return
	}
	c.exclusive(field, "response", "backend")
	c.required(f.Response != nil || f.Backend != nil, field, "write one of response and backend, or remove fallback: the error stays as it is without")
	if r := f.Response; r != nil {
		within(c, field+".response.status", r.Status, 200, 599)
		c.unless(len(r.Body) <= maxFallback, idTooMany, field+".response.body", fmt.Sprintf("has %d bytes, more than the limit of %d", len(r.Body), maxFallback), "use a backend that answers so much")
		for name, value := range r.Headers {
			at := field + ".response.headers[" + name + "]"
			c.headerName(at, name)
			c.headerValue(at, value)
			c.unless(!slices.Contains(framing, strings.ToLower(name)), idHeader, at, "the proxy writes this header itself", "remove it")
		}
	}
	if b := f.Backend; b != nil {
		if c.required(b.Host != "", field+".backend.host", "name the service to ask instead") {
			c.host(field+".backend.host", b.Host)
		}
		if c.object.Has(field + ".backend.port") {
			c.port(field+".backend.port", int64(b.Port))
		}
		if b.Subset != "" {
			c.subset(field+".backend.subset", b.Subset)
		}
	}
}

// Bounds on what one breaker may hold in memory and on what Hystrix's properties, which are 32-bit, can say.
const (
	maxProperty = 1<<31 - 1
	maxBuckets  = 100_000
	maxSamples  = 1_000_000
)

// Check calls bad for each property whose value Hystrix, or a proxy, would refuse; field is its path in Hystrix's tree.
func (h *HystrixProperties) Check(bad func(field, message, remedy string)) {
	in := func(field string, n, low, high int) bool {
		if n >= low && n <= high {
			return true
		}
		bad(field, fmt.Sprintf("%d is out of range", n), fmt.Sprintf("write a number from %d to %d", low, high))
		return false
	}
	cb := &h.CircuitBreaker
	in("circuitBreaker.requestVolumeThreshold", cb.RequestVolumeThreshold, 0, maxProperty)
	in("circuitBreaker.sleepWindowInMilliseconds", cb.SleepWindowMillis, 0, maxProperty)
	in("circuitBreaker.errorThresholdPercentage", cb.ErrorThresholdPercentage, 0, 100)
	divides := func(field string, millis, buckets int) {
		if in(field+".timeInMilliseconds", millis, 1, maxProperty) && in(field+".numBuckets", buckets, 1, maxBuckets) && millis%buckets != 0 {
			bad(field+".timeInMilliseconds", fmt.Sprintf("%d is not divisible by the %d of numBuckets", millis, buckets), fmt.Sprintf("write a multiple of %d, or change %s.numBuckets", buckets, field))
		}
	}
	stats, interval := &h.Metrics.RollingStats, h.Metrics.HealthSnapshot.IntervalMillis
	divides("metrics.rollingStats", stats.Millis, stats.NumBuckets)
	if in("metrics.healthSnapshot.intervalInMilliseconds", interval, 1, maxProperty) && stats.Millis >= 1 {
		switch {
		case interval > stats.Millis:
			bad("metrics.healthSnapshot.intervalInMilliseconds", fmt.Sprintf("%d is longer than the window, metrics.rollingStats.timeInMilliseconds (%d)", interval, stats.Millis), "write a shorter interval, or a longer window")
		case stats.Millis/interval > maxBuckets:
			bad("metrics.healthSnapshot.intervalInMilliseconds", fmt.Sprintf("%d is %d times in the window, more than the limit of %d", interval, stats.Millis/interval, maxBuckets), "write a longer interval, or a shorter window")
		}
	}
	if p := &h.Metrics.RollingPercentile; p.Enabled {
		divides("metrics.rollingPercentile", p.Millis, p.NumBuckets)
		in("metrics.rollingPercentile.bucketSize", p.BucketSize, 1, maxSamples/min(max(p.NumBuckets, 1), maxBuckets))
	}
	in("execution.isolation.semaphore.maxConcurrentRequests", h.Execution.Isolation.Semaphore.MaxConcurrentRequests, 0, maxProperty)
	in("fallback.isolation.semaphore.maxConcurrentRequests", h.Fallback.Isolation.Semaphore.MaxConcurrentRequests, 0, maxProperty)
	timeout := h.Execution.Isolation.Thread.TimeoutMillis
	if h.Execution.Timeout.Enabled && (timeout < 1 || timeout > maxProperty) {
		bad("execution.isolation.thread.timeoutInMilliseconds", fmt.Sprintf("%d is out of range", timeout), fmt.Sprintf("write a number from 1 to %d, or turn it off by execution.timeout.enabled: false", maxProperty))
	}
}
