package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrider-mesh/outrider/local"
)

const edge = `---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{route: [{destination: {host: web}}]}]
`

// limited is a mesh that up runs with flags of limits.
type limited struct {
	t       *testing.T
	proxy   string // of the local client
	sidecar string // of the application
	gateway string
}

// limit runs up with the flags, and f beside it.
func limit(t *testing.T, flags string, f func(m *limited)) {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready.json")
	args := upArgs(write(t, "mesh.yaml", goodService+goodWorkload+edge), append(strings.Fields(flags), "--ready-file", ready)...)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if code := Run(ctx, args, strings.NewReader(""), io.Discard, io.Discard); code != 0 {
			t.Errorf("up %s: exit code %d", flags, code)
		}
	})
	defer running.Wait()
	defer cancel()
	var told local.Ready
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if text, err := os.ReadFile(ready); err == nil && json.Unmarshal(text, &told) == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("up %s is not ready", flags)
		}
	}
	f(&limited{t: t, proxy: told.Proxy, sidecar: told.Workloads[1].Inbound[0].Listen, gateway: told.Gateways[0].Servers[0].Listen})
}

func (m *limited) dial(address string) (net.Conn, *bufio.Reader) {
	m.t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		m.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c, bufio.NewReader(c)
}

// status is what text is answered with at the address; 0 where the connection ends instead.
func (m *limited) status(address, text string) int {
	m.t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		m.t.Error(err)
		return 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		return 0
	}
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			m.t.Errorf("no answer at %s to %.60q", address, text)
		}
		return 0
	}
	_ = a.Body.Close()
	return a.StatusCode
}

// everywhere wants the status from the client's proxy, the application's sidecar and the gateway.
func (m *limited) everywhere(want int, text string) {
	m.t.Helper()
	for _, address := range []string{m.proxy, m.sidecar, m.gateway} {
		if got := m.status(address, text); got != want {
			m.t.Errorf("%s answers %d, want %d, to %.60q", address, got, want, text)
		}
	}
}

func get(path string, fields ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: web\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

// Each limit that a flag of up sets holds in every proxy of the mesh.
func TestUpLimits(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	// Between the limit and what passes is room for what proxies add on the way, to requests and to answers.
	limit(t, "--max-head-bytes 10000", func(m *limited) {
		m.everywhere(200, get("/", "A: "+long(3000), "B: "+long(3000)))
		m.everywhere(431, get("/", "A: "+long(6000), "B: "+long(6000)))
	})
	limit(t, "--max-header-fields 30", func(m *limited) {
		m.everywhere(200, get("/", "A: a", "B: b"))
		m.everywhere(431, get("/", strings.Split(strings.Repeat("A: a,", 29)+"B: b", ",")...))
	})
	limit(t, "--max-header-bytes 1000 --max-line-bytes 200", func(m *limited) {
		m.everywhere(200, get("/", "A: "+long(400)))
		m.everywhere(431, get("/", "A: "+long(1000)))
		m.everywhere(200, get("/"+long(150)))
		m.everywhere(414, get("/"+long(201)))
	})
	limit(t, "--max-head-bytes 1000000 --max-header-bytes 500000 --max-line-bytes 300000 --max-header-fields 1000", func(m *limited) { // more than there is otherwise
		var many []string
		for i := range 500 {
			many = append(many, fmt.Sprintf("X-%d: %s", i, long(100)))
		}
		// The application's own limit is 1 MB, of net/http.
		m.everywhere(200, get("/"+long(100_000), append(many, "A: "+long(400_000))...))
	})
	limit(t, "--head-timeout 100ms", func(m *limited) {
		m.everywhere(408, "GET / HTTP/1.1\r\nHost: we")
	})
	limit(t, "--stream-idle-timeout 100ms", func(m *limited) {
		const half = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhalf"
		m.everywhere(408, half)
		// Two proxies on the way have the same limit: the answer of one may meet the other's end of patience.
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				if got := m.status(m.proxy, half); got != 408 {
					t.Errorf("a slow body through two proxies: status %d", got)
				}
			})
		}
		all.Wait()
	})
	limit(t, "--idle-timeout 100ms", func(m *limited) {
		for _, address := range []string{m.proxy, m.sidecar, m.gateway} {
			c, r := m.dial(address)
			_, _ = io.WriteString(c, get("/"))
			a, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, a.Body)
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("%s: the idle connection: %v", address, err)
			}
			_ = c.Close()
		}
	})
	limit(t, "--max-connections 1", func(m *limited) {
		c, r := m.dial(m.gateway)
		defer c.Close()
		_, _ = io.WriteString(c, get("/"))
		if a, err := http.ReadResponse(r, nil); err != nil || a.StatusCode != 200 {
			t.Fatalf("the first connection: %v, %v", a, err)
		}
		if got := m.status(m.gateway, get("/")); got != 0 {
			t.Errorf("a second connection: status %d", got)
		}
	})
}

func TestUpLimitsOfGatewaysAndStreams(t *testing.T) {
	limit(t, "--max-streams 7", func(m *limited) {
		if got := m.status(m.gateway, get("/", "a_b: c")); got != 400 {
			t.Errorf("without --allow-underscores: status %d", got)
		}
		for _, address := range []string{m.proxy, m.sidecar, m.gateway} {
			c, r := m.dial(address)
			_, _ = io.WriteString(c, http2.ClientPreface)
			f := http2.NewFramer(c, r)
			if err := f.WriteSettings(); err != nil {
				t.Fatal(err)
			}
			frame, err := f.ReadFrame()
			settings, ok := frame.(*http2.SettingsFrame)
			if err != nil || !ok {
				t.Fatalf("%s begins with %v, %v", address, frame, err)
			}
			if n, ok := settings.Value(http2.SettingMaxConcurrentStreams); !ok || n != 7 {
				t.Errorf("%s: %d streams", address, n)
			}
			_ = c.Close()
		}
	})
	limit(t, "--allow-underscores", func(m *limited) {
		if got := m.status(m.gateway, get("/", "a_b: c")); got != 200 {
			t.Errorf("with --allow-underscores: status %d", got)
		}
	})
}

func TestUpLimitsOutOfRange(t *testing.T) {
	file := write(t, "mesh.yaml", goodService)
	f := func(flag, say string) {
		t.Helper()
		r := run(t, "", upArgs(file, strings.Fields(flag)...)...)
		if name, _, _ := strings.Cut(flag, " "); r.code != exitUsage || !strings.Contains(r.talk, name) || !strings.Contains(r.talk, say) {
			t.Errorf("%s: exit code %d: %s", flag, r.code, r.talk)
		}
	}
	f("--max-head-bytes 0", "from 64")
	f("--head-timeout 10", "such as 10s")
	f("--max-streams many", "whole number")
}
