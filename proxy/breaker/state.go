package breaker

// State is what the breaker does with requests.
type State uint8

const (
	Closed       State = iota // admits
	Open                      // refuses until the sleep window is over
	HalfOpen                  // one probe is on its way; refuses everything else
	ForcedOpen                // refuses: circuitBreaker.forceOpen
	ForcedClosed              // admits: circuitBreaker.forceClosed
	Disabled                  // admits: circuitBreaker.enabled is false
	stateCount
)

var stateNames = [stateCount]string{"closed", "open", "half_open", "forced_open", "forced_closed", "disabled"}

// String returns the state's name as metrics and logs write it.
func (s State) String() string { return stateNames[s] }

// Reason says why the state changed.
type Reason uint8

const (
	ErrorThreshold  Reason = iota // closed to open: too many errors at a health snapshot
	SleepWindowOver               // open to half-open: a request became the probe
	ProbeSucceeded                // half-open to closed
	ProbeFailed                   // half-open to open
	ProbeTimedOut                 // half-open to open
	ProbeRejected                 // half-open to open: there was no connection for it
	ProbeAbandoned                // half-open to open: its client left
	ProbeOverdue                  // half-open it stays, with a new probe: nothing was heard of the last
	Reconfigured                  // the settings force another state, or no longer do
	ReasonCount
)

var reasonNames = [ReasonCount]string{
	"error_threshold", "sleep_window_over", "probe_succeeded", "probe_failed", "probe_timed_out", "probe_rejected",
	"probe_abandoned", "probe_overdue", "reconfigured",
}

// String returns the reason's name as metrics and logs write it.
func (r Reason) String() string { return reasonNames[r] }

// Transition is a change of state.
type Transition struct {
	From, To State
	Reason   Reason
	At       int64 // the instant, in the caller's nanoseconds

	// The health that was judged: of the window's requests, how many were errors. Only where Reason is ErrorThreshold.
	Requests, Errors uint64
}

// history keeps the transitions that nobody has read yet, the newest where there are too many.
type history struct {
	ring [32]Transition
	n    uint64              // how many there ever were
	read uint64              // how many of them were read
	by   [ReasonCount]uint64 // how many there ever were, by reason
	// moves are those that Reconfigured made, from one state to another.
	moves [stateCount][stateCount]uint64
}

func (h *history) add(t Transition) {
	h.ring[h.n%uint64(len(h.ring))] = t
	h.n++
	h.by[t.Reason]++
	if t.Reason == Reconfigured {
		h.moves[t.From][t.To]++
	}
}

// drain appends what was not read yet.
func (h *history) drain(dst []Transition) []Transition {
	if h.n-h.read > uint64(len(h.ring)) {
		h.read = h.n - uint64(len(h.ring))
	}
	for ; h.read < h.n; h.read++ {
		dst = append(dst, h.ring[h.read%uint64(len(h.ring))])
	}
	return dst
}
