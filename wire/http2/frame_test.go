package http2

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// TestConnectionErrors has what ends a connection to a server, with the GOAWAY that says why.
func TestConnectionErrors(t *testing.T) {
	f := func(name string, code Code, write func(w *raw)) {
		t.Helper()
		k := newRawServer(t, Options{})
		write(k.w)
		k.send()
		got := k.r.show(k.take())
		if k.err == nil || !strings.HasPrefix(got[strings.LastIndex(got, "\n")+1:], "GOAWAY ") || !strings.HasSuffix(got, " "+code.String()) {
			t.Errorf("%s: %v, %s, want %s", name, k.err, got, code)
		}
		if n, err := k.Receive([]byte("more")); n != 0 || err == nil {
			t.Errorf("%s: goes on", name)
		}
		k.Close(Cancel)
		if k.Streams() != 0 {
			t.Errorf("%s: %d streams are left", name, k.Streams())
		}
	}
	f("DATA on 0", ProtocolError, func(w *raw) { w.frame(frameData, 0, 0, 'a') })
	f("DATA on an idle stream", ProtocolError, func(w *raw) { w.frame(frameData, 0, 1, 'a') })
	f("DATA on a server's stream", ProtocolError, func(w *raw) { w.frame(frameData, 0, 2, 'a') })
	f("DATA padded beyond its size", ProtocolError, func(w *raw) { w.post(1).frame(frameData, flagPadded, 1, 5, 'a', 0, 0, 0) })
	f("DATA without the length of its padding", FrameSizeError, func(w *raw) { w.post(1).frame(frameData, flagPadded, 1) })
	f("DATA over the connection's window", FlowControlError, func(w *raw) {
		for i := range uint32(17) {
			w.post(2*i+1).frame(frameData, 0, 2*i+1, make([]byte, 16384)...).frame(frameData, 0, 2*i+1, make([]byte, 16384)...)
			w.frame(frameData, 0, 2*i+1, make([]byte, 16384)...).frame(frameData, 0, 2*i+1, make([]byte, 16384)...)
		}
	})
	f("frame over the size", FrameSizeError, func(w *raw) { w.post(1).frame(frameData, 0, 1, make([]byte, 16385)...) })
	f("unknown frame over the size", FrameSizeError, func(w *raw) { w.frame(0x55, 0, 0, make([]byte, 16385)...) })
	f("HEADERS on 0", ProtocolError, func(w *raw) { w.get(0) })
	f("HEADERS on an even stream", ProtocolError, func(w *raw) { w.get(2) })
	f("HEADERS padded beyond its size", ProtocolError, func(w *raw) { w.frame(frameHeaders, flagPadded|flagEndHeaders, 1, 2, 0x82) })
	f("HEADERS too short for a priority", FrameSizeError, func(w *raw) { w.frame(frameHeaders, flagPriority|flagEndHeaders, 1, 0, 0, 0, 0) })
	f("HEADERS on a stream that was left out", StreamClosed, func(w *raw) { w.get(5).get(3) })
	f("HEADERS that cannot be decoded", CompressionError, func(w *raw) { w.frame(frameHeaders, flagEndHeaders, 1, 0x80) })
	f("trailers that cannot be decoded", CompressionError, func(w *raw) { w.post(1).frame(frameHeaders, flagEndHeaders|flagEndStream, 1, 0x80) })
	f("frame within a header block", ProtocolError, func(w *raw) { w.frame(frameHeaders, 0, 1, 0x82).frame(framePing, 0, 0, make([]byte, 8)...) })
	f("unknown frame within a header block", ProtocolError, func(w *raw) { w.frame(frameHeaders, 0, 1, 0x82).frame(0x55, 0, 0) })
	f("CONTINUATION of another stream", ProtocolError, func(w *raw) { w.frame(frameHeaders, 0, 1, 0x82).frame(frameContinuation, flagEndHeaders, 3, 0x84) })
	f("CONTINUATION of nothing", ProtocolError, func(w *raw) { w.post(1).frame(frameContinuation, flagEndHeaders, 1, 0x84) })
	f("CONTINUATION on 0", ProtocolError, func(w *raw) { w.frame(frameContinuation, flagEndHeaders, 0, 0x84) })
	f("PRIORITY on 0", ProtocolError, func(w *raw) { w.frame(framePriority, 0, 0, 0, 0, 0, 0, 0) })
	f("PRIORITY of an idle stream on itself", ProtocolError, func(w *raw) { w.frame(framePriority, 0, 7, 0, 0, 0, 7, 0) })
	f("RST_STREAM on 0", ProtocolError, func(w *raw) { w.frame(frameRSTStream, 0, 0, 0, 0, 0, 8) })
	f("RST_STREAM of an idle stream", ProtocolError, func(w *raw) { w.frame(frameRSTStream, 0, 1, 0, 0, 0, 8) })
	f("RST_STREAM of another size", FrameSizeError, func(w *raw) { w.post(1).frame(frameRSTStream, 0, 1, 0, 0, 8) })
	f("SETTINGS on a stream", ProtocolError, func(w *raw) { w.frame(frameSettings, 0, 1) })
	f("SETTINGS of another size", FrameSizeError, func(w *raw) { w.frame(frameSettings, 0, 0, 1, 2, 3) })
	f("SETTINGS ack with content", FrameSizeError, func(w *raw) { w.frame(frameSettings, flagAck, 0, settings(1, 1)...) })
	f("ENABLE_PUSH 2", ProtocolError, func(w *raw) { w.frame(frameSettings, 0, 0, settings(2, 2)...) })
	f("INITIAL_WINDOW_SIZE too large", FlowControlError, func(w *raw) { w.frame(frameSettings, 0, 0, settings(4, 1<<31)...) })
	f("INITIAL_WINDOW_SIZE that overflows a stream's", FlowControlError, func(w *raw) {
		w.post(1).frame(frameWindowUpdate, 0, 1, u32(maxWindow-70000)...).frame(frameSettings, 0, 0, settings(4, 200000)...)
	})
	f("MAX_FRAME_SIZE too small", ProtocolError, func(w *raw) { w.frame(frameSettings, 0, 0, settings(5, 16383)...) })
	f("MAX_FRAME_SIZE too large", ProtocolError, func(w *raw) { w.frame(frameSettings, 0, 0, settings(5, 1<<24)...) })
	f("ENABLE_CONNECT_PROTOCOL 2", ProtocolError, func(w *raw) { w.frame(frameSettings, 0, 0, settings(8, 2)...) })
	f("ENABLE_CONNECT_PROTOCOL taken back", ProtocolError, func(w *raw) { w.frame(frameSettings, 0, 0, settings(8, 1, 8, 0)...) })
	f("NO_RFC7540_PRIORITIES 2", ProtocolError, func(w *raw) { w.frame(frameSettings, 0, 0, settings(9, 2)...) })
	f("PUSH_PROMISE", ProtocolError, func(w *raw) { w.post(1).frame(framePushPromise, flagEndHeaders, 1, 0, 0, 0, 2) })
	f("PING on a stream", ProtocolError, func(w *raw) { w.frame(framePing, 0, 1, make([]byte, 8)...) })
	f("PING of another size", FrameSizeError, func(w *raw) { w.frame(framePing, 0, 0, make([]byte, 7)...) })
	f("GOAWAY on a stream", ProtocolError, func(w *raw) { w.frame(frameGoAway, 0, 1, make([]byte, 8)...) })
	f("GOAWAY too short", FrameSizeError, func(w *raw) { w.frame(frameGoAway, 0, 0, make([]byte, 7)...) })
	f("WINDOW_UPDATE of another size", FrameSizeError, func(w *raw) { w.frame(frameWindowUpdate, 0, 0, 0, 0, 1) })
	f("WINDOW_UPDATE of an idle stream", ProtocolError, func(w *raw) { w.frame(frameWindowUpdate, 0, 1, u32(1)...) })
	f("WINDOW_UPDATE of nothing", ProtocolError, func(w *raw) { w.frame(frameWindowUpdate, 0, 0, u32(0)...) })
	f("WINDOW_UPDATE that overflows", FlowControlError, func(w *raw) { w.frame(frameWindowUpdate, 0, 0, u32(maxWindow)...) })
	f("PRIORITY_UPDATE on a stream", ProtocolError, func(w *raw) { w.frame(framePriorityUpdate, 0, 1, u32(1)...) })
	f("PRIORITY_UPDATE too short", FrameSizeError, func(w *raw) { w.frame(framePriorityUpdate, 0, 0, 0) })
	f("PRIORITY_UPDATE of 0", ProtocolError, func(w *raw) { w.frame(framePriorityUpdate, 0, 0, u32(0)...) })
}

