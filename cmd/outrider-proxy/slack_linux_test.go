package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that began with the kernel's own timer slack goes on as the same process with ours, and begins anew once.
func TestSlacken(t *testing.T) {
	if os.Getenv("OUTRIDER_TEST_SLACKEN") != "" {
		slacken()
		slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		fmt.Println("slack", os.Getpid(), slack, err)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSlacken$")
	cmd.Env = append(os.Environ(), "OUTRIDER_TEST_SLACKEN=1")
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("slack %d %d <nil>\n", cmd.ProcessState.Pid(), timerSlack); err != nil || strings.Count(string(out), want) != 1 {
		t.Errorf("got %q, %v; want %q once", out, err, want)
	}
}
