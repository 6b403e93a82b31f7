package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// paced is an application that takes the milliseconds of a request's field x-head for its answer's head, and those of x-body
// for each of the three pieces of the body. Where x-first is there, that holds for the first attempt alone.
type paced struct{ seen sync.Map }

func (p *paced) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, _ := p.seen.LoadOrStore(r.Header.Get("x-scenario"), new(atomic.Int64))
	attempt := n.(*atomic.Int64).Add(1)
	wait := func(field string) bool {
		ms, _ := strconv.Atoi(r.Header.Get(field))
		if attempt > 1 && r.Header.Get("x-first") != "" {
			ms = 0
		}
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			return true
		case <-r.Context().Done():
			return false
		}
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Connection", "close")
	if r.Header.Get("grpc-timeout") != "" {
		w.Header().Set("content-type", "application/grpc")
	}
	if !wait("x-head") {
		return
	}
	w.WriteHeader(200)
	for range 3 {
		_ = http.NewResponseController(w).Flush()
		if !wait("x-body") {
			return
		}
		_, _ = io.WriteString(w, "piece")
	}
}

func (p *paced) attempts(scenario string) int64 {
	n, ok := p.seen.Load(scenario)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

// slowUpload is a body of three pieces with a pause before each.
type slowUpload struct {
	pause time.Duration
	left  int
}

func (u *slowUpload) Read(b []byte) (int, error) {
	if u.left--; u.left < 0 {
		return 0, io.EOF
	}
	time.Sleep(u.pause)
	return copy(b, "piece"), nil
}

// timedCase is a route with time limits or faults, in a VirtualService's words and in those that Istio writes for Envoy.
type timedCase struct {
	name, istio string
	route       string // of Envoy's route action
	filters     string // Envoy's typed_per_filter_config of its fault filter
}

// timedRequest is what is sent to a route.
type timedRequest struct {
	route      string
	head, body int           // what the application takes
	first      bool          // but only at the first attempt
	upload     time.Duration // before each piece of the request's body; 0 is no body
	grpc       string        // grpc-timeout; "-" is a call without
}

// ownDeadline is a deadline of the client's own that comes first. Envoy answers UNAVAILABLE where gRPC's own servers and clients
// say DEADLINE_EXCEEDED; we say what they do.
const ownDeadline = "150m"

// onlyFor gives a policy that sends again what fails in those ways.
func onlyFor(n int, on, perTry string) string {
	return fmt.Sprintf("retry_policy: {num_retries: %d, retry_on: '%s', per_try_timeout: %s, retry_back_off: {base_interval: 0.001s, max_interval: 0.01s}}", n, on, perTry)
}

// compareTimed sends each request to its route through Envoy and through us: the client's status, gRPC status, how much of the body
// comes and whether it is whole, the attempts that the application sees, and how often which flags are recorded, must be the
// same, and what is delayed must be late.
func compareTimed(t *testing.T, cases []timedCase, all []timedRequest) {
	t.Helper()
	alike(t, func() differences { return timedDifferences(t, cases, all) })
}

func timedDifferences(t *testing.T, cases []timedCase, all []timedRequest) differences {
	t.Helper()
	app := &paced{}
	at := listenVersions(t, app.ServeHTTP)
	virtual, routes := "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n", ""
	for _, c := range cases {
		virtual += fmt.Sprintf("  - match: [{uri: {prefix: /%s/}}]\n    route: [{destination: {host: web}}]\n", c.name)
		if !strings.Contains(c.istio, "retries:") {
			virtual += "    retries: {attempts: 0}\n"
		}
		for _, line := range strings.Split(c.istio, "\n") {
			virtual += "    " + line + "\n"
		}
		filters := ""
		if c.filters != "" {
			filters = ", typed_per_filter_config: {envoy.filters.http.fault: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, " + c.filters + "}}"
		}
		routes += fmt.Sprintf("              - {match: {prefix: /%s/}, route: {cluster: app, %s}%s}\n", c.name, c.route, filters)
	}
	e := newEnvoy(t, routes, "", at)
	m := up(t, service("web", "app: web")+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+virtual, apps(at))
	name := func(who string, i int) string { return fmt.Sprintf("%s%d", who, i) }
	one := func(c *http.Client, who string, i int) string {
		s := all[i]
		r, err := http.NewRequest("GET", "http://web/"+s.route+"/", nil)
		if err != nil {
			return err.Error()
		}
		if s.upload > 0 {
			r.Method, r.Body, r.ContentLength = "PUT", io.NopCloser(&slowUpload{s.upload, 3}), -1
		}
		r.Header.Set("x-scenario", name(who, i))
		r.Header.Set("x-head", strconv.Itoa(s.head))
		r.Header.Set("x-body", strconv.Itoa(s.body))
		if s.first {
			r.Header.Set("x-first", "yes")
		}
		if s.grpc != "" {
			r.Header.Set("content-type", "application/grpc")
			if s.grpc != "-" {
				r.Header.Set("grpc-timeout", s.grpc)
			}
		}
		begin := time.Now()
		res, err := c.Do(r)
		if err != nil {
			return "no answer: " + errors.Unwrap(err).Error()
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		whole := "whole"
		if err != nil {
			whole = "cut"
		}
		late := ""
		if strings.HasPrefix(s.route, "delay") {
			late = fmt.Sprintf(", late %t", time.Since(begin) >= 250*time.Millisecond)
		}
		return fmt.Sprintf("%d grpc %q %q, %s, after %d%s", res.StatusCode, res.Header.Get("grpc-status")+res.Header.Get("grpc-message"), text, whole, app.attempts(name(who, i)), late)
	}
	run := func(c *http.Client, who string) []string {
		got := make([]string, len(all))
		var wg sync.WaitGroup
		room := make(chan struct{}, 8)
		for i := range all {
			room <- struct{}{}
			wg.Go(func() {
				got[i] = one(c, who, i)
				<-room
			})
		}
		wg.Wait()
		return got
	}
	theirs := run(plain(e.address), "e")
	flags := e.accesses(len(all))
	ours := run(plain(m.ready.Proxy), "o")
	tally := map[string]int{}
	differ := differences{}
	for i, s := range all {
		if want := theirs[i]; ours[i] != want && !(s.grpc == ownDeadline && ours[i] == strings.Replace(want, "14upstream request timeout", "4the deadline that the client set has passed", 1)) {
			differ.note(fmt.Sprintf("%+v", s), "\nwe    %s\nEnvoy %s (%s)", ours[i], theirs[i], flags[name("e", i)])
		}
		tally[flags[name("e", i)]]++
	}
	compareFlags(m, tally, differ)
	t.Logf("%d scenarios with %v", len(all), tally)
	return differ
}

// TestTimeoutsAsEnvoy has slow heads, slow bodies and slow uploads meet time limits of the route, of each try, and of both.
func TestTimeoutsAsEnvoy(t *testing.T) {
	t.Parallel()
	cases := []timedCase{
		{name: "none", istio: "", route: "timeout: 0s, max_grpc_timeout: 0s"},
		{name: "route", istio: "timeout: 500ms", route: "timeout: 0.5s, max_grpc_timeout: 0.5s"},
		{name: "try", istio: "retries: {attempts: 1, retryOn: 5xx, perTryTimeout: 500ms, backoff: 1ms}", route: "timeout: 0s, max_grpc_timeout: 0s, " + onlyFor(1, "5xx", "0.5s")},
		{name: "tryonce", istio: "retries: {attempts: 1, retryOn: connect-failure, perTryTimeout: 500ms, backoff: 1ms}", route: "timeout: 0s, max_grpc_timeout: 0s, " + onlyFor(1, "connect-failure", "0.5s")},
		{name: "both", istio: "timeout: 1400ms\nretries: {attempts: 5, retryOn: 'gateway-error', perTryTimeout: 500ms, backoff: 1ms}", route: "timeout: 1.4s, max_grpc_timeout: 1.4s, " + onlyFor(5, "gateway-error", "0.5s")},
		{name: "over", istio: "timeout: 500ms\nretries: {attempts: 2, retryOn: 5xx, perTryTimeout: 900ms, backoff: 1ms}", route: "timeout: 0.5s, max_grpc_timeout: 0.5s, " + onlyFor(2, "5xx", "0.9s")},
	}
	var all []timedRequest
	for _, c := range cases {
		all = append(all,
			timedRequest{route: c.name},
			timedRequest{route: c.name, head: 50, body: 20},
			timedRequest{route: c.name, body: 600}, // a whole answer takes 1.8 s, the head none
			timedRequest{route: c.name, head: 100, body: 900},
			timedRequest{route: c.name, head: 2500, first: true},
			timedRequest{route: c.name, upload: 20 * time.Millisecond, head: 2500, first: true},
			timedRequest{route: c.name, upload: 400 * time.Millisecond}, // the request takes 1.2 s
			timedRequest{route: c.name, upload: 400 * time.Millisecond, head: 2500},
			timedRequest{route: c.name, upload: 400 * time.Millisecond, head: 2500, first: true},
			timedRequest{route: c.name, grpc: "-", head: 50},
			timedRequest{route: c.name, grpc: "-", head: 900},
			timedRequest{route: c.name, grpc: ownDeadline, head: 800},
			timedRequest{route: c.name, grpc: "9S", head: 800},
		)
		if c.name == "none" {
			all = slices.DeleteFunc(all, func(r timedRequest) bool { return r.route == "none" && r.upload > 100*time.Millisecond && r.head > 0 })
		} else {
			all = append(all, timedRequest{route: c.name, head: 2500})
		}
	}
	compareTimed(t, cases, all)
}

// TestFaultsAsEnvoy has faults of all and of no requests, before applications that are quick and that are slow.
func TestFaultsAsEnvoy(t *testing.T) {
	t.Parallel()
	const all, none = "percentage: {numerator: 1000000, denominator: MILLION}", "percentage: {numerator: 0, denominator: MILLION}"
	cases := []timedCase{
		{name: "abort", istio: "fault: {abort: {httpStatus: 503, percentage: {value: 100}}}", filters: "abort: {http_status: 503, " + all + "}"},
		{name: "teapot", istio: "fault: {abort: {httpStatus: 418, percentage: {value: 100}}}", filters: "abort: {http_status: 418, " + all + "}"},
		{name: "fine", istio: "fault: {abort: {httpStatus: 200, percentage: {value: 100}}}", filters: "abort: {http_status: 200, " + all + "}"},
		{name: "spare", istio: "fault: {abort: {httpStatus: 503, percentage: {value: 0}}}", filters: "abort: {http_status: 503, " + none + "}"},
		{name: "unavailable", istio: "fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}", filters: "abort: {grpc_status: 14, " + all + "}"},
		{name: "notfound", istio: "fault: {abort: {grpcStatus: NOT_FOUND, percentage: {value: 100}}}", filters: "abort: {grpc_status: 5, " + all + "}"},
		{name: "delay", istio: "fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}", filters: "delay: {fixed_delay: 0.3s, " + all + "}"},
		{name: "delaynone", istio: "fault: {delay: {fixedDelay: 300ms, percentage: {value: 0}}}", filters: "delay: {fixed_delay: 0.3s, " + none + "}"},
		{name: "delayabort", istio: "fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}, abort: {httpStatus: 503, percentage: {value: 100}}}", filters: "delay: {fixed_delay: 0.3s, " + all + "}, abort: {http_status: 503, " + all + "}"},
		{name: "delaytimeout", istio: "timeout: 450ms\nfault: {delay: {fixedDelay: 500ms, percentage: {value: 100}}}", route: "timeout: 0.45s, max_grpc_timeout: 0.45s", filters: "delay: {fixed_delay: 0.5s, " + all + "}"},
		{name: "retried", istio: "retries: {attempts: 3, retryOn: '5xx,503'}\nfault: {abort: {httpStatus: 503, percentage: {value: 100}}}", route: "timeout: 0s, " + onlyFor(3, "5xx", "0s"), filters: "abort: {http_status: 503, " + all + "}"},
	}
	var requests []timedRequest
	for i := range cases {
		c := &cases[i]
		if c.route == "" {
			c.route = "timeout: 0s, max_grpc_timeout: 0s"
		}
		requests = append(requests,
			timedRequest{route: c.name},
			timedRequest{route: c.name, head: 20, body: 20},
			timedRequest{route: c.name, head: 1000},
			timedRequest{route: c.name, upload: 20 * time.Millisecond},
			timedRequest{route: c.name, grpc: "-"},
			timedRequest{route: c.name, grpc: "-", head: 1000},
		)
	}
	compareTimed(t, cases, requests)
}
