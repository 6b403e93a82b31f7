package breaker

// Event is a HystrixEventType, in Hystrix's order.
type Event uint8

// The events. Their String is what exporters use as a label, their order what the dashboard's counts are listed in.
const (
	Emit Event = iota
	Success
	Failure
	Timeout
	BadRequest
	ShortCircuited
	ThreadPoolRejected
	SemaphoreRejected
	FallbackEmit
	FallbackSuccess
	FallbackFailure
	FallbackRejection
	FallbackDisabled
	FallbackMissing
	ExceptionThrown // not an event of its own: the sum of those that end in an error
	ResponseFromCache
	Cancelled
	Collapsed
	CommandMaxActive // not an event of its own: the most executions at once
	EventCount
)

var eventNames = [EventCount]string{
	"emit", "success", "failure", "timeout", "bad_request", "short_circuited", "thread_pool_rejected", "semaphore_rejected",
	"fallback_emit", "fallback_success", "fallback_failure", "fallback_rejection", "fallback_disabled", "fallback_missing",
	"exception_thrown", "response_from_cache", "cancelled", "collapsed", "command_max_active",
}

// String returns Hystrix's name in lower case.
func (e Event) String() string { return eventNames[e] }

// Terminal says whether a command has nothing to follow once it has happened.
func (e Event) Terminal() bool { return terminal.has(e) }

// Outcome is how an execution ended.
type Outcome uint8

const (
	// Abandoned is an execution that was given up: the client left, or nobody reported. It counts neither way.
	Abandoned Outcome = iota
	// Succeeded counts as healthy.
	Succeeded
	// Failed counts as an error.
	Failed
	// TimedOut counts as an error.
	TimedOut
	// ClientError is Hystrix's BAD_REQUEST: an answer that is the caller's own fault. It counts neither way, has no
	// fallback, and as a probe's answer shows that the other side lives.
	ClientError
	// PoolRejected is Hystrix's THREAD_POOL_REJECTED: no connection, and the queue for one is full. It counts as an error.
	PoolRejected
)

// event returns what the outcome is counted as.
func (o Outcome) event() Event {
	switch o {
	case Succeeded:
		return Success
	case Failed:
		return Failure
	case TimedOut:
		return Timeout
	case ClientError:
		return BadRequest
	case PoolRejected:
		return ThreadPoolRejected
	}
	return Cancelled
}

// events is a set of Event.
type events uint32

func set(list ...Event) (s events) {
	for _, e := range list {
		s |= 1 << e
	}
	return s
}

func (s events) has(e Event) bool { return s&(1<<e) != 0 }

var (
	terminal = set(Success, BadRequest, FallbackSuccess, FallbackFailure, FallbackRejection, FallbackDisabled, FallbackMissing, ResponseFromCache, Cancelled)

	// decided are the events of which a command has exactly one: how its execution ended, or why there was none.
	decided = set(Success, Failure, Timeout, BadRequest, ShortCircuited, ThreadPoolRejected, SemaphoreRejected, Cancelled)

	// harmful events count against the health, healthy ones for it.
	harmful = set(Failure, Timeout, ThreadPoolRejected, SemaphoreRejected)
	healthy = set(Success)

	// wanting may be answered by a fallback.
	wanting = set(Failure, Timeout, ShortCircuited, ThreadPoolRejected, SemaphoreRejected)

	// fallen are the ways in which a fallback can end.
	fallen = set(FallbackSuccess, FallbackFailure, FallbackRejection, FallbackDisabled, FallbackMissing)

	// thrown are what ExceptionThrown is the sum of.
	thrown = [...]Event{BadRequest, FallbackFailure, FallbackDisabled, FallbackMissing, FallbackRejection}
)
