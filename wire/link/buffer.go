package link

import "sync"

const (
	// Headroom is the free space that a fresh buffer keeps in front of its first byte: a head that is rewritten on its
	// way may grow by so much and still be laid before its body, so that both leave in one write and no body is copied.
	Headroom = 1 << 10
	// bufferSize holds a head and a body of 16 KiB, the usual buffer of servers, in one read.
	bufferSize = 32 << 10
)

// Buffer holds bytes that were received and not yet used: Bytes. A Buffer has one owner at a time.
type Buffer struct {
	data       []byte
	start, end int
}

var buffers = sync.Pool{New: func() any { return &Buffer{data: make([]byte, bufferSize)} }}

// GetBuffer takes an empty buffer from the pool.
func GetBuffer() *Buffer {
	b := buffers.Get().(*Buffer)
	b.start, b.end = Headroom, Headroom
	return b
}

// PutBuffer gives a buffer back; its bytes must not be used any more. A buffer that had to grow is left to the collector.
func PutBuffer(b *Buffer) {
	if len(b.data) == bufferSize {
		buffers.Put(b)
	}
}

// Bytes returns the bytes that are there; they stay valid until the buffer is read into or given back.
func (b *Buffer) Bytes() []byte { return b.data[b.start:b.end] }

// Len returns how many bytes are there.
func (b *Buffer) Len() int { return b.end - b.start }

// Skip drops the first n bytes.
func (b *Buffer) Skip(n int) {
	b.start += n
	if b.start == b.end {
		b.start, b.end = Headroom, Headroom
	}
}

// Lead lays head in front of the first n bytes and returns both as one run, or false where there is no room for it.
// The bytes stay in the buffer: Skip(n) drops them.
func (b *Buffer) Lead(head []byte, n int) ([]byte, bool) {
	at := b.start - len(head)
	if at < 0 {
		return nil, false
	}
	copy(b.data[at:], head)
	return b.data[at : b.start+n], true
}

// room makes space for at least one more byte, by moving what is there to the front or, when that does not help, by growing.
func (b *Buffer) room() []byte {
	if b.end < len(b.data) {
		return b.data[b.end:]
	}
	if b.start > Headroom {
		b.end = Headroom + copy(b.data[Headroom:], b.data[b.start:b.end])
		b.start = Headroom
		return b.data[b.end:]
	}
	grown := make([]byte, 2*len(b.data))
	b.end = Headroom + copy(grown[Headroom:], b.data[b.start:b.end])
	b.start, b.data = Headroom, grown
	return b.data[b.end:]
}
