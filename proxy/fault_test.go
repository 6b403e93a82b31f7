package proxy

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/balance"
)

// valueOf returns the sum of a counter's series that have all these labels ("name=value").
func valueOf(t testing.TB, p *Proxy, family string, labels ...string) (sum float64) {
	t.Helper()
	families, err := p.metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for _, l := range labels {
				if k, v, _ := strings.Cut(l, "="); labelOf(m, k) != v {
					continue series
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// near says whether k of n draws of probability p is less than five standard deviations off.
func near(k, n int, p float64) bool {
	return math.Abs(float64(k)-float64(n)*p) <= 5*math.Sqrt(float64(n)*p*(1-p))+1e-9
}

func TestShare(t *testing.T) {
	r := balance.NewRand(1)
	f := func(percent float64, want share) {
		t.Helper()
		s := shareOf(percent)
		if s != want {
			t.Errorf("%v %%: got %d of a million, want %d", percent, s, want)
		}
		const n = 1_000_000
		k := 0
		for range n {
			if s.draw(&r) {
				k++
			}
		}
		if !near(k, n, float64(want)/million) {
			t.Errorf("%v %%: %d of %d", percent, k, n)
		}
	}
	f(0, 0)
	f(0.0001, 1)
	f(0.0003, 3)
	f(0.29, 2900)
	f(33.3333, 333333)
	f(50, 500000)
	f(99.9999, 999999)
	f(100, million)
	f(101, million)
	f(-1, 0)
}

// An abort answers in place of the endpoint, which sees nothing of it, in both versions; the connection goes on.
func TestFaultAbort(t *testing.T) {
	var seen atomic.Int64
	versions(t, func(_ *model.Snapshot, r *model.Rule) {
		r.Route.Fault = &model.Fault{AbortPercent: 100, AbortStatus: 503}
		r.Response.Set = []model.NameValue{{Name: "x-rule", Value: "1"}}
	}, func(w http.ResponseWriter, r *http.Request) { seen.Add(1) }, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		for range 3 {
			res, b := fetch(t, c, request("POST", "http://app/", strings.NewReader("a body")))
			if res.StatusCode != 503 || b != faultText || res.Header.Get("X-Outrider-Reason") != "fault_abort" || res.Header.Get("X-Rule") != "1" {
				t.Errorf("got %v %q", res, b)
			}
		}
		eventually(t, "the records", func() bool {
			return requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")["503|FI"] == 3
		})
		if n := valueOf(t, p, "outrider_faults_injected_total", "kind=abort", "name=app"); n != 3 {
			t.Errorf("%v aborts counted", n)
		}
		if n := valueOf(t, p, "outrider_upstream_requests_total"); n != 0 {
			t.Errorf("%v requests counted for endpoints", n)
		}
	})
	if n := seen.Load(); n != 0 {
		t.Errorf("the application saw %d requests", n)
	}
}

// gRPC's clients get gRPC's statuses, whichever kind was configured; others see Envoy's 200 where only a gRPC status was.
func TestFaultAbortGRPC(t *testing.T) {
	f := func(fault model.Fault, grpc bool, status int, code string) {
		t.Helper()
		fault.AbortPercent = 100
		p := start(t, snapshotOf(func(_ *model.Snapshot, r *model.Rule) { r.Route.Fault = &fault }, "127.0.0.1:1"), Limits{})
		c := goClient(t, p, 2)
		r := request("POST", "http://app/s/M", strings.NewReader("\x00\x00\x00\x00\x00"))
		if grpc {
			r.Header.Set("Content-Type", "application/grpc")
		}
		res, _ := fetch(t, c, r)
		if res.StatusCode != status || res.Header.Get("Grpc-Status") != code || res.Header.Get("X-Outrider-Reason") != "fault_abort" {
			t.Errorf("%+v: got %v", fault, res)
		}
		if grpc && res.Header.Get("Grpc-Message") != faultText {
			t.Errorf("%+v: got %v", fault, res)
		}
	}
	f(model.Fault{AbortGRPC: 14}, true, 200, "14")
	f(model.Fault{AbortGRPC: 5}, true, 200, "5")
	f(model.Fault{AbortStatus: 503}, true, 200, "14")
	f(model.Fault{AbortStatus: 404}, true, 200, "12")
	f(model.Fault{AbortStatus: 500}, true, 200, "2")
	f(model.Fault{AbortGRPC: 14}, false, 200, "")
	f(model.Fault{AbortStatus: 418}, false, 418, "")
}

// A delay holds the request back, and neither the route's timeout nor anybody else notices.
func TestFaultDelay(t *testing.T) {
	t.Parallel()
	const delay, timeout = 1500 * time.Millisecond, time.Second
	versionsAtOnce(t, func(_ *model.Snapshot, r *model.Rule) {
		r.Route.Timeout = model.Duration(timeout)
		r.Route.Fault = &model.Fault{DelayPercent: 100, Delay: model.Duration(delay)}
	}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		begin := time.Now()
		res, _ := fetch(t, c, request("POST", "http://app/", strings.NewReader("a body")))
		if took := time.Since(begin); res.StatusCode != 200 || took < delay {
			t.Errorf("got %v after %v", res, took)
		} else if ms, err := strconv.Atoi(res.Header.Get("X-Envoy-Upstream-Service-Time")); err != nil || time.Duration(ms)*time.Millisecond > took-delay {
			t.Errorf("the service is said to have taken %d ms of %v: the delay is not its own (%v)", ms, took, err)
		}
		begin = time.Now()
		res, _ = fetch(t, c, request("GET", "http://app/slow", nil))
		if took := time.Since(begin); res.StatusCode != 504 || took < delay+timeout {
			t.Errorf("got %v after %v", res, took)
		}
		eventually(t, "the records", func() bool {
			got := requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")
			return got["200|DI"] == 1 && got["504|DI,UT"] == 1
		})
		if n := valueOf(t, p, "outrider_faults_injected_total", "kind=delay"); n != 2 {
			t.Errorf("%v delays counted", n)
		}
	})
}

// A delay that is longer than the fine tick is asked for ends in time as well, and the abort comes after it.
func TestFaultDelayThenAbort(t *testing.T) {
	const delay = fineBelow + 100*time.Millisecond
	p := start(t, snapshotOf(func(_ *model.Snapshot, r *model.Rule) {
		r.Route.Fault = &model.Fault{DelayPercent: 100, Delay: model.Duration(delay), AbortPercent: 100, AbortStatus: 500}
	}, "127.0.0.1:1"), Limits{})
	begin := time.Now()
	c := goClient(t, p, 1)
	res, _ := fetch(t, c, request("GET", "http://app/", nil))
	if took := time.Since(begin); res.StatusCode != 500 || took < delay {
		t.Errorf("got %v after %v", res, took)
	}
	eventually(t, "the record", func() bool {
		return requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")["500|DI,FI"] == 1
	})
}

// A delay ends with its client.
func TestFaultDelayClientGone(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			p := start(t, snapshotOf(func(_ *model.Snapshot, r *model.Rule) {
				r.Route.Fault = &model.Fault{DelayPercent: 100, Delay: model.Duration(time.Hour)}
			}, "127.0.0.1:1"), Limits{})
			c := goClient(t, p, version)
			ctx, cancel := context.WithCancel(t.Context())
			gone := make(chan error)
			go func() { // ends with ctx; received below
				res, err := c.Do(request("GET", "http://app/", nil).WithContext(ctx))
				if err == nil {
					_ = res.Body.Close()
				}
				gone <- err
			}()
			eventually(t, "the delay", func() bool { return valueOf(t, p, "outrider_faults_injected_total", "kind=delay") == 1 })
			cancel()
			if err := <-gone; err == nil {
				t.Error("an answer came")
			}
			eventually(t, "the record", func() bool {
				n := requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")
				return n["0|"+goneFlag[version]+",DI"]+n["0|DI,"+goneFlag[version]] == 1
			})
			eventually(t, "the client's connections are idle, and closed", func() bool {
				c.CloseIdleConnections()
				return p.conns.count() == 0
			})
			settled(t, p)
		})
	}
}

