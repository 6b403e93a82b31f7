package limit

// Place is one's place in a Line. It may be used again when it is in none.
type Place struct {
	// For is what is waited for, and Owner who waits: a line compares the one and does not look at the other.
	For, Owner any

	line       *Line
	next, back *Place
}

// Line has those that wait, in the order in which they came. Whoever has it locks it.
type Line struct {
	first, last *Place
	n           int
}

// Len returns how many wait.
func (l *Line) Len() int { return l.n }

// Add puts p at the end.
func (l *Line) Add(p *Place) { l.insert(p, l.last, nil) }

// AddFirst puts p before all others: it had its turn, and another was quicker.
func (l *Line) AddFirst(p *Place) { l.insert(p, nil, l.first) }

func (l *Line) insert(p, back, next *Place) {
	p.line, p.back, p.next = l, back, next
	if back == nil {
		l.first = p
	} else {
		back.next = p
	}
	if next == nil {
		l.last = p
	} else {
		next.back = p
	}
	l.n++
}

// Pop takes the first one out, nil where none waits.
func (l *Line) Pop() *Place {
	p := l.first
	if p != nil {
		l.Remove(p)
	}
	return p
}

// PopFor takes out the first one that waits for that, nil where none does.
func (l *Line) PopFor(what any) *Place {
	for p := l.first; p != nil; p = p.next {
		if p.For == what {
			l.Remove(p)
			return p
		}
	}
	return nil
}

// Remove takes p out of the line. It returns false where p is not in it (any more).
func (l *Line) Remove(p *Place) bool {
	if p.line != l {
		return false
	}
	if p.back == nil {
		l.first = p.next
	} else {
		p.back.next = p.next
	}
	if p.next == nil {
		l.last = p.back
	} else {
		p.next.back = p.back
	}
	p.line, p.next, p.back = nil, nil, nil
	l.n--
	return true
}

// Gate bounds how many are inside at once; the others wait in its Line. It only decides: whoever has it locks it, and
// tells those whom it lets in. Connections are bounded so (maxConnections).
type Gate struct {
	Line
	most   uint32
	inside int
}

// NewGate returns a gate that lets most in.
func NewGate(most uint32) *Gate { return &Gate{most: most} }

// Enter lets one in if there is room. Nobody overtakes: while others wait, there is none.
func (g *Gate) Enter() bool {
	if g.n > 0 || !g.Room(0) {
		return false
	}
	g.inside++
	return true
}

// Admit lets the first of the line in if there is room, and returns who that is, or nil.
func (g *Gate) Admit() *Place {
	if g.n == 0 || !g.Room(0) {
		return nil
	}
	g.inside++
	return g.Pop()
}

// Force lets n in though there may be no room: Envoy lets each host have one connection, whatever the limit.
func (g *Gate) Force(n int) { g.inside += n }

// Leave makes room; Admit says for whom.
func (g *Gate) Leave() { g.inside-- }

// Configure changes how many are let in. Those inside stay, even above it; Admit says who has room now.
func (g *Gate) Configure(most uint32) { g.most = most }

// Room says whether there would be room for one if so many left.
func (g *Gate) Room(left int) bool { return int64(g.inside-left) < int64(g.most) }

// Excess says whether more are inside than may be.
func (g *Gate) Excess() bool { return int64(g.inside) > int64(g.most) }

// Inside returns how many are in.
func (g *Gate) Inside() int { return g.inside }

// Most returns how many may be in.
func (g *Gate) Most() uint32 { return g.most }
