package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// hostile is an application of HTTP/2 that does what it should not.
type hostile struct {
	net.Conn
	fr    *http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer
	id    uint32 // the stream of the request
	seen  <-chan struct{}
	err   error // of a write
}

// script is what a hostile application does: before anything else, and once a request's head is there.
type script struct {
	greet func(h *hostile) // in place of SETTINGS; nil sends them empty
	act   func(h *hostile)
	seen  chan struct{} // has something when the client has seen a head
}

// newHostile is an application that plays the script to every request but probes and bystanders, which it serves.
func newHostile(t *testing.T, s script) *backend {
	b := &backend{}
	b.serve = func(c net.Conn, k *taken) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c, preface); err != nil {
			return
		}
		h := &hostile{Conn: c, fr: http2.NewFramer(c, c), seen: s.seen}
		h.fr.AllowIllegalWrites = true
		h.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		h.enc = hpack.NewEncoder(&h.block)
		if s.greet != nil {
			s.greet(h)
		} else if h.fr.WriteSettings() != nil {
			return
		}
		h.serve(s.act, k)
	}
	return b.start(t)
}

// serve reads until the connection ends.
func (h *hostile) serve(act func(h *hostile), k *taken) {
	for h.err == nil {
		f, err := h.fr.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.err = h.fr.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			path := f.PseudoValue("path")
			k.whole(path, path)
			h.id = f.StreamID
			if path != probe && path != aside {
				act(h)
				continue
			}
			h.head(fine, [2]string{"content-length", fmt.Sprint(len(path))})
			h.err = h.fr.WriteData(h.id, true, []byte(path))
		}
	}
}

// begin sends a head and waits until the client has it.
func (h *hostile) begin(fields ...[2]string) {
	h.head(fields...)
	select {
	case <-h.seen:
	case <-time.After(patience):
	}
}

// head sends a field section that does not end the stream.
func (h *hostile) head(fields ...[2]string) { h.section(h.id, false, fields...) }

func (h *hostile) section(id uint32, end bool, fields ...[2]string) {
	h.err = h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: encode(h.enc, &h.block, fields), EndHeaders: true, EndStream: end})
}

func (h *hostile) frame(kind http2.FrameType, flags http2.Flags, id uint32, payload ...byte) {
	h.err = h.fr.WriteRawFrame(kind, flags, id, payload)
}

// until does something again and again until the proxy has had enough.
func (h *hostile) until(again func()) {
	for h.err == nil {
		again()
	}
}

var fine = [2]string{":status", "200"}

