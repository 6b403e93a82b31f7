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
	unhook  func() bool
	waits   sync.WaitGroup // the waits for processes

	peers   []*peer // those that run, and those that are absent
	results []*result
	memory  []memory
	// The build of outrider-proxy, which two peers share.
	outrider    string
	outriderErr error

	began   time.Time
	dropped int // rounds that did not count
	ran     int // rounds in all
}

func newBench(ctx context.Context, o options) (*bench, error) {
	b := &bench{o: o, ctx: ctx, began: time.Now()}
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
	if b.loop, err = load.NewLoop(); err == nil {
		b.unhook = context.AfterFunc(ctx, b.loop.Stop)
		b.backend, err = b.loop.Serve(4, answerSizes()...)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// measure runs everything: memory of each proxy alone first, then all proxies side by side.
func (b *bench) measure() error {
	b.peers = selected(allPeers(), b.o.peers, func(p *peer) string { return p.name })
	cases := selected(allCases(), b.o.cases, func(c scenario) string { return c.name })
	for _, p := range b.peers {
		if p.path, p.version, p.absence = p.find(b); p.absence != nil {
			b.say("%s is missing: %v", p.name, p.absence)
		}
	}
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	present := b.present()
	if len(present) == 0 || len(cases) == 0 {
		return fmt.Errorf("nothing to measure: %d proxies are here and selected, %d cases", len(present), len(cases))
	}
	round := b.o.length + b.o.warm
	least := time.Duration(len(present)*len(cases)*(b.o.rounds+b.o.latencyRounds)) * round
	b.say("%d proxies, %d cases, at least %s", len(present), len(cases), least.Round(time.Second))
	if b.o.idle > 0 {
		if err := b.measureMemory(present); err != nil {
			return err
		}
	}
	for _, p := range b.working() {
		if err := b.fail(p, b.start(p)); err != nil {
			return err
		}
	}
	for _, c := range cases {
		if err := b.measureCase(c, b.working()); err != nil {
			return err
		}
	}
	return b.measureAfter(b.working())
}

// fail notes that p cannot be measured further, and ends it. It returns an error only where the whole run must end.
func (b *bench) fail(p *peer, err error) error {
	if err == nil {
		return nil
	}
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	b.say("%s is left out from here on: %v", p.name, err)
	p.failure = err
	return b.stop(p)
}

// working returns the proxies that are here and have not failed.
func (b *bench) working() []*peer {
	return slices.DeleteFunc(b.present(), func(p *peer) bool { return p.failure != nil })
}

func (b *bench) present() []*peer {
	var all []*peer
	for _, p := range b.peers {
		if p.absence == nil {
			all = append(all, p)
		}
	}
	return all
}

// close ends all processes, closes all sockets and removes all files.
func (b *bench) close() error {
	var all error
	for _, p := range b.peers {
		all = errors.Join(all, b.stop(p))
	}
	b.waits.Wait()
	if b.backend != nil {
		b.backend.Close()
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
