// Package local runs the mesh on one machine: control plane, sidecars, stand-ins, Prometheus and the page in one process.
//
// Read mesh.go (its life) first. place.go and address.go say where everything runs, standins.go and sidecar.go run it,
// admin.go and page.go show it, ready.go writes it down, talk.go tells people.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/control"
	"github.com/outrider-mesh/outrider/control/source"
	"github.com/outrider-mesh/outrider/local/prom"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy"
	"github.com/outrider-mesh/outrider/proxy/dashboard"
)

// defaultDrain is how long exchanges under way may go on where MeshConfig does not say (terminationDrainDuration, Istio).
const defaultDrain = 5 * time.Second

// Mesh is a mesh that runs. Its methods may be called from any goroutine.
type Mesh struct {
	o       Options
	log     *slog.Logger
	source  *source.Dir
	plane   *control.Plane
	planner *planner
	troupe  *troupe
	prom    *prom.Prometheus // nil where it is left out
	stats   *planeStats
	listen  net.Listener // of the admin server, nil until it is bound
	admin   *http.Server // nil until it serves
	address string       // of the admin server
	stream  *dashboard.Stream

	stopping chan struct{} // closed when the end begins
	done     chan struct{} // closed when everything has ended
	failure  error         // set before done is closed
	ending   sync.WaitGroup

	mu       sync.Mutex
	plan     *plan               // in force
	next     *plan               // of the change under way
	sidecars map[string]*sidecar // by feed key
	told     map[string]bool     // what is said once
	verdicts []string            // on applications, since people were told last

	judged chan struct{} // 1 slot: an application became ready, or is not any more
}

// Up starts the mesh that the files of o.Paths describe, and returns once everything listens. When ctx ends, exchanges
// under way may end, and everything stops; Wait waits for that. Errors that wrap ErrInput are the caller's.
func Up(ctx context.Context, o Options) (*Mesh, error) {
	o = o.orDefault()
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.ReadyFile != "" { // of a run before: who waits for it must not be misled
		if err := os.Remove(o.ReadyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w: cannot replace ready file: %w", ErrInput, err)
		}
	}
	s := &sockets{}
	m := &Mesh{
		o: o, log: o.Log, stopping: make(chan struct{}), done: make(chan struct{}), sidecars: map[string]*sidecar{}, told: map[string]bool{}, judged: make(chan struct{}, 1),
		troupe: newTroupe(s, o.Log), planner: newPlanner(s, claimBlock()), stats: newPlaneStats(o.Version), plan: &plan{},
	}
	if err := m.start(ctx); err != nil {
		m.stop(0)
		return nil, err
	}
	go m.run(ctx) // ends with ctx; Wait waits for it
	return m, nil
}

// start does all of Up that can fail.
func (m *Mesh) start(ctx context.Context) (err error) {
	p := m.planner
	p.apps, p.replicas, p.standIns = m.o.Apps, m.o.MaxReplicas, m.o.StandIns
	if m.listen, err = net.Listen("tcp", m.o.Admin); err != nil {
		return fmt.Errorf("%w: cannot serve the admin address: %w; --admin moves it", ErrInput, err)
	}
	m.address = m.listen.Addr().String()
	if p.client, err = m.clientAddress(); err != nil {
		return err
	}
	p.metrics = p.sockets.take("127.0.0.1", metricsPort)
	if m.source, err = source.Open(m.o.Paths, source.Options{Namespace: m.o.Namespace, Stdin: m.o.Stdin, Except: m.o.ReadyFile, Log: m.log}); err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w: %w", ErrInput, err)
		}
		return err
	}
	if !m.o.NoPrometheus {
		if m.prom, err = prom.Open(prom.Options{Dir: m.o.Data, Interval: m.o.ScrapeInterval, Log: m.log}); err != nil {
			return err
		}
	}
	m.plane = control.New(control.Options{
		Compile: compile.Options{MeshConfig: m.o.MeshConfig, Locality: m.o.Locality, ExecProbes: m.o.ExecProbes},
		Place:   m.place,
	})
	change, err := m.update(ctx)
	if err != nil {
		return err
	}
	if err := m.askFirst(ctx); err != nil {
		return err
	}
	for _, r := range change.Refused {
		if r.Key == m.clientKey() {
			return fmt.Errorf("cannot start the local client's proxy: %s", r.Reason)
		}
	}
	m.stream = dashboard.NewStream(dashboard.SourceFunc(m.breakers), proxy.Now, m.log)
	m.admin = &http.Server{
		Handler: m.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 5 * time.Minute,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	m.ending.Go(func() { _ = m.admin.Serve(m.listen) }) // ends with ErrServerClosed
	m.greet(change)
	return m.writeReady()
}

