package conformance

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrider-mesh/outrider/proxy"
)

// flood has a client of HTTP/2 send rounds of frames, reading what comes but doing nothing about it, until the proxy ends
// the connection: with ENHANCE_YOUR_CALM, the limit counted, a bystander served, and no more than 24 MiB used meanwhile.
// It returns how many requests an application saw as a whole. (The tests of wire/http2 have after how many frames each
// limit acts; here some are always on their way.)
func flood(t *testing.T, limit string, round func(c *client2, id uint32)) (requests int) {
	t.Helper()
	b := newBackend(t)
	m := start(t, b.address(), setting{})
	m.siege(t, gateway, limit, 24, func() {
		c := dial2(t, m.Address(gateway))
		defer c.Close()
		got := make(chan string, 1)
		go func() { got <- c.watch() }() // ends with the connection
		for id := uint32(1); ; id += 2 {
			round(c, id)
			select {
			case code := <-got:
				if code != http2.ErrCodeEnhanceYourCalm.String() {
					t.Errorf("ended with %q", code)
				}
				return
			default:
			}
			if id > 1<<21 {
				t.Error("a million rounds, and no end")
				return
			}
		}
	})
	_, messages := b.since(0)
	for _, line := range messages {
		if line != "GET "+aside+" HTTP/1.1" {
			requests++
		}
	}
	return requests
}

// watch reads until the connection is over and returns the code of its GOAWAY, or "close". It sends nothing.
func (c *client2) watch() string {
	code := "close"
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			return code
		}
		if f, ok := f.(*http2.GoAwayFrame); ok {
			code = f.ErrCode.String()
		}
	}
}

