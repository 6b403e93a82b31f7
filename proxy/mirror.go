package proxy

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/wire/message"
)

// This file sends copies of requests to other clusters, whose answers are thrown away. The original neither waits for its
// copies nor learns what becomes of them, and they are bounded in number, size and time.

const (
	// mirrorsMost is how many copies there may be for one cluster at a time, those whose body is still to come included.
	mirrorsMost = 100
	// mirroredBody is how many bytes a body that is copied may have.
	mirroredBody = 64 << 10
	// mirrorTimeout is how long a copy may take where its route has no timeout.
	mirrorTimeout = 15 * time.Second
)

// mirrorTarget is a model.Mirror over the clusters of one generation.
type mirrorTarget struct {
	share  share
	target target
	counts *mirrorCounts
}

// mirrorResult is what became of a copy.
type mirrorResult uint8

const (
	mirrorAnswered mirrorResult = iota
	mirrorFailed
	mirrorOverflow
	mirrorTooLong
	mirrorIncomplete
	mirrorResults
)

var mirrorResultNames = [mirrorResults]string{"answered", "failed", "overflow", "too_long", "incomplete"}

// mirrorCounts count the copies for one cluster.
type mirrorCounts struct {
	under   atomic.Int64
	results [mirrorResults]atomic.Uint64
}

func (c *mirrorCounts) take() bool {
	if c.under.Add(1) <= mirrorsMost {
		return true
	}
	c.under.Add(-1)
	c.results[mirrorOverflow].Add(1)
	return false
}

// give ends a copy that was taken.
func (c *mirrorCounts) give(r mirrorResult) {
	c.results[r].Add(1)
	c.under.Add(-1)
}

// mirror draws which mirrors get a copy of the request, and sends those whose body is here.
func (x *exchange) mirror() {
	if x.req.Upgrade {
		return
	}
	var c *copies
	for i := range x.rule.mirrors {
		m := &x.rule.mirrors[i]
		switch {
		case !m.share.draw(&x.rand):
		case x.req.BodyLength > mirroredBody:
			m.counts.results[mirrorTooLong].Add(1)
		case m.counts.take():
			if c == nil {
				c = new(copies)
			}
			c.all = append(c.all, x.copied(m))
		}
	}
	if c == nil {
		return
	}
	if x.streams {
		x.copies = c // the pump feeds them
		return
	}
	c.body = bytes.Clone(x.bodyHere())
	c.send()
}

// bodyHere is the request's body where all of it is here.
func (x *exchange) bodyHere() []byte {
	if x.inline == 0 {
		return nil
	}
	return x.conn.in.Bytes()[:x.inline]
}

// copied makes the copy for m, with the fields that Envoy gives to it.
func (x *exchange) copied(m *mirrorTarget) *shadow {
	s := &shadow{
		proxy: x.conn.proxy, listener: x.conn.listener, mirror: m,
		timeout: int64(mirrorTimeout), rand: balance.NewRand(x.rand.Uint64()),
	}
	if x.rule.timeout > 0 {
		s.timeout = x.rule.timeout
	}
	s.watch.client = nobody{}
	r := &s.req
	r.CopyFrom(&x.req)
	r.Close, r.ExpectContinue = false, false
	if x.b.spec.Direction != model.Inbound {
		r.Set("x-envoy-attempt-count", "1")
		s.peer = x.b.peer
	}
	r.Set("x-envoy-internal", "true")
	return s
}

// copies are the copies of one request, which share its body.
type copies struct {
	all      []*shadow
	body     []byte
	trailers *message.Head
}

// add takes a piece of the body; with its end the copies are sent.
func (c *copies) add(p []byte, end bool, from source) {
	if len(c.all) == 0 {
		return
	}
	if len(c.body)+len(p) > mirroredBody {
		c.drop(mirrorTooLong)
		return
	}
	c.body = append(c.body, p...)
	if !end {
		return
	}
	if t := from.Trailers(); t != nil && t.Len() > 0 {
		c.trailers = new(message.Head)
		c.trailers.CopyFrom(t)
	}
	c.send()
}

func (c *copies) send() {
	for _, s := range c.all {
		s.body, s.trailers = c.body, c.trailers
		s.proxy.mirrors.send(s)
	}
	c.all = nil
}

func (c *copies) drop(r mirrorResult) {
	for _, s := range c.all {
		s.mirror.counts.give(r)
	}
	c.all, c.body = nil, nil
}

// abandon drops copies of a request that came to no end.
func (c *copies) abandon() { c.drop(mirrorIncomplete) }
