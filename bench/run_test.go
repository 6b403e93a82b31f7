//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/bench/machine"
)

// TestMain lets the test's own program play the proxies that are part of this program.
func TestMain(m *testing.M) {
	if serve := roles[firstArgument()]; serve != nil {
		exitOn(serve(os.Args[2:]))
		return
	}
	os.Exit(m.Run())
}

// testBench starts a short run over the two proxies that are always there.
func testBench(ctx context.Context, t *testing.T, args ...string) *bench {
	t.Helper()
	allowed, err := machine.Allowed()
	if err != nil {
		t.Fatal(err)
	}
	base := []string{"-peers", "^(bare-go|reverse-proxy)$", "-cases", "^((h2c-)?post-1K/(64|4x32)|get-300B/64|grpc-unary/.*|grpc-stream/.*|http1-to-h2c.*|h2c-to-http1.*|tcp.*|tls-.*)$", "-time", "250ms", "-warm", "20ms", "-rounds", "1", "-latency-rounds", "1"}
	o, err := parseOptions(append(base, args...))
	if err != nil {
		t.Fatal(err)
	}
	o.settle = 10 * time.Millisecond
	// No number is judged here, so a machine with one CPU will do.
	o.proxyCPU, o.loadCPU = allowed[0], allowed[len(allowed)-1]
	b, err := newBench(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A run measures all that it is asked to. Where the machine has so much else to do that nothing is done in a round, or less than
// what a fixed rate needs, another one has more time.
func TestRun(t *testing.T) {
	var lacks []string
	for _, length := range []string{"250ms", "1s", "4s"} {
		if lacks = runOnce(t, length); len(lacks) == 0 || t.Failed() {
			break
		}
		t.Logf("rounds of %s were too short for this machine: %s", length, strings.Join(lacks, "; "))
	}
	for _, l := range lacks {
		t.Error(l)
	}
}

// runOnce runs with rounds of the given length, and returns what was not measured.
func runOnce(t *testing.T, length string) (lacks []string) {
	t.Helper()
	b := testBench(t.Context(), t, "-idle", "100", "-time", length)
	err := b.measure()
	served, refused := uint64(0), b.backend.Refused()
	for _, n := range b.backend.Served() {
		served += n
	}
	wantAlone(t) // each lane ends its processes
	if err := b.close(); err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantGone(t, b)
	if served == 0 || refused != 0 {
		t.Errorf("the backend served %d requests and refused %d", served, refused)
	}
	lack := func(format string, args ...any) { lacks = append(lacks, fmt.Sprintf(format, args...)) }
	// Both proxies have a part in HTTP/1.1, one in each other lane.
	if len(b.results) != 2*2+1+1+1+2+1+3 || len(b.memory) != 4 {
		lack("%d results and %d memory measurements, want 13 and 4", len(b.results), len(b.memory))
	}
	for _, r := range b.results {
		if r.failed != 0 || r.failure != nil {
			lack("%s, %s: %d failed, %v, %v", r.name, r.c.name, r.failed, r.first, r.failure)
		}
		all := map[string]series{"cpu": r.closed.cpu, "perSec": r.closed.perSec}
		if r.c.paced && r.name == "reverse-proxy" { // the slowest, so it can keep up with half of its own rate
			all["p50"], all["p99"] = r.paced.p50, r.paced.p99
		}
		if r.c.lane.direct {
			all["alone"] = b.alone[r.c.name].cpu
		}
		for name, s := range all {
			if v := s.counted(); len(v) == 0 || v[0] <= 0 {
				lack("%s, %s: %s is %v", r.name, r.c.name, name, s)
			}
		}
		if r.c.handshakes && r.group == "" {
			lack("%s, %s: no group", r.name, r.c.name)
		}
	}
	for _, m := range b.memory {
		if m.atStart.RSS <= 0 || m.after.RSS <= 0 {
			t.Errorf("memory of %s: %+v", m.name, m)
		}
	}
	if text := b.report(); !strings.Contains(text, "| bare-go |") || strings.Contains(text, "NaN") {
		lack("report:\n%s", text)
	}
	return lacks
}

// Ctrl-C ends a run at once, and nothing stays behind.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := testBench(ctx, t, "-idle", "0", "-time", "1m")
	started := make(chan struct{})
	b.waits.Go(func() {
		<-started
		cancel()
	})
	for _, p := range selected(allPeers(), b.o.peers, func(p *peer) string { return p.name }) {
		p.path, _, p.absence = findSelf(b)
		b.peers = append(b.peers, p)
	}
	c := allCases()[0]
	for _, e := range b.enter(c.lane) {
		if err := b.start(e); err != nil {
			t.Fatal(err)
		}
	}
	close(started)
	if err := b.measureCase(c, b.entrants); err != context.Canceled {
		t.Errorf("an interrupted measurement returned %v", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	wantAlone(t)
	wantGone(t, b)
}

// A program that does not start is left out with what it said.
func TestStartFails(t *testing.T) {
	b := testBench(t.Context(), t)
	p := &peer{name: "broken", path: "/bin/sh", command: func(*bench, *entrant, string, string) ([]string, error) {
		return []string{"-c", "echo no such directive; exit 3"}, nil
	}}
	err := b.start(&entrant{peer: p, lane: allLanes()[0]})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such directive") {
		t.Errorf("starting it: %v", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

// wantAlone fails where a process that this one started still runs.
func wantAlone(t *testing.T) {
	t.Helper()
	tree, err := machine.Tree(os.Getpid())
	if err != nil || len(tree) != 1 {
		t.Errorf("%d processes run: %+v, %v", len(tree), tree, err)
	}
}

func wantGone(t *testing.T, b *bench) {
	t.Helper()
	if _, err := os.Stat(b.dir); !os.IsNotExist(err) {
		t.Errorf("the temporary directory: %v", err)
	}
}
