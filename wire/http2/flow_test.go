package http2

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// TestSendWindows has a server that sends as its client's windows allow.
func TestSendWindows(t *testing.T) {
	k := newRawServer(t, Options{})
	k.w.frame(frameSettings, 0, 0, settings(uint32(settingWindow), 10)...).get(1).get(3)
	k.expect("SETTINGS ack")
	k.log = nil
	one, three := k.s[1], k.s[3]
	one.Respond(reply(200, -1), false)
	three.Respond(reply(200, -1), false)
	if n := one.Send([]byte("0123456789abcdef"), true); n != 10 {
		t.Error(n)
	}
	if n := one.Send([]byte("abcdef"), true); n != 0 {
		t.Error(n)
	}
	if n := three.Send([]byte("0123"), false); n != 4 { // its neighbour is not held up
		t.Error(n)
	}
	k.expect("HEADERS 1 :status=200", "HEADERS 3 :status=200", `DATA 1 "0123456789"`, `DATA 3 "0123"`)
	k.w.frame(frameWindowUpdate, 0, 3, u32(1)...).frame(frameWindowUpdate, 0, 1, u32(3)...)
	k.expect()
	expect(t, k.end, "writable 1")
	if n := one.Send([]byte("abcdef"), true); n != 3 {
		t.Error(n)
	}
	// The initial window shrinks below what was sent, and grows again.
	k.w.frame(frameSettings, 0, 0, settings(uint32(settingWindow), 5)...).frame(frameWindowUpdate, 0, 1, u32(5)...)
	k.expect(`DATA 1 "abc"`, "SETTINGS ack")
	expect(t, k.end)
	k.w.frame(frameSettings, 0, 0, settings(uint32(settingWindow), 7)...)
	k.expect("SETTINGS ack")
	expect(t, k.end, "writable 1")
	if n := one.Send([]byte("def"), true); n != 2 {
		t.Error(n)
	}
	k.writable = func(s *Stream) {
		if n := s.Send([]byte("f"), true); n != 1 {
			t.Error(n)
		}
	}
	k.w.frame(frameWindowUpdate, 0, 1, u32(100)...)
	k.expect(`DATA 1 "de"`, `DATA 1 "f" end`)
	expect(t, k.end, "writable 1")
	if k.Streams() != 1 {
		t.Error(k.Streams())
	}
	// What has ended takes everything and sends nothing.
	if n := one.Send([]byte("more"), true); n != 4 {
		t.Error(n)
	}
	one.Respond(reply(200, 0), true)
	one.SendTrailers(new(message.Head))
	one.Cancel(Cancel)
	k.expect()
}

// TestConnectionWindow has many streams that wait for the window of the connection: all get their turn.
func TestConnectionWindow(t *testing.T) {
	k := newRawServer(t, Options{WriteBuffer: 1 << 20})
	k.w.frame(frameSettings, 0, 0, settings(uint32(settingWindow), 1<<20)...)
	for i := range uint32(4) {
		k.w.get(2*i + 1)
	}
	k.send()
	k.take()
	k.log = nil
	left := map[*Stream]int{}
	piece := bytes.Repeat([]byte("x"), 1000)
	push := func(s *Stream) {
		for left[s] > 0 {
			p := piece[:min(len(piece), left[s])]
			n := s.Send(p, left[s] == len(p))
			if left[s] -= n; n < len(p) {
				return
			}
		}
	}
	k.writable = push
	for i := range uint32(4) {
		s := k.s[2*i+1]
		s.Respond(reply(200, -1), false)
		left[s] = 60000
		push(s)
	}
	sum := func() (n int) {
		for _, v := range left {
			n += v
		}
		return n
	}
	if got := 240000 - sum(); got != initialWindow {
		t.Errorf("%d bytes were sent in a window of %d", got, initialWindow)
	}
	for sum() > 0 {
		before := sum()
		k.w.frame(frameWindowUpdate, 0, 0, u32(5000)...)
		k.send()
		if got := before - sum(); got != min(5000, before) {
			t.Fatalf("%d bytes were sent in a window of 5000", got)
		}
		k.take()
		k.log = nil
	}
}

