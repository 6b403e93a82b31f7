package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// output is a log that a test reads while the program writes it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// write puts a snapshot that answers every host with status into file.
func write(t *testing.T, file string, status int) {
	t.Helper()
	b, err := json.Marshal(&model.Snapshot{
		Workload:  model.Workload{Peer: model.Peer{Namespace: "default", Name: "local"}, Instance: "local"},
		Listeners: []model.Listener{{Name: "outbound", Direction: model.Outbound, Address: "127.0.0.1:0", Protocol: model.HTTP, Table: "t", Explicit: true}},
		Tables:    []model.Table{{Name: "t", Unmatched: &model.Rule{Reply: &model.Reply{Status: status, Body: "here"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("does not come: " + what)
		}
	}
}

// begin runs the program until stop is called, and returns once it is ready.
func begin(t *testing.T, file, readyFile string, flags ...string) (told ready, log *output, stop func(), done chan int) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	log, done = new(output), make(chan int)
	go func() {
		done <- run(ctx, append([]string{"run", "--snapshot", file, "--admin", "127.0.0.1:0", "--ready-file", readyFile}, flags...), io.Discard, log)
	}()
	eventually(t, "the ready file", func() bool {
		b, err := os.ReadFile(readyFile)
		return err == nil && json.Unmarshal(b, &told) == nil
	})
	return told, log, stop, done
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	file, readyFile := filepath.Join(dir, "s.json"), filepath.Join(dir, "ready.json")
	write(t, file, 201)
	told, log, stop, done := begin(t, file, readyFile)
	proxyURL, err := url.Parse("http://" + told.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxyURL)}}
	defer client.CloseIdleConnections()
	status := func() int {
		r, err := client.Get("http://any.example/")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		return r.StatusCode
	}
	if got := status(); got != 201 {
		t.Fatalf("status %d", got)
	}
	write(t, file, 202)
	eventually(t, "the changed file's effect", func() bool { return status() == 202 })

	if err := os.WriteFile(file, []byte(`{"listeners": [`), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "word of the broken file", func() bool {
		return strings.Contains(log.String(), "s.json") && strings.Contains(log.String(), "level=ERROR")
	})
	if got := status(); got != 202 {
		t.Fatalf("after a broken file: status %d", got)
	}
	r, err := http.Get(told.Admin + "/stats/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if !strings.Contains(string(b), `istio_requests_total{`) || !strings.Contains(string(b), "outrider_config_generation 2") {
		t.Errorf("metrics:\n%s", b)
	}
	r, err = http.Get(told.Admin + "/hystrix.stream")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if ping, err := bufio.NewReader(r.Body).ReadString('\n'); err != nil || ping != "ping: \n" {
		t.Errorf("the stream begins %q, %v", ping, err)
	} // and is open still: it must not hold up the end
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d; log:\n%s", code, log.String())
	}
}

