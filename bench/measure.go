//go:build linux

package main

import (
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
	peer   *peer
	c      scenario
	closed rounds // as fast as it answers
	paced  rounds // at a fixed rate
	rate   float64
	failed uint64
	first  error // the first failed request
}

// rounds are the series of one mode.
type rounds struct {
	cpu    series // microseconds a request
	kernel series // share of the CPU time that is the kernel's
	perSec series // requests per second
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

func (b *bench) read(p *peer, c *load.Client) (state, error) {
	var s state
	var err error
	if s.proxy, err = machine.UsageOf(p.process.cmd.Process.Pid); err != nil {
		return s, err
	}
	if s.self, err = machine.Clock(os.Getpid()); err != nil {
		return s, err
	}
	s.cpus, err = machine.CPUs()
	s.at, s.done = time.Now(), c.Done()
	return s, err
}

// difference makes a sample of the states around a round.
func (b *bench) difference(from, to state) sample {
	wall := to.at.Sub(from.at)
	requests := float64(to.done - from.done)
	cpu := to.proxy.Total - from.proxy.Total
	user, system := to.proxy.User-from.proxy.User, to.proxy.System-from.proxy.System
	other := func(n int, own time.Duration) float64 {
		busy := to.cpus[n].Busy - from.cpus[n].Busy
		steal := to.cpus[n].Steal - from.cpus[n].Steal
		return float64(max(busy-own, 0)+steal) / float64(wall)
	}
	return sample{
		cpu:    float64(cpu) / 1e3 / requests,
		kernel: float64(system) / float64(user+system),
		perSec: requests / wall.Seconds(),
		busy:   float64(cpu) / float64(wall),
		disturbance: max(other(b.o.proxyCPU, cpu),
			other(b.o.loadCPU, to.self-from.self)),
	}
}

// measureCase runs the rounds of one case for all proxies, in turn.
func (b *bench) measureCase(c scenario, peers []*peer) error {
	var all []*result
	for _, p := range peers {
		all = append(all, &result{peer: p, c: c})
	}
	err := b.interleave(c.name, b.o.rounds, all, func(r *result, _ int) (*rounds, sample, error) {
		s, err := b.saturate(r)
		return &r.closed, s, err
	})
	if err != nil {
		return err
	}
	b.results = append(b.results, all...)
	if b.o.profile != "" {
		if err := b.profileCase(all); err != nil {
			return err
		}
	}
	rate := pacedRate(all)
	if b.o.latencyRounds == 0 || rate == 0 {
		return nil
	}
	for _, r := range all {
		r.rate = rate
	}
	return b.interleave(fmt.Sprintf("%s at %.0f/s", c.name, rate), b.o.latencyRounds, all, func(r *result, round int) (*rounds, sample, error) {
		s, err := b.pace(r, uint64(round))
		return &r.paced, s, err
	})
}

// pacedRate is half of what the slowest proxy can do: no proxy is overloaded, and all get the same load. It is 0 where
// nothing was measured.
func pacedRate(all []*result) float64 {
	least := math.Inf(1)
	for _, r := range all {
		if v := median(r.closed.perSec.counted()); v < least {
			least = v
		}
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return max(math.Floor(least/2/100), 1) * 100
}

// interleave runs rounds A B C A B C until each proxy has as many undisturbed ones as wanted, or twice that many were run.
func (b *bench) interleave(what string, wanted int, all []*result, run func(*result, int) (*rounds, sample, error)) error {
	samples := make([][]sample, len(all))
	modes := make([]*rounds, len(all))
	dropped, before := 0, b.ran
	for round := range 2 * wanted {
		fewest := round + 1
		for i, r := range all {
			if r.peer.failure != nil {
				continue
			}
			mode, s, err := run(r, round)
			if err == nil {
				err = r.peer.process.alive(r.peer.name)
			}
			if err != nil {
				if err := b.fail(r.peer, fmt.Errorf("cannot measure %s, %s: %w", r.peer.name, what, err)); err != nil {
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

// saturate measures one round with a request under way on every connection at all times.
func (b *bench) saturate(r *result) (sample, error) {
	c, err := b.loop.Dial(r.peer.process.addr, r.c.conns, r.c.request())
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	if err := c.Saturate(b.o.warm); err != nil {
		return sample{}, err
	}
	from, err := b.read(r.peer, c)
	if err != nil {
		return sample{}, err
	}
	if err := c.Saturate(b.o.length); err != nil {
		return sample{}, err
	}
	to, err := b.read(r.peer, c)
	if err != nil {
		return sample{}, err
	}
	if err := c.Drain(); err != nil {
		return sample{}, err
	}
	r.count(c)
	return b.difference(from, to), nil
}

// pace measures one round at the case's fixed rate. Every proxy gets the same moments in the same round.
func (b *bench) pace(r *result, seed uint64) (sample, error) {
	c, err := b.loop.Dial(r.peer.process.addr, r.c.conns, r.c.request())
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	from, err := b.read(r.peer, c)
	if err != nil {
		return sample{}, err
	}
	if err := c.Pace(r.rate, b.o.warm, b.o.length, seed); err != nil {
		return sample{}, err
	}
	to, err := b.read(r.peer, c)
	if err != nil {
		return sample{}, err
	}
	r.count(c)
	s := b.difference(from, to)
	s.p50 = float64(c.Latency().Quantile(0.5)) / 1e3
	s.p99 = float64(c.Latency().Quantile(0.99)) / 1e3
	return s, nil
}

func (r *result) count(c *load.Client) {
	n, first := c.Failures()
	r.failed += n
	if r.first == nil {
		r.first = first
	}
}
