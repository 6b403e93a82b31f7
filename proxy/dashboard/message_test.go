package dashboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// commandFields are the fields of a HystrixCommand message in the order in which Hystrix writes them, with their types: int,
// bool, text, null, or map for the nine percentiles.
const commandFields = `type text, name text, group text, currentTime int, isCircuitBreakerOpen bool, errorPercentage int, errorCount int, requestCount int,
rollingCountBadRequests int, rollingCountCollapsedRequests int, rollingCountEmit int, rollingCountExceptionsThrown int, rollingCountFailure int,
rollingCountFallbackEmit int, rollingCountFallbackFailure int, rollingCountFallbackMissing int, rollingCountFallbackRejection int, rollingCountFallbackSuccess int,
rollingCountResponsesFromCache int, rollingCountSemaphoreRejected int, rollingCountShortCircuited int, rollingCountSuccess int, rollingCountThreadPoolRejected int,
rollingCountTimeout int, currentConcurrentExecutionCount int, rollingMaxConcurrentExecutionCount int, latencyExecute_mean int, latencyExecute map,
latencyTotal_mean int, latencyTotal map, propertyValue_circuitBreakerRequestVolumeThreshold int, propertyValue_circuitBreakerSleepWindowInMilliseconds int,
propertyValue_circuitBreakerErrorThresholdPercentage int, propertyValue_circuitBreakerForceOpen bool, propertyValue_circuitBreakerForceClosed bool,
propertyValue_circuitBreakerEnabled bool, propertyValue_executionIsolationStrategy text, propertyValue_executionIsolationThreadTimeoutInMilliseconds int,
propertyValue_executionTimeoutInMilliseconds int, propertyValue_executionIsolationThreadInterruptOnTimeout bool, propertyValue_executionIsolationThreadPoolKeyOverride null,
propertyValue_executionIsolationSemaphoreMaxConcurrentRequests int, propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests int,
propertyValue_metricsRollingStatisticalWindowInMilliseconds int, propertyValue_requestCacheEnabled bool, propertyValue_requestLogEnabled bool,
reportingHosts int, threadPool text`

const poolFields = `type text, name text, currentTime int, currentActiveCount int, currentCompletedTaskCount int, currentCorePoolSize int, currentLargestPoolSize int,
currentMaximumPoolSize int, currentPoolSize int, currentQueueSize int, currentTaskCount int, rollingCountThreadsExecuted int, rollingMaxActiveThreads int,
rollingCountCommandRejections int, propertyValue_queueSizeRejectionThreshold int, propertyValue_metricsRollingStatisticalWindowInMilliseconds int, reportingHosts int`