// TestProbe asks the application of a snapshot, and tells by metrics and log what comes of it.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	file, readyFile := filepath.Join(dir, "s.json"), filepath.Join(dir, "ready.json")
	var ill atomic.Bool
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ill.Load() {
			w.WriteHeader(503)
		}
	}))
	defer app.Close()
	put := func(p model.Probe) {
		b, err := json.Marshal(&model.Snapshot{Workload: model.Workload{Peer: model.Peer{Namespace: "default", Name: "vm"}, Instance: "vm", Probe: &p}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	probe := model.Probe{
		Address: strings.TrimPrefix(app.URL, "http://"), HTTP: &model.HTTPProbe{Host: "localhost", Path: "/healthz"},
		Period: model.Duration(20 * time.Millisecond), Timeout: model.Duration(10 * time.Second), Successes: 1, Failures: 2,
	}
	put(probe)
	told, log, stop, done := begin(t, file, readyFile)
	says := func(line string) func() bool {
		return func() bool {
			r, err := http.Get(told.Admin + "/stats/prometheus")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			b, _ := io.ReadAll(r.Body)
			return strings.Contains(string(b), "\n"+line+"\n")
		}
	}
	eventually(t, "that it is ready", says("outrider_probe_ready 1"))
	ill.Store(true)
	eventually(t, "that it is not", says("outrider_probe_ready 0"))
	eventually(t, "a line in the log", func() bool {
		return strings.Contains(log.String(), `msg="application is not ready" reason="GET http://`+probe.Address+`/healthz: status 503"`)
	})
	wrong := probe
	wrong.Period = 0
	put(wrong)
	eventually(t, "word of a probe that nobody can ask", func() bool { return strings.Contains(log.String(), "period and timeout are longer than 0") })
	probe.HTTP = nil // a connection is enough
	put(probe)
	eventually(t, "that another probe holds", says("outrider_probe_ready 1"))
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit %d: %s", code, log.String())
	}
}

// TestProbeThatIsACommand is run only with the flag.
func TestProbeThatIsACommand(t *testing.T) {
	dir := t.TempDir()
	file, trace := filepath.Join(dir, "s.json"), filepath.Join(dir, "trace")
	b, err := json.Marshal(&model.Snapshot{Workload: model.Workload{
		Peer: model.Peer{Namespace: "default", Name: "vm"}, Instance: "vm",
		Probe: &model.Probe{
			Exec:   &model.ExecProbe{Command: []string{"/bin/sh", "-c", `echo >"$1"`, "sh", trace}},
			Period: model.Duration(20 * time.Millisecond), Timeout: model.Duration(time.Minute), Successes: 1, Failures: 2,
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, log, stop, done := begin(t, file, filepath.Join(dir, "ready.json"))
	eventually(t, "that it is not run", func() bool {
		return strings.Contains(log.String(), `level=WARN msg="application is not probed and counts as ready" probe="command /bin/sh" reason="a command is run only by a sidecar that was started with --allow-exec-probes"`)
	})
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit %d: %s", code, log.String())
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("it was run without leave")
	}
	_, log, stop, done = begin(t, file, filepath.Join(dir, "again.json"), "--allow-exec-probes")
	eventually(t, "that it is run", func() bool {
		return strings.Contains(log.String(), `msg="application is ready" probe="command /bin/sh"`)
	})
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit %d: %s", code, log.String())
	}
	if _, err := os.Stat(trace); err != nil {
		t.Error(err)
	}
}

// A limit that a flag sets holds.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	file, readyFile := filepath.Join(dir, "s.json"), filepath.Join(dir, "ready.json")
	write(t, file, 200)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan int)
	var log output
	go func() {
		done <- run(ctx, []string{"run", "--snapshot", file, "--admin", "127.0.0.1:0", "--ready-file", readyFile, "--max-header-fields", "3"}, io.Discard, &log)
	}()
	var told ready
	eventually(t, "the ready file", func() bool {
		b, err := os.ReadFile(readyFile)
		return err == nil && json.Unmarshal(b, &told) == nil
	})
	f := func(fields, want int) {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, "http://"+told.Proxy+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range fields {
			r.Header.Set(fmt.Sprintf("X-Field-%d", i), "x")
		}
		r.Header.Set("User-Agent", "") // none
		answer, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%d fields: status %d, want %d", fields, answer.StatusCode, want)
		}
	}
	f(1, 200) // and Host, and Connection
	f(2, 431)
	stop()
	<-done
}

func TestUsage(t *testing.T) {
	f := func(want int, text string, args ...string) {
		t.Helper()
		var errs bytes.Buffer
		if got := run(context.Background(), args, io.Discard, &errs); got != want || !strings.Contains(errs.String(), text) {
			t.Errorf("%q: exit code %d, said %q", args, got, errs.String())
		}
		if n := strings.Count(errs.String(), "\n") - strings.Count(errs.String(), "level=INFO"); len(args) > 0 && n != 1 {
			t.Errorf("%q: said %d lines, want what is wrong and where to find help, in one: %q", args, n, errs.String())
		}
	}
	f(exitUsage, "outrider-proxy run --snapshot FILE")
	f(exitUsage, "--snapshot", "run")
	f(exitUsage, "not defined: -nonsense (outrider-proxy run --help lists the flags)", "run", "--nonsense")
	f(exitUsage, "-max-streams: write a whole number from 1 to 2147483647 (outrider-proxy run --help lists the flags)", "run", "--max-streams", "x")
	f(exitUsage, `unexpected argument "extra"`, "run", "--snapshot", "s.json", "extra")
	f(exitUsage, `unknown command "rnu" (outrider-proxy --help lists the commands)`, "rnu")
	f(exitUsage, `unexpected argument "extra"`, "version", "extra")
	f(exitUsage, "no such file", "run", "--snapshot", filepath.Join(t.TempDir(), "absent.json"))
	taken := httptest.NewServer(nil)
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "s.json")
	write(t, file, 200)
	f(exitUsage, "address already in use", "run", "--snapshot", file, "--admin", strings.TrimPrefix(taken.URL, "http://"))
	asks := func(text string, args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(context.Background(), args, &out, &errs); got != exitOK || !strings.Contains(out.String(), text) || out.Len() < 3 || errs.Len() > 0 {
			t.Errorf("%q: exit code %d, said %q and %q", args, got, out.String(), errs.String())
		}
	}
	asks("\n", "version")
	asks("outrider-proxy run --snapshot FILE", "--help")
	asks("-max-streams", "run", "--help")
}