// TestOpening has how a connection must begin.
func TestOpening(t *testing.T) {
	f := func(name string, role Role, in string, want *Error) {
		t.Helper()
		for _, step := range []int{1, 5, len(in)} {
			e := newEnd(role, Options{})
			for rest := in; len(rest) > 0; {
				n := min(step, len(rest))
				e.receive([]byte(rest[:n]))
				rest = rest[n:]
			}
			if want == nil && e.err != nil || want != nil && e.err != error(want) {
				t.Errorf("%s, %d bytes a time: %v, want %v", name, step, e.err, want)
			}
		}
	}
	ok := string(newRaw().frame(frameSettings, 0, 0).b)
	f("preface and SETTINGS", Server, Preface+ok, nil)
	f("a part of the preface", Server, Preface[:20], nil)
	f("HTTP/1", Server, "GET / HTTP/1.1\r\n\r\n", errPreface)
	f("the wrong preface", Server, Preface[:22]+"xx", errPreface)
	f("no SETTINGS", Server, Preface+string(newRaw().get(1).b), errFirstFrame)
	f("an acknowledgement first", Server, Preface+string(newRaw().frame(frameSettings, flagAck, 0).b), errFirstFrame)
	f("SETTINGS", Client, ok, nil)
	f("no SETTINGS from the server", Client, string(newRaw().frame(framePing, 0, 0, make([]byte, 8)...).b), errFirstFrame)
	f("HTTP/1 from the server", Client, "HTTP/1.1 400 Bad Request\r\n\r\n", errFrameSize)
	f("a preface from the server", Client, Preface, errFrameSize)
}

