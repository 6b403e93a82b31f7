package local

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Hystrix's own dashboard and Turbine read the streams of a mesh whose breakers are in all states.

// jarsVariable names the folder that they are in, or are put into where Maven is at hand: in its folder dashboard.
const jarsVariable = "OUTRIDER_HYSTRIX_JARS"

const (
	dashboardWAR = "hystrix-dashboard-1.5.12.war"
	turbineJAR   = "turbine-core-1.0.0.jar"
)

// dashboardJars returns the folders of Turbine 2's jars with the dashboard's WAR, and of Turbine 1's.
func dashboardJars(t *testing.T) (two, one string) {
	t.Helper()
	jars := os.Getenv(jarsVariable)
	if jars == "" {
		t.Skipf("%s is not set: the folder with the jars of Hystrix's dashboard and of Turbine, or for them", jarsVariable)
	}
	jars, err := filepath.Abs(jars)
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"java", "node"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	fetched := func(folder, jar, pom string) string {
		folder = filepath.Join(jars, folder)
		if _, err := os.Stat(filepath.Join(folder, jar)); err == nil {
			return folder
		}
		if _, err := exec.LookPath("mvn"); err != nil {
			t.Skipf("%s has no %s, and there is no mvn to get it", folder, jar)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		fetch := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+folder)
		if out, err := fetch.CombinedOutput(); err != nil {
			t.Fatalf("mvn: %v\n%s", err, out)
		}
		return folder
	}
	return fetched("dashboard", dashboardWAR, "testdata/hystrix/pom.xml"), fetched("turbine1", turbineJAR, "testdata/hystrix/turbine1/pom.xml")
}

// screen is the dashboard's, as far as it is scripts and templates.
type screen struct {
	t      *testing.T
	folder string
}

// unpack takes the scripts and templates out of the dashboard's WAR.
func unpack(t *testing.T, war string) screen {
	t.Helper()
	r, err := zip.OpenReader(war)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := screen{t, t.TempDir()}
	for _, f := range r.File {
		if ext := filepath.Ext(f.Name); !filepath.IsLocal(f.Name) || ext != ".js" && ext != ".html" {
			continue
		}
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		_ = in.Close()
		name := filepath.Join(p.folder, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// card is the inside of a circuit's or a thread pool's card, as HTML.
type card string

// show gives the page events, one a line, and returns its cards, by CIRCUIT_ or THREAD_POOL_ and the name. What the page does not
// understand it logs, and here it fails the test.
func (p screen) show(events string) map[string]card {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "testdata/hystrix/cards.js", p.folder)
	node.Stdin = strings.NewReader(events)
	var errs bytes.Buffer
	node.Stderr = &errs
	out, err := node.Output()
	if err != nil {
		p.t.Fatalf("node: %v\n%s", err, errs.Bytes())
	}
	var shown struct {
		Cards map[string]card
		Log   []string
	}
	if err := json.Unmarshal(out, &shown); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	if len(shown.Log) > 0 {
		p.t.Errorf("the dashboard logs %q", shown.Log)
	}
	cards := map[string]card{}
	for name, c := range shown.Cards {
		cards[strings.TrimSuffix(name, "_0")] = c
	}
	return cards
}

var (
	markup = regexp.MustCompile(`<[^>]*>`)
	spaces = regexp.MustCompile(`\s+`)
)

// value is what stands in the element of a class: a count, a percentage, a rate or a latency.
func (c card) value(class string) string {
	found := regexp.MustCompile(`class="(?:[^"]* )?` + class + `">(?:<span class="value">)?([^<]+)<`).FindStringSubmatch(string(c))
	if found == nil {
		return "no " + class
	}
	return strings.TrimSpace(found[1])
}

// text is the card as one reads it.
func (c card) text() string {
	return strings.TrimSpace(spaces.ReplaceAllString(markup.ReplaceAllString(string(c), " "), " "))
}

// turbine starts Turbine 2 over streams and returns the address of its own. It ends with the test.
func turbine(t *testing.T, jars string, streams ...string) string {
	t.Helper()
	port := freePort(t)
	start(t, "Turbine 2", "-cp", filepath.Join(jars, "*"), "com.netflix.turbine.StartTurbine", "-port", port, "-streams", strings.Join(streams, " "))
	return "http://127.0.0.1:" + port + "/turbine.stream"
}

// turbine1 is the same with Turbine 1, which has a cluster of fixed instances.
func turbine1(t *testing.T, jars string, instances ...string) string {
	t.Helper()
	port := freePort(t)
	start(t, "Turbine 1", "-cp", filepath.Join(jars, "*"), "-DInstanceDiscovery.impl=com.netflix.turbine.discovery.ConfigPropertyBasedDiscovery",
		"-Dturbine.aggregator.clusterConfig=front", "-Dturbine.ConfigPropertyBasedDiscovery.front.instances="+strings.Join(instances, ","),
		"-Dturbine.instanceUrlSuffix=/hystrix.stream", "testdata/hystrix/turbine1/Turbine.java", port)
	return "http://127.0.0.1:" + port + "/turbine.stream?cluster=front"
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// start runs java until the test ends, and tells what it said where the test fails.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	java := exec.CommandContext(ctx, "java", args...)
	var said journal
	java.Stdout, java.Stderr = &said, &said
	if err := java.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = java.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s said:\n%s", name, said.String())
		}
	})
}

