// Package standin is the built-in application that plays a workload which does not run on this machine.
//
// It answers HTTP and gRPC with what it received, calls on through its sidecar where it was told to, echoes WebSockets
// and TCP, and misbehaves on request. It is an application like any other: the mesh treats it as one.
package standin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Options say whom a stand-in plays.
type Options struct {
	Namespace, Workload, Instance, Version string
	// Proxy is host:port of the outbound HTTP proxy of the instance's sidecar; "" where it has none: calls are dialled directly.
	Proxy string
	// Log hears what goes wrong.
	Log *slog.Logger
}

// Role is how a stand-in plays its part. It may change while it runs.
type Role struct {
	// Calls are the URLs that it calls, in this order, on each request; ParseCalls says which there are.
	Calls     []string
	Behaviour Behaviour
}

// Port is one port of the workload that the stand-in serves.
type Port struct {
	Port     int // the workload's
	Protocol model.Protocol
}

// part is a role while it is played.
type part struct {
	Role
	over chan struct{} // closed when another role has taken its place
}

// App is a running stand-in. It is safe for concurrent use.
type App struct {
	o    Options
	role atomic.Pointer[part]

	client    *http.Client
	transport *http.Transport
	lines     lines
	calling   chan struct{} // full while as many calls are under way as may be

	mu    sync.Mutex
	ports map[int]*server
}

// server is one port that is served.
type server struct {
	spec Port
	addr string
	// shut stops accepting, lets what is under way end until ctx does, ends it then, and waits for the port's goroutines.
	shut func(ctx context.Context) error
}

// maxCalls bounds the calls that one stand-in has under way, so that workloads which call each other in a circle
// cannot exhaust the machine.
const maxCalls = 4096

// New returns a stand-in that serves no port yet.
func New(o Options, r Role) *App {
	a := &App{o: o, calling: make(chan struct{}, maxCalls), ports: map[int]*server{}}
	a.transport = &http.Transport{
		MaxIdleConns:        512,
		MaxIdleConnsPerHost: 512,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
	if o.Proxy != "" {
		a.transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: o.Proxy})
	}
	a.client = &http.Client{
		Transport:     a.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	a.lines.proxy, a.lines.open = o.Proxy, map[string]*grpc.ClientConn{}
	a.role.Store(&part{Role: r, over: make(chan struct{})})
	return a
}

// SetRole changes how a plays its part, from the next request on.
func (a *App) SetRole(r Role) {
	close(a.role.Swap(&part{Role: r, over: make(chan struct{})}).over)
}

// Role returns how a plays its part.
func (a *App) Role() Role { return a.role.Load().Role }

// SetBehaviour changes the behaviour alone; the zero Behaviour heals.
func (a *App) SetBehaviour(b Behaviour) {
	for {
		old := a.role.Load()
		next := &part{Role: old.Role, over: make(chan struct{})}
		next.Behaviour = b
		if a.role.CompareAndSwap(old, next) {
			close(old.over)
			return
		}
	}
}

// name is NAMESPACE/INSTANCE.
func (a *App) name() string { return a.o.Namespace + "/" + a.o.Instance }

// Serve serves one more port at l, which it closes whatever happens, and returns host:port where. A port that is served
// already, in the same way, stays where it is.
func (a *App) Serve(p Port, l net.Listener) (addr string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.ports[p.Port]; old != nil {
		_ = l.Close()
		if old.spec == p {
			return old.addr, nil
		}
		return "", fmt.Errorf("cannot serve port %d as %s at %s: it is served as %s at %s", p.Port, p.Protocol, l.Addr(), old.spec.Protocol, old.addr)
	}
	s := &server{spec: p, addr: l.Addr().String()}
	switch p.Protocol {
	case model.TCP, model.TLS, model.HTTPS:
		s.shut = serveEcho(l)
	case model.Auto:
		s.shut = serveDetected(l, a.http(p))
	default:
		s.shut = a.http(p).serve(l)
	}
	a.ports[p.Port] = s
	return s.addr, nil
}

// Address returns host:port where a serves the workload's port, "" where it does not.
func (a *App) Address(port int) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.ports[port]; s != nil {
		return s.addr
	}
	return ""
}

// Protocol returns what the workload's port is served as, "" where it is not.
func (a *App) Protocol(port int) model.Protocol {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.ports[port]; s != nil {
		return s.spec.Protocol
	}
	return ""
}

// Ports returns the workload's ports that a serves, ascending.
func (a *App) Ports() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.ports))
}

// Unserve ends the serving of one port; what is under way may end until ctx does.
func (a *App) Unserve(ctx context.Context, port int) error {
	a.mu.Lock()
	s := a.ports[port]
	delete(a.ports, port)
	a.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.shut(ctx)
}

// Shutdown ends a: no new requests at once, what is under way until ctx ends.
func (a *App) Shutdown(ctx context.Context) error {
	a.mu.Lock()
	all := a.ports
	a.ports = map[int]*server{}
	a.mu.Unlock()
	var wg sync.WaitGroup
	errs := make(chan error, len(all))
	for _, s := range all {
		wg.Go(func() { errs <- s.shut(ctx) })
	}
	wg.Wait()
	close(errs)
	a.transport.CloseIdleConnections()
	a.lines.close()
	var failed []error
	for err := range errs {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// site is the HTTP server of one port, with what answers there.
type site struct {
	server  *http.Server
	handler *handler
}

// http returns the HTTP server of one port, not yet started.
func (a *App) http(p Port) site {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	// A port that is declared http gets HTTP/1.1 only: that is what its application would speak.
	protocols.SetUnencryptedHTTP2(p.Protocol != model.HTTP)
	h := newHandler(a, p.Port)
	return site{handler: h, server: &http.Server{
		Handler:   h,
		Protocols: protocols,
		ErrorLog:  slog.NewLogLogger(a.o.Log.Handler(), slog.LevelDebug),
	}}
}

// serve serves s at l.
func (s site) serve(l net.Listener) (shut func(context.Context) error) {
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.server.Serve(l) }) // it ends when shut closes l, with ErrServerClosed
	return func(ctx context.Context) error {
		h := s.handler
		close(h.leaving)
		err := s.server.Shutdown(ctx)
		h.guests.close()
		ended := make(chan struct{})
		wg.Go(func() { // ends with the requests, at the latest below
			h.guests.wg.Wait()
			close(ended)
		})
		select {
		case <-ended: // WebSockets among them, of which the server knows nothing
		case <-ctx.Done():
		}
		if err != nil {
			err = s.server.Close()
		}
		h.die()
		wg.Wait()
		if h.grpc != nil {
			h.grpc.Stop()
		}
		return err
	}
}
