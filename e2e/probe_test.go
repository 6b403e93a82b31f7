package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/outrider-mesh/outrider/local"
	"github.com/outrider-mesh/outrider/meshtest"
)

// machine is an application on a machine of its own: it answers requests, and at /healthz whether it is ready.
type machine struct {
	at      string
	ill     atomic.Bool
	asked   atomic.Int64 // requests
	good    atomic.Int64 // good answers to the probe, since the last bad one
	bad     atomic.Int64 // bad answers to the probe
	goodAt  atomic.Int64 // good, when the first request came after a bad answer
	waiting atomic.Bool  // for that request
}

func (a *machine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/healthz" {
		a.asked.Add(1)
		if a.waiting.CompareAndSwap(true, false) {
			a.goodAt.Store(a.good.Load())
		}
		_, _ = io.WriteString(w, a.at)
		return
	}
	if a.ill.Load() {
		a.good.Store(0)
		a.bad.Add(1)
		w.WriteHeader(503)
		return
	}
	a.good.Add(1)
}

// machines starts applications that end with the test; each has an address of the loopback network of its own, or free ports.
func machines(t *testing.T, addresses ...string) []*machine {
	t.Helper()
	out := make([]*machine, len(addresses))
	for i, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = &machine{at: l.Addr().String()}
		s := httptest.NewUnstartedServer(out[i])
		_ = s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
	}
	return out
}

// traffic sends requests without a pause until the stop, which returns how many there were and what was not a 200. Where the
// test fails before, it stops with it.
func (m *mesh) traffic(target string) (stop func() (sent int, failed []string)) {
	var mu sync.Mutex
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	sent, failed := 0, []string(nil)
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				a, err := m.try(http.MethodGet, target)
				mu.Lock()
				sent++
				switch {
				case err != nil:
					failed = append(failed, err.Error())
				case a.Status != 200:
					failed = append(failed, fmt.Sprint(a.Status, " ", a.Header.Get("x-outrider-reason")))
				}
				mu.Unlock()
			}
		})
	}
	end := func() {
		cancel()
		all.Wait()
	}
	m.t.Cleanup(end)
	return func() (int, []string) {
		end()
		return sent, failed
	}
}

// says tells whether a line of a workload's metrics is there as it is.
func (m *mesh) says(workload, line string) bool {
	return strings.Contains(m.exposition(workload), "\n"+line+"\n")
}

const unreadyOnes = `reason="unready"`

// TestApplicationThatFailsItsProbe has three machines of a WorkloadGroup. One begins to fail its probe under load, and gets
// no request any more; a change of another object does not let it back, passing its probe does.
func TestApplicationThatFailsItsProbe(t *testing.T) {
	t.Parallel()
	vms := machines(t, "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")
	const group = `---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vm}
spec:
  metadata: {labels: {app: web}}
  template: {ports: {http: 8080}, serviceAccount: web}
`
	const probe = `  probe: {periodSeconds: 1, timeoutSeconds: 30, successThreshold: 3, failureThreshold: 2, httpGet: {path: /healthz, port: 8080}}
`
	web := service("web", "app: web") + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
`
	m := up(t, web+group, func(o *local.Options) {
		o.StandIns = false
		o.Apps = []local.App{{Namespace: "default", Workload: "vm", Port: 8080, Addresses: []string{vms[0].at, vms[1].at, vms[2].at}}}
	})
	askedAll := func() bool {
		for range 3 {
			m.get("http://web/")
		}
		return vms[0].asked.Load() > 0 && vms[1].asked.Load() > 0 && vms[2].asked.Load() > 0
	}
	m.await("all machines are asked", askedAll)

	stop := m.traffic("http://web/")
	m.edit("mesh.yaml", web+group+probe) // those that run are ready until they fail
	m.await("the machines are probed", func() bool {
		return vms[0].good.Load() > 0 && m.says("vm", "outrider_probe_ready 1")
	})
	vms[0].ill.Store(true)
	m.await("the ill one is left out", func() bool { return m.total("outrider_endpoint_ejected", unreadyOnes) == 1 })
	if n := vms[0].bad.Load(); n < 2 {
		t.Errorf("it was left out after %d bad answers, 2 are needed", n)
	}
	sent, failed := stop()
	if sent < 20 || len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %q", len(failed), sent, failed[:min(len(failed), 5)])
	}
	m.await("its own metrics say so", func() bool {
		return m.says("vm", "outrider_probe_ready 0") && m.says("vm", `outrider_probe_changes_total{to="unready"} 1`)
	})
	m.await("people are told", func() bool {
		return strings.Contains(m.talk.String(), "default/vm/vm-0 gets no requests: it fails its probe: GET http://"+vms[0].at+"/healthz: status 503\n")
	})

	left := vms[0].asked.Load()
	only := func(what string) {
		t.Helper()
		for range 30 {
			if a := m.get("http://web/"); a.Status != 200 || a.Text == vms[0].at {
				t.Fatalf("%s: %d %s", what, a.Status, a.Text)
			}
		}
		if n := vms[0].asked.Load(); n != left {
			t.Errorf("%s: the ill one was asked %d times", what, n-left)
		}
	}
	only("it is ill")
	m.edit("other.yaml", service("other", "app: other"))
	only("something else changed")
	m.edit("mesh.yaml", web+group+strings.Replace(probe, "failureThreshold: 2", "failureThreshold: 1", 1))
	only("its probe changed")
	if n := m.total("outrider_endpoints", `state="unready"`, `destination_service="web.`); n != 1 {
		t.Errorf("%v endpoints are unready", n)
	}

	vms[0].waiting.Store(true)
	vms[0].ill.Store(false)
	stop = m.traffic("http://web/")
	m.await("the healthy one is asked again", func() bool { return vms[0].asked.Load() > left })
	if n := vms[0].goodAt.Load(); n < 3 {
		t.Errorf("it was asked after %d good answers, 3 are needed", n)
	}
	if sent, failed := stop(); len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %q", len(failed), sent, failed[:min(len(failed), 5)])
	}
	m.await("people are told that it is back", func() bool {
		return strings.Contains(m.talk.String(), "default/vm/vm-0 gets requests again: it passes its probe\n")
	})
	m.await("nobody is left out", func() bool { return m.total("outrider_endpoint_ejected", unreadyOnes) == 0 })
}

