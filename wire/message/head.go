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
}

// Head is a list of header fields in the order received. The zero Head is empty and ready.
type Head struct {
	buf    []byte
	fields []field
}

// Reset empties h and keeps its memory.
func (h *Head) Reset() {
	h.buf = h.buf[:0]
	h.fields = h.fields[:0]
}

// Footprint returns the bytes of memory that h holds on to; owners drop heads that grew out of the ordinary instead of pooling them.
func (h *Head) Footprint() int { return cap(h.buf) + 20*cap(h.fields) }

func (h *Head) put(b []byte) (off uint32) {
	off = uint32(len(h.buf))
	h.buf = append(h.buf, b...)
	return off
}

func (h *Head) putString(s string) (off uint32) {
	off = uint32(len(h.buf))
	h.buf = append(h.buf, s...)
	return off
}

// Len returns how many fields there are, deleted ones included; use it with Field.
func (h *Head) Len() int { return len(h.fields) }

// Field returns the i-th field; name is empty where it was deleted.
func (h *Head) Field(i int) (id ID, name, value []byte) {
	f := &h.fields[i]
	return f.id, h.buf[f.name : f.name+f.nameLen], h.buf[f.value : f.value+f.valueLen]
}

// Append adds a field whose name a codec has checked and identified.
func (h *Head) Append(id ID, name, value []byte) {
	h.fields = append(h.fields, field{
		name: h.put(name), nameLen: uint32(len(name)),
		value: h.put(value), valueLen: uint32(len(value)), id: id,
	})
}

// Add adds a field at the end, beside fields of the same name.
func (h *Head) Add(name, value string) {
	h.fields = append(h.fields, field{
		name: h.putString(name), nameLen: uint32(len(name)),
		value: h.putString(value), valueLen: uint32(len(value)), id: IdentifyString(name),
	})
}

// Set gives the named field one value: the first field of the name takes it, others go.
func (h *Head) Set(name, value string) { h.set(IdentifyString(name), name, value, nil) }

// SetBytes is Set with a value in bytes, which must not be part of h.
func (h *Head) SetBytes(id ID, name string, value []byte) { h.set(id, name, "", value) }

func (h *Head) set(id ID, name, s string, b []byte) {
	off := uint32(len(h.buf))
	h.buf = append(append(h.buf, s...), b...)
	n := uint32(len(s) + len(b))
	found := false
	for i := range h.fields {
		if !h.is(i, id, name) {
			continue
		}
		if found {
			h.fields[i].nameLen = 0
			continue
		}
		found = true
		h.fields[i].value, h.fields[i].valueLen = off, n
	}
	if !found {
		h.fields = append(h.fields, field{name: h.putString(name), nameLen: uint32(len(name)), value: off, valueLen: n, id: id})
	}
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
	i := h.next(0, id, name)
	if i < 0 {
		return nil, false
	}
	f := &h.fields[i]
	return h.buf[f.value : f.value+f.valueLen], true
}

// next returns the index of the first field of that name at or after from, or -1.
func (h *Head) next(from int, id ID, name string) int {
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
	i := h.next(0, id, name)
	if i < 0 {
		return dst, false
	}
	f := &h.fields[i]
	j := h.next(i+1, id, name)
	if j < 0 && len(dst) == 0 {
		end := f.value + f.valueLen
		return h.buf[f.value:end:end], true
	}
	dst = append(dst, h.buf[f.value:f.value+f.valueLen]...)
	for ; j >= 0; j = h.next(j+1, id, name) {
		f = &h.fields[j]
		dst = append(append(dst, ','), h.buf[f.value:f.value+f.valueLen]...)
	}
	return dst, true
}

// Remove deletes all fields that are known by id, which must not be Other.
func (h *Head) Remove(id ID) {
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

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}