// clientAddress says where the local client's proxy is to listen. It is one of the two addresses that users write into
// their scripts, so it is never moved silently.
func (m *Mesh) clientAddress() (string, error) {
	addr, err := m.planner.sockets.hold(m.o.Proxy)
	if err != nil {
		return "", fmt.Errorf("%w: cannot serve the local client's proxy: %w; --proxy moves it", ErrInput, err)
	}
	return addr, nil
}

// clientKey is the feed key of the proxy that listens at --proxy.
func (m *Mesh) clientKey() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, in := range m.plan.instances {
		if in.Outbound == m.planner.client {
			return in.id()
		}
	}
	return ""
}

// run follows the files until ctx ends, then drains.
func (m *Mesh) run(ctx context.Context) {
	defer close(m.done)
	for {
		select {
		case <-ctx.Done():
			m.failure = m.stop(m.drainTime())
			return
		case <-m.judged:
			if err := m.rearrange(ctx); err != nil {
				m.say("nothing of the change is in force: %v\n", err)
			}
			continue
		case <-m.source.C():
		}
		change, err := m.update(ctx)
		if err != nil {
			m.say("nothing of the change is in force: %v\n", err)
			continue
		}
		m.report(change)
		if err := m.writeReady(); err != nil {
			m.say("%v\n", err)
		}
	}
}

// Wait returns once everything has ended after the end of Up's context. It tells whether something had to be cut off.
func (m *Mesh) Wait() error {
	<-m.done
	return m.failure
}

// update puts in force what the files hold now.
func (m *Mesh) update(ctx context.Context) (*control.Change, error) {
	begin := time.Now()
	defer m.planner.sockets.release() // by now, who was given an address listens there
	files := m.source.Latest()
	change, err := m.plane.Update(ctx, files)
	if err == nil && m.replace(change.Refused) {
		var again *control.Change
		if again, err = m.plane.Update(ctx, files); err == nil {
			change.Applied = append(change.Applied, again.Applied...)
			change.Refused, change.Pending, change.Generation = again.Refused, again.Pending, again.Generation
			change.Removed = append(change.Removed, again.Removed...)
		}
	}
	m.stats.update(time.Since(begin), change, err)
	if err != nil {
		return nil, err
	}
	m.stats.hold(m.plane.State())
	m.install()
	return change, nil
}

// install makes the plan of a change that is published the one in force.
func (m *Mesh) install() {
	m.mu.Lock()
	m.plan = m.next
	m.mu.Unlock()
	m.setTargets()
	m.release()
}

