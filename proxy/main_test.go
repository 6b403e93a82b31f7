package proxy

import (
	"testing"

	"go.uber.org/goleak"
)

// Every goroutine of a proxy ends with it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
