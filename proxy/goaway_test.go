package proxy

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// leaver is an application of HTTP/2 that says GOAWAY after each answer, when it is told to, and leaves the connection's end to
// its client.
type leaver struct{ leave chan struct{} }

func (l leaver) serve(c net.Conn, r *bufio.Reader) {
	if _, err := r.Discard(len(xhttp2.ClientPreface)); err != nil {
		return
	}
	f := xhttp2.NewFramer(c, r)
	_ = f.WriteSettings()
	var ok bytes.Buffer
	_ = hpack.NewEncoder(&ok).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	for {
		switch h, err := f.ReadFrame(); {
		case err != nil:
			return
		case h.Header().Type == xhttp2.FrameHeaders:
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: h.Header().StreamID, BlockFragment: ok.Bytes(), EndHeaders: true, EndStream: true})
			<-l.leave
			_ = f.WriteGoAway(h.Header().StreamID, xhttp2.ErrCodeNo, nil)
		}
	}
}

// An idle connection that takes no more streams makes room for the next at once: who needs it waits for no sweep, of which there
// is none here.
func TestGoAwayMakesRoom(t *testing.T) {
	l := leaver{make(chan struct{})}
	o := newOrigin(t, l.serve)
	t.Cleanup(func() { close(l.leave) }) // before the origin's own end, which waits for it
	s := limited(model.Limits{Connections: u32(1), Pending: u32(1)}, o.address())
	s.Clusters[0].Protocol = model.HTTP2
	p := start(t, model.Seal(s), Limits{})
	p.awake()
	p.sweeping.Wait()
	t.Cleanup(func() { // a request that does wait is to end when the test has failed
		ctx, cancel := context.WithCancel(context.Background())
		p.awake = cancel
		p.sweeping.Go(func() { p.sweep(ctx) })
	})
	app := p.upstream.Current()[p.Snapshot().Clusters[0].Name].Members[0]
	c := goClient(t, p, 1)
	for n := 1; n <= 3; n++ {
		if res, body := fetch(t, c, request("GET", "http://app/", nil)); res.StatusCode != 200 || o.connections() != n {
			t.Fatalf("request %d: %d %s, over connection %d", n, res.StatusCode, body, o.connections())
		}
		eventually(t, "the connection is idle", func() bool {
			active, idle := app.Connections()
			return active == 0 && idle == 1
		})
		l.leave <- struct{}{}
		eventually(t, "it takes no more streams", func() bool { return app.Share(0, 0) == nil })
	}
	eventually(t, "the end of the last", func() bool { return poolsOf(p).Connections.Current == 0 })
}
