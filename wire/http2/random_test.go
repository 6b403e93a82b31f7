package http2

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// journey is one end's side of a random exchange: a body to send, in pieces as the windows allow, and one to receive.
type journey struct {
	s       *Stream
	left    int  // bytes to send
	trailer bool // ends with trailers
	sent    bool
	hash    uint64 // of what came
	got     int
	unread  int // came and is not consumed
	ended   bool
	reset   bool
}

// content is the byte at that place of the body of a stream.
func content(id uint32, at int) byte { return byte(int(id)*31 + at*7 + at>>8) }

// hashOf is the hash of a whole body.
func hashOf(id uint32, n int) uint64 {
	h := fnv.New64a()
	b := make([]byte, n)
	for i := range b {
		b[i] = content(id, i)
	}
	_, _ = h.Write(b)
	return h.Sum64()
}

// world is a random conversation between two ends.
type world struct {
	t    *testing.T
	r    *rand.Rand
	p    *pair
	all  map[*end]map[*Stream]*journey
	want map[uint32][2]int // bytes up and down
	done int
	cut  int
}

func (w *world) push(e *end, j *journey, id uint32, whole int) {
	for !j.sent && !j.reset {
		n := min(j.left, 1+w.r.IntN(20000))
		b := make([]byte, n)
		for i := range b {
			b[i] = content(id, whole-j.left+i)
		}
		end := n == j.left && !j.trailer
		if n > 0 || end {
			k := j.s.Send(b, end)
			if j.left -= k; k < n {
				return
			}
			j.sent = end
		}
		if j.left == 0 && j.trailer {
			var t message.Head
			t.Add("x-id", fmt.Sprint(id))
			j.s.SendTrailers(&t)
			j.sent = true
		}
	}
	w.settle(e, j, id)
}

// settle looks at a journey that may be over.
func (w *world) settle(e *end, j *journey, id uint32) {
	if !j.ended || !j.sent || j.reset || j.unread > 0 || w.all[e][j.s] == nil {
		return
	}
	n := w.want[id][0]
	if e == w.p.client {
		n = w.want[id][1]
		w.done++
	}
	if j.got != n || j.hash != hashOf(id, n) {
		w.t.Errorf("%s: stream %d got %d bytes of %d", e.name, id, j.got, n)
	}
	delete(w.all[e], j.s)
	j.s.Release()
}

func (w *world) drop(e *end, j *journey) {
	j.reset = true
	delete(w.all[e], j.s)
	j.s.Release()
}

func (w *world) hook(e *end) {
	hashes := map[*journey]interface {
		Write([]byte) (int, error)
		Sum64() uint64
	}{}
	w.all[e] = map[*Stream]*journey{}
	e.quiet = true
	side := func(id uint32) int {
		if e == w.p.client {
			return w.want[id][0]
		}
		return w.want[id][1]
	}
	e.request = func(s *Stream, r *message.Request, end bool) {
		id := s.ID()
		j := &journey{s: s, left: w.want[id][1], trailer: w.r.IntN(3) == 0, ended: end, hash: hashOf(id, 0)}
		w.all[e][s] = j
		s.Respond(reply(103, 0, "x", "y"), false)
		s.Respond(reply(200, -1, "x-id", fmt.Sprint(id)), false)
		w.push(e, j, id, side(id))
	}
	e.data = func(s *Stream, p []byte, end bool) {
		j := w.all[e][s]
		if j == nil {
			w.t.Errorf("%s: data for nobody", e.name)
			return
		}
		if hashes[j] == nil {
			hashes[j] = fnv.New64a()
		}
		_, _ = hashes[j].Write(p)
		j.hash, j.ended = hashes[j].Sum64(), end
		j.got += len(p)
		j.unread += len(p)
		if w.r.IntN(3) > 0 {
			s.Consume(j.unread)
			j.unread = 0
		}
		w.settle(e, j, s.ID())
	}
	e.trailer = func(s *Stream, t *message.Head) {
		j := w.all[e][s]
		if got := list(t); got != fmt.Sprint(" x-id=", s.ID()) {
			w.t.Error(got)
		}
		j.ended = true
		w.settle(e, j, s.ID())
	}
	e.writable = func(s *Stream) {
		if j := w.all[e][s]; j != nil {
			w.push(e, j, s.ID(), side(s.ID()))
		}
	}
	e.reset = func(s *Stream, code Code, remote bool) {
		if s.Err() != nil {
			w.t.Errorf("%s: %s", e.name, s.Err().Reason)
		}
		if j := w.all[e][s]; j != nil {
			w.drop(e, j)
		}
	}
}

