package dashboard

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// message appends one JSON object to a buffer, field after field: the order is part of the format.
type message struct {
	b     []byte
	empty bool
}

func (m *message) begin() { m.b, m.empty = append(m.b, '{'), true }
func (m *message) end()   { m.b, m.empty = append(m.b, '}'), false }

func (m *message) key(name string) {
	if !m.empty {
		m.b = append(m.b, ',')
	}
	m.empty = false
	m.b = append(append(append(m.b, '"'), name...), '"', ':')
}

func (m *message) text(name, value string) {
	m.key(name)
	quoted, err := json.Marshal(value)
	if err != nil {
		quoted = []byte(`""`) // a text always encodes
	}
	m.b = append(m.b, quoted...)
}

func (m *message) int(name string, value int64) {
	m.key(name)
	m.b = strconv.AppendInt(m.b, value, 10)
}

func (m *message) count(name string, value uint64) { m.int(name, int64(value)) }

func (m *message) bool(name string, value bool) {
	m.key(name)
	m.b = strconv.AppendBool(m.b, value)
}

func (m *message) millis(name string, d time.Duration) { m.int(name, d.Milliseconds()) }

// percentileNames are breaker.Percentiles as keys. All are there in each message: Turbine adds up maps of the same keys only.
var percentileNames = [len(breaker.Percentiles)]string{"0", "25", "50", "75", "90", "95", "99", "99.5", "100"}

func (m *message) latency(name string, l *breaker.Latency) {
	m.int(name+"_mean", int64(l.Mean))
	m.key(name)
	m.begin()
	for i, p := range percentileNames {
		m.int(p, int64(l.At[i]))
	}
	m.end()
}

// counts are the rolling counts in the stream's order.
var counts = []struct {
	name  string
	event breaker.Event
}{
	{"rollingCountBadRequests", breaker.BadRequest},
	{"rollingCountCollapsedRequests", breaker.Collapsed},
	{"rollingCountEmit", breaker.Emit},
	{"rollingCountExceptionsThrown", breaker.ExceptionThrown},
	{"rollingCountFailure", breaker.Failure},
	{"rollingCountFallbackEmit", breaker.FallbackEmit},
	{"rollingCountFallbackFailure", breaker.FallbackFailure},
	{"rollingCountFallbackMissing", breaker.FallbackMissing},
	{"rollingCountFallbackRejection", breaker.FallbackRejection},
	{"rollingCountFallbackSuccess", breaker.FallbackSuccess},
	{"rollingCountResponsesFromCache", breaker.ResponseFromCache},
	{"rollingCountSemaphoreRejected", breaker.SemaphoreRejected},
	{"rollingCountShortCircuited", breaker.ShortCircuited},
	{"rollingCountSuccess", breaker.Success},
	{"rollingCountThreadPoolRejected", breaker.ThreadPoolRejected},
	{"rollingCountTimeout", breaker.Timeout},
}

// appendCommand appends the HystrixCommand message of c. at is milliseconds since 1970.
//
// Three properties have no other value here: a request that ran into its timeout is always given up, and there is neither
// a request cache nor a request log.
func appendCommand(b []byte, c *command, at int64) []byte {
	m := message{b: b}
	s := &c.Settings
	m.begin()
	m.text("type", "HystrixCommand")
	m.text("name", c.title)
	m.text("group", c.Group)
	m.int("currentTime", at)
	m.bool("isCircuitBreakerOpen", c.Open)
	m.int("errorPercentage", int64(c.ErrorPercentage))
	m.count("errorCount", c.Errors)
	m.count("requestCount", c.Requests)
	for _, n := range counts {
		m.count(n.name, c.Rolling[n.event])
	}
	m.int("currentConcurrentExecutionCount", int64(c.Active))
	m.count("rollingMaxConcurrentExecutionCount", c.Rolling[breaker.CommandMaxActive])
	m.latency("latencyExecute", &c.Execution)
	m.latency("latencyTotal", &c.Command)
	m.int("propertyValue_circuitBreakerRequestVolumeThreshold", int64(s.RequestVolumeThreshold))
	m.millis("propertyValue_circuitBreakerSleepWindowInMilliseconds", s.SleepWindow)
	m.int("propertyValue_circuitBreakerErrorThresholdPercentage", int64(s.ErrorThresholdPercentage))
	m.bool("propertyValue_circuitBreakerForceOpen", s.ForceOpen)
	m.bool("propertyValue_circuitBreakerForceClosed", s.ForceClosed)
	m.bool("propertyValue_circuitBreakerEnabled", s.Enabled)
	m.text("propertyValue_executionIsolationStrategy", s.Strategy.String())
	m.millis("propertyValue_executionIsolationThreadTimeoutInMilliseconds", s.Timeout)
	m.millis("propertyValue_executionTimeoutInMilliseconds", s.Timeout)
	m.bool("propertyValue_executionIsolationThreadInterruptOnTimeout", true)
	m.key("propertyValue_executionIsolationThreadPoolKeyOverride")
	m.b = append(m.b, "null"...)
	m.int("propertyValue_executionIsolationSemaphoreMaxConcurrentRequests", int64(s.MaxConcurrent))
	m.int("propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests", int64(s.FallbackMaxConcurrent))
	m.millis("propertyValue_metricsRollingStatisticalWindowInMilliseconds", s.RollingWindow)
	m.bool("propertyValue_requestCacheEnabled", false)
	m.bool("propertyValue_requestLogEnabled", false)
	m.int("reportingHosts", 1)
	m.text("threadPool", c.pool())
	m.end()
	return m.b
}

