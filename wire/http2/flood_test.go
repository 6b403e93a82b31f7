package http2

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// flood sends rounds of frames to a server that answers each request at once, with its answers read between, and
// returns after how many rounds the connection was ended, or 0.
func flood(t *testing.T, o Options, rounds int, round func(w *raw, i uint32)) (k *rawServer, ended int) {
	t.Helper()
	k = newRawServer(t, o)
	k.quiet = true
	k.request = func(s *Stream, _ *message.Request, end bool) {
		if end {
			s.Respond(reply(200, 0), true)
			s.Release()
		}
	}
	k.reset = func(s *Stream, _ Code, _ bool) { s.Release() }
	for i := range rounds {
		round(k.w, uint32(2*i+1))
		k.send()
		if k.err != nil {
			return k, i + 1
		}
		k.take()
	}
	return k, 0
}

// TestFloods has each limit act, after as many frames as it says, and be counted.
func TestFloods(t *testing.T) {
	f := func(name string, most int, want *Error, counter func(s *Stats) *atomic.Uint64, round func(w *raw, i uint32)) {
		t.Run(name, func(t *testing.T) {
			k, ended := flood(t, Options{}, 2*most+10, round)
			if k.err != error(want) || ended < most-2 || ended > most+2 {
				t.Errorf("ended after %d rounds, want %d: %v", ended, most, k.err)
			}
			if counter(k.o.Stats).Load() != 1 {
				t.Error("not counted")
			}
			if got := k.r.show(k.take()); !strings.HasSuffix(got, " ENHANCE_YOUR_CALM") {
				t.Error(got)
			}
			// The same over a longer time is nobody's harm.
			var now int64
			k, ended = flood(t, Options{Now: func() int64 { now += period; return now }}, 2*most+10, round)
			if want != errContinuations && ended != 0 {
				t.Errorf("ended after %d rounds though they took long: %v", ended, k.err)
			}
		})
	}
	resets := func(s *Stats) *atomic.Uint64 { return &s.Resets }
	f("CVE-2023-44487 rapid reset", maxResets, errResets, resets, func(w *raw, i uint32) { w.post(i).frame(frameRSTStream, 0, i, u32(8)...) })
	f("CVE-2025-8671 resets that we are made to send", maxResets, errResets, resets, func(w *raw, i uint32) { w.post(i).frame(frameWindowUpdate, 0, i, u32(0)...) })
	f("malformed requests", maxResets, errResets, resets, func(w *raw, i uint32) { w.head(flagEndStream, i, "a", "b") })
	f("CVE-2019-9512 ping flood", maxPings+1, errPings, func(s *Stats) *atomic.Uint64 { return &s.Pings }, func(w *raw, _ uint32) { w.frame(framePing, 0, 0, make([]byte, 8)...) })
	f("CVE-2019-9515 settings flood", maxSettings, errSettings, func(s *Stats) *atomic.Uint64 { return &s.Settings }, func(w *raw, _ uint32) { w.frame(frameSettings, 0, 0) })
	f("CVE-2019-9513 priority flood", maxPriorities+1, errPriorities, func(s *Stats) *atomic.Uint64 { return &s.Priorities }, func(w *raw, i uint32) { w.frame(framePriority, 0, i, 0, 0, 0, 0, 1) })
	f("PRIORITY_UPDATE flood", maxPriorities+1, errPriorities, func(s *Stats) *atomic.Uint64 { return &s.Priorities }, func(w *raw, i uint32) { w.frame(framePriorityUpdate, 0, 0, u32(i)...) })
	f("window flood", maxWindows+1, errWindows, func(s *Stats) *atomic.Uint64 { return &s.Windows }, func(w *raw, _ uint32) { w.frame(frameWindowUpdate, 0, 0, u32(1)...) })
	empties := func(s *Stats) *atomic.Uint64 { return &s.Empties }
	f("CVE-2019-9518 empty frames", maxEmpties+1, errEmpties, empties, func(w *raw, i uint32) {
		if i == 1 {
			w.post(1)
		}
		w.frame(frameData, 0, 1)
	})
	f("padding alone", maxEmpties+1, errEmpties, empties, func(w *raw, i uint32) {
		if i == 1 {
			w.post(1)
		}
		w.frame(frameData, flagPadded, 1, 1, 0)
	})
	f("unknown frames", maxEmpties+1, errEmpties, empties, func(w *raw, _ uint32) { w.frame(0x77, 0, 0) })
	f("resets of what has ended", maxEmpties+2, errEmpties, empties, func(w *raw, i uint32) {
		if i == 1 {
			w.get(1)
		}
		w.frame(frameRSTStream, 0, 1, u32(8)...)
	})
	f("GOAWAY flood", maxEmpties+1, errEmpties, empties, func(w *raw, _ uint32) { w.frame(frameGoAway, 0, 0, make([]byte, 8)...) })
	f("CVE-2024-27316 CONTINUATION flood", maxContinuations+2, errContinuations, func(s *Stats) *atomic.Uint64 { return &s.Continuations }, func(w *raw, i uint32) {
		if i == 1 {
			w.frame(frameHeaders, 0, 1, 0x82)
			return
		}
		w.frame(frameContinuation, 0, 1)
	})
	f("CVE-2019-9516 large CONTINUATION frames", 6, errContinuations, func(s *Stats) *atomic.Uint64 { return &s.Continuations }, func(w *raw, i uint32) {
		if i == 1 {
			w.frame(frameHeaders, 0, 1, make([]byte, 16000)...)
			return
		}
		w.frame(frameContinuation, 0, 1, make([]byte, 16000)...)
	})
}

