package http2

import (
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// A stream whose window opens while the write buffer is full goes on when that has emptied, though nobody was turned
// away because of the buffer.
func TestWindowOpensWhileFull(t *testing.T) {
	f := func(name string, o Options, credit int) {
		t.Run(name, func(t *testing.T) {
			p := newPair(Options{WriteBuffer: 32 << 10}, o)
			p.server.quiet = true
			var at *Stream
			p.server.request = func(s *Stream, _ *message.Request, _ bool) {
				if at == nil {
					at = s
				}
			}
			s := open(t, p, get("/"), false)
			p.run()
			big := make([]byte, 40<<10)
			for s.Send(big[:1000], false) == 1000 {
				p.run()
			}
			// Heads fill the buffer, which nothing holds back.
			for p.client.Pending() < 32<<10 {
				open(t, p, get("/", "x-big", strings.Repeat("x", 8000)), true)
			}
			p.client.took()
			at.Consume(credit)
			p.client.receive(p.server.take())
			expect(t, p.client)
			p.run()
			expect(t, p.client, "writable 1")
		})
	}
	f("stream", Options{ConnWindow: 1 << 20}, 65535)
	f("connection", Options{StreamWindow: 1 << 20, ConnWindow: 65535}, 65535)
}