// TestReceiveWindows has a server that holds data back: the client is told of room as it is consumed.
func TestReceiveWindows(t *testing.T) {
	k := newRawServer(t, Options{StreamWindow: 100000, ConnWindow: 150000})
	k.w.post(1).post(3)
	for range 3 {
		k.w.frame(frameData, 0, 1, make([]byte, 16384)...)
	}
	k.expect()
	k.s[1].Consume(16384)
	k.s[1].Consume(16384)
	k.expect()
	k.s[1].Consume(16384)
	k.s[1].Consume(1 << 20) // more than there is
	k.w.frame(frameData, flagPadded, 1, append([]byte{99}, make([]byte, 900+99)...)...)
	k.expect()
	k.s[1].Consume(748) // with the padding and its length, half of the window
	k.expect("WINDOW_UPDATE 1 50000")
	// What its owner has not consumed comes back when the stream is released.
	k.w.frame(frameData, 0, 3, make([]byte, 16384)...).frame(frameData, flagEndStream, 3, make([]byte, 10000)...)
	k.send()
	k.s[3].Release()
	k.expect("RST_STREAM 3 CANCEL", fmt.Sprintf("WINDOW_UPDATE 0 %d", 50000+26384))
	// The peer's end needs no room.
	k.w.frame(frameData, flagEndStream, 1, make([]byte, 60)...)
	k.send()
	k.s[1].Consume(60)
	k.expect()
}

// TestWriteBuffer has a peer that does not read: Send stops, and Flush says when it goes on.
func TestWriteBuffer(t *testing.T) {
	k := newRawServer(t, Options{WriteBuffer: 40000})
	k.w.frame(frameSettings, 0, 0, settings(uint32(settingWindow), 1<<30)...).frame(frameWindowUpdate, 0, 0, u32(1<<30)...).get(1)
	k.send()
	k.take()
	s := k.s[1]
	s.Respond(reply(200, -1), false)
	total := 0
	for range 10 {
		total += s.Send(make([]byte, 16384), false)
	}
	if total < 40000 || total > 40000+2*frameMax || k.Pending() > 40000+2*frameMax {
		t.Errorf("%d taken, %d pending", total, k.Pending())
	}
	if n := s.Send(make([]byte, 1<<20), true); n != 0 {
		t.Error(n)
	}
	k.log = nil
	quota := 10000
	w := func(p []byte) (int, error) {
		n := min(len(p), quota)
		quota -= n
		return n, nil
	}
	if err := k.Flush(w); err != nil || len(k.log) > 0 {
		t.Error(err, k.log)
	}
	quota = 1 << 20
	if err := k.Flush(w); err != nil || k.Pending() != 0 {
		t.Error(err, k.Pending())
	}
	expect(t, k.end, "writable 1")
	if n := s.Send(make([]byte, 100), true); n != 100 {
		t.Error(n)
	}
	if err := k.Flush(func(p []byte) (int, error) { return 5, errors.New("broken") }); err == nil {
		t.Error("no error")
	}
	k.Ping(1)
	if k.Pending() != 0 || k.Flush(w) != nil {
		t.Error("sends on after an error")
	}
}

// TestFlushOnce has a flush within a flush, and what is appended meanwhile.
func TestFlushOnce(t *testing.T) {
	e := newEnd(Client, Options{})
	var got []string
	err := e.Flush(func(p []byte) (int, error) {
		got = append(got, fmt.Sprint(len(p)))
		if len(got) < 3 {
			e.Ping(1)
			if err := e.Flush(func([]byte) (int, error) { t.Error("two at once"); return 0, nil }); err != nil {
				t.Error(err)
			}
		}
		return len(p), nil
	})
	if first := len(Preface) + 9 + 3*6 + 13; err != nil || strings.Join(got, " ") != fmt.Sprint(first, 17, 17) {
		t.Error(got, err)
	}
}