// recorder keeps the newest event of each command and pool of a stream.
type recorder struct {
	mu     sync.Mutex
	newest map[string]string // by type and name
}

// record reads a stream until the test ends, and tries again where it cannot connect yet.
func record(t *testing.T, url string) *recorder {
	t.Helper()
	r := &recorder{newest: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			r.read(ctx, url)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { cancel(); reading.Wait() })
	return r
}

func (r *recorder) read(ctx context.Context, url string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		return // it does not listen yet
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		var e struct{ Type, Name string }
		if !ok || json.Unmarshal([]byte(text), &e) != nil {
			continue
		}
		r.mu.Lock()
		r.newest[e.Type+" "+e.Name] = text
		r.mu.Unlock()
	}
}

// number is a field of a command's newest event, -1 where there is none.
func (r *recorder) number(command, field string) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e map[string]any
	if json.Unmarshal([]byte(r.newest["HystrixCommand "+command]), &e) != nil {
		return -1
	}
	if n, ok := e[field].(float64); ok {
		return n
	}
	return -1
}

// events are the newest of all, one a line.
func (r *recorder) events() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.newest {
		b.WriteString(e + "\n")
	}
	return b.String()
}

// guarded is a service of one or more stand-ins with a breaker whose window is longer than the test.
func guarded(name string, replicas int, hystrix, rest string) string {
	return documents(strings.ReplaceAll(webService, "web", name), strings.ReplaceAll(strings.ReplaceAll(deployment("v1", replicas, ""), "web-v1", "web"), "web", name),
		fmt.Sprintf(`apiVersion: outrider.dev/v1alpha1
kind: CircuitBreaker
metadata: {name: %[1]s}
spec:
  host: %[1]s
  hystrix:
    metrics: {rollingStats: {timeInMilliseconds: 300000, numBuckets: 600}, rollingPercentile: {timeInMilliseconds: 300000, numBuckets: 600}}
%[2]s%[3]s`, name, hystrix, rest))
}

// counts are the numbers of a circuit's card, and the events that they are of in the metrics.
var counts = map[string]string{"success": "success", "failure": "failure", "shortCircuited": "short_circuited", "timeout": "timeout", "badRequest": "bad_request"}

