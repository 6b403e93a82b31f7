package local

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/control"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// How many instances of a template run at most unless the user says otherwise.
const defaultReplicas = 3

// Fixed ports of every instance's sidecar, at its own address.
const (
	outboundPort = 15001
	metricsPort  = 15020
)

// planner gives every instance and gateway its addresses. What it gave once stays: it keeps an instance's number while
// the mesh runs, because consistent hashes lean on addresses.
type planner struct {
	sockets  *sockets
	block    block
	apps     []App
	replicas int
	standIns bool
	assume   bool // take an application that nobody told of for one at 127.0.0.1 and the workload's port

	numbers map[string]int    // by instance
	taken   map[string]string // host:port by who has it, of the plan before
	inUse   map[string]bool   // the addresses in taken
	client  string            // where the local client's outbound proxy listens
	metrics string            // where its metrics are
}

// plan is where everything runs: the compiler's Placement, and what else the mesh on one machine needs to know of it.
type plan struct {
	instances []*place // sorted by namespace, workload, instance
	gateways  []gateway
}

// place is one instance and where it is.
type place struct {
	compile.Instance
	template *compile.Template
	metrics  string // host:port; "" without a sidecar
	// standIn says that a stand-in plays the application: who starts it fills in the ports' App, and Listen where there is no sidecar.
	standIn bool
}

// gateway is one gateway workload and where its ports listen.
type gateway struct {
	compile.GatewayWorkload
	metrics string
	listen  map[int]string // host:port by port
}

// id names an instance among all, and its proxy in the feed.
func (p *place) id() string { return control.InstanceKey(p.Namespace, p.Workload, p.Name) }

// id names a gateway among all instances and gateways, and its proxy in the feed.
func (g *gateway) id() string { return control.GatewayKey(g.Namespace, g.Name) }

// newPlanner returns a planner that has given nothing yet.
func newPlanner(s *sockets, b block) *planner {
	return &planner{sockets: s, block: b, replicas: defaultReplicas, numbers: map[string]int{}, taken: map[string]string{}}
}

// plan places the instances of all templates, the local client and the gateways.
func (p *planner) plan(templates []compile.Template, client compile.Template, gateways []compile.GatewayWorkload) *plan {
	out := &plan{}
	own := false // the objects define default/local themselves
	for i := range templates {
		t := &templates[i]
		places := p.instances(t)
		if t.Namespace == client.Namespace && t.Name == client.Name && len(places) > 0 {
			own = true
			places[0].Outbound, places[0].metrics = p.client, p.metrics
		}
		out.instances = append(out.instances, places...)
	}
	p.number(out.instances)
	before := p.taken
	p.taken, p.inUse = map[string]string{}, map[string]bool{p.client: true, p.metrics: true}
	for _, place := range out.instances {
		p.settle(place, before)
	}
	if !own {
		t := client
		out.instances = append(out.instances, &place{
			Instance: compile.Instance{Namespace: t.Namespace, Workload: t.Name, Name: t.Name, Address: "127.0.0.1", Outbound: p.client, Sidecar: true},
			template: &t, metrics: p.metrics,
		})
	}
	slices.SortStableFunc(out.instances, func(a, b *place) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Workload, b.Workload))
	})
	for _, g := range gateways {
		out.gateways = append(out.gateways, p.gateway(g, before))
	}
	return out
}

// instances returns the instances of one template, in order, with where their applications are, but no addresses yet.
func (p *planner) instances(t *compile.Template) []*place {
	var mapped []App
	n := min(t.Replicas, p.replicas)
	for _, a := range p.apps {
		if a.Namespace == t.Namespace && a.Workload == t.Name {
			mapped = append(mapped, a)
		}
	}
	if len(mapped) > 0 {
		n = 0
		for _, a := range mapped {
			n = max(n, len(a.Addresses))
		}
	}
	var ports []int
	for _, tp := range t.Ports {
		ports = append(ports, tp.Port)
	}
	all := make([]*place, n)
	for i := range all {
		in := &place{template: t, Instance: compile.Instance{Namespace: t.Namespace, Workload: t.Name, Name: instanceName(t, i, n), Sidecar: t.Sidecar}}
		for _, port := range ports {
			in.Ports = append(in.Ports, compile.InstancePort{Port: port})
		}
		switch {
		case len(mapped) > 0:
			for _, a := range mapped {
				if j := slices.Index(ports, a.port(ports)); j >= 0 && i < len(a.Addresses) {
					in.Ports[j].App = a.Addresses[i]
				}
			}
		case t.Address != "":
			in.app(t.Address)
		case p.standIns:
			in.standIn, in.StandIn = true, true
		case p.assume:
			in.app("127.0.0.1")
		}
		all[i] = in
	}
	return all
}

// app says that the application has all its ports at host.
func (p *place) app(host string) {
	for i := range p.Ports {
		p.Ports[i].App = net.JoinHostPort(host, strconv.Itoa(p.Ports[i].Port))
	}
}