// frames sends any frame.
func (c *client2) frame(kind http2.FrameType, flags http2.Flags, id uint32, payload ...byte) {
	_ = c.fr.WriteRawFrame(kind, flags, id, payload) // the connection may be over
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// Streams that are opened and cancelled at once cost an application's work and no place among the streams that are open.
func TestCVE_2023_44487_RapidReset(t *testing.T) {
	n := flood(t, "rapid_reset", func(c *client2, id uint32) {
		c.headers(id, true, request2("GET", "/"))
		c.frame(http2.FrameRSTStream, 0, id, u32(uint32(http2.ErrCodeCancel))...)
	})
	if n > 250 {
		t.Errorf("the application saw %d requests", n)
	}
}

// The same with resets that the proxy is made to send, by frames that a stream must not have.
func TestCVE_2025_8671_MadeYouReset(t *testing.T) {
	f := func(name string, break_ func(c *client2, id uint32)) {
		t.Run(name, func(t *testing.T) {
			flood(t, "rapid_reset", func(c *client2, id uint32) {
				c.headers(id, false, request2("POST", "/"))
				break_(c, id)
			})
		})
	}
	f("a window of nothing", func(c *client2, id uint32) { c.frame(http2.FrameWindowUpdate, 0, id, u32(0)...) })
	f("a window that overflows", func(c *client2, id uint32) { c.frame(http2.FrameWindowUpdate, 0, id, u32(1<<31-1)...) })
	f("a priority of a wrong size", func(c *client2, id uint32) { c.frame(http2.FramePriority, 0, id, 0, 0, 0) })
	f("a dependency on itself", func(c *client2, id uint32) { c.frame(http2.FramePriority, 0, id, append(u32(id), 0)...) })
}

// Requests that are malformed make the proxy reset streams.
func TestCVE_2019_9514_ResetFlood(t *testing.T) {
	flood(t, "rapid_reset", func(c *client2, id uint32) { c.headers(id, true, [][2]string{{"a", "b"}}) })
}

// Header blocks end, and are not kept beyond the limits while they do not (also CVE-2024-27316).
func TestCVE_2024_27919_ContinuationFlood(t *testing.T) {
	f := func(name string, payload []byte) {
		t.Run(name, func(t *testing.T) {
			flood(t, "continuation", func(c *client2, id uint32) {
				if id == 1 {
					c.frame(http2.FrameHeaders, 0, 1, 0x82, 0x86, 0x84)
				} else {
					c.frame(http2.FrameContinuation, 0, 1, payload...)
				}
			})
		})
	}
	f("empty", nil)
	f("small", []byte{0x82})
	f("large", make([]byte, 16000))
}

func TestCVE_2019_9512_PingFlood(t *testing.T) {
	flood(t, "ping", func(c *client2, _ uint32) { c.frame(http2.FramePing, 0, 0, make([]byte, 8)...) })
}

// Priorities that go round in circles cost nothing here, for they are not kept.
func TestCVE_2019_9513_ResourceLoop(t *testing.T) {
	flood(t, "priority", func(c *client2, id uint32) { c.frame(http2.FramePriority, 0, id, append(u32(id+2), 200)...) })
}

func TestCVE_2019_9515_SettingsFlood(t *testing.T) {
	flood(t, "settings", func(c *client2, _ uint32) { c.frame(http2.FrameSettings, 0, 0) })
}

// Large SETTINGS frames are floods as well.
func TestCVE_2020_11080_LargeSettings(t *testing.T) {
	large := []byte(strings.Repeat("\x00\x01\x00\x00\x10\x00", 2700))
	flood(t, "settings", func(c *client2, _ uint32) { c.frame(http2.FrameSettings, 0, 0, large...) })
}

// Frames that hold nothing.
func TestCVE_2019_9518_EmptyFrames(t *testing.T) {
	f := func(name string, flags http2.Flags, payload ...byte) {
		t.Run(name, func(t *testing.T) {
			flood(t, "empty_frames", func(c *client2, id uint32) {
				if id == 1 {
					c.headers(1, false, request2("POST", "/"))
				}
				c.frame(http2.FrameData, flags, 1, payload...)
			})
		})
	}
	f("DATA", 0)
	f("padding alone", http2.FlagDataPadded, 1, 0)
}

// Frames of types that nobody knows are read over, but not for ever.
func TestUnknownFrameFlood(t *testing.T) {
	flood(t, "empty_frames", func(c *client2, _ uint32) { c.frame(0x77, 0, 0, 1, 2, 3) })
}

func TestWindowUpdateFlood(t *testing.T) {
	flood(t, "window_update", func(c *client2, _ uint32) { c.frame(http2.FrameWindowUpdate, 0, 0, u32(1)...) })
}

// A client that opens a large answer's window byte by byte makes many small frames of it.
func TestCVE_2019_9511_DataDribble(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{})
	m.siege(t, gateway, "window_update", 24, func() {
		c := dial2(t, m.Address(gateway), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		defer c.Close()
		got := make(chan string, 1)
		go func() { got <- c.watch() }() // ends with the connection
		c.headers(1, true, request2("GET", "/"))
		n := 0
		for code := ""; code == ""; n++ {
			// Several for each frame of one byte that they can bring.
			for range 8 {
				c.frame(http2.FrameWindowUpdate, 0, 1, u32(1)...)
			}
			select {
			case code = <-got:
				if code != http2.ErrCodeEnhanceYourCalm.String() {
					t.Errorf("ended with %q", code)
				}
			default:
			}
			if n > 100000 {
				t.Fatal("never ended")
			}
		}
	})
}

// Fields of no length cost their place in the table all the same, so that they cannot grow without end.
func TestCVE_2019_9516_ZeroLengthHeaders(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{})
	m.siege(t, gateway, "head_size", 24, func() {
		c := dial2(t, m.Address(gateway))
		fields := request2("GET", "/")
		for range 3000 {
			fields = append(fields, [2]string{"x", ""})
		}
		if got := c.await(c.open(true, fields...)); got != "431" {
			t.Errorf("%q for 3000 empty values", got)
		}
		fields = append(request2("GET", "/"), [2]string{"", ""})
		if got := c.await(c.open(true, fields...)); got != "reset PROTOCOL_ERROR" {
			t.Errorf("%q for an empty name", got)
		}
		if got := c.await(c.get("/")); got != "200" {
			t.Errorf("then %q", got)
		}
	})
}

// A small block that decodes to much more than the limits.
func TestCVE_2016_6581_HPACKBomb(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{})
	m.siege(t, gateway, "head_size", 24, func() {
		c := dial2(t, m.Address(gateway))
		large := [2]string{"x", strings.Repeat("y", 3900)}
		if got := c.await(c.open(true, append(request2("GET", "/"), large)...)); got != "200" {
			t.Errorf("%q for one large field", got)
		}
		for range 50 {
			fields := request2("GET", "/")
			for range 4000 { // one byte each on the wire, 3.9 KB each decoded
				fields = append(fields, large)
			}
			if got := c.await(c.open(true, fields...)); got != "431" {
				t.Fatalf("%q for a bomb", got)
			}
		}
	})
}

