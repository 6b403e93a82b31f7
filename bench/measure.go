//go:build linux

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/outrider-mesh/outrider/bench/load"
	"github.com/outrider-mesh/outrider/bench/machine"
)

// A round is disturbed, and does not count, where on either of the two CPUs other processes and the hypervisor together
// took more than this share of the round. The kernel samples what a CPU does 100 to 1000 times a second, so a much
// lower limit would drop rounds by chance.
const disturbance = 0.08

// result holds what one proxy gave in one case, one entry a round in each series; NaN where the round does not count.
type result struct {
	*entrant
	c       scenario
	closed  rounds // as fast as it answers
	paced   rounds // at a fixed rate
	sprints rounds // short ones, as fast as it answers
	rate    float64
	failed  uint64
	first   error  // the first failed request
	group   string // of key exchange, where handshakes are measured
}

// alone is what generator and backend cost and take without a proxy between them.
type alone struct {
	cpu series // microseconds a unit, both together
	p99 series // at the fixed rate
}

// rounds are the series of one mode.
type rounds struct {
	cpu    series // microseconds a unit of the case: a request, a message, ...
	kernel series // share of the CPU time that is the kernel's
	perSec series // units per second
	busy   series // share of its CPU that the proxy used
	p50    series // microseconds
	p99    series // microseconds
	// disturbed says that too few rounds were undisturbed, so that all were taken.
	disturbed bool
}

// sample is one round.
type sample struct {
	cpu, kernel, perSec, busy, p50, p99 float64
	disturbance                         float64
}

// state is what is read before and after a round.
type state struct {
	at    time.Time
	done  uint64
	proxy machine.Usage
	self  time.Duration // CPU time of load generator and backend
	cpus  map[int]machine.CPU
}

func (b *bench) read(e *entrant, c traffic) (state, error) {
	var s state
	var err error
	if s.proxy, err = machine.UsageOf(e.process.cmd.Process.Pid); err != nil {
		return s, err
	}
	if s.self, err = machine.Clock(os.Getpid()); err != nil {
		return s, err
	}
	s.cpus, err = machine.CPUs()
	s.at, s.done = time.Now(), c.Done()
	return s, err
}

// difference makes a sample of the states around a round; perDone is how many units one that is done stands for.
func (b *bench) difference(from, to state, perDone float64) sample {
	wall := to.at.Sub(from.at)
	units := float64(to.done-from.done) * perDone
	cpu := to.proxy.Total - from.proxy.Total
	user, system := to.proxy.User-from.proxy.User, to.proxy.System-from.proxy.System
	other := func(n int, own time.Duration) float64 {
		busy := to.cpus[n].Busy - from.cpus[n].Busy
		steal := to.cpus[n].Steal - from.cpus[n].Steal
		return float64(max(busy-own, 0)+steal) / float64(wall)
	}
	return sample{
		cpu:    float64(cpu) / 1e3 / units,
		kernel: float64(system) / float64(user+system),
		perSec: units / wall.Seconds(),
		busy:   float64(cpu) / float64(wall),
		disturbance: max(other(b.o.proxyCPU, cpu),
			other(b.o.loadCPU, to.self-from.self)),
	}
}

// measureCase runs the rounds of one case for all entrants, in turn.
func (b *bench) measureCase(c scenario, entrants []*entrant) error {
	var all []*result
	for _, e := range entrants {
		all = append(all, &result{entrant: e, c: c})
	}
	err := b.interleave(c.name, b.o.rounds, all, func(r *result, _ int) (*rounds, sample, error) {
		s, err := b.saturate(r, b.o.warm, b.o.length)
		return &r.closed, s, err
	})
	if err != nil {
		return err
	}
	b.results = append(b.results, all...)
	if err := b.measureSprints(c, all); err != nil {
		return err
	}
	if err := b.measureAlone(c); err != nil {
		return err
	}
	if b.o.profile != "" {
		if err := b.profileCase(all); err != nil {
			return err
		}
	}
	if !c.paced || b.o.latencyRounds == 0 {
		return nil
	}
	return b.measureLatency(c, all)
}

// measureLatency runs the rounds at a fixed rate, for those that can keep up with it.
func (b *bench) measureLatency(c scenario, all []*result) error {
	rate := pacedRate(all)
	var able []*result
	for _, r := range all {
		r.rate = rate
		if median(r.closed.perSec.counted()) >= 1.25*rate && r.failure == nil {
			able = append(able, r)
		}
	}
	if rate == 0 || len(able) == 0 {
		return nil
	}
	err := b.interleave(fmt.Sprintf("%s at %.0f/s", c.name, rate), b.o.latencyRounds, able, func(r *result, round int) (*rounds, sample, error) {
		s, err := b.pace(r, uint64(round))
		return &r.paced, s, err
	})
	if err != nil {
		return err
	}
	return b.paceAlone(c, rate)
}

