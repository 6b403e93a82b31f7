package local

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/outrider-mesh/outrider/compile"
)

// TestChosenAddressesAreHeld: between the choice of an address and its listener nobody else can take it, on any machine
// that is busy with other meshes and tests.
func TestChosenAddressesAreHeld(t *testing.T) {
	s := &sockets{}
	t.Cleanup(s.release)
	p := newPlanner(s, block{}) // all instances at 127.0.0.1, with ports that were free
	p.client, p.metrics = s.free("127.0.0.1"), s.free("127.0.0.1")
	gate := compile.GatewayWorkload{Ports: []int{8080}}
	gate.Namespace, gate.Name = "edge", "gate"
	plan := p.plan([]compile.Template{workload("Deployment", "a", 2, 80, 90)}, client(), []compile.GatewayWorkload{gate})
	chosen := []string{plan.gateways[0].listen[8080], plan.gateways[0].metrics}
	for _, in := range plan.instances {
		chosen = append(chosen, in.Outbound, in.metrics)
		for _, port := range in.Ports {
			chosen = append(chosen, port.Listen)
		}
	}
	if len(chosen) != 12 {
		t.Fatalf("%d addresses are chosen: %v", len(chosen), chosen)
	}
	for _, addr := range chosen {
		if l, err := net.Listen("tcp", addr); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("somebody else takes %s: %v, %v", addr, l, err)
		}
		if err := s.try(addr); err != nil {
			t.Errorf("%s is not its own: %v", addr, err)
		}
	}
	first := chosen[0]
	l, err := s.listen(first)
	if err != nil || l.Addr().String() != first {
		t.Fatalf("%s is not handed over: %v", first, err)
	}
	defer l.Close()
	if err := s.try(first); err == nil {
		t.Errorf("%s can be had twice", first)
	}
	kept := s.held[chosen[1]]
	s.release()
	if _, err := kept.Accept(); len(s.held) != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%s is still held: %v", chosen[1], err)
	}
	if l, err := s.listen(first); err == nil {
		l.Close()
		t.Error("what was handed over is closed")
	}
}

// TestNothingIsHeldWhenTheMeshListens: every address that was chosen is listened at, or free for others.
func TestNothingIsHeldWhenTheMeshListens(t *testing.T) {
	f := run(t, Options{StandIns: true}, map[string]string{"web.yaml": documents(webService, deployment("v1", 2, ""))})
	f.planner.sockets.mu.Lock()
	held := len(f.planner.sockets.held)
	f.planner.sockets.mu.Unlock()
	if held != 0 {
		t.Errorf("%d listeners are held", held)
	}
}
