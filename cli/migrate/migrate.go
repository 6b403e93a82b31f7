// Package migrate turns the configuration of circuit breaker libraries, Hystrix and resilience4j, into CircuitBreaker objects.
//
// What has no counterpart is never dropped in silence: it becomes a Note that names the line.
package migrate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/outrider-mesh/outrider/config"
)

// Options say what the files do not.
type Options struct {
	// Hosts are the services that commands or instances call, by their key: HOST[:PORT][/PATH], where PATH narrows the
	// breaker to one path or, ending in "*", to those that begin so. A key that the file does not mention takes its defaults.
	Hosts map[string]string
	// Namespace is that of the objects; "" writes none.
	Namespace string
}

// Note is something that did not carry over as it stands.
type Note struct {
	Line int // of the file; 0 is none
	// Wrong says that the file itself is wrong there, not only other than what a proxy can do.
	Wrong bool
	Text  string
}

// Result is what a file became.
type Result struct {
	YAML    []byte // the objects, with comments
	Objects int
	Notes   []Note // by line
}

// translation is the work on one file.
type translation struct {
	Options
	file  string
	notes []Note
	all   []breaker
}

func (t *translation) note(line int, format string, args ...any) {
	t.notes = append(t.notes, Note{Line: line, Text: shown(fmt.Sprintf(format, args...))})
}

func (t *translation) wrong(line int, format string, args ...any) {
	t.notes = append(t.notes, Note{Line: line, Wrong: true, Text: shown(fmt.Sprintf(format, args...))})
}

// breaker is one object before it is written.
type breaker struct {
	key      string
	line     int // where the key comes up first; 0 where only Options name it
	comments []string
	hystrix  config.HystrixProperties
}

// target is what a breaker stands before.
type target struct {
	host, path string
	port       int
	guessed    bool
}

func (t target) String() string {
	s := t.host
	if t.port != 0 {
		s += ":" + strconv.Itoa(t.port)
	}
	return s + t.path
}

// target finds the service that a key calls. A key of Feign, Client#method(Type), may be given by its client alone.
func (t *translation) target(key string) target {
	client, _, _ := strings.Cut(key, "#")
	for _, k := range []string{key, client} {
		if to, ok := t.Hosts[k]; ok {
			return parseTarget(to)
		}
	}
	return target{host: plain(client), guessed: true}
}

func parseTarget(s string) target {
	host, path, narrowed := strings.Cut(s, "/")
	to := target{host: host}
	if narrowed {
		to.path = "/" + path
	}
	if h, p, ok := strings.Cut(host, ":"); ok {
		if n, err := strconv.Atoi(p); err == nil {
			to.host, to.port = h, n
		}
	}
	return to
}

// plain is a key as a name in Kubernetes may be: lower-case letters, digits and dashes.
func plain(key string) string {
	var b strings.Builder
	dash := false
	for _, r := range strings.ToLower(key) {
		if r < '0' || r > '9' && r < 'a' || r > 'z' {
			dash = b.Len() > 0
			continue
		}
		if dash {
			b.WriteByte('-')
		}
		dash = false
		b.WriteRune(r)
	}
	s := b.String()
	return strings.Trim(cmp.Or(s[:min(len(s), 63)], "unnamed"), "-")
}

// result writes the objects. Those for the same target with the same properties become one; where these differ, the first
// has the target, and the others are there as comments.
func (t *translation) result() Result {
	var out strings.Builder
	names := map[string]bool{}
	var written []int // of all
	keys := map[int][]string{}
	at := map[target]int{}
	var lost []int
	for i := range t.all {
		to := t.target(t.all[i].key)
		first, taken := at[to]
		switch {
		case !taken:
			at[to] = i
			written = append(written, i)
		case t.all[first].hystrix == t.all[i].hystrix:
			keys[first] = append(keys[first], t.all[i].key)
		default:
			lost = append(lost, i)
			t.note(t.all[i].line, "%s has the same target as %s, %s: it is there as a comment; give it a path by --host '%s=%s/PATH*'", t.all[i].key, t.all[first].key, to, t.all[i].key, to)
		}
	}
	for n, i := range written {
		if n > 0 {
			out.WriteString("---\n")
		}
		out.WriteString(t.object(&t.all[i], keys[i], names))
	}
	for _, i := range lost {
		for line := range strings.Lines("---\n" + t.object(&t.all[i], nil, names)) {
			out.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
		}
	}
	slices.SortStableFunc(t.notes, func(a, b Note) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text)) })
	return Result{YAML: []byte(out.String()), Objects: len(written), Notes: slices.Compact(t.notes)}
}

