package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/limit"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// ErrHTTP1 says that an endpoint, asked for HTTP/2 by ALPN, speaks HTTP/1 alone.
var ErrHTTP1 = errors.New("the endpoint speaks HTTP/1 alone")

// Shared is a connection of HTTP/2 to an endpoint, for the streams of many exchanges.
type Shared struct {
	*mux.Mux
	link     link.Link
	endpoint *Endpoint
	// settled is closed when the endpoint's settings have come, or the connection has ended.
	settled   chan struct{}
	settle    sync.Once
	discarded atomic.Bool // it ends with its last stream
	// began is when the connection was opened, tested when the last PING went out, 0 before the first; the latter is the
	// sweeper's, as is unanswered: nothing may have come since.
	began, tested int64
	unanswered    bool
	born          time.Time
	used          atomic.Uint32 // streams that were taken
}

// shares is what an endpoint has of them.
type shares struct {
	open atomic.Pointer[[]*Shared] // replaced as a whole, with the endpoint's mu
	// dialling is closed when a dial under way has ended; nil while there is none. Behind the endpoint's mu.
	dialling chan struct{}
	http1    atomic.Bool // see ErrHTTP1
	count    int         // of the endpoint's open connections, those of HTTP/2; behind its mu

	// Where limits hold, behind limits.mu: those that wait for a stream, whether the endpoint stands in the gate's line for
	// them, and how many of them dial.
	line    limit.Line
	place   limit.Place
	seeking bool
	dials   int
}

// SpeaksHTTP1 says that the endpoint was found to speak HTTP/1 alone.
func (e *Endpoint) SpeaksHTTP1() bool { return e.shares.http1.Load() }

const (
	// chokedFor is how long a connection's window must have been used up, in nanoseconds, before exchanges with bodies go
	// elsewhere: a window that is full now and then is one that works well.
	chokedFor = int64(50e6)
	// maxChoked is how many such connections an endpoint may have before no other is opened for that reason.
	maxChoked = 4
)

// Share returns a connection that takes one more stream, at most so many at a time on one connection (0: as many as the
// endpoint allows), or nil. now is coarse monotonic nanoseconds, and 0 for an exchange that sends no body: others are not
// put where streams that the endpoint does not read leave no room for any, as long as a few connections can help.
func (e *Endpoint) Share(most uint32, now int64) *Shared {
	open := e.shares.open.Load()
	if open == nil {
		return nil
	}
	choked, last := 0, (*Shared)(nil)
	per := e.tuning().perConnection
	for _, s := range *open {
		if s.HTTP.Room(most) == 0 || per > 0 && s.used.Load() >= per {
			continue
		}
		if now != 0 {
			if since := s.HTTP.Choked(); since != 0 && now-since >= chokedFor {
				choked, last = choked+1, s
				continue
			}
		}
		return s
	}
	if choked < maxChoked {
		return nil
	}
	return last
}

// Open opens a stream for r, admitted as Endpoint.Admit does; most and end are as for mux.Call.OpenWithin. It fails with
// http2.ErrNoStreams where the connection takes no more of them, or has carried all that it may (maxRequestsPerConnection):
// then it ends with its last. Close has to follow once the call is over.
func (s *Shared) Open(a *Admission, most uint32, r *message.Request, end bool) (*mux.Call, error) {
	if err := s.endpoint.Admit(a); err != nil {
		s.Unused()
		return nil, err
	}
	err := error(http2.ErrNoStreams)
	if n, per := s.used.Add(1), s.endpoint.tuning().perConnection; per == 0 || n <= per {
		call := mux.GetCall(s.Mux)
		if err = call.OpenWithin(most, r, end); err == nil {
			if per > 0 && s.used.Load() >= per {
				s.replace()
			}
			return call, nil
		}
		call.Release()
	}
	s.used.Add(^uint32(0))
	a.Done()
	if !errors.Is(err, http2.ErrNoStreams) {
		s.Unused()
	}
	return nil, err
}

