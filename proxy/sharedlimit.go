package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/limit"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/message"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// This file asks rate limit services about requests: a call of gRPC on the way of the exchange, which waits for the answer in
// its own goroutine, and no longer than its client does.

// sharedLimit is a model.SharedLimit over the clusters of one generation.
type sharedLimit struct {
	spec    *model.SharedLimit
	cluster *upstream.Cluster // nil where the service cannot be reached
	ids     [][]message.ID    // of the headers in spec.Descriptors
	timeout int64             // nanoseconds
	head    message.Request   // of each call
}

func newSharedLimit(s *model.SharedLimit, clusters map[string]*upstream.Cluster) (*sharedLimit, error) {
	if s == nil {
		return nil, nil
	}
	q := &sharedLimit{spec: s, timeout: int64(s.Timeout)}
	if s.Cluster != "" {
		if q.cluster = clusters[s.Cluster]; q.cluster == nil {
			return nil, fmt.Errorf("there is no cluster %q", s.Cluster)
		}
	}
	for _, d := range s.Descriptors {
		ids := make([]message.ID, len(d))
		for i := range d {
			ids[i] = message.IdentifyString(d[i].From.Header)
		}
		q.ids = append(q.ids, ids)
	}
	h := &q.head
	h.Version = message.HTTP2
	h.SetMethod([]byte("POST"))
	h.SetScheme(schemeHTTP)
	if q.cluster != nil && q.cluster.TLS != nil {
		h.SetScheme(schemeHTTPS)
	}
	h.SetAuthority([]byte(s.Authority))
	h.SetPath([]byte("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"))
	h.Add("content-type", "application/grpc")
	h.Add("te", "trailers")
	h.Add("grpc-timeout", string(appendGRPCTimeout(nil, q.timeout)))
	h.BodyLength = message.UnknownLength
	return q, nil
}

// inquiry is what one question needs; inquiries are pooled.
type inquiry struct {
	req                        message.Request
	res                        message.Response
	message, descriptor, entry []byte // the question, being written
	answer                     []byte
	ruling                     ruling
	admission                  upstream.Admission
}

var inquiries = sync.Pool{New: func() any { return new(inquiry) }}

// mostInquiry is how much memory each buffer of a pooled inquiry may hold on to; mostRuling how long an answer may be.
const (
	mostInquiry = 16 << 10
	mostRuling  = 64 << 10
)

func putInquiry(a *inquiry) {
	if cap(a.message)+cap(a.descriptor)+cap(a.entry)+cap(a.answer) > 4*mostInquiry || a.req.Footprint()+a.res.Footprint() > mostInquiry {
		return
	}
	a.ruling = ruling{}
	inquiries.Put(a)
}

// consultAll asks the services of all limits that are for the request. False means that the exchange has ended.
func (x *exchange) consultAll(limits []*rateLimit) bool {
	for _, l := range limits {
		if l.shared != nil && covers(l.spec.Methods, l.spec.Paths, &x.req) && !x.consult(l) {
			return false
		}
	}
	return true
}

// consult asks the service of l about the request and answers it with 429 where that says so. False means that the exchange
// has ended.
func (x *exchange) consult(l *rateLimit) bool {
	a := inquiries.Get().(*inquiry)
	defer putInquiry(a)
	q := l.shared
	if !a.question(q, x) {
		return true // none of the descriptors is about this request
	}
	err := x.ask(q, a)
	if errors.Is(err, errAbandoned) {
		return false
	}
	if err == nil {
		err = a.rule()
	}
	r := &a.ruling
	switch {
	case err != nil:
		l.counts.failed.Add(1)
		x.conn.proxy.log.Debug("cannot ask the rate limit service", "service", q.spec.Authority, "reason", err)
		if q.spec.FailOpen || l.spec.DryRun {
			return true
		}
		x.say(rateLimitError, endings[rateLimitError].status, endings[rateLimitError].body)
		return false
	case !r.over:
		l.counts.ok.Add(1)
		x.granted(l, r)
		return true
	case l.spec.DryRun:
		l.counts.would.Add(1)
		return true
	}
	l.counts.over.Add(1)
	x.overLimit(l, r)
	return false
}

// granted takes what the service has to say of a request that it lets through.
func (x *exchange) granted(l *rateLimit, r *ruling) {
	eachField(r.request, func(name, value []byte) { x.req.Append(message.Identify(name), name, value) })
	if len(r.response) > 0 {
		if x.added == nil {
			x.added = new(message.Head)
		}
		eachField(r.response, func(name, value []byte) { x.added.Append(message.Identify(name), name, value) })
	}
	if r.known && l.spec.Headers == "always" && (!x.quota.told || r.facts.Remaining < x.quota.facts.Remaining) {
		x.quota = quota{facts: r.facts, told: true}
	}
}

