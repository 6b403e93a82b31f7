package breaker

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// ring is what HystrixRollingNumber shows: the running bucket and the complete ones that share its window, from the
// first that was ever counted in.
type ring struct {
	r     rolling
	first int64 // the start of the first bucket, -1 before
}

func newRing(window int64, buckets int) *ring {
	return &ring{r: newRolling(window/int64(buckets), buckets, 0), first: -1}
}

func (g *ring) add(at int64, e Event, n int) {
	g.r.advance(at)
	for range n {
		g.r.add(set(e))
	}
	if g.first < 0 {
		g.first = g.r.next - g.r.size
	}
}

// buckets returns them, the oldest first, at the instant.
func (g *ring) buckets(at int64) (list []bucket) {
	g.r.advance(at)
	n := len(g.r.ring)
	for i := 1; i < n; i++ {
		if start := g.r.next - int64(n-i+1)*g.r.size; start >= g.first {
			list = append(list, g.r.ring[(g.r.oldest+i)%n])
		}
	}
	return append(list, g.r.running)
}

func (g *ring) sum(at int64, e Event) (n uint32) {
	for _, b := range g.buckets(at) {
		n += b.counts[e]
	}
	return n
}

func TestRollingNumber(t *testing.T) {
	t.Run("testCreatesBuckets", func(t *testing.T) {
		g := newRing(200, 10)
		for at := int64(0); at <= 200; at += 20 {
			g.add(at, Success, 1)
			if n := len(g.buckets(at)); n != min(10, int(at/20)+1) {
				t.Fatalf("at %d: %d buckets", at, n)
			}
		}
	})
	t.Run("testEmptyBucketsFillIn", func(t *testing.T) {
		g := newRing(200, 10)
		g.add(0, Success, 1)
		g.add(60, Success, 1)
		if n, sum := len(g.buckets(60)), g.sum(60, Success); n != 4 || sum != 2 {
			t.Fatalf("%d buckets, sum %d", n, sum)
		}
	})
	t.Run("testIncrementInMultipleBuckets", func(t *testing.T) {
		g := newRing(200, 10)
		count := func(at int64, s, f, tm, x int) {
			g.add(at, Success, s)
			g.add(at, Failure, f)
			g.add(at, Timeout, tm)
			g.add(at, ShortCircuited, x)
		}
		wantSums := func(at int64, want ...uint32) {
			t.Helper()
			for i, e := range []Event{Success, Failure, Timeout, ShortCircuited} {
				if n := g.sum(at, e); n != want[i] {
					t.Errorf("at %d: %d %v, want %d", at, n, e, want[i])
				}
			}
		}
		count(0, 4, 2, 2, 1)
		count(60, 2, 3, 1, 1)
		wantSums(60, 6, 5, 3, 2)
		c := g.r.running.counts
		if c[Success] != 2 || c[Failure] != 3 || c[Timeout] != 1 || c[ShortCircuited] != 1 {
			t.Errorf("last bucket %v", c)
		}
		g.add(260, Success, 1)
		wantSums(260, 1, 0, 0, 0)
	})
	t.Run("reading rolls too", func(t *testing.T) {
		g := newRing(200, 10)
		g.add(0, Success, 1)
		if n := len(g.buckets(60)); n != 4 {
			t.Errorf("%d buckets", n)
		}
		if n := g.sum(200, Success); n != 0 {
			t.Errorf("sum %d", n)
		}
	})
	t.Run("testMaxValue", func(t *testing.T) {
		g := newRing(200, 10)
		g.add(0, Success, 0)
		g.r.running.peak = 10
		g.r.advance(60)
		g.r.running.peak = 20
		var peaks []uint32
		for _, b := range g.buckets(60) {
			peaks = append(peaks, b.peak)
		}
		if !slices.Equal(peaks, []uint32{10, 0, 0, 20}) {
			t.Errorf("peaks %v", peaks)
		}
		r := newRolling(20, 10, 0)
		for i, peak := range []uint32{10, 30, 40, 15} {
			r.advance(int64(i) * 20)
			r.running.peak = peak
		}
		r.advance(80)
		if n := r.window()[CommandMaxActive]; n != 40 {
			t.Errorf("rolling maximum %d", n)
		}
	})
	t.Run("testCumulativeCounterAfterRolling", func(t *testing.T) {
		r := newRolling(10, 2, 0)
		for i := range int64(20) {
			r.advance(i * 10)
			r.add(set(Success))
			if n := r.window()[Success]; n > 2 {
				t.Fatalf("%d in the window", n)
			}
		}
		if n := r.total()[Success]; n != 20 {
			t.Fatalf("%d ever", n)
		}
		r.advance(10_000)
		if n, ever := r.window()[Success], r.total()[Success]; n != 0 || ever != 20 {
			t.Fatalf("%d in the window, %d ever", n, ever)
		}
	})
}

