package conformance

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy"
)

// holding is an application of HTTP/2 that answers bystanders alone: what else it gets stays open until it is reset, or its
// connection ends. It counts in the order of the frames, so how many are open is never more than there were.
type holding struct {
	*backend
	open, most, all atomic.Int64
}

func newHolding(t *testing.T) *holding {
	h := &holding{backend: &backend{}}
	h.serve = func(c net.Conn, _ *taken) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c, preface); err != nil {
			return
		}
		s := &server2{fr: http2.NewFramer(c, c)}
		s.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		s.enc = hpack.NewEncoder(&s.block)
		if s.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 10000}) != nil {
			return
		}
		mine := map[uint32]bool{}
		defer func() { h.open.Add(-int64(len(mine))) }()
		for {
			f, err := s.fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					_ = s.fr.WriteSettingsAck()
				}
			case *http2.MetaHeadersFrame:
				if f.PseudoValue("path") == aside {
					s.headers(f.StreamID, false, [][2]string{{":status", "200"}})
					_ = s.fr.WriteData(f.StreamID, true, []byte(aside))
					continue
				}
				mine[f.StreamID] = true
				h.all.Add(1)
				if n := h.open.Add(1); n > h.most.Load() {
					h.most.Store(n)
				}
			case *http2.RSTStreamFrame:
				if mine[f.StreamID] {
					delete(mine, f.StreamID)
					h.open.Add(-1)
				}
			}
		}
	}
	h.start(t)
	return h
}

// In Go's server a reset made room for the next request at once, while the handler of the old one went on: they piled up
// beyond any limit. Here who opens as many streams as it may, has the application at work on all of them, resets them and
// opens as many again, never has more than that at work; the few that are on their way out count as well, and are bounded
// by as many again. In the end the connection ends, and nothing goes on for it.
func TestCVE_2023_39325_PilingHandlers(t *testing.T) {
	const limit = 10
	f := func(name string, version model.Protocol, limit int64, rounds int) {
		t.Run(name, func(t *testing.T) {
			h := newHolding(t)
			m := start(t, h.address(), setting{protocol: version, limits: proxy.Limits{Streams: uint32(limit)}})
			m.siege(t, gateway, "", 24, func() {
				c := dial2(t, m.Address(gateway))
				got := make(chan string, 1)
				go func() { got <- c.watch() }() // ends with the connection
				id := uint32(1)
				for round := range rounds {
					for range limit {
						c.headers(id, true, request2("GET", "/"))
						id += 2
					}
					// The last round may meet the end.
					if round < rounds-1 {
						// Who is not given up yet takes a place, for which one may be refused.
						eventually(t, "all at work", func() bool { return h.all.Load()+int64(m.abuse(t, "streams")) >= limit*int64(round+1) })
					}
					for k := id - 2*uint32(limit); k < id; k += 2 {
						c.frame(http2.FrameRSTStream, 0, k, u32(uint32(http2.ErrCodeCancel))...)
					}
				}
				// Where the rounds have lasted longer than a period, more resets are wanted.
				for code := ""; code == ""; id += 2 {
					c.headers(id, true, request2("GET", "/"))
					c.frame(http2.FrameRSTStream, 0, id, u32(uint32(http2.ErrCodeCancel))...)
					select {
					case code = <-got:
						if code != http2.ErrCodeEnhanceYourCalm.String() {
							t.Errorf("ended with %q", code)
						}
					default:
					}
				}
			})
			// The latter where many were refused, and reset by either side.
			eventually(t, "outrider_abuse_total", func() bool { return m.abuse(t, "rapid_reset")+m.abuse(t, "empty_frames") == 1 })
			eventually(t, "the end of all that the application held", func() bool { return h.open.Load() == 0 })
			if most := h.most.Load(); most < limit || most > 2*limit {
				t.Errorf("%d streams were open at the application at a time, of %d that may be", most, limit)
			}
		})
	}
	f("ten at a time", "http2", limit, 20)
	f("a hundred at a time", "http2", 100, 2)

	// A reset that comes with its request may meet an exchange that has hardly begun: it ends all the same.
	h := newHolding(t)
	m := start(t, h.address(), setting{protocol: "http2"})
	c := dial2(t, m.Address(inbound))
	for range 15 {
		for range 10 {
			id := c.get("/")
			c.frame(http2.FrameRSTStream, 0, id, u32(uint32(http2.ErrCodeCancel))...)
		}
		if got := c.await(c.get(aside)); got != "200" {
			t.Fatalf("a stream beside them: %q", got)
		}
	}
	eventually(t, "the end of what was reset at once", func() bool { return h.open.Load() == 0 })
}

