package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// patience is how long a command that was asked to end may take before it is killed.
const patience = 10 * time.Second

// Exit codes of a command that could not be run, as shells have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // and the signal's number
)

// command runs a command with HTTP_PROXY set to the address of the client's proxy, and returns its exit code. When ctx ends
// the command is asked to end (SIGTERM).
func (p *program) command(ctx context.Context, proxy string, command []string) (code int, err error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.in, p.out, p.err
	cmd.Env = proxied(os.Environ(), proxy)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	err = cmd.Run()
	var exited *exec.ExitError
	switch {
	case cmd.ProcessState == nil && err != nil:
		code = exitNotExecutable
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			code = exitNotFound
		}
		return 0, &status{code, "cannot run the command: " + err.Error()}
	case errors.As(err, &exited):
		if w, ok := exited.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			return exitSignal + int(w.Signal()), nil
		}
		return exited.ExitCode(), nil
	case cmd.ProcessState != nil:
		return cmd.ProcessState.ExitCode(), nil // err is about ctx or its pipes, after it ended by itself
	}
	return 0, err
}

// proxied is the environment with HTTP_PROXY in both spellings. Of the exceptions only this machine stays: a list that
// keeps names of the cluster from a company's proxy would keep them from the mesh too.
func proxied(environment []string, proxy string) []string {
	environment = slices.DeleteFunc(slices.Clone(environment), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		name = strings.ToUpper(name)
		return name == "HTTP_PROXY" || name == "NO_PROXY"
	})
	const here = "localhost,127.0.0.1,::1"
	return append(environment, "HTTP_PROXY=http://"+proxy, "http_proxy=http://"+proxy, "NO_PROXY="+here, "no_proxy="+here)
}
