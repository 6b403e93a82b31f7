package e2e

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// staged is an application on bare connections that does what a request's field x-script says, one word for each attempt, the
// last one for all that follow. What is to come after the client has an answer waits for that.
type staged struct {
	script
	arrived chan struct{} // at the client
	over    chan struct{} // the test is
}

// newStaged serves each connection by serve until the test is over, and returns where.
func newStaged(t *testing.T, serve func(s *staged, c net.Conn)) (*staged, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &staged{script{seen: map[string]int{}}, make(chan struct{}), make(chan struct{})}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	all.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() { // ends with the connection
				serve(s, c)
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(s.over)
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return s, l.Addr().String()
}

// answered waits until the client has the head of the answer, or the test is over.
func (s *staged) answered() {
	select {
	case <-s.arrived:
	case <-s.over:
	}
}

// compare plays the scenarios through us and through Envoy. A script by which an answer begins before it is done with the request
// is told when that has arrived.
func (s *staged) compare(t *testing.T, m *mesh, e *envoy, all []retryScenario, begins func(script string) bool) differences {
	t.Helper()
	differ, tally := compareRuns(m, e, all, func(address string) []string {
		s.reset()
		c := plain(address)
		var got []string
		for i, scenario := range all {
			res, err := c.Do(scenario.request(t, i, "body"))
			if err != nil {
				t.Fatalf("%v: %v", scenario, err)
			}
			if begins(scenario.script) {
				s.arrived <- struct{}{}
			}
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			got = append(got, fmt.Sprintf("%d, whole %t, after %d", res.StatusCode, err == nil, s.attempts(scenarioName(i))))
		}
		return got
	})
	t.Logf("%d scenarios with %v", len(all), tally)
	return differ
}