// Unused is for who found the connection and then opens no stream on it: the next who waits for one looks for it.
func (s *Shared) Unused() { s.offer(1) }

// Close gives back what Open took; a stream that has not ended is reset.
func (s *Shared) Close(call *mux.Call, a *Admission) {
	a.Done()
	s.left(call.Release())
}

// replace takes the connection away from those that exchanges find, and lets it end with its last stream.
func (s *Shared) replace() {
	s.endpoint.mu.Lock()
	s.endpoint.dropShared(s)
	s.endpoint.mu.Unlock()
	s.discard()
}

// Connect opens a connection, unless one is being opened already: then it waits for that one. secure, timeout and t are as
// for Dial, most and now as for Share, and ErrHTTP1 is returned where ALPN chose HTTP/1.
func (e *Endpoint) Connect(ctx context.Context, timeout time.Duration, secure *tls.Config, most uint32, now int64, t *Turn) (*Shared, error) {
	if l := e.limits.Load(); l != nil && t != nil {
		return l.connect(ctx, e, timeout, secure, most, now, t)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		e.mu.Lock()
		if s := e.Share(most, now); s != nil {
			e.mu.Unlock()
			return s, nil
		}
		wait := e.shares.dialling
		if wait == nil {
			break
		}
		e.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("cannot connect to %s: %w", e.address, ctx.Err())
		}
	}
	done := make(chan struct{})
	e.shares.dialling = done
	e.mu.Unlock()
	e.begin(true)
	s, err := e.connect(ctx, secure)
	e.mu.Lock()
	e.shares.dialling = nil
	e.mu.Unlock()
	close(done)
	if err != nil {
		e.ended(true, err)
	}
	return s, err
}

// connect is Connect where limits hold.
func (l *limits) connect(ctx context.Context, e *Endpoint, timeout time.Duration, secure *tls.Config, most uint32, now int64, t *Turn) (*Shared, error) {
	if !l.pending.Take() {
		return nil, errPending
	}
	defer l.pending.Give()
	if s, err := l.share(e, t, most, now); s != nil || err != nil {
		return s, err
	}
	ctx, cancel := t.bound(ctx)
	defer cancel()
	ctx, cancel2 := context.WithTimeout(ctx, timeout)
	defer cancel2()
	s, err := e.connect(ctx, secure)
	if err != nil {
		l.undialled(e, err)
		return nil, err
	}
	l.dialled(e, s, most)
	return s, nil
}

func (e *Endpoint) connect(ctx context.Context, secure *tls.Config) (*Shared, error) {
	nc, err := e.tuning().dialer.DialContext(ctx, "tcp", e.address)
	if err != nil {
		e.failed.Add(1)
		return nil, fmt.Errorf("cannot connect to %s: %w", e.address, reason(err))
	}
	s := &Shared{endpoint: e, settled: make(chan struct{}), born: time.Now()}
	if err := s.link.Init(nc); err != nil {
		_ = nc.Close()
		e.failed.Add(1)
		return nil, fmt.Errorf("cannot use connection to %s: %w", e.address, err)
	}
	if secure != nil {
		t := tls.Client(s.link.Replay(nil), secure)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			e.failed.Add(1)
			return nil, &HandshakeError{Address: e.address, Err: err}
		}
		if t.ConnectionState().NegotiatedProtocol == "http/1.1" {
			_ = t.Close()
			e.shares.http1.Store(true)
			return nil, ErrHTTP1
		}
		s.link.Secure(t)
	}
	e.opened.Add(1)
	s.Mux = e.set.speak(s)
	s.began = s.LastRead()
	e.mu.Lock()
	gone := e.gone
	if !gone {
		e.keepShared(s) // before it is served, which ends with the undoing
	}
	e.mu.Unlock()
	e.set.serving.Go(s.serve) // Set.Close waits for it
	if gone {
		s.discard()
	}
	return s, nil
}

