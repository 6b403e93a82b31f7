//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/bench/load"
	"github.com/outrider-mesh/outrider/bench/machine"
)

// bench is one run of the measurement.
type bench struct {
	o       options
	ctx     context.Context // ends with Ctrl-C
	dir     string          // temporary files, removed at the end
	files   int             // open files allowed
	loop    *load.Loop
	backend *load.Backend
	far     *load.FarEnd // the backend of bytes
	unhook  func() bool
	waits   sync.WaitGroup // the waits for processes

	identity *identity
	peers    []*peer    // those that run, and those that are absent
	entrants []*entrant // by lane
	results  []*result
	alone    map[string]alone // by case
	memory   []memory
	// The build of outrider-proxy, which several peers share.
	outrider    string
	outriderErr error

	began   time.Time
	dropped int // rounds that did not count
	ran     int // rounds in all
}

func newBench(ctx context.Context, o options) (*bench, error) {
	b := &bench{o: o, ctx: ctx, began: time.Now(), alone: map[string]alone{}}
	if err := machine.Pin(o.loadCPU); err != nil {
		return nil, err
	}
	var err error
	if b.files, err = machine.RaiseFiles(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "outrider-bench-"); err != nil {
		return nil, fmt.Errorf("cannot create a temporary directory: %w", err)
	}
	if b.identity, err = newIdentity(b.dir); err == nil {
		err = b.serve()
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// serve starts the backends.
func (b *bench) serve() (err error) {
	if b.loop, err = load.NewLoop(); err != nil {
		return err
	}
	b.unhook = context.AfterFunc(b.ctx, b.loop.Stop)
	if b.backend, err = b.loop.Serve(4, answerSizes()...); err != nil {
		return err
	}
	b.far, err = b.loop.ServeBytes(4)
	return err
}

// measure runs everything, lane by lane.
func (b *bench) measure() error {
	b.peers = selected(allPeers(), b.o.peers, func(p *peer) string { return p.name })
	cases := selected(allCases(), b.o.cases, func(c scenario) string { return c.name })
	here := 0
	for _, p := range b.peers {
		if p.path, p.version, p.absence = p.find(b); p.absence != nil {
			b.say("%s is missing: %v", p.name, p.absence)
			continue
		}
		here++
	}
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	if here == 0 || len(cases) == 0 {
		return fmt.Errorf("nothing to measure: %d proxies are here and selected, %d cases", here, len(cases))
	}
	b.say("%d proxies, %d cases, at least %s", here, len(cases), b.least(cases).Round(time.Second))
	for _, l := range allLanes() {
		in := slices.DeleteFunc(slices.Clone(cases), func(c scenario) bool { return c.lane.name != l.name })
		if len(in) == 0 {
			continue
		}
		if err := b.measureLane(l, in); err != nil {
			return err
		}
	}
	return nil
}

// least is how long the rounds of the cases take where none is disturbed.
func (b *bench) least(cases []scenario) time.Duration {
	rounds, short := 0, 0
	for _, c := range cases {
		each := b.o.rounds
		if c.paced {
			each += b.o.latencyRounds
		}
		for _, p := range b.peers {
			if p.absence == nil && slices.Contains(p.lanes, c.lane.name) {
				rounds += each
				if slices.Contains(sprinters(c.name), p.name) {
					short += b.o.sprints
				}
			}
		}
	}
	return time.Duration(rounds)*(b.o.length+b.o.warm) + time.Duration(short)*(sprintLength+sprintWarm)
}

// measureLane measures the memory of each proxy alone first, then all proxies side by side.
func (b *bench) measureLane(l *lane, cases []scenario) error {
	all := b.enter(l)
	if b.o.idle > 0 && l.idle {
		if err := b.measureMemory(all); err != nil {
			return err
		}
	}
	for _, e := range working(all) {
		if err := b.fail(e, b.start(e)); err != nil {
			return err
		}
	}
	for _, c := range cases {
		if len(working(all)) == 0 {
			break
		}
		if err := b.measureCase(c, working(all)); err != nil {
			return err
		}
	}
	if b.o.idle > 0 && l.idle {
		if err := b.measureAfter(working(all)); err != nil {
			return err
		}
	}
	for _, e := range all {
		if err := b.stop(e); err != nil {
			return err
		}
	}
	return nil
}

// fail notes that e cannot be measured further, and ends it. It returns an error only where the whole run must end.
func (b *bench) fail(e *entrant, err error) error {
	if err == nil {
		return nil
	}
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	b.say("%s is left out of %s from here on: %v", e.name, e.lane.name, err)
	e.failure = err
	return b.stop(e)
}

// failures returns how many entrants could not be measured to the end.
func (b *bench) failures() int { return len(b.entrants) - len(working(b.entrants)) }

// close ends all processes, closes all sockets and removes all files.
func (b *bench) close() error {
	var all error
	for _, e := range b.entrants {
		all = errors.Join(all, b.stop(e))
	}
	b.waits.Wait()
	if b.backend != nil {
		b.backend.Close()
	}
	if b.far != nil {
		b.far.Close()
	}
	if b.loop != nil {
		b.unhook()
		all = errors.Join(all, b.loop.Close())
	}
	return errors.Join(all, os.RemoveAll(b.dir))
}

// say tells the person who waits what goes on.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}
