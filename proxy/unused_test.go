package proxy

import (
	"net/http"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Who has waited for a stream and then cannot use it leaves it to the next in line, who may have no timeout to wake it.
func TestStreamThatIsNotUsedIsPassedOn(t *testing.T) {
	hold := make(chan struct{})
	address := goServer(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			<-hold
		}
	})
	s := limited(model.Limits{Connections: u32(1), Pending: u32(3)}, address)
	s.Clusters[0].Protocol, s.Clusters[0].MaxStreams = model.HTTP2, 1
	p := start(t, model.Seal(s), Limits{})
	first := dial(t, p, "outbound")
	first.send(get("/held"))
	eventually(t, "the first request", func() bool { return poolsOf(p).Requests.Current == 1 })
	upgrade := dial(t, p, "outbound")
	upgrade.send("GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	eventually(t, "that the upgrade waits", func() bool { return poolsOf(p).Pending.Current == 1 })
	plain := asks(t, p, "/plain", 2)
	close(hold)
	if a := first.read("GET"); a.status != 200 {
		t.Errorf("%+v", a)
	}
	if a := upgrade.read("GET"); a.status < 500 { // Go's server takes no WebSocket over HTTP/2
		t.Errorf("%+v", a)
	}
	if a := plain.read("GET"); a.status != 200 {
		t.Errorf("%+v", a)
	}
	empty(t, p)
}

// The same where it is the limit of requests that keeps it from being used: what is under way may be at another endpoint, and
// its end tells nobody here.
func TestStreamWithoutAdmissionIsPassedOn(t *testing.T) {
	hold, far := make(chan struct{}), make(chan struct{})
	near := goServer(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			<-hold
		}
	})
	other := goServer(t, func(http.ResponseWriter, *http.Request) { <-far })
	with := func(requests uint32, address string) *model.Snapshot {
		s := limited(model.Limits{Connections: u32(1), Pending: u32(3), Requests: u32(requests)}, near, other)
		s.Clusters[0].Protocol, s.Clusters[0].MaxStreams = model.HTTP2, 1
		for i := range s.Clusters[0].Endpoints {
			e := &s.Clusters[0].Endpoints[i]
			e.Unready = e.Address != address
		}
		return model.Seal(s)
	}
	p := start(t, with(10, near), Limits{})
	first := dial(t, p, "outbound")
	first.send(get("/held"))
	eventually(t, "the first request", func() bool { return poolsOf(p).Requests.Current == 1 })
	second := asks(t, p, "/second", 1)
	third := asks(t, p, "/third", 2)
	apply(t, p, with(10, other))
	last := dial(t, p, "outbound")
	last.send(get("/far"))
	eventually(t, "the other endpoint's request", func() bool { return poolsOf(p).Requests.Current == 2 })
	apply(t, p, with(1, other))
	close(hold)
	if a := first.read("GET"); a.status != 200 {
		t.Errorf("%+v", a)
	}
	wantOverflow(t, second.read("GET"))
	wantOverflow(t, third.read("GET"))
	close(far)
	if a := last.read("GET"); a.status != 200 {
		t.Errorf("%+v", a)
	}
	empty(t, p)
}
