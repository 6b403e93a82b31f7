// Package proxy is the data plane: it accepts connections, carries each exchange to an endpoint that the snapshot allows, and tells what happened.
//
// Read in this order: listener.go (accept), conn.go (one client connection), exchange.go (one request's life, its verbs),
// forward.go and relay.go (there and back), answer.go (what the proxy says itself), record.go. generation.go and rule.go
// build what an exchange runs on; sweep.go ends what lasts too long.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/accesslog"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/dashboard"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/http2"
)

// Options of a proxy. Metrics is required.
type Options struct {
	Log     *slog.Logger
	Metrics *telemetry.Metrics
	Limits  Limits
	// Listen binds an address; net.Listen by default. Who chose the addresses may have them bound already.
	Listen func(address string) (net.Listener, error)
	// Streams are where an access log goes that is configured to be standard output or standard error.
	Streams Streams
}

// Limits bound what clients can ask of a proxy. Zero fields take the defaults of DefaultLimits.
type Limits struct {
	// Head bounds request and response heads.
	Head http1.Limits
	// Underscores lets requests at gateways have "_" in the names of fields. Without it they are refused with 400: what
	// stands behind may take X_Y for X-Y, which the gateway has set or removed.
	Underscores bool
	// HeadTimeout is how long a head may take from its first byte (from the accept for the first of a connection).
	HeadTimeout time.Duration
	// Idle is how long a client's connection may be idle between requests.
	Idle time.Duration
	// StreamIdle is how long a client may hold up an exchange: send nothing of a body while the application that has not
	// answered waits for it, or take nothing of an answer that waits to be sent (Envoy's stream_idle_timeout). Negative sets
	// no limit.
	StreamIdle time.Duration
	// Connections bounds the client connections of one listener; further ones are closed at once and counted.
	Connections int
	// Streams bounds the streams that a client has open at a time on one connection of HTTP/2.
	Streams uint32
}

// DefaultLimits are used where Options name none.
var DefaultLimits = Limits{HeadTimeout: 10 * time.Second, Idle: time.Hour, StreamIdle: 5 * time.Minute, Connections: 1 << 16, Streams: 100}

func (l Limits) orDefault() Limits {
	l.Head = l.Head.OrDefault()
	if l.HeadTimeout <= 0 {
		l.HeadTimeout = DefaultLimits.HeadTimeout
	}
	if l.Idle <= 0 {
		l.Idle = DefaultLimits.Idle
	}
	if l.StreamIdle == 0 {
		l.StreamIdle = DefaultLimits.StreamIdle
	}
	if l.Connections <= 0 {
		l.Connections = DefaultLimits.Connections
	}
	if l.Streams == 0 {
		l.Streams = DefaultLimits.Streams
	}
	return l
}

// Proxy is one workload's data plane.
type Proxy struct {
	log      *slog.Logger
	metrics  *telemetry.Metrics
	limits   Limits
	bind     func(address string) (net.Listener, error)
	upstream *upstream.Set
	conns    registry
	flows    flows
	mirrors  mirrors
	asking   approaches
	stats    stats
	streams  Streams
	lines    accesslog.Counts
	access   atomic.Pointer[accessLog] // nil without one
	floods   http2.Stats
	crew     crew
	// firstStream is the id of the first stream on a connection to an endpoint; tests begin near the last one.
	firstStream uint32

	// change serialises Apply, Drain and Close.
	change     sync.Mutex
	listeners  map[string]*listener // by name; guarded by change
	generation atomic.Pointer[generation]
	closed     bool // guarded by change

	draining atomic.Bool
	serving  sync.WaitGroup // connections
	served   chan struct{}  // closed once draining, when the last connection has ended
	sweeping sync.WaitGroup
	awake    context.CancelFunc // ends the sweeper
	life     context.Context    //nolint:containedctx // the proxy's own life, for dials that nobody else bounds
	die      context.CancelFunc // ends dials under way
}

// ErrClosed is returned by Apply on a proxy that was drained or closed.
var ErrClosed = errors.New("proxy is closed")

var errNoSnapshot = errors.New("no snapshot has been applied yet")

