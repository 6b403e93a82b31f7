package migrate

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-mesh/outrider/config"
)

// lost are the command properties that a proxy has no use for, with what is so instead.
var lost = map[string]string{
	"requestCache.enabled":                               "nothing is cached",
	"requestLog.enabled":                                 "the access log has every request",
	"execution.isolation.thread.interruptOnTimeout":      "what ran into the timeout is always given up",
	"execution.isolation.thread.interruptOnFutureCancel": "what nobody waits for is always given up",
	"execution.isolation.thread.interruptOnCancel":       "what nobody waits for is always given up",
	poolOverride: "", // read, but for the pool only
}

const poolOverride = "threadPoolKeyOverride"

// poolDefaults are the properties of a thread pool that decide how much may run at once.
var poolDefaults = map[string]string{
	"coreSize": "10", "maximumSize": "10", "allowMaximumSizeToDivergeFromCoreSize": "false", "maxQueueSize": "-1", "queueSizeRejectionThreshold": "5",
}

// hystrixFile is what a file says of Hystrix, by key and then property; "default" is a key too.
type hystrixFile struct {
	*translation
	commands, pools map[string]map[string]entry
	keys            []string // of commands, in the order in which they come up
	used            map[string][]string
	taken           map[string]bool // properties that a command has, by their keys
}

// ErrNothing is returned for a file that says nothing of the library.
var ErrNothing = errors.New("nothing to import")

// Hystrix translates an application.properties (or Spring's application.yml) with Hystrix's properties.
func Hystrix(name string, data []byte, o Options) (Result, error) {
	f := hystrixFile{translation: &translation{Options: o, file: name}, commands: map[string]map[string]entry{}, pools: map[string]map[string]entry{}, used: map[string][]string{}, taken: map[string]bool{}}
	entries, err := f.read(name, data)
	if err != nil {
		return Result{}, err
	}
	found := false
	for _, e := range entries {
		if rest, ok := strings.CutPrefix(e.key, "hystrix."); ok {
			found = true
			f.take(rest, e)
		} else if why := beside(e.key); why != "" {
			f.note(e.line, "%s does not carry over: %s", e.key, why)
		}
	}
	if !found {
		return Result{}, fmt.Errorf("%w: the file has no property of the tree \"hystrix\"", ErrNothing)
	}
	for _, key := range sortedKeys(o.Hosts) { // a command may have no property of its own; a client's methods may
		if f.commands[key] == nil && !slices.ContainsFunc(f.keys, func(k string) bool { return strings.HasPrefix(k, key+"#") }) {
			f.keys = append(f.keys, key)
		}
	}
	for _, key := range f.keys {
		f.command(key)
	}
	if len(f.keys) == 0 {
		f.note(0, "the file names no command: name each by --host KEY=HOST, and it takes the defaults of the file")
	} else {
		f.untaken()
	}
	for _, pool := range sortedKeys(f.pools) {
		f.pool(pool)
	}
	return f.result(), nil
}

// take files one property.
func (f *hystrixFile) take(rest string, e entry) {
	group, rest, _ := strings.Cut(rest, ".")
	switch group {
	case "command":
		f.takeCommand(unbracketed(rest), e)
	case "threadpool":
		rest = unbracketed(rest)
		i := strings.LastIndexByte(rest, '.')
		switch {
		case strings.HasSuffix(rest[:max(i, 0)], ".metrics.rollingStats"):
			f.note(e.line, "%s does not carry over: a command's own window is its pool's", e.key)
		case i <= 0:
			f.unknown(e, "")
		case e.unknown:
		default:
			f.put(f.pools, rest[:i], rest[i+1:], e)
		}
	case "collapser":
		f.note(e.line, "%s does not carry over: requests are not batched", e.key)
	case "config", "dashboard", "metrics", "plugin", "shareSecurityContext", "share-security-context", "stream", "timer":
		f.note(e.line, "%s does not carry over: it is of the library itself", e.key)
	default:
		f.note(e.line, "%s does not carry over: it is of the library itself, or stands in the wrong place (hystrix.command.KEY, hystrix.threadpool.KEY)", e.key)
	}
}

// takeCommand files a property of a command; KEY alone, with nothing, names it.
func (f *hystrixFile) takeCommand(rest string, e entry) {
	key, path, ok := cutCommand(rest)
	switch {
	case ok && e.unknown && key != "default":
		f.put(f.commands, key, "", e)
	case ok && e.unknown:
		return
	case ok:
		f.put(f.commands, key, path, e)
	case e.value == "" && !e.unknown && rest != "" && !slices.ContainsFunc(properties, func(p property) bool {
		group, _, _ := strings.Cut(p.path, ".")
		return strings.Contains(rest, "."+group)
	}):
		if key = rest; key != "default" {
			f.put(f.commands, key, "", e)
		}
	default:
		f.unknown(e, rest)
		return
	}
	if key != "default" && !slices.Contains(f.keys, key) {
		f.keys = append(f.keys, key)
	}
	switch why := lost[path]; {
	case why != "":
		f.note(e.line, "%s does not carry over: %s", e.key, why)
	case path == poolOverride && key == "default":
		f.note(e.line, "%s does not carry over: it is of single commands only, in Hystrix too", e.key)
	}
}

