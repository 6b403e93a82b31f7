package outlier

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const sec = int64(time.Second)

// pool makes a detector with hosts named 0, 1, 2, ...
func pool(t *testing.T, s Settings, hosts int) (*Detector, []*Host) {
	t.Helper()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	d := New(s, 0)
	var list []*Host
	for i := range hosts {
		list = append(list, d.Add(fmt.Sprint(i)))
	}
	return d, list
}

func all(change func(*Settings)) Settings {
	s := Defaults()
	s.MaxEjectionPercent = 100
	change(&s)
	return s
}

func as(*Settings) {}

// fail reports n answers with the status and returns the last one's consequence; the others must have none.
func fail(t *testing.T, h *Host, status, n int, now int64) (c Change) {
	t.Helper()
	for i := range n {
		if c = h.Answered(status, now); c.Action != Nothing && i < n-1 {
			t.Fatalf("%+v after %d of %d", c, i+1, n)
		}
	}
	return c
}

func TestConsecutive5xx(t *testing.T) {
	d, h := pool(t, all(as), 3)
	fail(t, h[0], 500, 4, 1)
	h[0].Answered(200, 1)
	fail(t, h[0], 500, 4, 1)
	h[0].Answered(404, 1) // no error, so it ends the row too
	if c := fail(t, h[0], 500, 5, 7); c != (Change{Host: h[0], Action: Ejected, Reason: Consecutive5xx, At: 7, Time: 30 * time.Second, Ejections: 1}) {
		t.Errorf("%+v", c)
	}
	if !h[0].Ejected() || h[1].Ejected() {
		t.Error("not the one that failed")
	}
	if c := fail(t, h[0], 500, 20, 8); c.Action != Nothing {
		t.Errorf("an ejected host: %+v", c)
	}
	if s := d.Stats(); s != (Stats{Active: 1, Hosts: 3, Detected: [ReasonCount]uint64{1, 0, 0}, Enforced: [ReasonCount]uint64{1, 0, 0}}) {
		t.Errorf("%+v", s)
	}
	_, h = pool(t, all(func(s *Settings) { s.Consecutive5xx = 0 }), 1)
	if fail(t, h[0], 500, 100, 1); h[0].Ejected() {
		t.Error("it is off")
	}
}

func TestGatewayErrors(t *testing.T) {
	s := all(func(s *Settings) { s.ConsecutiveGateway, s.Consecutive5xx = 3, 5 })
	for _, status := range []int{502, 503, 504} {
		_, h := pool(t, s, 1)
		if c := fail(t, h[0], status, 3, 1); c.Action != Ejected || c.Reason != ConsecutiveGatewayFailure {
			t.Errorf("%d: %+v", status, c)
		}
	}
	_, h := pool(t, s, 1)
	fail(t, h[0], 503, 2, 1)
	fail(t, h[0], 500, 1, 1) // another 5xx ends the gateway's row, not its own
	fail(t, h[0], 503, 1, 1)
	if c := h[0].Answered(503, 1); c.Reason != Consecutive5xx || c.Action != Ejected {
		t.Errorf("%+v", c)
	}
	_, h = pool(t, all(func(s *Settings) { s.ConsecutiveGateway = 5 }), 1)
	if c := fail(t, h[0], 503, 5, 1); c.Reason != ConsecutiveGatewayFailure {
		t.Errorf("both are due: %+v", c)
	}
}

func TestLocalOrigin(t *testing.T) {
	d, h := pool(t, all(func(s *Settings) { s.ConsecutiveGateway = 2 }), 1)
	h[0].Failed(1)
	h[0].Connected() // means nothing without split
	if c := h[0].TimedOut(1); c.Action != Ejected || c.Reason != ConsecutiveGatewayFailure {
		t.Errorf("%+v, %+v", c, d.Stats())
	}

	_, h = pool(t, all(func(s *Settings) { s.Split, s.ConsecutiveLocalOrigin, s.Consecutive5xx = true, 3, 3 }), 1)
	for range 3 {
		h[0].Failed(1)
		h[0].TimedOut(1)
		h[0].Connected()
		h[0].Answered(500, 1)
		h[0].Answered(200, 1)
	}
	h[0].Failed(1)
	h[0].TimedOut(1)
	h[0].Answered(500, 1) // of neither concern to the other
	h[0].Answered(500, 1)
	if h[0].Ejected() {
		t.Error("too early")
	}
	if c := h[0].Failed(1); c.Action != Ejected || c.Reason != ConsecutiveLocalOriginFailure {
		t.Errorf("%+v", c)
	}
	_, h = pool(t, all(func(s *Settings) { s.Split = true }), 1)
	if c := fail(t, h[0], 500, 5, 1); c.Reason != Consecutive5xx {
		t.Errorf("%+v", c)
	}
}

