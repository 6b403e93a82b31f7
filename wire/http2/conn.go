package http2

import (
	"encoding/binary"
	"sync"

	"github.com/outrider-mesh/outrider/wire/http2/hpack"
	"github.com/outrider-mesh/outrider/wire/message"
)

// Conn is one connection, seen from one of its ends. See the package's comment for who may call what.
type Conn struct {
	role Role
	h    Handler
	o    Options

	// The reader's own.
	stage    stage
	dec      hpack.Decoder
	tallies  tallies
	block    block
	req      *message.Request // lent to Request; nil between calls of Receive
	res      *message.Response
	trailers message.Head
	crumbs   []byte // cookies being joined
	err      *Error

	// wmu guards all below, and the fields of streams that say so. It is held for a few lines at a time, never during a
	// call of the Handler or of Flush's writer.
	wmu      sync.Mutex
	enc      hpack.Encoder
	peer     peer
	streams  streams
	gone     gone
	lastID   uint32 // highest id of a stream that the peer opened (server) or we did (client)
	held     int    // streams that their owner has not released
	dead     *Stream
	drain    drain
	drainID  uint32 // with drained: streams above get no answer
	closed   bool   // nothing is sent any more
	away     bool   // the peer takes no further stream
	awayLast uint32
	out      output
	dataSent uint64 // DATA frames
	// sendWindow is what we may send on all streams together, recvWindow what the peer may, credit what it may send more but was not told.
	sendWindow, recvWindow, credit int32
	choked                         int64 // since when sendWindow has been used up; 0 while it is not
	opened                         int64 // by how many bytes the peer has opened it since
	blocked                        blocked
}

// stage is how far the opening of a connection has come.
type stage uint8

const (
	atPreface  stage = iota // the client's preface comes
	atSettings              // the peer's first SETTINGS come
	atFrames
)

// drain is how far a graceful shutdown has come.
type drain uint8

const (
	notDraining drain = iota
	announced         // the peer was told that the end is near; what it has opened meanwhile is still served
	drained           // the peer knows the last stream
)

// shutdownPing marks the PING that tells when the peer has seen the announcement.
const shutdownPing = 0x6f75747269646572

// peer is what the peer's settings say.
type peer struct {
	maxFrame   int
	window     int32
	maxStreams uint32
	headerList uint32 // 0 is no limit
	connect    bool
}

// New returns a connection whose write buffer holds what it begins with. Pings and such may come from any goroutine
// before the first Receive already, and so may Open: a client need not wait for the server's settings.
func New(role Role, h Handler, o Options) *Conn {
	o.fill()
	c := &Conn{role: role, h: h, o: o, sendWindow: initialWindow, recvWindow: o.ConnWindow}
	c.dec.Init(hpack.DefaultTableSize)
	c.enc.Init()
	c.tallies.start(o.Now())
	// Until it tells, the peer is taken to allow as many streams as most do.
	c.peer = peer{maxFrame: frameMax, window: initialWindow, maxStreams: 100}
	b := c.out.begin()
	if role == Client {
		c.stage = atSettings
		b = append(b, Preface...)
		c.lastID = max(o.FirstStream, 2) - 2
	}
	at := len(b)
	b = appendFrame(b, 0, frameSettings, 0, 0)
	if role == Client {
		b = appendSetting(b, settingPush, 0)
	} else {
		b = appendSetting(b, settingMaxStreams, o.MaxStreams)
		b = appendSetting(b, settingNoOldPriorities, 1)
		if o.ConnectProtocol {
			b = appendSetting(b, settingConnectProtocol, 1)
		}
	}
	b = appendSetting(b, settingWindow, uint32(o.StreamWindow))
	b = appendSetting(b, settingHeaderList, uint32(o.Limits.Head))
	putFrame(b[at:], len(b)-at-frameHead, frameSettings, 0, 0)
	if o.ConnWindow > initialWindow {
		b = appendWindowUpdate(b, 0, uint32(o.ConnWindow-initialWindow))
	}
	c.out.set(b)
	return c
}

// Receive handles every whole frame in b and returns how many bytes that was: call again with the rest and what came
// behind it. A frame has at most 16,393 bytes. After an error (*Error) the connection is over: a GOAWAY that says why is
// in the write buffer; flush, then Close.
func (c *Conn) Receive(b []byte) (n int, err error) {
	if c.err != nil {
		return 0, c.err
	}
	c.reap()
	if c.stage == atPreface {
		k := min(len(b), len(Preface))
		if string(b[:k]) != Preface[:k] {
			return 0, c.fail(errPreface)
		}
		if k < len(Preface) {
			return 0, nil
		}
		n, c.stage = k, atSettings
	}
	var e *Error
	for e == nil && len(b)-n >= frameHead {
		f := b[n:]
		length := int(f[0])<<16 | int(f[1])<<8 | int(f[2])
		if length > frameMax {
			e = errFrameSize
			break
		}
		if len(f) < frameHead+length {
			break
		}
		n += frameHead + length
		e = c.frame(frameType(f[3]), f[4], binary.BigEndian.Uint32(f[5:])&maxID, f[frameHead:frameHead+length:frameHead+length])
	}
	c.putHeads()
	if e != nil {
		return n, c.fail(e)
	}
	return n, nil
}

