// Package leaks runs a package's tests and fails where goroutines outlive them.
package leaks

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines that have been told to end may take: longer than on any machine, as only a leak waits so long.
const patience = 30 * time.Second

// Main is for a TestMain. It does not return.
func Main(m *testing.M) { goleak.VerifyTestMain(patient{m}) }

// patient gives goroutines the time that goleak, which looks for less than a second, leaves them not on a busy machine.
type patient struct{ *testing.M }

func (p patient) Run() int {
	code := p.M.Run()
	for end := time.Now().Add(patience); goleak.Find() != nil && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	return code
}
