package breaker

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The real Hystrix, in its own virtual time, answers for schedules of steps (testdata/oracle says which, and how).

// jarsVariable names the folder that Hystrix's jars are in, or are put into where Maven is at hand.
const jarsVariable = "OUTRIDER_HYSTRIX_JARS"

// oracle returns the command that answers for steps on its standard input.
func oracle(t *testing.T) func(steps string) []string {
	t.Helper()
	jars := os.Getenv(jarsVariable)
	if jars == "" {
		t.Skipf("%s is not set: the folder with Hystrix 1.5.12's jars, or for them", jarsVariable)
	}
	jars, err := filepath.Abs(jars)
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"java", "javac"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		c, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if out, err := exec.CommandContext(c, name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(jars, "hystrix-core-1.5.12.jar")); err != nil {
		if _, err := exec.LookPath("mvn"); err != nil {
			t.Skipf("%s has no hystrix-core-1.5.12.jar, and there is no mvn to get it", jars)
		}
		run("mvn", "-q", "-B", "-f", "testdata/oracle/pom.xml", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+jars)
	}
	classes := t.TempDir()
	sources, err := filepath.Glob("testdata/oracle/oracle/*.java")
	if err != nil || len(sources) != 3 {
		t.Fatalf("%v, %v", sources, err)
	}
	everything := classes + string(os.PathListSeparator) + filepath.Join(jars, "*")
	run("javac", append([]string{"-nowarn", "-cp", everything, "-d", classes}, sources...)...)
	return func(steps string) []string {
		t.Helper()
		c, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(c, "java", "-cp", everything, "oracle.Main")
		cmd.Stdin = strings.NewReader(steps)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("java: %v\n%s", err, errs.Bytes())
		}
		lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if want := strings.Count(steps, "\n"); len(lines) != want {
			t.Fatalf("Hystrix answers %d of %d steps\n%s", len(lines), want, errs.Bytes())
		}
		return lines
	}
}

// decider is what the naive model and the breaker have in common.
type decider interface {
	until(now int64)
	admit(c *command, now int64) Verdict
	end(c *command, o Outcome, now int64) bool
	fallback(c *command) Grant
	endFallback(c *command, ok bool)
	close(c *command, now int64)
	configure(s Settings, now int64)
}

// real is the breaker as a decider; it keeps the events in the command too, to compare them.
type real struct{ b *Breaker }

func (r real) until(now int64)                           { r.b.Tick(nil, now) }
func (r real) admit(c *command, now int64) Verdict       { return r.b.Admit(&c.ticket, now) }
func (r real) end(c *command, o Outcome, now int64) bool { return c.ticket.End(o, now) }
func (r real) fallback(c *command) Grant                 { return c.ticket.Fallback() }
func (r real) endFallback(c *command, ok bool)           { c.ticket.EndFallback(ok) }
func (r real) configure(s Settings, now int64)           { r.b.Configure(s, now) }

func (r real) close(c *command, now int64) {
	var before, after Snapshot
	r.b.Snapshot(&before, now)
	c.ticket.Close(now)
	r.b.Snapshot(&after, now)
	for e := range EventCount {
		if after.Total[e] != before.Total[e] && e != ExceptionThrown {
			c.events |= set(e)
		}
	}
}

// player runs commands as Hystrix does: an execution is given up at its timeout, an error is followed by the fallback.
type player struct {
	decider
	s        Settings
	falls    bool // commands have a fallback
	commands []*played
}

type played struct {
	command
	phase    string // run, fall or done
	deadline int64  // of the execution, while it runs
}

// advance lets the timeouts happen that are due.
func (p *player) advance(now int64) {
	for {
		var first *played
		for _, c := range p.commands { // the first to be begun, of those with the same deadline
			if c.phase == "run" && c.deadline != 0 && c.deadline <= now && (first == nil || c.deadline < first.deadline) {
				first = c
			}
		}
		if first == nil {
			break
		}
		p.until(first.deadline)
		p.end(first, TimedOut, first.deadline)
	}
	p.until(now)
}

