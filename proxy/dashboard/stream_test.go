package dashboard

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
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