// serve reads the connection until it ends.
func (s *Shared) serve() {
	_ = s.Serve(nil) // why it ended, the streams were told
	e := s.endpoint
	e.mu.Lock()
	e.dropShared(s)
	e.mu.Unlock()
	s.Settled()
	_ = s.link.Close()
	e.ended(true, nil)
}

// dropShared undoes keepShared, called with mu.
func (e *Endpoint) dropShared(s *Shared) {
	if open := e.shares.open.Load(); open != nil {
		rest := slices.DeleteFunc(slices.Clone(*open), func(o *Shared) bool { return o == s })
		e.shares.open.Store(&rest)
	}
}

// keepShared adds a connection to those that exchanges find, called with mu.
func (e *Endpoint) keepShared(s *Shared) {
	var open []*Shared
	if old := e.shares.open.Load(); old != nil {
		open = slices.Clone(*old)
	}
	open = append(open, s)
	e.shares.open.Store(&open)
}

// Link returns the connection's link.
func (s *Shared) Link() *link.Link { return &s.link }

// Settled tells that the endpoint's settings have come.
func (s *Shared) Settled() {
	s.settle.Do(func() { close(s.settled) })
	s.offer(s.HTTP.Room(0))
}

// Leaving tells that the endpoint takes no more streams here (GOAWAY).
func (s *Shared) Leaving() { s.left(s.HTTP.Streams(), true) }

// offer tells those that wait for a stream that there may be so many.
func (s *Shared) offer(n int) {
	if l := s.endpoint.limits.Load(); l != nil && n > 0 && l.queued.Load() > 0 {
		l.mu.Lock()
		l.lookUp(s.endpoint, n)
		l.mu.Unlock()
	}
}

// Upgrades says whether the endpoint takes extended CONNECT, for which its settings may have to be waited for.
func (s *Shared) Upgrades(timeout time.Duration) bool {
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-s.settled:
	case <-t.C:
	}
	return s.HTTP.ConnectProtocol()
}

// Cut ends the connection at once.
func (s *Shared) Cut() { s.link.Cut() }

// discard lets the connection end with its last stream.
func (s *Shared) discard() {
	s.discarded.Store(true)
	s.Shutdown()
	s.left(s.HTTP.Streams(), true)
}

// left ends a connection that is to end, leaving, once it has no streams, or lets the next one have the stream that was
// given back. Without limits nobody waits for the room that an end makes: the sweep is early enough then, unless the end
// is ours.
func (s *Shared) left(streams int, leaving bool) {
	switch {
	case !leaving:
		s.offer(1)
	case streams == 0 && (s.discarded.Load() || s.endpoint.limits.Load() != nil):
		s.link.InterruptRead()
	}
}

// test sends a PING when it is time for one and ends a connection on which nothing has come since the last. What comes, be
// it the answer or not, shows that the endpoint is there (as for Envoy's connection_keepalive).
func (s *Shared) test(now int64, k *model.KeepAlive) {
	switch {
	case s.unanswered && s.LastRead() < s.tested:
		if now-s.tested >= int64(k.Timeout) {
			s.endpoint.set.log.Info("connection does not answer PING", "peer", s.endpoint.address)
			s.link.Cut()
		}
	case now-max(s.tested, s.began) >= int64(k.Interval):
		s.tested, s.unanswered = now, true
		s.HTTP.Ping(uint64(now))
		s.Flush()
	}
}

// sweep ends connections that nobody has used since before, those that take no more streams, and those that have lasted for
// as long as they may.
func (s *Shared) sweep(before int64, t *tuning) {
	if t.duration > 0 && int64(time.Since(s.born)) >= t.duration {
		s.replace()
		return
	}
	if s.HTTP.Streams() > 0 {
		return
	}
	if s.LastRead() < before || s.HTTP.Leaving() {
		s.link.InterruptRead()
	}
}