// pacedRate is half of what the mesh-like Envoy can do, or, without it, of what the slowest proxy can: all get the same
// load. It is 0 where nothing was measured.
func pacedRate(all []*result) float64 {
	least := math.Inf(1)
	for _, r := range all {
		v := median(r.closed.perSec.counted())
		if v > 0 && r.name == meshName {
			least = v
			break
		}
		if v < least {
			least = v
		}
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return max(math.Floor(least/2/100), 1) * 100
}

// measureAlone tells what generator and backend themselves cost, where they understand each other. They never sleep, so
// it is the time that passes.
func (b *bench) measureAlone(c scenario) error {
	if !c.lane.direct {
		return nil
	}
	t, err := b.open(b.backendAddresses(c.lane)[0], c)
	if err != nil {
		return err
	}
	defer t.Close()
	a := b.alone[c.name]
	for range 3 {
		from, at := t.Done(), time.Now()
		if err := t.Saturate(b.o.length / 4); err != nil {
			return err
		}
		a.cpu = append(a.cpu, float64(time.Since(at))/1e3/(float64(t.Done()-from)*c.perDone))
	}
	b.alone[c.name] = a
	return t.Drain()
}

// paceAlone tells what latency generator and backend have without a proxy.
func (b *bench) paceAlone(c scenario, rate float64) error {
	if !c.lane.direct {
		return nil
	}
	a := b.alone[c.name]
	for round := range b.o.latencyRounds {
		t, err := b.dial(b.backendAddresses(c.lane)[0], c)
		if err != nil {
			return err
		}
		if err = t.Pace(rate, b.o.warm, b.o.length, uint64(round)); err == nil {
			a.p99 = append(a.p99, float64(t.Latency().Quantile(0.99))/1e3)
		}
		t.Close()
		if err != nil {
			return err
		}
	}
	b.alone[c.name] = a
	return nil
}

// interleave runs rounds A B C A B C until each proxy has as many undisturbed ones as wanted, or twice that many were run.
func (b *bench) interleave(what string, wanted int, all []*result, run func(*result, int) (*rounds, sample, error)) error {
	samples := make([][]sample, len(all))
	modes := make([]*rounds, len(all))
	dropped, before := 0, b.ran
	for round := range 2 * wanted {
		fewest := round + 1
		for i, r := range all {
			if r.failure != nil {
				continue
			}
			mode, s, err := run(r, round)
			if err == nil {
				err = r.process.alive(r.name)
			}
			if err != nil {
				if err := b.fail(r.entrant, fmt.Errorf("cannot measure %s, %s: %w", r.name, what, err)); err != nil {
					return err
				}
				continue
			}
			modes[i], samples[i] = mode, append(samples[i], s)
			b.ran++
			if s.disturbance > disturbance {
				dropped++
			}
			fewest = min(fewest, undisturbed(samples[i]))
		}
		if fewest >= wanted {
			break
		}
	}
	for i, mode := range modes {
		if mode != nil {
			mode.take(samples[i], wanted)
		}
	}
	b.dropped += dropped
	b.say("%s: %d rounds, %d disturbed", what, b.ran-before, dropped)
	return nil
}

func undisturbed(all []sample) int {
	n := 0
	for _, s := range all {
		if s.disturbance <= disturbance {
			n++
		}
	}
	return n
}

// take keeps the rounds that count: the undisturbed ones, or all where fewer than half of those wanted are undisturbed.
func (r *rounds) take(all []sample, wanted int) {
	r.disturbed = 2*undisturbed(all) < wanted
	for _, s := range all {
		if s.disturbance > disturbance && !r.disturbed {
			nan := math.NaN()
			s = sample{cpu: nan, kernel: nan, perSec: nan, busy: nan, p50: nan, p99: nan}
		}
		r.cpu = append(r.cpu, s.cpu)
		r.kernel = append(r.kernel, s.kernel)
		r.perSec = append(r.perSec, s.perSec)
		r.busy = append(r.busy, s.busy)
		r.p50 = append(r.p50, s.p50)
		r.p99 = append(r.p99, s.p99)
	}
}

var errNothing = errors.New("nothing was done in a whole round")

// saturate measures one round with a request under way on every connection or stream at all times.
func (b *bench) saturate(r *result, warm, length time.Duration) (sample, error) {
	c, err := b.open(r.process.addr, r.c)
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	if err := c.Saturate(warm); err != nil {
		return sample{}, err
	}
	from, err := b.read(r.entrant, c)
	if err != nil {
		return sample{}, err
	}
	if err := c.Saturate(length); err != nil {
		return sample{}, err
	}
	to, err := b.read(r.entrant, c)
	if err != nil {
		return sample{}, err
	}
	if to.done == from.done {
		return sample{}, errNothing
	}
	if err := c.Drain(); err != nil {
		return sample{}, err
	}
	r.count(c)
	if h, ok := c.(*load.Handshakes); ok {
		r.group = h.Group()
	}
	return b.difference(from, to, r.c.perDone), nil
}

// pace measures one round at the case's fixed rate. Every proxy gets the same moments in the same round.
func (b *bench) pace(r *result, seed uint64) (sample, error) {
	c, err := b.dial(r.process.addr, r.c)
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	from, err := b.read(r.entrant, c)
	if err != nil {
		return sample{}, err
	}
	if err := c.Pace(r.rate, b.o.warm, b.o.length, seed); err != nil {
		return sample{}, err
	}
	to, err := b.read(r.entrant, c)
	if err != nil {
		return sample{}, err
	}
	r.count(c)
	s := b.difference(from, to, r.c.perDone)
	s.p50 = float64(c.Latency().Quantile(0.5)) / 1e3
	s.p99 = float64(c.Latency().Quantile(0.99)) / 1e3
	return s, nil
}

func (r *result) count(c traffic) {
	n, first := c.Failures()
	r.failed += n
	if r.first == nil {
		r.first = first
	}
}
