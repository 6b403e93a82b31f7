package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// running is a probe that is a command.
func running(command ...string) *model.Probe {
	return &model.Probe{
		Exec: &model.ExecProbe{Command: command}, Period: model.Duration(5 * time.Millisecond), Timeout: model.Duration(time.Minute), Successes: 1, Failures: 2,
	}
}

// shell is a probe of a script for sh.
func shell(script string, args ...string) *model.Probe {
	return running(append([]string{"/bin/sh", "-c", script, "sh"}, args...)...)
}

// program writes an executable file.
func program(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestExec(t *testing.T) {
	expect(t, "exit code 0", shell("exit 0"), "")
	expect(t, "exit code 0 with much to say", shell("head -c 1000000 /dev/zero; echo bad >&2"), "")
	expect(t, "exit code 1", shell("exit 1"), "command /bin/sh: exit code 1")
	expect(t, "exit code 255", shell("exit 255"), "exit code 255")
	expect(t, "a signal", shell("kill -TERM $$"), "signal: terminated")
	expect(t, "a program found in PATH", running("true"), "")
	expect(t, "one that fails", running("false"), "command false: exit code 1")
	expect(t, "what it says", shell(`printf '\n \nnot yet\nmore\n'; exit 3`), "exit code 3: not yet")
	expect(t, "what it says on standard error", shell("echo no lock >&2; exit 1"), "exit code 1: no lock")
	expect(t, "much of it", shell("head -c 100000 /dev/zero | tr '\\0' a; exit 1"), "exit code 1: "+strings.Repeat("a", maxLine)+"...")
	expect(t, "no line end", shell("printf 'no end'; exit 1"), "exit code 1: no end")
	// Arguments are given as they are: nothing reads them as a shell would.
	expect(t, "arguments", shell(`[ "$#" = 2 ] && [ "$1" = '$HOME; exit 1' ] && [ "$2" = '' ]`, "$HOME; exit 1", ""), "")
	expect(t, "no shell", running("exit 0"), "there is no such program in the PATH of the sidecar")
	expect(t, "no input", shell("read line && exit 1; exit 0"), "")
	t.Setenv("OUTRIDER_PROBE_TEST", "here")
	expect(t, "the sidecar's environment", shell(`[ "$OUTRIDER_PROBE_TEST" = here ]`), "")
	script := program(t, "check", "#!/bin/sh\nexit 4\n", 0o700)
	expect(t, "a script", running(script), "exit code 4")
}

// TestNothingOfACommandReachesATerminal takes what is not to be printed out of a reason.
func TestNothingOfACommandReachesATerminal(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := ask(ctx, shell(`printf '\033[31mred\a\tand \377 more\r\n'; exit 1`))
	if want := "command /bin/sh: exit code 1: [31mred and \ufffd more"; err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
	if err := ask(ctx, running("mysqladmin-that-is-not-there", "--password=hidden")); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("a password is told: %v", err)
	}
}

func TestCommandThatCannotBeRun(t *testing.T) {
	f := func(what, command, want string) {
		t.Helper()
		expect(t, what, running(command), "command "+command+": "+want)
	}
	f("a name that PATH lacks", "outrider-no-such-program", "there is no such program in the PATH of the sidecar; install it on the sidecar's machine, or write its whole path")
	f("a path", "/nowhere/check", "there is no such program, or not the interpreter that its first line names; install it on the sidecar's machine")
	f("no interpreter", program(t, "check", "#!/nowhere/sh\n", 0o700), "there is no such program, or not the interpreter that its first line names")
	f("a file that is no program", program(t, "check", "#!/bin/sh\n", 0o600), fmt.Sprintf("the sidecar's user (uid %d) may not run it", os.Getuid()))
	f("a script without a first line", program(t, "check", "exit 0\n", 0o700), "it is no program of this machine; a script names its interpreter in its first line: #!/bin/sh")
	f("a directory", t.TempDir(), "the sidecar's user")
	f("nothing", "", "cannot be run: exec: no command")
}

// held is a named pipe that a command opens, writes to and hands on to what it starts; gone waits until nobody has it.
func held(t *testing.T) (path string, gone func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "held")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return path, func() {
		t.Helper()
		if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		line, n := make([]byte, 64), 0
		for {
			more, err := r.Read(line[n:])
			n += more
			if err == nil {
				continue
			}
			if string(line[:n]) != "begun\n" || !errors.Is(err, io.EOF) {
				t.Errorf("it does not end, or has not begun: %q, %v", line[:n], err)
			}
			return
		}
	}
}

