package proxy

import "time"

// started anchors monotonic time: all instants on the data path are nanoseconds since then.
var started = time.Now()

// now returns monotonic nanoseconds; it costs half of what time.Now does (BenchmarkClock).
func now() int64 { return int64(time.Since(started)) }
