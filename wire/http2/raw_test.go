package http2

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	ref "golang.org/x/net/http2/hpack"

	"github.com/outrider-mesh/outrider/wire/message"
)

// raw writes frames as a peer may that does not care for rules.
type raw struct {
	b   []byte
	enc *ref.Encoder
	buf strings.Builder
}

func newRaw() *raw {
	w := new(raw)
	w.enc = ref.NewEncoder(&w.buf)
	return w
}

func (w *raw) frame(t frameType, flags uint8, id uint32, payload ...byte) *raw {
	w.b = append(appendFrame(w.b, len(payload), t, flags, id), payload...)
	return w
}

func (w *raw) text(s string) *raw { w.b = append(w.b, s...); return w }

// block compresses fields, given as name and value in turn.
func (w *raw) block(fields ...string) []byte {
	w.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = w.enc.WriteField(ref.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return []byte(w.buf.String())
}

func (w *raw) head(flags uint8, id uint32, fields ...string) *raw {
	return w.frame(frameHeaders, flags|flagEndHeaders, id, w.block(fields...)...)
}

var simple = []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}

func (w *raw) get(id uint32) *raw  { return w.head(flagEndStream, id, simple...) }
func (w *raw) post(id uint32) *raw { return w.head(0, id, with(simple, ":method", "POST")...) }

// with returns fields with another value for a name, or with one more field.
func with(fields []string, more ...string) []string {
	out := append([]string(nil), fields...)
	for i := 0; i < len(more); i += 2 {
		found := false
		for j := 0; j < len(out); j += 2 {
			if out[j] == more[i] && strings.HasPrefix(more[i], ":") {
				out[j+1], found = more[i+1], true
			}
		}
		if !found {
			out = append(out, more[i], more[i+1])
		}
	}
	return out
}

func without(fields []string, name string) (out []string) {
	for i := 0; i < len(fields); i += 2 {
		if fields[i] != name {
			out = append(out, fields[i], fields[i+1])
		}
	}
	return out
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func settings(pairs ...uint32) (b []byte) {
	for i := 0; i < len(pairs); i += 2 {
		b = appendSetting(b, setting(pairs[i]), pairs[i+1])
	}
	return b
}

// reader shows frames, one a line; it decodes header blocks.
type reader struct{ dec *ref.Decoder }

func newReader() *reader { return &reader{ref.NewDecoder(4096, nil)} }

func (r *reader) show(b []byte) string {
	var lines []string
	for len(b) > 0 {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		id, p := binary.BigEndian.Uint32(b[5:]), b[9:9+n]
		line, flags := "", b[4]
		switch frameType(b[3]) {
		case frameData:
			line = fmt.Sprintf("DATA %d %q", id, p)
		case frameHeaders:
			fields, err := r.dec.DecodeFull(p)
			line = fmt.Sprintf("HEADERS %d", id)
			for _, f := range fields {
				line += " " + f.Name + "=" + f.Value
			}
			if err != nil {
				line += " " + err.Error()
			}
		case frameRSTStream:
			line = fmt.Sprintf("RST_STREAM %d %s", id, Code(binary.BigEndian.Uint32(p)))
		case frameSettings:
			line = fmt.Sprintf("SETTINGS %d", len(p)/6)
			if flags&flagAck != 0 {
				line = "SETTINGS ack"
			}
		case framePing:
			line = fmt.Sprintf("PING %x ack %d", p, flags&flagAck)
		case frameGoAway:
			line = fmt.Sprintf("GOAWAY %d %s", binary.BigEndian.Uint32(p), Code(binary.BigEndian.Uint32(p[4:])))
		case frameWindowUpdate:
			line = fmt.Sprintf("WINDOW_UPDATE %d %d", id, binary.BigEndian.Uint32(p))
		default:
			line = fmt.Sprintf("FRAME %d", b[3])
		}
		if t := frameType(b[3]); flags&flagEndStream != 0 && (t == frameData || t == frameHeaders) {
			line += " end"
		}
		lines = append(lines, line)
		b = b[9+n:]
	}
	return strings.Join(lines, "\n")
}

// rawServer is a server whose client is a raw.
type rawServer struct {
	*end
	w *raw
	r *reader
	t *testing.T
	s map[uint32]*Stream
}

// newRawServer returns one that has got the preface and SETTINGS.
func newRawServer(t *testing.T, o Options) *rawServer {
	k := &rawServer{end: newEnd(Server, o), w: newRaw(), r: newReader(), t: t, s: map[uint32]*Stream{}}
	k.request = func(s *Stream, _ *message.Request, _ bool) { k.s[s.ID()] = s }
	k.w.text(Preface).frame(frameSettings, 0, 0)
	k.send()
	k.r.show(k.take())
	return k
}

func (k *rawServer) send() {
	k.receive(k.w.b)
	k.w.b = nil
}

// expect sends what was written and looks at the frames that come back.
func (k *rawServer) expect(want ...string) {
	k.t.Helper()
	k.send()
	if got := k.r.show(k.take()); got != strings.Join(want, "\n") {
		k.t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// rawClient is a client whose server is a raw.
type rawClient struct {
	*end
	w *raw
	r *reader
	t *testing.T
}

func newRawClient(t *testing.T, o Options) *rawClient {
	k := &rawClient{end: newEnd(Client, o), w: newRaw(), r: newReader(), t: t}
	k.w.frame(frameSettings, 0, 0)
	k.receive(k.w.b)
	k.w.b = nil
	k.r.show(k.take()[len(Preface):])
	return k
}

func (k *rawClient) open() *Stream {
	k.t.Helper()
	s, err := k.Open(get("/"), nil, true)
	if err != nil {
		k.t.Fatal(err)
	}
	k.r.show(k.take())
	return s
}

func (k *rawClient) expect(want ...string) {
	k.t.Helper()
	k.receive(k.w.b)
	k.w.b = nil
	if got := k.r.show(k.take()); got != strings.Join(want, "\n") {
		k.t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
