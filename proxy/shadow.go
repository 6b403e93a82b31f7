package proxy

import (
	"errors"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// This file carries copies of requests to their mirrors: like an exchange's way to an endpoint, but nobody waits.

// mirrors are the copies of a proxy that are under way.
type mirrors struct {
	mu      sync.Mutex
	under   map[*shadow]struct{}
	closed  bool
	serving sync.WaitGroup
}

// send sends s, in a goroutine of its own; close waits for it.
func (m *mirrors) send(s *shadow) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		s.mirror.counts.give(mirrorIncomplete)
		return
	}
	if m.under == nil {
		m.under = map[*shadow]struct{}{}
	}
	s.until = now() + s.timeout
	s.watch.arm(s.until)
	m.under[s] = struct{}{}
	m.serving.Go(func() {
		s.run()
		m.mu.Lock()
		delete(m.under, s)
		m.mu.Unlock()
	})
}

// check ends copies whose time is over, and returns when the next one's is.
func (m *mirrors) check(t int64) (due int64) {
	due = never
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.under {
		due = min(due, s.watch.check(t))
	}
	return due
}

// close ends all copies and waits for them.
func (m *mirrors) close() {
	m.mu.Lock()
	m.closed = true
	for s := range m.under {
		s.watch.vanish()
	}
	m.mu.Unlock()
	m.serving.Wait()
}

// nobody is the client of a copy.
type nobody struct{}

// Interrupt does nothing.
func (nobody) Interrupt() {}

// Resume does nothing.
func (nobody) Resume() {}

// shadow is one copy of a request on its way.
type shadow struct {
	proxy    *Proxy
	listener *listener // where the original came in
	mirror   *mirrorTarget
	req      message.Request
	body     []byte
	trailers *message.Head
	peer     []byte // who says that it sends the request
	timeout  int64
	until    int64
	stopped  bool // its time is over, or the proxy's
	rand     balance.Rand
	watch    watch

	admission upstream.Admission

	res    message.Response
	fields message.Head // behind the answer's body
}

var errMirrorOver = errors.New("the time of the copy is over")

// run sends the copy and reads its answer to the end.
func (s *shadow) run() {
	if s.timeout < int64(fineBelow) {
		s.proxy.conns.hurry()
		defer s.proxy.conns.relax()
	}
	counts, c := s.mirror.counts, s.mirror.target.cluster
	i := c.Balancer.Pick(balance.Key{}, &s.rand)
	if i < 0 {
		counts.give(mirrorFailed)
		return
	}
	m := &c.Members[i]
	m.Host.Active.Add(1)
	defer m.Host.Active.Add(-1)
	if m.Spec.Sidecar && s.peer != nil {
		s.req.SetBytes(message.XOutriderPeer, "x-outrider-peer", s.peer)
	}
	err := s.ask(m.Endpoint)
	if m.Counter != nil {
		m.Counter.Record(s.res.Status)
	}
	if err != nil {
		s.proxy.log.Debug("cannot mirror", "peer", m.Address(), "reason", err)
		counts.give(mirrorFailed)
		return
	}
	counts.give(mirrorAnswered)
}

func (s *shadow) ask(e *upstream.Endpoint) error {
	if s.mirror.target.over2(s.req.Version) && !e.SpeaksHTTP1() {
		if err := s.ask2(e); !errors.Is(err, upstream.ErrHTTP1) {
			return err
		}
	}
	return s.ask1(e)
}

// patience is how long connecting may take.
func (s *shadow) patience() time.Duration {
	return max(1, min(s.mirror.target.cluster.ConnectTimeout, time.Duration(s.until-now())))
}

// ask1 sends the copy over HTTP/1.
func (s *shadow) ask1(e *upstream.Endpoint) error {
	if s.trailers == nil {
		s.req.BodyLength = int64(len(s.body))
	} else {
		s.req.BodyLength = message.UnknownLength
	}
	out := http1.AppendRequest(nil, &s.req, http1.RequestOptions{})
	if s.trailers == nil {
		out = append(out, s.body...)
	} else {
		out = http1.AppendLastChunk(appendChunk(out, s.body), s.trailers)
	}
	for up := e.Lease(); ; up = nil {
		if up == nil {
			var err error
			if up, err = s.dial(e); err != nil {
				return err
			}
		}
		if err := e.Admit(&s.admission); err != nil {
			up.Unused(now())
			return err
		}
		again, err := s.over1(up, out)
		if !again || s.stopped {
			return err
		}
		if s.watch.arm(s.until) {
			return errMirrorOver
		}
	}
}

// queue makes ready to wait for a connection, where the destination has limits: copies count as its requests do.
func (s *shadow) queue() *upstream.Turn {
	if !s.mirror.target.cluster.Limited() {
		return nil
	}
	return s.watch.queue(upstream.NewTurn(), s.until)
}

