package limit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const sec = int64(time.Second)

func TestCount(t *testing.T) {
	c := NewCount(2)
	first, second, third := c.Take(), c.Take(), c.Take()
	if !first || !second || third || c.Overflows() != 1 || c.Current() != 2 {
		t.Errorf("%+v", c)
	}
	c.Configure(3)
	if !c.Take() || c.Take() || c.Current() != 3 {
		t.Errorf("there is room for one more: %+v", c)
	}
	c.Configure(1)
	if c.Take() {
		t.Error("there is no room")
	}
	for range 3 {
		c.Give()
	}
	if c.Current() != 0 || !c.Take() {
		t.Error("there is room again")
	}
	if NewCount(0).Take() || !NewCount(Unlimited).Take() {
		t.Error("the ends")
	}
}

func TestCountNeverOvershoots(t *testing.T) {
	c := NewCount(3)
	var running, most atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5000 {
				if !c.Take() {
					continue
				}
				n := running.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				running.Add(-1)
				c.Give()
			}
		})
	}
	all.Wait()
	if most.Load() > 3 || c.Current() != 0 {
		t.Errorf("%d at once, %d are left", most.Load(), c.Current())
	}
}

func TestGate(t *testing.T) {
	x, y := new(int), new(int) // what is waited for
	place := func(what any) *Place { return &Place{For: what} }
	a, b, c, d := place(x), place(y), place(x), place(y)
	g := NewGate(1)
	if g.Room(0) != true || !g.Enter() || g.Enter() || g.Room(0) || !g.Room(1) || g.Excess() || g.Admit() != nil {
		t.Error("the first")
	}
	for _, p := range []*Place{a, b, c} {
		g.Add(p)
	}
	g.AddFirst(d)
	if g.Len() != 4 || !g.Remove(b) || g.Remove(b) || g.Len() != 3 {
		t.Error("the line")
	}
	g.Leave()
	if g.Enter() {
		t.Error("nobody overtakes")
	}
	if p := g.Admit(); p != d || g.Admit() != nil || g.Inside() != 1 {
		t.Error("who was put first is first")
	}
	if g.PopFor(y) != nil || g.PopFor(x) != a || g.Len() != 1 || g.Inside() != 1 {
		t.Error("taking out lets nobody in")
	}
	g.Force(2)
	g.Leave()
	if !g.Excess() || g.Admit() != nil || g.Inside() != 2 {
		t.Error("what was forced is no room")
	}
	g.Configure(3)
	if g.Excess() || g.Admit() != c || g.Admit() != nil || g.Pop() != nil || g.Inside() != 3 || g.Most() != 3 {
		t.Error("there is more room")
	}
	g.Configure(1)
	for range 3 {
		g.Leave()
	}
	if g.Inside() != 0 || !g.Enter() || g.Enter() {
		t.Errorf("%d are inside", g.Inside())
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}} { // from any place in the line
		var l Line
		ps := []*Place{place(x), place(x), place(x)}
		for _, p := range ps {
			l.Add(p)
		}
		for _, i := range order {
			if !l.Remove(ps[i]) {
				t.Fatalf("%v", order)
			}
		}
		if l.Len() != 0 || l.Pop() != nil {
			t.Errorf("%v: something is left", order)
		}
	}
}

// TestLineAgainstPlain does the same to a line and to a slice.
func TestLineAgainstPlain(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 7))
		var l Line
		var want []*Place
		out := []*Place{}
		for i := range 6 {
			out = append(out, &Place{For: i % 2})
		}
		for range 400 {
			var got, expected *Place
			switch r.IntN(5) {
			case 0, 1:
				if len(out) == 0 {
					continue
				}
				p := out[0]
				out = out[1:]
				if r.IntN(2) == 0 {
					l.Add(p)
					want = append(want, p)
				} else {
					l.AddFirst(p)
					want = slices.Insert(want, 0, p)
				}
				continue
			case 2:
				got = l.Pop()
				if len(want) > 0 {
					expected = want[0]
				}
			case 3:
				what := r.IntN(2)
				got = l.PopFor(what)
				if i := slices.IndexFunc(want, func(p *Place) bool { return p.For == what }); i >= 0 {
					expected = want[i]
				}
			case 4:
				if len(want) == 0 {
					continue
				}
				expected = want[r.IntN(len(want))]
				if l.Remove(expected) {
					got = expected
				}
			}
			if got != expected {
				t.Fatalf("seed %d: %p, want %p", seed, got, expected)
			}
			if expected != nil {
				want = slices.DeleteFunc(want, func(p *Place) bool { return p == expected })
				out = append(out, expected)
			}
			if l.Len() != len(want) {
				t.Fatalf("seed %d: %d wait, want %d", seed, l.Len(), len(want))
			}
		}
	}
}