func TestTrailers(t *testing.T) {
	p := newPair(Options{}, Options{})
	var at *Stream
	p.server.request = func(s *Stream, _ *message.Request, _ bool) { at = s }
	r := get("/")
	r.SetMethod([]byte("POST"))
	r.BodyLength = message.UnknownLength
	s := open(t, p, r, false)
	s.Send([]byte("up"), false)
	var up message.Head
	up.Add("X-Sum", "1")
	up.Add("Content-Length", "5")
	s.SendTrailers(&up)
	p.run()
	expect(t, p.server, "request 1 POST http://reviews:9080 / length -1 end false", `data 1 "up" end false`, "trailers 1 x-sum=1")
	at.Respond(reply(103, 0, "link", "x"), false)
	at.Respond(reply(200, -1, "content-type", "application/grpc"), false)
	at.Send([]byte("down"), false)
	var down message.Head
	down.Add("grpc-status", "0")
	at.SendTrailers(&down)
	p.run()
	expect(t, p.client, "response 1 103 link=x length 0 end false", "response 1 200 content-type=application/grpc length -1 end false", `data 1 "down" end false`, "trailers 1 grpc-status=0")
	if p.client.Streams()+p.server.Streams() != 0 {
		t.Error("not ended")
	}
	at.Release()
	s.Release()

	// Trailers with nothing to say end the body all the same.
	s = open(t, p, get("/"), true)
	p.run()
	at.Respond(reply(200, -1), false)
	at.SendTrailers(new(message.Head))
	p.run()
	expect(t, p.client, "response 3 200 length -1 end false", `data 3 "" end true`)
	s.Release()
	at.Release()
}

// TestReset has streams that end before their time, from either side.
func TestReset(t *testing.T) {
	p := newPair(Options{}, Options{})
	var at *Stream
	p.server.request = func(s *Stream, _ *message.Request, _ bool) { at = s }
	begin := func() *Stream {
		r := get("/")
		r.BodyLength = message.UnknownLength
		s := open(t, p, r, false)
		p.run()
		p.server.took()
		return s
	}
	s := begin()
	s.Cancel(Cancel)
	p.run()
	expect(t, p.server, "reset 1 CANCEL remote true")
	at.Respond(reply(200, 0), true)
	at.Release()
	s.Release()

	s = begin()
	at.Cancel(HTTP11Required)
	p.run()
	expect(t, p.client, "reset 3 HTTP_1_1_REQUIRED remote true")
	at.Release()
	s.Release()

	s = begin() // the response ends before the request
	at.Respond(reply(413, 0), true)
	at.Release()
	p.run()
	expect(t, p.client, "response 5 413 length 0 end true", "reset 5 NO_ERROR remote true")
	s.Release()
	s.Release()

	s = begin()
	s.Release()
	p.run()
	expect(t, p.server, "reset 7 CANCEL remote true")
	at.Release()
	p.run()
	if p.client.Streams()+p.server.Streams() != 0 || p.client.held+p.server.held != 0 || p.client.err != nil || p.server.err != nil {
		t.Error(p.client.held, p.server.held, p.client.err, p.server.err)
	}

	s = begin()
	p.client.Close(InternalError)
	p.server.Close(InternalError)
	expect(t, p.client, "reset 9 INTERNAL_ERROR remote true")
	expect(t, p.server, "reset 9 INTERNAL_ERROR remote true")
	if _, err := p.client.Open(get("/"), nil, true); !errors.Is(err, ErrNoStreams) {
		t.Error(err)
	}
	s.Release()
	at.Release()
}

