package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// ailing is an application that can be killed, frozen, slowed down and made to lie while it is asked.
type ailing struct {
	t       testing.TB
	address string
	mode    atomic.Int32
	server  *http.Server
	done    sync.WaitGroup
	thaw    chan struct{} // closed when what is frozen may go on; guarded by mu
	mu      sync.Mutex
}

const (
	isWell int32 = iota
	isFailing
	isSlow
	isFrozen
	isLying
	isDead
	modes
)

func newAiling(t testing.TB) *ailing {
	a := &ailing{t: t, address: "127.0.0.1:0", thaw: make(chan struct{})}
	a.rise()
	t.Cleanup(a.fall)
	return a
}

// rise begins to serve, at the address of before.
func (a *ailing) rise() {
	var l net.Listener
	eventually(a.t, "the address is free", func() (ok bool) {
		var err error
		l, err = net.Listen("tcp", a.address)
		return err == nil
	})
	a.address = l.Addr().String()
	a.server = &http.Server{Handler: a, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	a.server.Protocols.SetHTTP1(true)
	a.server.Protocols.SetUnencryptedHTTP2(true)
	a.done.Go(func() { _ = a.server.Serve(l) })
}

// fall ends at once, as a killed process does.
func (a *ailing) fall() {
	_ = a.server.Close()
	a.done.Wait()
}

func (a *ailing) become(mode int32) {
	old := a.mode.Swap(mode)
	if old == mode {
		return
	}
	a.mu.Lock()
	close(a.thaw)
	a.thaw = make(chan struct{})
	a.mu.Unlock()
	switch {
	case mode == isDead:
		a.fall()
	case old == isDead:
		a.rise()
	}
}

func (a *ailing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch a.mode.Load() {
	case isFailing:
		w.WriteHeader(503)
		return
	case isSlow:
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
	case isFrozen:
		a.mu.Lock()
		thaw := a.thaw
		a.mu.Unlock()
		select {
		case <-thaw:
		case <-r.Context().Done():
			return
		}
	case isLying: // the answer breaks off, or is none
		if rand.IntN(2) == 0 {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "too little")
		}
		panic(http.ErrAbortHandler)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	_, _ = w.Write(b)
}

// storm is load on a proxy with everything that protects, before applications that ail.
type storm struct {
	t                      *testing.T
	p                      *Proxy
	apps                   []*ailing
	asked, good, protected atomic.Int64
	late                   atomic.Int64
}

const stormTimeout = time.Second

// client asks until ctx ends. Each answer is whole and its request's own, or an error; and it is there in time.
func (s *storm) client(ctx context.Context, c *http.Client) {
	for n := 0; ctx.Err() == nil; n++ {
		body := strings.Repeat(fmt.Sprintf("<%d>", rand.IntN(1000)), rand.IntN(3000))
		r := request("PUT", "http://app/", strings.NewReader(body))
		if n%3 == 0 {
			body, r = "", request("GET", "http://app/", nil)
		}
		begin := time.Now()
		res, err := c.Do(r)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
		}
		if took := time.Since(begin); took > stormTimeout+5*time.Second { // the machine may be busy
			s.late.Add(1)
			s.t.Errorf("a request with a timeout of %v took %v", stormTimeout, took)
		}
		s.asked.Add(1)
		switch {
		case err != nil: // an answer that broke off
		case res.StatusCode == 200 && string(got) == body:
			s.good.Add(1)
		case res.StatusCode == 200:
			s.t.Errorf("an answer of %d bytes to a body of %d", len(got), len(body))
		case res.Header.Get("x-outrider-reason") != "":
			s.protected.Add(1)
		}
	}
}

// TestStorm kills, freezes, slows down and garbles applications under load, with breaker, outlier detection, retries and
// timeouts on: nothing leaks, no request lasts beyond its deadline, and all is well once they are.
func TestStorm(t *testing.T) {
	lasts := 3 * time.Second
	if os.Getenv("OUTRIDER_E2E") != "" {
		lasts = 2 * time.Minute
	}
	s := &storm{t: t}
	var addresses []string
	for range 6 {
		a := newAiling(t)
		s.apps, addresses = append(s.apps, a), append(addresses, a.address)
	}
	protect := hystrix(func(b *model.Breaker) { b.MaxConcurrent, b.Timeout = 24, model.Duration(2*time.Second) })
	s.p = start(t, snapshotOf(func(snap *model.Snapshot, r *model.Rule) {
		protect(snap, r)
		snap.Clusters[0].Protocol = model.Auto // the client's own version
		snap.Clusters[0].Outlier = &model.Outlier{Consecutive5xx: 3, Interval: model.Duration(100 * time.Millisecond), BaseEjection: model.Duration(200 * time.Millisecond), MaxEjectionPercent: 50}
		r.Route.Timeout = model.Duration(stormTimeout)
		r.Route.Retries = &model.Retries{Attempts: 2, On: []string{"5xx", "reset", "connect-failure", "refused-stream"}, PerTry: model.Duration(400 * time.Millisecond)}
	}, addresses...), Limits{})

	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // the first one only moves pools to their victim cache
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var all sync.WaitGroup
	var clients []*http.Client
	for i := range 16 {
		c := goClient(t, s.p, 1+i%2)
		clients = append(clients, c)
		all.Go(func() { s.client(ctx, c) })
	}
	for ctx.Err() == nil {
		s.apps[rand.IntN(len(s.apps))].become(rand.Int32N(modes))
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
	}
	all.Wait()
	for _, a := range s.apps {
		a.become(isWell)
	}
	c := clients[0]
	eventually(t, "all is well again", func() bool {
		res, err := c.Do(request("GET", "http://app/", nil))
		if err != nil {
			return false
		}
		_, err = io.Copy(io.Discard, res.Body)
		return errors.Join(err, res.Body.Close()) == nil && res.StatusCode == 200 && state(s.p) == breaker.Closed
	})
	eventually(t, "the clients' connections are idle, and closed", func() bool {
		for _, c := range clients {
			c.CloseIdleConnections()
		}
		return s.p.conns.count() == 0
	})
	settled(t, s.p)
	var snap breaker.Snapshot
	s.p.upstream.Breakers()["default/app"].Snapshot(&snap, now())
	if snap.Active != 0 || snap.Fallbacks != 0 {
		t.Errorf("%d executions and %d fallbacks are still counted as running", snap.Active, snap.Fallbacks)
	}
	eventually(t, fmt.Sprintf("the heap is what it was: %d KiB", before>>10), func() bool { return heap() <= before+24<<20 })
	if s.good.Load() == 0 || s.protected.Load() == 0 {
		t.Errorf("of %d requests %d were answered well and %d by the proxy: that was no storm", s.asked.Load(), s.good.Load(), s.protected.Load())
	}
	t.Logf("%d requests, %d answered well, %d by the proxy", s.asked.Load(), s.good.Load(), s.protected.Load())
}
