package dashboard

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// page is a client that notes when it got what.
type page struct {
	head   http.Header
	status int
	buffer bytes.Buffer
	parts  []string // one a flush
	at     []time.Duration
	begun  time.Time
}

func (p *page) Header() http.Header         { return p.head }
func (p *page) WriteHeader(status int)      { p.status = status }
func (p *page) Write(b []byte) (int, error) { return p.buffer.Write(b) }
func (p *page) Flush() {
	p.parts, p.at = append(p.parts, p.buffer.String()), append(p.at, time.Since(p.begun))
	p.buffer.Reset()
}

func TestStreamPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := newRig(t, nil)
		var source atomic.Pointer[list]
		source.Store(&list{})
		s := NewStream(SourceFunc(func(dst []Named) []Named { return source.Load().Breakers(dst) }), func() int64 { return int64(time.Since(start)) }, nil)
		ctx, cancel := context.WithCancel(t.Context())
		p := &page{head: http.Header{}, begun: start}
		done := make(chan struct{})
		go func() { // the test waits for done
			s.ServeHTTP(p, httptest.NewRequestWithContext(ctx, http.MethodGet, "/hystrix.stream", nil))
			close(done)
		}()
		time.Sleep(600 * time.Millisecond) // virtual
		synctest.Wait()
		source.Store(&list{{Namespace: "default", Name: "ratings", Group: "ratings", Breaker: b.Breaker}})
		time.Sleep(time.Second)
		synctest.Wait()
		cancel()
		<-done
		if p.status != http.StatusOK || p.head.Get("Content-Type") != "text/event-stream;charset=UTF-8" || p.head.Get("Pragma") != "no-cache" ||
			p.head.Get("Cache-Control") != "no-cache, no-store, max-age=0, must-revalidate" {
			t.Errorf("%d %v", p.status, p.head)
		}
		if len(p.parts) != 4 {
			t.Fatalf("%d parts: %q", len(p.parts), p.parts)
		}
		for i, part := range p.parts {
			if p.at[i] != time.Duration(i)*streamInterval {
				t.Errorf("part %d came after %s", i, p.at[i])
			}
			data, ping := strings.CutSuffix(part, "ping: \n\n")
			if !ping || strings.Count(data, "\n\n") != strings.Count(data, "data: {") || (data == "") != (i < 2) {
				t.Errorf("part %d is %q", i, part)
			}
		}
	})
}

// TestStreamClients opens as many streams as there may be, and one more.
func TestStreamClients(t *testing.T) {
	s := NewStream(list{}, func() int64 { return 0 }, nil)
	server := httptest.NewServer(s)
	defer server.Close()
	open := func() *http.Response {
		t.Helper()
		r, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	var streams []*http.Response
	defer func() {
		for _, r := range streams {
			_ = r.Body.Close()
		}
	}()
	for range streamClients {
		r := open()
		streams = append(streams, r)
		if r.StatusCode != http.StatusOK {
			t.Fatalf("status %d", r.StatusCode)
		}
	}
	r := open()
	body, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "MaxConcurrentConnections reached: 5") {
		t.Errorf("the sixth: %d %q", r.StatusCode, body)
	}
	_ = streams[0].Body.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		r := open()
		if r.StatusCode == http.StatusOK {
			streams[0] = r
			break
		}
		_ = r.Body.Close()
		if time.Now().After(end) {
			t.Fatal("the place of one that left is never free")
		}
	}
	head, err := http.Head(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = head.Body.Close()
}

// TestStreamEnds closes a stream while a client reads it, and asks for another one.
func TestStreamEnds(t *testing.T) {
	s := NewStream(list{}, func() int64 { return 0 }, nil)
	server := httptest.NewServer(s)
	defer server.Close()
	r, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	s.Close()
	s.Close()
	if text, err := io.ReadAll(r.Body); err != nil || !strings.HasSuffix(string(text), "ping: \n\n") {
		t.Errorf("the stream ends with %v after %q", err, text)
	}
	r, err = http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after the end: status %d", r.StatusCode)
	}
}

// TestView shows several clients' breakers: while nobody asked a host all are there, then those that did; who has gone is taken
// away once, with its pool.
func TestView(t *testing.T) {
	ask := func(r rig) rig {
		r.call(100*ms, 40*ms, breaker.Succeeded)
		return r
	}
	pooled := func(s *breaker.Settings) { s.Strategy = breaker.Thread }
	named := func(name, client string, r rig) Named {
		return Named{Namespace: "default", Name: name, Client: client, Group: name + ".default.svc.cluster.local", Breaker: r.Breaker}
	}
	fresh := newRig(t, nil)
	a, b := named("a", "one", fresh), named("a", "two", newRig(t, nil))
	pool := named("p", "one", ask(newRig(t, pooled)))
	var v view
	f := func(want string, all ...Named) {
		t.Helper()
		var got []string
		for event := range bytes.SplitSeq(v.append(nil, list(all), 3*second, 0), []byte("\n\n")) {
			if len(event) == 0 {
				continue
			}
			var e struct{ Type, Name, DeleteData, EscapedName string }
			if err := json.Unmarshal(bytes.TrimPrefix(event, []byte("data: ")), &e); err != nil {
				t.Fatalf("%s: %v", event, err)
			}
			text := strings.ToLower(strings.TrimPrefix(e.Type, "Hystrix")) + " " + e.Name
			if e.DeleteData != "" {
				text = "-" + text + " " + e.DeleteData + " " + e.EscapedName
			}
			got = append(got, text)
		}
		slices.Sort(got)
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("got  %s\nwant %s", text, want)
		}
	}
	f("")
	f("command a@one, command a@two", a, b)
	ask(fresh)
	f(`-command a@two true a\@two_0, command a@one`, a, b)
	f("command a@one, command p@one, threadpool p.default@one", a, b, pool)
	f(`-command p@one true p\@one_0, -threadpool p.default@one true p\.default\@one_0, command a@one`, a, b)
	f("command a@one", a, b)
	alone := named("a", "", newRig(t, nil))
	f(`-command a@one true a\@one_0, command a`, alone)
	f("")
}

// TestStreamOutlivesTimeouts reads on after the time that the server gives other requests and answers.
func TestStreamOutlivesTimeouts(t *testing.T) {
	server := httptest.NewUnstartedServer(NewStream(list{}, func() int64 { return 0 }, nil))
	server.Config.WriteTimeout = 20 * time.Millisecond
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	r, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	for pings := 0; pings < 3; {
		if !lines.Scan() {
			t.Fatalf("the stream ends after %d pings: %v", pings, lines.Err())
		}
		if strings.HasPrefix(lines.Text(), "ping: ") {
			pings++
		}
	}
}
