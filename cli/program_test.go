package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/local"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// result is how a run ended.
type result struct {
	code      int
	out, talk string
}

func run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, talk bytes.Buffer
	code := Run(t.Context(), args, strings.NewReader(stdin), &out, &talk)
	return result{code, out.String(), talk.String()}
}

const goodService = `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

const goodWorkload = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
`

const badService = `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, tragetPort: 8080}]}
`

const warned = goodService + goodWorkload + `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route: [{destination: {host: web}}]
    fault: {abort: {httpStatus: 500}}
`

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestExitCodes(t *testing.T) {
	good, bad, warning := write(t, "good.yaml", goodService), write(t, "bad.yaml", badService), write(t, "warned.yaml", warned)
	garbage := write(t, "garbage.yaml", "a: [\n")
	f := func(want int, args ...string) {
		t.Helper()
		if r := run(t, "", args...); r.code != want {
			t.Errorf("outrider %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, want, r.out, r.talk)
		}
	}
	f(0)
	f(0, "version")
	f(0, "completion", "bash")
	f(0, "--help")
	f(2, "frobnicate")
	f(2, "--frobnicate")
	f(2, "version", "now")
	f(2, "check")
	f(2, "check", good)
	f(2, "check", "-f", "/nowhere/at/all.yaml")
	f(2, "check", "-f", good, "-o", "xml")
	f(2, "check", "-f", good, "--fail-on", "fatal")
	f(2, "check", "-f", good, "--mesh-config", "/nowhere")
	f(2, "up")
	f(2, "up", "-f", good, "--")
	f(2, "up", "-f", good, "--for", "-1s")
	f(2, "up", "-f", good, "--app", "web")
	f(2, "up", "-f", good, "--locality", "a/b/c/d")
	f(2, "up", "-f", "/nowhere", "--admin", "127.0.0.1:0", "--proxy", "127.0.0.1:0")
	f(2, "compile", "-f", good)
	f(2, "compile", "-f", good, "--workload", "default/nobody")
	f(2, "demo", "now")
	for _, format := range strings.Split(formatNames, ", ") {
		f(0, "check", "-f", good, "-o", format)
		f(1, "check", "-f", bad, "-o", format)
		f(1, "check", "-f", garbage, "-o", format)
		f(1, "check", "-f", good, bad, "-o", format)
		f(0, "check", "-f", warning, "-o", format)
		f(1, "check", "-f", warning, "-o", format, "--fail-on", "warning")
		f(2, "check", "-f", "/nowhere/at/all.yaml", "-o", format)
	}
}

func TestPanicIsInternal(t *testing.T) {
	var talk bytes.Buffer
	code := Run(t.Context(), []string{"version"}, strings.NewReader(""), panicking{}, &talk)
	if code != exitInternal || !strings.Contains(talk.String(), "internal error") {
		t.Errorf("exit code %d: %s", code, talk.String())
	}
}

type panicking struct{}

func (panicking) Write([]byte) (int, error) { panic("a bug") }

func TestCheckNamesThePlace(t *testing.T) {
	file := write(t, "bad.yaml", badService)
	r := run(t, "", "check", "-f", file)
	if !strings.HasPrefix(r.out, file+":4:") || !strings.Contains(r.out, "Service default/web: spec.ports[0].tragetPort: ") || !strings.Contains(r.out, "targetPort") {
		t.Errorf("got %s", r.out)
	}
	if strings.Contains(r.talk, "tragetPort") || !strings.Contains(r.talk, "1 error") {
		t.Errorf("talk: %s", r.talk)
	}
	in := run(t, badService, "check", "-f", "-", "-n", "shop", "-o", "json")
	var out struct{ Findings []map[string]any }
	if err := json.Unmarshal([]byte(in.out), &out); err != nil || len(out.Findings) != 1 {
		t.Fatalf("%v: %s", err, in.out)
	}
	if f := out.Findings[0]; f["file"] != "-" || f["namespace"] != "shop" || f["line"] != 4.0 {
		t.Errorf("standard input: %v", f)
	}
}

func TestCheckHoldsCompileFindingsAndComments(t *testing.T) {
	r := run(t, warned, "check", "-f", "-", "--fail-on", "warning")
	if r.code != 1 || !strings.Contains(r.out, "percentage") {
		t.Errorf("a field without effect: exit code %d, %s", r.code, r.out)
	}
	id := r.out[strings.LastIndex(r.out, " OR")+1:][:6]
	r = run(t, strings.Replace(warned, "    fault:", "    # outrider:ignore "+id+" the percentage comes later\n    fault:", 1), "check", "-f", "-", "--fail-on", "warning")
	if r.code != 0 || r.out != "" {
		t.Errorf("silenced by a comment: exit code %d, %s", r.code, r.out)
	}
	r = run(t, strings.Replace(warned, "    fault:", "    # outrider:ignore "+id+"\n    fault:", 1), "check", "-f", "-", "--fail-on", "warning")
	if r.code != 1 || !strings.Contains(r.out, "reason") {
		t.Errorf("a comment without a reason: exit code %d, %s", r.code, r.out)
	}
}

func TestCompile(t *testing.T) {
	r := run(t, goodService+goodWorkload, "compile", "-f", "-", "--workload", "default/web", "--app", "web=127.0.0.1:9999")
	var s model.Snapshot
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || r.code != 0 {
		t.Fatalf("exit code %d, %v: %s%s", r.code, err, r.out, r.talk)
	}
	if s.Workload.Name != "web" || s.Workload.Instance != "web-0" || !strings.Contains(r.out, "127.0.0.1:9999") {
		t.Errorf("got %s", r.out)
	}
	if again := run(t, goodService+goodWorkload, "compile", "-f", "-", "--workload", "default/web", "--app", "web=127.0.0.1:9999"); again.out != r.out {
		t.Error("the same files compile to different text")
	}
}

const freePorts = "--admin=127.0.0.1:0 --proxy=127.0.0.1:0 --no-prometheus"

// upArgs are the arguments of up on a file with free ports.
func upArgs(file string, more ...string) []string {
	return append(append([]string{"up", "-f", file, "--stand-ins"}, strings.Fields(freePorts)...), more...)
}

func TestUpRunsACommand(t *testing.T) {
	file := write(t, "mesh.yaml", goodService+goodWorkload)
	r := run(t, "", upArgs(file, "--", "sh", "-c", "echo $HTTP_PROXY $http_proxy; exit 7")...)
	proxies := strings.Fields(r.out)
	if r.code != 7 || len(proxies) != 2 || proxies[0] != proxies[1] || !strings.HasPrefix(proxies[0], "http://127.0.0.1:") {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.talk)
	}
	if r := run(t, "", upArgs(file, "--", "sh", "-c", "kill -9 $$")...); r.code != 128+9 {
		t.Errorf("a killed command: exit code %d", r.code)
	}
	if r := run(t, "", upArgs(file, "--", "/nowhere/command")...); r.code != exitNotFound || !strings.Contains(r.talk, "/nowhere/command") {
		t.Errorf("no command: exit code %d, %s", r.code, r.talk)
	}
	if r := run(t, "", upArgs(file, "--for", "300ms", "--", "sh", "-c", `trap "exit 5" TERM; while :; do sleep 0.05; done`)...); r.code != 5 {
		t.Errorf("a command that is told to end: exit code %d, %s", r.code, r.talk)
	}
}

