//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// heavy skips a test that only the long form runs.
func heavy(t *testing.T) {
	t.Helper()
	if !long {
		t.Skip("OUTRIDER_E2E=1 runs it")
	}
}

// need finds programs, on the path or where Debian puts what is not meant for it, and skips the test where one is missing.
func need(t *testing.T, names ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, name := range names {
		path, err := exec.LookPath(name)
		for _, pattern := range []string{"/usr/sbin/", "/usr/lib/postgresql/*/bin/"} {
			if all, _ := filepath.Glob(pattern + name); err != nil && len(all) > 0 {
				path, err = all[len(all)-1], nil
			}
		}
		if err != nil {
			t.Skipf("%s is not installed; .ci/run installs it", name)
		}
		found[name] = path
	}
	return found
}

// as lets a command run as a user without rights, as databases demand, where the test itself runs as root. The folder
// is given to that user.
func as(t *testing.T, name, folder string, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(folder, uid, gid); err != nil {
		t.Fatal(err)
	}
	// The folders above are the test's own, and closed to others.
	for dir := filepath.Dir(folder); strings.HasPrefix(dir, os.TempDir()+string(filepath.Separator)); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	cmd.Env = append(os.Environ(), "HOME="+folder, "USER="+u.Username)
}

// program is a server in a process of its own.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	said *transcript
	done chan struct{}
}

// launch starts a server and waits until somebody listens at the address. It is told to end when the test does.
func launch(t *testing.T, address string, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{t: t, cmd: cmd, said: &transcript{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.said, p.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process, which stop waits for
		_ = cmd.Wait() // it is told to end, which is an error for some
		close(p.done)
	}()
	t.Cleanup(p.stop)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return p
		}
		select {
		case <-p.done:
			t.Fatalf("%s ended at once:\n%s", cmd.Path, p.said)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen at %s:\n%s", cmd.Path, address, p.said)
		}
	}
}

// stop ends the server as an operator would, and as the kernel does if it will not.
func (p *program) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	if p.t.Failed() {
		said := p.said.String()
		p.t.Logf("%s said:\n%s", filepath.Base(p.cmd.Path), said[max(0, len(said)-4000):])
	}
}

// run runs a program to its end, which must be a good one, and returns what it wrote.
func run(t *testing.T, in string, path string, args ...string) string {
	t.Helper()
	out, err := try(t, in, path, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", filepath.Base(path), strings.Join(args, " "), err)
	}
	return out
}

// try is run for a program that may fail; what it complained of is in the error.
func try(t *testing.T, in string, path string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(in)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.String(), errors.Join(err, errors.New(strings.TrimSpace(complaints.String())))
	}
	return out.String(), nil
}
