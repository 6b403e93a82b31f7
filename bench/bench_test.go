//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/bench/load"
	"github.com/outrider-mesh/outrider/bench/machine"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var testBackends = []string{"127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003", "127.0.0.1:7004"}

func TestMedianAndSpread(t *testing.T) {
	f := func(in []float64, wantMedian, wantSpread float64) {
		t.Helper()
		if m := median(in); m != wantMedian && !(math.IsNaN(m) && math.IsNaN(wantMedian)) {
			t.Errorf("median of %v is %v, want %v", in, m, wantMedian)
		}
		if s := spread(in); s != wantSpread && !(math.IsNaN(s) && math.IsNaN(wantSpread)) {
			t.Errorf("spread of %v is %v, want %v", in, s, wantSpread)
		}
	}
	nan := math.NaN()
	f(nil, nan, nan)
	f([]float64{4}, 4, 0)
	f([]float64{5, 1, 4}, 4, 1)
	f([]float64{8, 2, 4, 1}, 3, 7.0/3)
}

func TestRatioPairsRounds(t *testing.T) {
	nan := math.NaN()
	f := func(s, base series, want float64) {
		t.Helper()
		if got := ratio(s, base); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%v over %v is %v, want %v", s, base, got, want)
		}
	}
	// The machine became twice as slow in the second half; pairs do not see it.
	f(series{10, 10, 20, 20}, series{5, 5, 10, 10}, 2)
	f(series{10, nan, 30}, series{5, 5, 10}, 2.5)
	f(series{10, 40}, series{5, 10, 1}, 3)
	f(series{10, nan}, series{nan, 10}, nan)
	f(series{10}, series{0}, nan)
	f(nil, nil, nan)
}

// Rounds are run in turn; disturbed ones are dropped and replaced, up to as many as were wanted.
func TestInterleave(t *testing.T) {
	b := &bench{began: time.Now(), ctx: context.Background()}
	running := func() *process { return &process{ended: make(chan struct{})} }
	one := &result{peer: &peer{name: "one", process: running()}}
	two := &result{peer: &peer{name: "two", process: running()}}
	order := ""
	run := func(r *result, round int) (*rounds, sample, error) {
		order += r.peer.name[:1]
		s := sample{cpu: float64(round)}
		if r == two && round == 1 {
			s.disturbance = 2 * disturbance
		}
		return &r.closed, s, nil
	}
	if err := b.interleave("test", 3, []*result{one, two}, run); err != nil {
		t.Fatal(err)
	}
	if order != "otototot" {
		t.Errorf("order of rounds: %s", order)
	}
	if b.ran != 8 || b.dropped != 1 {
		t.Errorf("%d rounds, %d dropped", b.ran, b.dropped)
	}
	if got := two.closed.cpu; len(got) != 4 || !math.IsNaN(got[1]) || got[3] != 3 || two.closed.disturbed {
		t.Errorf("rounds of two: %v, disturbed %v", got, two.closed.disturbed)
	}
	if got := one.closed.cpu.counted(); len(got) != 4 {
		t.Errorf("rounds of one: %v", got)
	}
}

func TestInterleaveGivesUpOnNoise(t *testing.T) {
	b := &bench{began: time.Now(), ctx: context.Background()}
	r := &result{peer: &peer{name: "one", process: &process{ended: make(chan struct{})}}}
	err := b.interleave("test", 3, []*result{r}, func(r *result, round int) (*rounds, sample, error) {
		return &r.closed, sample{cpu: float64(round), disturbance: 1}, nil
	})
	if err != nil || b.ran != 6 || len(r.closed.cpu.counted()) != 6 || !r.closed.disturbed {
		t.Errorf("%v, %d rounds, %v, disturbed %v", err, b.ran, r.closed.cpu, r.closed.disturbed)
	}
}