func TestSettingsAreChecked(t *testing.T) {
	f := func(change func(*Settings), want string) {
		t.Helper()
		s := Defaults()
		change(&s)
		err := s.Check()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want it to say %q", err, want)
		}
	}
	f(func(*Settings) {}, "")
	f(func(s *Settings) { s.RollingWindow, s.RollingBuckets = time.Second, 11 }, "metrics.rollingStats.timeInMilliseconds is 1000: it must be a multiple of metrics.rollingStats.numBuckets, 11")
	f(func(s *Settings) { s.RollingBuckets = 0 }, "metrics.rollingStats.numBuckets is 0")
	f(func(s *Settings) { s.PercentileBuckets = 7 }, "metrics.rollingPercentile.timeInMilliseconds is 60000")
	f(func(s *Settings) { s.PercentileBuckets, s.PercentileEnabled = 7, false }, "")
	f(func(s *Settings) { s.PercentileBucketSize = 0 }, "metrics.rollingPercentile.bucketSize is 0")
	f(func(s *Settings) { s.PercentileBucketSize = 1e6 }, "metrics.rollingPercentile.bucketSize is 1000000")
	f(func(s *Settings) { s.HealthInterval = 0 }, "metrics.healthSnapshot.intervalInMilliseconds is 0")
	f(func(s *Settings) { s.HealthInterval = 11 * time.Second }, "metrics.rollingStats.timeInMilliseconds is 10000: it must be at least metrics.healthSnapshot.intervalInMilliseconds, 11000")
	f(func(s *Settings) { s.RollingWindow, s.HealthInterval = time.Hour, time.Millisecond }, "at most 100000 are kept")
	f(func(s *Settings) { s.ErrorThresholdPercentage = 101 }, "circuitBreaker.errorThresholdPercentage is 101")
	f(func(s *Settings) { s.ErrorThresholdPercentage = -1 }, "circuitBreaker.errorThresholdPercentage is -1")
	f(func(s *Settings) { s.RequestVolumeThreshold = -1 }, "circuitBreaker.requestVolumeThreshold is -1")
	f(func(s *Settings) { s.SleepWindow = -time.Millisecond }, "circuitBreaker.sleepWindowInMilliseconds is -1")
	f(func(s *Settings) { s.MaxConcurrent = -1 }, "execution.isolation.semaphore.maxConcurrentRequests is -1")
	f(func(s *Settings) { s.FallbackMaxConcurrent = -1 }, "fallback.isolation.semaphore.maxConcurrentRequests is -1")
	f(func(s *Settings) { s.Timeout = 0 }, "execution.isolation.thread.timeoutInMilliseconds is 0")
	f(func(s *Settings) { s.Timeout, s.TimeoutEnabled = 0, false }, "")
}

func TestPercentiles(t *testing.T) {
	f := func(values []int32, p float64, want int) {
		t.Helper()
		sorted := slices.Sorted(slices.Values(values))
		if got := percentile(sorted, p); got != want {
			t.Errorf("%v at %v %%: %d, want %d", values, p, got, want)
		}
	}
	four := []int32{10, 30, 20, 40}
	f(four, 30, 22)
	f(four, 25, 20)
	f(four, 50, 30)
	f(four, 75, 40)
	f(four, -1, 10)
	f(four, 101, 40)
	f([]int32{1, 2, 3}, 50, 2)
	f([]int32{1, 2, 3}, 75, 3)
	f([]int32{1, 2}, 25, 1)
	f([]int32{1, 2}, 75, 2)
	f(nil, 50, 0)
	many := []int32{50, 75, 100, 125, 160, 170, 180, 200, 210, 300, 500}
	for range 5 {
		rand.Shuffle(len(many), func(i, j int) { many[i], many[j] = many[j], many[i] })
		f(many, 50, 175)
	}
	nist := []int32{951772, 951567, 951937, 951959, 951442, 950610, 951591, 951195, 951772, 950925, 951990, 951682}
	f(nist, 90, 951983)
	f(nist, 100, 951990)
}

