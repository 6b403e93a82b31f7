// Package conformance proves, from outside and byte by byte, what a proxy does with messages that are valid, odd, broken
// or hostile: raw bytes of a client on one side, raw bytes of a server on the other, a whole proxy between them.
//
// The tables in testdata hold a case each with the RFC's verdict, what the proxy answers and the exact bytes that reach
// the other side. `go test ./conformance -update` rewrites those bytes, and never a verdict or an answer.
package conformance

import (
	"flag"
	"testing"

	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

var update = flag.Bool("update", false, "rewrite the forwarded bytes in testdata and, in the test Peers, the comparison in docs/conformance.md")

// Every goroutine of a proxy ends with it.
func TestMain(m *testing.M) { leaks.Main(m) }