func (p *player) begin(now int64) *played {
	c := &played{phase: "run"}
	p.commands = append(p.commands, c)
	if p.admit(&c.command, now) != Admitted {
		p.fall(c, now)
	} else if p.s.TimeoutEnabled {
		c.deadline = now + int64(p.s.Timeout)
	}
	return c
}

func (p *player) end(c *played, o Outcome, now int64) {
	p.decider.end(&c.command, o, now)
	p.fall(c, now)
}

// fall runs the fallback where there may be one, and ends the command where none runs.
func (p *player) fall(c *played, now int64) {
	if p.falls && p.fallback(&c.command) == FallbackGranted {
		c.phase = "fall"
		return
	}
	p.finish(c, now)
}

func (p *player) finish(c *played, now int64) {
	p.close(&c.command, now)
	c.phase = "done"
}

func (m *model) endFallback(c *command, ok bool) {
	if !c.falling || c.events&fallen != 0 {
		return
	}
	if ok {
		c.events |= set(FallbackSuccess)
	} else {
		c.events |= set(FallbackFailure)
	}
}

// step is one line for the oracle.
type step struct {
	at   int64 // milliseconds
	key  string
	verb string
	id   int // of the command, where the verb needs one
	set  func(*Settings)
	args string
}

func (s step) line() string {
	switch s.verb {
	case "set", "new":
		return fmt.Sprintf("%d %s %s %s\n", s.at, s.key, s.verb, s.args)
	case "look":
		return fmt.Sprintf("%d %s look\n", s.at, s.key)
	}
	return fmt.Sprintf("%d %s %s %d\n", s.at, s.key, s.verb, s.id)
}

// do carries the step out.
func (p *player) do(s step) {
	now := s.at * ms
	switch s.verb {
	case "set":
		s.set(&p.s)
		p.configure(p.s, now)
	case "go":
		p.begin(now)
	case "ok":
		p.end(p.commands[s.id], Succeeded, now)
	case "fail":
		p.end(p.commands[s.id], Failed, now)
	case "bad":
		p.end(p.commands[s.id], ClientError, now)
	case "reject":
		p.end(p.commands[s.id], PoolRejected, now)
	case "fallback-ok", "fallback-fail":
		p.endFallback(&p.commands[s.id].command, s.verb == "fallback-ok")
		p.finish(p.commands[s.id], now)
	case "cancel":
		p.finish(p.commands[s.id], now)
	}
}

// properties writes the settings as steps that set Hystrix's properties.
func properties(key string, s Settings) (list []step) {
	for _, p := range []struct {
		name  string
		value any
	}{
		{"circuitBreaker.enabled", s.Enabled},
		{"circuitBreaker.requestVolumeThreshold", s.RequestVolumeThreshold},
		{"circuitBreaker.errorThresholdPercentage", s.ErrorThresholdPercentage},
		{"circuitBreaker.sleepWindowInMilliseconds", s.SleepWindow.Milliseconds()},
		{"circuitBreaker.forceOpen", s.ForceOpen},
		{"circuitBreaker.forceClosed", s.ForceClosed},
		{"metrics.rollingStats.timeInMilliseconds", s.RollingWindow.Milliseconds()},
		{"metrics.rollingStats.numBuckets", s.RollingBuckets},
		{"metrics.healthSnapshot.intervalInMilliseconds", s.HealthInterval.Milliseconds()},
		{"execution.isolation.strategy", s.Strategy},
		{"execution.isolation.semaphore.maxConcurrentRequests", s.MaxConcurrent},
		{"execution.timeout.enabled", s.TimeoutEnabled},
		{"execution.isolation.thread.timeoutInMilliseconds", s.Timeout.Milliseconds()},
		{"fallback.enabled", s.FallbackEnabled},
		{"fallback.isolation.semaphore.maxConcurrentRequests", s.FallbackMaxConcurrent},
		{"requestCache.enabled", false},
		{"requestLog.enabled", false},
	} {
		list = append(list, step{key: key, verb: "set", args: fmt.Sprintf("%s %v", p.name, p.value), set: func(*Settings) {}})
	}
	return list
}