func TestUpCommandReachesTheMesh(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	file := write(t, "mesh.yaml", goodService+goodWorkload)
	r := run(t, "", upArgs(file, "--", "curl", "-sS", "http://web/hello?a=1")...)
	if r.code != 0 || !strings.Contains(r.out, `"instance":"web-0"`) || !strings.Contains(r.out, `"/hello?a=1"`) {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.talk)
	}
}

func TestUpEndsByItself(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready.json")
	r := run(t, "", upArgs(write(t, "mesh.yaml", goodService+goodWorkload), "--for", "200ms", "--ready-file", ready)...)
	if r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.talk)
	}
	var told local.Ready
	text, err := os.ReadFile(ready)
	if err != nil || json.Unmarshal(text, &told) != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if !strings.HasPrefix(told.Admin, "http://127.0.0.1:") || len(told.Workloads) != 2 {
		t.Errorf("the ready file says %s", text)
	}
}

func TestUpSaysWhenAPortIsTaken(t *testing.T) {
	file := write(t, "mesh.yaml", goodService)
	first := make(chan string, 1)
	ready := filepath.Join(t.TempDir(), "ready.json")
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		Run(ctx, append(upArgs(file), "--ready-file", ready), strings.NewReader(""), io.Discard, io.Discard)
	})
	defer running.Wait()
	defer cancel()
	go func() { // ends with what it waits for, or with the test
		for ctx.Err() == nil {
			var told local.Ready
			if text, err := os.ReadFile(ready); err == nil && json.Unmarshal(text, &told) == nil {
				first <- strings.TrimPrefix(told.Admin, "http://")
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	taken := <-first
	r := run(t, "", "up", "-f", file, "--admin", taken, "--proxy", "127.0.0.1:0", "--no-prometheus")
	if r.code != exitUsage || !strings.Contains(r.talk, taken) || !strings.Contains(r.talk, "--admin") {
		t.Errorf("exit code %d: %s", r.code, r.talk)
	}
}

// TestDemo runs the demo for a few seconds: its files, its measurements, its verdict.
func TestDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "files")
	r := run(t, "", "demo", "--for", "4s", "--scrape-interval", "1s", "--admin", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--dir", dir)
	if r.code != 0 {
		t.Fatalf("exit code %d: %s%s", r.code, r.out, r.talk)
	}
	for _, say := range []string{"storefront", "Split of reviews (traffic.yaml:", "80 %", "15 %", "5 %", "ok", "reviews-v1-0", "details-0", "stock-1", "WebSocket", "curl -x 127.0.0.1:", filepath.Join(dir, "traffic.yaml")} {
		if !strings.Contains(r.out, say) {
			t.Errorf("does not say %q:\n%s", say, r.out)
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*.yaml")); err != nil || len(files) != 4 {
		t.Errorf("the directory holds %v (%v)", files, err)
	}
}

// TestDemoUsesFilesThatAreThere starts the demo on files that a user edited before.
func TestDemoUsesFilesThatAreThere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "traffic.yaml")
	const mine = "# mine: no split at all\n"
	if err := os.WriteFile(file, []byte(mine), 0o666); err != nil {
		t.Fatal(err)
	}
	r := run(t, "", "demo", "--for", "1s", "--scrape-interval", "1s", "--admin", "127.0.0.1:0", "--proxy", "127.0.0.1:0", "--dir", dir)
	if r.code != 0 || strings.Contains(r.out, "Split of") {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.talk)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != mine {
		t.Errorf("the file holds %q (%v)", text, err)
	}
}

// TestInterrupt ends a mesh by the signal that people send, in a process of its own.
func TestInterrupt(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "outrider")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/outrider").CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	f := func(s os.Signal) {
		t.Helper()
		ready := filepath.Join(t.TempDir(), "ready.json")
		cmd := exec.Command(bin, upArgs(write(t, "mesh.yaml", goodService+goodWorkload), "--ready-file", ready)...)
		var talk bytes.Buffer
		cmd.Stderr = &talk
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(ready); err == nil {
				break
			}
			if time.Now().After(end) {
				_ = cmd.Process.Kill()
				t.Fatalf("not ready: %s", talk.String())
			}
		}
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", s, err, talk.String())
		}
	}
	f(os.Interrupt)
	f(syscall.SIGTERM)
}

func TestStatusIsAnError(t *testing.T) {
	var s *status
	if err := usage("no %s", "files"); !errors.As(err, &s) || s.code != exitUsage || err.Error() != "no files" {
		t.Errorf("got %v", err)
	}
}
