//go:build linux

package machine

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Describe says in one line what machine this is: CPU, number of CPUs, memory, kernel, hypervisor.
func Describe() string {
	cpus, err := CPUs()
	if err != nil {
		return err.Error()
	}
	parts := []string{
		valueOf("/proc/cpuinfo", "model name", "unknown CPU"),
		fmt.Sprintf("%d CPUs (%s)", len(cpus), runtime.GOARCH),
		"memory " + valueOf("/proc/meminfo", "MemTotal", "unknown"),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		parts = append(parts, unix.ByteSliceToString(u.Sysname[:])+" "+unix.ByteSliceToString(u.Release[:]))
	}
	if strings.Contains(" "+valueOf("/proc/cpuinfo", "flags", "")+" ", " hypervisor ") {
		parts = append(parts, "virtual machine")
	}
	return strings.Join(parts, ", ")
}

// valueOf returns the value of the first "key : value" line of a file under /proc, or fallback.
func valueOf(file, key, fallback string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return fallback
	}
	return parseValue(string(b), key, fallback)
}

func parseValue(text, key, fallback string) string {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return fallback
}
