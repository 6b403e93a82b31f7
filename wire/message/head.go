// Package message holds the one request and response that every codec reads into and writes from.
//
// A Head owns its bytes: a codec copies them in once, edits append behind them, and fields are offsets into that one
// buffer, so a Head outlives the read buffer it came from and costs no allocation once its buffers have grown.
// Slices that its methods return are valid until the next edit or Reset.
package message

// ID names the header fields that the proxy itself looks at; every other field is Other.
type ID uint8

// field is one header field: offsets into the Head's buffer. A field with nameLen 0 is deleted.
type field struct {
	name, value       uint32
	nameLen, valueLen uint32
	id                ID
	// line says that the buffer holds the whole line as HTTP/1 writes it: name, ": ", value, CRLF.
	line bool
	// private says that the field was marked never to be put into a compression table (RFC 7541 §7.1.3).
	private bool
}

// Head is a list of header fields in the order received. The zero Head is empty and ready.
type Head struct {
	buf    []byte
	fields []field
	// known has the bit 1<<id of every known field that was ever added since Reset, so that asking for one that is not there costs no search.
	known uint64
}

// Reset empties h and keeps its memory.
func (h *Head) Reset() {
	h.buf = h.buf[:0]
	h.fields = h.fields[:0]
	h.known = 0
}

// CopyFrom makes h a copy of o that shares no memory with it.
func (h *Head) CopyFrom(o *Head) {
	h.buf = append(h.buf[:0], o.buf...)
	h.fields = append(h.fields[:0], o.fields...)
	h.known = o.known
}

// Footprint returns the bytes of memory that h holds on to; owners drop heads that grew out of the ordinary instead of pooling them.
func (h *Head) Footprint() int { return cap(h.buf) + 20*cap(h.fields) }

// Size returns the bytes of all names and values: what telemetry counts of heads that were compressed on the wire.
func (h *Head) Size() (n int) {
	for i := range h.fields {
		if f := &h.fields[i]; f.nameLen != 0 {
			n += int(f.nameLen + f.valueLen)
		}
	}
	return n
}

// Load copies a codec's raw head into h, which must be empty, and returns the copy, valid until the next edit.
// AppendAt and the At setters of Request and Response then name pieces of it by offset: one copy for a whole head.
func (h *Head) Load(raw []byte) []byte {
	h.buf = append(h.buf[:0], raw...)
	return h.buf
}

// AppendAt adds a field whose name and value lie in what Load copied, checked and identified by the codec.
// Both lengths are in bytes, and at least two bytes of the copy follow the value.
func (h *Head) AppendAt(id ID, name, nameLen, value, valueLen int) {
	h.known |= 1 << id
	n := len(h.fields)
	if n == cap(h.fields) {
		h.fields = append(h.fields, field{})
	}
	h.fields = h.fields[:n+1]
	f := &h.fields[n] // filled in place: a literal that is copied in stalls the store buffer (BenchmarkReadRequest)
	f.name, f.nameLen = uint32(name), uint32(nameLen)
	f.value, f.valueLen = uint32(value), uint32(valueLen)
	f.id, f.private = id, false
	end := value + valueLen
	f.line = value == name+nameLen+2 && h.buf[value-1] == ' ' && h.buf[end] == '\r' && h.buf[end+1] == '\n'
}

// putLine adds a field, its bytes as a line of HTTP/1.
func (h *Head) putLine(id ID, name, value []byte) {
	off := uint32(len(h.buf))
	h.buf = append(append(append(append(h.buf, name...), ": "...), value...), "\r\n"...)
	h.addLine(id, off, len(name), len(value))
}

// putLineString is putLine for strings.
func (h *Head) putLineString(id ID, name, value string) {
	off := uint32(len(h.buf))
	h.buf = append(append(append(append(h.buf, name...), ": "...), value...), "\r\n"...)
	h.addLine(id, off, len(name), len(value))
}

func (h *Head) addLine(id ID, off uint32, name, value int) {
	h.known |= 1 << id
	h.fields = append(h.fields, field{
		name: off, nameLen: uint32(name), value: off + uint32(name) + 2, valueLen: uint32(value), id: id, line: true,
	})
}

// AppendLines appends the fields to dst as lines of HTTP/1, but for those known by the ID without (Other: all are written).
// Neighbours that the buffer holds as they are written go in one copy (BenchmarkWriteRequest).
func (h *Head) AppendLines(dst []byte, without ID) []byte {
	if h.known&(1<<without) == 0 {
		without = Other
	}
	fs := h.fields
	for i := 0; i < len(fs); i++ {
		f := &fs[i]
		if f.nameLen == 0 || without != Other && f.id == without {
			continue
		}
		if !f.line {
			dst = append(append(dst, h.buf[f.name:f.name+f.nameLen]...), ": "...)
			dst = append(append(dst, h.buf[f.value:f.value+f.valueLen]...), "\r\n"...)
			continue
		}
		end := f.value + f.valueLen + 2
		for i+1 < len(fs) {
			g := &fs[i+1]
			if g.name != end || !g.line || g.nameLen == 0 || without != Other && g.id == without {
				break
			}
			end = g.value + g.valueLen + 2
			i++
		}
		dst = append(dst, h.buf[f.name:end]...)
	}
	return dst
}

// Len returns how many fields there are, deleted ones included; use it with Field.
func (h *Head) Len() int { return len(h.fields) }

// Field returns the i-th field; name is empty where it was deleted.
func (h *Head) Field(i int) (id ID, name, value []byte) {
	f := &h.fields[i]
	return f.id, h.buf[f.name : f.name+f.nameLen], h.buf[f.value : f.value+f.valueLen]
}

