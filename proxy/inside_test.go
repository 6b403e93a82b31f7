package proxy

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// pipe is a tunnel on a stream of HTTP/2, as a client has it.
type pipe struct {
	*io.PipeWriter
	io.ReadCloser
}

func (p pipe) Close() error { _ = p.PipeWriter.Close(); return p.ReadCloser.Close() }

// connectOverStream opens a tunnel with CONNECT in HTTP/2.
func connectOverStream(t *testing.T, c *http.Client, authority string) pipe {
	t.Helper()
	r, w := io.Pipe()
	req := request("CONNECT", "http://"+authority, r)
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 {
		t.Fatalf("got %v", res)
	}
	p := pipe{w, res.Body}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// CONNECT to a port of HTTP within HTTP/2: the requests inside are routed and counted as any others, in either version.
func TestConnectToAServiceOverAStream(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := goClient(t, p, 2)
	tunnel := connectOverStream(t, c, "app:80")
	in := bufio.NewReader(tunnel)
	for range 3 {
		if _, err := io.WriteString(tunnel, get("/inside")); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 || !strings.Contains(string(b), "GET /inside") {
			t.Errorf("got %v, %s, %v", res, b, err)
		}
	}
	if _, err := io.WriteString(tunnel, "GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(in); err != nil || !strings.Contains(string(b), "200 OK") {
		t.Errorf("the last: %q, %v", b, err)
	}
	_ = tunnel.Close()

	second := connectOverStream(t, c, "app:80") // HTTP/2 in HTTP/2
	fr := http2.NewFramer(second, second)
	if _, err := io.WriteString(second, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if f, err := fr.ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
		t.Errorf("got %v, %v", f, err)
	}
	_ = second.Close() // while the connection inside is open
	eventually(t, "the records", func() bool {
		return requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")["200|-"] == 4
	})
	eventually(t, "the end of what was inside", func() bool { return p.conns.count() == 1 })
}

// A drain waits for the request inside, and then ends what is inside and around.
func TestDrainInsideOfAStream(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	address := goServer(t, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	p := start(t, snapshotOf(func(*model.Snapshot, *model.Rule) {}, address), Limits{})
	tunnel := connectOverStream(t, goClient(t, p, 2), "app:80")
	if _, err := io.WriteString(tunnel, get("/")); err != nil {
		t.Fatal(err)
	}
	<-begun
	drained := make(chan error, 1)
	go func() { // ends with the drain
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		drained <- p.Drain(ctx)
	}()
	eventually(t, "the drain", func() bool { return p.draining.Load() })
	close(release)
	if b, err := io.ReadAll(tunnel); err != nil || !strings.HasSuffix(string(b), "done") {
		t.Errorf("got %q, %v", b, err)
	}
	_ = tunnel.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