// TestMaxStreams has a client that honours the limit, and one that does not.
func TestMaxStreams(t *testing.T) {
	p := newPair(Options{}, Options{MaxStreams: 3})
	p.run()
	if p.client.Room(0) != 3 {
		t.Error(p.client.Room(0))
	}
	var streams []*Stream
	for range 3 {
		streams = append(streams, open(t, p, get("/"), true))
	}
	if _, err := p.client.Open(get("/"), nil, true); !errors.Is(err, ErrNoStreams) {
		t.Error(err)
	}
	streams[1].Release()
	if _, err := p.client.OpenWithin(2, get("/"), nil, true); !errors.Is(err, ErrNoStreams) || p.client.Room(2) != 0 {
		t.Error("a bound of our own is passed over:", err)
	}
	open(t, p, get("/"), true)
	p.run()
	if p.server.err != nil || p.server.Streams() != 3 {
		t.Error(p.server.err, p.server.Streams())
	}

	k := newRawServer(t, Options{MaxStreams: 2})
	k.w.get(1).get(3).get(5)
	k.expect("RST_STREAM 5 REFUSED_STREAM")
	if k.o.Stats.Refused.Load() != 1 {
		t.Error("not counted")
	}
	k.s[1].Respond(reply(200, 0), true)
	k.w.get(7)
	k.expect("HEADERS 1 :status=200 content-length=0 end")
	k.s[7].Respond(reply(200, 0), true)
	k.s[3].Respond(reply(200, 0), true)
	// Streams that have ended count as long as they are not released.
	k.w.get(9).get(11)
	k.expect("HEADERS 7 :status=200 content-length=0 end", "HEADERS 3 :status=200 content-length=0 end", "RST_STREAM 11 REFUSED_STREAM")

	c := newRawClient(t, Options{FirstStream: LastStream - 2})
	if _, err := c.Open(get("/"), nil, true); err != nil || c.Room(0) != 1 {
		t.Error(err, c.Room(0))
	}
	if s, err := c.Open(get("/"), nil, true); err != nil || s.ID() != maxID {
		t.Error(err)
	}
	if _, err := c.Open(get("/"), nil, true); !errors.Is(err, ErrNoStreams) {
		t.Error(err)
	}
	c = newRawClient(t, Options{})
	c.w.frame(frameSettings, 0, 0, settings(uint32(settingHeaderList), 300)...)
	c.expect("SETTINGS ack")
	if _, err := c.Open(get("/", "a", strings.Repeat("b", 300)), nil, true); !errors.Is(err, ErrHead) || c.Pending() != 0 {
		t.Error(err)
	}
}

func TestGoAway(t *testing.T) {
	k := newRawClient(t, Options{})
	k.open()
	k.open()
	k.open()
	k.w.frame(frameGoAway, 0, 0, append(u32(3), u32(0)...)...)
	k.expect()
	expect(t, k.end, "reset 5 REFUSED_STREAM remote true: the peer takes no further stream on the connection", "goaway 3 NO_ERROR")
	if _, err := k.Open(get("/"), nil, true); !errors.Is(err, ErrNoStreams) || k.Room(0) != 0 {
		t.Error(err)
	}
	// It cannot take back what it has refused.
	k.w.frame(frameGoAway, 0, 0, append(u32(5), u32(11)...)...).head(flagEndStream, 1, ":status", "200").frame(frameGoAway, 0, 0, append(u32(1), u32(0)...)...)
	k.expect()
	expect(t, k.end, "goaway 3 ENHANCE_YOUR_CALM", "response 1 200 length 0 end true", "reset 3 REFUSED_STREAM remote true: the peer takes no further stream on the connection", "goaway 1 NO_ERROR")
}

// TestShutdown ends a connection gracefully: nothing that was sent meanwhile is lost.
func TestShutdown(t *testing.T) {
	k := newRawServer(t, Options{})
	k.w.get(1)
	k.send()
	k.Shutdown()
	k.w.get(3) // sent before it knew
	k.expect("GOAWAY 2147483647 NO_ERROR", fmt.Sprintf("PING %x ack 0", "outrider"))
	if k.s[3] == nil || k.Drained() {
		t.Error("the stream in between is not served")
	}
	k.w.frame(framePing, flagAck, 0, []byte("outrider")...)
	k.expect("GOAWAY 3 NO_ERROR")
	if !k.Drained() || k.Streams() != 2 || len(k.pongs) > 0 {
		t.Error(k.Drained(), k.Streams())
	}
	k.w.post(5).frame(frameData, flagEndStream, 5, 'a')
	k.s[1].Respond(reply(200, 0), true)
	k.s[3].Respond(reply(200, 0), true)
	k.Shutdown()
	k.expect("HEADERS 1 :status=200 content-length=0 end", "HEADERS 3 :status=200 content-length=0 end")
	if k.Streams() != 0 || k.s[5] != nil {
		t.Error(k.Streams())
	}

	p := newPair(Options{}, Options{})
	s := open(t, p, get("/"), true)
	p.server.request = func(s *Stream, _ *message.Request, _ bool) { s.Respond(reply(200, 0), true); s.Release() }
	p.server.Shutdown()
	p.server.Shutdown()
	p.client.Shutdown()
	p.run()
	if _, err := p.client.Open(get("/"), nil, true); !errors.Is(err, ErrNoStreams) || !p.client.Drained() {
		t.Error(err)
	}
	if got := p.client.took(); !strings.Contains(got, "goaway 0 NO_ERROR") || !strings.Contains(got, "reset 1 REFUSED_STREAM remote true") {
		t.Error(got) // both calls came before the request: it was refused, not lost
	}
	s.Release()
}