// TestHostileServers has what applications of HTTP/2 must not do, and what clients of both versions get: a clean 502 or 503
// where no answer has begun, a cut one where it has. The proxy goes on in either case, and so do others.
func TestHostileServers(t *testing.T) {
	f := func(name, want string, s script) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan struct{}, 1)
			s.seen = seen
			b := newHostile(t, s)
			m := start(t, b.address(), setting{protocol: "http2"})
			for _, version := range []int{1, 2} {
				if got := hostileAnswer(t, m, version, seen); !slices.Contains(strings.Split(want, "|"), got) {
					t.Errorf("a client of HTTP/%d gets %q, want %q", version, got, want)
				}
				c := dial(t, m.Address(inbound))
				c.send("GET " + probe + " HTTP/1.1\r\nHost: app\r\n\r\n")
				if s.greet == nil {
					if a, err := c.read("GET"); err != nil || a.status != 200 || a.body != probe {
						t.Errorf("behind HTTP/%d, the next client gets %+v, %v", version, a, err)
					}
				} else if a, err := c.read("GET"); err != nil || a.status != 502 && a.status != 503 && a.status != 200 {
					t.Errorf("behind HTTP/%d, the next client gets %+v, %v", version, a, err)
				}
			}
		})
	}
	act := func(name, want string, act func(h *hostile)) { f(name, want, script{act: act}) }
	greet := func(name, want string, greet func(h *hostile)) {
		f(name, want, script{greet: greet, act: func(h *hostile) { h.section(h.id, true, fine) }})
	}

	const none, cut = "502|503", "200 cut" // which of the two depends on whether the stream or the connection is to blame

	// The frames of a connection.
	act("a frame that is too large", none, func(h *hostile) { h.frame(http2.FrameData, 0, h.id, make([]byte, 1<<20)...) })
	act("DATA on a stream that nobody opened", none, func(h *hostile) { h.frame(http2.FrameData, 0, h.id+100, 'x') })
	act("DATA on stream 0", none, func(h *hostile) { h.frame(http2.FrameData, 0, 0, 'x') })
	act("HEADERS on a stream that nobody opened", none, func(h *hostile) { h.section(h.id+100, true, fine) })
	act("HEADERS on an even stream", none, func(h *hostile) { h.section(2, true, fine) })
	act("HEADERS on stream 0", none, func(h *hostile) { h.section(0, true, fine) })
	act("PUSH_PROMISE", none, func(h *hostile) {
		_ = h.fr.WritePushPromise(http2.PushPromiseParam{StreamID: h.id, PromiseID: 2, BlockFragment: encode(h.enc, &h.block, request2("GET", "/")), EndHeaders: true})
	})
	act("RST_STREAM on a stream that nobody opened", none, func(h *hostile) { h.frame(http2.FrameRSTStream, 0, h.id+100, u32(0)...) })
	act("RST_STREAM of a wrong size", none, func(h *hostile) { h.frame(http2.FrameRSTStream, 0, h.id, 0) })
	act("PING of a wrong size", none, func(h *hostile) { h.frame(http2.FramePing, 0, 0, 1, 2, 3) })
	act("PING on a stream", none, func(h *hostile) { h.frame(http2.FramePing, 0, h.id, make([]byte, 8)...) })
	act("SETTINGS on a stream", none, func(h *hostile) { h.frame(http2.FrameSettings, 0, h.id) })
	act("SETTINGS of half an entry", none, func(h *hostile) { h.frame(http2.FrameSettings, 0, 0, 1, 2, 3) })
	act("SETTINGS: a frame size that is too small", none, func(h *hostile) { _ = h.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) })
	act("SETTINGS: a window that is too large", none, func(h *hostile) {
		_ = h.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
	})
	act("SETTINGS: push", none, func(h *hostile) { _ = h.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}) })
	act("GOAWAY on a stream", none, func(h *hostile) { h.frame(http2.FrameGoAway, 0, h.id, make([]byte, 8)...) })
	act("WINDOW_UPDATE of nothing", none, func(h *hostile) { h.frame(http2.FrameWindowUpdate, 0, 0, u32(0)...) })
	act("WINDOW_UPDATE that overflows", none, func(h *hostile) { h.frame(http2.FrameWindowUpdate, 0, 0, u32(1<<31-1)...) })
	act("CONTINUATION of nothing", none, func(h *hostile) { h.frame(http2.FrameContinuation, 0, h.id, 0x88) })
	act("another frame within a header block", none, func(h *hostile) {
		h.frame(http2.FrameHeaders, 0, h.id, 0x88)
		h.frame(http2.FramePing, 0, 0, make([]byte, 8)...)
	})
	act("a header block that cannot be decoded", none, func(h *hostile) {
		h.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, h.id, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	})
	act("padding beyond the frame", none, func(h *hostile) {
		h.frame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, h.id, 200, 0x88)
	})

	// How it begins.
	greet("no SETTINGS first", none, func(h *hostile) { h.frame(http2.FramePing, 0, 0, make([]byte, 8)...) })
	greet("HTTP/1.1", none, func(h *hostile) { _, _ = io.WriteString(h, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") })
	greet("another protocol", none, func(h *hostile) { _, _ = io.WriteString(h, "220 mail.example ESMTP\r\n") })
	greet("nothing", none, func(h *hostile) { _ = h.Close() })
	greet("SETTINGS that acknowledge what was not sent, with a payload", none, func(h *hostile) { h.frame(http2.FrameSettings, http2.FlagSettingsAck, 0, 0, 1, 0, 0, 0, 0) })

	// Streams.
	act("two heads", cut, func(h *hostile) { h.begin(fine); h.section(h.id, false, fine) })
	act("DATA before the head", none, func(h *hostile) { _ = h.fr.WriteData(h.id, true, []byte("x")) })
	act("trailers that do not end the stream", cut, func(h *hostile) { h.begin(fine); h.head([2]string{"x", "y"}) })
	act("a pseudo-header field in trailers", cut, func(h *hostile) { h.begin(fine); h.section(h.id, true, fine) })
	act("a capital in trailers", cut, func(h *hostile) { h.begin(fine); h.section(h.id, true, [2]string{"X", "y"}) })
	act("more than content-length", cut, func(h *hostile) {
		h.begin(fine, [2]string{"content-length", "3"})
		_ = h.fr.WriteData(h.id, true, []byte("abcdef"))
	})
	act("less than content-length", cut, func(h *hostile) {
		h.begin(fine, [2]string{"content-length", "10"})
		_ = h.fr.WriteData(h.id, true, []byte("abc"))
	})
	act("reset in the middle", cut, func(h *hostile) {
		h.begin(fine)
		_ = h.fr.WriteData(h.id, false, []byte("abc"))
		_ = h.fr.WriteRSTStream(h.id, http2.ErrCodeInternal)
	})
	act("reset with NO_ERROR in the middle", cut, func(h *hostile) {
		h.begin(fine)
		_ = h.fr.WriteData(h.id, false, []byte("abc"))
		_ = h.fr.WriteRSTStream(h.id, http2.ErrCodeNo)
	})
	act("the connection's end in the middle", cut, func(h *hostile) {
		h.begin(fine)
		_ = h.fr.WriteData(h.id, false, []byte("abc"))
		_ = h.Close()
	})
	act("GOAWAY with an error in the middle, and the end", cut, func(h *hostile) {
		h.begin(fine)
		_ = h.fr.WriteGoAway(h.id, http2.ErrCodeInternal, nil)
		_ = h.Close()
	})
	act("a frame that is too large in the middle", cut, func(h *hostile) {
		h.begin(fine)
		h.frame(http2.FrameData, 0, h.id, make([]byte, 1<<20)...)
	})
	act("a window of nothing for the stream", none, func(h *hostile) { h.frame(http2.FrameWindowUpdate, 0, h.id, u32(0)...) })

	// Floods.
	act("an endless header block", none, func(h *hostile) {
		h.frame(http2.FrameHeaders, 0, h.id, 0x88)
		h.until(func() { h.frame(http2.FrameContinuation, 0, h.id) })
	})
	act("a flood of SETTINGS", none, func(h *hostile) { h.until(func() { h.frame(http2.FrameSettings, 0, 0) }) })
	act("a flood of PING", none, func(h *hostile) { h.until(func() { h.frame(http2.FramePing, 0, 0, make([]byte, 8)...) }) })
	act("a flood of WINDOW_UPDATE", none, func(h *hostile) { h.until(func() { h.frame(http2.FrameWindowUpdate, 0, h.id, u32(1)...) }) })
	act("a flood of empty DATA", cut, func(h *hostile) {
		h.begin(fine)
		h.until(func() { h.frame(http2.FrameData, 0, h.id) })
	})
	act("a flood of GOAWAY", none, func(h *hostile) { h.until(func() { h.err = h.fr.WriteGoAway(h.id, http2.ErrCodeNo, nil) }) })
	act("a flood of unknown frames", none, func(h *hostile) { h.until(func() { h.frame(0x77, 0, 0, 1) }) })
	act("a head beyond the limits", none, func(h *hostile) {
		h.section(h.id, true, fine, [2]string{"x", strings.Repeat("y", 10000)})
	})
	act("a bomb", none, func(h *hostile) {
		fields := [][2]string{fine}
		for range 4000 {
			fields = append(fields, [2]string{"x", strings.Repeat("y", 3900)})
		}
		h.section(h.id, true, fields...)
	})

	// What is odd and allowed.
	act("unknown frames", "200", func(h *hostile) { h.frame(0x77, 0, h.id, 1, 2); h.frame(0x0a, 0, 0, 1); h.section(h.id, true, fine) })
	act("priorities and padding", "200", func(h *hostile) {
		h.frame(http2.FramePriority, 0, h.id, append(u32(0), 9)...)
		h.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPadded, h.id, 2, 0x88, 0, 0)
		h.frame(http2.FrameData, http2.FlagDataPadded|http2.FlagDataEndStream, h.id, 3, 'x', 0, 0, 0)
	})
	act("a head in many pieces", "200", func(h *hostile) {
		h.frame(http2.FrameHeaders, http2.FlagHeadersEndStream, h.id)
		h.frame(http2.FrameContinuation, 0, h.id, 0x88)
		h.frame(http2.FrameContinuation, http2.FlagContinuationEndHeaders, h.id)
	})
	act("GOAWAY, and the answer all the same", "200", func(h *hostile) {
		_ = h.fr.WriteGoAway(h.id, http2.ErrCodeNo, nil)
		h.section(h.id, true, fine)
	})
	act("a table of no size", "200", func(h *hostile) {
		_ = h.fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		h.section(h.id, true, fine)
	})
}

// hostileAnswer asks for "/" and says what comes: a status, and "cut" where it does not end well. It tells seen of a head.
func hostileAnswer(t *testing.T, m *mesh, version int, seen chan<- struct{}) string {
	t.Helper()
	tell := func() {
		select {
		case seen <- struct{}{}:
		default:
		}
	}
	if version == 2 {
		c := dial2(t, m.Address(inbound))
		defer c.Close()
		id := c.get("/")
		k := c.of(id)
		for len(k.heads) == 0 && k.reset == nil && c.step() {
		}
		tell()
		status, rest, _ := strings.Cut(c.await(id), " ")
		if strings.HasPrefix(rest, "reset ") {
			rest = "cut"
		}
		return strings.TrimSpace(status + " " + rest)
	}
	c := dial(t, m.Address(inbound))
	defer c.Close()
	c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
	_, _ = c.r.Peek(1)
	tell()
	a, err := c.read("GET")
	switch {
	case err != nil && a.status == 0:
		return err.Error()
	case err != nil:
		return fmt.Sprint(a.status, " ", err)
	}
	return fmt.Sprint(a.status)
}

// An application whose windows stay shut holds back the bodies for it, and no memory; who asks for something else is served.
func TestHostileWindow(t *testing.T) {
	b := newHostile(t, script{
		greet: func(h *hostile) { _ = h.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) },
		act:   func(*hostile) {},
	})
	m := start(t, b.address(), setting{protocol: "http2"})
	m.siege(t, inbound, "", 48, func() {
		for range 4 {
			c := dial(t, m.Address(inbound))
			c.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1073741824\r\n\r\n")
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			if n := pour(c, make([]byte, 1<<16), 64<<20); n >= 64<<20 {
				t.Errorf("the proxy has taken %d bytes that it cannot send", n)
			}
			_ = c.Close()
		}
	})
}
