package limit

import (
	"fmt"
	"sync"
	"time"
)

// Bucket is Envoy's token bucket: it begins full, each request takes a token, and so many are filled in at each interval.
// It may be used by many at the same time.
type Bucket struct {
	mu       sync.Mutex
	size     int64
	fill     int64
	interval int64
	next     int64 // when the next fill is
	tokens   int64
}

// Facts are what a client may be told of a Bucket, in X-RateLimit-* and Retry-After.
type Facts struct {
	OK        bool
	Limit     int           // X-RateLimit-Limit: the tokens that a full bucket holds
	Remaining int           // X-RateLimit-Remaining: those left now
	Reset     time.Duration // X-RateLimit-Reset: until more are filled in; in the header, whole seconds (Seconds)
	Retry     time.Duration // Retry-After: until there is one; 0 where there is one now
}

// Seconds returns what a header says of a duration: whole seconds, begun ones too.
func Seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// leastInterval is Envoy's.
const leastInterval = 50 * time.Millisecond

// NewBucket returns a full bucket of size tokens into which fill are put at each interval (Envoy's max_tokens, tokens_per_fill and fill_interval;
// an interval has at least 50 ms there, and here).
func NewBucket(size, fill int, interval time.Duration, now int64) (*Bucket, error) {
	switch {
	case size < 1 || size > 1<<31:
		return nil, fmt.Errorf("the bucket holds %d tokens: it must hold from 1 to %d", size, 1<<31)
	case fill < 1:
		return nil, fmt.Errorf("%d tokens are filled in at each interval: it must be at least 1", fill)
	case interval < leastInterval:
		return nil, fmt.Errorf("the interval of filling is %v: it must be at least 50ms", interval)
	}
	return &Bucket{size: int64(size), fill: int64(min(fill, size)), interval: int64(interval), next: now + int64(interval), tokens: int64(size)}, nil
}

// Take takes a token where there is one.
func (b *Bucket) Take(now int64) Facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(now)
	f := Facts{OK: b.tokens > 0, Limit: int(b.size), Reset: time.Duration(max(0, b.next-now))}
	if f.OK {
		b.tokens--
	} else {
		f.Retry = f.Reset
	}
	f.Remaining = int(b.tokens)
	return f
}

// Give gives a token back that was taken for what did not happen.
func (b *Bucket) Give() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+1, b.size)
}

func (b *Bucket) advance(now int64) {
	if now < b.next {
		return
	}
	n := 1 + (now-b.next)/b.interval
	b.next += n * b.interval
	if missing := b.size - b.tokens; n >= (missing+b.fill-1)/b.fill {
		b.tokens = b.size
	} else {
		b.tokens += n * b.fill
	}
}