func TestSamples(t *testing.T) {
	take := func(s *samples, list ...int64) {
		for _, d := range list {
			s.add(d*ms, 2*d*ms)
		}
	}
	read := func(s *samples, at int64) Latency {
		s.advance(at * ms)
		return newLatency(ran(t, s))
	}
	median := func(l Latency) int { return l.At[2] }

	s := newSamples(5000*ms, 12, 1000, 0)
	take(&s, 1000, 1000, 1000, 2000)
	if got := median(read(&s, 0)); got != 0 {
		t.Errorf("the running bucket is seen: %d", got)
	}
	if got := median(read(&s, 6000)); got != 1000 {
		t.Errorf("%d, want 1000", got)
	}

	s = newSamples(5000*ms, 12, 1000, 0)
	take(&s, 1000, 1000, 1000, 2000, 4000)
	if got := median(read(&s, 6000)); got != 1500 {
		t.Errorf("%d, want 1500", got)
	}
	if got := read(&s, 66_000); got != (Latency{}) {
		t.Errorf("after the window: %+v", got)
	}

	s = newSamples(5000*ms, 12, 1000, 0)
	take(&s, 1000, 1000, 1000, 2000, 1000, 500, 200, 200, 1600, 200, 1600, 1600)
	if got := read(&s, 5000).Mean; got != 991 {
		t.Errorf("mean %d, want 991", got)
	}

	s = newSamples(10*ms, 2, 3, 0) // a full bucket overwrites
	take(&s, 1, 2, 3, 4, 5)
	if got := slices.Sorted(slices.Values(func() []int32 { s.advance(10 * ms); return ran(t, &s) }())); !slices.Equal(got, []int32{3, 4, 5}) {
		t.Errorf("kept %v", got)
	}
	s.advance(29 * ms)
	if n := len(ran(t, &s)); n != 3 {
		t.Errorf("%d samples in the last millisecond of the window", n)
	}
	s.advance(30 * ms)
	if n := len(ran(t, &s)); n != 0 {
		t.Errorf("%d samples after the window", n)
	}
}

// ran returns what executions ran by s, whose commands all took twice as long.
func ran(t *testing.T, s *samples) []int32 {
	t.Helper()
	all := s.collect(nil)
	executions, commands := all[:len(all)/2], all[len(all)/2:]
	for i, d := range executions {
		if commands[i] != 2*d {
			t.Errorf("executions ran %v, commands took %v", executions, commands)
			break
		}
	}
	return executions
}

func TestLatencies(t *testing.T) {
	s := unitSettings()
	s.PercentileWindow, s.PercentileBuckets, s.ForceClosed = time.Second, 10, true
	r := newRig(t, s)
	c := r.begin(10)
	c.End(Failed, 40*ms)
	c.Fallback()
	c.EndFallback(true)
	c.Close(90 * ms)
	if got := r.look(99); got.Execution != (Latency{}) {
		t.Errorf("the running bucket is seen: %+v", got.Execution)
	}
	got := r.look(100)
	if got.Execution.Mean != 30 || got.Execution.At[8] != 30 || got.Command.Mean != 80 || got.Command.At[0] != 80 {
		t.Errorf("%+v, %+v", got.Execution, got.Command)
	}
	if got := r.look(1100); got.Command != (Latency{}) {
		t.Errorf("after the window: %+v", got.Command)
	}
	r.b.Admit(c, 1110*ms) // the ticket again, and nobody says when the execution ends
	c.Close(1180 * ms)
	if got := r.look(1200); got.Execution.Mean != 70 || got.Command.Mean != 70 {
		t.Errorf("%+v, %+v", got.Execution, got.Command)
	}
	s.PercentileEnabled = false
	r.b.Configure(s, 1200*ms)
	r.run(1200, "SF")
	got = r.look(2400)
	for _, l := range []Latency{got.Execution, got.Command} {
		if l.Mean != -1 || slices.ContainsFunc(l.At[:], func(n int) bool { return n != -1 }) {
			t.Errorf("disabled: %+v", l)
		}
	}
}

// TestSamplesAgainstAll keeps every sample in a plain list, and wants the window to hold the right ones.
func TestSamplesAgainstAll(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 4))
		size, buckets, keep := 1+r.Int64N(20), 1+r.IntN(6), 1+r.IntN(5)
		s := newSamples(size, buckets, keep, 0)
		all := map[int64][]int32{} // by bucket
		now := int64(0)
		for range 300 {
			now += r.Int64N(5)
			if r.IntN(20) == 0 {
				now += r.Int64N(3 * size * int64(buckets))
			}
			s.advance(now)
			d := r.Int64N(1000)
			s.add(d*ms, 2*d*ms)
			all[now/size] = append(all[now/size], int32(d))
			var want []int32
			for b := now/size - int64(buckets); b < now/size; b++ {
				list := all[b]
				want = append(want, list[max(0, len(list)-keep):]...)
			}
			got := ran(t, &s)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d at %d: %v, want %v", seed, now, got, want)
			}
		}
	}
}

// A duration is in the first bucket whose bound it does not exceed, whichever bound it is near.
func TestBuckets(t *testing.T) {
	f := func(d int64) {
		t.Helper()
		want, _ := slices.BinarySearch(nanoBounds[:], d)
		if got := bucketOf(d); got != want {
			t.Errorf("%d ns is put into bucket %d, want %d", d, got, want)
		}
	}
	for _, bound := range nanoBounds {
		for d := bound - 2; d <= bound+2; d++ {
			f(d)
		}
	}
	for n := range 63 {
		f(1<<n - 1)
		f(1 << n)
	}
	f(math.MaxInt64)
}
