package migrate

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/config"
)

// unbounded is the greatest number that a property can have.
const unbounded = math.MaxInt32

// resilienceFile is what a file says of resilience4j.
type resilienceFile struct {
	*translation
	// modules have the properties of configs and instances, by module: "circuitbreaker", "bulkhead", ...
	modules   map[string]*module
	instances []string        // of all modules that carry over, in the order in which they come up
	taken     map[string]bool // properties that an instance has, by their keys
}

// module is one of resilience4j's, with its properties by the name of the config or instance, and then by their plain name.
type module struct{ configs, instances map[string]map[string]entry }

// carried are the modules that have a counterpart; the others are named.
var carried = []string{"circuitbreaker", "bulkhead", "threadpoolbulkhead", "timelimiter"}

var elsewhere = map[string]string{
	"retry":       "write retries into a VirtualService, which the sidecar repeats within the breaker",
	"ratelimiter": "limit requests by an outrider.dev RateLimit",
	"cache":       "nothing is cached",
	"metrics":     "metrics are always there",
}

// Resilience4j translates an application.yml (or application.properties) with resilience4j's properties.
func Resilience4j(name string, data []byte, o Options) (Result, error) {
	f := resilienceFile{translation: &translation{Options: o, file: name}, modules: map[string]*module{}, taken: map[string]bool{}}
	entries, err := f.read(name, data)
	if err != nil {
		return Result{}, err
	}
	found := false
	told := map[string]bool{}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.key, "resilience4j.")
		if !ok {
			if why := beside(e.key); why != "" {
				f.note(e.line, "%s does not carry over: %s", e.key, why)
			}
			continue
		}
		found = true
		f.take(rest, e, told)
	}
	if !found {
		return Result{}, fmt.Errorf("%w: the file has no property of the tree \"resilience4j\"", ErrNothing)
	}
	for _, key := range sortedKeys(o.Hosts) {
		if !slices.Contains(f.instances, key) {
			f.instances = append(f.instances, key)
		}
	}
	for _, key := range f.instances {
		f.instance(key)
	}
	if len(f.instances) == 0 {
		f.note(0, "the file names no instance: name each by --host KEY=HOST, and it takes the defaults of the file")
	} else {
		f.untaken()
	}
	return f.result(), nil
}

// untaken names what only instances would have that the file does not name.
func (f *resilienceFile) untaken() {
	for _, m := range f.modules {
		for _, properties := range m.configs {
			for _, e := range properties {
				if !f.taken[e.key] {
					f.note(e.line, "%s carries over to no instance that the file names", e.key)
				}
			}
		}
	}
}

// take files one property.
func (f *resilienceFile) take(rest string, e entry, told map[string]bool) {
	name, rest, _ := strings.Cut(rest, ".")
	name = bare(name)
	if why, ok := elsewhere[name]; ok {
		if !told[name] {
			told[name] = true
			f.note(e.line, "resilience4j.%s does not carry over: %s", name, why)
		}
		return
	}
	group, rest, _ := strings.Cut(rest, ".")
	i := strings.LastIndexByte(rest, '.')
	if i < 0 && rest != "" && e.value == "" && slices.Contains(carried, name) && (group == "instances" || group == "backends") { // it has the defaults
		i, rest = len(rest), rest+"."
	}
	if !slices.Contains(carried, name) || i <= 0 || !slices.Contains([]string{"configs", "instances", "backends"}, group) {
		f.note(e.line, "%s does not carry over: it is of the library itself", e.key)
		return
	}
	m := f.modules[name]
	if m == nil {
		m = &module{map[string]map[string]entry{}, map[string]map[string]entry{}}
		f.modules[name] = m
	}
	to, key := m.instances, rest[:i]
	if group == "configs" {
		to = m.configs
	} else if !slices.Contains(f.instances, key) {
		f.instances = append(f.instances, key)
	}
	if to[key] == nil {
		to[key] = map[string]entry{}
	}
	property, _, list := strings.Cut(rest[i+1:], "[")
	if e.unknown {
		property = ""
	}
	if list {
		e.key, _, _ = strings.Cut(e.key, "[")
	}
	before, known := to[key][bare(property)]
	if known && list { // it is named where it begins
		return
	}
	if known && property != "" {
		f.note(before.line, "%s stands again in line %d, as %s, which has the last word", before.key, e.line, e.key)
	}
	to[key][bare(property)] = e
}