// In Go's server a head that was too large already went on to be read and decoded to its end, which need not come.
// Here no more is taken than a block may have, whatever it belongs to; and who sends heads that are too large, whole ones,
// again and again, is sent away as well.
func TestCVE_2023_45288_EndlessHead(t *testing.T) {
	// A literal field that is coded by Huffman, which is what decoding costs most for.
	large := hpack.AppendHuffmanString([]byte{0x00, 0x01, 'x', 0xff, 0x80, 0x80, 0x04}, strings.Repeat("a", 24000))
	large = large[:16384]
	head := []byte{0x82, 0x86, 0x84, 0x41, 0x03, 'a', 'p', 'p'}
	f := func(name string, begin func(c *client2)) {
		t.Run(name, func(t *testing.T) {
			flood(t, "continuation", func(c *client2, id uint32) {
				if id == 1 {
					begin(c)
				}
				c.frame(http2.FrameContinuation, 0, 1, large...)
			})
		})
	}
	f("of a request", func(c *client2) {
		c.frame(http2.FrameHeaders, http2.FlagHeadersEndStream, 1, append(head, large[:16000]...)...)
	})
	f("of trailers", func(c *client2) {
		c.headers(1, false, request2("POST", "/"))
		_ = c.fr.WriteData(1, false, []byte("body"))
		c.frame(http2.FrameHeaders, http2.FlagHeadersEndStream, 1, large...)
	})
	f("of a stream that is gone", func(c *client2) {
		c.headers(1, false, request2("POST", "/"))
		c.frame(http2.FrameRSTStream, 0, 1, u32(uint32(http2.ErrCodeCancel))...)
		c.frame(http2.FrameHeaders, 0, 1, large...)
	})

	t.Run("again and again", func(t *testing.T) {
		flood(t, "rapid_reset", func(c *client2, id uint32) {
			c.headers(id, true, append(request2("GET", "/"), [2]string{"x", strings.Repeat("y", 8200)}))
		})
	})

	// What an application may make the proxy take is as little, and its client has a whole answer all the same.
	t.Run("of a response", func(t *testing.T) {
		var mu sync.Mutex
		sent := 0
		b := newHostile(t, script{act: func(h *hostile) {
			h.frame(http2.FrameHeaders, 0, h.id, append([]byte{0x88}, large[:16000]...)...)
			h.until(func() {
				h.frame(http2.FrameContinuation, 0, h.id, large...)
				mu.Lock()
				defer mu.Unlock()
				if sent += len(large); sent > 256<<20 {
					h.err = io.ErrShortWrite
				}
			})
		}})
		m := start(t, b.address(), setting{protocol: "http2"})
		for range 5 {
			c := dial(t, m.Address(inbound))
			c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
			if a := c.must("GET"); a.status != 502 && a.status != 503 {
				t.Errorf("got %d", a.status)
			}
		}
		eventually(t, "outrider_abuse_total", func() bool { return m.abuse(t, "continuation") >= 5 })
		mu.Lock()
		defer mu.Unlock()
		if sent > 128<<20 { // what sockets hold
			t.Errorf("%d MiB were taken", sent>>20)
		}
	})
}

// In Envoy a flood of CONTINUATION frames below every limit of size went on for as long as it liked, and cost a core.
// Here it is their number that ends the connection; and blocks that stay just below it, each whole and valid, cannot be
// filled up with frames of nothing.
func TestCVE_2024_30255_ContinuationCPU(t *testing.T) {
	head := []byte{0x82, 0x86, 0x84, 0x41, 0x03, 'a', 'p', 'p'}
	f := func(name, limit string, round func(c *client2, id uint32)) {
		t.Run(name, func(t *testing.T) { flood(t, limit, round) })
	}
	begins := func(payload ...byte) func(c *client2, id uint32) {
		return func(c *client2, id uint32) {
			if id == 1 {
				c.frame(http2.FrameHeaders, 0, 1, head...)
			}
			c.frame(http2.FrameContinuation, 0, 1, payload...)
		}
	}
	f("empty frames", "continuation", begins())
	f("a byte each", "continuation", begins('\x90'))
	f("changes of the table's size", "continuation", begins(0x20))
	f("a head of nothing", "continuation", func(c *client2, id uint32) {
		if id == 1 {
			c.frame(http2.FrameHeaders, 0, 1)
		}
		c.frame(http2.FrameContinuation, 0, 1)
	})
	f("blocks filled up", "empty_frames", func(c *client2, id uint32) {
		c.frame(http2.FrameHeaders, http2.FlagHeadersEndStream, id, head...)
		for range 15 {
			c.frame(http2.FrameContinuation, 0, id)
		}
		c.frame(http2.FrameContinuation, http2.FlagContinuationEndHeaders, id)
	})

	// Many at a time are no more than one.
	b := newBackend(t)
	m := start(t, b.address(), setting{})
	m.siege(t, gateway, "continuation", 24, func() {
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				c := dial2(t, m.Address(gateway))
				defer c.Close()
				c.frame(http2.FrameHeaders, 0, 1, head...)
				for range 200 {
					c.frame(http2.FrameContinuation, 0, 1)
				}
				if code := c.watch(); code != http2.ErrCodeEnhanceYourCalm.String() {
					t.Errorf("ended with %q", code)
				}
			})
		}
		all.Wait()
	})
	eventually(t, "all 20 are counted", func() bool { return m.abuse(t, "continuation") == 20 })
}
