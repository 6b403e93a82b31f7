//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/local"
	"github.com/outrider-mesh/outrider/meshtest"
)

// store is a database as the mesh sees it: a Service with one port over a Deployment, and the local port where the
// client finds it.
type store struct {
	name, version string
	portName      string // as in the Service: its prefix declares the protocol
	app           string // host:port where it really runs
}

// stores describes databases and the mesh's way to them: a service for each name, a Deployment for each version, and a
// Sidecar that gives the local client each service's port at 127.0.0.1.
func stores(t *testing.T, all []store) (text string, change func(*local.Options), at map[string]string) {
	at = map[string]string{}
	var apps []local.App
	var listeners strings.Builder
	for _, s := range all {
		if at[s.name] == "" {
			at[s.name] = meshtest.Address(t)
			text += fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {selector: {app: %[1]s}, ports: [{name: %s, port: %s, targetPort: 8080}]}\n",
				s.name, s.portName, port(at[s.name]))
			fmt.Fprintf(&listeners, "\n  - {port: {number: %s, protocol: TCP, name: %s}, bind: 127.0.0.1, captureMode: NONE, hosts: [./%s.default.svc.cluster.local]}",
				port(at[s.name]), s.portName, s.name)
		}
		text += workload(s.name, s.version, 1)
		apps = append(apps, local.App{Namespace: "default", Workload: s.name + "-" + s.version, Port: 8080, Addresses: []string{s.app}})
	}
	text += "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: local}\nspec:\n  workloadSelector: {labels: {app: local}}\n  egress:" +
		listeners.String() + "\n  - {hosts: [\"*/*\"]}\n"
	return text, func(o *local.Options) { o.Apps = apps }, at
}

// startRedis runs a Redis that keeps nothing, and returns its address.
func startRedis(t *testing.T) string {
	t.Helper()
	programs := need(t, "redis-server")
	at, dir := free(t, 1)[0], t.TempDir()
	cmd := exec.Command(programs["redis-server"], "--bind", "127.0.0.1", "--port", port(at), "--save", "", "--dir", dir,
		"--client-output-buffer-limit", "normal 0 0 0", "--enable-debug-command", "yes")
	as(t, "redis", dir, cmd)
	launch(t, at, cmd)
	return at
}

// startPostgres runs a PostgreSQL with an empty cluster, and returns its address.
func startPostgres(t *testing.T) string {
	t.Helper()
	programs := need(t, "initdb", "postgres")
	at, dir := free(t, 1)[0], t.TempDir()
	data := filepath.Join(dir, "data")
	init := exec.Command(programs["initdb"], "-D", data, "-U", "owner", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	as(t, "postgres", dir, init)
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	cmd := exec.Command(programs["postgres"], "-D", data, "-p", port(at), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=250")
	as(t, "postgres", dir, cmd)
	launch(t, at, cmd)
	awaitTool(t, need(t, "pg_isready")["pg_isready"], "-h", "127.0.0.1", "-p", port(at))
	return at
}

// startMariaDB runs a MariaDB with a user "app" and an empty database "shop", and returns its address.
func startMariaDB(t *testing.T) string {
	t.Helper()
	programs := need(t, "mariadb-install-db", "mariadbd", "mariadb")
	at, dir := free(t, 1)[0], t.TempDir()
	data := filepath.Join(dir, "data")
	install := exec.Command(programs["mariadb-install-db"], "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	as(t, "mysql", dir, install)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(programs["mariadbd"], "--no-defaults", "--datadir="+data, "--bind-address=127.0.0.1", "--port="+port(at),
		"--socket="+socket, "--pid-file="+filepath.Join(dir, "pid"), "--skip-name-resolve", "--max-connections=250",
		"--innodb-flush-log-at-trx-commit=0", "--max-allowed-packet=256M")
	as(t, "mysql", dir, cmd)
	launch(t, at, cmd)
	run(t, "create user app@'%' identified by 'secret'; create database shop; grant all on *.* to app@'%';",
		programs["mariadb"], "--no-defaults", "--socket="+socket, "-u", "root")
	return at
}

// awaitTool runs a program until it ends well.
func awaitTool(t *testing.T, path string, args ...string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, err := try(t, "", path, args...)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", filepath.Base(path), err)
		}
	}
}

// wire is a client's connection that counts what it carries. It is used by one goroutine at a time.
type wire struct {
	net.Conn
	in             *bufio.Reader
	sent, received *atomic.Int64
}

func newWire(c net.Conn, sent, received *atomic.Int64) *wire {
	w := &wire{Conn: c, sent: sent, received: received}
	w.in = bufio.NewReaderSize(readCounter{w}, 64<<10)
	return w
}

type readCounter struct{ w *wire }

func (r readCounter) Read(p []byte) (int, error) {
	n, err := r.w.Conn.Read(p)
	r.w.received.Add(int64(n))
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.sent.Add(int64(n))
	return n, err
}

// tunnel reaches host:port by CONNECT through the local client's proxy.
func (m *mesh) tunnel(target string) (net.Conn, error) {
	c, err := net.Dial("tcp", m.ready.Proxy)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		_ = c.Close()
		return nil, err
	}
	// The server may speak right after the head, so it is read to its last byte and no further.
	var head []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, b[0]) {
		if _, err := c.Read(b); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("after %q: %w", head, err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(head))), &http.Request{Method: http.MethodConnect})
	if err != nil || res.StatusCode != http.StatusOK {
		_ = c.Close()
		return nil, fmt.Errorf("CONNECT %s: %q (%w)", target, head, err)
	}
	return c, nil
}

// forwarder gives real clients, which know nothing of CONNECT, a local port whose connections go through it.
func (m *mesh) forwarder(target string) string {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	f := &relay{dial: func() (net.Conn, error) { return m.tunnel(target) }, l: l}
	f.all.Go(f.accept)
	m.t.Cleanup(f.stop)
	return l.Addr().String()
}

// tcp is a sum over istio_tcp_..._total as one side reports it.
func (m *mesh) tcp(metric, reporter, service string, more ...string) int64 {
	m.t.Helper()
	labels := fmt.Sprintf("reporter=%q,destination_service_name=%q", reporter, service)
	for _, l := range more {
		labels += "," + l
	}
	return int64(m.value("istio_tcp_" + metric + "_total{" + labels + "}"))
}

// agreed waits until both sides have counted the same, as they do when all connections are closed, and returns it.
func (m *mesh) agreed(metric, service string) int64 {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		m.scraped()
		source, destination := m.tcp(metric, "source", service), m.tcp(metric, "destination", service)
		if source == destination {
			return source
		}
		if time.Now().After(end) {
			m.t.Errorf("istio_tcp_%s_total of %s is %d at the source, and %d at the destination", metric, service, source, destination)
			return source
		}
	}
}

// awaitTCP waits until both sides have counted so much, exactly.
func (m *mesh) awaitTCP(metric, service string, want int64) {
	m.t.Helper()
	last := map[string]int64{}
	for end := time.Now().Add(time.Minute); ; {
		m.scraped()
		for _, reporter := range []string{"source", "destination"} {
			last[reporter] = m.tcp(metric, reporter, service)
		}
		if last["source"] == want && last["destination"] == want {
			return
		}
		if time.Now().After(end) {
			m.t.Errorf("istio_tcp_%s_total of %s is %v, want %d at both sides", metric, service, last, want)
			return
		}
	}
}