// The status that counts, by the answer's and whether the codes have it, as Envoy's router reports it.
func TestCodes(t *testing.T) {
	s := Defaults()
	if got := s.rules().grade(503); got != 503 {
		t.Errorf("without codes: %d", got)
	}
	for _, status := range []int{429, 300, 503} {
		if err := s.Codes.Add(status); err != nil {
			t.Fatal(err)
		}
	}
	for status, want := range map[int]int{429: 500, 300: 500, 503: 503, 500: 200, 404: 200, 200: 200, -1: 200, 999: 200} {
		if got := s.rules().grade(status); got != want {
			t.Errorf("%d counts as %d, want %d", status, got, want)
		}
	}
	if s.Codes.Add(600) == nil || s.Codes.Add(99) == nil {
		t.Error("no statuses")
	}
	s.MaxEjectionPercent = 100
	_, h := pool(t, s, 1)
	fail(t, h[0], 500, 100, 1)
	if c := fail(t, h[0], 429, 5, 1); c.Action != Ejected {
		t.Errorf("%+v", c)
	}
	for code, want := range map[int]int{0: 200, 1: 499, 4: 504, 12: 501, 13: 500, 14: 503, 16: 401, 17: 500, -1: 500} {
		if got := HTTPStatus(code); got != want {
			t.Errorf("gRPC %d is %d, want %d", code, got, want)
		}
	}
}

// The hosts that may be ejected at once: with fewer than ten and the default of 10 %, none.
func TestMaxEjectionPercent(t *testing.T) {
	for _, c := range []struct{ percent, hosts, want int }{
		{10, 2, 0},
		{10, 5, 0},
		{10, 9, 0},
		{10, 10, 1},
		{10, 12, 1},
		{10, 19, 1},
		{10, 20, 2},
		{50, 3, 1},
		{34, 3, 1},
		{33, 3, 0},
		{100, 1, 1},
		{100, 7, 7},
		{0, 100, 0},
		{99, 100, 99},
		{49, 2, 0},
		{50, 2, 1},
	} {
		s := all(func(s *Settings) { s.MaxEjectionPercent = c.percent })
		d, list := pool(t, s, c.hosts)
		for _, h := range list {
			fail(t, h, 500, 5, 1)
		}
		st := d.Stats()
		if st.Active != c.want || s.Most(c.hosts) != c.want || st.Overflow != uint64(c.hosts-c.want) || st.Detected[0] != uint64(c.hosts) {
			t.Errorf("%d %% of %d hosts: %+v, Most says %d, want %d", c.percent, c.hosts, st, s.Most(c.hosts), c.want)
		}
		s.AlwaysOne = true
		d, list = pool(t, s, c.hosts)
		for _, h := range list {
			fail(t, h, 500, 5, 1)
		}
		if st := d.Stats(); st.Active != max(1, c.want) || s.Most(c.hosts) != max(1, c.want) {
			t.Errorf("%d %% of %d hosts, at least one: %+v", c.percent, c.hosts, st)
		}
	}
	_, list := pool(t, Defaults(), 3)
	if c := fail(t, list[0], 500, 5, 3); c != (Change{Host: list[0], Action: Spared, Reason: Consecutive5xx, At: 3}) {
		t.Errorf("%+v", c)
	}
	fail(t, list[0], 500, 4, 3) // the count is zero again
	if c := list[0].Answered(500, 3); c.Action != Spared {
		t.Errorf("%+v", c)
	}
}

