//go:build linux

// Package main measures Outrider's proxy beside nginx, HAProxy, Envoy, nghttpx and Go's own reverse proxy on this machine,
// in one run, and prints what it found as Markdown.
//
// docs/performance.md says what is measured and how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/outrider-mesh/outrider/bench/machine"
)

// options are the command line's.
type options struct {
	rounds, latencyRounds int
	sprints               int // short rounds of proxies that are near one another
	length, warm          time.Duration
	cases, peers          *regexp.Regexp
	proxyCPU, loadCPU     int
	idle                  int           // connections of the memory measurement; 0 leaves it out
	settle                time.Duration // between two looks at memory that is to settle
	patience              time.Duration // for a proxy to answer after its start
	profile               string        // directory for CPU profiles, or empty
	profileTime           time.Duration // how long each is taken
	output                string        // file for the report besides standard output, or empty
}

func main() {
	if serve := roles[firstArgument()]; serve != nil {
		exitOn(serve(os.Args[2:]))
		return
	}
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err = run(ctx, o)
	cancel()
	exitOn(err)
}

func firstArgument() string {
	if len(os.Args) < 2 {
		return ""
	}
	return os.Args[1]
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	o := options{settle: 200 * time.Millisecond, patience: 20 * time.Second}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.IntVar(&o.rounds, "rounds", 5, "undisturbed rounds wanted of each proxy and case; up to as many again replace disturbed ones")
	fs.IntVar(&o.latencyRounds, "latency-rounds", 3, "the same at a fixed rate, for latency; 0 leaves latency out")
	fs.IntVar(&o.sprints, "sprints", 50, "short rounds of those that a goal has near one another; 0 leaves them out")
	fs.DurationVar(&o.length, "time", 750*time.Millisecond, "length of a round")
	fs.DurationVar(&o.warm, "warm", 150*time.Millisecond, "load before a round's measurement begins")
	cases := fs.String("cases", ".", "regular expression: cases to run ("+caseNames()+")")
	peers := fs.String("peers", ".", "regular expression: proxies to run ("+peerNames()+")")
	quick := fs.Bool("quick", false, "3 rounds of 0.5 s of the cases get-300B/16, get-300B/64 and h2c-get-300B/4x32, one round for latency, unless said otherwise")
	fs.IntVar(&o.proxyCPU, "proxy-cpu", 0, "CPU for the proxy under test")
	fs.IntVar(&o.loadCPU, "load-cpu", 1, "CPU for load generator and backend")
	fs.IntVar(&o.idle, "idle", 2000, "idle connections for the memory measurement; 0 leaves memory out")
	fs.StringVar(&o.profile, "profile", "", "directory to write a CPU profile of outrider-proxy to, one for each case")
	fs.DurationVar(&o.profileTime, "profile-time", 3*time.Second, "how long each CPU profile is taken, in whole seconds")
	fs.StringVar(&o.output, "o", "", "file to write the report to, besides standard output")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if *quick {
		applyQuick(fs, &o, cases)
	}
	var err1, err2 error
	o.cases, err1 = regexp.Compile(*cases)
	o.peers, err2 = regexp.Compile(*peers)
	if err := errors.Join(err1, err2); err != nil {
		return o, err
	}
	return o, o.check()
}

// applyQuick shortens what the user has not set.
func applyQuick(fs *flag.FlagSet, o *options, cases *string) {
	set := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { set[f.Name] = true })
	if !set["rounds"] {
		o.rounds = 3
	}
	if !set["latency-rounds"] {
		o.latencyRounds = 1
	}
	if !set["sprints"] {
		o.sprints = 10
	}
	if !set["time"] {
		o.length = 500 * time.Millisecond
	}
	if !set["cases"] {
		*cases = "^(get-300B/(16|64)|h2c-get-300B/4x32)$"
	}
}

func (o *options) check() error {
	switch {
	case o.rounds < 1 || o.latencyRounds < 0 || o.sprints < 0:
		return errors.New("-rounds must be at least 1, -latency-rounds and -sprints at least 0")
	case o.length < 100*time.Millisecond || o.length > time.Minute:
		return errors.New("-time must be between 100ms and 1m")
	case o.warm < 0 || o.warm > time.Minute:
		return errors.New("-warm must be between 0 and 1m")
	case o.idle < 0 || o.idle > 3000:
		return errors.New("-idle must be between 0 and 3000")
	case o.profileTime < time.Second || o.profileTime > time.Minute:
		return errors.New("-profile-time must be between 1s and 1m")
	case o.proxyCPU == o.loadCPU:
		return errors.New("-proxy-cpu and -load-cpu must differ: the load must not run on the measured CPU")
	}
	return nil
}

// run measures and reports. The main thread is bound to the load's CPU, as is everything that it starts there.
func run(ctx context.Context, o options) error {
	cpus, err := machine.CPUs()
	if err != nil {
		return err
	}
	for _, c := range []int{o.proxyCPU, o.loadCPU} {
		if _, ok := cpus[c]; !ok {
			return fmt.Errorf("this machine has no CPU %d; choose with -proxy-cpu and -load-cpu, which need two", c)
		}
	}
	if err := machine.RunOn(o.loadCPU); err != nil {
		return err
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	err = errors.Join(b.measure(), b.close())
	if ctx.Err() != nil {
		return errors.New("interrupted; all processes are ended and all files removed")
	}
	if err != nil {
		return err
	}
	if err := b.publish(); err != nil {
		return err
	}
	if n := b.failures(); n > 0 {
		return fmt.Errorf("%d proxies failed; the report says why", n)
	}
	return nil
}

func (b *bench) publish() error {
	text := b.report()
	if _, err := os.Stdout.WriteString(text); err != nil {
		return fmt.Errorf("cannot print the report: %w", err)
	}
	if b.o.output == "" {
		return nil
	}
	if err := os.WriteFile(b.o.output, []byte(text), 0o644); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}

func caseNames() string { return joinNames(allCases(), func(c scenario) string { return c.name }) }
func peerNames() string { return joinNames(allPeers(), func(p *peer) string { return p.name }) }

func joinNames[T any](all []T, name func(T) string) string {
	s := ""
	for i, v := range all {
		if i > 0 {
			s += ", "
		}
		s += name(v)
	}
	return s
}

// selected returns the members whose name the expression matches, in order.
func selected[T any](all []T, re *regexp.Regexp, name func(T) string) []T {
	return slices.DeleteFunc(all, func(v T) bool { return !re.MatchString(name(v)) })
}
