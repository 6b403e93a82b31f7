package dashboard

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// Collector gives the metrics of breakers: by the names of the usual exporters for Hystrix, and what these lack as
// outrider_breaker_*. The properties' own values (property_value_*, which those export on demand) are left out: they are in
// /hystrix.stream and /config_dump.
type Collector struct {
	source Source
	clock  func() int64
}

// NewCollector returns the collector of the breakers of s, whose instants are those of clock.
func NewCollector(s Source, clock func() int64) *Collector { return &Collector{s, clock} }

var (
	commandLabels = []string{"command_group", "command_name"}
	breakerLabels = []string{"breaker", "service"}

	openDesc    = commandDesc("is_circuit_breaker_open", "Whether the breaker is open or half-open (1) or lets requests pass (0).")
	permitsDesc = commandDesc("execution_semaphore_permits_in_use", "Executions that run now.")
	eventDesc   = commandDesc("event_total", "Events of commands, by Hystrix's type; a terminal one ends its command.", "event", "terminal")
	totalDesc   = commandDesc("latency_total_seconds", "Time from the admission of a command to its end, with its fallback.")
	executeDesc = commandDesc("latency_execute_seconds", "Time that executions took, without their fallbacks.")

	stateDesc      = breakerDesc("state", "Whether the breaker is in the state (1) or not (0).", "state")
	transitionDesc = breakerDesc("transitions_total", "Changes of the breaker's state, by why.", "from", "to", "reason")
	probeDesc      = breakerDesc("next_probe_seconds", "Time until a request may be the next probe; 0 where one may now, or where none is needed.")
	rejectedDesc   = breakerDesc("rejected_total", "Requests that were not executed, by why.", "reason")
	fallbackDesc   = breakerDesc("fallbacks_total", "Commands that did not succeed, by what became of their fallback.", "outcome")
	requestsDesc   = breakerDesc("window_requests", "Requests in the window that the breaker judges by, as of the last judgement.")
	errorsDesc     = breakerDesc("window_errors", "Errors among those requests.")
)

func commandDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hystrix_command_"+name, help, append(commandLabels[:2:2], labels...), nil)
}

func breakerDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("outrider_breaker_"+name, help, append(breakerLabels[:2:2], labels...), nil)
}

// Describe is part of prometheus.Collector.
func (*Collector) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		openDesc, permitsDesc, eventDesc, totalDesc, executeDesc,
		stateDesc, transitionDesc, probeDesc, rejectedDesc, fallbackDesc, requestsDesc, errorsDesc,
	} {
		c <- d
	}
}

// Collect is part of prometheus.Collector.
func (k *Collector) Collect(c chan<- prometheus.Metric) {
	commands := read(nil, k.source, k.clock())
	for i := range commands {
		commands[i].collect(c)
		commands[i].collectOwn(c)
	}
}

// collect gives Hystrix's series.
func (c *command) collect(out chan<- prometheus.Metric) {
	give := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, v, append([]string{c.Group, c.title}, labels...)...)
	}
	give(openDesc, prometheus.GaugeValue, truth(c.Open))
	give(permitsDesc, prometheus.GaugeValue, float64(c.Active))
	for e := range breaker.EventCount {
		give(eventDesc, prometheus.CounterValue, float64(c.Total[e]), e.String(), strconv.FormatBool(e.Terminal()))
	}
	distribution := func(d *prometheus.Desc, h *breaker.Histogram) {
		buckets := make(map[float64]uint64, len(breaker.LatencyBounds))
		n := uint64(0)
		for i, bound := range breaker.LatencyBounds {
			n += h.Counts[i]
			buckets[bound] = n
		}
		n += h.Counts[len(breaker.LatencyBounds)]
		out <- prometheus.MustNewConstHistogram(d, n, float64(h.Sum)/1e9, buckets, c.Group, c.title)
	}
	distribution(totalDesc, &c.Commands)
	distribution(executeDesc, &c.Executions)
}

// collectOwn gives what Hystrix's exporters lack.
func (c *command) collectOwn(out chan<- prometheus.Metric) {
	name := c.Namespace + "/" + c.Name
	if c.Client != "" {
		name += "@" + c.Client
	}
	give := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, v, append([]string{name, c.Group}, labels...)...)
	}
	for s := range breaker.State(len(c.Reconfigured)) {
		give(stateDesc, prometheus.GaugeValue, truth(s == c.State), s.String())
	}
	for reason, m := range moves {
		give(transitionDesc, prometheus.CounterValue, float64(c.Transitions[reason]), m.from.String(), m.to.String(), breaker.Reason(reason).String())
	}
	for from := range c.Reconfigured {
		for to, n := range c.Reconfigured[from] {
			if n > 0 {
				give(transitionDesc, prometheus.CounterValue, float64(n), breaker.State(from).String(), breaker.State(to).String(), breaker.Reconfigured.String())
			}
		}
	}
	give(probeDesc, prometheus.GaugeValue, float64(c.NextProbe)/1e9)
	give(requestsDesc, prometheus.GaugeValue, float64(c.Requests))
	give(errorsDesc, prometheus.GaugeValue, float64(c.Errors))
	for _, r := range rejections {
		give(rejectedDesc, prometheus.CounterValue, float64(c.Total[r.event]), r.name)
	}
	for _, f := range fallbacks {
		give(fallbackDesc, prometheus.CounterValue, float64(c.Total[f.event]), f.name)
	}
}

// moves are the transitions of each reason but Reconfigured, which may be from any state to any other.
var moves = [...]struct{ from, to breaker.State }{
	breaker.ErrorThreshold:  {breaker.Closed, breaker.Open},
	breaker.SleepWindowOver: {breaker.Open, breaker.HalfOpen},
	breaker.ProbeSucceeded:  {breaker.HalfOpen, breaker.Closed},
	breaker.ProbeFailed:     {breaker.HalfOpen, breaker.Open},
	breaker.ProbeTimedOut:   {breaker.HalfOpen, breaker.Open},
	breaker.ProbeRejected:   {breaker.HalfOpen, breaker.Open},
	breaker.ProbeAbandoned:  {breaker.HalfOpen, breaker.Open},
	breaker.ProbeOverdue:    {breaker.HalfOpen, breaker.HalfOpen},
}

// event is one of breaker's under another name.
type event struct {
	event breaker.Event
	name  string
}

// rejections have the names that x-outrider-reason gives them.
var rejections = []event{
	{breaker.ShortCircuited, "breaker_open"},
	{breaker.SemaphoreRejected, "bulkhead_full"},
	{breaker.ThreadPoolRejected, "upstream_overflow"},
}

var fallbacks = []event{
	{breaker.FallbackSuccess, "success"},
	{breaker.FallbackFailure, "failure"},
	{breaker.FallbackRejection, "rejected"},
	{breaker.FallbackDisabled, "disabled"},
	{breaker.FallbackMissing, "missing"},
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
