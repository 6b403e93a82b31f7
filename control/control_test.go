package control

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

const services = `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec:
  selector: {app: other}
  ports: [{name: http, port: 80}]
`

// route is a VirtualService of web that rewrites to a path.
func route(path string) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - rewrite: {uri: %s}
    route: [{destination: {host: web}}]
`, path)
}

func deployment(name string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
`, name)
}

// rig is a Plane whose proxies are goroutines that acknowledge what they get, or refuse it.
type rig struct {
	t     *testing.T
	plane *Plane
	files map[string]string

	stop    context.CancelFunc
	ctx     context.Context
	running sync.WaitGroup

	mu     sync.Mutex
	known  map[string]bool
	order  []string          // keys in the order of their answers
	refuse map[string]string // reason by key

	unready string // workload
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, files: map[string]string{}, known: map[string]bool{}, refuse: map[string]string{}}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.plane = New(Options{Place: r.place})
	t.Cleanup(func() {
		r.stop()
		r.running.Wait()
	})
	return r
}

// place gives every template one instance, and starts a proxy for each that is new.
func (r *rig) place(m *compile.Mesh) (*compile.Placement, error) {
	p := &compile.Placement{}
	templates := append([]compile.Template{m.Local()}, m.Templates()...)
	for i, t := range templates {
		in := compile.Instance{Namespace: t.Namespace, Workload: t.Name, Name: t.Name + "-0", Sidecar: true, Address: fmt.Sprintf("10.0.0.%d", i+1)}
		in.Outbound = in.Address + ":15001"
		r.mu.Lock()
		in.Unready = t.Name == r.unready
		r.mu.Unlock()
		for _, port := range t.Ports {
			in.Ports = append(in.Ports, compile.InstancePort{Port: port.Port, Listen: fmt.Sprintf("%s:%d", in.Address, port.Port), App: "127.0.0.1:1"})
		}
		p.Instances = append(p.Instances, in)
		r.proxy(InstanceKey(in.Namespace, in.Workload, in.Name))
	}
	return p, nil
}

func (r *rig) proxy(key string) {
	if r.known[key] {
		return
	}
	r.known[key] = true
	sub := r.plane.Feed().Subscribe(key)
	r.running.Go(func() {
		defer sub.Close()
		for {
			select {
			case <-r.ctx.Done():
				return
			case <-sub.C():
			}
			latest := sub.Latest()
			if latest == nil {
				continue
			}
			r.mu.Lock()
			r.order = append(r.order, key)
			reason := r.refuse[key]
			r.mu.Unlock()
			if reason != "" {
				sub.Nack(latest.Version, reason)
			} else {
				sub.Ack(latest.Version)
			}
		}
	})
}

// update writes files ("" removes one) and updates the plane.
func (r *rig) update(texts ...string) *Change {
	r.t.Helper()
	for i := 0; i < len(texts); i += 2 {
		r.files[texts[i]] = texts[i+1]
		if texts[i+1] == "" {
			delete(r.files, texts[i])
		}
	}
	files := &config.Files{}
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		f := config.Decode(name, []byte(r.files[name]))
		files.Files = append(files.Files, f)
		files.Objects = append(files.Objects, f.Objects...)
		files.Findings = append(files.Findings, f.Findings...)
	}
	c, err := r.plane.Update(context.Background(), files)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// objects writes the changes of objects as "what Kind name".
func objects(c *Change) string {
	var out []string
	for _, o := range c.Objects {
		out = append(out, fmt.Sprintf("%s %s %s:%d", o.What, o.Object.Name, o.Object.Source.File, o.Object.Source.Line))
	}
	return strings.Join(out, ", ")
}

func TestUpdateTellsWhatChanged(t *testing.T) {
	r := newRig(t)
	c := r.update("a.yaml", services, "b.yaml", deployment("web"), "c.yaml", deployment("other"))
	if got := objects(c); got != "added web a.yaml:1, added other a.yaml:8, added web b.yaml:1, added other c.yaml:1" {
		t.Errorf("objects: %s", got)
	}
	if want := []string{"default/local/local-0", "default/other/other-0", "default/web/web-0"}; !slices.Equal(c.Applied, want) || c.Generation != 1 {
		t.Errorf("applied: %v, generation %d", c.Applied, c.Generation)
	}
	if c := r.update(); !c.Nothing() {
		t.Errorf("the same files again: %+v", c)
	}
	// Objects that only moved have not changed.
	if c := r.update("b.yaml", "# a comment\n"+deployment("web")); objects(c) != "" {
		t.Errorf("a comment: %+v", c)
	}
	if got := objects(r.update("v.yaml", route("/one"))); got != "added web v.yaml:1" {
		t.Errorf("a route: %s", got)
	}
	if got := objects(r.update("v.yaml", "\n"+route("/two"))); got != "changed web v.yaml:2" {
		t.Errorf("a changed route: %s", got)
	}
	if got := objects(r.update("v.yaml", "")); got != "removed web v.yaml:2" {
		t.Errorf("a removed route: %s", got)
	}
}

func TestOnlyWhoIsConcernedGetsASnapshot(t *testing.T) {
	r := newRig(t)
	scoped := strings.Replace(route("/one"), "  hosts:", "  exportTo: [\".\"]\n  hosts:", 1)
	r.update("a.yaml", services+"---\n"+strings.ReplaceAll(services, "metadata: {name: ", "metadata: {namespace: far, name: "),
		"b.yaml", deployment("web"), "far.yaml", strings.Replace(deployment("other"), "metadata: {name", "metadata: {namespace: far, name", 1))
	c := r.update("v.yaml", scoped)
	if want := []string{"default/local/local-0", "default/web/web-0"}; !slices.Equal(c.Applied, want) {
		t.Errorf("a rule for namespace default went to %v, want %v", c.Applied, want)
	}
}