// TestStreamErrors has what ends one stream of a server: the others go on.
func TestStreamErrors(t *testing.T) {
	f := func(name, want string, write func(w *raw)) {
		t.Run(name, func(t *testing.T) {
			k := newRawServer(t, Options{})
			write(k.w)
			k.get(t, 99, want)
		})
	}
	f("DATA behind the end", "RST_STREAM 1 STREAM_CLOSED", func(w *raw) { w.get(1).frame(frameData, 0, 1, 'a') })
	f("HEADERS behind the end", "RST_STREAM 1 STREAM_CLOSED", func(w *raw) { w.get(1).get(1) })
	f("trailers that do not end", "RST_STREAM 1 PROTOCOL_ERROR", func(w *raw) { w.post(1).head(0, 1, "a", "b") })
	f("pseudo-header field in trailers", "RST_STREAM 1 PROTOCOL_ERROR", func(w *raw) { w.post(1).head(flagEndStream, 1, ":method", "GET") })
	f("connection-specific field in trailers", "RST_STREAM 1 PROTOCOL_ERROR", func(w *raw) { w.post(1).head(flagEndStream, 1, "upgrade", "a") })
	f("DATA over the window", "RST_STREAM 1 FLOW_CONTROL_ERROR", func(w *raw) {
		w.post(1)
		for range 4 {
			w.frame(frameData, 0, 1, make([]byte, 16384)...)
		}
		w.frame(frameData, 0, 1, 'a')
	})
	f("HEADERS that depend on themselves", "RST_STREAM 1 PROTOCOL_ERROR", func(w *raw) {
		w.frame(frameHeaders, flagEndHeaders|flagEndStream|flagPriority, 1, append([]byte{0, 0, 0, 1, 9}, w.block(simple...)...)...)
	})
	f("PRIORITY of another size", "RST_STREAM 1 FRAME_SIZE_ERROR", func(w *raw) { w.post(1).frame(framePriority, 0, 1, 0, 0, 0, 0) })
	f("PRIORITY on itself", "RST_STREAM 1 PROTOCOL_ERROR", func(w *raw) { w.post(1).frame(framePriority, 0, 1, 0, 0, 0, 1, 9) })
	f("WINDOW_UPDATE of nothing", "RST_STREAM 1 PROTOCOL_ERROR", func(w *raw) { w.get(1).frame(frameWindowUpdate, 0, 1, u32(0)...) })
	f("WINDOW_UPDATE that overflows", "RST_STREAM 1 FLOW_CONTROL_ERROR", func(w *raw) { w.get(1).frame(frameWindowUpdate, 0, 1, u32(maxWindow)...) })
	f("more than Content-Length", "RST_STREAM 1 PROTOCOL_ERROR", func(w *raw) {
		w.head(0, 1, with(simple, ":method", "POST", "content-length", "3")...).frame(frameData, 0, 1, []byte("four")...)
	})
	f("less than Content-Length", "RST_STREAM 1 PROTOCOL_ERROR", func(w *raw) {
		w.head(0, 1, with(simple, ":method", "POST", "content-length", "3")...).frame(frameData, 0, 1, []byte("ab")...).frame(frameData, flagEndStream, 1)
	})
	f("less than Content-Length, with trailers", "RST_STREAM 1 PROTOCOL_ERROR", func(w *raw) {
		w.head(0, 1, with(simple, ":method", "POST", "content-length", "3")...).frame(frameData, 0, 1, []byte("ab")...).head(flagEndStream, 1, "a", "b")
	})
}