// object is the text of one object.
func (t *translation) object(b *breaker, also []string, names map[string]bool) string {
	to := t.target(b.key)
	from := "only named by --host: the file's defaults"
	if b.line > 0 {
		from = shown(t.file) + ":" + strconv.Itoa(b.line)
	}
	var out strings.Builder
	called := shown(b.key)
	for _, key := range also {
		called += ", " + shown(key)
	}
	fmt.Fprintf(&out, "# %s (%s)\n", called, from)
	if to.guessed {
		fmt.Fprintf(&out, "# Check the host: the file does not say which service this calls. --host '%s=HOST' sets it.\n", shown(b.key))
	}
	for _, c := range b.comments {
		fmt.Fprintf(&out, "# %s\n", c)
	}
	name := plain(b.key)
	for n, first := 2, name; names[name]; n++ {
		name = first + "-" + strconv.Itoa(n)
	}
	names[name] = true
	out.WriteString("apiVersion: outrider.dev/v1alpha1\nkind: CircuitBreaker\nmetadata:\n  name: " + scalar(name) + "\n")
	if t.Namespace != "" {
		out.WriteString("  namespace: " + scalar(t.Namespace) + "\n")
	}
	out.WriteString("spec:\n  host: " + scalar(to.host) + "\n")
	if to.port != 0 {
		fmt.Fprintf(&out, "  port: %d\n", to.port)
	}
	if to.path != "" {
		fmt.Fprintf(&out, "  route:\n    paths:\n    - %s\n", scalar(to.path))
	}
	out.WriteString(tree(&b.hystrix))
	return out.String()
}

// shown is a text that fits on a line.
func shown(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(s) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// scalar quotes a text where YAML could take it for something else.
func scalar(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-./") == "" && !slices.Contains([]string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}, s) && !strings.HasPrefix(s, "-") && s != "." {
		return s
	}
	return strconv.Quote(s)
}

// tree is the properties that are not the defaults, below spec.
func tree(h *config.HystrixProperties) string {
	var out strings.Builder
	defaults := config.HystrixDefaults()
	var last []string
	for _, p := range properties {
		value := text(p.of(h))
		if value == text(p.of(&defaults)) {
			continue
		}
		path := strings.Split("hystrix."+p.path, ".")
		same := 0
		for same < min(len(last), len(path)) && last[same] == path[same] {
			same++
		}
		for i := same; i < len(path); i++ {
			out.WriteString(strings.Repeat("  ", i+1) + path[i] + ":")
			if i == len(path)-1 {
				out.WriteString(" " + value)
			}
			out.WriteByte('\n')
		}
		last = path
	}
	return out.String()
}

// property is one of Hystrix's that means something here; of points to its value.
type property struct {
	path string
	of   func(h *config.HystrixProperties) any // *bool, *int or *string
}

