// Package leaks runs a package's tests and fails where goroutines outlive them.
package leaks

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines that have been told to end may take: longer than on any machine, as only a leak waits so long.
const patience = 30 * time.Second

// Main is for a TestMain. It calls the functions after the last test, and does not return.
func Main(m *testing.M, after ...func()) { goleak.VerifyTestMain(patient{m, after}) }

// patient gives goroutines the time that goleak, which looks for less than a second, leaves them not on a busy machine.
type patient struct {
	*testing.M
	after []func()
}

func (p patient) Run() int {
	code := p.M.Run()
	for _, f := range p.after {
		f()
	}
	for end := time.Now().Add(patience); goleak.Find() != nil && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	return code
}
