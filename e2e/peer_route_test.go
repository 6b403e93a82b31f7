package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/local"
)

// played are applications that give planned answers and write down what they are asked.
type played struct {
	mu     sync.Mutex
	trials map[string]*trial   // by scenario
	seen   map[string][]string // by scenario
	copies map[string][]string // of mirrored requests
}

func (p *played) handler(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		all, without := fieldsOf(r.Header), []string{"content-length", "expect", "connection"}
		for i, f := range all {
			if f[0] == "x-request-id" && f[1] != givenID {
				all[i][1] = "made"
			}
		}
		framing := "length"
		if len(r.TransferEncoding) > 0 && len(body) > 0 {
			framing = "chunks"
		}
		if name == "mirror" { // Envoy tells who mirrors, and frames copies anew
			framing, without = "", append(without, "x-forwarded-for")
		}
		// A rewritten path begins with one slash here, where Envoy may leave two, which name a host in places.
		path := "/" + strings.TrimLeft(r.RequestURI, "/")
		line := fmt.Sprintf("%s HTTP/%d %s %s host=%q %s %s %.20q %d %s %v", name, r.ProtoMajor, r.Method, path, r.Host, all.text(without...), framing, body, len(body), fieldsOf(r.Trailer).text(), err)
		scenario := r.Header.Get("x-scenario")
		p.mu.Lock()
		defer p.mu.Unlock()
		if name == "mirror" {
			p.copies[scenario] = append(p.copies[scenario], line)
			return
		}
		if t := p.trials[scenario]; t != nil {
			t.answers[min(len(p.seen[scenario]), len(t.answers)-1)].write(w)
		}
		p.seen[scenario] = append(p.seen[scenario], line)
	}
}

