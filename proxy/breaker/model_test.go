package breaker

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// model is a breaker as slow and plain as can be: it remembers everything and counts again for each question.
type model struct {
	s       Settings
	ended   []entry // of closed commands, and notes
	began   []entry // of admitted commands; n is how many ran then
	healthy struct {
		born  int64 // when the window began
		first int   // the first of ended that it counts
		seen  int64 // the last boundary that was judged
	}
	stats struct {
		born         int64
		first, peaks int
	}
	status                  string // closed, open, half
	openedAt, probedAt      int64
	probe                   *command
	running, falling        int
	transitions             [ReasonCount]uint64
	opened, closed, refused int
	rounded                 bool // floating point would have decided otherwise
}

type entry struct {
	at int64
	e  events
	n  int
}

// command is a ticket as the model sees it.
type command struct {
	ticket   Ticket
	events   events
	admitted bool
	falling  bool
}

func newModel(s Settings) *model { return &model{s: s, status: "closed"} }

func (m *model) sees() State {
	switch {
	case !m.s.Enabled:
		return Disabled
	case m.s.ForceOpen:
		return ForcedOpen
	case m.s.ForceClosed:
		return ForcedClosed
	}
	return map[string]State{"closed": Closed, "open": Open, "half": HalfOpen}[m.status]
}

func (m *model) goes(status string, r Reason) {
	before := m.sees()
	m.status = status
	if m.sees() != before || r == ProbeOverdue && before == HalfOpen {
		m.transitions[r]++
	}
}

// window counts the health's window that ends at the boundary.
func (m *model) window(edge int64) (total, errors uint64) {
	i := int64(m.s.HealthInterval)
	from := edge - int64(m.s.RollingWindow)/i*i
	for _, x := range m.ended[m.healthy.first:] {
		if x.at < from || x.at >= edge {
			continue
		}
		for _, e := range []Event{Success, Failure, Timeout, ThreadPoolRejected, SemaphoreRejected} {
			if x.e.has(e) {
				total++
				if e != Success {
					errors++
				}
			}
		}
	}
	return total, errors
}

// until judges every boundary up to the instant.
func (m *model) until(now int64) {
	for at := m.healthy.seen + int64(m.s.HealthInterval); at <= now; at += int64(m.s.HealthInterval) {
		m.healthy.seen = at
		total, errors := m.window(at)
		if total >= uint64(m.s.RequestVolumeThreshold) && (100*errors >= uint64(m.s.ErrorThresholdPercentage)*total) != (floating(errors, total) >= m.s.ErrorThresholdPercentage) {
			m.rounded = true
		}
		if m.status == "closed" && m.s.Enabled && total >= uint64(m.s.RequestVolumeThreshold) && 100*errors >= uint64(m.s.ErrorThresholdPercentage)*total {
			m.goes("open", ErrorThreshold)
			m.openedAt = at
			m.opened++
		}
	}
}

func (m *model) admit(c *command, now int64) Verdict {
	probe := false
	switch m.sees() {
	case ForcedOpen:
		c.events = set(ShortCircuited)
		return Refused
	case Open:
		probe = now-m.openedAt > int64(m.s.SleepWindow)
	case HalfOpen:
		wait := int64(m.s.SleepWindow)
		if m.s.TimeoutEnabled && int64(m.s.Timeout) > wait {
			wait = int64(m.s.Timeout)
		}
		probe = now-m.probedAt > wait
	}
	if (m.sees() == Open || m.sees() == HalfOpen) && !probe {
		c.events = set(ShortCircuited)
		m.refused++
		return Refused
	}
	if m.s.Strategy == Semaphore && m.running >= m.s.MaxConcurrent {
		c.events = set(SemaphoreRejected)
		return Throttled
	}
	if probe {
		why := SleepWindowOver
		if m.status == "half" {
			why = ProbeOverdue
		}
		m.goes("half", why)
		m.probe, m.probedAt = c, now
	}
	m.running++
	m.began = append(m.began, entry{at: now, n: m.running})
	c.admitted = true
	return Admitted
}

func (m *model) end(c *command, o Outcome, now int64) bool {
	if !c.admitted || c.events&decided != 0 {
		return false
	}
	c.events |= set(o.event())
	m.probed(c, o, now)
	return true
}

func (m *model) probed(c *command, o Outcome, now int64) {
	if m.probe != c {
		return
	}
	m.probe = nil
	if o == Succeeded || o == ClientError {
		m.goes("closed", ProbeSucceeded)
		m.healthy.born, m.healthy.seen, m.healthy.first = now, now, len(m.ended)
		m.closed++
		return
	}
	m.openedAt = now
	m.goes("open", map[Outcome]Reason{Failed: ProbeFailed, TimedOut: ProbeTimedOut, PoolRejected: ProbeRejected, Abandoned: ProbeAbandoned}[o])
}

