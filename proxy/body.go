package proxy

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// source is a body as it comes: an inflow of HTTP/1, or a stream of HTTP/2 (mux.Call).
type source interface {
	// Next returns what is there of the body, nothing where it has to be waited for; end says that nothing follows. The
	// piece is valid until the next call.
	Next() (p []byte, end bool, err error)
	// Wait waits for more.
	Wait() error
	// Trailers returns, after the end, the fields behind the body; nil where there were none.
	Trailers() *message.Head
}

// sink is where a body goes: an outflow of HTTP/1, or a stream of HTTP/2 (mux.Call).
type sink interface {
	// Send sends a piece, end saying that nothing follows. The piece need not be kept.
	Send(p []byte, end bool) error
	// SendTrailers ends the body with fields.
	SendTrailers(t *message.Head) error
	// Flush sends what Send was given and holds back.
	Flush() error
}

// carry moves a body from src to dst; each piece leaves as it comes. It returns how many bytes that was, and what failed on
// which side. count, where it is not nil, counts the gRPC messages that pass.
func carry(dst sink, src source, count *telemetry.Messages) (n int64, failed, lost error) {
	for {
		p, end, err := src.Next()
		if err != nil {
			return n, nil, err
		}
		if count != nil {
			count.Feed(p)
		}
		n += int64(len(p))
		switch {
		case end:
			if t := src.Trailers(); t != nil && t.Len() > 0 {
				if len(p) > 0 {
					if err := dst.Send(p, false); err != nil {
						return n, err, nil
					}
				}
				err = dst.SendTrailers(t)
			} else {
				err = dst.Send(p, true)
			}
			if err == nil {
				err = dst.Flush()
			}
			return n, err, nil
		case len(p) > 0:
			if err := dst.Send(p, false); err != nil {
				return n, err, nil
			}
		default:
			if err := dst.Flush(); err != nil {
				return n, err, nil
			}
			if err := src.Wait(); err != nil {
				return n, nil, err
			}
		}
	}
}

// inflow is a body that comes in HTTP/1's framing.
type inflow struct {
	link *link.Link
	buf  **link.Buffer // what was received and not yet used
	// left is what is yet to come of a body whose length is known, or UnknownLength.
	left       int64
	untilClose bool // it ends with the connection
	ended      bool
	chunks     http1.Chunks
	fields     *message.Head // takes the trailers
	limits     *http1.Limits
	used       int   // bytes of the piece given last, framing included; still in the buffer
	bytes      int64 // that the body took so far, framing included
	// taken says that all of the body has been received: the connection is free for the next message. It is set before the
	// last piece is given, as who gets it may answer before its giver runs on.
	taken atomic.Bool
}

// begin makes f the body of n bytes, or of UnknownLength, that stands behind the head.
func (f *inflow) begin(l *link.Link, buf **link.Buffer, n int64, untilClose bool, trailers *message.Head, lim *http1.Limits) {
	f.link, f.buf, f.left, f.untilClose, f.fields, f.limits = l, buf, n, untilClose, trailers, lim
	f.ended, f.used, f.bytes = false, 0, 0
	f.chunks.Reset()
	f.taken.Store(false)
}

// Next gives what the buffer has.
func (f *inflow) Next() (p []byte, end bool, err error) {
	f.skip()
	b := *f.buf
	if b == nil || b.Len() == 0 {
		return nil, f.ended, nil
	}
	switch {
	case f.untilClose:
		p, f.used = b.Bytes(), b.Len()
	case f.left >= 0:
		f.used = int(min(f.left, int64(b.Len())))
		p = b.Bytes()[:f.used]
		f.left -= int64(f.used)
		f.ended = f.left == 0
	default:
		p, f.used, f.ended, err = f.chunks.Next(b.Bytes(), f.fields, f.limits)
		if err != nil {
			f.used = 0
			return nil, false, err
		}
	}
	f.bytes += int64(f.used)
	if f.ended {
		f.taken.Store(true)
	}
	return p, f.ended, nil
}

// skip drops the piece that was given last: whatever became of it, it must not be read as another message.
func (f *inflow) skip() {
	if f.used > 0 {
		(*f.buf).Skip(f.used)
		f.used = 0
	}
}

// Wait waits for more; no buffer is held meanwhile, unless it has half a chunk's line.
func (f *inflow) Wait() (err error) {
	f.skip()
	if b := *f.buf; b != nil {
		if b.Len() > 0 {
			return f.link.More(b)
		}
		link.PutBuffer(b)
		*f.buf = nil
	}
	*f.buf, err = f.link.Receive()
	if f.untilClose && errors.Is(err, io.EOF) {
		f.ended, err = true, nil
	}
	return err
}

// Trailers returns the fields behind a chunked body.
func (f *inflow) Trailers() *message.Head { return f.fields }

// outflow is a body that goes out in HTTP/1's framing.
type outflow struct {
	link    *link.Link
	out     []byte // a head and small pieces that wait for company
	chunked bool
	raw     bool // the end is that of the connection's sending side
	// ahead, where it is not nil, has the first piece in a buffer with room for the head before it.
	ahead   *inflow
	started *bool          // set once something was written
	bytes   *int64         // written
	mark    *atomic.Uint32 // odd while something is being written; nil where nobody wants to know
}

// maxHeld is how many bytes of small pieces wait for company at most.
const maxHeld = 32 << 10

// Send writes a piece, or adds it to those that wait.
func (f *outflow) Send(p []byte, end bool) error {
	if f.chunked {
		f.out = appendChunk(f.out, p)
		if end {
			f.out = http1.AppendLastChunk(f.out, nil)
		}
		if len(f.out) > maxHeld {
			return f.Flush()
		}
		return nil
	}
	switch {
	case len(p) == 0 && end && f.raw:
		return f.link.CloseWrite()
	case len(p) == 0:
		return nil
	case len(f.out) == 0 && f.raw && end:
		if err := f.write(p); err != nil {
			return err
		}
		return f.link.CloseWrite()
	case len(f.out) == 0:
		return f.write(p)
	}
	whole, ok := []byte(nil), false
	if f.ahead != nil && len(p) == f.ahead.used {
		whole, ok = (*f.ahead.buf).Lead(f.out, len(p))
	}
	if !ok {
		f.out = append(f.out, p...)
		whole = f.out
	}
	err := f.write(whole)
	f.out = f.out[:0]
	return err
}

// SendTrailers ends a chunked body with fields; another form has no place for them.
func (f *outflow) SendTrailers(t *message.Head) error {
	if f.chunked {
		f.out = http1.AppendLastChunk(f.out, t)
	}
	return nil
}

// Flush writes what waits.
func (f *outflow) Flush() error {
	if len(f.out) == 0 {
		return nil
	}
	err := f.write(f.out)
	f.out = f.out[:0]
	return err
}

func (f *outflow) write(p []byte) error {
	*f.started = true
	if f.mark != nil {
		f.mark.Add(1)
		defer f.mark.Add(1)
	}
	n, err := f.link.Write(p)
	*f.bytes += int64(n)
	return err
}

func appendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = append(http1.AppendChunkHead(dst, len(data)), data...)
	return append(dst, '\r', '\n')
}