// place says where everything of a mesh runs, and starts what is new, so that it follows the feed from its beginning.
func (m *Mesh) place(mesh *compile.Mesh) (*compile.Placement, error) {
	templates := mesh.Templates()
	if err := m.checkApps(templates); err != nil {
		return nil, err
	}
	p := m.planner.plan(templates, mesh.Local(), mesh.Gateways())
	for _, problem := range m.troupe.cast(p) {
		m.once("%s\n", problem)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, in := range p.instances {
		if in.Sidecar {
			addr, err := m.sidecar(in.id(), in.template.Peer, in.metrics, in.template.Probe == nil)
			if err != nil {
				return nil, err
			}
			in.metrics = addr
			in.Unready = in.template.Probe != nil && !m.sidecars[in.id()].prober.Ready()
		}
	}
	for i := range p.gateways {
		g := &p.gateways[i]
		addr, err := m.sidecar(g.id(), g.Peer, g.metrics, true)
		if err != nil {
			return nil, err
		}
		g.metrics = addr
	}
	m.next = p
	return p.placement(), nil
}

// sidecar makes sure that the proxy of that key runs, and returns where its metrics are. ready says that the application
// of a new one is ready until it fails a probe. m.mu is held.
func (m *Mesh) sidecar(key string, self model.Peer, metrics string, ready bool) (string, error) {
	if s := m.sidecars[key]; s != nil {
		return s.server.Address(), nil
	}
	l, err := m.planner.sockets.listen(metrics)
	if err != nil { // it was chosen for a change that failed; somebody took the port since
		host, _, _ := net.SplitHostPort(metrics)
		if l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			return "", fmt.Errorf("cannot serve the metrics of %s: %w", key, err)
		}
	}
	s := startSidecar(m.plane.Feed(), key, self, l, m.planner.sockets.listen, ready, m.hear, &m.o)
	m.sidecars[key] = s
	return s.server.Address(), nil
}

// checkApps refuses an --app that fits nothing at the start; later it is said once.
func (m *Mesh) checkApps(templates []compile.Template) error {
	for i := range m.o.Apps {
		a := &m.o.Apps[i]
		err := a.fits(templates)
		if err == nil {
			continue
		}
		if m.plane.State().Generation == 0 {
			return err
		}
		m.once("%v\n", err)
	}
	return nil
}

// fits says why a is of no use to any of the templates.
func (a *App) fits(templates []compile.Template) error {
	var names []string
	for i := range templates {
		t := &templates[i]
		if t.Namespace != a.Namespace || t.Name != a.Workload {
			names = append(names, t.Namespace+"/"+t.Name)
			continue
		}
		var ports, written []string
		serves := []int{}
		for _, p := range t.Ports {
			serves = append(serves, p.Port)
			ports = append(ports, fmt.Sprint(p.Port))
		}
		if a.port(serves) != 0 {
			return nil
		}
		if written = ports; len(written) == 0 {
			return fmt.Errorf("%w: --app %s: the workload serves no port: neither a container nor a Service names one", ErrInput, a)
		}
		return fmt.Errorf("%w: --app %s: the workload has no port %d; it serves %s", ErrInput, a, a.Port, strings.Join(written, ", "))
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: --app %s: there is no workload at all", ErrInput, a)
	}
	if len(names) > 10 {
		names = append(names[:10], "...")
	}
	return fmt.Errorf("%w: --app %s: there is no such workload; there are %s", ErrInput, a, strings.Join(names, ", "))
}

// replace looks for refusals that came from addresses which somebody else took meanwhile, and lets the planner choose
// others. It says whether there were any.
func (m *Mesh) replace(refused []control.Refusal) bool {
	moved := false
	for _, r := range refused {
		m.mu.Lock()
		s := m.sidecars[r.Key]
		m.mu.Unlock()
		latest := m.plane.Feed().Latest(r.Key)
		if s == nil || latest == nil {
			continue
		}
		for i := range latest.Listeners {
			l := &latest.Listeners[i]
			if s.proxy.Address(l.Name) != l.Address && m.planner.sockets.try(l.Address) != nil {
				moved = m.planner.forget(l.Address) || moved
			}
		}
	}
	return moved
}

// linger is how long what the mesh has no place for any more goes on listening: requests that were on their way when
// the last proxy learned of it must still arrive.
const linger = 500 * time.Millisecond

// release ends what the mesh has no place for any more, while the rest runs on: sidecars first, then their stand-ins.
func (m *Mesh) release() {
	var leaving []*sidecar
	m.mu.Lock()
	placed := m.plan.proxies()
	for key, s := range m.sidecars {
		if !placed[key] {
			s.leave() // its name may come back at once, for another
			leaving = append(leaving, s)
			delete(m.sidecars, key)
		}
	}
	m.mu.Unlock()
	players := m.troupe.dismiss()
	if len(leaving) == 0 && players.none() {
		return
	}
	drain := m.drainTime()
	m.ending.Go(func() {
		select {
		case <-time.After(linger):
		case <-m.stopping:
		}
		_ = m.drainAll(leaving, time.Now().Add(drain)) // logged there
		ctx, cancel := context.WithTimeout(context.Background(), drain)
		defer cancel()
		players.end(ctx, m.log)
	})
}

