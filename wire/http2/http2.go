// Package http2 is an HTTP/2 engine (RFC 9113) for both roles that does no I/O: bytes in, calls and bytes out.
//
// A Conn is one connection. One goroutine, its reader, gives it what arrives (Receive) and gets calls about it
// (Handler). Any goroutine may send: sending appends frames to the connection's write buffer and never waits; whoever
// has sent something calls Flush when it has nothing more to add. What both sides need is behind one small mutex, which
// is never held during a call out of the package, so the reader of one connection may send on another while that one's
// reader sends on the first. There is no goroutine, channel or timer in here, and in steady state no allocation.
//
// Extended CONNECT (RFC 8441) is there; priorities (RFC 9218, and those of RFC 7540) are read over; push is refused.
package http2

import (
	"sync/atomic"

	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/message"
)

// Role says which end of a connection a Conn is.
type Role uint8

// The roles.
const (
	Server Role = iota
	Client
)

// Code is an error code (RFC 9113 §7).
type Code uint32

// The error codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
	"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String returns the code's name as RFC 9113 writes it.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "UNKNOWN"
}

// Error is why a connection or a stream ended, or a request was refused. There is one of each kind, made once.
type Error struct {
	Code Code
	// Status is what a refused request was, or would be, answered with: 400, 417 or 431; 0 where it is no request's fault.
	Status int
	// Reason is a sentence fit for a log; it holds no byte of the peer's.
	Reason string
	// limit is the counter of the limit that acted.
	limit limit
}

func (e *Error) Error() string { return e.Reason }

// Handler is told what a connection's peer does. Calls come from Receive and Close, on the reader's goroutine, and
// Writable also from Flush. They may call any method of any Conn and Stream but Receive.
//
// Another goroutine may Release or Cancel a stream while the reader is about to make a call for it. So the owner of a
// stream looks, under its own lock, whether the stream of the call is still the one that it has: a Stream serves no
// other request before the reader's next Receive, so comparing pointers tells.
type Handler interface {
	// Request comes with a new stream (server), its head complete and valid; end says that no body follows. r is the
	// connection's own and valid during the call: swap it with one of yours to keep it (*r, mine = mine, *r). Set s.Owner
	// here. The stream must be released in the end, whatever happens.
	Request(s *Stream, r *message.Request, end bool)
	// Refused tells of a request that was refused because of its head: the engine has answered it already, with e.Status
	// or with a reset. r holds what there is of the head, valid during the call.
	Refused(r *message.Request, e *Error)
	// Response comes with a response (client), and with each interim one (Status < 200) before. r is lent as in Request.
	Response(s *Stream, r *message.Response, end bool)
	// Data comes with a piece of the body, valid during the call; end says that it was the last, and then p may be empty.
	// p counts against the windows that we grant the peer until s.Consume gives it back.
	Data(s *Stream, p []byte, end bool)
	// Trailers ends the body with fields, valid during the call.
	Trailers(s *Stream, t *message.Head)
	// Reset tells that the stream has ended abnormally: by the peer (remote), or for an error that we found; Stream.Err
	// tells more of those. RefusedStream by the peer means that nothing was done: the request may be sent again. No call
	// follows for this stream.
	Reset(s *Stream, code Code, remote bool)
	// Writable tells that a stream on which Send did not take all can take more.
	Writable(s *Stream)
	// GoAway tells that the peer takes no further stream; those above last were Reset with RefusedStream before.
	GoAway(last uint32, code Code)
	// Pong comes with the answer to a Ping.
	Pong(data uint64)
	// Settings tells that the peer's settings have come or changed: see Room and ConnectProtocol.
	Settings()
}

// Options shape a connection. Zero fields take the defaults named with them.
type Options struct {
	// Limits bound a field section as wire/http1 bounds a head; Line is the limit of :path with the method. Each field
	// counts 32 bytes besides its name and value, as SETTINGS_MAX_HEADER_LIST_SIZE has it.
	Limits http1.Limits
	// MaxStreams is how many streams the peer may have open at once; default 100.
	MaxStreams uint32
	// StreamWindow and ConnWindow are how many bytes of body the peer may send ahead of Consume, on one stream and on all:
	// defaults 64 KiB and 1 MiB; at least 65535.
	StreamWindow, ConnWindow int32
	// WriteBuffer is how many bytes may wait to be flushed before Send takes no more; default 256 KiB.
	WriteBuffer int
	// ConnectProtocol lets clients use extended CONNECT (server).
	ConnectProtocol bool
	// Now is the time in nanoseconds from any fixed moment on. It is asked when a limit on frequency may have been
	// reached, not for each frame. Without it those limits are per connection and for its whole life.
	Now func() int64
	// Stats, if not nil, counts for many connections.
	Stats *Stats
	// FirstStream is the id of the first stream that a client opens: odd, 1 where it is 0. Any is allowed (RFC 9113 §5.1.1);
	// tests begin near the last one with it, which is LastStream.
	FirstStream uint32
}

// LastStream is the highest id that a stream can have. A connection whose ids are used up takes no further stream.
const LastStream = maxID

// Stats count how often each limit has acted, over all connections that share it. All but Heads and Refused ended a connection.
type Stats struct {
	// Heads counts requests and responses refused because their head is over Limits.
	Heads atomic.Uint64
	// Refused counts streams refused because the peer had as many open as it may.
	Refused atomic.Uint64
	// Resets counts connections ended for streams that the client opened and reset, or made us reset (CVE-2023-44487, CVE-2025-8671).
	Resets atomic.Uint64
	// Continuations counts header blocks of too many frames or bytes (CVE-2024-27316 and its kin).
	Continuations atomic.Uint64
	// Pings counts floods of PING (CVE-2019-9512).
	Pings atomic.Uint64
	// Settings counts floods of SETTINGS (CVE-2019-9515).
	Settings atomic.Uint64
	// Priorities counts floods of PRIORITY and PRIORITY_UPDATE (CVE-2019-9513).
	Priorities atomic.Uint64
	// Windows counts floods of WINDOW_UPDATE.
	Windows atomic.Uint64
	// Empties counts floods of frames with nothing in them, and of frames of unknown types (CVE-2019-9518).
	Empties atomic.Uint64
	// Interims counts floods of interim responses (client).
	Interims atomic.Uint64
	// Unread counts peers that made us answer and did not read the answers (CVE-2019-9511, CVE-2019-9517).
	Unread atomic.Uint64
}

func (o *Options) fill() {
	l, d := &o.Limits, &http1.DefaultLimits
	for _, f := range [...]struct {
		field *int
		value int
	}{{&l.Head, d.Head}, {&l.Fields, d.Fields}, {&l.Field, d.Field}, {&l.Line, d.Line}, {&o.WriteBuffer, 256 << 10}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = 100
	}
	if o.StreamWindow == 0 {
		o.StreamWindow = 64 << 10
	}
	if o.ConnWindow == 0 {
		o.ConnWindow = 1 << 20
	}
	o.StreamWindow, o.ConnWindow = max(o.StreamWindow, initialWindow), max(o.ConnWindow, initialWindow)
	if o.Now == nil {
		o.Now = func() int64 { return 0 }
	}
	if o.Stats == nil {
		o.Stats = new(Stats)
	}
}