// TestTimeoutEndsTheWholeGroup has a command that does not end, nor what it has started.
func TestTimeoutEndsTheWholeGroup(t *testing.T) {
	path, gone := held(t)
	ctx, cancel := context.WithCancel(context.Background())
	begun := filepath.Join(t.TempDir(), "begun")
	p := shell(`exec 3>"$1"; echo begun >&3; sleep 3600 & echo >"$2"; sleep 3600; wait`, path, begun)
	answer := make(chan error, 1)
	go func() { answer <- ask(ctx, p) }() // waited for below
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(begun); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal("the command does not begin: ", err)
		}
	}
	cancel()
	if err := <-answer; err == nil {
		t.Error("a good answer")
	}
	gone()

	short := shell("sleep 3600")
	short.Timeout = model.Duration(100 * time.Millisecond)
	expect(t, "a command that does not end", short, "command /bin/sh: no answer within 100ms")
	deaf := shell("trap '' TERM INT HUP; while :; do sleep 3600; done")
	deaf.Timeout = model.Duration(100 * time.Millisecond)
	expect(t, "one that takes no signals", deaf, "no answer within 100ms")
}

// TestWhatACommandLeavesBehind ends with the command, and does not hold up its answer.
func TestWhatACommandLeavesBehind(t *testing.T) {
	for code, want := range map[int]string{0: "", 7: "exit code 7: begun"} {
		path, gone := held(t)
		expect(t, fmt.Sprint("exit code ", code), shell(fmt.Sprintf(`exec 3>"$1"; sleep 3600 & echo begun; echo begun >&3; exit %d`, code), path), want)
		gone()
	}
}

// TestWhatLeavesTheGroup holds the command's output from a session of its own. It lives on, but the answer comes.
func TestWhatLeavesTheGroup(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("there is no setsid here: ", err)
	}
	pid := filepath.Join(t.TempDir(), "pid")
	const script = `setsid sh -c 'echo $$ >"$1".new; mv "$1".new "$1"; exec sleep 3600' sh "$1" & while [ ! -f "$1" ]; do sleep 0.01; done; %s`
	end := func() {
		b, err := os.ReadFile(pid)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if _, err := fmt.Sscan(string(b), &n); err != nil || n < 2 {
			t.Fatalf("%q: %v", b, err)
		}
		if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
			t.Errorf("it has not left the group: %v", err)
		}
		if err := os.Remove(pid); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "a good answer", shell(fmt.Sprintf(script, "exit 0"), pid), "")
	end()
	expect(t, "a bad one", shell(fmt.Sprintf(script, "echo bad; exit 1"), pid), "exit code 1: bad")
	end()
}

// words is a log that a test reads.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// TestCommandsNeedLeave runs a probe that is a command only where that was allowed; else the application counts as ready.
func TestCommandsNeedLeave(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "ran")
	f := func(allowed bool) *words {
		t.Helper()
		log, changes := &words{}, make(chan Change, 10)
		p := New(Options{Exec: allowed, Changed: func(c Change) { changes <- c }, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		defer running.Wait()
		defer cancel()
		p.Configure(shell(`echo >"$1"; exit 5`, flag))
		if !allowed && !p.Ready() {
			t.Error("it does not count as ready")
		}
		p.Configure(shell(`echo >"$1"; exit 5`, flag)) // the same
		if !allowed {
			p.Configure(shell(`exit 0`)) // another: it was never asked the first
			return log
		}
		if c := <-changes; c.To != Unready || c.Reason != "command /bin/sh: exit code 5" {
			t.Errorf("%+v", c)
		}
		p.Configure(shell("exit 0"))
		if c := <-changes; c.To != Ready {
			t.Errorf("%+v", c)
		}
		return log
	}
	log := f(false)
	if _, err := os.Stat(flag); err == nil {
		t.Error("it was run without leave")
	}
	const line = `level=WARN msg="application is not probed and counts as ready" probe="command /bin/sh" reason="a command is run only by a sidecar that was started with --allow-exec-probes"`
	if n := strings.Count(log.String(), line); n != 2 {
		t.Errorf("said %d times, want once for each probe:\n%s", n, log)
	}
	log = f(true)
	if _, err := os.Stat(flag); err != nil {
		t.Error("it was not run: ", err)
	}
	if !strings.Contains(log.String(), `level=DEBUG msg="application is not ready" reason="command /bin/sh: exit code 5"`) || strings.Contains(log.String(), "counts as ready") {
		t.Error(log)
	}
}
