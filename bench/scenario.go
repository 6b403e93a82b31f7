//go:build linux

package main

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/bench/load"
)

// kind is what is sent and what is counted.
type kind struct {
	name, title string
	unit        string  // what CPU time is told for
	perDone     float64 // units in one of what the load counts
	answer      int     // bytes of the answer's body
	body        int     // bytes of the request's body
	rpc         bool    // one gRPC message for one
	inFlight    int     // a gRPC stream with so many messages unanswered
	groups      []tls.CurveID
	handshakes  bool
}

var (
	get300    = kind{name: "get-300B", title: "GET, 300 B answer", answer: 300}
	get16K    = kind{name: "get-16K", title: "GET, 16 KiB answer", answer: 16 << 10}
	post1K    = kind{name: "post-1K", title: "POST of 1 KiB, 300 B answer", answer: 300, body: 1 << 10}
	unary     = kind{name: "unary", title: "gRPC call, 100 B messages", rpc: true}
	streaming = kind{name: "stream", title: "gRPC stream of both directions, 100 B messages, 16 unanswered", inFlight: 16, unit: "message", perDone: 2}
	bytes64K  = kind{name: "bytes", title: "bytes both ways at once, written 64 KiB at a time", unit: "MiB", perDone: 1.0 / (1 << 20)}
	handshake = kind{name: "handshake", title: "full handshake of TLS 1.3 with ECDSA P-256, then close", unit: "handshake", handshakes: true}
	x25519    = kind{name: "handshake-x25519", title: "the same with X25519 as the only group", unit: "handshake", handshakes: true, groups: []tls.CurveID{tls.X25519}}
)

// scenario is one case: a kind in a lane on a number of connections, each with a number of streams.
type scenario struct {
	kind
	lane           *lane
	name           string
	conns, streams int
	paced          bool // measured at a fixed rate too, for latency
}

// shape is a number of connections and of the streams on each; 0 streams is no multiplexing.
type shape struct {
	conns, streams int
	paced          bool
}

func allCases() []scenario {
	var all []scenario
	lanes := allLanes()
	add := func(in string, k kind, shapes ...shape) {
		l := lanes[slices.IndexFunc(lanes, func(l *lane) bool { return l.name == in })]
		if k.unit == "" {
			k.unit = "request"
		}
		if k.perDone == 0 {
			k.perDone = 1
		}
		for _, s := range shapes {
			name := fmt.Sprintf("%s/%d", k.name, s.conns)
			if s.streams > 0 {
				name = fmt.Sprintf("%s/%dx%d", k.name, s.conns, s.streams)
			}
			if in != "http1" {
				name = in + "-" + name
			}
			all = append(all, scenario{kind: k, lane: l, name: name, conns: s.conns, streams: s.streams, paced: s.paced})
		}
	}
	add("http1", get300, shape{conns: 16}, shape{conns: 64, paced: true}, shape{conns: 256})
	add("http1", get16K, shape{conns: 64})
	add("http1", post1K, shape{conns: 64})
	add("h2c", get300, shape{4, 32, true}, shape{1, 100, false}, shape{16, 8, false})
	add("h2c", get16K, shape{4, 32, false})
	add("h2c", post1K, shape{4, 32, false})
	add("http1-to-h2c", get300, shape{conns: 64})
	add("h2c-to-http1", get300, shape{4, 32, false})
	add("grpc", unary, shape{4, 32, true})
	add("grpc", streaming, shape{4, 4, false})
	add("tcp", bytes64K, shape{conns: 4})
	add("tls", get300, shape{conns: 64})
	add("tls", handshake, shape{conns: 8})
	add("tls", x25519, shape{conns: 8})
	return all
}

// connections says on how many connections and streams the case runs.
func (c *scenario) connections() string {
	if c.streams > 0 {
		return fmt.Sprintf("%d connections x %d streams", c.conns, c.streams)
	}
	return fmt.Sprintf("%d connections", c.conns)
}

