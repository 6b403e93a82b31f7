package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// lingering is how long the end of a command's output is waited for once its group has ended: what has left the group may
// hold the other end.
const lingering = time.Second

// Bounds of what is kept of a command's output, and of the line of it that a reason has, in bytes and in runes.
const (
	maxOutput = 1 << 10
	maxLine   = 200
)

// askExec runs a command, as Istio's agent does: with the sidecar's user, environment and directory, without a shell and
// without input. Exit code 0 is a good answer. The command is a process group of its own, which is killed as a whole when
// ctx ends, and when the command itself has ended: nothing of a question outlives its answer.
func askExec(ctx context.Context, e *model.ExecProbe) error {
	var said output
	r, w, err := os.Pipe() // not exec's own: that would be waited for before the group is killed
	if err != nil {
		return fmt.Errorf("cannot be run: %w", err)
	}
	defer func() { _ = r.Close() }()
	cmd := exec.CommandContext(ctx, e.Command[0], e.Command[1:]...)
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return notStarted(err)
	}
	var listening sync.WaitGroup
	listening.Go(func() { _, _ = io.Copy(&said, r) }) // waited for below
	err = cmd.Wait()
	_ = killGroup(cmd.Process) // a group keeps its number while it has a member, so this is no other's
	_ = r.SetReadDeadline(time.Now().Add(lingering))
	listening.Wait()
	exited, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err
	}
	text := fmt.Sprintf("exit code %d", exited.ExitCode())
	if exited.ExitCode() < 0 {
		text = exited.String() // "signal: killed"
	}
	if line := said.firstLine(); line != "" {
		text += ": " + line
	}
	return errors.New(text)
}

// killGroup kills a command with all that it has started and that is in its group still.
func killGroup(p *os.Process) error {
	switch err := syscall.Kill(-p.Pid, syscall.SIGKILL); {
	case errors.Is(err, syscall.ESRCH):
		return os.ErrProcessDone
	case err != nil:
		return p.Kill()
	}
	return nil
}

// notStarted says why a command did not start, and what to do.
func notStarted(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, exec.ErrNotFound): // in PATH
		return errors.New("there is no such program in the PATH of the sidecar; install it on the sidecar's machine, or write its whole path")
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such program, or not the interpreter that its first line names; install it on the sidecar's machine")
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the sidecar's user (uid %d) may not run it; chmod +x makes a file a program", os.Getuid())
	case errors.Is(err, syscall.ENOEXEC):
		return errors.New("it is no program of this machine; a script names its interpreter in its first line: #!/bin/sh")
	}
	return fmt.Errorf("cannot be run: %w", err)
}

// output keeps the beginning of what a command says, and lets it say the rest.
type output struct{ b []byte }

// Write is part of io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.b = append(o.b, p[:min(len(p), maxOutput-len(o.b))]...)
	return len(p), nil
}

// firstLine is the first line with text on it, without what is not to be printed: it goes to terminals and logs.
func (o *output) firstLine() string {
	for line := range strings.Lines(string(o.b)) {
		line = strings.TrimSpace(strings.Map(printed, line))
		if r := []rune(line); len(r) > maxLine {
			return string(r[:maxLine]) + "..."
		}
		if line != "" {
			return line
		}
	}
	return ""
}

func printed(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case !unicode.IsPrint(r):
		return -1
	}
	return r
}