// A proxy that drains does not wait for delays: what is left of them is spared, and the requests are served.
func TestFaultDelayDrain(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			address := goServer(t, func(w http.ResponseWriter, r *http.Request) {})
			p := start(t, snapshotOf(func(_ *model.Snapshot, r *model.Rule) {
				r.Route.Fault = &model.Fault{DelayPercent: 100, Delay: model.Duration(time.Hour)}
			}, address), Limits{})
			c := goClient(t, p, version)
			answered := make(chan error)
			go func() { // ends with the answer; received below
				res, err := c.Do(request("GET", "http://app/", nil))
				if err == nil {
					_ = res.Body.Close()
					if res.StatusCode != 200 {
						err = fmt.Errorf("got %v", res)
					}
				}
				answered <- err
			}()
			eventually(t, "the delay", func() bool { return valueOf(t, p, "outrider_faults_injected_total", "kind=delay") == 1 })
			if err := p.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-answered; err != nil {
				t.Error(err)
			}
		})
	}
}

// Shares of delays and aborts are independent and as configured.
func TestFaultShares(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(func(_ *model.Snapshot, r *model.Rule) {
		r.Route.Fault = &model.Fault{DelayPercent: 20, Delay: 1, AbortPercent: 30, AbortStatus: 500}
	}, o.address()), Limits{})
	c := dial(t, p, "outbound")
	const n = 4000
	aborted := 0
	for range n {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		switch a := c.read("GET"); a.status {
		case 500:
			aborted++
		case 200:
		default:
			t.Fatalf("got %+v", a)
		}
	}
	if !near(aborted, n, 0.3) {
		t.Errorf("%d of %d aborted", aborted, n)
	}
	delayed := int(valueOf(t, p, "outrider_faults_injected_total", "kind=delay"))
	if !near(delayed, n, 0.2) {
		t.Errorf("%d of %d delayed", delayed, n)
	}
	eventually(t, "the records", func() bool { return valueOf(t, p, "istio_requests_total") == n })
	if both := int(requestsTotal(t, p.metrics.Gatherer(), "response_flags")["DI,FI"]); !near(both, n, 0.06) {
		t.Errorf("%d of %d delayed and aborted", both, n)
	}
}

// A reload keeps what was counted of a rule, and drops the counters of rules that are gone.
func TestFaultReload(t *testing.T) {
	fault := func(percent float64) *model.Snapshot {
		return snapshotOf(func(_ *model.Snapshot, r *model.Rule) {
			if percent > 0 {
				r.Route.Fault = &model.Fault{AbortPercent: percent, AbortStatus: 500}
			}
		}, "127.0.0.1:1")
	}
	p := start(t, fault(100), Limits{})
	c := dial(t, p, "outbound")
	ask := func() {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		c.read("GET")
	}
	ask()
	if err := p.Apply(fault(99.9999)); err != nil {
		t.Fatal(err)
	}
	if n := valueOf(t, p, "outrider_faults_injected_total"); n != 1 {
		t.Errorf("%v counted after a reload", n)
	}
	if err := p.Apply(fault(0)); err != nil {
		t.Fatal(err)
	}
	if n := len(p.generation.Load().gates.faults); n != 0 {
		t.Errorf("%d rules are counted for", n)
	}
	if p.generation.Load().gates.before != nil {
		t.Error("the generation before is kept")
	}
}
