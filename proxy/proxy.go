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
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/http1"
)

// Options of a proxy. Metrics is required.
type Options struct {
	Log     *slog.Logger
	Metrics *telemetry.Metrics
	Limits  Limits
}

// Limits bound what clients can ask of a proxy. Zero fields take the defaults of DefaultLimits.
type Limits struct {
	// Head bounds request and response heads.
	Head http1.Limits
	// HeadTimeout is how long a head may take from its first byte (from the accept for the first of a connection).
	HeadTimeout time.Duration
	// Idle is how long a client's connection may be idle between requests.
	Idle time.Duration
	// Connections bounds the client connections of one listener; further ones are closed at once and counted.
	Connections int
}

// DefaultLimits are used where Options name none.
var DefaultLimits = Limits{HeadTimeout: 10 * time.Second, Idle: time.Hour, Connections: 1 << 16}

func (l Limits) orDefault() Limits {
	if l.HeadTimeout <= 0 {
		l.HeadTimeout = DefaultLimits.HeadTimeout
	}
	if l.Idle <= 0 {
		l.Idle = DefaultLimits.Idle
	}
	if l.Connections <= 0 {
		l.Connections = DefaultLimits.Connections
	}
	return l
}

// Proxy is one workload's data plane.
type Proxy struct {
	log      *slog.Logger
	metrics  *telemetry.Metrics
	limits   Limits
	upstream *upstream.Set
	conns    registry
	stats    stats

	// change serialises Apply, Drain and Close.
	change     sync.Mutex
	listeners  map[string]*listener // by name; guarded by change
	generation atomic.Pointer[generation]
	closed     bool // guarded by change

	draining atomic.Bool
	serving  sync.WaitGroup // connections
	sweeping sync.WaitGroup
	stop     context.CancelFunc // ends the sweeper and dials under way
	life     context.Context    //nolint:containedctx // the proxy's own life, for dials that nobody else bounds
}

// ErrClosed is returned by Apply on a proxy that was drained or closed.
var ErrClosed = errors.New("proxy is closed")

var errNoSnapshot = errors.New("no snapshot has been applied yet")

// New returns a proxy that listens nowhere until Apply.
func New(o Options) *Proxy {
	p := &Proxy{
		log: o.Log, metrics: o.Metrics, limits: o.Limits.orDefault(),
		upstream:  upstream.NewSet(o.Metrics),
		conns:     registry{conns: map[*conn]struct{}{}, wake: make(chan struct{}, 1)},
		listeners: map[string]*listener{},
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.life, p.stop = context.WithCancel(context.Background())
	if err := p.metrics.Register(p); err != nil {
		p.log.Error("metrics of the proxy are not exported", "reason", err)
	}
	p.sweeping.Go(func() { p.sweep(p.life) })
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
	opened, err := p.open(g)
	if err != nil {
		g.discard(p)
		return err
	}
	// From here on nothing fails.
	old := p.generation.Load()
	g.change.Commit()
	for name, l := range p.listeners {
		if b := g.bindings[name]; b != nil && opened[name] == nil {
			l.live.Store(b)
		} else {
			delete(p.listeners, name)
			l.retire()
		}
	}
	for name, l := range opened {
		p.listeners[name] = l
		l.start()
	}
	p.generation.Store(g)
	if old != nil {
		old.unbind(p)
	}
	return nil
}

// open binds the listeners of g that p does not have yet, or has at another address. On an error none of them stays.
func (p *Proxy) open(g *generation) (opened map[string]*listener, err error) {
	opened = map[string]*listener{}
	for name, b := range g.bindings {
		if l := p.listeners[name]; l != nil && l.asked == b.spec.Address {
			continue
		}
		l, err := p.listen(b)
		if err != nil {
			for _, l := range opened {
				_ = l.socket.Close()
			}
			return nil, fmt.Errorf("listener %q: %w", name, err)
		}
		opened[name] = l
	}
	return opened, nil
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
// done, or when ctx ends: then the rest is cut off.
func (p *Proxy) Drain(ctx context.Context) error {
	p.change.Lock()
	defer p.change.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	p.draining.Store(true)
	for _, l := range p.listeners {
		l.retire()
	}
	done := make(chan struct{})
	go func() { // ends when the last connection has; finish below sees to that
		p.serving.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.finish()
	<-done
	return err
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

// finish cuts off what is left and waits for every goroutine of the proxy.
func (p *Proxy) finish() {
	for _, c := range p.conns.list(nil) {
		c.cut()
	}
	p.stop()
	p.serving.Wait()
	for _, l := range p.listeners {
		l.accepting.Wait()
	}
	p.sweeping.Wait()
	p.upstream.Close()
}
