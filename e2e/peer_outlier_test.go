package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ward is a set of applications of which some are ill.
type ward struct {
	at    []string
	ill   []atomic.Value // "" where one is well, or what it does: a status, "reset", "half", a part of a head, or "cut", a quarter of an answer
	asked []atomic.Int64
}

func newWard(t *testing.T, n int) *ward {
	w := &ward{ill: make([]atomic.Value, n), asked: make([]atomic.Int64, n)}
	for i := range n {
		w.ill[i].Store("")
		w.at = append(w.at, listenVersions(t, func(rw http.ResponseWriter, r *http.Request) {
			w.asked[i].Add(1)
			rw.Header().Set("x-host", strconv.Itoa(i))
			switch ill := w.ill[i].Load().(string); ill {
			case "":
			case "reset", "half":
				c, _, err := http.NewResponseController(rw).Hijack()
				if err != nil {
					panic(err)
				}
				if ill == "half" {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le")
				} else {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
				_ = c.Close()
			case "cut": // after so much that its beginning is at the client
				rw.Header().Set("Content-Length", strconv.Itoa(1<<20))
				_, _ = rw.Write(make([]byte, 1<<18))
			default:
				status, _ := strconv.Atoi(ill)
				rw.Header().Set("Connection", "close")
				rw.WriteHeader(status)
			}
		}))
	}
	return w
}

// rotation sends n requests and returns how many of the ill and of the well were asked, and the last status that no
// application gave.
func (w *ward) rotation(t *testing.T, c *http.Client, n int) string {
	t.Helper()
	before := make([]int64, len(w.at))
	for i := range before {
		before[i] = w.asked[i].Load()
	}
	own := 0
	for range n {
		res, err := c.Get("http://web/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.Header.Get("x-host") == "" {
			own = res.StatusCode
		}
	}
	ill, well := 0, 0
	for i := range before {
		switch {
		case w.asked[i].Load() == before[i]:
		case w.ill[i].Load() == "":
			well++
		default:
			ill++
		}
	}
	return fmt.Sprintf("%d ill and %d well are asked, %d comes from the proxy", ill, well, own)
}

// TestOutliersAsEnvoy lets applications fall ill before Envoy, with Istio's configuration, and before us, with the
// DestinationRule: as many stay in rotation, and all come back.
func TestOutliersAsEnvoy(t *testing.T) {
	t.Parallel()
	f := func(hosts, percent, ill int, as, istio, envoy, base string) {
		t.Run(fmt.Sprintf("%d hosts, %d %%, %d with %s, %s, %s", hosts, percent, ill, as, istio, base), func(t *testing.T) {
			t.Parallel()
			run := func(w *ward, c *http.Client) (said []string) {
				say := func(s string) { said = append(said, s) }
				say(w.rotation(t, c, 3*hosts))
				for i := range ill {
					w.ill[i].Store(as)
				}
				w.rotation(t, c, 8*hosts)
				time.Sleep(1500 * time.Millisecond) // Envoy tells who picks of the changes of a second together
				if base == forLong {
					say(w.rotation(t, c, 4*hosts))
					return said
				}
				for i := range ill {
					w.ill[i].Store("")
				}
				for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
					if s := w.rotation(t, c, 2*hosts); s == fmt.Sprintf("0 ill and %d well are asked, 0 comes from the proxy", hosts) {
						say("all are back")
						return said
					} else if time.Now().After(end) {
						say("in the end " + s)
						return said
					}
				}
			}
			alike(t, func() differences {
				w := newWard(t, hosts)
				e := newEnvoy(t, "              - {match: {prefix: /}, route: {cluster: app, timeout: 0s}}\n", fmt.Sprintf(`    common_lb_config: {healthy_panic_threshold: {value: 0}}
    outlier_detection: {interval: 0.2s, base_ejection_time: %s, max_ejection_percent: %d, enforcing_success_rate: 0, %s}`, base, percent, envoy), w.at...)
				theirs := run(w, plain(e.address))
				w = newWard(t, hosts)
				m := up(t, service("web", "app: web")+workload("web", "v1", hosts, "sidecar.istio.io/inject", "false")+fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {interval: 200ms, baseEjectionTime: %s, maxEjectionPercent: %d, %s}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web}}], retries: {attempts: 0}}]
`, base, percent, istio), apps(w.at...))
				ours := run(w, plain(m.ready.Proxy))
				differ := differences{}
				if a, b := strings.Join(ours, "; "), strings.Join(theirs, "; "); a != b {
					differ.note("rotation", "\nours:  %s\nEnvoy: %s", a, b)
				}
				return differ
			})
		})
	}
	five, gateway := "consecutive5xxErrors: 3", "consecutiveGatewayErrors: 3, consecutive5xxErrors: 0"
	envoy5, envoyGateway := "consecutive_5xx: 3", "consecutive_gateway_failure: 3, enforcing_consecutive_gateway_failure: 100, enforcing_consecutive_5xx: 0"
	split := "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 3, consecutive5xxErrors: 0"
	envoySplit := "split_external_local_origin_errors: true, consecutive_local_origin_failure: 3, enforcing_consecutive_5xx: 0, enforcing_local_origin_success_rate: 0"
	for _, hosts := range []int{2, 5, 12} {
		f(hosts, 10, 1, "503", five, envoy5, forLong)
		f(hosts, 50, 1, "500", five, envoy5, forLong)
		f(hosts, 100, hosts, "503", five, envoy5, forLong)
		f(hosts, 100, hosts, "503", five, envoy5, "0.3s")
	}
	f(5, 50, 4, "503", five, envoy5, forLong)
	f(12, 34, 6, "500", five, envoy5, forLong)
	f(5, 100, 2, "500", gateway, envoyGateway, forLong)
	f(5, 100, 2, "502", gateway, envoyGateway, forLong)
	f(5, 100, 2, "reset", five, envoy5, forLong)
	f(5, 100, 2, "reset", gateway, envoyGateway, forLong)
	f(5, 100, 2, "reset", split, envoySplit, forLong)
	f(5, 100, 2, "half", five, envoy5, forLong)
	f(5, 100, 2, "half", gateway, envoyGateway, forLong)
	f(5, 100, 2, "half", split, envoySplit, forLong)
	f(5, 100, 2, "503", split, envoySplit, forLong)
	f(5, 100, 2, "404", five, envoy5, forLong)
	f(5, 100, 2, "cut", "consecutive5xxErrors: 1", "consecutive_5xx: 1", forLong)
	f(5, 100, 2, "cut", five, envoy5, forLong) // its head ends the row
	f(5, 100, 2, "cut", "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 1, consecutive5xxErrors: 0", "split_external_local_origin_errors: true, consecutive_local_origin_failure: 1, enforcing_consecutive_5xx: 0, enforcing_local_origin_success_rate: 0", forLong)
}

// forLong is a first ejection that lasts longer than the test, whose end others look at.
const forLong = "60s"
