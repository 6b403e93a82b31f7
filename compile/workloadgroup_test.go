package compile

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// groupMesh is the mesh of a WorkloadGroup vm with a probe, of a WorkloadEntry of it where there is an address, and of a
// Service for both.
func groupMesh(t *testing.T, probe, address string) *Mesh {
	t.Helper()
	text := `apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vm}
spec:
  metadata: {labels: {app: vm}}
  template: {ports: {bytes: 7000, web: 8080}}
  probe: {` + probe + `}
---
apiVersion: v1
kind: Service
metadata: {name: vm}
spec: {selector: {app: vm}, clusterIP: None, ports: [{name: http-web, port: 80, targetPort: 8080}, {name: tcp-bytes, port: 7000}]}
`
	if address != "" {
		text += `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-` + strings.ReplaceAll(address, ":", "-") + `}
spec: {address: "` + address + `"}
`
	}
	f := config.Decode("vm.yaml", []byte(text))
	if len(f.Findings) > 0 {
		t.Fatal(f.Findings)
	}
	m, findings := New(f.Objects, Options{ExecProbes: true})
	for _, f := range findings {
		if f.Severity != config.Info {
			t.Error(f)
		}
	}
	return m
}

// vmAt is an instance of the mesh's one workload.
func vmAt(m *Mesh, ports ...InstancePort) *Instance {
	return &Instance{Namespace: "default", Workload: m.Templates()[0].Name, Name: "vm-0", Address: "127.1.0.1", Outbound: "127.1.0.1:15001", Sidecar: true, Ports: ports}
}

func served(number int, app string) InstancePort {
	return InstancePort{Port: number, Listen: authority("127.1.0.1", number), App: app}
}

func probeIn(t *testing.T, m *Mesh, x *Instance) *model.Probe {
	t.Helper()
	s, err := m.For(&Placement{Instances: []Instance{*x}}, "default", x.Workload, "")
	if err != nil {
		t.Fatal(err)
	}
	return s.Workload.Probe
}

func TestProbeOfASnapshot(t *testing.T) {
	second := model.Duration(time.Second)
	f := func(probe string, want *model.Probe) {
		t.Helper()
		m := groupMesh(t, probe, "")
		if got := probeIn(t, m, vmAt(m, served(8080, "127.0.0.1:9999"))); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", probe, got, want)
		}
	}
	f("httpGet: {port: 8080}", &model.Probe{
		Address: "127.0.0.1:9999", HTTP: &model.HTTPProbe{Host: "localhost:8080", Path: "/"}, Period: 10 * second, Timeout: second, Successes: 1, Failures: 3,
	})
	f("initialDelaySeconds: 5, timeoutSeconds: 3, periodSeconds: 4, successThreshold: 2, failureThreshold: 6, httpGet: {path: 'healthz?full=1', host: example.com, port: 443, scheme: HTTPS, httpHeaders: [{name: A, value: b}]}", &model.Probe{
		Address: "example.com:443", HTTP: &model.HTTPProbe{TLS: true, Host: "example.com:443", Path: "/healthz?full=1", Headers: []model.NameValue{{Name: "A", Value: "b"}}},
		InitialDelay: 5 * second, Period: 4 * second, Timeout: 3 * second, Successes: 2, Failures: 6,
	})
	f("tcpSocket: {port: 22}", &model.Probe{Address: "127.0.0.1:22", Period: 10 * second, Timeout: second, Successes: 1, Failures: 3})
	f("grpc: {port: 8080, service: a.B}", &model.Probe{
		Address: "127.0.0.1:9999", GRPC: &model.GRPCProbe{Service: "a.B"}, Period: 10 * second, Timeout: second, Successes: 1, Failures: 3,
	})
}