// bare is a name of Spring's without what it may be written with or without: failure-rate-threshold, failureRateThreshold.
func bare(s string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s))
}

// of returns the properties of an instance with what it inherits, and whether the module has the instance at all.
func (f *resilienceFile) of(name, key string) (map[string]entry, bool) {
	m := f.modules[name]
	if m == nil {
		return nil, false
	}
	own, ok := m.instances[key]
	out := maps.Clone(own)
	if out == nil {
		out = map[string]entry{}
	}
	seen := map[string]bool{}
	for at := own; ; {
		base, e := "default", at["baseconfig"]
		f.taken[e.key] = true
		if e.key != "" {
			base = e.value
		}
		if e.key != "" && m.configs[base] == nil {
			f.wrong(e.line, "%s: there is no config %q", e.key, base)
			base = "default"
		}
		if seen[base] && e.key != "" && base != "default" {
			f.wrong(e.line, "%s: %q is in the end based on itself", e.key, base)
		}
		if seen[base] {
			for _, e := range out {
				f.taken[e.key] = f.taken[e.key] || ok || f.asked(key)
			}
			return out, ok
		}
		seen[base], at = true, m.configs[base]
		for p, e := range at {
			if _, written := out[p]; !written {
				out[p] = e
			}
		}
	}
}

// asked says that --host names an instance.
func (f *resilienceFile) asked(key string) bool {
	_, is := f.Hosts[key]
	return is
}

// instance translates what all modules say of one name.
func (f *resilienceFile) instance(key string) {
	b := breaker{key: key, hystrix: config.HystrixDefaults()}
	for _, name := range carried {
		if m := f.modules[name]; m != nil {
			for _, e := range m.instances[key] {
				if b.line == 0 || e.line < b.line {
					b.line = e.line
				}
			}
		}
	}
	f.circuit(&b, f.asked(key))
	f.limits(&b)
	settle(&b.hystrix, func(path, message string) {
		f.wrong(b.line, "%s: %s: %s; the defaults are taken", key, path, message)
	})
	f.all = append(f.all, b)
}

// circuit translates the circuit breaker.
func (f *resilienceFile) circuit(b *breaker, asked bool) {
	p, ok := f.of("circuitbreaker", b.key)
	cb := &b.hystrix.CircuitBreaker
	if !ok && (!asked || f.modules["circuitbreaker"] == nil) {
		cb.Enabled = false
		b.comments = append(b.comments, "There is no circuit breaker of this name: only the limits hold.")
		return
	}
	cb.ErrorThresholdPercentage, cb.RequestVolumeThreshold = f.rate(p["failureratethreshold"], 50), f.number(p["minimumnumberofcalls"], 100)
	cb.SleepWindowMillis = f.millis(p["waitdurationinopenstate"], 60_000)
	size := f.number(p["slidingwindowsize"], 100)
	if strings.EqualFold(p["slidingwindowtype"].value, "TIME_BASED") {
		stats := &b.hystrix.Metrics.RollingStats
		stats.Millis, stats.NumBuckets = min(size, unbounded/1000)*1000, max(size, 1)
	} else {
		cb.RequestVolumeThreshold = min(cb.RequestVolumeThreshold, size)
		b.comments = append(b.comments, fmt.Sprintf("The last %d calls were counted; here, those of the last 10 s are.", size))
		e := p["slidingwindowsize"]
		if e.key == "" {
			e = p["slidingwindowtype"]
		}
		if e.key == "" {
			e.line = b.line
		}
		f.note(e.line, "%s: a window of so many calls does not carry over: a window of 10 s stands in its place (slidingWindowType: TIME_BASED has a counterpart)", b.key)
	}
	switch state := strings.ToUpper(p["initialstate"].value); state {
	case "", "CLOSED":
	case "FORCED_OPEN":
		cb.ForceOpen = true
	case "METRICS_ONLY":
		cb.ForceClosed = true
	case "DISABLED":
		cb.Enabled = false
	default:
		f.note(p["initialstate"].line, "%s: a breaker begins closed", p["initialstate"].key)
	}
	for _, name := range sortedKeys(p) {
		f.unsaid(p[name], circuitLost, name)
	}
}

