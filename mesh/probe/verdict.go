package probe

// State is what is known of an application.
type State uint8

// States of an application.
const (
	Unknown State = iota // asked too few times: it gets no requests yet
	Ready
	Unready
)

// String returns the state as logs and metrics have it.
func (s State) String() string { return [...]string{"unknown", "ready", "unready"}[s] }

// verdict turns answers into a state, as Kubernetes and Istio's agent do: as many of one kind in a row as its threshold
// says. It is pure; its user guards it.
type verdict struct {
	state State
	good  bool   // the last answers were good
	run   uint32 // how many of them
}

// add takes one answer, and returns whether the state changed.
func (v *verdict) add(good bool, successes, failures uint32) bool {
	if good != v.good {
		v.good, v.run = good, 0
	}
	v.run++
	next, needed := Unready, failures
	if good {
		next, needed = Ready, successes
	}
	if v.state == next || v.run < needed {
		return false
	}
	v.state = next
	return true
}
