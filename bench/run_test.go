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
	base := []string{"-peers", "^(bare-go|reverse-proxy)$", "-cases", "^(get-16K|post-1K)/16$", "-time", "100ms", "-warm", "20ms", "-rounds", "1", "-latency-rounds", "1"}
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

func TestRun(t *testing.T) {
	b := testBench(t.Context(), t, "-idle", "100")
	err := b.measure()
	served, refused := uint64(0), b.backend.Refused()
	for _, n := range b.backend.Served() {
		served += n
	}
	pids := map[int]string{}
	for _, p := range b.peers {
		if p.process != nil {
			pids[p.process.cmd.Process.Pid] = p.name
		}
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(pids) != 2 {
		t.Errorf("%d processes ran to the end, want 2", len(pids))
	}
	wantGone(t, b, pids)
	if served == 0 || refused != 0 {
		t.Errorf("the backend served %d requests and refused %d", served, refused)
	}
	if len(b.results) != 4 || len(b.memory) != 2 {
		t.Fatalf("%d results and %d memory measurements, want 4 and 2", len(b.results), len(b.memory))
	}
	for _, r := range b.results {
		if r.failed != 0 || r.peer.failure != nil {
			t.Errorf("%s, %s: %d failed, %v, %v", r.peer.name, r.c.name, r.failed, r.first, r.peer.failure)
		}
		for name, s := range map[string]series{"cpu": r.closed.cpu, "perSec": r.closed.perSec, "p50": r.paced.p50, "p99": r.paced.p99} {
			if v := s.counted(); len(v) == 0 || v[0] <= 0 {
				t.Errorf("%s, %s: %s is %v", r.peer.name, r.c.name, name, s)
			}
		}
	}
	for _, m := range b.memory {
		if m.start.RSS <= 0 || m.after.RSS <= 0 {
			t.Errorf("memory of %s: %+v", m.peer.name, m)
		}
	}
	if text := b.report(); !strings.Contains(text, "| bare-go |") || strings.Contains(text, "NaN") {
		t.Errorf("report:\n%s", text)
	}
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
		if err := b.start(p); err != nil {
			t.Fatal(err)
		}
	}
	pids := map[int]string{}
	for _, p := range b.peers {
		pids[p.process.cmd.Process.Pid] = p.name
	}
	close(started)
	if err := b.measureCase(allCases()[0], b.peers); err != context.Canceled {
		t.Errorf("an interrupted measurement returned %v", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	wantGone(t, b, pids)
}

// A program that does not start is left out with what it said.
func TestStartFails(t *testing.T) {
	b := testBench(t.Context(), t)
	p := &peer{name: "broken", path: "/bin/sh", command: func(*bench, *peer, string, string) ([]string, error) {
		return []string{"-c", "echo no such directive; exit 3"}, nil
	}}
	err := b.start(p)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such directive") {
		t.Errorf("starting it: %v", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

func wantGone(t *testing.T, b *bench, pids map[int]string) {
	t.Helper()
	for pid, name := range pids {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			t.Errorf("process %d of %s still runs", pid, name)
		}
	}
	if _, err := os.Stat(b.dir); !os.IsNotExist(err) {
		t.Errorf("the temporary directory: %v", err)
	}
}
