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
	"slices"
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
	running := func() *process { return &process{ended: make(chan struct{}), free: func() {}} }
	one := &result{entrant: &entrant{peer: &peer{name: "one"}, process: running()}}
	two := &result{entrant: &entrant{peer: &peer{name: "two"}, process: running()}}
	order := ""
	run := func(r *result, round int) (*rounds, sample, error) {
		order += r.name[:1]
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
	r := &result{entrant: &entrant{peer: &peer{name: "one"}, process: &process{ended: make(chan struct{}), free: func() {}}}}
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
	http := allLanes()[0]
	good := &result{entrant: &entrant{peer: &peer{name: "good"}, lane: http, process: &process{ended: make(chan struct{}), free: func() {}}}}
	bad := &result{entrant: &entrant{peer: &peer{name: "bad"}, lane: http, process: &process{ended: ended, free: func() {}}}}
	err := b.interleave("test", 2, []*result{bad, good}, func(r *result, round int) (*rounds, sample, error) {
		if r == bad {
			return nil, sample{}, errors.New("broken")
		}
		return &r.closed, sample{cpu: 1}, nil
	})
	if err != nil || len(good.closed.cpu) != 2 || good.failure != nil {
		t.Errorf("%v, good has %v, failure %v", err, good.closed.cpu, good.failure)
	}
	if bad.failure == nil || !strings.Contains(bad.failure.Error(), "cannot measure bad, test: broken") {
		t.Errorf("failure of bad: %v", bad.failure)
	}
}

func TestPacedRate(t *testing.T) {
	of := func(name string, perSec ...float64) *result {
		return &result{entrant: &entrant{peer: &peer{name: name}}, closed: rounds{perSec: perSec}}
	}
	slow, fast := of("a", 21_000, 23_390, math.NaN(), 25_000), of("b", 90_000)
	if got := pacedRate([]*result{fast, slow, of("c")}); got != 11_600 {
		t.Errorf("%v, want 11600", got)
	}
	if got := pacedRate([]*result{fast, slow, of(meshName, 60_000)}); got != 30_000 {
		t.Errorf("beside the mesh-like Envoy: %v, want 30000", got)
	}
	if got := pacedRate([]*result{of("a", 50)}); got != 100 {
		t.Errorf("%v, want 100", got)
	}
	if got := pacedRate([]*result{of("a")}); got != 0 {
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
	s := b.difference(from, to, 1)
	want := sample{cpu: 12, kernel: 0.75, perSec: 50_000, busy: 0.6, disturbance: 0.05}
	if math.Abs(s.disturbance-want.disturbance) > 1e-9 || math.Abs(s.cpu-want.cpu) > 1e-9 {
		t.Errorf("%+v, want %+v", s, want)
	}
	s.disturbance, s.cpu = want.disturbance, want.cpu
	if s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
	if s := b.difference(from, to, 2); math.Abs(s.cpu-6) > 1e-9 || s.perSec != 100_000 {
		t.Errorf("two units for one done: %+v", s)
	}
}

// The backend understands every request, in every form that clients and proxies may give it, and answers it as the
// generator expects.
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
	for _, c := range allCases() {
		if c.lane.TCP() || c.handshakes {
			continue
		}
		to := load.Target{Addr: backend.Addresses()[0], Conns: 2, Streams: min(c.streams, 2)}
		n, err := l.Dial(to, c.request())
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Each(2); err != nil {
			t.Error(err)
		}
		if failed, first := n.Failures(); failed != 0 || n.Done() < 2 {
			t.Errorf("%s: %d done, %d failed: %v", c.name, n.Done(), failed, first)
		}
		n.Close()
	}
}

func TestCases(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range allCases() {
		if seen[c.name] || c.unit == "" || c.perDone == 0 || c.conns == 0 {
			t.Errorf("case %+v", c)
		}
		seen[c.name] = true
		if c.paced && !c.lane.direct {
			t.Errorf("%s: added latency needs a lane that runs without a proxy", c.name)
		}
		if c.lane.TakesHTTP2() != (c.streams > 0) {
			t.Errorf("%s: %d streams where %s is spoken", c.name, c.streams, c.lane.in)
		}
	}
	for _, g := range goals {
		for _, name := range g.cases {
			if !seen[name] {
				t.Errorf("a goal is for %q, which is no case", name)
			}
		}
	}
	for _, p := range allPeers() {
		for _, l := range p.lanes {
			if !slices.ContainsFunc(allLanes(), func(o *lane) bool { return o.name == l }) || p.apart[l] != "" {
				t.Errorf("%s: lane %q", p.name, l)
			}
		}
	}
}