// unknown says that a property is none, and how it is spelt where only its spelling is at fault: Hystrix has none of Spring's freedom.
func (f *hystrixFile) unknown(e entry, rest string) {
	for _, p := range properties {
		if strings.HasSuffix(bare(rest), "."+bare(p.path)) {
			f.wrong(e.line, "%s: Hystrix has no such property, it is spelt %s", e.key, p.path)
			return
		}
	}
	f.wrong(e.line, "%s: Hystrix has no such property", e.key)
}

// unbracketed is KEY.property of [KEY].property, which Spring allows for keys with special characters.
func unbracketed(rest string) string {
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		if key, path, ok := strings.Cut(inner, "]"); ok {
			return key + path
		}
	}
	return rest
}

// beside says what becomes of a property of another library that decides with Hystrix's; empty where it is nothing to do with it.
func beside(key string) string {
	key = bare(key)
	starts := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
	}
	switch {
	case key == "@next", starts("spring.config.import"):
		return "that file may have another word on all of it; import it, too"
	case starts("feign.hystrix.", "feign.circuitbreaker.", "spring.cloud.circuitbreaker.", "spring.cloud.openfeign.circuitbreaker."):
		return "every request to a host with a CircuitBreaker goes through it"
	case starts("zuul.ribbonisolationstrategy", "zuul.threadpool.", "zuul.semaphore."), starts("zuul.") && strings.Contains(key, ".semaphore."):
		return "bound the requests under way by execution.isolation of the CircuitBreaker"
	case starts("ribbon."), strings.Contains(key, ".ribbon."):
		return "timeouts and retries are a VirtualService's, balancing and connections a DestinationRule's"
	}
	return ""
}

func (f *hystrixFile) put(to map[string]map[string]entry, key, path string, e entry) {
	if to[key] == nil {
		to[key] = map[string]entry{}
	}
	to[key][path] = e
}

// cutCommand cuts KEY.property where the property begins: a key may have dots itself.
func cutCommand(rest string) (key, path string, ok bool) {
	try := func(p string) {
		if k, fits := strings.CutSuffix(rest, "."+p); fits && k != "" && len(p) > len(path) {
			key, path, ok = k, p, true
		}
	}
	for _, p := range properties {
		try(p.path)
	}
	for p := range lost {
		try(p)
	}
	return key, path, ok
}

// lookup finds a property as Hystrix does: the command's own, else the default's. One that cannot be read is as one that is not there.
func (f *hystrixFile) lookup(of map[string]map[string]entry, key, path string, read func(value string) error) (entry, bool) {
	for _, k := range []string{key, "default"} {
		e, ok := of[k][path]
		if !ok {
			continue
		}
		f.taken[e.key] = true
		err := read(e.value)
		if err == nil {
			return e, true
		}
		f.wrong(e.line, "%s: %v; the default is taken", e.key, err)
	}
	return entry{}, false
}

// untaken names the defaults that no command of the file has, and what decides nothing in Hystrix either.
func (f *hystrixFile) untaken() {
	for path, e := range f.commands["default"] {
		if _, said := lost[path]; !said && !f.taken[e.key] {
			f.note(e.line, "%s carries over to no command that the file names", e.key)
		}
	}
	for pool, all := range f.pools {
		for property, e := range all {
			switch {
			case f.taken[e.key] || poolDefaults[property] == "":
			case len(f.used[pool]) == 0 && pool != "default": // the pool is named as a whole
			case property == "maximumSize" && len(f.used[pool]) > 0:
				f.note(e.line, "%s does not carry over: without allowMaximumSizeToDivergeFromCoreSize it decides nothing, in Hystrix too", e.key)
			case property == "queueSizeRejectionThreshold" && len(f.used[pool]) > 0:
				f.note(e.line, "%s does not carry over: without a maxQueueSize it decides nothing, in Hystrix too", e.key)
			default:
				f.note(e.line, "%s carries over to no command that the file names", e.key)
			}
		}
	}
}

