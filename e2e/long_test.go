//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/meshtest"
)

// TestLongConnections counts bytes of connections that do not end: Istio's metrics move every few seconds, exactly, and the
// connection is told as opened, not as closed.
func TestLongConnections(t *testing.T) {
	t.Parallel()
	app := listenTCP(t, func(c *conversation) { _, _ = io.Copy(c, c.in) })
	text, apps, at := stores(t, []store{{"declared", "v1", "tcp", app}, {"undeclared", "v1", "data", app}})
	m := up(t, text, prometheus, apps)
	var conns []net.Conn
	for name, address := range at {
		for _, dial := range m.dialers(name, address) {
			c, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			conns = append(conns, c)
		}
	}
	sum := int64(0)
	for _, n := range []int64{10, 1 << 20} {
		for _, c := range conns {
			if err := returned(c, n); err != nil {
				t.Fatal(err)
			}
		}
		sum += 2 * n
		for name := range at {
			m.awaitTCP("received_bytes", name, sum)
			m.awaitTCP("sent_bytes", name, sum)
		}
	}
	for name := range at {
		m.awaitTCP("connections_opened", name, 2)
		for _, reporter := range []string{"source", "destination"} {
			if n := m.tcp("connections_closed", reporter, name); n != 0 {
				t.Errorf("%d connections of %s are told as closed at the %s", n, name, reporter)
			}
		}
	}
}

// returned sends n bytes to a server that sends them back, and takes them.
func returned(c net.Conn, n int64) error {
	sent := make(chan error, 1)
	go func() { // ends with the bytes or the connection, before sent is read
		_, err := io.CopyN(c, stream(n), n)
		sent <- err
	}()
	if _, err := io.CopyN(io.Discard, c, n); err != nil {
		_ = c.Close()
		<-sent
		return err
	}
	return <-sent
}

// TestSplice carries bytes through a sidecar's process that never sees them: they go from socket to socket in the kernel,
// so what the process reads and writes (/proc/PID/io counts no splice(2)) stays far below what passes.
func TestSplice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := listenTCP(t, func(c *conversation) { _, _ = io.Copy(c, c.in) })
	text, _, at := stores(t, []store{{"echo", "v1", "tcp", app}})
	text = strings.Replace(text, workload("echo", "v1", 1), workload("echo", "v1", 1, "sidecar.istio.io/inject", "false"), 1)
	files, snapshot, ready := filepath.Join(dir, "mesh.yaml"), filepath.Join(dir, "s.json"), filepath.Join(dir, "ready.json")
	if err := os.WriteFile(files, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(built(t, "outrider"), "compile", "-f", files, "--workload", "default/local",
		"--app", "echo-v1="+app, "--proxy", meshtest.Address(t)).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(snapshot, out, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(built(t, "outrider-proxy"), "run", "--snapshot", snapshot, "--admin", "127.0.0.1:0", "--ready-file", ready)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	m := &mesh{t: t}
	m.await("the proxy is ready", func() bool { _, err := os.Stat(ready); return err == nil })
	c, err := net.Dial("tcp", at["echo"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := returned(c, 1<<20); err != nil { // what begins differently has begun
		t.Fatal(err)
	}
	const n = 128 << 20
	before := touched(t, cmd.Process.Pid)
	if err := returned(c, n); err != nil {
		t.Fatal(err)
	}
	if used := touched(t, cmd.Process.Pid) - before; used > n/16 {
		t.Errorf("the process has read and written %d bytes itself, of %d that passed", used, 2*n)
	}
}

// touched is how many bytes a process has read and written with read(2), write(2) and their like.
func touched(t *testing.T, pid int) (sum int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Skip("the kernel does not tell what processes read and write:", err)
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), ": "); name == "rchar" || name == "wchar" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}
