package local

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/outrider-mesh/outrider/local/standin"
)

// Annotations of a pod template that its stand-ins heed.
const (
	callsAnnotation     = "outrider.dev/calls"
	behaviourAnnotation = "outrider.dev/stand-in"
)

// troupe holds the stand-ins that run.
type troupe struct {
	sockets *sockets
	log     *slog.Logger

	mu      sync.Mutex
	players map[string]*player // by instance
	gone    dismissed          // of the casts since dismiss
}

// dismissed are stand-ins and ports that nobody is sent to once the change under way is published.
type dismissed struct {
	apps  []*standin.App
	ports []droppedPort
}

// player is the stand-in of one instance, with what it was made from.
type player struct {
	app               *standin.App
	namespace, name   string
	options           standin.Options
	calls, misbehaves string // the annotations as written
}

// droppedPort is a port that an instance no longer has.
type droppedPort struct {
	app  *standin.App
	port int
}

func newTroupe(s *sockets, log *slog.Logger) *troupe {
	return &troupe{sockets: s, log: log, players: map[string]*player{}}
}

// cast makes every instance of the plan that asks for it have a stand-in on all of its ports, and writes into the plan
// where. What the plan has no use for any more goes on until its dismissal ends. It returns what is wrong with annotations.
func (t *troupe) cast(p *plan) (problems []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wanted := map[string]bool{}
	for _, in := range p.instances {
		if !in.standIn {
			continue
		}
		wanted[in.id()] = true
		problems = append(problems, t.enter(in)...)
	}
	for id, pl := range t.players {
		if !wanted[id] {
			t.gone.apps = append(t.gone.apps, pl.app)
			delete(t.players, id)
		}
	}
	return problems
}

// enter makes one instance's stand-in what its template says.
func (t *troupe) enter(in *place) (problems []string) {
	o := standin.Options{
		Namespace: in.Namespace, Workload: in.Workload, Instance: in.Name, Version: in.template.Version,
		Proxy: in.Outbound, Log: t.log,
	}
	pl := t.players[in.id()]
	if pl != nil && (pl.options != o || pl.speaksOtherwise(in)) {
		t.gone.apps = append(t.gone.apps, pl.app)
		pl = nil
	}
	calls, misbehaves := in.template.Annotations[callsAnnotation], in.template.Annotations[behaviourAnnotation]
	if pl == nil {
		pl = &player{app: standin.New(o, standin.Role{}), namespace: in.Namespace, name: in.Name, options: o, calls: "-", misbehaves: "-"}
		t.players[in.id()] = pl
	}
	// What was changed at run time stays until the annotation itself changes.
	role := pl.app.Role()
	if pl.calls != calls {
		if urls, err := standin.ParseCalls(calls); err != nil {
			problems = append(problems, problem(in, callsAnnotation, err))
		} else {
			role.Calls = urls
		}
	}
	if pl.misbehaves != misbehaves {
		if b, err := standin.ParseBehaviour(misbehaves); err != nil {
			problems = append(problems, problem(in, behaviourAnnotation, err))
		} else {
			role.Behaviour = b
		}
	}
	if pl.calls != calls || pl.misbehaves != misbehaves {
		pl.calls, pl.misbehaves = calls, misbehaves
		pl.app.SetRole(role)
	}
	return append(problems, t.serve(pl, in)...)
}

// speaksOtherwise says whether a port that pl serves has another protocol now.
func (pl *player) speaksOtherwise(in *place) bool {
	for _, port := range in.Ports {
		if p := pl.app.Protocol(port.Port); p != "" && p != in.protocol(port.Port) {
			return true
		}
	}
	return false
}

func problem(in *place, annotation string, err error) string {
	o := in.template.Origin
	return fmt.Sprintf("%s:%d: %s %s/%s: annotation %s: %v", o.File, o.Line, o.Kind, o.Namespace, o.Name, annotation, err)
}

// serve gives the stand-in the ports of its instance.
func (t *troupe) serve(pl *player, in *place) (problems []string) {
	has := map[int]bool{}
	for i := range in.Ports {
		port := &in.Ports[i]
		has[port.Port] = true
		if addr := pl.app.Address(port.Port); addr != "" {
			port.App = addr
			if !in.Sidecar {
				port.Listen = addr
			}
			continue
		}
		at := "127.0.0.1:0"
		if !in.Sidecar {
			at = port.Listen
		}
		l, err := t.sockets.listen(at)
		if err != nil && !in.Sidecar { // its predecessor may still be there
			l, err = t.sockets.listen(net.JoinHostPort(in.Address, "0"))
		}
		var addr string
		if err == nil {
			addr, err = pl.app.Serve(standin.Port{Port: port.Port, Protocol: in.protocol(port.Port)}, l)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: port %d has no application: %v", in.id(), port.Port, err))
			if !in.Sidecar {
				port.Listen = ""
			}
			continue
		}
		port.App = addr
		if !in.Sidecar {
			port.Listen = addr
		}
	}
	for _, port := range pl.app.Ports() {
		if !has[port] {
			t.gone.ports = append(t.gone.ports, droppedPort{pl.app, port})
		}
	}
	return problems
}

// dismiss returns what earlier casts had no more use for; it is the caller's to end.
func (t *troupe) dismiss() dismissed {
	t.mu.Lock()
	defer t.mu.Unlock()
	gone := t.gone
	t.gone = dismissed{}
	return gone
}

func (d *dismissed) none() bool { return len(d.apps)+len(d.ports) == 0 }

// end ends them; what is under way may go on until ctx ends.
func (d *dismissed) end(ctx context.Context, log *slog.Logger) {
	for _, p := range d.ports {
		if err := p.app.Unserve(ctx, p.port); err != nil {
			log.Warn("stand-in was cut off", "port", p.port, "reason", err.Error())
		}
	}
	for _, app := range d.apps {
		if err := app.Shutdown(ctx); err != nil {
			log.Warn("stand-in was cut off", "reason", err.Error())
		}
	}
}

// find returns the stand-in of an instance, nil where it has none.
func (t *troupe) find(namespace, instance string) *standin.App {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, pl := range t.players {
		if pl.namespace == namespace && pl.name == instance {
			return pl.app
		}
	}
	return nil
}

// end ends all stand-ins.
func (t *troupe) end(ctx context.Context) {
	t.cast(&plan{})
	gone := t.dismiss()
	gone.end(ctx, t.log)
}
