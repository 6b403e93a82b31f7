package hpack

import (
	"bytes"
	"encoding/binary"

	"github.com/outrider-mesh/outrider/wire/message"
)

// Encoder writes the header blocks of one direction of a connection, in the order in which they are sent.
//
// It adds a field to the dynamic table when the same field comes a second time: request ids and the like, which never
// come again, push nothing out. Fields with secrets are never added. Strings are written as they are: Huffman coding
// would save some bytes for more CPU at both ends (docs/decisions/006).
type Encoder struct {
	table table
	// at has, by hash, the number of the entry that may hold the field; seen tells which field came last with that hash.
	at   [slots]uint32
	seen [slots]uint16
	// smallest is the smallest size that the table was told to have since the last block; with due, updates must be sent.
	smallest uint32
	due      bool
	lower    [longestLower]byte
}

const (
	slots = 128
	// longestLower is the longest name that is not known which goes into the table, and longestValue the longest value.
	longestLower = 64
	longestValue = 1 << 10
)

// Init makes e ready.
func (e *Encoder) Init() { *e = Encoder{table: table{max: DefaultTableSize}} }

// SetLimit takes the peer's SETTINGS_HEADER_TABLE_SIZE. We use no more than DefaultTableSize of it.
func (e *Encoder) SetLimit(size uint32) {
	size = min(size, DefaultTableSize)
	if size == e.table.max && !e.due {
		return
	}
	if !e.due || size < e.smallest {
		e.smallest = size
	}
	e.due = true
	e.table.resize(size)
}

// Begin opens a block: it appends the size updates that are due (§4.2).
func (e *Encoder) Begin(dst []byte) []byte {
	if !e.due {
		return dst
	}
	e.due = false
	if size := e.table.max; e.smallest < size {
		// The smallest size must be told too. Going through 0 does: x/net's decoder takes a second update for a
		// misplaced one unless the table is empty by then.
		e.table.resize(0)
		e.table.max = size
		dst = append(dst, 0x20)
	}
	return appendInteger(dst, 0x20, 5, e.table.max)
}

// secret are the fields that go into no table, ours or another's: guessing them by the size of what is sent gets nowhere.
const secret = uint64(1)<<message.Authorization | 1<<message.ProxyAuthorization | 1<<message.Cookie | 1<<message.SetCookie

// pseudoID keeps pseudo-header fields apart from the known ones in an entry's id.
const pseudoID = 0x80

// Append appends a field in lower case. private sends it as one that no hop may put into a table.
func (e *Encoder) Append(dst []byte, id message.ID, name, value []byte, private bool) []byte {
	if id == message.Other {
		return e.other(dst, name, value, private)
	}
	index := uint32(staticName[id&(idLimit-1)])
	if private || secret>>id&1 != 0 {
		return e.literal(dst, 0x10, 4, index, known(id), value)
	}
	return e.cached(dst, id, hash(uint64(id), value), index, known(id), value)
}

// AppendPseudo appends a pseudo-header field.
func (e *Encoder) AppendPseudo(dst []byte, p Pseudo, value []byte) []byte {
	index := uint32(0)
	switch p {
	case Method:
		switch string(value) {
		case "GET":
			return append(dst, 0x82)
		case "POST":
			return append(dst, 0x83)
		}
		index = 2
	case Scheme:
		switch string(value) {
		case "http":
			return append(dst, 0x86)
		case "https":
			return append(dst, 0x87)
		}
		index = 6
	case Path:
		if len(value) == 1 && value[0] == '/' {
			return append(dst, 0x84)
		}
		index = 4
	case Authority:
		index = 1
	}
	id := message.ID(pseudoID | p)
	return e.cached(dst, id, hash(uint64(id), value), index, pseudoBytes[p], value)
}

var pseudoBytes = func() (t [UnknownPseudo][]byte) {
	for p, n := range pseudoNames {
		t[p] = []byte(n)
	}
	return t
}()

