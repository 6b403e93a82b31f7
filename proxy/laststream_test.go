package proxy

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/http2"
)

// A connection to an application whose stream ids are used up is replaced, and no request fails for it (RFC 9113 §5.1.1).
func TestUpstreamStreamIDsEnd(t *testing.T) {
	const each, clients, requests = 20, 16, 50
	f := func(name string, version int, edit func(c *model.Cluster)) {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			seen, failed := map[string]int{}, 0
			address := goServer(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				seen[r.RemoteAddr]++
				mu.Unlock()
				if r.ProtoMajor != 2 {
					t.Errorf("spoken to with %s", r.Proto)
				}
				_, _ = io.Copy(w, r.Body)
			})
			s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
				s.Clusters[0].Protocol = model.HTTP2
				edit(&s.Clusters[0])
			}, address)
			p := New(Options{Metrics: telemetry.New(s.Workload.Peer, telemetry.Options{})})
			p.firstStream = http2.LastStream - 2*(each-1)
			t.Cleanup(func() { _ = p.Close() })
			if err := p.Apply(s); err != nil {
				t.Fatal(err)
			}
			c := goClient(t, p, version)
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for range requests {
						// Neither is sent once more where an application may have seen it.
						if status, b := tryFetch(c, request("POST", "http://app/", strings.NewReader("body"))); status != 200 || b != "body" {
							mu.Lock()
							if failed++; failed == 1 {
								t.Errorf("got %d %s", status, b)
							}
							mu.Unlock()
						}
					}
				})
			}
			all.Wait()
			mu.Lock()
			defer mu.Unlock()
			total := 0
			for at, n := range seen {
				if total += n; n > each {
					t.Errorf("%d requests over %s, which had %d ids", n, at, each)
				}
			}
			if failed > 0 || total != clients*requests || len(seen) < clients*requests/each {
				t.Errorf("%d of %d failed; the application saw %d, over %d connections", failed, clients*requests, total, len(seen))
			}
			eventually(t, "the end of connections that are used up", func() bool {
				open := p.upstream.Current()[s.Clusters[0].Name].Members[0].Share(0, 0)
				return open == nil || !open.HTTP.Leaving()
			})
		})
	}
	f("from HTTP/1", 1, func(*model.Cluster) {})
	f("from HTTP/2", 2, func(*model.Cluster) {})
	f("few streams at a time", 1, func(c *model.Cluster) { c.MaxStreams = 3 })
	f("limits", 2, func(c *model.Cluster) {
		many := uint32(1000)
		c.Limits = &model.Limits{Requests: &many, Pending: &many}
	})
}

// A stream that is open when its connection's ids end goes on to its own end.
func TestUpstreamStreamsOutliveIDs(t *testing.T) {
	release := make(chan struct{})
	var held atomic.Int32
	address := goServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			held.Add(1)
			<-release
		}
		_, _ = io.WriteString(w, "whole")
	})
	s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Protocol = model.HTTP2 }, address)
	p := New(Options{Metrics: telemetry.New(s.Workload.Peer, telemetry.Options{})})
	p.firstStream = http2.LastStream - 2
	t.Cleanup(func() { _ = p.Close() })
	if err := p.Apply(s); err != nil {
		t.Fatal(err)
	}
	c := goClient(t, p, 2)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if status, b := tryFetch(c, request("GET", "http://app/held", nil)); status != 200 || b != "whole" {
				t.Errorf("held: got %d %s", status, b)
			}
		})
	}
	eventually(t, "two streams", func() bool { return held.Load() == 2 })
	for range 9 {
		if status, b := tryFetch(c, request("GET", "http://app/", nil)); status != 200 || b != "whole" {
			t.Errorf("meanwhile: got %d %s", status, b)
		}
	}
	close(release)
	all.Wait()
}

// A client's connection whose stream ids end is asked for to end: what it has opened is served, and then it is over.
func TestClientStreamIDsEnd(t *testing.T) {
	p := start(t, snapshotOf(nil, newOrigin(t, nil).address()), Limits{})
	f := func(name string, ids ...uint32) {
		t.Run(name, func(t *testing.T) {
			c := dialFrames(t, p)
			for _, id := range ids {
				c.get(id)
			}
			answered, away, last := map[uint32]bool{}, 0, uint32(0)
			for {
				f, err := c.fr.ReadFrame()
				if err != nil {
					break
				}
				switch f := f.(type) {
				case *xhttp2.SettingsFrame:
					if !f.IsAck() {
						_ = c.fr.WriteSettingsAck()
					}
				case *xhttp2.PingFrame:
					_ = c.fr.WritePing(true, f.Data)
				case *xhttp2.HeadersFrame:
					answered[f.StreamID] = true
				case *xhttp2.RSTStreamFrame:
					t.Errorf("stream %d is reset with %s", f.StreamID, f.ErrCode)
				case *xhttp2.GoAwayFrame:
					if away++; f.ErrCode != xhttp2.ErrCodeNo {
						t.Errorf("GOAWAY %s", f.ErrCode)
					}
					last = f.LastStreamID
				}
			}
			if away != 2 || last != ids[len(ids)-1] {
				t.Errorf("%d GOAWAYs, the last with %d", away, last)
			}
			for _, id := range ids {
				if !answered[id] {
					t.Errorf("stream %d has no answer", id)
				}
			}
		})
	}
	f("the last alone", http2.LastStream)
	f("the last three", http2.LastStream-4, http2.LastStream-2, http2.LastStream)
	f("near the end", 1, lastStreams)

	// Behind the last there is no stream: an id that is used again, or is lower, is an error (§5.1.1).
	for _, id := range []uint32{http2.LastStream, http2.LastStream - 2, 1} {
		c := dialFrames(t, p)
		c.get(http2.LastStream)
		c.get(id)
		code := xhttp2.ErrCodeNo
		for {
			f, err := c.fr.ReadFrame()
			if err != nil {
				break
			}
			switch f := f.(type) {
			case *xhttp2.GoAwayFrame:
				code = max(code, f.ErrCode)
			case *xhttp2.RSTStreamFrame: // while the stream has no answer yet
				code = max(code, f.ErrCode)
			case *xhttp2.PingFrame:
				_ = c.fr.WritePing(true, f.Data)
			}
		}
		if code != xhttp2.ErrCodeProtocol && code != xhttp2.ErrCodeStreamClosed {
			t.Errorf("stream %d behind the last ends with %s", id, code)
		}
	}
}

// frames is a client of HTTP/2 that chooses its stream ids itself.
type frames struct {
	fr    *xhttp2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func dialFrames(t *testing.T, p *Proxy) *frames {
	t.Helper()
	nc := dial(t, p, "outbound")
	c := &frames{fr: xhttp2.NewFramer(nc, nc)}
	c.enc = hpack.NewEncoder(&c.block)
	nc.send(xhttp2.ClientPreface)
	if err := c.fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// get asks for something on that stream. What comes of a failed write is told by what is read.
func (c *frames) get(id uint32) {
	c.block.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "app"}, {":path", "/"}} {
		_ = c.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = c.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: true})
}