func TestBudget(t *testing.T) {
	f := func(percent float64, least uint32, requests, want int) {
		t.Helper()
		if n := NewBudget(percent, least).Most(requests); n != uint32(want) {
			t.Errorf("%v %% of %d, at least %d: %d retries, want %d", percent, requests, least, n, want)
		}
	}
	f(20, 3, 0, 3)
	f(20, 3, 15, 3)
	f(20, 3, 19, 3)
	f(20, 3, 20, 4)
	f(20, 3, 104, 20)
	f(20, 3, 105, 21)
	f(0, 0, 1000, 0)
	f(100, 0, 7, 7)
	f(0.2, 0, 500, 1)
	f(33.3, 0, 10, 3)
	f(-1, 1, 10, 1)
	f(100, 0, math.MaxInt>>20, Unlimited)
	f(0, Unlimited, 5, Unlimited)
	b := NewBudget(20, 1)
	b.Configure(100, 0)
	if n := b.Most(3); n != 3 {
		t.Errorf("%d retries of 3 requests, want all", n)
	}
}

func TestAllowance(t *testing.T) {
	allowance := func(ratio, perSecond float64, ttl time.Duration) *Allowance {
		t.Helper()
		a, err := NewAllowance(ratio, perSecond, ttl, 0)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	spend := func(a *Allowance, now int64) (n int) {
		for a.Retry(now) {
			n++
		}
		return n
	}
	if n := spend(allowance(0.2, 10, 10*time.Second), 0); n != 100 {
		t.Errorf("the reserve is %d", n)
	}
	a := allowance(0.2, 0, 10*time.Second)
	for i := range 24 {
		a.Request(int64(i))
	}
	if n := spend(a, 30); n != 4 {
		t.Errorf("24 requests allow %d", n)
	}
	a.Request(31)
	if n := spend(a, 31); n != 1 { // 0.8 was left
		t.Errorf("the fifth: %d", n)
	}
	for now, want := range map[int64]int{10*sec - 1: 5, 10 * sec: 0} {
		a = allowance(0.5, 0, 10*time.Second)
		for range 10 {
			a.Request(0)
		}
		if n := spend(a, now); n != want {
			t.Errorf("after %v: %d, want %d", time.Duration(now), n, want)
		}
	}
	a = allowance(0, 1, time.Second)
	if !a.Retry(0) || a.Retry(999*sec/1000) || !a.Retry(sec) {
		t.Error("one a second")
	}
	a = allowance(3, 0, time.Second)
	a.Request(0)
	if n := spend(a, 0); n != 3 {
		t.Errorf("%d for one request", n)
	}
	if n := spend(a, 1000*sec); n != 0 {
		t.Errorf("%d after long", n)
	}
	for _, bad := range []func() (*Allowance, error){
		func() (*Allowance, error) { return NewAllowance(-1, 0, time.Second, 0) },
		func() (*Allowance, error) { return NewAllowance(1001, 0, time.Second, 0) },
		func() (*Allowance, error) { return NewAllowance(0, -1, time.Second, 0) },
		func() (*Allowance, error) { return NewAllowance(0, 0, time.Millisecond, 0) },
		func() (*Allowance, error) { return NewAllowance(0, 0, 2*time.Hour, 0) },
	} {
		if _, err := bad(); err == nil {
			t.Error("it is taken")
		}
	}
}

// TestAllowanceAgainstPlain sums up all that was deposited and spent within the ttl, slot by slot.
func TestAllowanceAgainstPlain(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 8))
		a, err := NewAllowance(0.25, float64(r.IntN(3)), time.Duration(1+r.IntN(10))*time.Second, 0)
		if err != nil {
			t.Fatal(err)
		}
		slots := map[int64]int64{}
		now := int64(0)
		for range 500 {
			now += r.Int64N(a.size)
			if r.IntN(50) == 0 {
				now += r.Int64N(20 * sec)
			}
			slot := now / a.size
			sum := a.reserve
			for i := slot - 9; i <= slot; i++ {
				sum += slots[i]
			}
			if r.IntN(2) == 0 {
				a.Request(now)
				slots[slot] += 250
				continue
			}
			got, want := a.Retry(now), sum >= 1000
			if got != want {
				t.Fatalf("seed %d at %d: %v, want %v: %d", seed, now, got, want, sum)
			}
			if want {
				slots[slot] -= 1000
			}
		}
	}
}