func TestSettings(t *testing.T) {
	p := newPair(Options{}, Options{ConnectProtocol: true, MaxStreams: 7})
	if p.client.ConnectProtocol() || p.client.Room(0) != 100 {
		t.Error("knows before it was told")
	}
	p.run()
	if !p.client.ConnectProtocol() || p.client.Room(0) != 7 || p.server.Room(0) != 0 {
		t.Error("not told")
	}
	k := newRawClient(t, Options{})
	if k.Room(0) != maxID/2+1 && k.Room(0) != maxID/2 {
		t.Error(k.Room(0))
	}
	k.w.frame(frameSettings, 0, 0, settings(uint32(settingPush), 1)...)
	k.expect("GOAWAY 0 PROTOCOL_ERROR")
	k = newRawClient(t, Options{})
	k.w.frame(framePushPromise, flagEndHeaders, 1, u32(2)...)
	k.expect("GOAWAY 0 PROTOCOL_ERROR")
	k = newRawClient(t, Options{})
	k.w.head(0, 2, ":status", "200")
	k.expect("GOAWAY 0 PROTOCOL_ERROR")
	k = newRawClient(t, Options{})
	k.w.head(0, 1, ":status", "200")
	k.expect("GOAWAY 0 PROTOCOL_ERROR")
}

// TestPrivate has fields that must go into no table, on their whole way.
func TestPrivate(t *testing.T) {
	p := newPair(Options{}, Options{})
	var kept message.Request
	p.server.request = func(_ *Stream, r *message.Request, _ bool) { *r, kept = kept, *r }
	r := get("/", "x-secret", "s", "x-open", "o", "authorization", "a")
	open(t, p, r, true)
	p.run()
	if kept.Private(0) || kept.Private(1) || !kept.Private(2) {
		t.Error("marks differ")
	}
	r = get("/", "x-open", "o", "x-secret", "s")
	r.SetPrivate()
	for range 3 {
		open(t, p, r, true)
		p.run()
		if kept.Private(0) || !kept.Private(1) {
			t.Error("marks differ")
		}
	}
}

// TestErrorNames holds the names of codes that others may see.
func TestErrorNames(t *testing.T) {
	if NoError.String() != "NO_ERROR" || HTTP11Required.String() != "HTTP_1_1_REQUIRED" || Code(99).String() != "UNKNOWN" {
		t.Error("names of codes")
	}
}

// TestChoked uses up the window that all streams share: what is given back for a small body does not open it.
func TestChoked(t *testing.T) {
	now := int64(0)
	k := newRawServer(t, Options{Now: func() int64 { return now }, WriteBuffer: 1 << 20})
	k.w.frame(frameSettings, 0, 0, settings(uint32(settingWindow), 1<<20)...).get(1)
	k.expect("SETTINGS ack")
	s := k.s[1]
	s.Respond(reply(200, -1), false)
	at := func(moment, want int64) {
		t.Helper()
		now = moment
		if got := k.Choked(); got != want {
			t.Errorf("used up since %d, want %d", got, want)
		}
	}
	send := func(n, want int) {
		t.Helper()
		if got := s.Send(make([]byte, n), false); got != want {
			t.Errorf("%d of %d bytes were taken, want %d", got, n, want)
		}
		k.send()
	}
	give := func(n uint32) {
		k.w.frame(frameWindowUpdate, 0, 0, u32(n)...)
		k.send()
	}
	send(65534, 65534)
	at(5, 0)
	send(10, 1)
	at(7, 5)
	give(100)
	at(8, 5)
	send(200, 100)
	at(9, 5)
	give(unchoked - 100)
	at(10, 0)
	send(unchoked, unchoked-100)
	at(11, 10)
}