func (m *model) fallback(c *command) Grant {
	switch {
	case c.events&wanting == 0 || c.falling || c.events&fallen != 0:
		return FallbackUncalled
	case !m.s.FallbackEnabled:
		c.events |= set(FallbackDisabled)
		return FallbackOff
	case m.falling >= m.s.FallbackMaxConcurrent:
		c.events |= set(FallbackRejection)
		return FallbackThrottled
	}
	c.falling = true
	m.falling++
	return FallbackGranted
}

func (m *model) close(c *command, now int64) {
	m.probed(c, Abandoned, now) // no outcome was reported, or it would be the probe no longer
	if c.events&terminal == 0 {
		switch {
		case c.falling || c.events == 0:
			c.events |= set(Cancelled)
		case m.s.FallbackEnabled:
			c.events |= set(FallbackMissing)
		default:
			c.events |= set(FallbackDisabled)
		}
	}
	if c.falling {
		m.falling--
	}
	if c.admitted {
		m.running--
	}
	m.ended = append(m.ended, entry{at: now, e: c.events})
}

func (m *model) configure(s Settings, now int64) {
	before := m.sees()
	old := m.s
	m.s = s
	if !s.Enabled {
		m.status, m.probe = "closed", nil
	}
	if m.sees() != before {
		m.transitions[Reconfigured]++
	}
	if s.RollingWindow != old.RollingWindow || s.HealthInterval != old.HealthInterval {
		m.healthy.born, m.healthy.seen, m.healthy.first = now, now, len(m.ended)
	}
	if s.RollingWindow != old.RollingWindow || s.RollingBuckets != old.RollingBuckets {
		m.stats.born, m.stats.first, m.stats.peaks = now, len(m.ended), len(m.began)
	}
}

// look says what a snapshot should say.
func (m *model) look(now int64) (s Snapshot) {
	s.State = m.sees()
	s.Open = s.State == Open || s.State == HalfOpen || s.State == ForcedOpen
	s.Requests, s.Errors = m.window(m.healthy.seen)
	if s.Requests > 0 {
		s.ErrorPercentage = int(100 * s.Errors / s.Requests)
	}
	s.Active, s.Fallbacks, s.Transitions = m.running, m.falling, m.transitions
	size := int64(m.s.RollingWindow) / int64(m.s.RollingBuckets)
	edge := m.stats.born + (now-m.stats.born)/size*size
	inWindow := func(x entry) bool { return x.at >= edge-int64(m.s.RollingWindow) && x.at < edge }
	for i, x := range m.ended {
		for e := range EventCount {
			n := uint64(0)
			if x.e.has(e) {
				n = 1
			}
			if e == ExceptionThrown && x.e&set(BadRequest, FallbackFailure, FallbackDisabled, FallbackMissing, FallbackRejection) != 0 {
				n = 1
			}
			s.Total[e] += n
			if i >= m.stats.first && inWindow(x) {
				s.Rolling[e] += n
			}
		}
	}
	for i, x := range m.began {
		if i >= m.stats.peaks && inWindow(x) {
			s.Rolling[CommandMaxActive] = max(s.Rolling[CommandMaxActive], uint64(x.n))
		}
	}
	return s
}

func TestAgainstModel(t *testing.T) {
	var opened, closed, refused int
	for seed := range uint64(200) {
		m := schedule(t, seed)
		opened, closed, refused = opened+m.opened, closed+m.closed, refused+m.refused
		if t.Failed() {
			return
		}
	}
	if opened < 700 || closed < 300 || refused < 3000 {
		t.Errorf("the schedules do not reach much: opened %d times, closed %d times, refused %d times", opened, closed, refused)
	}
}

