package load

import (
	"bytes"

	coder "golang.org/x/net/http2/hpack"

	"github.com/outrider-mesh/outrider/wire/http2/hpack"
)

// encoder makes the header blocks that one end of a connection sends, as most clients and servers do: each field enters
// the table the first time and is one byte from then on. So the same block soon comes out each time, and is kept.
type encoder struct {
	w     *coder.Encoder
	out   bytes.Buffer
	kept  [encodings][]byte // valid as long as the table is what it was
	table int               // how often the table has changed
	at    [encodings]int    // the table's state of each kept block
}

// encodings is how many different blocks one connection keeps.
const encodings = 8

func newEncoder() *encoder {
	e := &encoder{}
	e.w = coder.NewEncoder(&e.out)
	return e
}

// limit takes the peer's SETTINGS_HEADER_TABLE_SIZE.
func (e *encoder) limit(size uint32) {
	e.w.SetMaxDynamicTableSizeLimit(size)
	e.table++
}

// block returns the header block of fields, which kind stands for. It is valid until the next call.
func (e *encoder) block(kind int, fields []Field) []byte {
	if e.kept[kind] != nil && e.at[kind] == e.table {
		return e.kept[kind]
	}
	e.out.Reset()
	for _, f := range fields {
		if err := e.w.WriteField(coder.HeaderField{Name: f.Name, Value: f.Value}); err != nil {
			panic("load: writing into memory does not fail: " + err.Error())
		}
	}
	b := e.out.Bytes()
	if !settled(b) {
		e.table++
		return b
	}
	e.kept[kind], e.at[kind] = bytes.Clone(b), e.table
	return b
}

// settled says whether a block is made of table entries only, so that it neither changes a table nor says anything new.
func settled(b []byte) bool {
	for i := 0; i < len(b); i++ {
		if b[i]&0x80 == 0 {
			return false
		}
		if b[i] != 0xff {
			continue
		}
		for i++; i < len(b) && b[i]&0x80 != 0; i++ { // the rest of a long index
		}
	}
	return true
}

// meaning is what a header block says, as far as it matters here.
type meaning struct {
	status     int // of a response; 0 in trailers
	length     int // Content-Length; -1 where there is none
	grpcStatus int // -1 where there is none
	ask        ask // of a request
}

// ask is what a request's path asks the backend for.
type ask int

// The two gRPC methods; any other ask is the size of the wanted answer.
const (
	askNothing ask = -1 - iota
	askUnary
	askStream
)

// decoder reads the header blocks of one direction. What it has read once, and would read the same again, it remembers.
type decoder struct {
	r     hpack.Decoder
	known [4]struct {
		block []byte
		m     meaning
	}
	next int // of known, to be written next
}

func newDecoder() *decoder {
	d := &decoder{}
	d.r.Init(hpack.DefaultTableSize)
	return d
}

// read returns what a whole block says.
func (d *decoder) read(block []byte) (meaning, error) {
	for i := range d.known {
		if k := &d.known[i]; len(k.block) > 0 && bytes.Equal(k.block, block) {
			return k.m, nil
		}
	}
	m := meaning{length: -1, grpcStatus: -1, ask: askNothing}
	d.r.Begin()
	for rest := block; len(rest) > 0; {
		n, ok, err := d.r.Next(rest)
		if err != nil {
			return m, err
		}
		rest = rest[n:]
		if ok {
			m.note(d.r.Field.Name, d.r.Field.Value)
		}
	}
	if !settled(block) {
		for i := range d.known { // they may mean something else now
			d.known[i].block = d.known[i].block[:0]
		}
		return m, nil
	}
	k := &d.known[d.next]
	d.next = (d.next + 1) % len(d.known)
	k.block, k.m = append(k.block[:0], block...), m
	return m, nil
}

func (m *meaning) note(name, value []byte) {
	switch string(name) {
	case ":status":
		m.status = number(value)
	case "content-length":
		m.length = number(value)
	case "grpc-status":
		m.grpcStatus = number(value)
	case ":path":
		m.ask = asked(value)
	}
}

// asked returns what a path asks for: its last segment is a number of bytes or one of two methods.
func asked(path []byte) ask {
	last := path[bytes.LastIndexByte(path, '/')+1:]
	switch string(last) {
	case "Get":
		return askUnary
	case "Watch":
		return askStream
	}
	return ask(number(last))
}
