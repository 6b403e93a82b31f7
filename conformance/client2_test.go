package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// client2 is a connection of HTTP/2 that sends whatever frames it is told to.
type client2 struct {
	t testing.TB
	net.Conn
	fr      *http2.Framer
	enc     *hpack.Encoder
	block   bytes.Buffer
	next    uint32
	streams map[uint32]*stream2
	code    *http2.ErrCode // of GOAWAY
	over    error          // how the connection ended
	quiet   bool           // opens no windows
}

// stream2 is what came for a stream.
type stream2 struct {
	heads []string // the status of each, "trailers" for a section without one
	last  *http2.MetaHeadersFrame
	body  bytes.Buffer
	end   bool
	reset *http2.ErrCode
}

// dial2 opens a connection in the clear, by prior knowledge.
func dial2(t testing.TB, address string, settings ...http2.Setting) *client2 {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return over2(t, nc, settings...)
}

// over2 begins HTTP/2 on a connection.
func over2(t testing.TB, nc net.Conn, settings ...http2.Setting) *client2 {
	t.Helper()
	c := &client2{t: t, Conn: nc, fr: http2.NewFramer(nc, nc), next: 1, streams: map[uint32]*stream2{}}
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.fr.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.block)
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.fr.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return c
}

// open sends HEADERS on a new stream.
func (c *client2) open(end bool, fields ...[2]string) uint32 {
	id := c.next
	c.next += 2
	c.headers(id, end, fields)
	return id
}

func (c *client2) headers(id uint32, end bool, fields [][2]string) {
	const most = 16 << 10 // of a frame
	block := encode(c.enc, &c.block, fields)
	first := block[:min(len(block), most)]
	block = block[len(first):]
	// What comes of a failed write is told by what is read.
	_ = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(block) == 0, EndStream: end})
	for len(block) > 0 {
		piece := block[:min(len(block), most)]
		block = block[len(piece):]
		_ = c.fr.WriteContinuation(id, len(block) == 0, piece)
	}
}

// get asks for a path.
func (c *client2) get(path string) uint32 { return c.open(true, request2("GET", path)...) }

// request2 has the pseudo-header fields of a request.
func request2(method, path string) [][2]string {
	return [][2]string{{":method", method}, {":scheme", "http"}, {":authority", "app"}, {":path", path}}
}

// of returns what came for a stream.
func (c *client2) of(id uint32) *stream2 {
	s := c.streams[id]
	if s == nil {
		s = &stream2{}
		c.streams[id] = s
	}
	return s
}

// step reads a frame and does what a client must; false says that the connection is over.
func (c *client2) step() bool {
	if c.over != nil {
		return false
	}
	f, err := c.fr.ReadFrame()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.over = errHang
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && errors.As(err, new(http2.StreamError)):
		c.over = fmt.Errorf("malformed: %w: %w", err, c.fr.ErrorDetail())
	case err != nil:
		c.over = errClose
	}
	if c.over != nil {
		return false
	}
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			_ = c.fr.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = c.fr.WritePing(true, f.Data)
		}
	case *http2.MetaHeadersFrame:
		s := c.of(id)
		status := f.PseudoValue("status")
		if status == "" {
			status = "trailers"
		}
		s.heads, s.last, s.end = append(s.heads, status), f, f.StreamEnded()
	case *http2.DataFrame:
		s := c.of(id)
		s.body.Write(f.Data())
		s.end = f.StreamEnded()
		if n := f.Header().Length; n > 0 && !c.quiet {
			_ = c.fr.WriteWindowUpdate(0, n)
			if !s.end {
				_ = c.fr.WriteWindowUpdate(id, n)
			}
		}
	case *http2.RSTStreamFrame:
		code := f.ErrCode
		c.of(id).reset = &code
	case *http2.GoAwayFrame:
		code := f.ErrCode
		c.code = &code
	}
	return true
}

// await reads until the stream is over and returns what came of it, in the words of the tables.
func (c *client2) await(id uint32) string {
	s := c.of(id)
	for !s.end && s.reset == nil && c.step() {
	}
	return c.said(s)
}

// said is what came for a stream, in the words of the tables.
func (c *client2) said(s *stream2) string {
	did := s.heads
	switch {
	case s.end:
	case s.reset != nil:
		did = append(did, "reset", s.reset.String())
	case c.code != nil && *c.code != http2.ErrCodeNo:
		did = append(did, "goaway", c.code.String())
	case c.over != nil:
		did = append(did, c.over.Error())
	}
	return strings.Join(did, " ")
}

// play sends a case's frames.
func (c *client2) play(id uint32, frames []frame) {
	for _, f := range frames {
		switch f.kind {
		case "headers":
			c.headers(id, f.end, f.fields)
		case "data":
			_ = c.fr.WriteData(id, f.end, f.data)
		}
	}
}

// play2 is play for a client of HTTP/2: one stream, and a probe on another.
func (s *scenario) play2(t testing.TB, address string) (answer string) {
	t.Helper()
	c := dial2(t, address)
	defer c.Close()
	id := c.next
	c.next += 2
	c.play(id, s.frames)
	if s.want == "200 open" {
		k := c.of(id)
		for len(k.heads) == 0 && k.reset == nil && c.step() {
		}
		if answer = c.said(k); answer == "200" && !k.end {
			answer += " open"
		}
		_ = c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
	} else {
		answer = c.await(id)
	}
	if c.code != nil || c.over != nil {
		return answer
	}
	id = c.get(probe)
	if did := c.await(id); did != "200" || c.of(id).body.String() != probe {
		answer += ", and then " + did
	}
	return answer
}
