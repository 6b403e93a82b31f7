package hpack

// Decoder reads the header blocks of one direction of a connection, in the order in which they came.
type Decoder struct {
	// Field is what Next decoded.
	Field Field

	table   table
	limit   uint32 // what we allow as the table's size
	begun   bool   // the current block has shown a field
	scratch []byte // decoded strings of the current field, and names that would be overwritten
}

// maxScratch is how much of a decoder's scratch outlives a block.
const maxScratch = 4 << 10

// Init makes d ready, with a table of at most size.
func (d *Decoder) Init(size uint32) {
	*d = Decoder{limit: size, table: table{max: size}}
}

// Begin is called before each block.
func (d *Decoder) Begin() {
	d.begun = false
	if cap(d.scratch) > maxScratch {
		d.scratch = nil
	}
}

// Next decodes the beginning of b, which is not empty, into d.Field and returns how many bytes it was. ok says whether
// that was a field; otherwise it was a table size update. After an error the connection cannot go on.
func (d *Decoder) Next(b []byte) (n int, ok bool, err error) {
	c := b[0]
	switch {
	case c&0x80 != 0:
		index, n := uint32(c&0x7f), 1
		if index == 0x7f {
			if index, n, err = integer(b, 7); err != nil {
				return 0, false, err
			}
		}
		d.begun = true
		return n, true, d.indexed(index)
	case c&0xc0 == 0x40:
		n, err = d.literal(b, 6, true)
		return n, true, err
	case c&0xe0 == 0x20:
		size, n, err := integer(b, 5)
		if err != nil {
			return 0, false, err
		}
		if d.begun || size > d.limit {
			return 0, false, ErrUpdate
		}
		d.table.resize(size)
		return n, false, nil
	}
	n, err = d.literal(b, 4, false)
	d.Field.Private = c&0x10 != 0
	return n, true, err
}

// indexed sets Field to an entry of the tables.
func (d *Decoder) indexed(index uint32) error {
	if index <= staticCount {
		if index == 0 {
			return ErrIndex
		}
		d.Field = static[index]
		return nil
	}
	t := &d.table
	back := index - staticCount // 1 is the newest
	if back > t.len() {
		return ErrIndex
	}
	e := t.at(t.next - back)
	v := e.off + e.nameLen
	f := &d.Field
	f.Name, f.Value = t.buf[e.off:v], t.buf[v:v+e.valueLen]
	f.ID, f.Pseudo, f.Flaw, f.Private = e.id, e.pseudo, e.flaw, false
	return nil
}

// literal decodes a field whose value, and perhaps name, stands in the block, and adds it to the table if insert says so.
func (d *Decoder) literal(b []byte, prefix uint, insert bool) (n int, err error) {
	d.begun = true
	d.scratch = d.scratch[:0]
	index := uint32(b[0]) & (1<<prefix - 1)
	n = 1
	if index == 1<<prefix-1 {
		if index, n, err = integer(b, prefix); err != nil {
			return 0, err
		}
	}
	f := &d.Field
	if index > 0 {
		if err = d.indexed(index); err != nil {
			return 0, err
		}
		if f.Flaw >= BadValue {
			f.Flaw = Sound // that was the other value
		}
		if insert && index > staticCount {
			d.scratch = append(d.scratch, f.Name...) // the table is about to move
			f.Name = d.scratch
		}
	} else {
		var used int
		if f.Name, used, err = d.text(b[n:]); err != nil {
			return 0, err
		}
		n += used
		f.ID, f.Pseudo, f.Flaw = identify(f.Name)
	}
	value, used, err := d.text(b[n:])
	if err != nil {
		return 0, err
	}
	f.Value, f.Private = value, false
	if f.Flaw == Sound {
		f.Flaw = checkValue(value)
	}
	if insert {
		d.table.insert(f.Name, value, entry{id: f.ID, pseudo: f.Pseudo, flaw: f.Flaw})
	}
	return n + used, nil
}

// text decodes the string that b begins with.
func (d *Decoder) text(b []byte) (s []byte, n int, err error) {
	if len(b) == 0 {
		return nil, 0, ErrTruncated
	}
	length := uint32(b[0] & 0x7f)
	n = 1
	if length == 0x7f {
		if length, n, err = integer(b, 7); err != nil {
			return nil, 0, err
		}
	}
	if uint64(length) > uint64(len(b)-n) {
		return nil, 0, ErrTruncated
	}
	end := n + int(length)
	raw := b[n:end:end]
	if b[0]&0x80 == 0 {
		return raw, end, nil
	}
	at := len(d.scratch)
	whole, ok := appendHuffman(d.scratch, raw)
	if !ok {
		return nil, 0, ErrHuffman
	}
	d.scratch = whole
	return whole[at:], end, nil
}

// integer decodes the integer at the start of b (§5.1); the prefix has that many bits.
func integer(b []byte, prefix uint) (v uint32, n int, err error) {
	limit := uint32(1)<<prefix - 1
	v = uint32(b[0]) & limit
	if v < limit {
		return v, 1, nil
	}
	for shift := uint(0); ; shift += 7 {
		if n++; n == len(b) {
			return 0, 0, ErrTruncated
		}
		c := b[n]
		if shift > 21 { // above 2^28 nothing here has a meaning
			return 0, 0, ErrInteger
		}
		if v += uint32(c&0x7f) << shift; c&0x80 == 0 {
			return v, n + 1, nil
		}
	}
}