// frame handles one frame.
func (c *Conn) frame(t frameType, flags uint8, id uint32, p []byte) *Error {
	if c.stage == atSettings && (t != frameSettings || flags&flagAck != 0) {
		return errFirstFrame
	}
	if c.block.id != 0 && t != frameContinuation {
		return errInterleaved
	}
	switch t {
	case frameData:
		return c.data(flags, id, p)
	case frameHeaders:
		return c.headers(flags, id, p)
	case frameWindowUpdate:
		return c.windowUpdate(id, p)
	case frameRSTStream:
		return c.rstStream(id, p)
	case frameSettings:
		return c.settings(flags, id, p)
	case framePing:
		return c.ping(flags, id, p)
	case frameContinuation:
		return c.continuation(flags, id, p)
	case framePriority:
		return c.priority(id, p)
	case framePriorityUpdate:
		return c.priorityUpdate(id, p)
	case frameGoAway:
		return c.goAway(id, p)
	case framePushPromise:
		return errPush
	}
	return c.empty() // RFC 9113 §5.5
}

// fail ends the connection for an error.
func (c *Conn) fail(e *Error) *Error {
	c.err = e
	c.count(e)
	c.wmu.Lock()
	if !c.closed {
		last := c.lastID
		if c.role == Client {
			last = 0
		}
		c.out.set(appendGoAway(c.out.begin(), last, e.Code, e.Reason))
		c.closed = true
	}
	c.wmu.Unlock()
	return e
}

// Close ends the streams that are left, with calls of Reset with the code, and sends no more. It is called once, on the
// reader's goroutine, when the connection is gone.
func (c *Conn) Close(code Code) {
	c.wmu.Lock()
	c.closed = true
	for {
		s := c.streams.any()
		if s == nil {
			break
		}
		c.unlink(s)
		c.resetCall(s, code, true, nil)
	}
	c.out.discard()
	c.wmu.Unlock()
}

// resetCall gives the handler its last call for a stream, without the lock that it is called with.
func (c *Conn) resetCall(s *Stream, code Code, remote bool, e *Error) {
	s.err = e
	if s.released {
		return
	}
	c.wmu.Unlock()
	c.h.Reset(s, code, remote)
	c.wmu.Lock()
}

// Shutdown begins to end the connection gracefully: the peer is told so, what it opened before it knew is still served,
// and when it has answered a PING, or Shutdown is called again, it is told which stream was the last. The connection can
// be closed when Streams is 0 and Drained true. A client opens no more streams.
func (c *Conn) Shutdown() {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	switch {
	case c.closed || c.drain == drained:
	case c.role == Client:
		c.out.set(appendGoAway(c.out.begin(), 0, NoError, ""))
		c.drain = drained
	case c.drain == notDraining:
		b := appendGoAway(c.out.begin(), maxID, NoError, "")
		c.out.set(appendPing(b, 0, shutdownPing))
		c.drain = announced
	default:
		c.settle()
	}
}

// settle tells the peer which stream is the last.
func (c *Conn) settle() {
	c.out.set(appendGoAway(c.out.begin(), c.lastID, NoError, ""))
	c.drain, c.drainID = drained, c.lastID
}

// Drained says that no further stream will come: Shutdown has run its course.
func (c *Conn) Drained() bool {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.drain == drained
}

// Ping asks the peer for a sign of life: Handler.Pong brings data back.
func (c *Conn) Ping(data uint64) {
	c.wmu.Lock()
	if !c.closed {
		c.out.set(appendPing(c.out.begin(), 0, data))
	}
	c.wmu.Unlock()
}

// Streams returns how many streams are open.
func (c *Conn) Streams() int {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.streams.n
}

// Room returns how many more streams Open would open now (client), with no more than most open at a time; 0 sets no bound
// but the peer's. Others may open some before the caller does: OpenWithin keeps to the bound.
func (c *Conn) Room(most uint32) int {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.roomWithin(most)
}

func (c *Conn) roomWithin(most uint32) int {
	n := c.room()
	if most > 0 {
		n = min(n, int(most)-c.streams.n)
	}
	return max(n, 0)
}

// unchoked is by how many bytes the peer has to open the window that all share before it is not used up any more: what it
// gives back for small bodies of streams that have ended, the streams that it does not read use up at once.
const unchoked = 16 << 10

// Choked is since when the peer has let us send next to nothing on any stream, by Options.Now, as streams that it does not
// read have used up the window that all share; 0 while there is room.
func (c *Conn) Choked() int64 {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.choked
}

// Leaving says that no further stream can be opened here (client): the peer, or we, said so, or its ids are used up.
func (c *Conn) Leaving() bool {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.leaving()
}

func (c *Conn) leaving() bool {
	return c.closed || c.away || c.drain != notDraining || c.lastID > maxID-2
}

func (c *Conn) room() int {
	if c.leaving() || c.role == Server || c.flooded() {
		return 0
	}
	return max(0, min(int(c.peer.maxStreams)-c.streams.n, int(maxID-c.lastID)/2))
}

// ConnectProtocol says whether the server takes extended CONNECT (client).
func (c *Conn) ConnectProtocol() bool {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.peer.connect
}

// Unused heads of connections: an idle connection holds none.
var (
	requests  = sync.Pool{New: func() any { return new(message.Request) }}
	responses = sync.Pool{New: func() any { return new(message.Response) }}
)

// maxKeptHead is how much memory a pooled head may hold on to.
const maxKeptHead = 16 << 10

// putHeads gives the heads back.
func (c *Conn) putHeads() {
	if c.req != nil {
		if c.req.Footprint() <= maxKeptHead {
			requests.Put(c.req)
		}
		c.req = nil
	}
	if c.res != nil {
		if c.res.Footprint() <= maxKeptHead {
			responses.Put(c.res)
		}
		c.res = nil
	}
	if c.trailers.Footprint() > maxKeptHead/16 {
		c.trailers = message.Head{}
	}
	if cap(c.crumbs) > maxKeptHead/16 {
		c.crumbs = nil
	}
}