func TestSnapshot(t *testing.T) {
	i, err := newIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{outboundName: "127.0.0.1:1", inboundName: "127.0.0.1:2", gatewayName: "127.0.0.1:3"}
	for _, l := range allLanes() {
		s := newMesh(testBackends).snapshot(l, at, i)
		if err := s.Validate(); err != nil {
			t.Fatalf("%s: %v", l.name, err)
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back model.Snapshot
		if err := json.Unmarshal(text, &back); err != nil || back.Version != s.Version {
			t.Errorf("%s: read back: %v, version %q", l.name, err, back.Version)
		}
		hosts, rules := 50, 3
		if l.TCP() {
			hosts, rules = 1, 1
		}
		if n := len(s.Tables[0].Hosts); n != hosts {
			t.Errorf("%s: %d virtual hosts, want %d", l.name, n, hosts)
		}
		h := s.Tables[0].Hosts[slices.IndexFunc(s.Tables[0].Hosts, func(h model.VirtualHost) bool { return strings.HasPrefix(h.Name, serviceHost) })]
		last := h.Rules[len(h.Rules)-1].Route.Destinations
		if len(h.Rules) != rules || len(last) != 2 || last[0].Weight != 90 || last[1].Weight != 10 {
			t.Errorf("%s: the host under test: %+v", l.name, h)
		}
	}
}

// What protects is before every cluster but the application's, and on every route, and the rest is as without it.
func TestGuard(t *testing.T) {
	i, err := newIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{outboundName: "127.0.0.1:1", inboundName: "127.0.0.1:2"}
	m := newMesh(testBackends)
	without := m.snapshot(allLanes()[0], at, i)
	m.guarded = true
	s := m.snapshot(allLanes()[0], at, i)
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	if len(s.Breakers) != otherHosts+1 || s.Version == without.Version || len(s.Clusters) != len(without.Clusters) {
		t.Errorf("%d breakers, %d clusters, version %s", len(s.Breakers), len(s.Clusters), s.Version)
	}
	for _, c := range s.Clusters {
		if own := c.Kind == model.Application; (c.Limits == nil) != own || (c.Outlier == nil) != own || (len(c.Breakers) == 0) != own {
			t.Errorf("%s: limits %+v, outlier detection %+v, breakers %v", c.Name, c.Limits, c.Outlier, c.Breakers)
		}
	}
	for _, h := range s.Tables[0].Hosts {
		for _, r := range h.Rules {
			if r.Route.Retries == nil {
				t.Errorf("%s: %s has no retries", h.Name, r.Origin.Rule)
			}
		}
	}
	for _, c := range without.Clusters {
		if c.Limits != nil || c.Outlier != nil || len(c.Breakers) > 0 {
			t.Errorf("%s is guarded in the other snapshot too", c.Name)
		}
	}
}

// Every configuration is one that its own program accepts, where that is installed.
func TestConfigurations(t *testing.T) {
	i, err := newIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	check := map[string]struct {
		file string
		how  []string
	}{
		nginxName:   {"nginx.conf", []string{"NGINX", "nginx", "-t", "-c"}},
		haproxyName: {"haproxy.cfg", []string{"HAPROXY", "haproxy", "-c", "-f"}},
		bareName:    {"envoy-bare.yaml", []string{"ENVOY", "envoy", "--mode", "validate", "-c"}},
		meshName:    {"envoy-mesh.yaml", []string{"ENVOY", "envoy", "--mode", "validate", "-c"}},
	}
	for _, p := range allPeers() {
		with := check[p.name]
		for _, l := range allLanes() {
			if with.file == "" || !slices.Contains(p.lanes, l.name) {
				continue
			}
			t.Run(p.name+"/"+l.name, func(t *testing.T) {
				program, missing := lookUp(with.how[0], with.how[1])
				e := &entrant{peer: &peer{name: p.name, path: program}, lane: l}
				if missing != nil && p.name == nginxName && l.TCP() {
					t.Skip(missing)
				}
				dir := t.TempDir()
				text, err := render(with.file, e, testBackends, i, "127.0.0.1:7000", dir, 4096)
				if err != nil && p.name == nginxName && l.TCP() {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range testBackends {
					_, port, _ := strings.Cut(a, ":")
					if !strings.Contains(string(text), port) {
						t.Errorf("backend %s is not in it", a)
					}
				}
				if missing != nil {
					t.Skip(missing)
				}
				path := filepath.Join(dir, with.file)
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command(program, append(with.how[2:], path)...).CombinedOutput()
				if err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
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
	if n := len(selected(allCases(), o.cases, func(c scenario) string { return c.name })); n != 3 {
		t.Errorf("-quick selects %d cases", n)
	}
	for _, bad := range [][]string{{"-rounds", "0"}, {"-time", "1ms"}, {"-cases", "("}, {"-load-cpu", "0"}, {"-idle", "9999"}, {"x"}} {
		if _, err := parseOptions(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

func TestReport(t *testing.T) {
	b := &bench{began: time.Now(), o: options{idle: 2000, loadCPU: 1}, alone: map[string]alone{}}
	cases := map[string]scenario{}
	for _, c := range allCases() {
		cases[c.name] = c
	}
	cpu := map[string]map[string]series{
		"get-300B/64":       {outboundName: {12, 14, 30}, guardedName: {12, 21, 30}, nginxName: {10, 10, 20}, haproxyName: {20, 20, 20}, meshName: {40, 40, 50}},
		"h2c-get-300B/4x32": {outboundName: {3, 3, 3}, guardedName: {3, 6, 6}, haproxyName: {4, 4, 4}, meshName: {15, 15, 15}},
		"tcp-bytes/4":       {outboundName: {100}, haproxyName: {80}},
		"tls-handshake/8":   {gatewayName: {300}},
	}
	p99 := map[string]series{outboundName: {500}, meshName: {400}}
	for _, p := range allPeers() {
		b.peers = append(b.peers, p)
		if p.name == "nghttpx" {
			p.absence = errors.New("install it with: apt-get install nghttp2-proxy")
			continue
		}
		for name, all := range cpu {
			if all[p.name] == nil {
				continue
			}
			e := &entrant{peer: p, lane: cases[name].lane}
			r := &result{entrant: e, c: cases[name], closed: rounds{cpu: all[p.name]}}
			if r.c.paced {
				r.rate, r.paced.p99 = 5000, p99[p.name]
			}
			if r.c.handshakes {
				r.group = "X25519MLKEM768"
			}
			b.entrants, b.results = append(b.entrants, e), append(b.results, r)
			if e.lane.idle {
				rss := machine.Memory{RSS: 15<<20 + 24_000_000}
				b.memory = append(b.memory, memory{entrant: e, conns: 2000, atStart: machine.Memory{RSS: 15 << 20}, idle: rss})
			}
		}
	}
	bare := b.peers[slices.IndexFunc(b.peers, func(p *peer) bool { return p.name == bareName })]
	b.entrants = append(b.entrants, &entrant{peer: bare, lane: cases["tcp-bytes/4"].lane, failure: errors.New("it broke\nin two lines")})
	b.alone["get-300B/64"] = alone{cpu: series{3}, p99: series{100}}
	got := b.report()
	for _, want := range []string{
		"- **nghttpx** is missing: install it with: apt-get install nghttp2-proxy\n",
		"- **envoy-bare failed in tcp** and is left out from there on: it broke\n",
		"### HTTP/1.1: CPU µs\n\n| | get-300B/64, a request |\n|---|---:|\n| outrider-out | 14.0 |\n",
		"| | tcp-bytes/4, a MiB |\n", "| envoy-bare | failed |\n",
		"nginx has no row: it speaks no HTTP/2 to backends",
		"| get-300B/64: CPU ≤ 1.15 × the better of nginx and haproxy | 1.40 | **missed by 22 %** |\n",
		"| get-300B/64: CPU ≤ 0.45 × envoy-mesh | 0.35 | met |\n",
		"| get-300B/64: CPU of outrider-guarded ≤ 1.05 × outrider-out | 1.00 | met |\n",
		"| h2c-get-300B/4x32: CPU of outrider-guarded ≤ 1.05 × outrider-out | 2.00 | **missed by 91 %** |\n",
		"| h2c-get-300B/4x32: CPU ≤ 1.00 × haproxy | 0.75 | met |\n",
		"| h2c-get-300B/4x32: CPU ≤ 0.30 × envoy-mesh | 0.20 | met |\n",
		"| tcp-bytes/4: CPU ≤ 1.11 × haproxy | 1.25 | **missed by 13 %** |\n",
		"| get-300B/64: added p99 at 5000/s ≤ envoy-mesh's, 300 µs | 400 µs | **missed by 34 %** |\n",
		"| h2c-get-300B/4x32: added p99 at 5000/s ≤ envoy-mesh's, – µs | – µs | not measured |\n",
		"| ≤ 16 MiB resident at start | 15.0 MiB | met |\n",
		"| ≤ 10 KB per idle connection of HTTP/1.1 | 12000 bytes | **missed by 20 %** |\n",
		"| ≤ 20 KB per idle connection of HTTP/2 | 12000 bytes | met |\n",
		"### get-300B/64: GET, 300 B answer, 64 connections\n",
		"| outrider-out | 14.0 | 129 % | – | 1.40 | 0.70 | 0.35 |",
		"CPU µs/request at 5000/s |", "| 500 | 400 | – |",
		"Generator and backend alone: 3.00 µs a request, both together; p99 at that rate 100 µs.\n",
		"### h2c-get-300B/4x32: GET, 300 B answer, 4 connections x 32 streams\n",
		"| X25519MLKEM768 |", "| 10.49 |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
}
