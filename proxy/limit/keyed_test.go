package limit

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const second = int64(time.Second)

// Each key has tokens of its own, long ones too.
func TestBuckets(t *testing.T) {
	b, err := NewBuckets(2, 1, time.Second, 10)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", longKey)
	for _, key := range []string{"", "a", "b", long, long + "1", long + "2"} {
		for i, want := range []bool{true, true, false} {
			if got := b.Of([]byte(key), 0).Take(0); got.OK != want {
				t.Errorf("%.10q: take %d: got %+v", key, i, got)
			}
		}
		if !b.Of([]byte(key), second).Take(second).OK {
			t.Errorf("%.10q: no token after a second", key)
		}
	}
	if n, evicted := b.Keys(); n != 6 || evicted != 0 {
		t.Errorf("%d keys, %d evicted", n, evicted)
	}
}

// The key that was not asked for the longest goes: the same as a list that is searched.
func TestBucketsEviction(t *testing.T) {
	const most = 8
	b, err := NewBuckets(1, 1, time.Hour, most)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var recent []string // last first
	evictions := uint64(0)
	for i := range 20000 {
		key := fmt.Sprint(r.IntN(12))
		fresh := true
		for j, k := range recent {
			if k == key {
				fresh = false
				recent = append(recent[:j], recent[j+1:]...)
				break
			}
		}
		if fresh && len(recent) == most {
			recent = recent[:most-1]
			evictions++
		}
		recent = append([]string{key}, recent...)
		if got := b.Of([]byte(key), 0).Take(0); got.OK != fresh {
			t.Fatalf("step %d: key %s: a token: %v, new: %v", i, key, got.OK, fresh)
		}
	}
	if n, evicted := b.Keys(); n != most || evicted != evictions {
		t.Errorf("%d keys, %d evicted, want %d and %d", n, evicted, most, evictions)
	}
}

func TestBucketsAllocations(t *testing.T) {
	b, err := NewBuckets(1, 1, time.Hour, 2)
	if err != nil {
		t.Fatal(err)
	}
	key, long := []byte("key"), []byte(strings.Repeat("x", 500))
	b.Of(key, 0)
	b.Of(long, 0)
	if n := testing.AllocsPerRun(100, func() { b.Of(key, 0).Take(0); b.Of(long, 0).Take(0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A token that is given back can be taken, and a full bucket takes none back.
func TestBucketGive(t *testing.T) {
	b, err := NewBucket(1, 1, time.Hour, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.Give()
	for i, want := range []bool{true, false} {
		if got := b.Take(0).OK; got != want {
			t.Errorf("take %d: %v", i, got)
		}
	}
	b.Give()
	if !b.Take(0).OK {
		t.Error("what was given back cannot be taken")
	}
}

func TestSmooth(t *testing.T) {
	f := func(tokens int, period time.Duration, fill int, interval time.Duration) {
		t.Helper()
		if gotFill, gotInterval := Smooth(tokens, period); gotFill != fill || gotInterval != interval {
			t.Errorf("%d per %v: got %d each %v, want %d each %v", tokens, period, gotFill, gotInterval, fill, interval)
		}
	}
	f(1, time.Second, 1, time.Second)
	f(5, time.Minute, 1, 12*time.Second)
	f(20, time.Second, 1, 50*time.Millisecond)
	f(30, time.Second, 2, time.Second/15)
	f(100, time.Second, 5, 50*time.Millisecond)
	f(101, time.Second, 101, time.Second)
	f(7, time.Second, 1, time.Second/7)
	f(10, 50*time.Millisecond, 10, 50*time.Millisecond)
	f(1_000_000, time.Second, 50_000, 50*time.Millisecond)
}
