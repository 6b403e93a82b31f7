//go:build linux

package main

import "slices"

// speech is what is spoken on one side of a proxy.
type speech string

const (
	http1 speech = "HTTP/1.1"
	http2 speech = "HTTP/2"
	grpc  speech = "gRPC"
	tcp   speech = "TCP"
	https speech = "HTTP/1.1 over TLS"
)

// lane is what clients speak to the proxies and these to the backends in some cases. Each proxy is configured for a
// lane, and runs as a process of its own in it.
type lane struct {
	name    string
	in, out speech
	// backends says that generator and backend understand each other without a proxy, so that their own cost can be told.
	direct bool
	// idle says that the memory of idle connections is measured.
	idle bool
}

func allLanes() []*lane {
	return []*lane{
		{name: "http1", in: http1, out: http1, direct: true, idle: true},
		{name: "h2c", in: http2, out: http2, direct: true, idle: true},
		{name: "http1-to-h2c", in: http1, out: http2},
		{name: "h2c-to-http1", in: http2, out: http1},
		{name: "grpc", in: grpc, out: grpc, direct: true},
		{name: "tcp", in: tcp, out: tcp, direct: true},
		{name: "tls", in: https, out: http1, idle: true},
	}
}

// TakesHTTP2 says whether clients speak HTTP/2. Templates of configurations ask it, as they do the others.
func (l *lane) TakesHTTP2() bool { return l.in == http2 || l.in == grpc }

// SendsHTTP2 says whether backends are spoken to with HTTP/2.
func (l *lane) SendsHTTP2() bool { return l.out == http2 || l.out == grpc }

// GRPC says whether requests are gRPC's.
func (l *lane) GRPC() bool { return l.in == grpc }

// TCP says whether bytes are passed on unread.
func (l *lane) TCP() bool { return l.in == tcp }

// TLS says whether TLS ends at the proxy.
func (l *lane) TLS() bool { return l.in == https }

// entrant is a proxy in a lane.
type entrant struct {
	*peer
	lane    *lane
	failure error // what ended its measurement early
	process *process
}

// enter returns the entrants of a lane: the proxies that are here and have a part in it.
func (b *bench) enter(l *lane) []*entrant {
	var all []*entrant
	for _, p := range b.peers {
		if p.absence == nil && slices.Contains(p.lanes, l.name) {
			all = append(all, &entrant{peer: p, lane: l})
		}
	}
	b.entrants = append(b.entrants, all...)
	return all
}

// working returns those that have not failed.
func working(all []*entrant) []*entrant {
	var ok []*entrant
	for _, e := range all {
		if e.failure == nil {
			ok = append(ok, e)
		}
	}
	return ok
}
