package local

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/outrider-mesh/outrider/local/prom"
	"github.com/outrider-mesh/outrider/local/standin"
	"github.com/outrider-mesh/outrider/mesh/admin"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/dashboard"
)

// handler is the admin address. What changes something is refused to other sites' pages.
func (m *Mesh) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", m.servePage)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /config_dump", m.serveDump)
	mux.HandleFunc("GET /clusters", m.serveClusters)
	mux.Handle("GET /metrics", m.stats.handler())
	mux.Handle("GET /hystrix.stream", m.stream)
	mux.HandleFunc("GET /sd/prometheus", func(w http.ResponseWriter, r *http.Request) { prom.SD(m.targets()).ServeHTTP(w, r) })
	mux.HandleFunc("GET /stand-ins", m.serveStandIns)
	mux.HandleFunc("POST /stand-ins/{namespace}/{instance}", m.changeStandIn)
	if m.prom != nil {
		mux.Handle("/api/v1/", m.prom.Handler())
	}
	return http.NewCrossOriginProtection().Handler(mux)
}

// dump is the form of /config_dump.
type dump struct {
	Generation uint64      `json:"generation"`
	Proxies    []proxyDump `json:"proxies"`
}

// proxyDump is what one proxy runs, and how it took what it was given last.
type proxyDump struct {
	Proxy   string `json:"proxy"`
	Refused string `json:"refused,omitempty"` // why the newest snapshot is not in force
	// Snapshot is what is in force, null before the first.
	Snapshot *model.Snapshot `json:"snapshot"`
}

// serveDump writes the snapshots in force, of all proxies or of those that ?proxy= names, by the beginning of their key.
func (m *Mesh) serveDump(w http.ResponseWriter, r *http.Request) {
	out := dump{Generation: m.State().Generation, Proxies: []proxyDump{}}
	for _, s := range m.running(r.FormValue("proxy")) {
		out.Proxies = append(out.Proxies, proxyDump{Proxy: s.key, Refused: m.plane.Feed().Status(s.key).Reason, Snapshot: admin.Redact(s.proxy.Snapshot())})
	}
	writeJSON(w, out)
}

// proxyClusters are the clusters that one proxy sends to, as they are at this moment.
type proxyClusters struct {
	Proxy    string                `json:"proxy"`
	Clusters []admin.ClusterStatus `json:"clusters"`
}

// serveClusters writes where proxies send requests: their clusters and endpoints, all or those that ?proxy= names.
func (m *Mesh) serveClusters(w http.ResponseWriter, r *http.Request) {
	out := []proxyClusters{}
	for _, s := range m.running(r.FormValue("proxy")) {
		out = append(out, proxyClusters{Proxy: s.key, Clusters: s.proxy.Clusters()})
	}
	writeJSON(w, out)
}

// running returns the sidecars whose key begins with the prefix, by key.
func (m *Mesh) running(prefix string) []*sidecar {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*sidecar
	for _, key := range slices.Sorted(maps.Keys(m.sidecars)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, m.sidecars[key])
		}
	}
	return out
}

// caller is a proxy under the name that people know it by.
type caller struct {
	*sidecar
	client string
}

// callers returns all proxies, each under the name of its workload: of the instance, where the workload has several, and
// with the namespace, where two namespaces have a workload of that name.
func (m *Mesh) callers() []caller {
	var workloads []model.Workload
	var out []caller
	instances, namespaces := map[[2]string]int{}, map[string]map[string]bool{}
	for _, s := range m.running("") {
		snapshot := s.proxy.Snapshot()
		if snapshot == nil {
			continue
		}
		w := snapshot.Workload
		out, workloads = append(out, caller{sidecar: s}), append(workloads, w)
		instances[[2]string{w.Namespace, w.Name}]++
		if namespaces[w.Name] == nil {
			namespaces[w.Name] = map[string]bool{}
		}
		namespaces[w.Name][w.Namespace] = true
	}
	for i := range out {
		w := &workloads[i]
		out[i].client = w.Name
		if instances[[2]string{w.Namespace, w.Name}] > 1 {
			out[i].client = w.Instance
		}
		if len(namespaces[w.Name]) > 1 {
			out[i].client = w.Namespace + "/" + out[i].client
		}
	}
	return out
}

// breakers appends the breakers of all proxies, each under its proxy's name.
func (m *Mesh) breakers(dst []dashboard.Named) []dashboard.Named {
	for _, c := range m.callers() {
		first := len(dst)
		dst = c.proxy.Breakers(dst)
		for j := first; j < len(dst); j++ {
			dst[j].Client = c.client
		}
	}
	return dst
}

// serveStandIns lists the stand-ins and how they misbehave.
func (m *Mesh) serveStandIns(w http.ResponseWriter, _ *http.Request) { writeJSON(w, m.troupe.list()) }

// changeStandIn makes one stand-in misbehave as the query says; without one it heals.
func (m *Mesh) changeStandIn(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "cannot read the settings: "+err.Error(), http.StatusBadRequest)
		return
	}
	var b standin.Behaviour
	for name, values := range r.Form {
		for _, value := range values {
			if err := b.Set(name, value); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
	}
	namespace, instance := r.PathValue("namespace"), r.PathValue("instance")
	app := m.troupe.find(namespace, instance)
	if app == nil {
		http.Error(w, fmt.Sprintf("there is no stand-in %s/%s; GET /stand-ins lists them", namespace, instance), http.StatusNotFound)
		return
	}
	app.SetBehaviour(b)
	writeJSON(w, standInRow{Namespace: namespace, Instance: instance, Behaviour: b.String()})
}

// standInRow is one stand-in as the admin address tells of it.
type standInRow struct {
	Namespace string `json:"namespace"`
	Instance  string `json:"instance"`
	Behaviour string `json:"behaviour"` // as the annotation is written; "" is good behaviour
}

// list tells how every stand-in behaves, sorted.
func (t *troupe) list() []standInRow {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []standInRow{}
	for _, id := range slices.Sorted(maps.Keys(t.players)) {
		pl := t.players[id]
		out = append(out, standInRow{Namespace: pl.namespace, Instance: pl.name, Behaviour: pl.app.Role().Behaviour.String()})
	}
	return out
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // a client that left has its own reasons
}