// circuitLost are the properties that have no counterpart, unless they have the value behind the bar.
var circuitLost = map[string]string{
	"slowcallratethreshold":                        "a slow call is an error only where it runs into the timeout",
	"slowcalldurationthreshold":                    "a slow call is an error only where it runs into the timeout",
	"permittednumberofcallsinhalfopenstate":        "one probe decides|1",
	"automatictransitionfromopentohalfopenenabled": "the next request is the probe, and none is made up|false",
	"maxwaitdurationinhalfopenstate":               "a probe that nobody hears of is replaced after the sleep window, or its timeout|0",
	"transitiontostateafterwaitduration":           "a probe that nobody hears of is replaced",
	"recordexceptions":                             errorsSay,
	"ignoreexceptions":                             errorsSay,
	"recordfailurepredicate":                       errorsSay,
	"recordresultpredicate":                        errorsSay,
	"recordexceptionpredicate":                     errorsSay,
	"ignoreexceptionpredicate":                     errorsSay,
	"ignoreclassbindingexceptions":                 errorsSay,
	"enableexponentialbackoff":                     "the sleep window does not grow|false",
	"exponentialbackoffmultiplier":                 "the sleep window does not grow",
	"exponentialmaxwaitdurationinopenstate":        "the sleep window does not grow",
	"enablerandomizedwait":                         "the sleep window is always the same|false",
	"randomizedwaitfactor":                         "the sleep window is always the same",
	"ringbuffersizeinclosedstate":                  "requests of a time are counted, not so many of them: see requestVolumeThreshold",
	"ringbuffersizeinhalfopenstate":                "one probe decides",
	"registerhealthindicator":                      monitored,
	"allowhealthindicatortofail":                   monitored,
	"eventconsumerbuffersize":                      monitored,
	"writablestacktraceenabled":                    "there are no exceptions",
}

const (
	errorsSay = "write the statuses that are errors into spec.errors"
	monitored = "/hystrix.stream and the metrics tell of breakers"
)

var limitsLost = map[string]string{
	"maxwaitduration":           "who finds no place is refused at once|0",
	"keepaliveduration":         "there are no threads",
	"cancelrunningfuture":       "what ran into the timeout is always given up|true",
	"writablestacktraceenabled": "there are no exceptions",
	"eventconsumerbuffersize":   monitored,
	"contextpropagators":        "there are no threads",
}

// read are the properties that do carry over; the empty one is an instance's name alone.
var read = []string{
	"", "baseconfig", "failureratethreshold", "minimumnumberofcalls", "waitdurationinopenstate", "slidingwindowtype", "slidingwindowsize", "initialstate",
	"maxconcurrentcalls", "maxthreadpoolsize", "corethreadpoolsize", "queuecapacity", "timeoutduration",
}

// unsaid names a property that does not carry over.
func (f *resilienceFile) unsaid(e entry, lost map[string]string, name string) {
	if slices.Contains(read, name) {
		return
	}
	text, ok := lost[name]
	if !ok {
		f.note(e.line, "%s does not carry over: it has no counterpart", e.key)
		return
	}
	why, harmless, _ := strings.Cut(text, "|")
	if harmless != "" && (strings.EqualFold(e.value, harmless) || harmless == "0" && f.millis(e, -1) == 0) {
		return
	}
	f.note(e.line, "%s does not carry over: %s", e.key, why)
}