func (s *shadow) dial(e *upstream.Endpoint) (*upstream.Conn, error) {
	c := s.mirror.target.cluster
	turn := s.queue()
	defer s.watch.dequeue(turn)
	return s.proxy.dial(e, s.patience(), secured(c, c.Spec.Service.Host, "http/1.1"), turn)
}

// over1 sends the copy on up and reads the answer; again says that up had ended before.
func (s *shadow) over1(up *upstream.Conn, out []byte) (again bool, err error) {
	clean := false
	s.watch.up.Store(&up.Link)
	defer func() {
		s.watch.up.Store(nil)
		s.admission.Done()
		if s.stopped = s.watch.arm(never); clean && !s.stopped {
			up.Keep(now())
			return
		}
		up.Drop()
	}()
	if s.watch.over() {
		return false, errMirrorOver
	}
	if s.listener.leadsTo(&up.Link) {
		return false, errLoop
	}
	answer, err := up.Ask(out)
	if err != nil {
		return up.Reused && errors.Is(err, link.ErrStale), err
	}
	clean, err = s.read(up, answer)
	return false, err
}

// read reads the answer away; clean says that the connection can be used again.
func (s *shadow) read(up *upstream.Conn, answer *link.Buffer) (clean bool, err error) {
	defer func() {
		if answer != nil {
			link.PutBuffer(answer)
		}
	}()
	lim := &s.proxy.limits.Head
	for from := 0; ; {
		n, err := http1.ResponseHeadEnd(answer.Bytes(), from, lim)
		if err == nil && n > 0 {
			err = http1.ReadResponse(&s.res, answer.Bytes()[:n], s.req.Method(), lim)
		}
		if err != nil {
			return false, err
		}
		if n > 0 {
			answer.Skip(n)
			from = 0
			if s.res.Status >= 200 {
				break
			}
			continue
		}
		from = answer.Len()
		if err := up.More(answer); err != nil {
			return false, err
		}
	}
	if s.res.BodyLength != message.NoBody && !s.res.HeadOnly {
		var in inflow
		in.begin(&up.Link, &answer, s.res.BodyLength, s.res.UntilClose, &s.fields, lim)
		if err := readAway(&in); err != nil {
			return false, err
		}
		in.skip()
	}
	return (answer == nil || answer.Len() == 0) && !s.res.Close && !s.res.UntilClose, nil
}

// readAway reads a body away.
func readAway(from source) error {
	for {
		p, end, err := from.Next()
		if err != nil || end {
			return err
		}
		if len(p) == 0 {
			if err := from.Wait(); err != nil {
				return err
			}
		}
	}
}

// ask2 sends the copy over HTTP/2.
func (s *shadow) ask2(e *upstream.Endpoint) error {
	most := s.mirror.target.cluster.Spec.MaxStreams
	for {
		sh, err := s.share(e, most)
		if err != nil {
			return err
		}
		none := len(s.body) == 0 && s.trailers == nil
		if none {
			s.req.BodyLength = message.NoBody
		}
		call, err := sh.Open(&s.admission, most, &s.req, none)
		if errors.Is(err, http2.ErrNoStreams) && !s.watch.over() {
			continue
		}
		if err != nil {
			return err
		}
		err = s.over2(call, none)
		sh.Close(call, &s.admission)
		return err
	}
}

// share finds a connection that takes one more stream.
func (s *shadow) share(e *upstream.Endpoint, most uint32) (*upstream.Shared, error) {
	if sh := e.Share(most, now()); sh != nil {
		return sh, nil
	}
	c := s.mirror.target.cluster
	turn := s.queue()
	defer s.watch.dequeue(turn)
	return s.listener.apart(s.proxy.connect(e, s.patience(), secured(c, c.Spec.Service.Host, "h2", "http/1.1"), most, now(), turn))
}

// over2 sends the copy's body on call and reads the answer away.
func (s *shadow) over2(call *mux.Call, none bool) (err error) {
	s.watch.call.Store(call)
	defer func() {
		s.watch.call.Store(nil)
		s.watch.arm(never) // whoever is about to interrupt the call has done so from here on
	}()
	if s.watch.over() {
		return errMirrorOver
	}
	if len(s.body) > 0 {
		if err := call.Send(s.body, s.trailers == nil); err != nil {
			return err
		}
	}
	if s.trailers != nil {
		if err := call.SendTrailers(s.trailers); err != nil {
			return err
		}
	}
	call.Flush()
	for {
		if err := call.Head(&s.res); err != nil {
			return err
		}
		if s.res.Status >= 200 {
			return readAway(call)
		}
	}
}