// TestProbeThatIsACommand is kept as it is, whatever plays the application, and only where commands are allowed.
func TestProbeThatIsACommand(t *testing.T) {
	m := groupMesh(t, "timeoutSeconds: 2, exec: {command: [/opt/check, '-v', '']}", "192.0.2.1")
	x := vmAt(m, served(8080, "192.0.2.1:8080"))
	for _, x.StandIn = range []bool{false, true} {
		got := probeIn(t, m, x)
		if want := (&model.Probe{
			Exec: &model.ExecProbe{Command: []string{"/opt/check", "-v", ""}}, Period: model.Duration(10 * time.Second), Timeout: model.Duration(2 * time.Second), Successes: 1, Failures: 3,
		}); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	files := config.Decode("vm.yaml", []byte(`apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vm}
spec: {template: {}, probe: {exec: {command: [/opt/check]}}}
`))
	m, findings := New(files.Objects, Options{})
	if len(findings) != 1 || findings[0].ID != probeCommand.ID || m.Templates()[0].Probe != nil {
		t.Errorf("not allowed: %v, probe %v", findings, m.Templates()[0].Probe)
	}
}

func TestWhereAProbeGoes(t *testing.T) {
	f := func(host, address string, number string, x func(*Mesh) *Instance, want string) {
		t.Helper()
		q := "port: " + number
		if host != "" {
			q += ", host: '" + host + "'"
		}
		m := groupMesh(t, "tcpSocket: {"+q+"}", address)
		if got := probeIn(t, m, x(m)).Address; got != want {
			t.Errorf("host %q, entry %q, port %s: %s, want %s", host, address, number, got, want)
		}
	}
	placed := func(ports ...InstancePort) func(*Mesh) *Instance {
		return func(m *Mesh) *Instance { return vmAt(m, ports...) }
	}
	standIn := func(ports ...InstancePort) func(*Mesh) *Instance {
		return func(m *Mesh) *Instance {
			x := vmAt(m, ports...)
			x.StandIn = true
			return x
		}
	}
	// The workload's own machine is where its application is.
	f("", "", "8080", placed(served(7000, "10.0.0.1:1"), served(8080, "10.0.0.1:2")), "10.0.0.1:2")
	f("127.0.0.1", "", "8080", placed(served(8080, "10.0.0.1:2")), "10.0.0.1:2")
	f("::1", "", "9000", placed(served(8080, "10.0.0.1:2")), "10.0.0.1:9000")
	f("localhost", "", "9000", placed(served(8080, "[2001:db8::1]:2")), "[2001:db8::1]:9000")
	f("", "", "9000", placed(served(8080, "")), "localhost:9000")
	f("", "192.0.2.1", "9000", placed(served(8080, "192.0.2.1:8080")), "192.0.2.1:9000")
	f("192.0.2.1", "192.0.2.1", "8080", placed(served(8080, "127.0.0.1:5")), "127.0.0.1:5")
	// Another host is asked as written.
	f("192.0.2.9", "192.0.2.1", "8080", placed(served(8080, "192.0.2.1:8080")), "192.0.2.9:8080")
	// A stand-in has its own ports only.
	f("", "", "8080", standIn(served(7000, "127.0.0.1:1"), served(8080, "127.0.0.1:2")), "127.0.0.1:2")
	f("", "", "9000", standIn(served(7000, "127.0.0.1:1"), served(8080, "127.0.0.1:2")), "127.0.0.1:2")
	f("", "", "9000", standIn(served(7000, "127.0.0.1:1")), "127.0.0.1:1")

	m := groupMesh(t, "httpGet: {port: 8080, scheme: HTTPS}", "")
	if p := probeIn(t, m, standIn(served(8080, "127.0.0.1:2"))(m)); p.HTTP.TLS {
		t.Error("a stand-in speaks no TLS")
	}
	if p := probeIn(t, m, vmAt(m, served(8080, "127.0.0.1:2"))); !p.HTTP.TLS {
		t.Error("an application does")
	}
}

// TestNobodyProbes says for whom no probe is asked: without a sidecar, and where the entry declines.
func TestNobodyProbes(t *testing.T) {
	f := func(metadata string, want bool) {
		t.Helper()
		files := config.Decode("vm.yaml", []byte(`apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vm}
spec: {template: {}, probe: {tcpSocket: {port: 80}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-10.0.0.1`+metadata+`}
spec: {address: 10.0.0.1}
`))
		m, _ := New(files.Objects, Options{})
		if got := m.Templates()[0].Probe != nil; got != want {
			t.Errorf("%s: probed is %v", metadata, got)
		}
	}
	f("", true)
	f(`, annotations: {proxy.istio.io/health-checks-enabled: "true"}`, true)
	f(`, annotations: {proxy.istio.io/health-checks-enabled: "false"}`, false)
	f(`, labels: {sidecar.istio.io/inject: "false"}`, false)
}

// TestUnreadyEndpoints says how a placement's word reaches clusters: an endpoint that is not ready is marked, and not asked
// by the panic threshold that nobody chose.
func TestUnreadyEndpoints(t *testing.T) {
	m := groupMesh(t, "tcpSocket: {port: 8080}", "")
	f := func(unready bool, panics uint32) {
		t.Helper()
		x := *vmAt(m, served(8080, "127.0.0.1:1"))
		x.Unready = unready
		s, err := m.For(&Placement{Instances: []Instance{x, {Namespace: "default", Workload: "local", Name: "local", Address: "127.0.0.1", Outbound: "127.0.0.1:15001", Sidecar: true}}}, "default", "local", "")
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for i := range s.Clusters {
			if c := &s.Clusters[i]; c.Port == 80 && len(c.Endpoints) == 1 {
				found++
				if c.Endpoints[0].Unready != unready || c.Panic != panics {
					t.Errorf("unready is %v: %s: unready %v, panic %d", unready, c.Name, c.Endpoints[0].Unready, c.Panic)
				}
			}
		}
		if found != 2 { // the Service's, and the instance's own name's
			t.Errorf("%d clusters", found)
		}
	}
	f(false, defaultPanic)
	f(true, 0)
	f(false, defaultPanic)
}