// get sends a good request on a stream after what was written, and looks at all that comes back.
func (k *rawServer) get(t *testing.T, id uint32, want string) {
	t.Helper()
	k.w.get(id)
	k.send()
	if s := k.s[id]; s == nil {
		t.Errorf("the next request does not come through; %v", k.err)
	} else {
		s.Respond(reply(204, 0), true)
		s.Release()
	}
	want += "\nHEADERS " + fmt.Sprint(id) + " :status=204 end"
	if got := k.r.show(k.take()); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if k.err != nil {
		t.Error(k.err)
	}
}

// TestIgnored has frames that change nothing.
func TestIgnored(t *testing.T) {
	f := func(name string, write func(w *raw)) {
		t.Run(name, func(t *testing.T) {
			k := newRawServer(t, Options{})
			write(k.w)
			k.get(t, 99, "")
		})
	}
	f("unknown type", func(w *raw) { w.frame(0x55, 0xff, 0, 1, 2, 3).frame(0x56, 0, 77) })
	f("PRIORITY of an idle stream", func(w *raw) { w.frame(framePriority, 0, 97, 0, 0, 0, 1, 9) })
	f("PRIORITY_UPDATE", func(w *raw) { w.frame(framePriorityUpdate, 0, 0, append(u32(99), "u=1"...)...) })
	f("the acknowledgement of SETTINGS", func(w *raw) { w.frame(frameSettings, flagAck, 0) })
	f("PONG that nobody asked for", func(w *raw) { w.frame(framePing, flagAck, 0, make([]byte, 8)...) })
	f("priority and padding with HEADERS", func(w *raw) {
		w.frame(frameHeaders, flagEndHeaders|flagEndStream|flagPriority|flagPadded, 1, append(append([]byte{3, 0, 0, 0, 7, 9}, w.block(simple...)...), 0, 0, 0)...)
	})
	f("GOAWAY of a client", func(w *raw) { w.frame(frameGoAway, 0, 0, make([]byte, 20)...) })
	f("RST_STREAM twice", func(w *raw) { w.get(1).frame(frameRSTStream, 0, 1, u32(8)...).frame(frameRSTStream, 0, 1, u32(8)...) })
	f("WINDOW_UPDATE behind the end", func(w *raw) {
		w.get(1).frame(frameRSTStream, 0, 1, u32(8)...).frame(frameWindowUpdate, 0, 1, u32(8)...)
	})
	f("reserved bits", func(w *raw) {
		w.frame(frameWindowUpdate, 0xf0, 1<<31, u32(1<<31|5)...).frame(frameHeaders, flagEndHeaders|flagEndStream|0x80, 1<<31|1, w.block(simple...)...)
	})
}