// TestRandom has random exchanges over connections that are cut into random pieces: what is sent arrives, no window is
// overrun, and in the end nothing is left over.
func TestRandom(t *testing.T) {
	seeds := uint64(40)
	if raceEnabled {
		seeds = 4
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 1))
		o := func() Options {
			return Options{StreamWindow: int32(65535 + r.IntN(50000)), ConnWindow: int32(65535 + r.IntN(200000)), WriteBuffer: 1000 + r.IntN(100000)}
		}
		w := &world{t: t, r: r, p: newPair(o(), o()), all: map[*end]map[*Stream]*journey{}, want: map[uint32][2]int{}}
		w.hook(w.p.client)
		w.hook(w.p.server)
		const exchanges = 60
		opened := 0
		for opened < exchanges || len(w.all[w.p.client])+len(w.all[w.p.server]) > 0 {
			if w.p.client.err != nil || w.p.server.err != nil {
				t.Fatal(seed, w.p.client.err, w.p.server.err)
			}
			if opened < exchanges && w.p.client.Room(0) > 0 && r.IntN(3) == 0 {
				up, down := r.IntN(3)*r.IntN(100000), r.IntN(3)*r.IntN(100000)
				req := get("/")
				req.BodyLength = int64(up)
				if r.IntN(2) == 0 {
					req.BodyLength = message.UnknownLength
				}
				j := &journey{left: up, hash: hashOf(0, 0), trailer: r.IntN(4) == 0}
				j.sent = up == 0 && !j.trailer
				id := uint32(2*opened + 1)
				w.want[id] = [2]int{up, down}
				s, err := w.p.client.Open(req, nil, j.sent)
				if err != nil || s.ID() != id {
					t.Fatal(err)
				}
				j.s = s
				w.all[w.p.client][s] = j
				opened++
				if !j.sent {
					w.push(w.p.client, j, id, up)
				}
			}
			for _, e := range []*end{w.p.client, w.p.server} {
				for s, j := range w.all[e] {
					switch {
					case j.unread > 0 && r.IntN(2) == 0:
						n := 1 + r.IntN(j.unread)
						if r.IntN(2) == 0 {
							n = j.unread
						}
						s.Consume(n)
						j.unread -= n
						w.settle(e, j, s.ID())
					case r.IntN(300) == 0:
						s.Cancel(Cancel)
						w.drop(e, j)
						w.cut++
					}
				}
			}
			w.p.dribble(r)
		}
		w.p.dribble(r)
		for _, e := range []*end{w.p.client, w.p.server} {
			e.reap()
			other := w.p.server
			if e == other {
				other = w.p.client
			}
			if e.Streams() != 0 || e.held != 0 || e.blocked.n != 0 || e.Pending() != 0 || e.dead != nil {
				t.Errorf("%s: %d streams, %d held, %d blocked, %d pending", e.name, e.Streams(), e.held, e.blocked.n, e.Pending())
			}
			if e.recvWindow+e.credit != e.o.ConnWindow || e.recvWindow != other.sendWindow {
				t.Errorf("%s: window %d and %d make not %d; the other has %d", e.name, e.recvWindow, e.credit, e.o.ConnWindow, other.sendWindow)
			}
		}
		if w.done == 0 {
			t.Error("no exchange was completed")
		}
	}
}

// echo is a client's Handler that many goroutines share.
type echo struct {
	t *testing.T
}

// trip is one exchange: what is written is to come back.
type trip struct {
	mu   sync.Mutex
	s    *Stream
	body []byte
	sent int
	got  int
	done chan error
}

func (h *echo) Request(*Stream, *message.Request, bool) {}
func (h *echo) Refused(*message.Request, *Error)        {}
func (h *echo) GoAway(uint32, Code)                     {}
func (h *echo) Pong(uint64)                             {}
func (h *echo) Settings()                               {}

func (h *echo) Response(s *Stream, r *message.Response, _ bool) {
	if r.Status != 200 {
		s.Owner.(*trip).done <- fmt.Errorf("status %d", r.Status)
	}
}

func (h *echo) Data(s *Stream, p []byte, end bool) {
	v := s.Owner.(*trip)
	v.mu.Lock()
	for i, c := range p {
		if v.got+i >= len(v.body) || v.body[v.got+i] != c {
			end = false
			v.done <- fmt.Errorf("byte %d differs", v.got+i)
			break
		}
	}
	v.got += len(p)
	full := v.got == len(v.body)
	v.mu.Unlock()
	s.Consume(len(p))
	if end && full {
		s.Release()
		v.done <- nil
	} else if end {
		v.done <- fmt.Errorf("%d bytes of %d", v.got, len(v.body))
	}
}

func (h *echo) Trailers(s *Stream, _ *message.Head) { s.Owner.(*trip).done <- fmt.Errorf("trailers") }

func (h *echo) Reset(s *Stream, code Code, _ bool) {
	s.Owner.(*trip).done <- fmt.Errorf("reset: %s", code)
}

func (h *echo) Writable(s *Stream) { s.Owner.(*trip).send() }

func (v *trip) send() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sent < len(v.body) {
		v.sent += v.s.Send(v.body[v.sent:], true)
	}
}

// TestConcurrent has many goroutines that share connections, each with its reader: for the race detector.
func TestConcurrent(t *testing.T) {
	addr := serve(t, &site{}, Options{WriteBuffer: 50000})
	for range 2 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		h := &echo{t: t}
		k := newSocket(nc, Client, h, Options{WriteBuffer: 50000})
		var reading, writing sync.WaitGroup
		reading.Go(k.run)
		for g := range 8 {
			writing.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 2))
				for i := range 40 {
					v := &trip{body: make([]byte, 1+r.IntN(1+r.IntN(100000))), done: make(chan error, 4)}
					for i := range v.body {
						v.body[i] = byte(r.Uint32())
					}
					req := get("/echo", "x-n", fmt.Sprint(i))
					req.SetMethod([]byte("POST"))
					req.BodyLength = message.UnknownLength
					v.mu.Lock() // until s is set
					s, err := k.conn.Open(req, v, false)
					v.s = s
					v.mu.Unlock()
					if err != nil {
						t.Error(err)
						return
					}
					if i%10 == 9 {
						s.Release() // cancelled
						_ = k.conn.Flush(k.out)
						continue
					}
					v.send()
					if err := k.conn.Flush(k.out); err != nil {
						t.Error(err)
						return
					}
					if err := <-v.done; err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		writing.Wait()
		if n := k.conn.Streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
		_ = nc.Close()
		reading.Wait()
	}
}
