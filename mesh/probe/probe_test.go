package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// script answers by virtual time, and writes down what happens when.
type script struct {
	mu     sync.Mutex
	begin  time.Time
	takes  time.Duration // each answer
	bad    func(at time.Duration) bool
	events []string
}

func (s *script) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf("%v ", time.Since(s.begin))+fmt.Sprintf(format, args...))
}

func (s *script) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := strings.Join(s.events, ", ")
	s.events = nil
	return out
}

func (s *script) ask(ctx context.Context, _ *model.Probe) error {
	at := time.Since(s.begin)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.takes):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad(at) {
		return errors.New("status 503")
	}
	return nil
}

// prober runs a Prober over s until the test ends.
func (s *script) prober(t *testing.T, ready bool) (p *Prober, stop func()) {
	s.begin = time.Now()
	p = New(Options{Ready: ready, Changed: func(c Change) { s.note("%s %s", c.To, c.Reason) }, Log: slog.New(slog.DiscardHandler)})
	p.ask = s.ask
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	return p, func() {
		cancel()
		running.Wait()
	}
}

func every(seconds int, successes, failures uint32) *model.Probe {
	return &model.Probe{
		Address: "app:80", Period: model.Duration(time.Duration(seconds) * time.Second), Timeout: model.Duration(time.Second),
		Successes: successes, Failures: failures,
	}
}

func during(from, to time.Duration) func(time.Duration) bool {
	return func(at time.Duration) bool { return at >= from && at < to }
}

func TestChangesWhenTheNumbersSay(t *testing.T) {
	f := func(probe *model.Probe, bad func(time.Duration) bool, want string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			s := &script{bad: bad}
			p, stop := s.prober(t, false)
			defer stop()
			p.Configure(probe)
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := s.told(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
	// Bad answers from 21 s on are those of 30, 40 and 50 s; good ones again at 50 s.
	f(every(10, 1, 2), during(21*time.Second, 45*time.Second), "0s ready , 40s unready status 503, 50s ready ")
	f(every(2, 2, 3), during(20*time.Second, 31*time.Second), "2s ready , 24s unready status 503, 34s ready ")
	f(every(10, 1, 3), during(0, time.Hour), "20s unready status 503")
	delayed := every(10, 1, 3)
	delayed.InitialDelay = model.Duration(7 * time.Second)
	f(delayed, during(0, 8*time.Second), "17s ready ")
}

// TestWhatIsWrongIsToldBeforeTheVerdict says the first bad answer of an application that nothing is known of, once, and the
// last to who asks.
func TestWhatIsWrongIsToldBeforeTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &words{}
		s := &script{bad: during(0, 35*time.Second)}
		p, stop := s.prober(t, false)
		defer stop()
		p.o.Log = slog.New(slog.NewTextHandler(log, nil))
		p.Configure(every(10, 1, 3))
		time.Sleep(15 * time.Second) // two bad answers of three
		synctest.Wait()
		if n := strings.Count(log.String(), `level=INFO msg="application is not ready yet" reason="status 503"`); n != 1 || s.told() != "" {
			t.Errorf("said %d times:\n%s", n, log)
		}
		if got := p.Reason(); got != "status 503" {
			t.Errorf("the last answer is %q", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := p.Reason(); got != "" || strings.Count(log.String(), "not ready yet") != 1 {
			t.Errorf("the last answer is %q; log:\n%s", got, log)
		}
	})
}

func TestAnswersThatTakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{bad: during(0, 0), takes: 5 * time.Second}
		p, stop := s.prober(t, true)
		defer stop()
		p.Configure(every(2, 1, 2))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		// Each question ends after its second, and the next comes with the next period.
		if got := s.told(); got != "3s unready context deadline exceeded" {
			t.Error(got)
		}
	})
}

func TestConfigureKeepsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{bad: during(0, 0)}
		p, stop := s.prober(t, false)
		defer stop()
		if p.Ready() {
			t.Error("it must not be ready before it was asked")
		}
		expect := func(what, want string) {
			t.Helper()
			synctest.Wait()
			if got := s.told(); got != want {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		p.Configure(every(10, 1, 1))
		expect("the first answer", "0s ready ")
		select {
		case <-p.Answered():
		default:
			t.Error("nobody is told of the first answer")
		}
		s.mu.Lock()
		s.bad = during(1*time.Second, 25*time.Second)
		s.mu.Unlock()
		time.Sleep(5 * time.Second)
		p.Configure(every(10, 1, 1)) // the same: the rhythm stays
		expect("the same again", "")
		delayed := every(10, 2, 2)
		delayed.InitialDelay = model.Duration(time.Hour) // for those that nothing is known of
		p.Configure(delayed)
		expect("another question is asked at once, and counted anew", "")
		time.Sleep(10 * time.Second)
		expect("its second bad answer", "15s unready status 503")
		time.Sleep(20 * time.Second)
		expect("its second good answer", "35s ready ")
		s.mu.Lock()
		s.bad = during(0, time.Hour)
		s.mu.Unlock()
		time.Sleep(20 * time.Second)
		expect("bad again", "55s unready status 503")
		p.Configure(nil)
		time.Sleep(time.Minute)
		expect("nothing is asked", "")
		if !p.Ready() {
			t.Error("an application that nobody asks is ready")
		}
		if n := testutil.CollectAndCount(p); n != 0 {
			t.Errorf("%d series while nothing is asked", n)
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{bad: during(21*time.Second, 45*time.Second)}
		p, stop := s.prober(t, false)
		defer stop()
		p.Configure(every(10, 1, 2))
		time.Sleep(41 * time.Second)
		synctest.Wait()
		const want = `
# HELP outrider_probe_changes_total Times that the verdict on the application changed.
# TYPE outrider_probe_changes_total counter
outrider_probe_changes_total{to="ready"} 1
outrider_probe_changes_total{to="unready"} 1
# HELP outrider_probe_ready 1 while the application passes its probe, 0 before it did and while it does not.
# TYPE outrider_probe_ready gauge
outrider_probe_ready 0
# HELP outrider_probe_results_total Questions to the application, by how they were answered.
# TYPE outrider_probe_results_total counter
outrider_probe_results_total{result="failed"} 2
outrider_probe_results_total{result="passed"} 3
`
		if err := testutil.CollectAndCompare(p, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.CollectAndLint(p); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
}