// TestGoneStreams has frames for streams that we have reset: they may be on their way, and their bytes come back.
func TestGoneStreams(t *testing.T) {
	k := newRawServer(t, Options{})
	k.w.post(1)
	k.send()
	k.s[1].Cancel(Cancel)
	k.s[1].Release()
	k.expect("RST_STREAM 1 CANCEL")
	for range 40 { // more than the connection's window in all
		k.w.frame(frameData, 0, 1, make([]byte, 16384)...)
	}
	k.w.head(flagEndStream, 1, "a", "b").frame(frameWindowUpdate, 0, 1, u32(8)...).frame(frameRSTStream, 0, 1, u32(8)...)
	k.expect("WINDOW_UPDATE 0 524288")
	k.log = nil
	k.get(t, 3, "")
	expect(t, k.end, "request 3 GET http://a / length 0 end true")

	// Those that ended in order are another matter.
	k.w.frame(frameData, 0, 3, 'a')
	k.expect("GOAWAY 3 STREAM_CLOSED")
}

func TestPing(t *testing.T) {
	k := newRawServer(t, Options{})
	k.w.frame(framePing, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)
	k.expect("PING 0102030405060708 ack 1")
	k.Ping(42)
	k.w.frame(framePing, flagAck, 0, 0, 0, 0, 0, 0, 0, 0, 42)
	k.expect("PING 000000000000002a ack 0")
	if len(k.pongs) != 1 || k.pongs[0] != 42 {
		t.Error(k.pongs)
	}
}

// TestContinuation sends heads in several frames, and large ones.
func TestContinuation(t *testing.T) {
	k := newRawServer(t, Options{})
	b := k.w.block(with(simple, "x-large", strings.Repeat("y", 8000))...)
	k.w.frame(frameHeaders, flagEndStream, 1, b[:3]...).frame(frameContinuation, 0, 1, b[3:7]...).frame(frameContinuation, 0, 1).
		frame(frameContinuation, flagEndHeaders, 1, b[7:]...)
	k.expect()
	expect(t, k.end, "request 1 GET http://a / x-large="+strings.Repeat("y", 8000)+" length 0 end true")

	p := newPair(Options{}, Options{Limits: k.o.Limits})
	var fields []string
	for i := range 7 {
		fields = append(fields, fmt.Sprint("x-", i), strings.Repeat("z", 8000))
	}
	p.server.request = func(s *Stream, r *message.Request, _ bool) {
		res := reply(200, 0, fields...)
		s.Respond(res, true)
		s.Release()
	}
	for range 3 {
		s := open(t, p, get("/", fields...), true)
		p.run()
		if !strings.HasPrefix(p.server.took(), "request") || !strings.HasPrefix(p.client.took(), "response") {
			t.Error(p.server.err, p.client.err)
		}
		s.Release()
	}
}