// Each ejection is longer by the base time, up to the longest; it ends at a sweep.
func TestEjectionTimes(t *testing.T) {
	d, list := pool(t, all(as), 2)
	h := list[0]
	now := int64(0)
	for i, want := range []int{30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300, 300} {
		c := fail(t, h, 500, 5, now)
		if c.Time != time.Duration(want)*time.Second || c.Ejections != uint64(i+1) {
			t.Fatalf("ejection %d: %+v, want %d s", i+1, c, want)
		}
		if why, until, ok := h.Ejection(); !ok || why != Consecutive5xx || until != now+int64(want)*sec {
			t.Fatalf("ejected until %d for %v, %v", until, why, ok)
		}
		end := now + int64(want)*sec
		for now = d.Due(); now < end; now = d.Due() {
			if got := d.Sweep(nil, now); len(got) != 0 {
				t.Fatalf("at %d s: %+v", now/sec, got[0])
			}
		}
		got := d.Sweep(nil, now)
		if len(got) != 1 || got[0].Action != Returned || got[0].Host != h || h.Ejected() {
			t.Fatalf("at %d s: %+v", now/sec, got)
		}
	}
	if h.multiplier != 11 {
		t.Errorf("the multiplier is %d", h.multiplier)
	}
	if _, _, ok := h.Ejection(); ok {
		t.Error("it is back")
	}
	// Each clean interval takes one off.
	for want := int64(10); want >= 0; want-- {
		now += 10 * sec
		d.Sweep(nil, now)
		if h.multiplier != want {
			t.Fatalf("the multiplier is %d, want %d", h.multiplier, want)
		}
	}
	now += 10 * sec
	d.Sweep(nil, now)
	if c := fail(t, h, 500, 5, now); c.Time != 30*time.Second || c.Ejections != 14 {
		t.Errorf("%+v", c)
	}
	d, list = pool(t, all(func(s *Settings) { s.BaseEjection = 10 * time.Minute }), 1)
	for range 2 {
		if c := fail(t, list[0], 500, 5, 0); c.Time != 10*time.Minute {
			t.Errorf("%+v", c)
		}
		d.Sweep(nil, d.Due()+600*sec)
	}
}

func TestSweepsAreQuantised(t *testing.T) {
	d, list := pool(t, all(as), 1)
	fail(t, list[0], 500, 5, 4*sec)
	for _, at := range []int64{10, 20, 30} {
		if got := d.Sweep(nil, at*sec); len(got) != 0 {
			t.Errorf("at %d s: %+v", at, got)
		}
	}
	if got := d.Sweep(nil, 40*sec-1); len(got) != 0 {
		t.Errorf("between sweeps: %+v", got)
	}
	got := d.Sweep(nil, 40*sec)
	if len(got) != 1 || got[0] != (Change{Host: list[0], Action: Returned, Reason: Consecutive5xx, At: 40 * sec, Time: 36 * time.Second, Ejections: 1}) {
		t.Errorf("%+v", got)
	}
	if got := d.Due(); got != 50*sec {
		t.Errorf("due at %d s", got/sec)
	}
	d.Sweep(nil, 75*sec) // late: missed ones are not made up for
	if got := d.Due(); got != 80*sec {
		t.Errorf("due at %d s", got/sec)
	}
	// A row that was begun before the ejection is not gone on with after it.
	fail(t, list[0], 500, 4, 76*sec)
	if c := list[0].Answered(500, 76*sec); c.Action != Ejected {
		t.Errorf("%+v", c)
	}
	fail(t, list[0], 500, 4, 77*sec)
	d.Sweep(nil, 200*sec)
	if c := list[0].Answered(500, 201*sec); c.Action != Nothing || list[0].Ejected() {
		t.Errorf("%+v", c)
	}
}

