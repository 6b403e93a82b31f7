package breaker

// Snapshot is all that a reader may want to know of a breaker, for a metric or a dashboard.
type Snapshot struct {
	Settings Settings
	State    State
	Stored   State // Closed, Open or HalfOpen: what State is where the settings force nothing
	Since    int64 // when State began
	Probes   uint64

	// Open is the dashboard's isCircuitBreakerOpen: half-open counts as open, for want of a third value.
	Open bool

	// NextProbe is how many nanoseconds have to pass until a request may be the next probe. 0 where one may be now, or
	// where none will be: the stored state is closed.
	NextProbe int64

	// The health as last judged: of complete snapshots.
	Requests, Errors uint64
	ErrorPercentage  int

	Rolling [EventCount]uint64 // of the statistical window's complete buckets
	Total   [EventCount]uint64 // since the breaker was made; CommandMaxActive is not known

	Active    int // commands that were admitted and are not closed: Hystrix's currentConcurrentExecutionCount
	Fallbacks int // that run

	Execution Latency // of executions, without their fallbacks
	Command   Latency // of admitted commands, with their fallbacks

	Executions Histogram // what Execution tells of a window, since the breaker was made
	Commands   Histogram // likewise, of Command

	Transitions  [ReasonCount]uint64            // since the breaker was made
	Reconfigured [stateCount][stateCount]uint64 // those of this Reason, from one State to another; any other has but one way

	scratch []int32
}

// Snapshot fills s with what holds at the instant; what s held is used again.
func (b *Breaker) Snapshot(s *Snapshot, now int64) {
	b.mu.Lock()
	b.advance(now)
	*s = Snapshot{
		Settings:        b.settings,
		State:           b.state(),
		Stored:          b.stored,
		Since:           b.since,
		Probes:          b.probes,
		Requests:        b.health.sum.total,
		Errors:          b.health.sum.errors,
		ErrorPercentage: b.health.sum.percentage(),
		Rolling:         b.rolling.window(),
		Total:           b.rolling.total(),
		Active:          b.active,
		Fallbacks:       b.falling,
		Executions:      b.ran,
		Commands:        b.took,
		Transitions:     b.history.by,
		Reconfigured:    b.history.moves,
		scratch:         s.scratch[:0],
	}
	switch b.stored {
	case Open:
		s.NextProbe = max(0, b.openedAt+int64(b.settings.SleepWindow)+1-now)
	case HalfOpen:
		s.NextProbe = max(0, b.probedAt+b.patience()+1-now)
	}
	s.Open = s.State == Open || s.State == HalfOpen || s.State == ForcedOpen
	kept := b.samples.values != nil
	s.scratch = b.samples.collect(s.scratch)
	b.mu.Unlock()

	if !kept {
		s.Execution, s.Command = disabledLatency(), disabledLatency()
		return
	}
	commands := len(s.scratch) / 2
	s.Execution = newLatency(s.scratch[:commands])
	s.Command = newLatency(s.scratch[commands:])
}
