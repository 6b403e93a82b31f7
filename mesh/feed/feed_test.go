package feed

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func snapshot(instance string) *model.Snapshot {
	return model.Seal(&model.Snapshot{Workload: model.Workload{Instance: instance}})
}

func full(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestPublishTellsOnceAndLatestIsWhole(t *testing.T) {
	f := New()
	s := f.Subscribe("a")
	defer s.Close()
	if full(s.C()) || s.Latest() != nil {
		t.Fatal("a key without a snapshot must say nothing")
	}
	one, two := snapshot("1"), snapshot("2")
	if !f.Publish("a", one) || !f.Publish("a", two) {
		t.Fatal("Publish must say that something is new")
	}
	if !full(s.C()) || full(s.C()) {
		t.Fatal("two publications must leave one sign")
	}
	if s.Latest() != two {
		t.Fatal("Latest must be the newest, the very pointer")
	}
	if f.Publish("a", snapshot("2")) || full(s.C()) {
		t.Fatal("an equal version must tell nobody")
	}
	late := f.Subscribe("a")
	defer late.Close()
	if !full(late.C()) || late.Latest() != two {
		t.Fatal("a late subscriber must be told of what is there")
	}
}

func TestKeysAreApart(t *testing.T) {
	f := New()
	a, b := f.Subscribe("a"), f.Subscribe("b")
	f.Publish("a", snapshot("1"))
	if !full(a.C()) || full(b.C()) || b.Latest() != nil {
		t.Fatal("a snapshot must reach its own key only")
	}
	f.Withdraw("a")
	f.Withdraw("a")
	if a.Latest() != nil {
		t.Fatal("a withdrawn snapshot must be gone")
	}
	a.Close()
	b.Close()
	b.Close()
	if len(f.topics) != 0 {
		t.Fatalf("%d keys left that nobody uses", len(f.topics))
	}
}

func TestAnswers(t *testing.T) {
	f := New()
	s := f.Subscribe("a")
	defer s.Close()
	one, two := snapshot("1"), snapshot("2")
	f.Publish("a", one)
	if got := f.Status("a"); got != (Status{Published: one.Version}) {
		t.Fatalf("before an answer: %+v", got)
	}
	s.Ack(one.Version)
	if got := f.Status("a"); got != (Status{Published: one.Version, Running: one.Version}) {
		t.Fatalf("after an ack: %+v", got)
	}
	f.Publish("a", two)
	s.Nack(two.Version, "port taken")
	if got := f.Status("a"); got != (Status{Published: two.Version, Running: one.Version, Refused: two.Version, Reason: "port taken"}) {
		t.Fatalf("after a nack: %+v", got)
	}
	if got := f.Status("nobody"); got != (Status{}) {
		t.Fatalf("a key that is not there: %+v", got)
	}
}

func TestWait(t *testing.T) {
	f := New()
	ctx := context.Background()
	a, b := f.Subscribe("a"), f.Subscribe("b")
	defer b.Close()
	one := snapshot("1")
	f.Publish("a", one)
	f.Publish("b", one)
	f.Publish("nobody", one)
	if err := f.Wait(ctx, "nobody", "never seen"); err != nil {
		t.Fatal("a key that nobody follows must not hold Wait up")
	}
	ended, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := f.Wait(ended, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait without an answer: %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b.Nack(one.Version, "no")
		a.Close() // who left will not answer
	})
	if err := f.Wait(ctx, "a", "b"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestManyAtOnce(t *testing.T) {
	f := New()
	final := snapshot("final")
	var wg sync.WaitGroup
	for range 8 {
		s := f.Subscribe("a")
		wg.Go(func() {
			defer s.Close()
			for range s.C() {
				if latest := s.Latest(); latest != nil {
					s.Ack(latest.Version)
					if latest == final {
						return
					}
				}
			}
		})
	}
	for i := range 200 {
		f.Publish("a", snapshot(string(rune('a'+i%26))))
	}
	f.Publish("a", final)
	if err := f.Wait(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}