// instanceName follows a StatefulSet's pods; what is one process by itself has its own name.
func instanceName(t *compile.Template, i, n int) string {
	if (t.Kind == "Pod" || t.Kind == "WorkloadEntry") && n == 1 {
		return t.Name
	}
	return t.Name + "-" + strconv.Itoa(i)
}

// number gives each instance that has none the next number, in the order of the list.
func (p *planner) number(instances []*place) {
	sorted := slices.Clone(instances)
	slices.SortStableFunc(sorted, func(a, b *place) int { // within a workload they are in order already
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Workload, b.Workload))
	})
	for _, in := range sorted {
		if p.numbers[in.id()] == 0 {
			p.numbers[in.id()] = len(p.numbers) + 1
		}
		in.Address = p.block.address(p.numbers[in.id()])
	}
}

// settle gives an instance its addresses.
func (p *planner) settle(in *place, before map[string]string) {
	shared := p.block.n == 0 // all have one address: the well-known ports are not theirs
	own := func(what string, port int) string {
		if shared {
			port = 0
		}
		return p.keep(in.id()+" "+what, before, func() string { return p.sockets.take(in.Address, port) })
	}
	if in.Sidecar {
		if in.Outbound == "" { // the local client's is given
			in.Outbound, in.metrics = own("outbound", outboundPort), own("metrics", metricsPort)
		}
	}
	for i := range in.Ports {
		port := &in.Ports[i]
		switch {
		case in.Sidecar:
			port.Listen = own(strconv.Itoa(port.Port), port.Port)
		case in.standIn: // not the name of a sidecar's port: where a workload leaves the mesh, that is listened at until it has left
			port.Listen = own("direct "+strconv.Itoa(port.Port), port.Port)
		default:
			port.Listen = port.App
		}
	}
}

func (p *planner) gateway(g compile.GatewayWorkload, before map[string]string) gateway {
	out := gateway{GatewayWorkload: g, listen: map[int]string{}}
	for _, port := range g.Ports {
		out.listen[port] = p.keep(fmt.Sprintf("%s %d", out.id(), port), before, func() string { return p.sockets.gateway(port) })
	}
	out.metrics = p.keep(out.id()+" metrics", before, func() string { return p.sockets.free("127.0.0.1") })
	return out
}

// keep returns the address that who had before, or a new one.
func (p *planner) keep(who string, before map[string]string, choose func() string) string {
	addr := before[who]
	if addr == "" {
		addr = choose()
		host, port, _ := net.SplitHostPort(addr)
		for clash := 0; p.inUse[addr] && port != "0" && clash < 100; clash++ { // planned, but not yet listened at
			addr = p.sockets.free(host)
		}
	}
	p.taken[who], p.inUse[addr] = addr, true
	return addr
}

// forget makes the next plan choose another address for who has addr. It returns false where nobody has, or where addr
// is not the planner's to choose.
func (p *planner) forget(addr string) bool {
	for who, has := range p.taken {
		if has == addr {
			delete(p.taken, who)
			return true
		}
	}
	return false
}

// placement is the plan as the compiler reads it.
func (p *plan) placement() *compile.Placement {
	out := &compile.Placement{}
	for _, in := range p.instances {
		out.Instances = append(out.Instances, in.Instance)
	}
	for _, g := range p.gateways {
		for _, port := range g.Ports {
			out.Gateways = append(out.Gateways, compile.GatewayListen{Namespace: g.Namespace, Workload: g.Name, Port: port, Listen: g.listen[port]})
		}
	}
	return out
}

// proxies returns the feed keys of all proxies.
func (p *plan) proxies() map[string]bool {
	out := map[string]bool{}
	for _, in := range p.instances {
		if in.Sidecar {
			out[in.id()] = true
		}
	}
	for i := range p.gateways {
		out[p.gateways[i].id()] = true
	}
	return out
}

// entries returns the feed keys of the proxies where requests enter the mesh: the gateways and the local client's.
func (p *plan) entries(client string) map[string]bool {
	out := map[string]bool{}
	for _, in := range p.instances {
		if in.Outbound == client {
			out[in.id()] = true
		}
	}
	for i := range p.gateways {
		out[p.gateways[i].id()] = true
	}
	return out
}

// silent returns the workloads whose application nobody plays, as namespace/name, sorted.
func (p *plan) silent() []string {
	var out []string
	for _, in := range p.instances {
		played := in.standIn || len(in.Ports) == 0
		for _, port := range in.Ports {
			played = played || port.App != ""
		}
		if !played {
			out = append(out, in.Namespace+"/"+in.Workload)
		}
	}
	return slices.Compact(out)
}

// protocol returns the protocol that the template declares for a port.
func (p *place) protocol(port int) model.Protocol {
	for _, tp := range p.template.Ports {
		if tp.Port == port {
			return tp.Protocol
		}
	}
	return model.Auto
}
