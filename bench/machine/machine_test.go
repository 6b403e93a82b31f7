//go:build linux

package machine

import (
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	f := func(in string, want Process, ok bool) {
		t.Helper()
		got, err := parseStat([]byte(in))
		if got != want || (err == nil) != ok {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	f("42 (nginx: worker) S 7 42 42 0 -1 4194624 1 0 0 0 150 320 9 9 20 0 1 0 9\n",
		Process{PID: 42, Parent: 7, User: 1500 * time.Millisecond, System: 3200 * time.Millisecond}, true)
	f("42 (a) b) (c) R 1 42 42 0 -1 4194624 1 0 0 0 1 0 9 9 20 0 1 0 9\n",
		Process{PID: 42, Parent: 1, User: 10 * time.Millisecond}, true)
	f("", Process{}, false)
	f("42 nginx S 7", Process{}, false)
	f("42 (nginx) S 7 42", Process{}, false)
	f("42 (nginx) S 7 42 42 0 -1 4194624 1 0 0 0 x 320 9 9 20 0 1 0 9\n", Process{}, false)
}

func TestDescendants(t *testing.T) {
	all := []Process{{PID: 5, Parent: 3}, {PID: 1}, {PID: 2, Parent: 1}, {PID: 3, Parent: 2}, {PID: 4, Parent: 1}, {PID: 6, Parent: 2}}
	tree, err := descendants(all, 2)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, p := range tree {
		pids = append(pids, p.PID)
	}
	if !slices.Equal(pids, []int{2, 3, 6, 5}) {
		t.Errorf("descendants of 2: %v", pids)
	}
	if _, err := descendants(all, 7); err == nil {
		t.Error("descendants of a process that does not run: no error")
	}
}

func TestParseRollup(t *testing.T) {
	in := "5583-7ffc ---p 00000000 00:00 0    [rollup]\nRss:        3960 kB\nPss:         856 kB\nPss_Dirty:   565 kB\n"
	if m, err := parseRollup([]byte(in)); err != nil || m != (Memory{RSS: 3960 << 10, PSS: 856 << 10}) {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := parseRollup([]byte("Rss: 3960 kB\n")); err == nil {
		t.Error("no error without Pss")
	}
}

func TestParseCPUs(t *testing.T) {
	in := "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 10 200 5000 60 3 7 55 40 0\ncpu11 1 0 0 0 0 0 0 0 0 0\nintr 1 2 3\n"
	got, err := parseCPUs([]byte(in))
	want := map[int]CPU{
		0:  {Busy: 3200 * time.Millisecond, Steal: 550 * time.Millisecond},
		11: {Busy: 10 * time.Millisecond},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, in := range []string{"", "cpu  9 9 9 9 9 9 9 9 0 0\n", "cpu0 x 9 9 9 9 9 9 9 0 0\n", "cpux 9 9 9 9 9 9 9 9 0 0\n"} {
		if _, err := parseCPUs([]byte(in)); err == nil {
			t.Errorf("%q: no error", in)
		}
	}
}

func TestParseValue(t *testing.T) {
	in := "processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n"
	if v := parseValue(in, "model name", "x"); v != "AMD EPYC" {
		t.Errorf("%q", v)
	}
	if v := parseValue(in, "model", "x"); v != "x" {
		t.Errorf("%q", v)
	}
}

// The precise clock is the sum of utime and stime, which are cut to whole ticks each.
func TestUsageAgreesWithItself(t *testing.T) {
	var before Usage
	var err error
	for before.Total < 30*time.Millisecond { // of its own: others may run meanwhile
		if before, err = UsageOf(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	after, err := UsageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if before.Total < before.User+before.System {
		t.Errorf("total %v, user %v, system %v", before.Total, before.User, before.System)
	}
	if before.Total > after.User+after.System+2*tick {
		t.Errorf("total %v, later user %v, system %v", before.Total, after.User, after.System)
	}
}

func TestMemoryOfThisProcess(t *testing.T) {
	const size = 32 << 20
	before, err := MemoryOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	held := make([]byte, size)
	for i := range held {
		held[i] = 1
	}
	after, err := MemoryOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(held)
	if grown := after.RSS - before.RSS; grown < size/2 || after.PSS > after.RSS {
		t.Errorf("%d MiB were touched, RSS grew by %d bytes to %+v", size>>20, grown, after)
	}
}

func TestStartPins(t *testing.T) {
	allowed, err := Allowed()
	if err != nil {
		t.Fatal(err)
	}
	home, other := allowed[0], allowed[len(allowed)-1]
	done := make(chan struct{})
	go func() { // its thread ends with it, and nobody else runs on the CPU that it was bound to
		defer close(done)
		cmd := exec.Command("grep", "Cpus_allowed_list", "/proc/self/status")
		var out strings.Builder
		cmd.Stdout = &out
		if err := Start(cmd, home, other); err != nil {
			t.Error(err)
			return
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if f := strings.Fields(out.String()); len(f) != 2 || f[1] != strconv.Itoa(other) {
			t.Errorf("a child on CPU %d says %q", other, out.String())
		}
		if now, err := Allowed(); err != nil || !slices.Equal(now, []int{home}) {
			t.Errorf("back at home: %v, %v; want CPU %d", now, err, home)
		}
	}()
	<-done
}
