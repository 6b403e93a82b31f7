//go:build !linux

// Package main measures Outrider's proxy beside other proxies; it reads CPU time and memory from Linux's /proc.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: the measurement reads /proc and binds processes to CPUs, so it runs on Linux only")
	os.Exit(2)
}
