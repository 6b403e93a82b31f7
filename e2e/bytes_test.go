//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/local"
	"github.com/outrider-mesh/outrider/meshtest"
)

// byteService is a service "data" on one opaque port, over the versions v1 and v2 and one service for each, and local
// ports for all three.
func byteService(t *testing.T, v1, v2 string) (text string, change func(*local.Options), at map[string]string) {
	text, change, at = stores(t, []store{{"data", "v1", "tcp", v1}, {"data", "v2", "tcp", v2}})
	for _, v := range []string{"v1", "v2"} {
		text += fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: data-%s}\nspec: {selector: {app: data, version: %[1]s}, ports: [{name: tcp, port: %s, targetPort: 8080}]}\n",
			v, port(at["data"]))
	}
	return text, change, at
}

// named answers each line with its own name, so a connection shows whom it reached.
func named(t *testing.T, name string) string {
	return listenTCP(t, func(c *conversation) {
		for c.heard() != "" {
			c.say(name + "\n")
		}
	})
}

// dialers are the two ways to a service of bytes: the local port and CONNECT.
func (m *mesh) dialers(service, at string) map[string]func() (net.Conn, error) {
	return map[string]func() (net.Conn, error){
		"local port": func() (net.Conn, error) { return net.Dial("tcp", at) },
		"CONNECT":    func() (net.Conn, error) { return m.tunnel(service + ":" + port(at)) },
	}
}

// ask sends a line on a connection of its own and returns the line that comes back.
func ask(dial func() (net.Conn, error)) (string, error) {
	c, err := dial()
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "who\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// TestByteSplits shares connections between two servers by weight, as a VirtualService's tcp route and a TCPRoute say.
func TestByteSplits(t *testing.T) {
	t.Parallel()
	const n = 1500
	text, apps, at := byteService(t, named(t, "v1"), named(t, "v2"))
	f := func(name, objects string, weights map[string]float64) {
		t.Run(name, func(t *testing.T) {
			m := up(t, text+objects, apps)
			for way, dial := range m.dialers("data", at["data"]) {
				counts := map[string]int{}
				var mu sync.Mutex
				m.crowd(t, 8, func(int) error {
					for range n / 8 {
						who, err := ask(dial)
						if err != nil {
							return fmt.Errorf("%s: %w", way, err)
						}
						mu.Lock()
						counts[who]++
						mu.Unlock()
					}
					return nil
				})
				shared(t, counts, weights)
			}
		})
	}
	subsets := "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: data}\nspec: {host: data, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n"
	virtual := func(v1, v2 int) string {
		return subsets + fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: data}
spec:
  hosts: [data]
  tcp:
  - match: [{port: %s}]
    route:
    - {destination: {host: data, subset: v1}, weight: %d}
    - {destination: {host: data, subset: v2}, weight: %d}
`, port(at["data"]), v1, v2)
	}
	f("no route", "", map[string]float64{"v1": 1, "v2": 1})
	f("VirtualService", virtual(75, 25), map[string]float64{"v1": 75, "v2": 25})
	f("VirtualService, all to one", virtual(0, 100), map[string]float64{"v2": 1})
	f("TCPRoute", fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: data}
spec:
  parentRefs: [{group: "", kind: Service, name: data, port: %[1]s}]
  rules:
  - backendRefs: [{name: data-v1, port: %[1]s, weight: 1}, {name: data-v2, port: %[1]s, weight: 4}]
`, port(at["data"])), map[string]float64{"v1": 1, "v2": 4})
}