// fieldsOf lists an object's fields in their order, with their types.
func fieldsOf(t *testing.T, text []byte) string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	next := func() json.Token {
		token, err := d.Token()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return token
	}
	if next() != json.Delim('{') {
		t.Fatalf("no object: %s", text)
	}
	var out []string
	for d.More() {
		name, kind := next().(string), ""
		switch v := next().(type) {
		case string:
			kind = "text"
		case bool:
			kind = "bool"
		case nil:
			kind = "null"
		case json.Number:
			if kind = "int"; strings.ContainsAny(v.String(), ".eE") {
				kind = "float"
			}
		case json.Delim:
			kind = "map"
			var keys []string
			for d.More() {
				keys = append(keys, next().(string))
				if _, err := next().(json.Number).Int64(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			next()
			if fmt.Sprint(keys) != "[0 25 50 75 90 95 99 99.5 100]" {
				t.Errorf("%s has the keys %v", name, keys)
			}
		}
		out = append(out, name+" "+kind)
	}
	return strings.Join(out, ", ")
}

func TestFields(t *testing.T) {
	r, now := busy(t, func(s *breaker.Settings) { s.Strategy = breaker.Thread })
	commands := read(nil, list{{Namespace: "default", Name: `rat"ings`, Group: "ratings.default.svc.cluster.local", Breaker: r.Breaker}}, now)
	f := func(text []byte, want string) {
		t.Helper()
		if got := fieldsOf(t, text); got != strings.ReplaceAll(want, "\n", " ") {
			t.Errorf("the fields are\n%s\nwant\n%s", got, strings.ReplaceAll(want, "\n", " "))
		}
		if bytes.ContainsAny(text, "\n") {
			t.Errorf("more than one line: %q", text)
		}
	}
	f(appendCommand(nil, &commands[0], 1), commandFields)
	all := pools(commands)
	f(appendPool(nil, &all[0], 1), poolFields)
}

func TestValues(t *testing.T) {
	r, now := busy(t, func(s *breaker.Settings) { s.PercentileWindow, s.PercentileBuckets = 6000*1e6, 6 })
	var pending breaker.Ticket
	other := newRig(t, func(s *breaker.Settings) { s.Strategy = breaker.Thread })
	other.call(100*ms, 5*ms, breaker.Succeeded)
	if other.Admit(&pending, 2*second) != breaker.Admitted {
		t.Fatal("not admitted")
	}
	defer pending.Close(now)
	commands := read(nil, list{
		{Namespace: "default", Name: "ratings", Client: "productpage-v1", Group: "ratings.default.svc.cluster.local", Breaker: r.Breaker},
		{Namespace: "default", Name: "details", Group: "details", Breaker: other.Breaker},
	}, now)
	var events []map[string]any
	for _, e := range bytes.Split(bytes.TrimSuffix(appendEvents(nil, commands, 1790000000000), []byte("\n\n")), []byte("\n\n")) {
		text, ok := bytes.CutPrefix(e, []byte("data: "))
		var m map[string]any
		if err := json.Unmarshal(text, &m); !ok || err != nil {
			t.Fatalf("%q: %v", e, err)
		}
		events = append(events, m)
	}
	if len(events) != 3 {
		t.Fatalf("%d events", len(events))
	}
	f := func(e map[string]any, want string) {
		t.Helper()
		for pair := range strings.SplitSeq(want, " ") {
			name, value, _ := strings.Cut(pair, "=")
			if got := fmt.Sprint(e[name]); got != value {
				t.Errorf("%v: %s is %s, want %s", e["name"], name, got, value)
			}
		}
	}
	f(events[0], "type=HystrixCommand name=details group=details isCircuitBreakerOpen=false currentConcurrentExecutionCount=1 propertyValue_executionIsolationStrategy=THREAD")
	f(events[1], "type=HystrixCommand name=ratings@productpage-v1 group=ratings.default.svc.cluster.local currentTime=1.79e+12 isCircuitBreakerOpen=true "+
		"requestCount=34 errorCount=22 errorPercentage=64 rollingCountSuccess=12 rollingCountFailure=20 rollingCountTimeout=1 rollingCountBadRequests=1 "+
		"rollingCountThreadPoolRejected=1 rollingCountShortCircuited=3 rollingCountSemaphoreRejected=0 rollingCountFallbackMissing=25 rollingCountExceptionsThrown=26 "+
		"currentConcurrentExecutionCount=0 rollingMaxConcurrentExecutionCount=1 propertyValue_circuitBreakerRequestVolumeThreshold=20 "+
		"propertyValue_circuitBreakerSleepWindowInMilliseconds=5000 propertyValue_circuitBreakerErrorThresholdPercentage=50 propertyValue_executionIsolationStrategy=SEMAPHORE "+
		"propertyValue_executionTimeoutInMilliseconds=1000 propertyValue_metricsRollingStatisticalWindowInMilliseconds=10000 reportingHosts=1 threadPool=ratings.default@productpage-v1")
	if l := events[1]["latencyExecute"].(map[string]any); l["0"] != 0.0 || l["50"] != 80.0 || l["100"] != 1000.0 || events[1]["latencyExecute_mean"] == 0.0 {
		t.Errorf("latencies are %v, mean %v", l, events[1]["latencyExecute_mean"])
	}
	f(events[2], "type=HystrixThreadPool name=details currentActiveCount=1 currentCompletedTaskCount=1 currentTaskCount=2 rollingCountThreadsExecuted=1 rollingMaxActiveThreads=1 currentPoolSize=1 currentQueueSize=0")
}

// TestTitles tells breakers apart that would be called the same, and keeps an order of its own.
func TestTitles(t *testing.T) {
	b := newRig(t, nil).Breaker
	f := func(want string, all ...Named) {
		t.Helper()
		for i := range all {
			all[i].Breaker = b
		}
		var got []string
		for _, c := range read(nil, list(all), 0) {
			got = append(got, c.title)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	f("[]")
	f("[a b]", Named{Namespace: "x", Name: "b"}, Named{Namespace: "y", Name: "a"})
	f("[a b x/c y/c]", Named{Namespace: "y", Name: "c"}, Named{Namespace: "y", Name: "b"}, Named{Namespace: "x", Name: "c"}, Named{Namespace: "y", Name: "a"})
	f("[c@one c@two]", Named{Namespace: "x", Name: "c", Client: "two"}, Named{Namespace: "y", Name: "c", Client: "one"})
	f("[x/c@one y/c@one]", Named{Namespace: "x", Name: "c", Client: "one"}, Named{Namespace: "y", Name: "c", Client: "one"})
}

// What hystrix-dashboard asks of an event: without one of these, or with null there, it drops the event.
const (
	dashboardCommand = `type name group isCircuitBreakerOpen errorPercentage errorCount requestCount rollingCountCollapsedRequests rollingCountExceptionsThrown rollingCountFailure
rollingCountFallbackFailure rollingCountFallbackRejection rollingCountFallbackSuccess rollingCountResponsesFromCache rollingCountSemaphoreRejected rollingCountShortCircuited rollingCountSuccess
rollingCountThreadPoolRejected rollingCountTimeout currentConcurrentExecutionCount latencyExecute_mean latencyExecute propertyValue_circuitBreakerRequestVolumeThreshold
propertyValue_circuitBreakerSleepWindowInMilliseconds propertyValue_circuitBreakerErrorThresholdPercentage propertyValue_circuitBreakerForceOpen propertyValue_circuitBreakerForceClosed
propertyValue_executionIsolationStrategy propertyValue_executionIsolationThreadTimeoutInMilliseconds propertyValue_executionIsolationThreadInterruptOnTimeout
propertyValue_executionIsolationSemaphoreMaxConcurrentRequests propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests propertyValue_requestCacheEnabled propertyValue_requestLogEnabled
propertyValue_metricsRollingStatisticalWindowInMilliseconds`
	dashboardPool = `type name currentActiveCount currentCompletedTaskCount currentCorePoolSize currentLargestPoolSize currentMaximumPoolSize currentPoolSize currentQueueSize currentTaskCount
rollingCountThreadsExecuted rollingMaxActiveThreads propertyValue_queueSizeRejectionThreshold propertyValue_metricsRollingStatisticalWindowInMilliseconds reportingHosts`
)

// aggregator holds events to what Turbine asks: type and name, numbers, booleans, texts, and maps whose keys never change.
type aggregator struct {
	t     *testing.T
	seen  map[string]string // keys by type, and by type and map
	count map[string]int    // events by type
}

func (a *aggregator) event(line []byte) {
	a.t.Helper()
	text, ok := bytes.CutPrefix(line, []byte("data: "))
	var e map[string]any
	if err := json.Unmarshal(text, &e); !ok || err != nil {
		a.t.Errorf("%q: %v", line, err)
		return
	}
	kind, _ := e["type"].(string)
	a.count[kind]++
	wanted := map[string]string{"HystrixCommand": dashboardCommand, "HystrixThreadPool": dashboardPool}[kind]
	if wanted == "" {
		a.t.Errorf("an event of type %q", kind)
	}
	for key := range strings.FieldsSeq(wanted) {
		if e[key] == nil {
			a.t.Errorf("%s %v: Key Missing: %s", kind, e["name"], key)
		}
	}
	a.same(kind, e)
	for key, v := range e {
		if m, ok := v.(map[string]any); ok {
			a.same(kind+" "+key, m)
		}
	}
	if e["reportingHosts"] == 0.0 || e["propertyValue_metricsRollingStatisticalWindowInMilliseconds"] == 0.0 {
		a.t.Errorf("%s %v: the rate would be divided by zero", kind, e["name"])
	}
}

func (a *aggregator) same(of string, m map[string]any) {
	a.t.Helper()
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	text := fmt.Sprint(keys)
	if before, ok := a.seen[of]; ok && before != text {
		a.t.Errorf("%s has the keys %s, before %s", of, text, before)
	}
	a.seen[of] = text
}

// TestDashboard holds the events of breakers in all conditions to what their readers ask.
func TestDashboard(t *testing.T) {
	var all list
	add := func(name string, r rig) {
		all = append(all, Named{Namespace: "default", Name: name, Group: name, Breaker: r.Breaker})
	}
	loaded := func(change func(*breaker.Settings)) rig {
		r, _ := busy(t, change)
		return r
	}
	add("untouched", newRig(t, nil))
	add("busy", loaded(nil))
	add("no-percentiles", loaded(func(s *breaker.Settings) { s.PercentileEnabled = false }))
	add("thread", loaded(func(s *breaker.Settings) { s.Strategy = breaker.Thread }))
	add("forced-open", loaded(func(s *breaker.Settings) { s.ForceOpen = true }))
	add("forced-closed", loaded(func(s *breaker.Settings) { s.ForceClosed = true }))
	add("disabled", loaded(func(s *breaker.Settings) { s.Enabled = false }))
	a := aggregator{t, map[string]string{}, map[string]int{}}
	for _, now := range []int64{3 * second, 8 * second, 100 * second} {
		var probe breaker.Ticket
		if now == 8*second { // half-open
			all[1].Breaker.Admit(&probe, now)
		}
		events := bytes.TrimSuffix(appendEvents(nil, read(nil, all, now), now/ms), []byte("\n\n"))
		for _, e := range bytes.Split(events, []byte("\n\n")) {
			a.event(e)
		}
		probe.Close(now)
	}
	if a.count["HystrixCommand"] != 3*len(all) || a.count["HystrixThreadPool"] != 3 {
		t.Errorf("events: %v", a.count)
	}
}