// request is the same for every proxy: what a service's client would send to another service.
func (k kind) request() load.Request {
	if k.rpc || k.inFlight > 0 {
		return k.call()
	}
	r := load.Request{
		Method: "GET", Authority: serviceHost + ":" + servicePort, Path: fmt.Sprintf("/api/v1/reviews/%d", k.answer), Answer: k.answer,
		Fields: []load.Field{
			{Name: "User-Agent", Value: "storefront/2.4 (linux; go1.26)"},
			{Name: "Accept", Value: "application/json, text/plain;q=0.8"},
			{Name: "Accept-Language", Value: "en-GB,en;q=0.7"},
			{Name: "Cookie", Value: "session=1f6d0cbb5e2a4e7e9b8d; region=eu"},
			{Name: "Authorization", Value: "Bearer c2Vzc2lvbi10b2tlbi1mb3ItbWVhc3VyZW1lbnRz"},
			{Name: "X-Tenant", Value: "blue"},
			{Name: "Cache-Control", Value: "no-cache"},
		},
	}
	if k.body > 0 {
		r.Method = "POST"
		r.Fields = append(r.Fields, load.Field{Name: "Content-Type", Value: "application/json"})
		r.Body = []byte(strings.Repeat(`{"stars":5,"text":"as described"}`, k.body/33+1)[:k.body])
	}
	return r
}

// call is a request as gRPC's libraries make it.
func (k kind) call() load.Request {
	r := load.Request{
		Method: "POST", Authority: serviceHost + ":" + servicePort, Path: "/reviews.v1.Reviews/Get", GRPC: true,
		Fields: []load.Field{
			{Name: "Content-Type", Value: "application/grpc"},
			{Name: "User-Agent", Value: "grpc-go/1.76.0"},
			{Name: "TE", Value: "trailers"},
			{Name: "Authorization", Value: "Bearer c2Vzc2lvbi10b2tlbi1mb3ItbWVhc3VyZW1lbnRz"},
			{Name: "X-Tenant", Value: "blue"},
		},
		Body: load.Message(load.MessageSize), Answer: len(load.Message(load.MessageSize)), InFlight: k.inFlight,
	}
	if k.inFlight > 0 {
		r.Path = "/reviews.v1.Reviews/Watch"
	}
	return r
}

// answerSizes are the answers that the backend prepares.
func answerSizes() []int {
	return []int{get300.answer, get16K.answer}
}

// traffic is a load on one proxy.
type traffic interface {
	Saturate(d time.Duration) error
	Drain() error
	Close()
	Done() uint64
	Failures() (uint64, error)
}

// open makes the connections of a case to a proxy, or to the backend itself.
func (b *bench) open(addr string, c scenario) (traffic, error) {
	switch {
	case c.lane.TCP():
		return b.loop.DialBytes(addr, c.conns, b.far)
	case c.handshakes:
		config := b.identity.client.Clone()
		config.CurvePreferences = c.groups
		return b.loop.NewHandshakes(addr, c.conns, config), nil
	}
	return b.dial(addr, c)
}

// dial is open for a case of requests.
func (b *bench) dial(addr string, c scenario) (*load.Client, error) {
	t := load.Target{Addr: addr, Conns: c.conns, Streams: c.streams}
	if c.lane.TLS() {
		t.TLS = b.identity.client
	}
	return b.loop.Dial(t, c.request())
}

// backendAddresses returns where the backends of a lane are.
func (b *bench) backendAddresses(l *lane) []string {
	if l.TCP() {
		return b.far.Addresses()
	}
	return b.backend.Addresses()
}

// probe is the least load that shows that a proxy works in a lane.
func probe(l *lane) scenario {
	c := scenario{kind: get300, lane: l, name: "probe", conns: 1}
	switch {
	case l.GRPC():
		c.kind, c.streams = unary, 1
	case l.TakesHTTP2():
		c.streams = 1
	case l.TCP():
		c.kind = bytes64K
	}
	return c
}