// TestEntriesOfAWorkloadGroup has machines with WorkloadEntries, probed at their own addresses. New ones get nothing before
// they pass; where none is left, the panic threshold decides.
func TestEntriesOfAWorkloadGroup(t *testing.T) {
	t.Parallel()
	vms := machines(t, meshtest.Address(t), meshtest.Address(t))
	vms[1].ill.Store(true)
	text := machinesEntry
	for i, name := range []string{"one", "two"} { // each entry belongs to its group by its name
		text += group(t, name, vms[i], "httpGet: {path: /healthz, port: %[2]s}")
	}
	m := up(t, text, func(o *local.Options) { o.StandIns = false })
	m.await("the one that is ready is asked", func() bool { return m.get("http://web.example.com/").Status == 200 })
	m.await("the other one is probed", func() bool { return vms[1].bad.Load() > 1 })
	if n := vms[1].asked.Load(); n != 0 {
		t.Errorf("the one that was never ready was asked %d times", n)
	}
	vms[0].ill.Store(true)
	m.await("nobody is left", func() bool {
		a := m.get("http://web.example.com/")
		return a.Status == 503 && a.Header.Get("x-outrider-reason") == "no_healthy_endpoint"
	})
	m.edit("mesh.yaml", text+`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web.example.com, trafficPolicy: {outlierDetection: {minHealthPercent: 50, maxEjectionPercent: 100, consecutive5xxErrors: 0}}}
`)
	m.await("too few are left: all are asked", func() bool {
		a := m.get("http://web.example.com/")
		return a.Status == 200 && vms[1].asked.Load() > 0
	})
	m.await("the metrics say so", func() bool { return m.total("outrider_panic") == 1 })
	vms[0].ill.Store(false)
	m.await("one of two is enough", func() bool { return m.total("outrider_panic") == 0 })
	n := vms[1].asked.Load()
	for range 20 {
		if a := m.get("http://web.example.com/"); a.Text != vms[0].at {
			t.Errorf("%d %s", a.Status, a.Text)
		}
	}
	if vms[1].asked.Load() != n {
		t.Error("the ill one is asked")
	}
}

// TestStandInsAreProbed lets stand-ins play machines: by each method, at a port that only the probe names, and as they
// misbehave.
func TestStandInsAreProbed(t *testing.T) {
	t.Parallel()
	group := func(name, port, probe string) string {
		return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: %[1]s}
spec:
  metadata: {labels: {app: %[1]s}}
  template: {ports: {%[2]s: 8080}}
  probe: {periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1, %[3]s}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{name: %[2]s, port: 80, targetPort: 8080}]}
`, name, port, probe)
	}
	m := up(t, group("web", "http", "httpGet: {path: /foo/bar, host: 127.0.0.1, port: 3100, scheme: HTTPS}")+
		group("calls", "grpc", "grpc: {port: 8080, service: some.Service}")+group("bytes", "tcp", "tcpSocket: {port: 8080}"))
	for _, name := range []string{"web", "calls"} {
		m.await(name+" is ready", func() bool { return m.get("http://"+name+"/").Status == 200 })
		m.misbehave(name+"-0", "status=503")
		m.await(name+" gets nothing", func() bool {
			return m.get("http://"+name+"/").Header.Get("x-outrider-reason") == "no_healthy_endpoint"
		})
		m.misbehave(name+"-0", "")
		m.await(name+" is ready again", func() bool { return m.get("http://"+name+"/").Status == 200 })
	}
	m.await("bytes is ready", func() bool { return m.says("bytes", "outrider_probe_ready 1") })
}

// group is a machine's WorkloadGroup, named name, with its entry; what asks for its health may name its port as %[2]s.
func group(t *testing.T, name string, vm *machine, ask string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(vm.at)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: %[1]s}
spec:
  metadata: {labels: {app: web}}
  template: {ports: {http: %[2]s}}
  probe: {periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1, `+ask+`}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: %[1]s-127.0.0.1}
spec: {address: 127.0.0.1}
`, name, port)
}