func TestHostsComeAndGo(t *testing.T) {
	d, list := pool(t, all(func(s *Settings) { s.MaxEjectionPercent = 50 }), 4)
	fail(t, list[0], 500, 5, 1)
	fail(t, list[1], 500, 5, 1)
	if c := fail(t, list[2], 500, 5, 1); c.Action != Spared {
		t.Errorf("%+v", c)
	}
	d.Remove(list[0])
	d.Remove(list[0])
	if s := d.Stats(); s.Active != 1 || s.Hosts != 3 || list[0].Ejected() {
		t.Errorf("%+v", s)
	}
	if c := fail(t, list[0], 500, 5, 2); c.Action != Nothing {
		t.Errorf("a host that is gone: %+v", c)
	}
	if c := fail(t, list[2], 500, 5, 2); c.Action != Spared { // two of three
		t.Errorf("%+v", c)
	}
	d.Add("4")
	if c := fail(t, list[2], 500, 5, 2); c.Action != Ejected {
		t.Errorf("%+v", c)
	}
	d.Remove(list[3])
	if got := d.Sweep(nil, 100*sec); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestConfigure(t *testing.T) {
	s := all(as)
	d, list := pool(t, s, 2)
	fail(t, list[0], 500, 5, 1)
	s.BaseEjection, s.Interval, s.Consecutive5xx = 5*time.Second, time.Second, 2
	d.Configure(s, 2*sec)
	if !list[0].Ejected() || d.Due() != 3*sec {
		t.Errorf("due at %d", d.Due())
	}
	if c := fail(t, list[1], 500, 2, 3*sec); c.Action != Ejected || c.Time != 5*time.Second {
		t.Errorf("%+v", c)
	}
	if got := d.Sweep(nil, 6*sec); len(got) != 1 || got[0].Host != list[0] {
		t.Errorf("%+v", got)
	}
	for change, want := range map[*Settings]bool{
		{Interval: sec1, BaseEjection: sec1}:                          true,
		{BaseEjection: sec1}:                                          false,
		{Interval: sec1}:                                              false,
		{Interval: sec1, BaseEjection: sec1, MaxEjection: 1}:          false,
		{Interval: sec1, BaseEjection: sec1, MaxEjectionPercent: 101}: false,
		{Interval: sec1, BaseEjection: sec1, MaxEjectionPercent: -1}:  false,
	} {
		if err := change.Check(); (err == nil) != want {
			t.Errorf("%+v: %v", change, err)
		}
	}
}

const sec1 = time.Second

// plain is one host as slowly told as can be.
type plain struct {
	row, gateway, local int
	out                 bool
	since, back         int64
	times               int64
	wasBack             bool
}

// TestAgainstPlain compares random histories with the rules written down once more.
func TestAgainstPlain(t *testing.T) {
	var ejections, spared uint64
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 5))
		s := Settings{
			Consecutive5xx: uint32(r.IntN(5)), ConsecutiveGateway: uint32(r.IntN(4)), ConsecutiveLocalOrigin: uint32(r.IntN(4)), Split: r.IntN(2) == 0,
			Interval: time.Duration(1+r.IntN(10)) * time.Second, BaseEjection: time.Duration(1+r.IntN(20)) * time.Second,
			MaxEjectionPercent: []int{0, 10, 30, 34, 50, 100}[r.IntN(6)], AlwaysOne: r.IntN(3) == 0,
		}
		s.MaxEjection = s.BaseEjection * time.Duration(1+r.IntN(4))
		hosts := 1 + r.IntN(12)
		d, list := pool(t, s, hosts)
		them := make([]plain, hosts)
		now, next := int64(0), int64(s.Interval)
		count := func() (n int) {
			for _, p := range them {
				if p.out {
					n++
				}
			}
			return n
		}
		accuse := func(p *plain, n *int, limit uint32) Action {
			if *n != int(limit) || p.out {
				return Nothing
			}
			*n = 0
			if float64(100*(count()+1))/float64(hosts) > float64(s.MaxEjectionPercent) && !(s.AlwaysOne && count() == 0) {
				return Spared
			}
			if p.times*int64(s.BaseEjection) < int64(s.MaxEjection+s.BaseEjection) {
				p.times++
			}
			p.out, p.since = true, now
			return Ejected
		}
		for range 2000 {
			now += r.Int64N(sec)
			i := r.IntN(hosts)
			p := &them[i]
			var got Change
			var want Action
			status := []int{200, 404, 500, 502, 503, 504, 500, 503}[r.IntN(8)]
			local := r.IntN(4)
			switch {
			case local == 0:
				status = 503
				got = list[i].Failed(now)
			case local == 1:
				list[i].Connected()
				p.local = 0
				continue
			default:
				got = list[i].Answered(status, now)
			}
			switch {
			case local == 0 && s.Split:
				p.local++
				want = accuse(p, &p.local, s.ConsecutiveLocalOrigin)
			case status < 500:
				p.row, p.gateway = 0, 0
			default:
				if status >= 502 {
					p.gateway++
					want = accuse(p, &p.gateway, s.ConsecutiveGateway)
				} else {
					p.gateway = 0
				}
				p.row++
				if a := accuse(p, &p.row, s.Consecutive5xx); a != Nothing && want == Nothing {
					want = a
				}
			}
			if got.Action != want {
				t.Fatalf("seed %d at %d: %+v, want %d\n%+v", seed, now, got, want, s)
			}
			back := 0
			if now >= next {
				for next <= now {
					next += int64(s.Interval)
				}
				for i := range them {
					p := &them[i]
					switch {
					case p.out && now-p.since >= min(p.times*int64(s.BaseEjection), int64(s.MaxEjection)):
						*p = plain{back: now, wasBack: true, times: p.times}
						back++
					case !p.out && p.wasBack && now-p.back >= int64(s.Interval) && p.times > 0:
						p.times--
					}
				}
			}
			if got := d.Sweep(nil, now); len(got) != back {
				t.Fatalf("seed %d at %d: %d return, want %d", seed, now, len(got), back)
			}
			for i := range them {
				if list[i].Ejected() != them[i].out || list[i].multiplier != them[i].times {
					t.Fatalf("seed %d at %d: host %d is %+v, want %+v", seed, now, i, list[i], them[i])
				}
			}
		}
		st := d.Stats()
		ejections, spared = ejections+st.Enforced[0]+st.Enforced[1]+st.Enforced[2], spared+st.Overflow
	}
	if ejections < 1000 || spared < 1000 {
		t.Errorf("%d ejections and %d spared: the histories do not reach much", ejections, spared)
	}
}