// Append adds a field whose name and value a codec has checked and identified; neither may be part of h.
func (h *Head) Append(id ID, name, value []byte) {
	h.putLine(id, name, value)
}

// SetPrivate marks the field that was added last as one that its sender wants in no compression table.
func (h *Head) SetPrivate() { h.fields[len(h.fields)-1].private = true }

// Private says whether the i-th field was marked so.
func (h *Head) Private(i int) bool { return h.fields[i].private }

// Add adds a field at the end, beside fields of the same name. Neither part may hold CR, LF or NUL.
func (h *Head) Add(name, value string) { h.putLineString(IdentifyString(name), name, value) }

// Set gives the named field one value: the first field of the name takes it, others go. Neither part may hold CR, LF or NUL.
func (h *Head) Set(name, value string) { h.set(IdentifyString(name), name, value, nil) }

// SetBytes is Set with a value in bytes, which must not be part of h.
func (h *Head) SetBytes(id ID, name string, value []byte) { h.set(id, name, "", value) }

func (h *Head) set(id ID, name, s string, b []byte) {
	first := h.Find(0, id, name)
	if first < 0 {
		off := uint32(len(h.buf))
		h.buf = append(append(append(append(append(h.buf, name...), ": "...), s...), b...), "\r\n"...)
		h.addLine(id, off, len(name), len(s)+len(b))
		return
	}
	for i := h.Find(first+1, id, name); i >= 0; i = h.Find(i+1, id, name) {
		h.fields[i].nameLen = 0
	}
	f := &h.fields[first]
	f.value, f.valueLen, f.line = uint32(len(h.buf)), uint32(len(s)+len(b)), false
	h.buf = append(append(h.buf, s...), b...)
}

// is says whether field i is there and has that name; id must be the name's ID.
func (h *Head) is(i int, id ID, name string) bool {
	f := &h.fields[i]
	if f.id != id || f.nameLen == 0 {
		return false
	}
	return id != Other || EqualFold(h.buf[f.name:f.name+f.nameLen], name)
}

// Get returns the value of the first field that is known by id, which must not be Other.
func (h *Head) Get(id ID) (value []byte, ok bool) {
	if h.known&(1<<id) == 0 {
		return nil, false
	}
	for i := range h.fields {
		if f := &h.fields[i]; f.id == id && f.nameLen != 0 {
			return h.buf[f.value : f.value+f.valueLen], true
		}
	}
	return nil, false
}

// Lookup returns the value of the first field of that name, in any case.
func (h *Head) Lookup(name string) (value []byte, ok bool) {
	return h.LookupID(IdentifyString(name), name)
}

// LookupID is Lookup for callers that identified the name before.
func (h *Head) LookupID(id ID, name string) (value []byte, ok bool) {
	i := h.Find(0, id, name)
	if i < 0 {
		return nil, false
	}
	f := &h.fields[i]
	return h.buf[f.value : f.value+f.valueLen], true
}

// Find returns the index, for Field, of the first field of that name at or after from, or -1.
func (h *Head) Find(from int, id ID, name string) int {
	if h.known&(1<<id) == 0 {
		return -1
	}
	for i := from; i < len(h.fields); i++ {
		if h.is(i, id, name) {
			return i
		}
	}
	return -1
}

// Values appends the values of all fields of that name to dst, joined with ",", as RFC 9110 §5.3 reads them.
// Where there is one field and dst is empty, the result is the field's own bytes: do not append to it.
func (h *Head) Values(dst []byte, id ID, name string) (joined []byte, ok bool) {
	i := h.Find(0, id, name)
	if i < 0 {
		return dst, false
	}
	f := &h.fields[i]
	j := h.Find(i+1, id, name)
	if j < 0 && len(dst) == 0 {
		end := f.value + f.valueLen
		return h.buf[f.value:end:end], true
	}
	dst = append(dst, h.buf[f.value:f.value+f.valueLen]...)
	for ; j >= 0; j = h.Find(j+1, id, name) {
		f = &h.fields[j]
		dst = append(append(dst, ','), h.buf[f.value:f.value+f.valueLen]...)
	}
	return dst, true
}

// Remove deletes all fields that are known by id, which must not be Other.
func (h *Head) Remove(id ID) {
	if h.known&(1<<id) == 0 {
		return
	}
	h.known &^= 1 << id
	for i := range h.fields {
		if h.fields[i].id == id {
			h.fields[i].nameLen = 0
		}
	}
}

// RemoveName deletes all fields of that name.
func (h *Head) RemoveName(name string) {
	id := IdentifyString(name)
	for i := range h.fields {
		if h.is(i, id, name) {
			h.fields[i].nameLen = 0
		}
	}
}

// RemoveNamed is RemoveName for a name in bytes, which may be part of h; id must be the name's ID.
func (h *Head) RemoveNamed(id ID, name []byte) {
	if h.known&(1<<id) == 0 {
		return
	}
	for i := range h.fields {
		f := &h.fields[i]
		if f.id == id && f.nameLen != 0 && (id != Other || EqualFoldBytes(h.buf[f.name:f.name+f.nameLen], name)) {
			f.nameLen = 0
		}
	}
}

// RemoveAt deletes the i-th field.
func (h *Head) RemoveAt(i int) { h.fields[i].nameLen = 0 }

// EqualFold says whether b equals s with ASCII letters folded.
func EqualFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if x, y := b[i], s[i]; x != y && lower(x) != lower(y) {
			return false
		}
	}
	return true
}

// EqualFoldBytes says whether a equals b with ASCII letters folded.
func EqualFoldBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if x, y := a[i], b[i]; x != y && lower(x) != lower(y) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}
