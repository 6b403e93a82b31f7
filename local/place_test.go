package local

import (
	"errors"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/mesh/model"
)

func workload(kind, name string, replicas int, ports ...int) compile.Template {
	t := compile.Template{Kind: kind, Replicas: replicas, Sidecar: true}
	t.Namespace, t.Name = "default", name
	for _, p := range ports {
		t.Ports = append(t.Ports, compile.TemplatePort{Port: p, Protocol: model.HTTP})
	}
	return t
}

func client() compile.Template { return workload("Local", "local", 1) }

func offlinePlanner() *planner {
	p := newPlanner(&sockets{offline: true}, block{n: 1})
	p.client, p.metrics, p.assume = "127.0.0.1:15001", "127.0.0.1:15020", true
	return p
}

// addresses writes a plan as instance=address, in its order.
func addresses(p *plan) string {
	var out []string
	for _, in := range p.instances {
		out = append(out, in.Name+"="+in.Address)
	}
	return strings.Join(out, " ")
}

func TestAddressesStay(t *testing.T) {
	p := offlinePlanner()
	f := func(want string, templates ...compile.Template) {
		t.Helper()
		if got := addresses(p.plan(templates, client(), nil)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	a, b := workload("Deployment", "a", 2, 80), workload("Deployment", "b", 5, 80)
	f("a-0=127.1.0.1 a-1=127.1.0.2 b-0=127.1.0.3 b-1=127.1.0.4 b-2=127.1.0.5 local=127.0.0.1", a, b)
	f("a-0=127.1.0.1 a-1=127.1.0.2 local=127.0.0.1", a)
	// One that is new comes after all that ever were, whatever its name; one that comes back has its number.
	f("a-0=127.1.0.1 a-1=127.1.0.2 aa-0=127.1.0.6 b-0=127.1.0.3 b-1=127.1.0.4 b-2=127.1.0.5 local=127.0.0.1", a, workload("Deployment", "aa", 1, 80), b)
	a.Replicas = 3
	f("a-0=127.1.0.1 a-1=127.1.0.2 a-2=127.1.0.7 local=127.0.0.1 pod=127.1.0.8 we=127.1.0.9", a, workload("Pod", "pod", 1), workload("WorkloadEntry", "we", 1))
	a.Replicas = 0
	f("local=127.0.0.1", a)
}

func TestManyInstancesAreInOrder(t *testing.T) {
	p := offlinePlanner()
	p.replicas = 300
	plan := p.plan([]compile.Template{workload("Deployment", "a", 300, 80)}, client(), nil)
	seen := map[string]bool{}
	for _, in := range plan.instances {
		if ip := net.ParseIP(in.Address); ip == nil || seen[in.Address] {
			t.Fatalf("%s has address %s", in.Name, in.Address)
		}
		seen[in.Address] = true
	}
	if plan.instances[10].Name != "a-10" || plan.instances[10].Address != "127.1.0.11" || plan.instances[299].Address != "127.1.1.44" {
		t.Errorf("got %s ... %s", plan.instances[10].Address, plan.instances[299].Address)
	}
}

func TestOfflinePlacement(t *testing.T) {
	p := offlinePlanner()
	p.apps = []App{{Namespace: "default", Workload: "web", Addresses: []string{"10.0.0.1:3000", "10.0.0.2:3000"}}}
	entry := workload("WorkloadEntry", "vm", 1, 9090)
	entry.Address = "192.0.2.7"
	bare := workload("Deployment", "bare", 1, 80)
	bare.Sidecar = false
	gate := compile.GatewayWorkload{Ports: []int{8080}}
	gate.Namespace, gate.Name = "edge", "gate"
	plan := p.plan([]compile.Template{bare, entry, workload("Deployment", "web", 1, 8080, 9102)}, client(), []compile.GatewayWorkload{gate})
	want := &compile.Placement{
		Instances: []compile.Instance{
			{
				Namespace: "default", Workload: "bare", Name: "bare-0", Address: "127.1.0.1",
				Ports: []compile.InstancePort{{Port: 80, Listen: "127.0.0.1:80", App: "127.0.0.1:80"}},
			},
			{Namespace: "default", Workload: "local", Name: "local", Address: "127.0.0.1", Outbound: "127.0.0.1:15001", Sidecar: true},
			{
				Namespace: "default", Workload: "vm", Name: "vm", Address: "127.1.0.2", Outbound: "127.1.0.2:15001", Sidecar: true,
				Ports: []compile.InstancePort{{Port: 9090, Listen: "127.1.0.2:9090", App: "192.0.2.7:9090"}},
			},
			{
				Namespace: "default", Workload: "web", Name: "web-0", Address: "127.1.0.3", Outbound: "127.1.0.3:15001", Sidecar: true,
				Ports: []compile.InstancePort{{Port: 8080, Listen: "127.1.0.3:8080", App: "10.0.0.1:3000"}, {Port: 9102, Listen: "127.1.0.3:9102"}},
			},
			{
				Namespace: "default", Workload: "web", Name: "web-1", Address: "127.1.0.4", Outbound: "127.1.0.4:15001", Sidecar: true,
				Ports: []compile.InstancePort{{Port: 8080, Listen: "127.1.0.4:8080", App: "10.0.0.2:3000"}, {Port: 9102, Listen: "127.1.0.4:9102"}},
			},
		},
		Gateways: []compile.GatewayListen{{Namespace: "edge", Workload: "gate", Port: 8080, Listen: "127.0.0.1:8080"}},
	}
	if got := plan.placement(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestTakenPorts(t *testing.T) {
	l, err := net.Listen("tcp", ":0") // an application on every address
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	p := newPlanner(&sockets{}, block{n: 1})
	t.Cleanup(p.sockets.release)
	gate := compile.GatewayWorkload{Ports: []int{port}}
	gate.Namespace, gate.Name = "edge", "gate"
	templates := []compile.Template{workload("Deployment", "a", 1, port)}
	plan := p.plan(templates, client(), []compile.GatewayWorkload{gate})
	listen, entry := plan.instances[0].Ports[0].Listen, plan.gateways[0].listen[port]
	for _, addr := range []string{listen, entry} {
		free, err := p.sockets.listen(addr)
		if err != nil {
			t.Fatalf("where the port is taken, a free one is given: %v", err)
		}
		defer free.Close()
	}
	// Now both are listened at, as the mesh does: the next plan must keep them.
	again := p.plan(templates, client(), []compile.GatewayWorkload{gate})
	if got := again.instances[0].Ports[0].Listen; got != listen {
		t.Errorf("the listener moved from %s to %s", listen, got)
	}
	if got := again.gateways[0].listen[port]; got != entry {
		t.Errorf("the gateway moved from %s to %s", entry, got)
	}
	if !p.forget(listen) || p.forget(listen) {
		t.Error("an address can be forgotten once")
	}
	if got := p.plan(templates, client(), nil).instances[0].Ports[0].Listen; got == listen {
		t.Error("what was forgotten must be chosen anew")
	}
}

func TestOneAddressForAll(t *testing.T) {
	p := newPlanner(&sockets{}, block{})
	t.Cleanup(p.sockets.release)
	p.client, p.metrics, p.standIns = "127.0.0.1:1", "127.0.0.1:2", true
	plan := p.plan([]compile.Template{workload("Deployment", "a", 3, 80)}, client(), nil)
	seen := map[string]bool{}
	for _, in := range plan.instances {
		all := []string{in.Outbound, in.metrics}
		for _, port := range in.Ports {
			all = append(all, port.Listen)
		}
		for _, addr := range all {
			if host, _, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" || seen[addr] {
				t.Errorf("%s: %s is no address of its own at 127.0.0.1", in.Name, addr)
			}
			seen[addr] = true
		}
	}
}

func TestBlocks(t *testing.T) {
	one, two := claimBlock(), claimBlock()
	if one.n == 0 {
		t.Skip("this system has one loopback address")
	}
	if one.n == two.n {
		t.Errorf("two meshes have block %d", one.n)
	}
	for _, b := range []block{one, two} {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}
	if got := (block{n: 2}).address(258); got != "127.2.1.2" {
		t.Errorf("got %s", got)
	}
}

func TestParseApp(t *testing.T) {
	f := func(text string, want App) {
		t.Helper()
		got, err := ParseApp(text, "default")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := ParseApp(got.String(), "other"); err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("%s is written %s", text, got.String())
		}
	}
	f("web=127.0.0.1:80", App{"default", "web", 0, []string{"127.0.0.1:80"}})
	f("shop/web:8080=127.0.0.1:80,[::1]:81, localhost:82", App{"shop", "web", 8080, []string{"127.0.0.1:80", "[::1]:81", "localhost:82"}})
	for _, bad := range []string{"", "web", "=h:1", "web=", "web=h", "web=h:0", "web=:80", "web:x=h:1", "web:0=h:1", "/web=h:1", "a/b/c=h:1", "web=h:1,", "web=h:99999"} {
		if a, err := ParseApp(bad, "default"); !errors.Is(err, ErrInput) {
			t.Errorf("%q: %+v, %v", bad, a, err)
		}
	}
}

func TestAppPorts(t *testing.T) {
	f := func(text string, serves []int, want int) {
		t.Helper()
		a, err := ParseApp(text, "default")
		if err != nil {
			t.Fatal(err)
		}
		if got := a.port(serves); got != want {
			t.Errorf("%s with %v: %d, want %d", text, serves, got, want)
		}
	}
	f("w=h:1", []int{80, 90}, 80)
	f("w=h:90", []int{80, 90}, 90)
	f("w:90=h:1", []int{80, 90}, 90)
	f("w:70=h:1", []int{80, 90}, 0)
	f("w=h:1", nil, 0)
}

func TestSilentWorkloads(t *testing.T) {
	p := offlinePlanner()
	p.assume = false
	plan := p.plan([]compile.Template{workload("Deployment", "a", 2, 80), workload("Deployment", "job", 1)}, client(), nil)
	if got := plan.silent(); !slices.Equal(got, []string{"default/a"}) {
		t.Errorf("got %v", got)
	}
}
