package conformance

import (
	"bytes"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// TestRequests has bytes of clients, and what reaches the application of them.
func TestRequests(t *testing.T) { tell(t, "requests", 200) }

// TestResponses has bytes of applications, and what reaches the client of them.
func TestResponses(t *testing.T) { tell(t, "responses", 50) }

// TestStreams has field sections and frames of clients of HTTP/2, and what reaches an application of HTTP/1.1 of them.
func TestStreams(t *testing.T) { tell(t, "streams", 60) }

// TestRaised has bytes of clients of HTTP/1, and the fields that reach an application of HTTP/2.
func TestRaised(t *testing.T) { tell(t, "raised", 20) }

// TestLowered has frames of applications of HTTP/2, and the bytes that reach a client of HTTP/1.
func TestLowered(t *testing.T) { tell(t, "lowered", 30) }

// tell plays all cases of a kind, of which there must be so many.
func tell(t *testing.T, kind string, least int) {
	n := 0
	for _, f := range tables(t, kind) {
		forwarded := map[*scenario][]byte{}
		for _, c := range f.classes {
			for _, s := range c.cases {
				n++
				if err := s.judge(); err != nil {
					t.Errorf("%s:%d: %s: %v", s.file, s.line, s.name, err)
				}
				for _, at := range s.at {
					forwarded[s] = s.check(t, f, at)
				}
			}
		}
		if *update {
			if err := f.rewrite(forwarded); err != nil {
				t.Error(err)
			}
		}
	}
	if n < least {
		t.Errorf("%d cases, want %d", n, least)
	}
}

// check plays the case at one listener and returns what was forwarded.
func (s *scenario) check(t *testing.T, f *table, at string) (forwarded []byte) {
	t.Helper()
	var b *backend
	var o setting
	if s.server2 {
		b, o.protocol = newBackend2(t), model.HTTP2
	} else {
		b = newBackend(t)
	}
	defer b.close()
	b.script(s)
	m := start(t, b.address(), o)
	defer m.Close()
	var answer string
	var got []byte
	if s.client2 {
		answer = s.play2(t, m.Address(at))
	} else {
		answer, got = s.play(t, m.Address(at))
	}
	if f.responses {
		forwarded = addedToResponse.ReplaceAll(got, nil)
		if s.fresh(t, b, m.Address(at)) {
			answer += " fresh"
		}
	}
	_ = m.Close() // all that it has sent is on its way
	b.wait()
	if !f.responses {
		raw, messages := b.since(0)
		if n := s.served(); s.answer == nil && n != len(messages) {
			t.Errorf("%s:%d: %s, %s: %d requests are served, and the application has read %q", s.file, s.line, s.name, at, n, messages)
		}
		if forwarded = probes.ReplaceAll(addedToRequest.ReplaceAll(raw, nil), nil); len(forwarded) == 0 {
			forwarded = nil
		}
	}
	if answer != s.want {
		t.Errorf("%s:%d: %s, %s: answered %q, want %q\n%s", s.file, s.line, s.name, at, answer, s.want, strings.Join(quote(got), "\n"))
	}
	if s.partly {
		return nil
	}
	if !*update && !bytes.Equal(forwarded, s.forwarded) {
		t.Errorf("%s:%d: %s, %s: forwarded\n%s\nwant\n%s", s.file, s.line, s.name, at, strings.Join(quote(forwarded), "\n"), strings.Join(quote(s.forwarded), "\n"))
	}
	return forwarded
}

// served says how many requests the application is to see as a whole.
func (s *scenario) served() (n int) {
	for word := range strings.FieldsSeq(s.want) {
		if word[0] == '2' {
			n++
		}
	}
	if bytes.HasPrefix(s.sent(), []byte("CONNECT ")) {
		n = max(0, n-1)
	}
	return n
}

// fresh says whether the proxy asks the application over another connection than the one of the case, for the probe that
// play has sent or, where the client's connection is over, for another client.
func (s *scenario) fresh(t *testing.T, b *backend, address string) bool {
	t.Helper()
	if !b.probed() {
		c := dial(t, address)
		defer c.Close()
		c.send("GET " + probe + " HTTP/1.1\r\nHost: app\r\n\r\n")
		if a, err := c.read("GET"); err != nil || a.status != 200 || a.body != probe {
			t.Errorf("%s:%d: %s: the next client gets %d %q: %v", s.file, s.line, s.name, a.status, a.body, err)
		}
	}
	return b.connections() > 1
}

// wait waits until every connection has been ended by the other side.
func (b *backend) wait() {
	_ = b.socket.Close()
	b.wg.Wait()
}
