//go:build unix

package link

import (
	"errors"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// TestPairIsNotInherited makes pairs while programs are started: none may hold an end, or the other would not see it close.
func TestPairIsNotInherited(t *testing.T) {
	var starting sync.WaitGroup
	var started []*exec.Cmd
	done := make(chan struct{})
	starting.Go(func() { // waited for below
		defer close(done)
		for range 100 {
			c := exec.Command("sleep", "3600")
			if err := c.Start(); err != nil {
				t.Error(err)
				return
			}
			started = append(started, c)
		}
	})
	defer func() {
		starting.Wait()
		for _, c := range started {
			_ = c.Process.Kill()
			_ = c.Wait() // it was killed
		}
	}()
	for {
		a, b, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		_ = b.SetReadDeadline(time.Now().Add(time.Minute))
		_, err = b.Read(make([]byte, 1))
		_ = b.Close()
		if !errors.Is(err, io.EOF) {
			t.Fatalf("somebody has the other end: %v", err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