// command translates one command.
func (f *hystrixFile) command(key string) {
	const semaphore = "execution.isolation.semaphore.maxConcurrentRequests"
	b := breaker{key: key, hystrix: config.HystrixDefaults()}
	strategy := f.strategy(key)
	for _, e := range f.commands[key] {
		if b.line == 0 || e.line < b.line {
			b.line = e.line
		}
	}
	from := map[string]entry{}
	for _, p := range properties {
		if p.path == isolation || p.path == semaphore && strategy == "THREAD" {
			continue
		}
		if e, ok := f.lookup(f.commands, key, p.path, func(value string) error { return set(p.of(&b.hystrix), value) }); ok {
			from[p.path] = e
		}
	}
	settle(&b.hystrix, func(path, message string) {
		e := from[path]
		if e.key == "" { // it is the fault of what it must fit to
			for _, p := range properties {
				if other, ok := from[p.path]; ok && strings.HasPrefix(p.path, "metrics.") {
					e = other
				}
			}
		}
		f.wrong(e.line, "%s: %s: %s; the defaults are taken", key, path, message)
	})
	if strategy == "THREAD" {
		if e, ok := f.commands[key][semaphore]; ok {
			f.note(e.line, "%s does not carry over: with the strategy THREAD, its pool bounds the command", e.key)
		}
		f.bound(&b)
	}
	f.all = append(f.all, b)
}

const isolation = "execution.isolation.strategy"

// strategy is THREAD or SEMAPHORE.
func (f *hystrixFile) strategy(key string) string {
	strategy := "THREAD"
	e, ok := f.lookup(f.commands, key, isolation, func(value string) error {
		upper := strings.ToUpper(value)
		if upper != "THREAD" && upper != "SEMAPHORE" {
			return fmt.Errorf("%q is neither THREAD nor SEMAPHORE", value)
		}
		strategy = upper
		return nil
	})
	if ok && strategy == "SEMAPHORE" && e.value != strategy {
		f.wrong(e.line, "%s: Hystrix takes %q for THREAD, for it knows only SEMAPHORE; SEMAPHORE is taken here", e.key, e.value)
	}
	return strategy
}

// bound makes the bound of a command's thread pool one of its semaphore: so much ran or waited at once.
func (f *hystrixFile) bound(b *breaker) {
	client, _, _ := strings.Cut(b.key, "#")
	pool := "default"
	for _, name := range []string{f.commands[b.key][poolOverride].value, b.key, client} {
		if name != "" && f.pools[name] != nil {
			pool = name
			break
		}
	}
	f.used[pool] = append(f.used[pool], b.key)
	number := func(property string) int {
		n, _ := strconv.Atoi(poolDefaults[property])
		f.lookup(f.pools, pool, property, func(value string) error { return set(&n, value) })
		return n
	}
	size, queue := number("coreSize"), 0
	most, rejected := size, 0
	if n := number("maxQueueSize"); n > 0 {
		rejected = max(number("queueSizeRejectionThreshold"), 0)
		queue = min(n, rejected)
	}
	diverges := false
	f.lookup(f.pools, pool, "allowMaximumSizeToDivergeFromCoreSize", func(value string) error { return set(&diverges, value) })
	if diverges {
		e, _ := f.lookup(f.pools, pool, "maximumSize", func(value string) error { return set(&most, value) })
		switch {
		case queue > 0 && rejected == queue && most > size: // threads beyond coreSize are for when the queue is full, which it never is
			f.note(e.line, "%s does not carry over: with a queueSizeRejectionThreshold up to maxQueueSize no thread beyond coreSize begins, in Hystrix too", e.key)
		default:
			size = max(size, most)
		}
	}
	b.hystrix.Execution.Isolation.Semaphore.MaxConcurrentRequests = max(size+queue, 0)
	if queue > 0 {
		b.comments = append(b.comments, fmt.Sprintf("A pool of %d threads with a queue of %d becomes %d requests at once.", size, queue, size+queue))
	} else if size != 10 {
		b.comments = append(b.comments, fmt.Sprintf("A pool of %d threads becomes %d requests at once.", size, size))
	}
}

// pool tells what of a pool did not carry over.
func (f *hystrixFile) pool(name string) {
	first, shared := 0, f.used[name]
	for property, e := range f.pools[name] {
		if first == 0 || e.line < first {
			first = e.line
		}
		switch {
		case property == "keepAliveTimeMinutes":
			f.note(e.line, "%s does not carry over: there are no threads", e.key)
		case poolDefaults[property] == "":
			spelling := ""
			for spelt := range poolDefaults {
				if bare(spelt) == bare(property) {
					spelling = ", it is spelt " + spelt
				}
			}
			f.wrong(e.line, "%s: Hystrix has no such property%s", e.key, spelling)
		}
	}
	switch {
	case name == "default":
	case len(shared) == 0:
		f.note(first, "the pool %s (%s) carries over to no command: none of the strategy THREAD has its name or names it by %s", name, strings.Join(sortedKeys(f.pools[name]), ", "), poolOverride)
	case len(shared) > 1:
		f.note(first, "the pool %s was shared by %s: each of them may have so many requests at once now", name, strings.Join(shared, ", "))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
