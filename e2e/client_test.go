package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/local"
)

// raw sends text on a connection of its own and returns all that comes back until the peer closes.
func raw(t *testing.T, address, text string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%v after %q", err, all)
	}
	return string(all)
}

// TestWaysIn uses the client's proxy in every way that HTTP clients do.
func TestWaysIn(t *testing.T) {
	t.Parallel()
	m := up(t, versions(2)+"---"+split(0, 100))
	f := func(request string, want ...string) {
		t.Helper()
		got := raw(t, m.ready.Proxy, request)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%q: the answer lacks %q:\n%s", request, w, got)
			}
		}
	}
	f("GET http://web/a?b=%20c HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", "HTTP/1.1 200", `"version":"v2"`, `"/a?b=%20c"`)
	f("GET /a HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", "HTTP/1.1 200", `"version":"v2"`)
	f("GET http://web.default/a HTTP/1.0\r\n\r\n", "HTTP/1.", " 200", `"version":"v2"`)
	f("GET http://web.default.svc.cluster.local:80/a HTTP/1.1\r\nHost: web.default.svc.cluster.local:80\r\nConnection: close\r\n\r\n", "HTTP/1.1 200")
	f("GET http://WEB/a HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", "HTTP/1.1 200", `"version":"v2"`)
	f("GET http://web:81/ HTTP/1.1\r\nHost: web:81\r\nConnection: close\r\n\r\n", "HTTP/1.1 503", "no_route", "80")
	f("GET / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400")
	f("GET / HTTP/1.1\r\nHost: web\r\nHost: web\r\n\r\n", "HTTP/1.1 400")
	// Two requests in one write, answered in order.
	f("GET http://web/first HTTP/1.1\r\nHost: web\r\n\r\nGET http://web/second HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", `"/first"`, `"/second"`)
	// HTTP inside a CONNECT is treated as HTTP: the split holds.
	f("CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\nGET /inside HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", "HTTP/1.1 200", `"version":"v2"`, `"/inside"`)
}

func TestOutsideTheMesh(t *testing.T) {
	t.Parallel()
	outside := listen(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "outside ", r.Host) })
	open := up(t, versions(1))
	if a := open.get("http://" + outside + "/"); a.Status != 200 || a.Text != "outside "+outside {
		t.Errorf("ALLOW_ANY: %d %s", a.Status, a.Text)
	}
	closed := up(t, versions(1)+`---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    outboundTrafficPolicy: {mode: REGISTRY_ONLY}
`)
	if a := closed.get("http://" + outside + "/"); a.Status != 502 {
		t.Errorf("REGISTRY_ONLY: %d %s", a.Status, a.Text)
	}
	if a := closed.get("http://web/"); a.Status != 200 {
		t.Errorf("REGISTRY_ONLY, a service of the mesh: %d %s", a.Status, a.Text)
	}
}

// TestBookinfo runs the bookshop with the route for one user, from the files as they are.
func TestBookinfo(t *testing.T) {
	t.Parallel()
	m := up(t, "", func(o *local.Options) {
		o.Paths = []string{"../examples/bookinfo", "../examples/bookinfo-routes/virtual-service-reviews-test-v2.yaml"}
	})
	version := func(a *answer) string {
		for _, text := range a.Calls {
			for _, w := range []string{"reviews-v1", "reviews-v2", "reviews-v3"} {
				if strings.Contains(string(text), `"workload":"`+w+`"`) {
					return w
				}
			}
		}
		return ""
	}
	for range 20 {
		if a := m.get("http://productpage:9080/productpage", "end-user", "jason"); a.Status != 200 || !strings.Contains(a.Text, `"workload":"details-v1"`) || !strings.Contains(a.Text, `"workload":"reviews-v2"`) {
			t.Fatalf("%d %s", a.Status, a.Text)
		}
		if a := m.get("http://reviews:9080/", "end-user", "jason"); a.Workload != "reviews-v2" || !strings.Contains(a.Text, `"workload":"ratings-v1"`) {
			t.Fatalf("jason gets %s", a.Text)
		}
		if a := m.get("http://reviews:9080/", "end-user", "mary"); a.Workload != "reviews-v1" {
			t.Fatalf("mary gets %s", a.Text)
		}
	}
	if a := m.direct(m.at("bookinfo-gateway", 8080), "bookinfo.example", "/productpage"); a.Status != 200 || version(a) != "reviews-v1" {
		t.Errorf("through the gateway: %d %s", a.Status, a.Text)
	}
	if a := m.direct(m.at("bookinfo-gateway", 8080), "bookinfo.example", "/admin"); a.Status != 404 {
		t.Errorf("a path that the gateway does not serve: %d", a.Status)
	}
}

// TestProxyAlone compiles one sidecar's snapshot, runs it with outrider-proxy, and changes the file under it.
func TestProxyAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app := listen(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "one ", r.Header.Get("x-request-id") != "")
	})
	other := listen(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "two") })
	proxy := free(t, 1)[0]
	files, snapshot := filepath.Join(dir, "mesh.yaml"), filepath.Join(dir, "s.json")
	text := service("web", "app: web") + workload("web", "v1", 1, "sidecar.istio.io/inject", "false")
	if err := os.WriteFile(files, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	compile := func(app string) {
		t.Helper()
		cmd := exec.Command(built(t, "outrider"), "compile", "-f", files, "--workload", "default/local", "--app", "web-v1="+app, "--proxy", proxy)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.WriteFile(snapshot+".new", out, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(snapshot+".new", snapshot); err != nil {
			t.Fatal(err)
		}
	}
	compile(app)
	ready := filepath.Join(dir, "ready.json")
	cmd := exec.Command(built(t, "outrider-proxy"), "run", "--snapshot", snapshot, "--admin", "127.0.0.1:0", "--ready-file", ready)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() { // ends with the process
		var all strings.Builder
		for s := bufio.NewScanner(stderr); s.Scan(); {
			all.WriteString(s.Text() + "\n")
		}
		said <- all.String()
	}()
	m := &mesh{t: t}
	m.http = m.client(proxy)
	m.await("the proxy is ready", func() bool { _, err := os.Stat(ready); return err == nil })
	if a := m.get("http://web/"); a.Status != 200 || a.Text != "one true" {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	compile(other)
	m.await("the change takes effect", func() bool { return m.get("http://web/").Text == "two" })
	m.http.CloseIdleConnections()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	text = <-said
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
}
