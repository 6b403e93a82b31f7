//go:build linux

package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Allowed returns the CPUs that this thread may run on, in order.
func Allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("cannot read which CPUs are allowed: %w", err)
	}
	var all []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all, nil
}

// Pin binds the calling goroutine to its thread, and the thread to the given CPUs. Only threads and processes that the
// thread starts afterwards inherit this.
func Pin(cpus ...int) error {
	runtime.LockOSThread()
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("cannot run on CPUs %v: %w", cpus, err)
	}
	return nil
}

// RunOn makes this whole process run on one CPU: where it does not already, it replaces itself by the same program with
// the same arguments there, so that every thread is bound and the Go runtime sees a machine of one CPU.
// It returns only in the process that is bound.
func RunOn(cpu int) error {
	allowed, err := Allowed()
	if err != nil {
		return err
	}
	if slices.Equal(allowed, []int{cpu}) {
		return nil
	}
	if err := Pin(cpu); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program's file: %w", err)
	}
	return fmt.Errorf("cannot start again on CPU %d: %w", cpu, syscall.Exec(self, os.Args, os.Environ()))
}

// Start starts cmd on the given CPUs and comes back to CPU home. The caller's goroutine must be bound to its thread
// (Pin): the process inherits that thread's CPUs and is ended by the kernel when the thread ends.
func Start(cmd *exec.Cmd, home int, cpus ...int) error {
	if err := Pin(cpus...); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, Pin(home))
}

// RaiseFiles allows as many open files as this user may have, for this process and those it starts, and returns the number.
func RaiseFiles() (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	l.Cur = min(l.Max, 65536)
	// Through package syscall, so that the runtime does not give children the old limit back.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("cannot raise the limit of open files: %w", err)
	}
	return int(l.Cur), nil
}
