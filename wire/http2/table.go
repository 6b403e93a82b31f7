package http2

// streams is the table of a connection's open streams: a hash table whose chains run through the streams. Ids count up,
// so they spread evenly.
type streams struct {
	buckets []*Stream // a power of two
	n       int
}

func (t *streams) bucket(id uint32) **Stream { return &t.buckets[id>>1&uint32(len(t.buckets)-1)] }

// find returns the stream with that id, or nil.
func (t *streams) find(id uint32) *Stream {
	if t.n == 0 {
		return nil
	}
	for s := *t.bucket(id); s != nil; s = s.next {
		if s.id == id {
			return s
		}
	}
	return nil
}

func (t *streams) add(s *Stream) {
	if t.n >= len(t.buckets) {
		old := t.buckets
		t.buckets = make([]*Stream, max(8, 2*len(old)))
		for _, head := range old {
			for head != nil {
				next := head.next
				b := t.bucket(head.id)
				head.next, *b = *b, head
				head = next
			}
		}
	}
	b := t.bucket(s.id)
	s.next, *b = *b, s
	t.n++
}

func (t *streams) remove(s *Stream) {
	b := t.bucket(s.id)
	for *b != s {
		b = &(*b).next
	}
	*b = s.next
	s.next = nil
	t.n--
}

// any returns one of the streams, or nil.
func (t *streams) any() *Stream {
	for _, s := range t.buckets {
		if s != nil {
			return s
		}
	}
	return nil
}

// above returns a stream with an id above last, or nil.
func (t *streams) above(last uint32) *Stream {
	for _, s := range t.buckets {
		for ; s != nil; s = s.next {
			if s.id > last {
				return s
			}
		}
	}
	return nil
}

// each calls f for each stream until it returns false.
func (t *streams) each(f func(s *Stream) bool) {
	for _, s := range t.buckets {
		for ; s != nil; s = s.next {
			if !f(s) {
				return
			}
		}
	}
}

// blocked is the queue of streams on which Send has stopped.
type blocked struct {
	first, last *Stream
	n           int
}

func (q *blocked) push(s *Stream) {
	if s.isBlocked {
		return
	}
	s.isBlocked, s.before, s.behind = true, q.last, nil
	if q.last != nil {
		q.last.behind = s
	} else {
		q.first = s
	}
	q.last = s
	q.n++
}

func (q *blocked) remove(s *Stream) {
	if !s.isBlocked {
		return
	}
	if s.before != nil {
		s.before.behind = s.behind
	} else {
		q.first = s.behind
	}
	if s.behind != nil {
		s.behind.before = s.before
	} else {
		q.last = s.before
	}
	s.isBlocked, s.before, s.behind = false, nil, nil
	q.n--
}

// gone remembers the streams that we reset last: what the peer sent on them before it knew is no error.
type gone struct {
	ids  []uint32 // a ring once it is full
	at   int
	lost bool // some were forgotten
}

// maxGone is how many are remembered.
const maxGone = 256

func (g *gone) add(id uint32) {
	if len(g.ids) < maxGone {
		g.ids = append(g.ids, id)
		return
	}
	g.lost = true
	g.ids[g.at] = id
	g.at = (g.at + 1) % maxGone
}

func (g *gone) has(id uint32) bool {
	for _, i := range g.ids {
		if i == id {
			return true
		}
	}
	return false
}