// schedule runs one random schedule through the breaker and the model.
func schedule(t *testing.T, seed uint64) *model {
	r := rand.New(rand.NewPCG(seed, 1))
	s := randomSettings(r)
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	b, m := New(s, 0), newModel(s)
	var open []*command
	now := int64(0)
	bad := r.Float64() // how often executions fail; it changes
	check := func(step int, what string, got, want any) {
		if got != want {
			t.Fatalf("seed %d, step %d at %d ms: %s is %v, want %v\n%+v", seed, step, now/ms, what, got, want, m.s)
		}
	}
	for step := range 600 {
		if r.IntN(3) > 0 {
			now += r.Int64N(12) * ms
		}
		if r.IntN(100) == 0 {
			now += r.Int64N(2000) * ms
		}
		if r.IntN(60) == 0 {
			bad = r.Float64() * r.Float64()
		}
		m.until(now)
		var c *command
		i := 0
		if len(open) > 0 {
			i = r.IntN(len(open))
			c = open[i]
		}
		switch p := r.IntN(100); {
		case c == nil || p < 30 && len(open) < 12:
			c = new(command)
			open = append(open, c)
			want := m.admit(c, now)
			check(step, "the verdict", b.Admit(&c.ticket, now), want)
			check(step, "the probe", c.ticket.isProbe(), m.probe == c)
		case p < 60:
			o := Outcome(r.IntN(int(PoolRejected) + 1))
			if r.Float64() > bad {
				o = Succeeded
			}
			want := m.end(c, o, now)
			check(step, "taking the outcome", c.ticket.End(o, now), want)
		case p < 70:
			want := m.fallback(c)
			check(step, "the grant", c.ticket.Fallback(), want)
		case p < 75:
			ok := r.IntN(2) == 0
			m.endFallback(c, ok)
			c.ticket.EndFallback(ok)
		case p < 97:
			if r.IntN(2) == 0 {
				o := Outcome(r.IntN(int(PoolRejected) + 1))
				m.end(c, o, now)
				c.ticket.Finish(o, now)
			}
			m.close(c, now)
			c.ticket.Close(now)
			c.ticket.Close(now)
			check(step, "taking an outcome after the end", c.ticket.End(Failed, now), false)
			open = append(open[:i], open[i+1:]...)
		case p < 98:
			m.ended = append(m.ended, entry{at: now, e: set(Collapsed)})
			b.note(Collapsed, now)
		default:
			s := randomSettings(r)
			if r.IntN(2) == 0 { // the windows stay
				s.RollingWindow, s.RollingBuckets, s.HealthInterval = m.s.RollingWindow, m.s.RollingBuckets, m.s.HealthInterval
			}
			m.configure(s, now)
			b.Configure(s, now)
		}
		compare(t, fmt.Sprintf("seed %d, step %d at %d ms", seed, step, now/ms), b, m, now)
	}
	return m
}

func compare(t *testing.T, where string, b *Breaker, m *model, now int64) {
	t.Helper()
	var got Snapshot
	b.Snapshot(&got, now)
	want := m.look(now)
	f := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Fatalf("%s: %s is %v, want %v\n%+v", where, what, got, want, m.s)
		}
	}
	f("state", got.State, want.State)
	f("open", got.Open, want.Open)
	f("requests", got.Requests, want.Requests)
	f("errors", got.Errors, want.Errors)
	f("error percentage", got.ErrorPercentage, want.ErrorPercentage)
	f("active", got.Active, want.Active)
	f("fallbacks", got.Fallbacks, want.Fallbacks)
	f("the window's counts", got.Rolling, want.Rolling)
	f("all counts", got.Total, want.Total)
	f("transitions", got.Transitions, want.Transitions)
	if got.State == Open {
		f("time to the next probe", got.NextProbe, max(0, m.openedAt+int64(m.s.SleepWindow)+1-now))
	}
}

func randomSettings(r *rand.Rand) Settings {
	pick := func(list ...int) int { return list[r.IntN(len(list))] }
	s := Defaults()
	s.Enabled = r.IntN(12) > 0
	s.ForceOpen = r.IntN(20) == 0
	s.ForceClosed = r.IntN(20) == 0
	s.RequestVolumeThreshold = pick(1, 1, 2, 3, 5, 8)
	s.ErrorThresholdPercentage = pick(20, 29, 34, 40, 50, 50, 57, 75, 100)
	s.SleepWindow = time.Duration(pick(0, 10, 30, 50, 100, 200)) * time.Millisecond
	s.RollingWindow = time.Duration(pick(100, 200, 300, 500)) * time.Millisecond
	s.RollingBuckets = pick(1, 2, 5, 10)
	s.HealthInterval = time.Duration(pick(10, 15, 20, 50, 70, 100)) * time.Millisecond
	s.PercentileWindow, s.PercentileBuckets, s.PercentileBucketSize = time.Second, 10, 5
	s.Strategy = Strategy(r.IntN(4) / 3)
	s.MaxConcurrent = pick(0, 1, 2, 4, 10)
	s.Timeout = time.Duration(pick(10, 50, 100, 1000)) * time.Millisecond
	s.TimeoutEnabled = r.IntN(3) > 0
	s.FallbackEnabled = r.IntN(4) > 0
	s.FallbackMaxConcurrent = pick(0, 1, 2, 10)
	return s
}