// TestBytesAcrossReloads keeps connections in use while routes and instances change: none may notice.
func TestBytesAcrossReloads(t *testing.T) {
	t.Parallel()
	connections, reloads := 24, 8
	if long {
		connections, reloads = 100, 40
	}
	text, apps, at := byteService(t, named(t, "v1"), named(t, "v2"))
	text += "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: data}\nspec: {host: data, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}\n"
	route := func(v1, v2 int) string {
		return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: data}
spec:
  hosts: [data]
  tcp:
  - route:
    - {destination: {host: data, subset: v1}, weight: %d}
    - {destination: {host: data, subset: v2}, weight: %d}
`, v1, v2)
	}
	l := newLoad(t)
	m := up(t, text, apps)
	m.edit("route.yaml", route(50, 50))
	var exchanges atomic.Int64
	l.Go(func() {
		dialers := m.dialers("data", at["data"])
		m.crowd(t, connections, func(i int) error {
			dial := dialers["local port"]
			if i%2 == 1 {
				dial = dialers["CONNECT"]
			}
			c, err := dial()
			if err != nil {
				return err
			}
			defer c.Close()
			first := ""
			for in := bufio.NewReader(c); ; {
				if _, err := io.WriteString(c, "who\n"); err != nil {
					return err
				}
				who, err := in.ReadString('\n')
				if err != nil || first != "" && who != first {
					return fmt.Errorf("after %q came %q: %w", first, who, err)
				}
				first = who
				exchanges.Add(1)
				select {
				case <-l.over:
					return nil
				case <-time.After(time.Millisecond): // a pace that leaves the machine to others
				}
			}
		})
	})
	for i := range reloads {
		before := exchanges.Load()
		m.await("the connections are in use", func() bool { return exchanges.Load() >= before+int64(connections) })
		m.edit("route.yaml", route(i*100/reloads, 100-i*100/reloads))
	}
	l.end()
	t.Logf("%d exchanges on %d connections over %d reloads", exchanges.Load(), connections, reloads)
}

// TestHalfClose lets a client end its side first, as one does that sends a file and waits for a receipt, and a server.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	size := 8 << 20
	receipt := listenTCP(t, func(c *conversation) {
		n, err := io.Copy(io.Discard, c.in)
		c.say(fmt.Sprintf("%d bytes, %v\n", n, err))
	})
	first := listenTCP(t, func(c *conversation) {
		c.say("all that I have to say\n")
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, c.in) // until the client ends too
	})
	text, apps, at := stores(t, []store{{"receipt", "v1", "tcp", receipt}, {"first", "v1", "tcp", first}})
	m := up(t, text, prometheus, apps)
	for way, dial := range m.dialers("receipt", at["receipt"]) {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(c, stream(int64(size)), int64(size)); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprintf("%d bytes, <nil>\n", size) {
			t.Errorf("%s: %q, %v", way, got, err)
		}
		_ = c.Close()
	}
	for way, dial := range m.dialers("first", at["first"]) {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "all that I have to say\n" {
			t.Errorf("%s: %q, %v", way, got, err)
		}
		for range 64 { // the other way is open still
			if _, err := c.Write(make([]byte, 16<<10)); err != nil {
				t.Errorf("%s: %v", way, err)
				break
			}
		}
		_ = c.Close()
	}
	m.awaitTCP("received_bytes", "receipt", int64(2*size))
	m.awaitTCP("received_bytes", "first", 2*64*16<<10)
	m.awaitTCP("connections_closed", "receipt", 2)
	m.awaitTCP("connections_closed", "first", 2)
}

// TestBytesToNobody reaches for services of bytes that cannot be reached: the connection ends, and is counted with the reason.
func TestBytesToNobody(t *testing.T) {
	t.Parallel()
	text, apps, at := stores(t, []store{{"gone", "v1", "tcp", meshtest.Address(t)}})
	m := up(t, text+"---\napiVersion: v1\nkind: Service\nmetadata: {name: empty}\nspec: {selector: {app: empty}, ports: [{name: tcp, port: 7001}]}\n", prometheus, apps)
	if got, err := ask(func() (net.Conn, error) { return net.Dial("tcp", at["gone"]) }); err == nil || got != "" {
		t.Errorf("from an application that is gone: %q", got)
	}
	answer := func(target string) string {
		return raw(t, m.ready.Proxy, fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\n\r\n", target))
	}
	if got := answer("empty:7001"); !strings.HasPrefix(got, "HTTP/1.1 503") || !strings.Contains(got, "no_healthy_endpoint") {
		t.Errorf("no endpoint: %s", got)
	}
	if got := answer("gone:1"); !strings.HasPrefix(got, "HTTP/1.1 503") || !strings.Contains(got, "no_route") || !strings.Contains(got, port(at["gone"])) {
		t.Errorf("no such port: %s", got)
	}
	m.scraped()
	m.counted(1, `istio_tcp_connections_closed_total{reporter="destination",destination_service_name="gone",response_flags=~".*(UF|URX).*"}`)
}
