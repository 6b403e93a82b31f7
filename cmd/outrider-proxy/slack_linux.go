package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// timerSlack is by how many nanoseconds the kernel may be late with a timer of this process; its own default is 50 µs.
// Nothing here asks for more than epoll's milliseconds.
const timerSlack = 1_000_000

// slacken begins the program anew with timerSlack, which threads inherit from who starts them: Go's runtime has its
// monitor, a thread that wakes every 20 µs while a process is neither idle nor busy for long, before any code of ours runs
// (docs/decisions/011). Where it cannot be done, all goes on as it is.
func slacken() {
	if has, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || has >= timerSlack {
		return
	}
	path, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) != nil {
		return
	}
	if has, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || has != timerSlack {
		return // such a kernel would not keep it either, and the program begin for ever
	}
	_ = syscall.Exec(path, os.Args, os.Environ())
}