// overLimit answers a request that is over a limit, as Envoy's filter does, and says what is known of when to come again.
func (x *exchange) overLimit(l *rateLimit, r *ruling) {
	res := &x.res
	res.Reset()
	res.Status = endings[rateLimited].status
	res.Add("x-envoy-ratelimited", "true")
	if l.spec.Headers != "never" {
		if r.known {
			x.tellQuota(r.facts)
		}
		if r.facts.Retry > 0 {
			res.Add("retry-after", strconv.Itoa(limit.Seconds(r.facts.Retry)))
		}
	}
	typed := false
	eachField(r.response, func(name, value []byte) {
		id := message.Identify(name)
		typed = typed || id == message.ContentType
		res.SetBytes(id, string(name), value)
	})
	if x.grpc {
		res.Remove(message.ContentType)
		x.sayGRPC(rateLimited, l.spec.GRPC, string(r.body))
		return
	}
	if x.rule.cors != nil {
		x.rule.cors.Mark(x.origin(), res)
	}
	if len(r.body) > 0 && !typed {
		res.Add("content-type", "text/plain")
	}
	x.conclude(rateLimited, string(r.body))
}

var (
	errNoService     = errors.New("the service cannot be reached from here")
	errNoEndpoint    = errors.New("the service has no endpoint that is well")
	errNoRuling      = errors.New("no answer in time")
	errAbandoned     = errors.New("the client has gone")
	errLongRuling    = fmt.Errorf("the answer is longer than %d bytes", mostRuling)
	errRulingStatus  = errors.New("the answer's HTTP status is not 200")
	errRulingRefused = errors.New("the answer's gRPC status is not OK")
)

// ask sends the question of a and leaves the answer there. The time that it takes does not count for the route's timeout, as
// Envoy begins that one later. Where the client has gone meanwhile, the exchange has vanished.
func (x *exchange) ask(q *sharedLimit, a *inquiry) error {
	if q.cluster == nil {
		return errNoService
	}
	i := q.cluster.Balancer.Pick(balance.Key{}, &x.rand)
	if i < 0 {
		return errNoEndpoint
	}
	m := &q.cluster.Members[i]
	m.Host.Active.Add(1)
	defer m.Host.Active.Add(-1)
	if q.timeout < int64(fineBelow) {
		x.conn.proxy.conns.hurry()
		defer x.conn.proxy.conns.relax()
	}
	a.req.CopyFrom(&q.head)
	if m.Spec.Sidecar && x.b.peer != nil {
		a.req.SetBytes(message.XOutriderPeer, "x-outrider-peer", x.b.peer)
	}
	before := now()
	if x.stream == nil {
		x.watch.waiting.Store(before)
	}
	if x.watch.arm(before+q.timeout) && x.watch.why() == vanished {
		x.vanish()
		return errAbandoned
	}
	err := x.inquire(q, m.Endpoint, before+q.timeout, a)
	x.resumed = now()
	if x.deadline != never {
		x.deadline += x.resumed - before
	}
	if x.watch.arm(x.deadline) && x.watch.why() == vanished {
		x.vanish()
		return errAbandoned
	}
	return err
}

// inquire makes the call on a connection of e.
func (x *exchange) inquire(q *sharedLimit, e *upstream.Endpoint, until int64, a *inquiry) error {
	most := q.cluster.Spec.MaxStreams
	for refusals := 0; !x.watch.over(); {
		sh := e.Share(most, 0)
		if sh == nil {
			if err := x.approach(q, e, until); err != nil {
				return err
			}
			continue
		}
		if x.conn.listener.leadsTo(sh.Link()) {
			return errLoop
		}
		call, err := sh.Open(&a.admission, most, &a.req, false)
		if errors.Is(err, http2.ErrNoStreams) {
			continue
		}
		if err != nil {
			return err
		}
		err = x.put(call, until, a)
		sh.Close(call, &a.admission)
		if refusals++; !refusedStream(err) || refusals == connectAttempts {
			return err
		}
	}
	return errNoRuling
}

// refusedStream says whether a call ended with nothing done (RFC 9113 §8.7).
func refusedStream(err error) bool {
	if err == nil {
		return false
	}
	reset := (*mux.ResetError)(nil)
	return errors.As(err, &reset) && reset.Code == http2.RefusedStream
}