// A peer that opens all windows, reads nothing from its socket, and asks for more and more.
func TestCVE_2019_9517_InternalDataBuffering(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{})
	m.siege(t, gateway, "", 64, func() {
		c := dial2(t, m.Address(gateway), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		defer c.Close()
		_ = c.fr.WriteWindowUpdate(0, 1<<30)
		for range 50 {
			c.get("/")
		}
		b.stall(t, 50)
	})
}

// What the proxy must answer waits in no memory when nobody reads it.
func TestUnreadAnswers(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{})
	m.siege(t, gateway, "", 24, func() {
		c := dial2(t, m.Address(gateway))
		defer c.Close()
		_ = c.SetWriteDeadline(time.Now().Add(patience))
		for range 1 << 20 {
			if c.fr.WritePing(false, [8]byte{}) != nil {
				return
			}
		}
		t.Error("a million pings are taken from a client that reads nothing")
	})
	// Which of the two acts depends on how much the sockets hold.
	eventually(t, "outrider_abuse_total", func() bool { return m.abuse(t, "ping")+m.abuse(t, "unread") == 1 })
}

// A client that never opens its windows holds back its answers, and neither memory nor other streams.
func TestWindowZero(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{})
	m.siege(t, gateway, "", 48, func() {
		c := dial2(t, m.Address(gateway), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		defer c.Close()
		for range 50 {
			c.get("/")
		}
		b.stall(t, 50)
		// A stream that opens its window is served beside them.
		id := c.get(aside)
		if err := c.fr.WriteWindowUpdate(id, 100); err != nil {
			t.Fatal(err)
		}
		if got := c.await(id); got != "200" || c.of(id).body.String() != aside {
			t.Errorf("got %q beside stalled streams", got)
		}
	})
}

// More streams than were granted are refused, and what they would have asked for is not done.
func TestStreamFlood(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{})
	m.siege(t, gateway, "streams", 64, func() {
		c := dial2(t, m.Address(gateway), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		defer c.Close()
		refused := 0
		var all []uint32
		for range 300 {
			all = append(all, c.get("/"))
		}
		eventually(t, "200 refusals", func() bool {
			if !c.step() {
				t.Fatalf("the connection is over: %v", c.over)
			}
			refused = 0
			for _, id := range all {
				if k := c.of(id); k.reset != nil && *k.reset == http2.ErrCodeRefusedStream {
					refused++
				}
			}
			return refused >= 200
		})
		if refused != 200 {
			t.Errorf("%d of 300 are refused", refused)
		}
	})
	if n := b.connections(); n > 101+1 {
		t.Errorf("the application has %d connections", n)
	}
}

// A header block that does not come to its end is a slow head.
func TestSlowHead2(t *testing.T) {
	m := start(t, newBackend(t).address(), setting{limits: quick})
	f := func(name string, begin func(c *client2)) {
		t.Run(name, func(t *testing.T) {
			m.siege(t, gateway, "slow_head", 16, func() {
				c := dial2(t, m.Address(gateway))
				begin(c)
				began := time.Now()
				c.watch()
				if time.Since(began) >= patience {
					t.Error("stays open")
				}
			})
		})
	}
	f("HEADERS without an end", func(c *client2) { c.frame(http2.FrameHeaders, 0, 1, 0x82) })
	f("half a frame", func(c *client2) { _, _ = c.Write([]byte{0, 0, 100, 1, 4, 0, 0}) })
}

// The limits of HTTP/2 that users set.
func TestStreamsLimit(t *testing.T) {
	b := newEndless(t, "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef")
	m := start(t, b.address(), setting{limits: proxy.Limits{Streams: 3}})
	c := dial2(t, m.Address(inbound), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for range 3 {
		c.get("/")
	}
	if got := c.await(c.get("/")); got != "reset REFUSED_STREAM" {
		t.Errorf("the fourth stream: %q", got)
	}
}
