//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/outrider-mesh/outrider/bench/machine"
)

// launch starts r's command on the given CPUs, with its output in r.log. The process has a group of its own, so that
// Ctrl-C reaches only the bench, which ends its processes in order; should the bench die, the kernel ends it.
func (b *bench) launch(r *process, cpus ...int) error {
	out, err := os.Create(r.log)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the child has its own descriptor
	r.cmd.Stdout, r.cmd.Stderr = out, out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := machine.Start(r.cmd, b.o.loadCPU, cpus...); err != nil {
		return err
	}
	b.waits.Go(func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	})
	return nil
}

// end asks the process to end, insists after a while, and waits for it. Then nothing of its tree is left.
func (r *process) end() error {
	select {
	case <-r.ended:
		return nil
	default:
	}
	tree, err := machine.Tree(r.cmd.Process.Pid)
	if err != nil {
		return err
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cannot end process %d: %w", r.cmd.Process.Pid, err)
	}
	select {
	case <-r.ended:
	case <-time.After(3 * time.Second):
		// Descendants first, while their parent holds their numbers; those that are gone already answer ESRCH.
		for _, p := range tree[1:] {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		_ = r.cmd.Process.Kill()
		<-r.ended
	}
	return nil
}

// alive returns an error where the process has ended by itself.
func (r *process) alive(name string) error {
	select {
	case <-r.ended:
		return fmt.Errorf("%s ended during the measurement (%w):\n%s", name, r.err, r.tail())
	default:
		return nil
	}
}

// build compiles outrider-proxy with all CPUs and returns the program's path. It is built without cgo, as for an image
// without a C library: of that the proxy would use the resolver alone, and carry 2 MB for it.
func (b *bench) build() (string, error) {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Minute)
	defer cancel()
	const pkg = "github.com/outrider-mesh/outrider/cmd/outrider-proxy"
	path := filepath.Join(b.dir, "outrider-proxy")
	b.say("building outrider-proxy")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := machine.Start(cmd, b.o.loadCPU, b.o.proxyCPU, b.o.loadCPU); err != nil {
		return "", fmt.Errorf("cannot run the go command: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("cannot build %s (run the bench inside a checkout that has it, or set OUTRIDER_PROXY): %w: %s",
			pkg, err, firstLine(out.String()))
	}
	return path, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// readAdmin returns the admin address in a ready file, as host:port; empty where there is none.
func readAdmin(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	var ready struct {
		Admin string `json:"admin"`
	}
	if json.Unmarshal(text, &ready) != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(ready.Admin, "http://"), "/")
}