// pool is what a client's commands of one group with the strategy THREAD would have in common in Hystrix.
type pool struct {
	name                                 string
	active                               int
	completed, executed, most, rejection uint64
	window                               time.Duration
}

// executed are the events of commands that ran.
var executed = []breaker.Event{breaker.Success, breaker.Failure, breaker.Timeout, breaker.BadRequest}

// pools returns the pools of the commands that ask for one, in the order in which they come up.
func pools(commands []command) []pool {
	var out []pool
	at := map[string]int{}
	for i := range commands {
		c := &commands[i]
		if c.Settings.Strategy != breaker.Thread {
			continue
		}
		name := c.pool()
		n, ok := at[name]
		if !ok {
			n = len(out)
			at[name] = n
			out = append(out, pool{name: name, window: c.Settings.RollingWindow})
		}
		p := &out[n]
		p.active += c.Active
		p.most += c.Rolling[breaker.CommandMaxActive]
		p.rejection += c.Rolling[breaker.ThreadPoolRejected]
		for _, e := range executed {
			p.completed += c.Total[e]
			p.executed += c.Rolling[e]
		}
	}
	return out
}

// appendPool appends the HystrixThreadPool message of p. There are no threads: a running command stands for one, the pool
// is as large as there were at once within the window, and nothing waits in it.
func appendPool(b []byte, p *pool, at int64) []byte {
	m := message{b: b}
	active := int64(p.active)
	size := max(active, int64(p.most))
	m.begin()
	m.text("type", "HystrixThreadPool")
	m.text("name", p.name)
	m.int("currentTime", at)
	m.int("currentActiveCount", active)
	m.count("currentCompletedTaskCount", p.completed)
	m.int("currentCorePoolSize", size)
	m.int("currentLargestPoolSize", size)
	m.int("currentMaximumPoolSize", size)
	m.int("currentPoolSize", size)
	m.int("currentQueueSize", 0)
	m.int("currentTaskCount", active+int64(p.completed))
	m.count("rollingCountThreadsExecuted", p.executed)
	m.count("rollingMaxActiveThreads", p.most)
	m.count("rollingCountCommandRejections", p.rejection)
	m.int("propertyValue_queueSizeRejectionThreshold", 0)
	m.millis("propertyValue_metricsRollingStatisticalWindowInMilliseconds", p.window)
	m.int("reportingHosts", 1)
	m.end()
	return m.b
}

// appendGone appends the message by which the dashboard takes a card away. It looks the card up by escapedName: the name escaped
// for a selector, and the number of the stream on the page, which is the first.
func appendGone(b []byte, kind, name string, at int64) []byte {
	m := message{b: b}
	m.begin()
	m.text("type", kind)
	m.text("name", name)
	m.int("currentTime", at)
	m.text("deleteData", "true")
	m.text("escapedName", escape.Replace(name)+"_0")
	m.end()
	return m.b
}

// escape escapes what the dashboard itself escapes in names.
var escape = func() *strings.Replacer {
	var pairs []string
	for _, c := range " !\"#$%&'()*+,./:;<=>?@[]^`{|}~" {
		pairs = append(pairs, string(c), `\`+string(c))
	}
	return strings.NewReplacer(pairs...)
}()