// TestRearrange says that the same objects elsewhere are no new generation, and that only who sees it is told.
func TestRearrange(t *testing.T) {
	r := newRig(t)
	r.update("a.yaml", services, "b.yaml", deployment("web"), "far.yaml", strings.ReplaceAll(services, "metadata: {name: ", "metadata: {namespace: far, name: "))
	before := r.plane.State()
	f := func(what string, want ...string) {
		t.Helper()
		c, err := r.plane.Rearrange(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(c.Applied, want) || len(c.Objects)+len(c.Findings)+len(c.Removed) > 0 || c.Generation != before.Generation {
			t.Errorf("%s: %+v, want %v to have it", what, c, want)
		}
		if after := r.plane.State(); after.Generation != before.Generation || after.Mesh != before.Mesh || after.Placement == before.Placement {
			t.Errorf("%s: %+v", what, after)
		}
	}
	f("nothing else")
	r.mu.Lock()
	r.unready = "web"
	r.mu.Unlock()
	f("web is not ready", "default/local/local-0", "default/web/web-0")
	for i := range r.plane.Feed().Latest("default/local/local-0").Clusters {
		for _, e := range r.plane.Feed().Latest("default/local/local-0").Clusters[i].Endpoints {
			if e.Peer.Name == "web" && !e.Unready {
				t.Errorf("%s is not marked", e.Address)
			}
		}
	}
	f("the same again")
}

func TestLastGoodVersionStays(t *testing.T) {
	r := newRig(t)
	r.update("a.yaml", services, "b.yaml", deployment("web"), "v.yaml", route("/one"))
	before := r.plane.Feed().Latest("default/local/local-0")

	broken := strings.Replace(route("/two"), "rewrite:", "rewrote:", 1)
	c := r.update("v.yaml", broken+"---\n"+strings.ReplaceAll(strings.SplitAfter(services, "---\n")[1], "other", "third"))
	if len(c.Kept) != 1 || c.Kept[0].Name != "web" || c.Kept[0].Kind != "VirtualService" {
		t.Errorf("kept %v", c.Kept)
	}
	if len(c.Findings) != 1 || c.Findings[0].File != "v.yaml" || c.Findings[0].Line != 7 || c.Findings[0].Severity != config.Error {
		t.Errorf("findings %v", c.Findings)
	}
	if !strings.Contains(objects(c), "added third v.yaml") {
		t.Errorf("the rest of the change is not applied: %s", objects(c))
	}
	c = r.update("v.yaml", "\t[[[")
	if len(c.Kept) != 2 || objects(c) != "" {
		t.Errorf("a file that is broken as a whole keeps all its objects: kept %d, changed %q", len(c.Kept), objects(c))
	}
	c = r.update("v.yaml", route("/one"))
	if after := r.plane.Feed().Latest("default/local/local-0"); !reflect.DeepEqual(after.Tables, before.Tables) {
		t.Errorf("mended, the configuration differs from the first")
	}
	if len(r.plane.State().Findings) != 0 || len(c.Kept) != 0 {
		t.Errorf("mended: %v", r.plane.State().Findings)
	}
}

func TestRefusalIsTold(t *testing.T) {
	r := newRig(t)
	r.update("a.yaml", services, "b.yaml", deployment("web"))
	running := r.plane.Feed().Status("default/web/web-0").Running
	r.mu.Lock()
	r.refuse["default/web/web-0"] = "port taken"
	r.mu.Unlock()
	c := r.update("v.yaml", route("/one"))
	if len(c.Refused) != 1 || c.Refused[0].Key != "default/web/web-0" || c.Refused[0].Reason != "port taken" {
		t.Errorf("refused %+v", c.Refused)
	}
	if !slices.Equal(c.Applied, []string{"default/local/local-0"}) {
		t.Errorf("applied %v", c.Applied)
	}
	if st := r.plane.Feed().Status("default/web/web-0"); st.Running != running {
		t.Errorf("it runs %s, want %s as before", st.Running, running)
	}
}

func TestWhoListensComesFirst(t *testing.T) {
	r := newRig(t)
	r.update("a.yaml", services, "b.yaml", deployment("web"))
	r.mu.Lock()
	r.order = nil
	r.mu.Unlock()
	c := r.update("c.yaml", deployment("other"))
	// Instances are numbered by template here, so that "web" moves to another address too: both listen anew.
	if len(r.order) != 3 || r.order[2] != "default/local/local-0" {
		t.Errorf("the client learned of the new addresses before they were listened at: %v", r.order)
	}
	if len(c.Applied) != 3 {
		t.Errorf("applied %v", c.Applied)
	}
	c = r.update("c.yaml", "")
	if !slices.Equal(c.Removed, []string{"default/other/other-0"}) || r.plane.Feed().Latest("default/other/other-0") != nil {
		t.Errorf("removed %v", c.Removed)
	}
}

func TestWave(t *testing.T) {
	snapshot := func(addresses ...string) *model.Snapshot {
		s := &model.Snapshot{}
		for _, a := range addresses {
			s.Listeners = append(s.Listeners, model.Listener{Address: a})
		}
		return s
	}
	f := func(want int, old, now *model.Snapshot) {
		t.Helper()
		if got := wave(old, now); got != want {
			t.Errorf("wave %d, want %d", got, want)
		}
	}
	f(0, nil, snapshot("a"))
	f(0, snapshot("a"), snapshot("a", "b"))
	f(0, snapshot("a", "b"), snapshot("a", "c"))
	f(1, snapshot("a"), snapshot("a"))
	f(2, snapshot("a", "b"), snapshot("b"))
}