// AppendPath appends :path of two parts, the second being the query.
func (e *Encoder) AppendPath(dst, path, query []byte) []byte {
	if len(query) == 0 {
		return e.AppendPseudo(dst, Path, path)
	}
	dst = append(dst, 0x04) // without indexing, name 4
	dst = appendInteger(dst, 0, 7, uint32(len(path)+len(query)))
	return append(append(dst, path...), query...)
}

// AppendStatus appends :status of three digits.
func (e *Encoder) AppendStatus(dst []byte, status int) []byte {
	switch status {
	case 200:
		return append(dst, 0x88)
	case 204:
		return append(dst, 0x89)
	case 206:
		return append(dst, 0x8a)
	case 304:
		return append(dst, 0x8b)
	case 400:
		return append(dst, 0x8c)
	case 404:
		return append(dst, 0x8d)
	case 500:
		return append(dst, 0x8e)
	}
	digits := [3]byte{byte('0' + status/100%10), byte('0' + status/10%10), byte('0' + status%10)}
	const id = message.ID(pseudoID | Status)
	return e.cached(dst, id, hash(uint64(id), digits[:]), 8, pseudoBytes[Status], digits[:])
}

// known returns the name of a known field.
func known(id message.ID) []byte { return lowerNames[id&(idLimit-1)] }

// other appends a field whose name is not known.
func (e *Encoder) other(dst, name, value []byte, private bool) []byte {
	if private || len(name) > longestLower {
		dst = append(dst, 0x10)
		dst = appendInteger(dst, 0, 7, uint32(len(name)))
		at := len(dst)
		dst = append(dst, name...)
		lower(dst[at:])
		return appendString(dst, value)
	}
	low := e.lower[:len(name)]
	copy(low, name)
	lower(low)
	return e.cached(dst, message.Other, hash(hash(0, low), value), 0, low, value)
}

func lower(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
}

// cached appends a field from the dynamic table, adds it there when it comes the second time, or writes it out.
func (e *Encoder) cached(dst []byte, id message.ID, h uint64, index uint32, name, value []byte) []byte {
	slot := h >> (64 - 7)
	t := &e.table
	if number := e.at[slot]; number-t.first < t.len() {
		f := t.at(number)
		if f.id == id && bytes.Equal(t.value(f), value) && (id != message.Other || bytes.Equal(t.name(f), name)) {
			return appendInteger(dst, 0x80, 7, staticCount+t.next-number)
		}
	}
	mark := uint16(h>>32) | 1 // never that of an unused slot
	if e.seen[slot] != mark || len(value) > longestValue {
		e.seen[slot] = mark
		return e.literal(dst, 0, 4, index, name, value)
	}
	if entryOverhead+len(name)+len(value) > int(t.max)/2 {
		return e.literal(dst, 0, 4, index, name, value)
	}
	e.at[slot] = t.next
	t.insert(name, value, entry{id: id})
	return e.literal(dst, 0x40, 6, index, name, value)
}

// literal appends a field written out; index is its name's in the static table, or 0.
func (e *Encoder) literal(dst []byte, form byte, prefix uint, index uint32, name, value []byte) []byte {
	dst = appendInteger(dst, form, prefix, index)
	if index == 0 {
		dst = appendString(dst, name)
	}
	return appendString(dst, value)
}

func appendString(dst, s []byte) []byte {
	return append(appendInteger(dst, 0, 7, uint32(len(s))), s...)
}

// appendInteger appends v behind a prefix of that many bits, below the bits of form.
func appendInteger(dst []byte, form byte, prefix uint, v uint32) []byte {
	limit := uint32(1)<<prefix - 1
	if v < limit {
		return append(dst, form|byte(v))
	}
	dst = append(dst, form|byte(limit))
	for v -= limit; v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}

// hash mixes a key with the length, the first and the last bytes of b.
func hash(key uint64, b []byte) uint64 {
	const k1, k2 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93
	var first, last uint64
	switch n := len(b); {
	case n >= 8:
		first, last = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		first, last = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n >= 1:
		first, last = uint64(b[0])|uint64(b[n/2])<<8, uint64(b[n-1])
	}
	h := (key ^ uint64(len(b))<<32 ^ first) * k1
	h ^= h >> 29
	h = (h ^ last) * k2
	h ^= h >> 32
	return h * k1
}