func TestManyAtOnce(t *testing.T) {
	s := all(func(s *Settings) { s.MaxEjectionPercent, s.Split = 30, true })
	d, list := pool(t, s, 10)
	var clock atomic.Int64
	var ejected, returned atomic.Int64
	var workers sync.WaitGroup
	for w := range uint64(6) {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(w, 6))
			var back []Change
			for range 20_000 {
				now := clock.Add(r.Int64N(sec / 10))
				h := list[r.IntN(len(list))]
				var c Change
				switch r.IntN(8) {
				case 0:
					c = h.Failed(now)
				case 1:
					h.Connected()
				case 2:
					c = h.Answered(200, now)
				default:
					c = h.Answered(503, now)
				}
				if c.Action == Ejected {
					ejected.Add(1)
				}
				if back = d.Sweep(back[:0], now); len(back) > 0 {
					returned.Add(int64(len(back)))
				}
				if r.IntN(500) == 0 {
					if st := d.Stats(); st.Active > 3 {
						t.Errorf("%d are ejected", st.Active)
					}
					x := d.Add("x")
					x.Failed(now)
					d.Remove(x)
				}
			}
		})
	}
	workers.Wait()
	st := d.Stats()
	if int64(st.Active) != ejected.Load()-returned.Load() || ejected.Load() == 0 {
		t.Errorf("%d are ejected; %d were, %d returned", st.Active, ejected.Load(), returned.Load())
	}
	n := 0
	for _, h := range list {
		if h.Ejected() {
			n++
		}
	}
	if n != st.Active || st.Hosts != 10 {
		t.Errorf("%d hosts are ejected, %+v", n, st)
	}
}

func TestNoGarbage(t *testing.T) {
	s := all(func(s *Settings) { s.Split = true })
	d, list := pool(t, s, 4)
	var now int64
	back := make([]Change, 0, 8)
	if n := testing.AllocsPerRun(2000, func() {
		now += sec
		for _, h := range list {
			h.Connected()
			h.Answered(200, now)
		}
		list[0].Answered(503, now)
		list[1].Failed(now)
		list[1].TimedOut(now)
		list[2].Ejected()
		back = d.Sweep(back[:0], now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAnswered(b *testing.B) {
	d := New(Defaults(), 0)
	h := d.Add("a")
	b.ReportAllocs()
	for b.Loop() {
		h.Connected()
		h.Answered(200, 1)
	}
}