// drainAll ends sidecars; exchanges under way may go on until the deadline.
func (m *Mesh) drainAll(sidecars []*sidecar, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	var wg sync.WaitGroup
	failed := make([]error, len(sidecars))
	for i, s := range sidecars {
		wg.Go(func() {
			if failed[i] = s.drain(ctx); failed[i] != nil {
				m.log.Warn("sidecar was cut off", "proxy", s.key, "reason", failed[i].Error())
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// drainTime is how long exchanges under way may go on when their proxy ends.
func (m *Mesh) drainTime() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sidecars {
		if snapshot := s.proxy.Snapshot(); snapshot != nil {
			return cmp.Or(snapshot.Settings.Drain.Std(), defaultDrain)
		}
	}
	return defaultDrain
}

// stop ends everything: first the proxies where requests enter, then those that such requests go through, last the
// stand-ins that answer them. 0 cuts all off.
func (m *Mesh) stop(within time.Duration) error {
	close(m.stopping)
	if m.stream != nil {
		m.stream.Close() // before the sidecars go: it would tell of each
	}
	deadline := time.Now().Add(within)
	var errs []error
	if m.source != nil {
		errs = append(errs, m.source.Close())
	}
	m.mu.Lock()
	var entries, others []*sidecar
	doors := m.plan.entries(m.planner.client)
	for key, s := range m.sidecars {
		if doors[key] {
			entries = append(entries, s)
		} else {
			others = append(others, s)
		}
	}
	m.sidecars = map[string]*sidecar{}
	m.mu.Unlock()
	errs = append(errs, m.drainAll(entries, deadline), m.drainAll(others, deadline))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	m.troupe.end(ctx)
	if m.prom != nil {
		errs = append(errs, m.prom.Close())
	}
	switch {
	case m.admin != nil:
		if m.admin.Shutdown(ctx) != nil { // an answer under way may end
			errs = append(errs, m.admin.Close())
		}
	case m.listen != nil:
		errs = append(errs, m.listen.Close())
	}
	m.planner.sockets.release() // where the start failed
	m.ending.Wait()
	return errors.Join(append(errs, m.planner.block.close())...)
}

// Ready tells where everything listens.
func (m *Mesh) Ready() *Ready {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.plan.describe(m.address, m.planner.client)
}

func (m *Mesh) writeReady() error {
	if m.o.ReadyFile == "" {
		return nil
	}
	return m.Ready().write(m.o.ReadyFile)
}

// State is what is in force.
func (m *Mesh) State() control.State { return m.plane.State() }

// Prometheus is the embedded one, nil where it was left out.
func (m *Mesh) Prometheus() *prom.Prometheus { return m.prom }

// targets are what a Prometheus scrapes: every sidecar, every gateway, and the control plane under the name that Istio's
// dashboards look for.
func (m *Mesh) targets() []prom.Target {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []prom.Target{{Job: "outrider-control", Address: m.address, Path: "/metrics", Labels: map[string]string{"app": "istiod"}}}
	add := func(namespace, workload, instance, addr string) {
		out = append(out, prom.Target{
			Job: "outrider-proxy", Address: addr, Path: "/stats/prometheus",
			Labels: map[string]string{"namespace": namespace, "workload": workload, "pod": instance},
		})
	}
	for _, in := range m.plan.instances {
		if in.Sidecar {
			add(in.Namespace, in.Workload, in.Name, in.metrics)
		}
	}
	for i := range m.plan.gateways {
		g := &m.plan.gateways[i]
		add(g.Namespace, g.Name, g.Name, g.metrics)
	}
	return out
}

func (m *Mesh) setTargets() {
	if m.prom != nil {
		m.prom.SetTargets(m.targets())
	}
}

// silent returns the workloads that nobody plays, sorted.
func (m *Mesh) silent() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.plan.silent())
}
