package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// newBackend2 is an application of HTTP/2 in the clear, which keeps each field and each byte of a body that reaches it.
func newBackend2(t testing.TB) *backend {
	b := &backend{}
	b.serve = b.serve2
	return b.start(t)
}

// arrival is a request that is under way.
type arrival struct {
	line, path string
	got        bytes.Buffer
}

// server2 is one connection of an application.
type server2 struct {
	b       *backend
	k       *taken
	fr      *http2.Framer
	enc     *hpack.Encoder
	block   bytes.Buffer
	streams map[uint32]*arrival
}

// serve2 answers what comes on a connection.
func (b *backend) serve2(c net.Conn, k *taken) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	s := &server2{b: b, k: k, fr: http2.NewFramer(c, c), streams: map[uint32]*arrival{}}
	s.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.enc = hpack.NewEncoder(&s.block)
	if s.fr.WriteSettings() != nil {
		return
	}
	for {
		f, err := s.fr.ReadFrame()
		if err != nil || !s.take(f) {
			return
		}
	}
}

// take handles a frame; false ends the connection.
func (s *server2) take(f http2.Frame) bool {
	id := f.Header().StreamID
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return f.IsAck() || s.fr.WriteSettingsAck() == nil
	case *http2.PingFrame:
		return f.IsAck() || s.fr.WritePing(true, f.Data) == nil
	case *http2.MetaHeadersFrame:
		a := s.streams[id]
		if a == nil {
			a = &arrival{}
			s.streams[id] = a
			a.line = f.PseudoValue("method") + " " + f.PseudoValue("path")
			a.path = f.PseudoValue("path")
		}
		for _, h := range f.Fields {
			fmt.Fprintf(&a.got, "%s: %s\r\n", h.Name, h.Value)
		}
		a.got.WriteString("\r\n")
		if f.StreamEnded() {
			return s.ended(id, a)
		}
	case *http2.DataFrame:
		a := s.streams[id]
		if a == nil {
			return true
		}
		a.got.Write(f.Data())
		if n := uint32(len(f.Data())); n > 0 {
			if s.fr.WriteWindowUpdate(0, n) != nil || !f.StreamEnded() && s.fr.WriteWindowUpdate(id, n) != nil {
				return false
			}
		}
		if f.StreamEnded() {
			return s.ended(id, a)
		}
	}
	return true
}

// ended answers a request.
func (s *server2) ended(id uint32, a *arrival) bool {
	delete(s.streams, id)
	special := s.b.special(a.path)
	if a.path != probe {
		_, _ = s.k.Write(a.got.Bytes())
	}
	s.k.whole(a.line, a.path)
	if special == nil {
		head := strings.HasPrefix(a.line, "HEAD ")
		if !s.headers(id, head, [][2]string{{":status", "200"}, {"content-length", fmt.Sprint(len(s.b.body(a.path)))}}) {
			return false
		}
		return head || s.fr.WriteData(id, true, []byte(s.b.body(a.path))) == nil
	}
	for _, f := range special.frames {
		ok := true
		switch f.kind {
		case "headers":
			ok = s.headers(id, f.end, f.fields)
		case "data":
			ok = s.fr.WriteData(id, f.end, f.data) == nil
		case "reset":
			ok = s.fr.WriteRSTStream(id, f.code) == nil
		case "goaway":
			_ = s.fr.WriteGoAway(id, f.code, nil)
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}

func (s *server2) headers(id uint32, end bool, fields [][2]string) bool {
	block := encode(s.enc, &s.block, fields)
	return s.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: end}) == nil
}

// encode makes a header block of any names and values.
func encode(enc *hpack.Encoder, b *bytes.Buffer, fields [][2]string) []byte {
	b.Reset()
	for _, f := range fields {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // a Buffer takes everything
	}
	return b.Bytes()
}