// flagged is a machine's WorkloadGroup whose probe is the command; vm is what answers for it.
func flagged(t *testing.T, name string, vm *machine, command ...string) string {
	t.Helper()
	list, err := json.Marshal(command)
	if err != nil {
		t.Fatal(err)
	}
	return group(t, name, vm, "exec: {command: "+strings.ReplaceAll(string(list), "%", "%%")+"}")
}

// machinesEntry is the service of those machines.
const machinesEntry = `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web}
spec:
  hosts: [web.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: web}}
  ports: [{number: 80, name: http, protocol: HTTP}]
`

const flaggedService = machinesEntry + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web.example.com, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
`

// TestProbesThatAreCommands has machines that are ready while a file is there, as test(1) sees it, and one whose program is
// not installed.
func TestProbesThatAreCommands(t *testing.T) {
	t.Parallel()
	vms := machines(t, meshtest.Address(t), meshtest.Address(t), meshtest.Address(t))
	flags := []string{filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")}
	raise := func(i int) {
		t.Helper()
		if err := os.WriteFile(flags[i], nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raise(0)
	raise(1)
	m := up(t, flaggedService+flagged(t, "one", vms[0], "test", "-f", flags[0])+
		flagged(t, "two", vms[1], "/bin/sh", "-c", `test -f "$1" || { echo "$1 is gone"; exit 3; }`, "sh", flags[1])+
		flagged(t, "three", vms[2], "/nowhere/check"), func(o *local.Options) {
		o.StandIns, o.ExecProbes = false, true
	})
	web := func() string {
		a := m.get("http://web.example.com/")
		if a.Status != 200 {
			return fmt.Sprint(a.Status, " ", a.Header.Get("x-outrider-reason"))
		}
		return a.Text
	}
	m.await("both are asked", func() bool { web(); return vms[0].asked.Load() > 0 && vms[1].asked.Load() > 0 })
	m.await("people are told who is ready", func() bool {
		return strings.Contains(m.talk.String(), "default/two-127.0.0.1/two-127.0.0.1 gets requests: it passes its probe\n")
	})
	m.await("people are told what is missing", func() bool {
		return strings.Contains(m.talk.String(), "default/three-127.0.0.1/three-127.0.0.1 gets no requests: it fails its probe: command /nowhere/check: there is no such program, or not the interpreter that its first line names; install it on the sidecar's machine\n")
	})

	stop := m.traffic("http://web.example.com/")
	if err := os.Remove(flags[1]); err != nil {
		t.Fatal(err)
	}
	m.await("two of three are left out", func() bool { return m.total("outrider_endpoint_ejected", unreadyOnes) == 2 })
	if sent, failed := stop(); sent == 0 || len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %q", len(failed), sent, failed[:min(len(failed), 5)])
	}
	m.await("people are told why", func() bool {
		return strings.Contains(m.talk.String(), "default/two-127.0.0.1/two-127.0.0.1 gets no requests: it fails its probe: command /bin/sh: exit code 3: "+flags[1]+" is gone\n")
	})
	m.await("its own metrics say so", func() bool { return m.says("two-127.0.0.1", "outrider_probe_ready 0") })
	left := vms[1].asked.Load()
	for range 20 {
		if got := web(); got != vms[0].at {
			t.Fatalf("while the second is not ready: %s", got)
		}
	}
	raise(1)
	m.await("the second is asked again", func() bool { web(); return vms[1].asked.Load() > left })
	if n := vms[2].asked.Load(); n != 0 {
		t.Errorf("the one whose program is missing was asked %d times", n)
	}
}

// TestCommandsAreNotRunUnasked runs no command where nobody has allowed it: who reads the files may not be who wrote them.
func TestCommandsAreNotRunUnasked(t *testing.T) {
	t.Parallel()
	vms := machines(t, meshtest.Address(t))
	trace := filepath.Join(t.TempDir(), "trace")
	m := up(t, flaggedService+flagged(t, "one", vms[0], "/bin/sh", "-c", `echo >"$1"; exit 1`, "sh", trace), func(o *local.Options) { o.StandIns = false })
	for range 10 {
		if a := m.get("http://web.example.com/"); a.Status != 200 {
			t.Fatalf("%d %s", a.Status, a.Text)
		}
	}
	if text := m.exposition("one-127.0.0.1"); strings.Contains(text, "outrider_probe_") {
		t.Errorf("it is probed:\n%s", text)
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("the command was run")
	}
	if !strings.Contains(m.talk.String(), "spec.probe.exec: the command is not run: ") || !strings.Contains(m.talk.String(), "allow it by --allow-exec-probes") {
		t.Error("nobody is told")
	}
}
