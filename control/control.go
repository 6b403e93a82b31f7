// Package control holds the mesh: it turns each change of the objects into snapshots, and publishes those that differ.
//
// One bad object degrades only itself: its last good version stays in force. What is published in which order keeps
// requests alive: who listens comes before who sends there, and who stops listening comes last.
package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/feed"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// settling bounds how long the publishing of one change waits for the proxies' answers before it goes on without them.
const settling = 2 * time.Second

// Options of a Plane. Place is required.
type Options struct {
	Compile compile.Options
	// Place says where everything of the mesh runs. It is called once for each change, before anything of the change is
	// published; who runs proxies starts and subscribes the new ones in it. The Placement must not change afterwards.
	Place func(*compile.Mesh) (*compile.Placement, error)
}

// Plane is a control plane. Its methods may be called from any goroutine.
type Plane struct {
	o    Options
	feed *feed.Feed

	updating sync.Mutex      // one Update at a time
	proxies  map[string]bool // keys that have a snapshot

	mu    sync.Mutex
	state State
}

// State is what is in force.
type State struct {
	Generation uint64 // counts Updates, from 1
	Mesh       *compile.Mesh
	Placement  *compile.Placement
	Objects    []*config.Object // in their order: path, then position
	Findings   []config.Finding // about the files, and about what they mean together
}

// New returns a Plane that holds no objects yet.
func New(o Options) *Plane {
	return &Plane{o: o, feed: feed.New(), proxies: map[string]bool{}}
}

// Feed is what the Plane publishes to, by InstanceKey and GatewayKey.
func (p *Plane) Feed() *feed.Feed { return p.feed }

// State returns what is in force; the zero State before the first Update.
func (p *Plane) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// InstanceKey is the feed's key of one instance of a workload.
func InstanceKey(namespace, workload, instance string) string {
	return namespace + "/" + workload + "/" + instance
}

// GatewayKey is the feed's key of a gateway workload.
func GatewayKey(namespace, workload string) string { return "gateway " + namespace + "/" + workload }

// Update takes over what the files hold now and tells what changed. It returns once the proxies have answered, or have
// had the time to. An error means that nothing of the change is in force.
func (p *Plane) Update(ctx context.Context, files *config.Files) (*Change, error) {
	p.updating.Lock()
	defer p.updating.Unlock()

	before := p.State()
	objects, kept := files.Keep(before.Objects)
	mesh, findings := compile.New(objects, p.o.Compile)
	findings = append(slices.Clone(files.Findings), files.Silence(findings)...)
	config.Sort(findings)
	placement, snapshots, err := p.place(mesh)
	if err != nil {
		return nil, err
	}

	change := &Change{
		Generation: before.Generation + 1, Objects: compare(before.Objects, objects), Kept: kept,
		Findings: fresh(before.Findings, findings),
	}
	p.publish(ctx, snapshots, change)
	p.mu.Lock()
	p.state = State{Generation: change.Generation, Mesh: mesh, Placement: placement, Objects: objects, Findings: findings}
	p.mu.Unlock()
	return change, nil
}

// Rearrange places the same objects anew and publishes what differs: where an instance is, or whether it is ready, is not
// the objects' to say. It is no new generation. An error means that nothing of the change is in force.
func (p *Plane) Rearrange(ctx context.Context) (*Change, error) {
	p.updating.Lock()
	defer p.updating.Unlock()

	state := p.State()
	placement, snapshots, err := p.place(state.Mesh)
	if err != nil {
		return nil, err
	}
	change := &Change{Generation: state.Generation}
	p.publish(ctx, snapshots, change)
	p.mu.Lock()
	p.state.Placement = placement
	p.mu.Unlock()
	return change, nil
}

// place says where everything of the mesh runs, and what each proxy is to run.
func (p *Plane) place(mesh *compile.Mesh) (*compile.Placement, map[string]*model.Snapshot, error) {
	placement, err := p.o.Place(mesh)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot place the mesh: %w", err)
	}
	snapshots, err := cut(mesh, placement)
	if err != nil {
		return nil, nil, err
	}
	return placement, snapshots, nil
}

// cut compiles the snapshot of every proxy of the placement.
func cut(mesh *compile.Mesh, placement *compile.Placement) (map[string]*model.Snapshot, error) {
	out := map[string]*model.Snapshot{}
	for i := range placement.Instances {
		in := &placement.Instances[i]
		if !in.Sidecar {
			continue
		}
		s, err := mesh.For(placement, in.Namespace, in.Workload, in.Name)
		if err != nil {
			return nil, err
		}
		out[InstanceKey(in.Namespace, in.Workload, in.Name)] = s
	}
	for i := range placement.Gateways {
		g := &placement.Gateways[i]
		key := GatewayKey(g.Namespace, g.Workload)
		if out[key] != nil { // another port of it
			continue
		}
		s, err := mesh.ForGateway(placement, g.Namespace, g.Workload)
		if err != nil {
			return nil, err
		}
		out[key] = s
	}
	return out, nil
}

// publish gives the proxies their snapshots in three waves: first those that listen at new addresses, then those that
// listen where they did, last those that listen at fewer; each once the wave before has answered.
func (p *Plane) publish(ctx context.Context, snapshots map[string]*model.Snapshot, change *Change) {
	var waves [3][]string
	for _, key := range slices.Sorted(maps.Keys(snapshots)) {
		old := p.feed.Latest(key)
		if old == nil || old.Version != snapshots[key].Version {
			w := wave(old, snapshots[key])
			waves[w] = append(waves[w], key)
		}
	}
	for _, keys := range waves {
		for _, key := range keys {
			p.feed.Publish(key, snapshots[key])
		}
		p.settle(ctx, keys, change)
	}
	for key := range p.proxies {
		if snapshots[key] == nil {
			change.Removed = append(change.Removed, key)
			p.feed.Withdraw(key)
		}
	}
	slices.Sort(change.Removed)
	p.proxies = map[string]bool{}
	for key := range snapshots {
		p.proxies[key] = true
	}
}

// settle waits until the proxies have answered, and notes what they said.
func (p *Plane) settle(ctx context.Context, keys []string, change *Change) {
	if len(keys) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	_ = p.feed.Wait(ctx, keys...) // who has not answered by then is told of below
	for _, key := range keys {
		st := p.feed.Status(key)
		switch {
		case st.Refused == st.Published:
			change.Refused = append(change.Refused, Refusal{Key: key, Version: st.Refused, Reason: st.Reason})
		case st.Running == st.Published:
			change.Applied = append(change.Applied, key)
		default:
			change.Pending = append(change.Pending, key)
		}
	}
}

// wave says when a proxy gets its snapshot, by where it listens now and then.
func wave(old, s *model.Snapshot) int {
	if old == nil {
		return 0
	}
	addresses := map[string]bool{}
	for i := range old.Listeners {
		addresses[old.Listeners[i].Address] = true
	}
	for i := range s.Listeners {
		if !addresses[s.Listeners[i].Address] {
			return 0
		}
	}
	if len(s.Listeners) < len(old.Listeners) {
		return 2
	}
	return 1
}
