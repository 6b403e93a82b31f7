package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/local"
	"github.com/outrider-mesh/outrider/meshtest"
)

// free returns addresses that nobody listens at.
func free(t *testing.T, n int) []string {
	t.Helper()
	out := make([]string, n)
	for i := range out {
		out[i] = meshtest.Address(t)
	}
	return out
}

// apps says where the application of web-v1 runs.
func apps(addresses ...string) func(*local.Options) {
	return func(o *local.Options) {
		o.Apps = []local.App{{Namespace: "default", Workload: "web-v1", Port: 8080, Addresses: addresses}}
	}
}

// statuses sends n requests one after the other and counts status and reason of each.
func (m *mesh) statuses(n int) map[string]int {
	m.t.Helper()
	counts := map[string]int{}
	for range n {
		a := m.get("http://web/")
		counts[strings.TrimSpace(fmt.Sprint(a.Status, " ", a.Header.Get("x-outrider-reason")))]++
	}
	return counts
}

// TestKilledBackend kills one of two applications, as kill -9 does, with an answer of it under way. Its sidecar lives on, so
// its share of the requests is answered 503 at once, and says why; all is well when it is back.
func TestKilledBackend(t *testing.T) {
	t.Parallel()
	at := free(t, 2)
	first, second := startBackend(t, at[0]), startBackend(t, at[1])
	m := up(t, balanced(2, "{simple: ROUND_ROBIN}"), apps(first.address, second.address))
	if got := m.statuses(20); got["200"] != 20 {
		t.Fatalf("before: %v", got)
	}
	// Two answers under way, one of each application.
	bodies := make(chan error, 2)
	for range 2 {
		res, err := m.http.Get("http://web/slow")
		if err != nil {
			t.Fatal(err)
		}
		go func() { // ends with the answer, which the channel waits for
			_, err := io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			bodies <- err
		}()
	}
	first.kill()
	select {
	case err := <-bodies:
		if err == nil {
			t.Error("an answer that was cut off in the middle looks complete")
		}
	case <-time.After(time.Minute):
		t.Fatal("the answer under way does not end")
	}
	if got := m.statuses(40); got["200"] != 20 || got["503 upstream_connect"] != 20 {
		t.Errorf("with one application dead: %v, want half 200 and half 503 upstream_connect", got)
	}
	startBackend(t, at[0])
	if got := m.statuses(40); got["200"] != 40 {
		t.Errorf("after it came back: %v", got)
	}
	second.kill()
	<-bodies
}

// TestKilledBackendWithoutSidecar kills an application that others dial themselves: the connection is refused before
// anything was sent, so every request is sent to the other one.
func TestKilledBackendWithoutSidecar(t *testing.T) {
	t.Parallel()
	at := free(t, 2)
	first, second := startBackend(t, at[0]), startBackend(t, at[1])
	m := up(t, balanced(2, "{simple: ROUND_ROBIN}", "sidecar.istio.io/inject", "false"), apps(first.address, second.address))
	if got := m.statuses(20); got["200"] != 20 {
		t.Fatalf("before: %v", got)
	}
	first.kill()
	if got := m.statuses(40); got["200"] != 40 {
		t.Errorf("with one application dead: %v, want 200 for all", got)
	}
	second.kill()
	got := m.get("http://web/")
	if got.Status != 503 || got.Header.Get("x-outrider-reason") != "upstream_connect" {
		t.Errorf("with both dead: %d %s %s", got.Status, got.Header.Get("x-outrider-reason"), got.Text)
	}
}

// TestNobodyPlays asks for a workload that has no application.
func TestNobodyPlays(t *testing.T) {
	t.Parallel()
	m := up(t, balanced(2, "{simple: RANDOM}"), func(o *local.Options) { o.StandIns = false })
	a := m.get("http://web/")
	if a.Status != 503 || a.Header.Get("x-outrider-reason") != "no_healthy_endpoint" {
		t.Errorf("%d %s: %s", a.Status, a.Header.Get("x-outrider-reason"), a.Text)
	}
	if said := m.talk.String(); !strings.Contains(said, "default/web-v1") || !strings.Contains(said, "--stand-ins") {
		t.Errorf("the mesh does not say that nobody plays it: %s", said)
	}
}

// TestSlowReader lets a client stop reading in the middle of a large answer: what the application has written stays
// bounded, others are served meanwhile, and the rest arrives once the client reads on.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const size = 128 << 20
	var mu sync.Mutex
	written := 0
	app := listen(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/large" {
			fmt.Fprintln(w, "small")
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		block := make([]byte, 64<<10)
		for sent := 0; sent < size; sent += len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
			mu.Lock()
			written += len(block)
			mu.Unlock()
		}
	})
	m := up(t, balanced(1, "{simple: RANDOM}"), apps(app))
	res, err := m.http.Get("http://web/large")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	now := func() int {
		mu.Lock()
		defer mu.Unlock()
		return written
	}
	last, since := -1, time.Now()
	m.await("the application's writing stops", func() bool {
		if n := now(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	if last == size { // the kernel's buffers on the way take less, however busy the machine is
		t.Errorf("the application could write %d bytes that nobody read", last)
	}
	if got := m.statuses(50); got["200"] != 50 {
		t.Errorf("beside the slow reader: %v", got)
	}
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != size {
		t.Errorf("read on to %d bytes (%v), want %d", n, err, size)
	}
}

// listen runs an application inside the test and returns where.
func listen(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { // ends with Close
		_ = s.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return l.Addr().String()
}
