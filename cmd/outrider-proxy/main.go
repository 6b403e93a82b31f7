// Command outrider-proxy is the sidecar alone: it runs one workload's snapshot.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `outrider-proxy runs one workload's snapshot, with no control plane.

  outrider-proxy run --snapshot FILE [--admin ADDR] [--ready-file FILE]
  outrider-proxy version

FILE is what 'outrider compile' prints; changes of it take effect while the proxy runs. 'outrider-proxy run --help' lists the flags.
`

func main() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		slacken()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// fail prints err and returns the exit code for it.
func fail(w interface{ Write([]byte) (int, error) }, err error, code int) int {
	fmt.Fprintln(w, "outrider-proxy:", err)
	return code
}