// TestNoFloods has what busy peers do.
func TestNoFloods(t *testing.T) {
	f := func(name string, rounds int, round func(w *raw, i uint32)) {
		t.Run(name, func(t *testing.T) {
			if k, ended := flood(t, Options{}, rounds, round); ended != 0 {
				t.Errorf("ended after %d rounds: %v", ended, k.err)
			}
		})
	}
	f("requests", 20000, func(w *raw, i uint32) { w.get(i) })
	f("requests with a priority each", 20000, func(w *raw, i uint32) { w.frame(framePriority, 0, i, 0, 0, 0, 0, 1).get(i) })
	f("a third of the requests is cancelled", 9000, func(w *raw, i uint32) {
		if i/2%3 == 0 {
			w.post(i).frame(frameRSTStream, 0, i, u32(8)...)
		} else {
			w.get(i)
		}
	})
	f("upload with pings", 20000, func(w *raw, i uint32) {
		if i == 1 {
			w.post(1)
		}
		if i < 60 {
			w.frame(frameData, 0, 1, make([]byte, 1000)...).frame(framePing, 0, 0, make([]byte, 8)...)
		}
	})

	// A download, with a WINDOW_UPDATE of each kind for each frame.
	k := newRawServer(t, Options{})
	k.quiet = true
	k.w.get(1)
	k.send()
	s := k.s[1]
	s.Respond(reply(200, -1), false)
	for range 4 * maxWindows {
		if n := s.Send(make([]byte, 100), false); n != 100 {
			t.Fatal(n)
		}
		k.w.frame(frameWindowUpdate, 0, 0, u32(100)...).frame(frameWindowUpdate, 0, 1, u32(100)...)
		k.send()
		k.take()
	}
	if k.err != nil {
		t.Error(k.err)
	}
}

// TestUnread has a peer that does not read what it makes us answer: what waits for it is bounded.
func TestUnread(t *testing.T) {
	f := func(name string, round func(w *raw, i uint32)) {
		t.Run(name, func(t *testing.T) {
			var now int64
			o := Options{Now: func() int64 { now += period; return now }, WriteBuffer: 64 << 10}
			k := newRawServer(t, o)
			k.quiet = true
			k.request = func(s *Stream, _ *message.Request, _ bool) {
				s.Respond(reply(200, 0, "x-large", strings.Repeat("y", 4000)), true)
				s.Release()
			}
			for i := uint32(1); k.err == nil && i < 1e6; i += 2 {
				round(k.w, i)
				k.send()
			}
			if !errors.Is(k.err, errUnread) || k.Pending() > 64<<10*(maxPendingFactor+1) {
				t.Errorf("%v, %d bytes wait", k.err, k.Pending())
			}
			if k.o.Stats.Unread.Load() != 1 {
				t.Error("not counted")
			}
		})
	}
	f("pings", func(w *raw, _ uint32) { w.frame(framePing, 0, 0, make([]byte, 8)...) })
	f("settings", func(w *raw, _ uint32) { w.frame(frameSettings, 0, 0) })
	f("malformed requests", func(w *raw, i uint32) { w.head(flagEndStream, i, "a", "b") })
	f("requests", func(w *raw, i uint32) { w.get(i) })
}

// TestBomb has small blocks that decode to a lot (CVE-2016-6581): no more than the limits is ever kept.
func TestBomb(t *testing.T) {
	k := newRawServer(t, Options{})
	large := strings.Repeat("y", 3900)
	k.w.head(flagEndStream, 1, with(simple, "x", large)...)
	b := k.w.block(with(simple, "x", large)...)
	for len(b) < frameMax-2 {
		b = append(b, b[len(b)-1]) // the same entry of the table again
	}
	k.w.frame(frameHeaders, flagEndHeaders|flagEndStream, 3, b...)
	k.send()
	if got := k.log[1]; len(k.log) != 2 || got != "refused 431 "+errHeadTooLarge.Reason {
		t.Errorf("%.100s", got)
	}
	k.get(t, 5, "HEADERS 3 :status=431 content-length=0 end")
}

// TestMemory looks at what a connection holds when it is idle, after much went over it.
func TestMemory(t *testing.T) {
	m := newMeshPair()
	for range 20 {
		m.exchanges(t, 100)
	}
	for _, c := range []*Conn{m.client.Conn, m.server.Conn} {
		c.reap()
		if c.out.fill != nil || c.out.drain != nil || c.req != nil || c.res != nil || c.dead != nil || c.held != 0 {
			t.Errorf("still holds %+v %v %v %v %d", c.out, c.req, c.res, c.dead, c.held)
		}
		if n := len(c.streams.buckets)*8 + cap(c.gone.ids)*4 + cap(c.block.b) + cap(c.crumbs); n > 2<<10 {
			t.Errorf("tables of %d bytes", n)
		}
	}
	if n := fmt.Sprint(m.client.Pending(), m.server.Pending()); n != "0 0" {
		t.Error(n)
	}
}
