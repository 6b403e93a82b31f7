package limit

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"
)

// Buckets has a Bucket for each key, of those that were asked for last. It may be used by many at the same time.
//
// The number of buckets is bounded, as keys come from clients: where there is no room for another, the one that has not been
// asked for the longest is forgotten, and its key begins with a full bucket when it comes back.
type Buckets struct {
	size, fill int
	interval   time.Duration
	most       int

	mu      sync.Mutex
	keys    map[string]*keyed
	recent  keyed // the list's root: next is the last that was asked for, prev the first to go
	evicted uint64
}

// keyed is a bucket in the list of a Buckets.
type keyed struct {
	key        string
	bucket     *Bucket
	prev, next *keyed
}

// longKey is how many bytes of a key are kept; a longer one is known by its hash.
const longKey = 64

// NewBuckets returns buckets as NewBucket makes them, at most so many at a time.
func NewBuckets(size, fill int, interval time.Duration, most int) (*Buckets, error) {
	if most < 1 {
		return nil, fmt.Errorf("there may be %d buckets: there must be room for at least 1", most)
	}
	if _, err := NewBucket(size, fill, interval, 0); err != nil {
		return nil, err
	}
	b := &Buckets{size: size, fill: fill, interval: interval, most: most, keys: map[string]*keyed{}}
	b.recent.prev, b.recent.next = &b.recent, &b.recent
	return b, nil
}

// Of returns the bucket of a key, a full one where the key is new. A key that is there costs no allocation.
func (b *Buckets) Of(key []byte, now int64) *Bucket {
	if len(key) > longKey {
		sum := sha256.Sum256(key)
		key = sum[:]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.keys[string(key)]
	if k == nil {
		k = b.add(string(key), now)
	} else {
		k.unlink()
	}
	k.prev, k.next = &b.recent, b.recent.next
	k.prev.next, k.next.prev = k, k
	return k.bucket
}

func (b *Buckets) add(key string, now int64) *keyed {
	if len(b.keys) >= b.most {
		last := b.recent.prev
		last.unlink()
		delete(b.keys, last.key)
		b.evicted++
	}
	k := &keyed{key: key}
	k.bucket, _ = NewBucket(b.size, b.fill, b.interval, now) // NewBuckets has tried it
	b.keys[key] = k
	return k
}

func (k *keyed) unlink() { k.prev.next, k.next.prev = k.next, k.prev }

// Keys returns how many buckets there are, and how many were forgotten to make room.
func (b *Buckets) Keys() (there int, evicted uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.keys), b.evicted
}

// Smooth returns how a bucket is filled so that so many tokens come in a period as evenly as intervals allow, which have at
// least 50 ms: fill tokens at each interval.
func Smooth(tokens int, period time.Duration) (fill int, interval time.Duration) {
	n := min(tokens, int(period/leastInterval))
	for n > 1 && tokens%n != 0 {
		n--
	}
	n = max(n, 1)
	return tokens / n, period / time.Duration(n)
}