// script is a schedule for one breaker.
type script struct {
	key   string
	s     Settings
	falls bool
	steps []step
}

// ask lets Hystrix run all scripts side by side, and returns its answers to each script's own steps.
func ask(t *testing.T, run func(string) []string, scripts []*script) [][]string {
	t.Helper()
	type line struct {
		step
		script, number int
	}
	var lines []line
	for i, sc := range scripts {
		first := append(properties(sc.key, sc.s), step{key: sc.key, verb: "new", args: strconv.FormatBool(sc.falls)})
		for _, s := range first {
			lines = append(lines, line{s, i, -1})
		}
		for n, s := range sc.steps {
			lines = append(lines, line{s, i, n})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.at, b.at) })
	var text strings.Builder
	for _, l := range lines {
		text.WriteString(l.line())
	}
	answers := make([][]string, len(scripts))
	for i, sc := range scripts {
		answers[i] = make([]string, len(sc.steps))
	}
	for i, a := range run(text.String()) {
		if l := lines[i]; l.number >= 0 {
			answers[l.script][l.number] = a
		}
	}
	return answers
}

// tell writes what a breaker makes of a step as the oracle does.
func (p *player) tell(b *Breaker, s step) string {
	switch s.verb {
	case "set":
		return "-"
	case "look":
		var sn Snapshot
		b.Snapshot(&sn, s.at*ms)
		allows := !sn.Open
		if sn.State == Open {
			allows = sn.NextProbe == 0
		}
		var counts []string
		sn.Rolling[ExceptionThrown] -= sn.Rolling[FallbackDisabled] // which 1.5.12 does not know
		most := sn.Rolling[CommandMaxActive]
		sn.Rolling[CommandMaxActive] = 0
		for e, n := range sn.Rolling {
			if Event(e) != FallbackDisabled {
				counts = append(counts, strconv.FormatUint(n, 10))
			}
		}
		return fmt.Sprintf("%v %v %d %d %d %d %d %s", sn.Open, allows, sn.Requests, sn.Errors, floating(sn.Errors, sn.Requests), sn.Active, most, strings.Join(counts, ","))
	}
	c := p.commands[s.id]
	return c.phase + " " + c.told()
}

// told lists the events in the order in which they happen, which is Hystrix's order of types too.
func (c *played) told() string {
	e := c.events | events(c.ticket.state.Load())&(1<<EventCount-1)
	var names []string
	for i := range EventCount {
		if e.has(i) && i != FallbackDisabled {
			names = append(names, i.String())
		}
	}
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ",")
}

// floating is Hystrix's error percentage.
func floating(errors, total uint64) int {
	if total == 0 {
		return 0
	}
	return int(float64(errors) / float64(total) * 100)
}

func TestAgainstHystrix(t *testing.T) {
	run := oracle(t)
	var scripts []*script
	left := 0
	for seed := uint64(0); len(scripts) < 200; seed++ {
		if sc := randomScript(seed); sc != nil {
			scripts = append(scripts, sc)
		} else {
			left++
		}
	}
	answers := ask(t, run, scripts)
	seen := map[State]int{}
	compared, refused, probes, trips := 0, 0, 0, uint64(0)
	for i, sc := range scripts {
		b := New(sc.s, 0)
		p := &player{decider: real{b}, s: sc.s, falls: sc.falls}
		for n, s := range sc.steps {
			p.advance(s.at * ms)
			p.do(s)
			got := p.tell(b, s)
			if got != answers[i][n] {
				t.Fatalf("%s, step %d: %s  here %s\nthere %s\n%+v\n%s", sc.key, n, s.line(), got, answers[i][n], sc.s, until(sc, n, answers[i]))
			}
			compared++
			if s.verb == "go" && strings.Contains(got, "short_circuited") {
				refused++
			}
			if s.verb == "go" && p.commands[s.id].ticket.isProbe() {
				probes++
			}
		}
		var sn Snapshot
		b.Snapshot(&sn, sc.steps[len(sc.steps)-1].at*ms)
		seen[sn.State]++
		trips += sn.Transitions[ErrorThreshold]
	}
	t.Logf("%d answers of %d schedules are equal: %d trips, %d refused, %d probes, ending in %v; %d schedules were left out, in which Hystrix's floating point decides", compared, len(scripts), trips, refused, probes, seen, left)
	if trips < 400 || refused < 4000 || probes < 800 {
		t.Error("the schedules do not reach much")
	}
}

