package breaker

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// randomScript makes a schedule with the help of the model, which knows where a known defect of Hystrix's would begin to
// matter: no step goes there. It returns nil where a percentage's rounding decided.
func randomScript(seed uint64) *script {
	r := rand.New(rand.NewPCG(seed, 3))
	s := scriptSettings(r)
	sc := &script{key: fmt.Sprintf("s%d", seed), s: s, falls: r.IntN(3) > 0}
	m := newModel(s)
	p := &player{decider: m, s: s, falls: sc.falls}
	at, bad := int64(0), r.Float64()
	for len(sc.steps) < 250 {
		switch r.IntN(10) {
		case 0, 1, 2, 3, 4:
			at += r.Int64N(15)
		case 5, 6:
			at += r.Int64N(120)
		case 7:
			if r.IntN(3) == 0 {
				at += r.Int64N(1500)
			}
		}
		if m.status == "half" && soonest(p)/ms < at {
			at = max(soonest(p)/ms, sc.steps[len(sc.steps)-1].at) // the probe's own timeout comes first
		}
		p.advance(at * ms)
		if r.IntN(40) == 0 {
			bad = r.Float64() * r.Float64()
		}
		if st, ok := randomStep(r, m, p, bad, at); ok {
			st.at, st.key = at, sc.key
			if st.verb == "go" {
				st.id = len(p.commands)
			}
			p.do(st)
			sc.steps = append(sc.steps, st, step{at: at, key: sc.key, verb: "look"})
		}
		if m.rounded {
			return nil
		}
	}
	return sc
}

// soonest returns the next timeout.
func soonest(p *player) int64 {
	first := int64(1 << 62)
	for _, c := range p.commands {
		if c.phase == "run" && c.deadline != 0 {
			first = min(first, c.deadline)
		}
	}
	return first
}

// randomStep draws a step; ok is false where Hystrix would do what it should not.
func randomStep(r *rand.Rand, m *model, p *player, bad float64, at int64) (s step, ok bool) {
	now := at * ms
	switch n := r.IntN(100); {
	case n < 50: // a command
		if state := m.sees(); state == Open && now-m.openedAt > int64(m.s.SleepWindow) {
			for _, c := range p.commands {
				if c.phase == "run" {
					return s, false // it would end the half-open state
				}
			}
			if m.running >= m.s.MaxConcurrent {
				return s, false // the probe would be lost
			}
		} else if state == HalfOpen && !m.s.TimeoutEnabled && now-m.probedAt > int64(m.s.SleepWindow) {
			return s, false // it would be refused for ever
		}
		return step{verb: "go"}, true
	case n < 96: // something that a command waits for
		var waiting []int
		for i, c := range p.commands {
			if c.phase != "done" {
				waiting = append(waiting, i)
			}
		}
		if len(waiting) == 0 {
			return s, false
		}
		s.id = waiting[r.IntN(len(waiting))]
		c := p.commands[s.id]
		switch {
		case c.phase == "fall":
			s.verb = []string{"fallback-ok", "fallback-ok", "fallback-fail", "cancel"}[r.IntN(4)]
		case m.probe == &c.command:
			s.verb = []string{"ok", "ok", "fail", "reject"}[r.IntN(4)]
		case r.Float64() < bad:
			s.verb = []string{"fail", "fail", "fail", "reject"}[r.IntN(4)]
		default:
			s.verb = []string{"ok", "ok", "ok", "ok", "ok", "bad", "cancel", "see"}[r.IntN(8)]
		}
		return s, true
	}
	if m.status == "half" {
		return s, false // what is forced then lets others end the half-open state
	}
	return randomProperty(r), true
}

func randomProperty(r *rand.Rand) step {
	f := func(name string, value any, set func(*Settings)) step {
		return step{verb: "set", args: fmt.Sprintf("%s %v", name, value), set: set}
	}
	n, yes := 1+r.IntN(6), r.IntN(4) == 0
	switch r.IntN(9) {
	case 0:
		return f("circuitBreaker.requestVolumeThreshold", n, func(s *Settings) { s.RequestVolumeThreshold = n })
	case 1:
		return f("circuitBreaker.errorThresholdPercentage", 15*n, func(s *Settings) { s.ErrorThresholdPercentage = 15 * n })
	case 2:
		return f("circuitBreaker.sleepWindowInMilliseconds", 50*n, func(s *Settings) { s.SleepWindow = time.Duration(50*n) * time.Millisecond })
	case 3:
		return f("circuitBreaker.forceOpen", yes, func(s *Settings) { s.ForceOpen = yes })
	case 4:
		return f("circuitBreaker.forceClosed", yes, func(s *Settings) { s.ForceClosed = yes })
	case 5:
		return f("execution.isolation.semaphore.maxConcurrentRequests", n, func(s *Settings) { s.MaxConcurrent = n })
	case 6:
		return f("fallback.isolation.semaphore.maxConcurrentRequests", n, func(s *Settings) { s.FallbackMaxConcurrent = n })
	case 7:
		return f("fallback.enabled", !yes, func(s *Settings) { s.FallbackEnabled = !yes })
	}
	return f("execution.isolation.thread.timeoutInMilliseconds", 40*n, func(s *Settings) { s.Timeout = time.Duration(40*n) * time.Millisecond })
}

func scriptSettings(r *rand.Rand) Settings {
	pick := func(list ...int) int { return list[r.IntN(len(list))] }
	s := Defaults()
	s.Enabled = r.IntN(20) > 0
	s.RequestVolumeThreshold = pick(1, 1, 2, 3, 5)
	s.ErrorThresholdPercentage = pick(1, 20, 30, 40, 50, 50, 60, 75, 100)
	s.SleepWindow = time.Duration(pick(0, 20, 50, 100, 200, 300)) * time.Millisecond
	s.RollingWindow = time.Duration(pick(200, 400, 1000)) * time.Millisecond
	s.RollingBuckets = pick(1, 2, 5, 10)
	s.HealthInterval = s.RollingWindow / time.Duration(pick(1, 2, 4, 10, 20))
	if r.IntN(4) == 0 {
		s.HealthInterval = 70 * time.Millisecond // which does not divide the window
	}
	s.MaxConcurrent = pick(0, 1, 2, 4, 10)
	s.Timeout = time.Duration(pick(20, 50, 100, 300)) * time.Millisecond
	s.TimeoutEnabled = r.IntN(4) > 0
	s.FallbackEnabled = r.IntN(8) > 0
	s.FallbackMaxConcurrent = pick(1, 2, 10)
	return s
}