// properties are those that carry over, in the order in which they are written.
var properties = []property{
	{"circuitBreaker.enabled", func(h *config.HystrixProperties) any { return &h.CircuitBreaker.Enabled }},
	{"circuitBreaker.requestVolumeThreshold", func(h *config.HystrixProperties) any { return &h.CircuitBreaker.RequestVolumeThreshold }},
	{"circuitBreaker.sleepWindowInMilliseconds", func(h *config.HystrixProperties) any { return &h.CircuitBreaker.SleepWindowMillis }},
	{"circuitBreaker.errorThresholdPercentage", func(h *config.HystrixProperties) any { return &h.CircuitBreaker.ErrorThresholdPercentage }},
	{"circuitBreaker.forceOpen", func(h *config.HystrixProperties) any { return &h.CircuitBreaker.ForceOpen }},
	{"circuitBreaker.forceClosed", func(h *config.HystrixProperties) any { return &h.CircuitBreaker.ForceClosed }},
	{"metrics.rollingStats.timeInMilliseconds", func(h *config.HystrixProperties) any { return &h.Metrics.RollingStats.Millis }},
	{"metrics.rollingStats.numBuckets", func(h *config.HystrixProperties) any { return &h.Metrics.RollingStats.NumBuckets }},
	{"metrics.rollingPercentile.enabled", func(h *config.HystrixProperties) any { return &h.Metrics.RollingPercentile.Enabled }},
	{"metrics.rollingPercentile.timeInMilliseconds", func(h *config.HystrixProperties) any { return &h.Metrics.RollingPercentile.Millis }},
	{"metrics.rollingPercentile.numBuckets", func(h *config.HystrixProperties) any { return &h.Metrics.RollingPercentile.NumBuckets }},
	{"metrics.rollingPercentile.bucketSize", func(h *config.HystrixProperties) any { return &h.Metrics.RollingPercentile.BucketSize }},
	{"metrics.healthSnapshot.intervalInMilliseconds", func(h *config.HystrixProperties) any { return &h.Metrics.HealthSnapshot.IntervalMillis }},
	{"execution.timeout.enabled", func(h *config.HystrixProperties) any { return &h.Execution.Timeout.Enabled }},
	{"execution.isolation.strategy", func(h *config.HystrixProperties) any { return &h.Execution.Isolation.Strategy }},
	{"execution.isolation.semaphore.maxConcurrentRequests", func(h *config.HystrixProperties) any {
		return &h.Execution.Isolation.Semaphore.MaxConcurrentRequests
	}},
	{"execution.isolation.thread.timeoutInMilliseconds", func(h *config.HystrixProperties) any { return &h.Execution.Isolation.Thread.TimeoutMillis }},
	{"fallback.enabled", func(h *config.HystrixProperties) any { return &h.Fallback.Enabled }},
	{"fallback.isolation.semaphore.maxConcurrentRequests", func(h *config.HystrixProperties) any {
		return &h.Fallback.Isolation.Semaphore.MaxConcurrentRequests
	}},
}

func text(v any) string {
	switch v := v.(type) {
	case *bool:
		return strconv.FormatBool(*v)
	case *int:
		return strconv.Itoa(*v)
	}
	return *v.(*string)
}

// set reads a value as Hystrix does.
func set(to any, value string) error {
	switch to := to.(type) {
	case *bool:
		switch strings.ToLower(value) { // as Archaius, and YAML before 1.2
		case "true", "t", "yes", "y", "on":
			*to = true
		case "false", "f", "no", "n", "off":
			*to = false
		default:
			return fmt.Errorf("%q is neither true nor false", value)
		}
	case *int:
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is no whole number", value)
		}
		*to = int(n)
	case *string:
		*to = value
	}
	return nil
}

// settle puts properties that no breaker could have back to their defaults; said is called for each.
func settle(h *config.HystrixProperties, said func(path, message string)) {
	defaults := config.HystrixDefaults()
	back := map[string]bool{} // groups of properties that must fit one another
	h.Check(func(field, message, _ string) {
		said(field, message)
		switch {
		case strings.HasPrefix(field, "metrics.rollingPercentile."):
			back["metrics.rollingPercentile."] = true
		case strings.HasPrefix(field, "metrics."):
			back["metrics.rollingStats."], back["metrics.healthSnapshot."] = true, true
		default:
			back[field] = true
		}
	})
	for _, p := range properties {
		for group := range maps.Keys(back) {
			if strings.HasPrefix(p.path, group) && p.path != "metrics.rollingPercentile.enabled" {
				if set(p.of(h), text(p.of(&defaults))) != nil {
					panic("migrate: a default is no value of its property: " + p.path)
				}
			}
		}
	}
}