func TestBucket(t *testing.T) {
	bucket := func(size, fill int, interval time.Duration) *Bucket {
		t.Helper()
		b, err := NewBucket(size, fill, interval, 0)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := bucket(3, 1, time.Second)
	want := func(now int64, want Facts) {
		t.Helper()
		if got := b.Take(now); got != want {
			t.Errorf("at %v: %+v, want %+v", time.Duration(now), got, want)
		}
	}
	want(0, Facts{OK: true, Limit: 3, Remaining: 2, Reset: time.Second})
	want(sec/4, Facts{OK: true, Limit: 3, Remaining: 1, Reset: 3 * time.Second / 4})
	want(sec/4, Facts{OK: true, Limit: 3, Remaining: 0, Reset: 3 * time.Second / 4})
	want(sec/2, Facts{Limit: 3, Reset: time.Second / 2, Retry: time.Second / 2})
	want(sec-1, Facts{Limit: 3, Reset: 1, Retry: 1})
	want(sec, Facts{OK: true, Limit: 3, Remaining: 0, Reset: time.Second})
	want(sec, Facts{Limit: 3, Reset: time.Second, Retry: time.Second})
	want(3*sec, Facts{OK: true, Limit: 3, Remaining: 1, Reset: time.Second})
	want(1000*sec+1, Facts{OK: true, Limit: 3, Remaining: 2, Reset: time.Second - 1}) // full, no more
	b = bucket(2, 100, time.Second)
	want(5*sec, Facts{OK: true, Limit: 2, Remaining: 1, Reset: time.Second})
	for d, want := range map[time.Duration]int{0: 0, 1: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90} {
		if got := Seconds(d); got != want {
			t.Errorf("%v: %d", d, got)
		}
	}
	for why, f := range map[string]func() (*Bucket, error){
		"0 tokens":            func() (*Bucket, error) { return NewBucket(0, 1, time.Second, 0) },
		"filled in":           func() (*Bucket, error) { return NewBucket(1, 0, time.Second, 0) },
		"must be at least 50": func() (*Bucket, error) { return NewBucket(1, 1, time.Millisecond, 0) },
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v does not say %q", err, why)
		}
	}
}

// Over any time, no more is let through than the bucket holds and is filled in.
func TestBucketKeepsTheRate(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 9))
		size, fill, interval := 1+r.IntN(20), 1+r.IntN(20), time.Duration(50+r.IntN(1000))*time.Millisecond
		b, err := NewBucket(size, fill, interval, 0)
		if err != nil {
			t.Fatal(err)
		}
		tokens, filled, now := size, int64(0), int64(0)
		for range 1000 {
			now += r.Int64N(int64(interval) / 4)
			if r.IntN(100) == 0 {
				now += r.Int64N(20 * sec)
			}
			for ; filled < now/int64(interval); filled++ {
				tokens = min(size, tokens+fill)
			}
			got := b.Take(now)
			if got.OK != (tokens > 0) {
				t.Fatalf("seed %d at %d: %+v with %d tokens", seed, now, got, tokens)
			}
			if got.OK {
				tokens--
			}
			if got.Remaining != tokens {
				t.Fatalf("seed %d at %d: %+v with %d tokens", seed, now, got, tokens)
			}
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	bucket, err := NewBucket(1000, 1, time.Hour, 0)
	if err != nil {
		t.Fatal(err)
	}
	allowance, err := NewAllowance(0, 20, 10*time.Second, 0)
	if err != nil {
		t.Fatal(err)
	}
	var tokens, retries atomic.Int64
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for range 1000 {
				if bucket.Take(1).OK {
					tokens.Add(1)
				}
				if allowance.Retry(1) {
					retries.Add(1)
				}
			}
		})
	}
	all.Wait()
	if got := fmt.Sprint(tokens.Load(), retries.Load()); got != "1000 200" {
		t.Error(got)
	}
}

func TestNoGarbage(t *testing.T) {
	c := NewCount(10)
	g := NewGate(1)
	p, q := &Place{For: c}, &Place{For: g}
	a, _ := NewAllowance(0.2, 10, 10*time.Second, 0)
	k, _ := NewBucket(10, 10, time.Second, 0)
	now := int64(0)
	if n := testing.AllocsPerRun(2000, func() {
		now += sec / 3
		if c.Take() {
			c.Give()
		}
		g.Enter()
		g.Add(p)
		g.Add(q)
		g.PopFor(g)
		g.Leave()
		g.Admit()
		g.Leave()
		a.Request(now)
		a.Retry(now)
		k.Take(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