// A proxy that fails is left out and named; the others go on.
func TestInterleaveWithoutTheFailed(t *testing.T) {
	b := &bench{began: time.Now(), ctx: context.Background()}
	ended := make(chan struct{})
	close(ended)
	good := &result{peer: &peer{name: "good", process: &process{ended: make(chan struct{})}}}
	bad := &result{peer: &peer{name: "bad", process: &process{ended: ended}}}
	err := b.interleave("test", 2, []*result{bad, good}, func(r *result, round int) (*rounds, sample, error) {
		if r == bad {
			return nil, sample{}, errors.New("broken")
		}
		return &r.closed, sample{cpu: 1}, nil
	})
	if err != nil || len(good.closed.cpu) != 2 || good.peer.failure != nil {
		t.Errorf("%v, good has %v, failure %v", err, good.closed.cpu, good.peer.failure)
	}
	if bad.peer.failure == nil || !strings.Contains(bad.peer.failure.Error(), "cannot measure bad, test: broken") {
		t.Errorf("failure of bad: %v", bad.peer.failure)
	}
}

func TestPacedRate(t *testing.T) {
	of := func(perSec ...float64) *result { return &result{closed: rounds{perSec: perSec}} }
	if got := pacedRate([]*result{of(90_000), of(21_000, 23_390, math.NaN(), 25_000), of()}); got != 11_600 {
		t.Errorf("%v, want 11600", got)
	}
	if got := pacedRate([]*result{of(50)}); got != 100 {
		t.Errorf("%v, want 100", got)
	}
	if got := pacedRate([]*result{of()}); got != 0 {
		t.Errorf("%v, want 0", got)
	}
}

func TestDifference(t *testing.T) {
	b := &bench{o: options{proxyCPU: 0, loadCPU: 1}}
	ms := time.Millisecond
	at := time.Now()
	from := state{at: at, done: 100, cpus: map[int]machine.CPU{0: {}, 1: {}}}
	to := state{
		at: at.Add(time.Second), done: 50_100, self: 900 * ms,
		proxy: machine.Usage{Total: 600 * ms, User: 150 * ms, System: 450 * ms},
		cpus:  map[int]machine.CPU{0: {Busy: 640 * ms, Steal: 10 * ms}, 1: {Busy: 930 * ms}},
	}
	s := b.difference(from, to)
	want := sample{cpu: 12, kernel: 0.75, perSec: 50_000, busy: 0.6, disturbance: 0.05}
	if math.Abs(s.disturbance-want.disturbance) > 1e-9 || math.Abs(s.cpu-want.cpu) > 1e-9 {
		t.Errorf("%+v, want %+v", s, want)
	}
	s.disturbance, s.cpu = want.disturbance, want.cpu
	if s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
}

