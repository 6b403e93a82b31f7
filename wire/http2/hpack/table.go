package hpack

import "github.com/outrider-mesh/outrider/wire/message"

// entryOverhead is what an entry counts in a table besides its name and value (RFC 7541 §4.1).
const entryOverhead = 32

// table is a dynamic table: a queue of entries, whose bytes lie in one run of buf in the same order. Its memory grows
// with what it holds, to about its maximum size and a third.
type table struct {
	buf     []byte
	entries []entry // a ring; its length is a power of two
	// first and next number the oldest entry and the one to come, counted since the connection began, modulo 2^32.
	first, next uint32
	size, max   uint32
}

// entry is a field: its name and then its value lie in buf from off on.
type entry struct {
	off, nameLen, valueLen uint32
	id                     message.ID
	pseudo                 Pseudo
	flaw                   Flaw
}

func (t *table) len() uint32 { return t.next - t.first }

// at returns the entry of that number, which must be in the table.
func (t *table) at(number uint32) *entry { return &t.entries[number&uint32(len(t.entries)-1)] }

func (t *table) name(e *entry) []byte { return t.buf[e.off : e.off+e.nameLen] }

func (t *table) value(e *entry) []byte {
	v := e.off + e.nameLen
	return t.buf[v : v+e.valueLen]
}

// resize changes the maximum size and evicts what no longer fits.
func (t *table) resize(size uint32) {
	t.max = size
	t.evict(0)
}

// evict makes room for an entry of the given size.
func (t *table) evict(size uint32) {
	for t.size+size > t.max && t.first != t.next {
		e := t.at(t.first)
		t.size -= e.nameLen + e.valueLen + entryOverhead
		t.first++
	}
	if t.first == t.next {
		t.buf = t.buf[:0]
	}
}

// insert adds an entry; neither part may lie in the table. One that is larger than the table empties it (§4.4).
func (t *table) insert(name, value []byte, e entry) {
	n := uint32(len(name) + len(value))
	if n+entryOverhead > t.max {
		t.evict(t.max)
		return
	}
	t.evict(n + entryOverhead)
	t.room(int(n))
	e.off, e.nameLen, e.valueLen = uint32(len(t.buf)), uint32(len(name)), uint32(len(value))
	t.buf = append(append(t.buf, name...), value...)
	if int(t.len()) == len(t.entries) {
		t.widen()
	}
	*t.at(t.next) = e
	t.next++
	t.size += n + entryOverhead
}

// room sees to it that n bytes fit behind the last entry: by moving all entries to the front, or to a larger buffer.
func (t *table) room(n int) {
	if len(t.buf)+n <= cap(t.buf) {
		return
	}
	start := uint32(len(t.buf))
	if t.first != t.next {
		start = t.at(t.first).off
	}
	live := t.buf[start:]
	to := t.buf[:0]
	if want := len(live) + n; want > cap(t.buf)-cap(t.buf)/4 {
		to = make([]byte, 0, max(256, want+want/3))
	}
	t.buf = append(to, live...)
	for i := t.first; i != t.next; i++ {
		t.at(i).off -= start
	}
}

// widen doubles the ring.
func (t *table) widen() {
	wide := make([]entry, max(8, 2*len(t.entries)))
	for i := t.first; i != t.next; i++ {
		wide[i&uint32(len(wide)-1)] = *t.at(i)
	}
	t.entries = wide
}