// New returns a proxy that listens nowhere until Apply.
func New(o Options) *Proxy {
	p := &Proxy{
		log: o.Log, metrics: o.Metrics, limits: o.Limits.orDefault(), bind: o.Listen, streams: o.Streams,
		conns:     registry{conns: map[*conn]struct{}{}, wake: make(chan struct{}, 1)},
		listeners: map[string]*listener{},
		served:    make(chan struct{}),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.bind == nil {
		p.bind = func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	p.upstream = upstream.NewSet(o.Metrics, p.log, p.speak2, now)
	p.countFloods()
	p.life, p.die = context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	p.awake = cancel
	for _, c := range []prometheus.Collector{p, dashboard.NewCollector(p, now)} {
		if err := p.metrics.Register(c); err != nil {
			p.log.Error("metrics of the proxy are not exported", "reason", err)
		}
	}
	p.sweeping.Go(func() { p.sweep(ctx) })
	return p
}

// Apply puts s in force. All that can fail happens first: on an error the proxy runs on as before. Exchanges under way
// end by the configuration that they began with; connections stay.
func (p *Proxy) Apply(s *model.Snapshot) error {
	p.change.Lock()
	defer p.change.Unlock()
	if p.closed {
		return ErrClosed
	}
	if err := p.apply(s); err != nil {
		p.metrics.Generation(s.Version, false)
		return err
	}
	p.metrics.Generation(s.Version, true)
	return nil
}

func (p *Proxy) apply(s *model.Snapshot) error {
	g, err := p.build(s)
	if err != nil {
		return err
	}
	listeners, left, err := p.open(g)
	if err != nil {
		g.discard(p)
		return err
	}
	// From here on nothing fails.
	old := p.generation.Load()
	g.change.Commit()
	for name, l := range listeners {
		if l.live.Swap(g.bindings[name]) == nil {
			l.start()
		}
	}
	p.listeners = listeners
	for _, l := range left {
		l.retire()
	}
	p.generation.Store(g)
	p.logTo(g.access)
	if old != nil {
		old.unbind(p)
	}
	return nil
}

// open finds a listener for each binding of g: the one of its name, one of another name that leaves the same address (it
// goes on with its connections: an address cannot be bound twice), or a new one, which does not accept yet. left has those
// that nothing asks for any more. On an error nothing new stays.
func (p *Proxy) open(g *generation) (listeners map[string]*listener, left []*listener, err error) {
	listeners = map[string]*listener{}
	for name, l := range p.listeners {
		if b := g.bindings[name]; b != nil && l.asked == b.spec.Address {
			listeners[name] = l
		} else {
			left = append(left, l)
		}
	}
	var opened []*listener
	for name, b := range g.bindings {
		if listeners[name] != nil {
			continue
		}
		if i := slices.IndexFunc(left, func(l *listener) bool { return l.at(b.spec.Address) }); i >= 0 {
			listeners[name] = left[i]
			left = slices.Delete(left, i, i+1)
			continue
		}
		l, err := p.listen(b.spec.Address)
		if err != nil {
			for _, l := range opened {
				_ = l.socket.Close()
			}
			return nil, nil, fmt.Errorf("listener %q: %w", name, err)
		}
		listeners[name], opened = l, append(opened, l)
	}
	return listeners, left, nil
}

// Address returns host:port where the named listener of the snapshot in force accepts, or "".
func (p *Proxy) Address(name string) string {
	p.change.Lock()
	defer p.change.Unlock()
	if l := p.listeners[name]; l != nil {
		return l.socket.Addr().String()
	}
	return ""
}

// Snapshot returns the snapshot in force, or nil before the first.
func (p *Proxy) Snapshot() *model.Snapshot {
	if g := p.generation.Load(); g != nil {
		return g.snapshot
	}
	return nil
}

// Drain stops accepting, lets exchanges under way end, closes connections as they become idle, and returns when all is
// done, or when ctx ends: then the rest is cut off, tunnels too. It can be called again, with a shorter time.
func (p *Proxy) Drain(ctx context.Context) error {
	p.leave()
	var err error
	select {
	case <-p.served:
	case <-ctx.Done():
		err = ctx.Err()
		p.die()
		for _, c := range p.conns.list(nil) {
			c.cut()
		}
		<-p.served
	}
	p.die()
	p.mirrors.close()
	p.asking.close()
	p.awake() // only now: it is the sweeper that notices an exchange that cut came too early for
	p.sweeping.Wait()
	p.crew.close()
	p.upstream.Close()
	p.logTo(nil)
	return err
}

// leave asks every connection to end, once.
func (p *Proxy) leave() {
	p.change.Lock()
	defer p.change.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.draining.Store(true)
	for _, l := range p.listeners {
		l.retire()
	}
	go func() { // ends when the last connection has; Drain waits for it
		p.serving.Wait()
		close(p.served)
	}()
}

// Close ends everything at once.
func (p *Proxy) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Drain(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