func (a *planned) write(w http.ResponseWriter) {
	h := w.Header()
	for _, f := range a.headers {
		h.Add(f[0], f[1])
	}
	if h.Get("Content-Type") == "" {
		h["Content-Type"] = nil // none is made up
	}
	if a.body != "" && !a.chunked {
		h.Set("content-length", strconv.Itoa(len(a.body)))
	}
	for _, f := range a.trailers {
		h.Set(http.TrailerPrefix+f[0], f[1])
	}
	w.WriteHeader(a.status)
	if a.chunked {
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = io.WriteString(w, a.body)
}

// saw is what the applications were asked, and what mirrors were, once both proxies' mirrored requests are as many.
func (p *played) saw(m *mesh, n int) (seen, copies map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	even := func() bool {
		for i := range n {
			if len(p.copies[fmt.Sprint("o", i)]) != len(p.copies[fmt.Sprint("e", i)]) {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(20 * time.Second); !even() && time.Now().Before(end); {
		p.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		p.mu.Lock()
	}
	seen, copies = map[string]string{}, map[string]string{}
	for name, lines := range p.seen {
		seen[name] = strings.Join(lines, "\n        ")
	}
	for name, lines := range p.copies {
		copies[name] = strings.Join(lines, "\n        ")
	}
	return seen, copies
}

// told is an answer without what differs by intent: how the absence of a body is written, and the text of our own failures.
func (q *trial) told(a wireAnswer) string {
	if why := a.headers.get("x-outrider-reason"); why != "" && why != "fault_abort" {
		a.body = ""
	}
	var without []string
	if a.headers.get("access-control-allow-headers") == "" { // to a preflight that asks for none
		without = append(without, "access-control-allow-headers")
	}
	if a.body == "" {
		without = append(without, "content-length", "content-type")
	}
	if q.method == "HEAD" {
		without = append(without, "content-length", "transfer-encoding")
	}
	for i, f := range a.headers {
		if f[0] == "location" {
			a.headers[i][1] = strings.Replace(f[1], ":80/", "/", 1) // of http, which is the same
		}
	}
	return fmt.Sprintf("%s %s %.20q %d %s cut %t", a.status, a.headers.text(without...), a.body, len(a.body), a.trailers.text(), a.cut)
}

// routedMesh is a random configuration, for both proxies.
type routedMesh struct {
	objects string
	apps    []local.App
	vhosts  map[int][]tree // Envoy's, by port
	rules   map[string]string
}

// routed makes VirtualServices for hosts of the mesh, at two ports each, and one for a wildcard host beside the mesh.
func routed(t *testing.T, r roller, hosts int, at map[string]string) *routedMesh {
	t.Helper()
	c := &routedMesh{vhosts: map[int][]tree{}, rules: map[string]string{}}
	for _, name := range destinations {
		s := service(name, "app: "+name)
		if name == "app3" {
			s = strings.Replace(s, "name: http,", "name: http2,", 1)
		}
		c.objects += s + workload(name, "v1", 1, "sidecar.istio.io/inject", "false")
		c.apps = append(c.apps, local.App{Namespace: "default", Workload: name + "-v1", Port: 8080, Addresses: []string{at[name]}})
	}
	for i := range hosts + 1 {
		name := fmt.Sprintf("h%d", i)
		v := &networking.VirtualService{Hosts: []string{name}}
		domains, ports := []string{name, name + ".default", name + ".default.svc", name + ".default.svc.cluster.local", name + ".default.svc.cluster.local."}, []int{80, 8080}
		if i == hosts {
			name, domains, ports = "wild", []string{"*.wild.example"}, ports[:1]
			v.Hosts = domains
		} else {
			c.objects += fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {selector: {app: app1}, ports: [{name: http, port: 80, targetPort: 8080}, {name: http-too, port: 8080, targetPort: 8080}]}\n", name)
		}
		rules := 1 + r.IntN(6)
		for j := range rules {
			h := r.rule()
			if j == rules-1 && !r.one(3) {
				h.Match = nil // the others
			}
			h.Name = fmt.Sprintf("%s-%d", name, j)
			text, err := protojson.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			v.Http, c.rules[h.Name] = append(v.Http, h), string(text)
		}
		text, err := protojson.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		c.objects += fmt.Sprintf("---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec: %s\n", name, text)
		for _, port := range ports {
			c.vhosts[port] = append(c.vhosts[port], tree{"name": name, "domains": domains, "routes": envoyRoutes(v, uint32(port))})
		}
	}
	c.objects += `---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
    accessLogFormat: "%REQ(X-SCENARIO)% %RESPONSE_CODE% %RESPONSE_FLAGS% %ROUTE_NAME%"
    outboundTrafficPolicy: {mode: REGISTRY_ONLY}
`
	return c
}

// run runs Envoy with that configuration, and says where it listens for each port.
func (c *routedMesh) run(t *testing.T, at map[string]string) (e *envoy, ports map[int]string) {
	t.Helper()
	address := func(a string) tree {
		host, port, _ := net.SplitHostPort(a)
		n, _ := strconv.Atoi(port)
		return tree{"socket_address": tree{"address": host, "port_value": n}}
	}
	var listeners, clusters []tree
	ports = map[int]string{}
	for port, all := range c.vhosts {
		ports[port] = free(t, 1)[0]
		all = append(all, tree{"name": "block_all", "domains": []string{"*"}, "routes": []tree{{"name": "block_all", "match": tree{"prefix": "/"}, "direct_response": tree{"status": 502}}}})
		listeners = append(listeners, tree{"name": fmt.Sprint(port), "address": address(ports[port]), "filter_chains": []tree{{"filters": []tree{{"name": "http", "typed_config": envoyManager(all)}}}}})
	}
	for name, a := range at {
		options := tree{"http_protocol_options": tree{"enable_trailers": true}}
		if name == "app3" {
			options = tree{"http2_protocol_options": tree{}}
		}
		clusters = append(clusters, tree{
			"name": name, "connect_timeout": "10s",
			"typed_extension_protocol_options": tree{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": tree{
				"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": options,
			}},
			"circuit_breakers": tree{"thresholds": []tree{{"max_connections": 1 << 30, "max_pending_requests": 1 << 30, "max_requests": 1 << 30, "max_retries": 1 << 30}}},
			"load_assignment":  tree{"cluster_name": name, "endpoints": []tree{{"lb_endpoints": []tree{{"endpoint": tree{"address": address(a)}}}}}},
		})
	}
	conf, err := json.Marshal(tree{"static_resources": tree{"listeners": listeners, "clusters": clusters}})
	if err != nil {
		t.Fatal(err)
	}
	return runEnvoy(t, ports[80], func(log string) string { return strings.ReplaceAll(string(conf), "ACCESS_LOG", log) }), ports
}

// TestRoutesAsEnvoy sends random requests through random VirtualServices, by us and by Envoy with the routes that istiod makes of
// them. Answers, what the applications and the mirrors see, status, flags and the rule's name in the access log must be the same.
func TestRoutesAsEnvoy(t *testing.T) {
	alike(t, func() differences { return routeDifferences(t, 2026, 30, 350) })
}

func routeDifferences(t *testing.T, seed uint64, hosts, n int) differences {
	t.Helper()
	r := roller{rand.New(rand.NewPCG(seed, 0))}
	app := &played{trials: map[string]*trial{}, seen: map[string][]string{}, copies: map[string][]string{}}
	at := map[string]string{}
	for _, name := range destinations {
		at[name] = listenVersions(t, app.handler(name))
	}
	c := routed(t, r, hosts, at)
	e, ports := c.run(t, at)
	log := &transcript{}
	m := up(t, c.objects, func(o *local.Options) { o.Apps, o.Out = c.apps, log })
	if strings.Contains(m.talk.String(), "error: ") {
		t.Fatalf("the configuration is no good:\n%s", m.talk)
	}
	all := make([]*trial, n)
	for i := range all {
		all[i] = r.trial(hosts)
		app.trials[fmt.Sprint("e", i)], app.trials[fmt.Sprint("o", i)] = all[i], all[i]
	}
	ask := func(who string, address func(q *trial) string) []string {
		got := make([]string, n)
		var wg sync.WaitGroup
		room := make(chan struct{}, 4)
		for i, q := range all {
			room <- struct{}{}
			wg.Go(func() {
				named := q.wireRequest
				named.headers = append(slices.Clone(q.headers), [2]string{"x-scenario", fmt.Sprint(who, i)})
				got[i] = q.told(named.send(address(q)))
				<-room
			})
		}
		wg.Wait()
		return got
	}
	theirs := ask("e", func(q *trial) string { return ports[q.port] })
	ours := ask("o", func(*trial) string { return m.ready.Proxy })
	logged := e.accesses(n)
	m.await("everything is logged", func() bool {
		for line := range strings.Lines(log.String()) {
			name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			logged[name] = strings.Replace(rest, "502 NR block_all", "502 - block_all", 1)
		}
		return len(logged) >= 2*n
	})
	seen, copies := app.saw(m, n)
	differ, tally := differences{}, map[string]int{}
	for i, q := range all {
		they, we := fmt.Sprint("e", i), fmt.Sprint("o", i)
		for what, pair := range map[string][2]string{
			"answer": {ours[i], theirs[i]}, "applications": {seen[we], seen[they]}, "mirror": {copies[we], copies[they]}, "log": {logged[we], logged[they]},
		} {
			if pair[0] != pair[1] {
				_, rule, _ := strings.Cut(logged[they], " ")
				_, rule, _ = strings.Cut(rule, " ")
				differ.note(fmt.Sprintf("%s of %d, %.1500s", what, i, fmt.Sprintf("%+v", *q)), "\n  we    %s\n  Envoy %s\n  by %s", pair[0], pair[1], c.rules[rule])
			}
		}
		tally[q.kind(c, logged[they])]++
	}
	t.Logf("%d scenarios: %v", n, tally)
	return differ
}

// kind names what became of a scenario by its rule.
func (q *trial) kind(c *routedMesh, logged string) string {
	words := strings.Fields(logged)
	rule := c.rules[words[len(words)-1]]
	for _, kind := range []string{"redirect", "directResponse", "abort", "corsPolicy", "rewrite", "mirror", "retries", "headers", "route"} {
		if strings.Contains(rule, `"`+kind+`":`) {
			return kind
		}
	}
	return "none"
}