// put sends the question on call and reads the answer. Nobody interrupts call once it has returned.
func (x *exchange) put(call *mux.Call, until int64, a *inquiry) error {
	x.watch.call.Store(call)
	if x.watch.over() { // before the call was there to be interrupted
		call.Interrupt()
	}
	err := call.Send(a.message, true)
	if err == nil {
		call.Flush()
		err = a.receive(call)
	}
	x.watch.call.Store(nil)
	if x.watch.over() {
		_ = x.watch.why() // returns when whoever ended the phase has interrupted all
		return errNoRuling
	}
	return err
}

// receive reads the answer.
func (a *inquiry) receive(call *mux.Call) error {
	a.answer = a.answer[:0]
	for a.res.Status = 0; a.res.Status < 200; {
		if err := call.Head(&a.res); err != nil {
			return err
		}
	}
	if a.res.Status != 200 {
		return errRulingStatus
	}
	for {
		p, end, err := call.Next()
		if err != nil {
			return err
		}
		if len(a.answer)+len(p) > mostRuling {
			return errLongRuling
		}
		a.answer = append(a.answer, p...)
		if end {
			break
		}
		if len(p) == 0 {
			if err := call.Wait(); err != nil {
				return err
			}
		}
	}
	status := grpcStatus(call.Trailers())
	if status < 0 {
		status = grpcStatus(&a.res.Head) // where there are no other trailers
	}
	if status != 0 {
		return errRulingRefused
	}
	return nil
}

// value returns what an entry of a descriptor is for the request; nothing where it has no such thing.
func (x *exchange) value(e *model.DescriptorEntry, id message.ID) []byte {
	switch {
	case e.From.Identity:
		who := x.who
		if x.b.spec.Direction != model.Inbound {
			who = callerOf(x.b.peer)
		}
		x.joined = append(x.joined[:0], who...)
		for i, c := range x.joined {
			if c == ';' {
				x.joined[i] = '/'
			}
		}
	case e.From.SourceIP:
		x.joined = appendAddr(x.joined[:0], x.conn.remote.Addr())
	case e.From.Header != "":
		v, _ := x.req.Values(x.joined[:0], id, e.From.Header)
		return v
	default:
		x.joined = append(x.joined[:0], e.Value...)
	}
	return x.joined
}

// appendAddr appends an address without what says that IPv4 came to a socket of IPv6.
func appendAddr(dst []byte, a netip.Addr) []byte { return a.Unmap().WithZone("").AppendTo(dst) }

// approaches are the connections to rate limit services that are being opened. An exchange waits only as long as its limit's
// timeout; a connection that takes longer is there for the next.
type approaches struct {
	mu      sync.Mutex
	under   map[*upstream.Endpoint]*approach
	closed  bool
	serving sync.WaitGroup
}

// approach is one of them; err is set when done is closed.
type approach struct {
	done chan struct{}
	err  error
}

// approach waits until a connection to e is there, opening one if nobody does.
func (x *exchange) approach(q *sharedLimit, e *upstream.Endpoint, until int64) error {
	d := x.conn.proxy.asking.begin(x.conn.proxy, q.cluster, e)
	if d == nil {
		return errNoService
	}
	if !x.nap(max(0, time.Duration(until-now())), d.done, false) {
		return errNoRuling
	}
	select {
	case <-d.done:
		return d.err
	default:
		return errNoRuling
	}
}

// begin returns the approach to e that is under way, or a new one, in a goroutine of its own; close waits for it.
func (a *approaches) begin(p *Proxy, c *upstream.Cluster, e *upstream.Endpoint) *approach {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := a.under[e]; d != nil || a.closed {
		return d
	}
	if a.under == nil {
		a.under = map[*upstream.Endpoint]*approach{}
	}
	d := &approach{done: make(chan struct{})}
	a.under[e] = d
	a.serving.Go(func() {
		d.err = p.approach(c, e)
		a.mu.Lock()
		delete(a.under, e)
		a.mu.Unlock()
		close(d.done)
	})
	return d
}

// approach opens a connection to e, within the cluster's connect timeout.
func (p *Proxy) approach(c *upstream.Cluster, e *upstream.Endpoint) error {
	timeout := max(1, c.ConnectTimeout)
	var turn *upstream.Turn
	if c.Limited() {
		turn = upstream.NewTurn()
		turn.Deadline = time.Now().Add(timeout)
		defer context.AfterFunc(p.life, turn.Interrupt)()
	}
	s, err := p.connect(e, timeout, secured(c, c.Spec.Service.Host, "h2", "http/1.1"), c.Spec.MaxStreams, now(), turn)
	if err == nil {
		s.Unused() // whoever asked for it may have gone by now
	}
	return err
}

// close waits for all; p.life has ended.
func (a *approaches) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.serving.Wait()
}
