package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/examples"
	"github.com/outrider-mesh/outrider/local"
)

// shared is an output that is read while it is written.
type shared struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// demoRun is a demo that goes on until it is ended.
type demoRun struct {
	t     *testing.T
	out   shared
	talk  shared
	ready local.Ready
	stop  context.CancelFunc
	code  chan int
}

// startDemo starts a demo and waits until it is ready.
func startDemo(t *testing.T, args ...string) *demoRun {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ready.json")
	ctx, stop := context.WithCancel(t.Context())
	d := &demoRun{t: t, stop: stop, code: make(chan int, 1)}
	args = append([]string{"demo", "--scrape-interval", "500ms", "--admin", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--ready-file", file}, args...)
	go func() { d.code <- Run(ctx, args, strings.NewReader(""), &d.out, &d.talk) }() // end waits for it
	d.until("it is ready", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(text, &d.ready) == nil
	})
	return d
}

func (d *demoRun) until(what string, holds func() bool) {
	d.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			d.stop()
			d.t.Fatalf("not within two minutes: %s; exit code %d\n%s%s", what, <-d.code, d.out.String(), d.talk.String())
		}
	}
}

// end interrupts the demo and returns its exit code.
func (d *demoRun) end() int {
	d.stop()
	return <-d.code
}

// query asks PromQL through the admin address for one number; 0 where there is none.
func (d *demoRun) query(expression string) float64 {
	d.t.Helper()
	r, err := http.Get(d.ready.Admin + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		d.t.Fatal(err)
	}
	if len(answer.Data.Result) == 0 {
		return 0
	}
	n, err := strconv.ParseFloat(answer.Data.Result[0].Value[1].(string), 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// unraced skips a whole demo under the race detector, which slows its eleven sidecars, their applications and Prometheus
// down to where scrapes miss each other.
func unraced(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector slows a whole demo down too much; its parts run under it in local, proxy and e2e")
	}
}

// TestDemoTellsOfABreaker follows the demo's story, and holds what it says to the metrics of the mesh that it ran.
func TestDemoTellsOfABreaker(t *testing.T) {
	unraced(t)
	d := startDemo(t)
	order := regexp.MustCompile(`(?s)s  broken .*status=503'\n.*s  open +after (\d+) failures;.*s  fallback  200 OK, x-outrider-reason: fallback: .*s  probe .*s  healed .*s  closed .* answered (\d+) requests, (\d+) of them`)
	d.until("the story is told", func() bool { return order.MatchString(d.out.String()) })
	const own = `{namespace="default",workload="storefront",`
	f := func(what, expression string, least float64) {
		t.Helper()
		d.until(fmt.Sprintf("%s are at least %v", what, least), func() bool { return d.query(expression) >= least }) // scrapes may be missed
	}
	var said []float64
	for _, text := range order.FindStringSubmatch(d.out.String())[1:] {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, n)
	}
	if said[0] < 10 || said[1] < said[0] || said[2] < 1 || said[2] > said[1] {
		t.Errorf("it counts %v failures, fallbacks and refusals", said)
	}
	const transitions = `sum(outrider_breaker_transitions_total` + own + `breaker="default/details",`
	f("openings", transitions+`from="closed",to="open",reason="error_threshold"})`, 1)
	f("probes that failed", transitions+`from="half_open",to="open"})`, 1)
	f("closings", transitions+`from="half_open",to="closed",reason="probe_succeeded"})`, 1)
	f("moments in the open state", `max_over_time(outrider_breaker_state`+own+`breaker="default/details",state="open"}[10m])`, 1)
	f("moments in which dashboards saw it open", `max_over_time(hystrix_command_is_circuit_breaker_open`+own+`command_name="details"}[10m])`, 1)
	f("failures", `sum(hystrix_command_event_total`+own+`command_name="details",event=~"failure|timeout"})`, said[0])
	f("fallbacks", `sum(outrider_breaker_fallbacks_total`+own+`breaker="default/details",outcome="success"})`, said[1])
	f("refusals", `sum(hystrix_command_event_total`+own+`command_name="details",event="short_circuited"})`, said[2])
	f("answers of details itself", `sum(istio_requests_total{reporter="destination",destination_service_name="details",response_code="503"})`, said[0])
	if code := d.end(); code != 0 {
		t.Errorf("exit code %d: %s%s", code, d.out.String(), d.talk.String())
	}
	if out := d.out.String(); !strings.Contains(out, "Breaker of details (resilience.yaml:") {
		t.Errorf("the summary does not tell of it:\n%s", out)
	}
}

// TestDemoWithoutABreaker has nothing to tell where the user's file has no breaker, and fails where it never opens.
func TestDemoWithoutABreaker(t *testing.T) {
	unraced(t)
	file, err := examples.Storefront.ReadFile(examples.StorefrontDir + "/resilience.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f := func(content string, wantCode int, want string) {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "resilience.yaml"), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		r := run(t, "", "demo", "--for", "15s", "--scrape-interval", "500ms", "--admin", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--dir", dir)
		if strings.Contains(r.talk, "no requests passed") {
			t.Skip("this machine has no time for the demo's requests now, and the demo says so")
		}
		if r.code != wantCode || !strings.Contains(r.talk, want) || strings.Contains(r.out, "s  open") {
			t.Errorf("exit code %d, want %d and %q: %s%s", r.code, wantCode, want, r.out, r.talk)
		}
	}
	t.Run("absent", func(t *testing.T) {
		t.Parallel()
		f("# none\n", 0, "")
	})
	t.Run("never opens", func(t *testing.T) {
		t.Parallel()
		f(strings.Replace(string(file), "requestVolumeThreshold: 20", "requestVolumeThreshold: 1000000", 1), 1, "it did not open while details was broken")
	})
}
