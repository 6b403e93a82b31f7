// Package feed carries snapshots from who publishes them to the proxies that run them, and the proxies' answers back.
//
// It is level-triggered: a subscriber is told that something is new, not what; it asks for the latest, whole. A
// snapshot that was overtaken while the proxy was busy is never seen. In one process a snapshot passes as a pointer.
package feed

import (
	"context"
	"sync"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Feed holds the latest snapshot of every key and who follows it. A key names one proxy: "default/reviews-v1/reviews-v1-0".
type Feed struct {
	mu     sync.Mutex
	topics map[string]*topic
	// answered is closed and replaced at each answer and each departure, for Wait.
	answered chan struct{}
}

// topic is one key's state. It is there while it has a snapshot or a subscriber.
type topic struct {
	latest      *model.Snapshot
	subscribers []*Subscription
}

// New returns an empty Feed.
func New() *Feed {
	return &Feed{topics: map[string]*topic{}, answered: make(chan struct{})}
}

// Publish makes s, which is sealed, the latest snapshot of key. It returns false, and tells nobody, where the latest
// has the same version already.
func (f *Feed) Publish(key string, s *model.Snapshot) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.topic(key)
	if t.latest != nil && t.latest.Version == s.Version {
		return false
	}
	t.latest = s
	for _, sub := range t.subscribers {
		sub.wake()
	}
	return true
}

// Withdraw forgets the snapshot of key. Its subscribers keep what they run.
func (f *Feed) Withdraw(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.topics[key]
	if t == nil {
		return
	}
	t.latest = nil
	f.sweep(key)
	f.wakeWaiters()
}

// Latest returns the latest snapshot of key, nil where there is none.
func (f *Feed) Latest(key string) *model.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.topics[key]; t != nil {
		return t.latest
	}
	return nil
}

// Subscribe follows key from its latest snapshot on, whether or not there is one yet.
func (f *Feed) Subscribe(key string) *Subscription {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.topic(key)
	s := &Subscription{feed: f, key: key, c: make(chan struct{}, 1)}
	t.subscribers = append(t.subscribers, s)
	if t.latest != nil {
		s.wake()
	}
	return s
}

// Status is how the followers of one key stand.
type Status struct {
	// Published is the version of the latest snapshot, "" where there is none.
	Published string
	// Running is the version that the follower acknowledged last: what it runs. "" where it runs nothing.
	Running string
	// Refused is the version that the follower refused, where it refused the latest; Reason says why.
	Refused, Reason string
}

// Status tells how key stands. Where several follow it, the one that is furthest behind is told of.
func (f *Feed) Status(key string) Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.topics[key]
	if t == nil {
		return Status{}
	}
	var st Status
	if t.latest != nil {
		st.Published = t.latest.Version
	}
	for _, s := range t.subscribers {
		st.Running, st.Refused, st.Reason = s.acked, s.refused, s.reason
		if s.acked != st.Published {
			break
		}
	}
	return st
}

// Wait returns once every follower of every key has answered the latest snapshot of its key, with an ack or a nack, or
// with ctx's error. A key that nobody follows does not hold it up.
func (f *Feed) Wait(ctx context.Context, keys ...string) error {
	for {
		f.mu.Lock()
		settled := true
		for _, key := range keys {
			settled = settled && f.settled(key)
		}
		answered := f.answered
		f.mu.Unlock()
		if settled {
			return nil
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *Feed) settled(key string) bool {
	t := f.topics[key]
	if t == nil || t.latest == nil {
		return true
	}
	for _, s := range t.subscribers {
		if s.acked != t.latest.Version && s.refused != t.latest.Version {
			return false
		}
	}
	return true
}

func (f *Feed) topic(key string) *topic {
	t := f.topics[key]
	if t == nil {
		t = &topic{}
		f.topics[key] = t
	}
	return t
}

func (f *Feed) sweep(key string) {
	if t := f.topics[key]; t.latest == nil && len(t.subscribers) == 0 {
		delete(f.topics, key)
	}
}

func (f *Feed) wakeWaiters() {
	close(f.answered)
	f.answered = make(chan struct{})
}

// Subscription is one follower of one key. Its methods may be called from any goroutine.
type Subscription struct {
	feed *Feed
	key  string
	c    chan struct{} // one slot: full means that there may be something new

	// Held under feed.mu.
	acked, refused, reason string
	closed                 bool
}

// C receives when there may be a newer snapshot than Latest returned last.
func (s *Subscription) C() <-chan struct{} { return s.c }

// Latest returns the latest snapshot, nil where there is none.
func (s *Subscription) Latest() *model.Snapshot { return s.feed.Latest(s.key) }

// Ack says that the follower now runs the snapshot of that version.
func (s *Subscription) Ack(version string) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.acked, s.refused, s.reason = version, "", ""
	s.feed.wakeWaiters()
}

// Nack says that the follower refused the snapshot of that version and runs what it ran before.
func (s *Subscription) Nack(version, reason string) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.refused, s.reason = version, reason
	s.feed.wakeWaiters()
}

// Close ends the subscription. C receives nothing more; closing twice does nothing.
func (s *Subscription) Close() {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	t := f.topics[s.key]
	for i, other := range t.subscribers {
		if other == s {
			t.subscribers = append(t.subscribers[:i:i], t.subscribers[i+1:]...)
			break
		}
	}
	f.sweep(s.key)
	f.wakeWaiters()
}

func (s *Subscription) wake() {
	select {
	case s.c <- struct{}{}:
	default:
	}
}