// until writes the last steps up to the one that differs.
func until(sc *script, n int, answers []string) string {
	var b strings.Builder
	for i := max(0, n-25); i <= n; i++ {
		fmt.Fprintf(&b, "%-40s %s\n", strings.TrimSpace(sc.steps[i].line()), answers[i])
	}
	return b.String()
}

// TestHystrixHasItsDefects runs, in Hystrix, what the tests in defects_test.go run here: it does what must not be copied.
func TestHystrixHasItsDefects(t *testing.T) {
	run := oracle(t)
	var scripts []*script
	var checks []func(t *testing.T, answers []string)
	f := func(name string, change func(*Settings), steps string, want string) {
		sc := &script{key: fmt.Sprintf("defect%d", len(scripts)), s: unitSettings()}
		sc.s.TimeoutEnabled = false
		change(&sc.s)
		for _, line := range strings.Split(strings.TrimSpace(steps), "\n") {
			word := strings.Fields(line)
			st := step{key: sc.key, verb: word[1], set: func(*Settings) {}}
			st.at, _ = strconv.ParseInt(word[0], 10, 64)
			if len(word) > 2 {
				st.id, _ = strconv.Atoi(word[2])
			}
			sc.steps = append(sc.steps, st)
		}
		scripts = append(scripts, sc)
		checks = append(checks, func(t *testing.T, answers []string) {
			t.Run(name, func(t *testing.T) {
				if last := answers[len(answers)-1]; !strings.HasPrefix(last, want) {
					t.Errorf("Hystrix says %q, not %q: is it right after all?\n%s", last, want, strings.Join(answers, "\n"))
				}
			})
		})
	}
	as := func(*Settings) {}
	f("a stale success closes", as, `
		5 go 0
		10 go 1
		10 fail 1
		301 go 2
		310 ok 0
		311 look`, "false true")
	f("a stale failure opens", as, `
		5 go 0
		10 go 1
		10 fail 1
		301 go 2
		310 fail 0
		320 ok 2
		321 look`, "true false")
	f("an abandoned probe is for ever", as, `
		10 go 1
		10 fail 1
		301 go 2
		310 cancel 2
		100000 look`, "true false")
	f("a probe without permit is for ever", func(s *Settings) { s.MaxConcurrent = 1 }, `
		5 go 0
		10 go 1
		301 go 2
		310 cancel 0
		100000 go 3`, "done short_circuited")
	f("a probe's client error opens", as, `
		10 go 1
		10 fail 1
		301 go 2
		310 bad 2
		311 go 3`, "done short_circuited")
	f("a probe that is never heard of is for ever", as, `
		10 go 1
		10 fail 1
		301 go 2
		100000 go 3`, "done short_circuited")
	f("a disabled fallback is not counted", func(s *Settings) { s.FallbackEnabled = false }, `
		10 go 1
		10 fail 1`, "done failure")
	var hundred strings.Builder
	for i := range 100 {
		end := "ok"
		if i < 29 {
			end = "fail"
		}
		fmt.Fprintf(&hundred, "10 go %d\n10 %s %d\n", i, end, i)
	}
	f("29 of 100 is 28 %", func(s *Settings) { s.ErrorThresholdPercentage = 29 }, hundred.String()+"100 look", "false true 100 29 28")
	for i, answers := range ask(t, run, scripts) {
		checks[i](t, answers)
	}
}