// limits translates the bulkhead of either kind, and the time limiter.
func (f *resilienceFile) limits(b *breaker) {
	execution := &b.hystrix.Execution
	semaphore := &execution.Isolation.Semaphore.MaxConcurrentRequests
	plain, ok := f.of("bulkhead", b.key)
	pool, pooled := f.of("threadpoolbulkhead", b.key)
	switch {
	case ok:
		*semaphore = f.number(plain["maxconcurrentcalls"], 25)
		if pooled {
			f.note(b.line, "%s has two bulkheads: that of a thread pool does not carry over", b.key)
		}
	case pooled && (pool["maxthreadpoolsize"].key != "" || pool["corethreadpoolsize"].key != ""):
		size := max(f.number(pool["maxthreadpoolsize"], 0), f.number(pool["corethreadpoolsize"], 0))
		queue := f.number(pool["queuecapacity"], 100)
		*semaphore = min(size, unbounded/2) + min(queue, unbounded/2)
		b.comments = append(b.comments, fmt.Sprintf("A pool of %d threads with a queue of %d becomes %d requests at once.", size, queue, *semaphore))
	default:
		*semaphore = unbounded
		if pooled {
			f.note(b.line, "%s: a pool of as many threads as there are processors does not carry over: nothing bounds what runs at once", b.key)
		} else {
			b.comments = append(b.comments, "There is no bulkhead of this name: nothing bounds what runs at once.")
		}
	}
	limiter, limited := f.of("timelimiter", b.key)
	if limited {
		execution.Isolation.Thread.TimeoutMillis = f.millis(limiter["timeoutduration"], 1000)
	} else {
		execution.Timeout.Enabled = false
		b.comments = append(b.comments, "There is no time limiter of this name: no timeout but the route's.")
	}
	for _, m := range []struct {
		properties map[string]entry
		there      bool
	}{{plain, ok}, {pool, pooled}, {limiter, limited}} {
		if m.there {
			for _, name := range sortedKeys(m.properties) {
				f.unsaid(m.properties[name], limitsLost, name)
			}
		}
	}
}

// number reads a whole number, of at least 0.
func (f *resilienceFile) number(e entry, otherwise int) int {
	if e.key == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(e.value, 10, 32)
	if err != nil || n < 0 {
		f.wrong(e.line, "%s: %q is no whole number of at least 0; %d is taken", e.key, e.value, otherwise)
		return otherwise
	}
	return int(n)
}

// rate reads a percentage, which may have a fraction there and none here.
func (f *resilienceFile) rate(e entry, otherwise int) int {
	if e.key == "" {
		return otherwise
	}
	v, err := strconv.ParseFloat(e.value, 64)
	if err != nil || !(v > 0 && v <= 100) {
		f.wrong(e.line, "%s: %q is no percentage above 0, up to 100; %d is taken", e.key, e.value, otherwise)
		return otherwise
	}
	n := max(int(math.Round(v)), 1)
	if float64(n) != v {
		f.note(e.line, "%s: %s is rounded to %d: percentages are whole numbers", e.key, e.value, n)
	}
	return n
}

// millis reads a duration as Spring does: a number is milliseconds.
func (f *resilienceFile) millis(e entry, otherwise int) int {
	if e.key == "" {
		return otherwise
	}
	d, ok := parseDuration(e.value)
	if !ok || d < 0 || d.Milliseconds() > unbounded {
		f.wrong(e.line, "%s: %q is no duration; %d ms is taken", e.key, e.value, otherwise)
		return otherwise
	}
	if d%time.Millisecond != 0 {
		f.note(e.line, "%s: %s is cut to %d ms", e.key, e.value, d.Milliseconds())
	}
	return int(d.Milliseconds())
}

var units = map[string]time.Duration{
	"": time.Millisecond, "ns": 1, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// parseDuration reads Spring's simple form (10s, 500) and ISO 8601 (PT1M30S).
func parseDuration(s string) (time.Duration, bool) {
	s = strings.ToLower(s)
	if iso, ok := strings.CutPrefix(s, "p"); ok {
		days, rest, timed := strings.Cut(iso, "t")
		var sum time.Duration
		if days != "" {
			n, err := strconv.Atoi(strings.TrimSuffix(days, "d"))
			if err != nil || !strings.HasSuffix(days, "d") || n < 0 || n > 100_000 {
				return 0, false
			}
			sum = time.Duration(n) * units["d"]
		}
		if !timed {
			return sum, days != ""
		}
		d, err := time.ParseDuration(rest)
		return sum + d, err == nil && strings.Trim(rest, "0123456789.hms") == "" && !strings.Contains(rest, "ms")
	}
	i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if i < 0 {
		i = len(s)
	}
	n, err := strconv.ParseInt(s[:i], 10, 64)
	unit, ok := units[strings.TrimSpace(s[i:])]
	if err != nil || !ok || n > int64(math.MaxInt64/unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}
