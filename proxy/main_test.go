package proxy

import (
	"flag"
	"testing"

	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

// Every goroutine of a proxy ends with it. Tests that may run beside others only wait, so there may be many at a time.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() == "" { // which takes it for the number of its processes
		if err := flag.Set("test.parallel", "16"); err != nil {
			panic(err)
		}
	}
	leaks.Main(m)
}