// The backend understands every request, and answers it as the generator expects.
func TestRequests(t *testing.T) {
	l, err := load.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	backend, err := l.Serve(1, answerSizes()...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		backend.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, k := range kinds {
		c, err := l.Dial(backend.Addresses()[0], 2, k.request())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Each(2); err != nil {
			t.Error(err)
		}
		if n, first := c.Failures(); n != 0 || c.Done() != 2 {
			t.Errorf("%s: %d done, %d failed: %v", k.name, c.Done(), n, first)
		}
		c.Close()
	}
}

func TestSnapshot(t *testing.T) {
	s := newMesh(testBackends).snapshot("127.0.0.1:1", "127.0.0.1:2", testBackends[0])
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Tables[0].Hosts); n != 50 {
		t.Errorf("%d virtual hosts, want 50", n)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back model.Snapshot
	if err := json.Unmarshal(text, &back); err != nil || back.Version != s.Version {
		t.Errorf("read back: %v, version %q", err, back.Version)
	}
	for _, h := range s.Tables[0].Hosts {
		if h.Domains[1] != serviceHost {
			continue
		}
		last := h.Rules[len(h.Rules)-1].Route.Destinations
		if len(h.Rules) != 3 || len(last) != 2 || last[0].Weight != 90 || last[1].Weight != 10 {
			t.Errorf("the host under test: %+v", h)
		}
		return
	}
	t.Error("the host under test is not in the table")
}

// Every configuration is one that its own program accepts, where that is installed.
func TestConfigurations(t *testing.T) {
	check := map[string][]string{
		"nginx.conf":      {"NGINX", "nginx", "-t", "-c"},
		"haproxy.cfg":     {"HAPROXY", "haproxy", "-c", "-f"},
		"envoy-bare.yaml": {"ENVOY", "envoy", "--mode", "validate", "-c"},
		"envoy-mesh.yaml": {"ENVOY", "envoy", "--mode", "validate", "-c"},
	}
	for file, how := range check {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			text, err := render(file, testBackends, "127.0.0.1:7000", dir, 4096)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range testBackends {
				_, port, _ := strings.Cut(a, ":")
				if !strings.Contains(string(text), port) {
					t.Errorf("backend %s is not in it", a)
				}
			}
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			program, err := lookUp(how[0], how[1])
			if err != nil {
				t.Skip(err)
			}
			out, err := exec.Command(program, append(how[2:], path)...).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestVersionIn(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := versionIn(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	f("nginx version: nginx/1.22.1\n", "1.22.1")
	f("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12-1+deb12u4")
	f("envoy  version: 9e55809/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0")
	f("hello", "of unknown version")
}

func TestReadAdmin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ready.json")
	f := func(text, want string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readAdmin(file); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	f(`{"admin":"http://127.0.0.1:15000"}`, "127.0.0.1:15000")
	f(`{"admin":"127.0.0.1:15000"}`, "127.0.0.1:15000")
	f(`{}`, "")
	f(`x`, "")
	if got := readAdmin(file + "x"); got != "" {
		t.Errorf("no file: %q", got)
	}
}

func TestParseOptions(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-time", "2s"})
	if err != nil || o.rounds != 3 || o.length != 2*time.Second || o.latencyRounds != 1 {
		t.Errorf("%+v, %v", o, err)
	}
	if n := len(selected(allCases(), o.cases, func(c scenario) string { return c.name })); n != 2 {
		t.Errorf("-quick selects %d cases", n)
	}
	for _, bad := range [][]string{{"-rounds", "0"}, {"-time", "1ms"}, {"-cases", "("}, {"-load-cpu", "0"}, {"-idle", "9999"}, {"x"}} {
		if _, err := parseOptions(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

func TestReport(t *testing.T) {
	b := &bench{began: time.Now(), o: options{idle: 2000, loadCPU: 1}}
	c := allCases()[0]
	cpu := map[string]series{outboundName: {12, 14, 30}, nginxName: {10, 10, 20}, meshName: {40, 40, 50}}
	for _, p := range allPeers() {
		switch {
		case cpu[p.name] != nil:
			b.results = append(b.results, &result{peer: p, c: c, rate: 5000, closed: rounds{cpu: cpu[p.name]}})
			b.memory = append(b.memory, memory{
				peer: p, conns: 2000,
				start: machine.Memory{RSS: 15 << 20}, idle: machine.Memory{RSS: 15<<20 + 24_000_000},
			})
		case p.name == haproxyName:
			p.absence = errors.New("install it with: apt-get install haproxy")
		default:
			continue
		}
		b.peers = append(b.peers, p)
	}
	got := b.report()
	for _, want := range []string{
		"- **haproxy** is missing: install it with: apt-get install haproxy\n",
		"| | get-300B/16 |\n|---|---:|\n| outrider-out | 14.0 |\n",
		"| get-300B/16: CPU per request ≤ 1.30 × nginx | 1.40 | **no** |\n",
		"| get-300B/16: CPU per request ≤ 0.55 × envoy-mesh | 0.35 | yes |\n",
		"| ≤ 16 MiB resident at start | 15.0 MiB | yes |\n",
		"| ≤ 10 KB per idle connection | 12000 bytes | **no** |\n",
		"### GET, 300 B answer, 16 connections\n",
		"| outrider-out | 14.0 | 129 % | – | 1.40 | – | 0.35 |",
		"CPU µs/request at 5000/s |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
}
