//go:build linux

// Package machine reads what the kernel says about processes and CPUs, and starts processes on chosen CPUs.
package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of CPU time in /proc (USER_HZ, 100 on every architecture that Go runs on under Linux).
const tick = time.Second / 100

// Process is what /proc/PID/stat says that we need.
type Process struct {
	PID    int
	Parent int
	User   time.Duration // in whole ticks
	System time.Duration // in whole ticks
}

// parseStat reads the content of /proc/PID/stat (proc_pid_stat(5)). The command's name, in parentheses, may itself hold
// spaces and parentheses, so the fields are counted from its last one.
func parseStat(b []byte) (Process, error) {
	bad := func() (Process, error) { return Process{}, fmt.Errorf("cannot read process status %q", b) }
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return bad()
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	f := strings.Fields(string(b[end+1:]))
	if err != nil || len(f) < 13 {
		return bad()
	}
	parent, err1 := strconv.Atoi(f[1])
	user, err2 := strconv.ParseInt(f[11], 10, 64)
	system, err3 := strconv.ParseInt(f[12], 10, 64)
	if errors.Join(err1, err2, err3) != nil {
		return bad()
	}
	return Process{PID: pid, Parent: parent, User: time.Duration(user) * tick, System: time.Duration(system) * tick}, nil
}

// Tree returns the process pid and all its descendants, pid first.
func Tree(pid int) ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	var all []Process
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		p, err := parseStat(b)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return descendants(all, pid)
}

func descendants(all []Process, pid int) ([]Process, error) {
	root := slices.IndexFunc(all, func(p Process) bool { return p.PID == pid })
	if root < 0 {
		return nil, fmt.Errorf("process %d does not run", pid)
	}
	tree := []Process{all[root]}
	for i := 0; i < len(tree); i++ {
		for _, p := range all {
			if p.Parent == tree[i].PID && p.PID != pid {
				tree = append(tree, p)
			}
		}
	}
	return tree, nil
}

// Usage is CPU time used since a process tree began.
type Usage struct {
	// Total is user and system time to the nanosecond: what User and System add up to before they are cut to ticks.
	Total        time.Duration
	User, System time.Duration
}

// UsageOf adds up the CPU time of pid and its descendants.
func UsageOf(pid int) (Usage, error) {
	tree, err := Tree(pid)
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	for _, p := range tree {
		t, err := Clock(p.PID)
		if err != nil {
			return Usage{}, err
		}
		u.Total += t
		u.User += p.User
		u.System += p.System
	}
	return u, nil
}

// Clock returns the CPU time of one process without its descendants, by its CPU-time clock (clock_getcpuclockid(3)): the sum that /proc/PID/stat's utime and stime
// are scaled to, without their rounding to 10 ms.
func Clock(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED: precise time on the CPU, all threads, ended ones included
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
		return 0, fmt.Errorf("cannot read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// Memory is what a process tree holds, in bytes. Pages that several processes share count fully for each in RSS, by
// their share in PSS.
type Memory struct {
	RSS, PSS int64
}

// MemoryOf adds up the memory of pid and its descendants. Socket buffers are the kernel's and not in it.
func MemoryOf(pid int) (Memory, error) {
	tree, err := Tree(pid)
	if err != nil {
		return Memory{}, err
	}
	var sum Memory
	for _, p := range tree {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.PID))
		if err != nil {
			return Memory{}, fmt.Errorf("cannot read a process's memory: %w", err)
		}
		m, err := parseRollup(b)
		if err != nil {
			return Memory{}, err
		}
		sum.RSS += m.RSS
		sum.PSS += m.PSS
	}
	return sum, nil
}

// parseRollup reads the content of /proc/PID/smaps_rollup.
func parseRollup(b []byte) (Memory, error) {
	m := Memory{RSS: -1, PSS: -1}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		v, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("cannot read memory in %q: %w", line, err)
		}
		switch f[0] {
		case "Rss:":
			m.RSS = v << 10
		case "Pss:":
			m.PSS = v << 10
		}
	}
	if m.RSS < 0 || m.PSS < 0 {
		return Memory{}, errors.New("cannot read memory: no Rss or Pss in smaps_rollup")
	}
	return m, nil
}

// CPU is what one CPU has done since the system started.
type CPU struct {
	Busy  time.Duration // running processes, the kernel and interrupts
	Steal time.Duration // ready to run, but the hypervisor ran something else
}

// CPUs returns the counters of all CPUs by number.
func CPUs() (map[int]CPU, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, fmt.Errorf("cannot read CPU counters: %w", err)
	}
	return parseCPUs(b)
}

// parseCPUs reads the cpuN lines of /proc/stat (proc_stat(5)): user nice system idle iowait irq softirq steal guest
// guest_nice. Guest time is in user time already.
func parseCPUs(b []byte) (map[int]CPU, error) {
	all := map[int]CPU{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 9 || !strings.HasPrefix(f[0], "cpu") || f[0] == "cpu" {
			continue
		}
		n, err := strconv.Atoi(f[0][len("cpu"):])
		if err != nil {
			return nil, fmt.Errorf("cannot read CPU counters in %q: %w", line, err)
		}
		var v [8]time.Duration
		for i := range v {
			t, err := strconv.ParseInt(f[i+1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("cannot read CPU counters in %q: %w", line, err)
			}
			v[i] = time.Duration(t) * tick
		}
		all[n] = CPU{Busy: v[0] + v[1] + v[2] + v[5] + v[6], Steal: v[7]}
	}
	if len(all) == 0 {
		return nil, errors.New("cannot read CPU counters: no cpuN line in /proc/stat")
	}
	return all, nil
}
