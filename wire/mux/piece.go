package mux

import "sync"

// Sizes of the memory that data waits in: most bodies are small, most others come in frames of this size.
const (
	smallPiece = 2 << 10
	largePiece = 16 << 10
)

// piece is data that has come and was not asked for yet: b[at:].
type piece struct {
	next *piece
	at   int
	b    []byte
}

var (
	smallPieces = sync.Pool{New: func() any { return &piece{b: make([]byte, 0, smallPiece)} }}
	largePieces = sync.Pool{New: func() any { return &piece{b: make([]byte, 0, largePiece)} }}
)

func getPiece(n int) *piece {
	if n <= smallPiece {
		return smallPieces.Get().(*piece)
	}
	return largePieces.Get().(*piece)
}

func putPiece(p *piece) {
	p.next, p.at, p.b = nil, 0, p.b[:0]
	if cap(p.b) == smallPiece {
		smallPieces.Put(p)
	} else {
		largePieces.Put(p)
	}
}

// queue is data in the order that it came in. Its memory is that of what it holds and less than two pieces more.
type queue struct{ first, last *piece }

// add copies b behind what is there.
func (q *queue) add(b []byte) {
	for len(b) > 0 {
		if q.last == nil || len(q.last.b) == cap(q.last.b) {
			p := getPiece(len(b))
			if q.last == nil {
				q.first = p
			} else {
				q.last.next = p
			}
			q.last = p
		}
		p := q.last
		n := min(len(b), cap(p.b)-len(p.b))
		p.b = append(p.b, b[:n]...)
		b = b[n:]
	}
}

// head returns the first run of bytes; what add brings later does not touch it.
func (q *queue) head() []byte {
	if q.first == nil {
		return nil
	}
	return q.first.b[q.first.at:len(q.first.b):len(q.first.b)]
}

// drop drops the first n bytes, which must lie in the first run.
func (q *queue) drop(n int) {
	p := q.first
	if p == nil {
		return
	}
	if p.at += n; p.at < len(p.b) {
		return
	}
	if q.first = p.next; q.first == nil {
		q.last = nil
	}
	putPiece(p)
}

// clear drops all.
func (q *queue) clear() {
	for p := q.first; p != nil; {
		next := p.next
		putPiece(p)
		p = next
	}
	q.first, q.last = nil, nil
}
