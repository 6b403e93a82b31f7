package breaker

import (
	"testing"
	"time"
)

const ms = int64(time.Millisecond)

// unitSettings are those of Hystrix's own unit tests, with health snapshots every 100 ms.
func unitSettings() Settings {
	s := Defaults()
	s.RollingWindow = 5 * time.Second
	s.HealthInterval = 100 * time.Millisecond
	s.ErrorThresholdPercentage = 40
	s.RequestVolumeThreshold = 1
	s.SleepWindow = 200 * time.Millisecond
	s.Timeout = 500 * time.Millisecond
	s.MaxConcurrent = 20
	return s
}

// rig drives a breaker that was made at 0 ms.
type rig struct {
	*testing.T
	b *Breaker
}

func newRig(t *testing.T, s Settings) *rig {
	t.Helper()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	return &rig{t, New(s, 0)}
}

// note counts an event that is no execution's, such as Hystrix has and a proxy has not: ResponseFromCache, Collapsed, Emit or
// FallbackEmit. None counts for the health.
func (b *Breaker) note(e Event, now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(now)
	b.rolling.add(set(e))
}

// isProbe says whether the command is the one that finds out whether the target is back.
func (t *Ticket) isProbe() bool { return t.probe != 0 }

// begin asks for an execution, which must be admitted.
func (r *rig) begin(at int64) *Ticket {
	r.Helper()
	t := new(Ticket)
	if v := r.b.Admit(t, at*ms); v != Admitted {
		r.Fatalf("at %d ms: verdict %d, want it to be admitted", at, v)
	}
	return t
}

// refused asks for an execution, which must be short-circuited.
func (r *rig) refused(at int64) {
	r.Helper()
	t := new(Ticket)
	if v := r.b.Admit(t, at*ms); v != Refused {
		r.Fatalf("at %d ms: verdict %d, want it to be refused", at, v)
	}
	t.Close(at * ms)
}

// throttled asks for an execution, for which there must be no permit.
func (r *rig) throttled(at int64) {
	r.Helper()
	t := new(Ticket)
	if v := r.b.Admit(t, at*ms); v != Throttled {
		r.Fatalf("at %d ms: verdict %d, want it to be throttled", at, v)
	}
	t.Close(at * ms)
}

var letters = map[byte]Outcome{'S': Succeeded, 'F': Failed, 'T': TimedOut, 'B': ClientError, 'K': Abandoned, 'Q': PoolRejected}

// end reports a ticket's outcome by its letter and closes it.
func (r *rig) end(t *Ticket, at int64, letter byte) {
	r.Helper()
	if !t.End(letters[letter], at*ms) {
		r.Fatalf("at %d ms: the execution had ended before", at)
	}
	t.Close(at * ms)
}

// run begins and ends an execution for each letter, at once.
func (r *rig) run(at int64, outcomes string) {
	r.Helper()
	for i := range outcomes {
		r.end(r.begin(at), at, outcomes[i])
	}
}

func (r *rig) look(at int64) *Snapshot {
	s := new(Snapshot)
	r.b.Snapshot(s, at*ms)
	return s
}

func (r *rig) state(at int64, want State) {
	r.Helper()
	if got := r.look(at).State; got != want {
		r.Fatalf("at %d ms: %v, want %v", at, got, want)
	}
}

func (r *rig) health(at int64, errors, total uint64, percentage int) {
	r.Helper()
	if s := r.look(at); s.Errors != errors || s.Requests != total || s.ErrorPercentage != percentage {
		r.Fatalf("at %d ms: %d errors of %d (%d %%), want %d of %d (%d %%)", at, s.Errors, s.Requests, s.ErrorPercentage, errors, total, percentage)
	}
}

// counted wants exactly these events, and no others, since the breaker was made.
func (r *rig) counted(at int64, want map[Event]uint64) {
	r.Helper()
	total := r.look(at).Total
	for e, n := range total {
		if e := Event(e); n != want[e] && e != ExceptionThrown {
			r.Errorf("at %d ms: %d %v, want %d", at, n, e, want[e])
		}
	}
}

// last wants the newest transition to be this one.
func (r *rig) last(at int64, want Transition) {
	r.Helper()
	list := r.b.Tick(nil, at*ms)
	if len(list) == 0 {
		r.Fatalf("at %d ms: no transition", at)
	}
	got := list[len(list)-1]
	if want.At *= ms; got != want {
		r.Fatalf("at %d ms: %+v, want %+v", at, got, want)
	}
}