// TestDashboardAndTurbine has two replicas of a client call four services, and holds what the dashboard shows of the mesh's stream, of a
// sidecar's, and of those of Turbine 1 and 2 over both sidecars, to what the sidecars' metrics say.
func TestDashboardAndTurbine(t *testing.T) {
	jars, older := dashboardJars(t)
	p := unpack(t, filepath.Join(jars, dashboardWAR))
	const fallback = "  fallback: {response: {body: \"[]\"}}\n"
	services := documents(
		guarded("good", 2, "", ""),
		guarded("bad", 1, "    circuitBreaker: {sleepWindowInMilliseconds: 600000}\n", fallback),
		guarded("half", 1, "    circuitBreaker: {sleepWindowInMilliseconds: 50}\n    execution: {isolation: {thread: {timeoutInMilliseconds: 600000}}}\n", fallback),
		guarded("pooled", 1, "    execution: {isolation: {strategy: THREAD, thread: {timeoutInMilliseconds: 600000}}}\n", ""),
	)
	replicas := func(n int) string {
		return documents(strings.ReplaceAll(deployment("v1", n, ""), "web", "front"), services)
	}
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{"mesh.yaml": replicas(2)})
	eventually := func(what string, holds func() bool) { // two more programs run besides
		t.Helper()
		for end := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	var metrics [2]string
	var clients [2]*http.Client
	for _, w := range f.Ready().Workloads {
		if n, err := strconv.Atoi(strings.TrimPrefix(w.Instance, "front-v1-")); err == nil {
			metrics[n], clients[n] = "http://"+w.Metrics, via(w.Outbound)
			defer clients[n].CloseIdleConnections()
		}
	}
	call := func(client, times int, host string) (reason string) {
		t.Helper()
		for range times {
			r, err := clients[client].Get("http://" + host + "/")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
			reason = r.Header.Get("x-outrider-reason")
		}
		return reason
	}
	event := func(client int, breaker, event string) float64 {
		t.Helper()
		n := 0.0
		for _, terminal := range []string{"true", "false"} {
			n += max(0, seriesAt(t, metrics[client], `hystrix_command_event_total{command_group="`+breaker+`.default.svc.cluster.local",command_name="`+breaker+`",event="`+event+`",terminal="`+terminal+`"} `))
		}
		return n
	}
	state := func(client int, breaker, state string) bool {
		t.Helper()
		return seriesAt(t, metrics[client], `outrider_breaker_state{breaker="default/`+breaker+`",service="`+breaker+`.default.svc.cluster.local",state="`+state+`"} `) == 1
	}

	admin, own := record(t, f.Ready().Admin+"/hystrix.stream"), record(t, metrics[1]+"/hystrix.stream")
	aggregate := record(t, turbine(t, jars, metrics[0]+"/hystrix.stream", metrics[1]+"/hystrix.stream"))
	sum := record(t, turbine1(t, older, strings.TrimPrefix(metrics[0], "http://"), strings.TrimPrefix(metrics[1], "http://")))

	call(0, 300, "good")
	call(1, 150, "good")
	f.behave("status=404", "pooled-0")
	call(1, 5, "pooled")
	f.behave("delay=30ms", "pooled-0")
	call(1, 20, "pooled")
	f.behave("status=503", "half-0")
	f.behave("status=503", "bad-0")
	eventually("the breaker opens for one client", func() bool { return call(0, 30, "bad") == "fallback" && state(0, "bad", "open") })
	call(0, 10, "bad")
	eventually("another breaker opens", func() bool { return call(0, 5, "half") == "fallback" && event(0, "half", "short_circuited") > 0 })
	f.behave("delay=10m", "half-0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var probing sync.WaitGroup
	defer probing.Wait()
	defer cancel()
	eventually("a probe hangs", func() bool {
		probing.Go(func() { // the probe, or one that is refused
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://half/", nil)
			if err != nil {
				return
			}
			if r, err := clients[0].Do(request); err == nil {
				_ = r.Body.Close()
			}
		})
		return state(0, "half", "half_open")
	})

	seen := func(what string, r *recorder, command, field string, want float64) {
		t.Helper()
		eventually(fmt.Sprintf("%s says that %s of %s is %v", what, field, command, want), func() bool { return r.number(command, field) == want })
	}
	both := func(breaker, name string) float64 { return event(0, breaker, name) + event(1, breaker, name) }
	for breaker, field := range map[string]string{"good": "rollingCountSuccess", "pooled": "rollingCountSuccess", "bad": "rollingCountShortCircuited"} {
		name := map[string]string{"rollingCountSuccess": "success", "rollingCountShortCircuited": "short_circuited"}[field]
		seen("Turbine 2", aggregate, breaker, field, both(breaker, name))
		seen("Turbine 1", sum, breaker, field, both(breaker, name))
		if breaker != "bad" {
			seen("a sidecar", own, breaker, field, event(1, breaker, name))
			seen("the mesh", admin, breaker+"@front-v1-1", field, event(1, breaker, name))
		}
	}
	seen("Turbine 2", aggregate, "bad", "reportingHosts", 2)
	seen("Turbine 1", sum, "bad", "reportingHosts", 2)
	seen("the mesh", admin, "bad@front-v1-0", "rollingCountShortCircuited", event(0, "bad", "short_circuited"))

	c := p.show(admin.events())
	d := p.show(own.events())
	a, b := p.show(aggregate.events()), p.show(sum.events())
	tells := func(of string, all map[string]card, name string, want map[string]float64) {
		t.Helper()
		if _, ok := all[name]; !ok {
			t.Errorf("%s: there is no card %s", of, name)
			return
		}
		for class, n := range want {
			if got := all[name].value(class); got != strconv.FormatFloat(n, 'f', -1, 64) {
				t.Errorf("%s: %s of %s is %s, the metrics say %v", of, class, name, got, n)
			}
		}
	}
	for _, breaker := range []string{"good", "bad", "pooled"} {
		alone, second, together := map[string]float64{}, map[string]float64{}, map[string]float64{}
		for class, name := range counts {
			alone[class], second[class], together[class] = event(0, breaker, name), event(1, breaker, name), both(breaker, name)
		}
		if breaker != "pooled" {
			tells("the mesh", c, "CIRCUIT_"+breaker+"@front-v1-0", alone)
		}
		if breaker != "bad" {
			tells("the mesh", c, "CIRCUIT_"+breaker+"@front-v1-1", second)
		}
		tells("a sidecar", d, "CIRCUIT_"+breaker, second)
		tells("Turbine 2", a, "CIRCUIT_"+breaker, together)
		tells("Turbine 1", b, "CIRCUIT_"+breaker, together)
	}
	says := func(all map[string]card, name string, want ...string) {
		t.Helper()
		for _, text := range want {
			if !strings.Contains(all[name].text(), text) {
				t.Errorf("%s is %q: it lacks %q", name, all[name].text(), text)
			}
		}
	}
	says(c, "CIRCUIT_good@front-v1-0", "0.0 %", "Host: 1.0 /s Cluster: 1.0 /s", "Circuit Closed", "Hosts 1")
	says(c, "CIRCUIT_bad@front-v1-0", "100.0 %", "Circuit Open", "Hosts 1")
	says(c, "CIRCUIT_half@front-v1-0", "Circuit Open") // the page has no word for half-open
	says(d, "CIRCUIT_bad", "0.0 %", "Circuit Closed")
	says(a, "CIRCUIT_good", "0.0 %", "Host: 0.8 /s Cluster: 1.5 /s", "Circuit Closed", "Hosts 2")
	says(a, "CIRCUIT_bad", "50.0 %", "Circuit Open 1 Closed 1", "Hosts 2")
	says(c, "THREAD_POOL_pooled.default@front-v1-1", "Active 0", "Max Active 1", "Executions 25", "Pool Size 1", "Queued 0")
	says(a, "THREAD_POOL_pooled.default", "Max Active 1", "Executions 25")
	says(b, "CIRCUIT_good", "0.0 %", "Circuit Closed", "Hosts 2")
	says(b, "CIRCUIT_bad", "Hosts 2")
	if bad := b["CIRCUIT_bad"].text(); !strings.Contains(bad, `{"Closed":1,"Open":1}`) && !strings.Contains(bad, `{"Open":1,"Closed":1}`) {
		t.Errorf("of Turbine 1's sum CIRCUIT_bad is %q: it lacks the two states, in either order", bad)
	}
	eventually("Turbine 1 shows the pool", func() bool {
		return strings.Contains(p.show(sum.events())["THREAD_POOL_pooled.default"].text(), "Executions 25")
	})
	if _, ok := c["CIRCUIT_good@local"]; ok {
		t.Error("a client is shown that never asked")
	}

	cancel()
	f.behave("", "half-0")
	eventually("the breaker closes", func() bool { call(0, 1, "half"); return state(0, "half", "closed") })
	eventually("the page shows how long answers took: 20 of 25 were 30 ms late", func() bool {
		median, err := strconv.Atoi(p.show(admin.events())["CIRCUIT_pooled@front-v1-1"].value("latencyMedian"))
		return err == nil && median >= 30
	})
	eventually("the page shows it closed", func() bool {
		return strings.Contains(p.show(admin.events())["CIRCUIT_half@front-v1-0"].text(), "Circuit Closed")
	})
	before := admin.events()
	f.write("mesh.yaml", replicas(1))
	eventually("the page takes away the cards of a client that has gone", func() bool {
		left := p.show(before + admin.events())
		_, circuit := left["CIRCUIT_good@front-v1-1"]
		_, pool := left["THREAD_POOL_pooled.default@front-v1-1"]
		return !circuit && !pool
	})
}
