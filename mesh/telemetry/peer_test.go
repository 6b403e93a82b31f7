package telemetry

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func TestPeerHeader(t *testing.T) {
	f := func(p model.Peer, want string) {
		t.Helper()
		b := AppendPeer([]byte("before "), p)
		if string(b) != "before "+want {
			t.Errorf("%+v is written %q", p, b)
		}
		got, ok := ParsePeer([]byte(want))
		if got != p || ok != (want != "") {
			t.Errorf("%q is read as %+v, %v", want, got, ok)
		}
	}
	f(model.Peer{}, "")
	f(productpage, "default;productpage-v1;bookinfo-productpage;productpage;v1;productpage;v1;Kubernetes")
	f(model.Peer{Namespace: "default", Name: "local", App: "local"}, "default;local;;local")
	f(model.Peer{Cluster: "east"}, ";;;;;;;east")
	f(model.Peer{Name: "a;b%c d\r\né"}, ";a%3Bb%25c%20d%0D%0A%C3%A9")

	refused := func(in string) {
		t.Helper()
		if p, ok := ParsePeer([]byte(in)); ok || p != (model.Peer{}) {
			t.Errorf("%q is read as %+v", in, p)
		}
	}
	refused(";;;")
	refused("a b")
	refused("a%2")
	refused("a%zz")
	refused("a%2f") // one spelling only
	refused("a%FF")
	refused("a\x00")
	refused("é")
	refused("a" + strings.Repeat(";", 16))
	refused(strings.Repeat("a", 254))
	refused(strings.Repeat("a;", 15) + strings.Repeat("a", 3000))

	// What a later version appends is skipped.
	if p, ok := ParsePeer([]byte("default;web;;;;;;;new;newer")); !ok || p != (model.Peer{Namespace: "default", Name: "web"}) {
		t.Errorf("a later version's header is read as %+v, %v", p, ok)
	}
	// What cannot be a name is cut, not sent as it is.
	long := AppendPeer(nil, model.Peer{Name: strings.Repeat("a", 252) + "é", App: "\xff"})
	if p, ok := ParsePeer(long); !ok || p.Name != strings.Repeat("a", 252) || p.App != "?" {
		t.Errorf("a long name is read as %+v, %v", p, ok)
	}
}

func FuzzParsePeer(f *testing.F) {
	f.Add(AppendPeer(nil, productpage))
	f.Add([]byte(";a%3Bb%25c%20d%0D%0A%C3%A9;;;"))
	f.Add([]byte("%"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := ParsePeer(b)
		if !ok {
			return
		}
		again, ok := ParsePeer(AppendPeer(nil, p))
		if !ok || again != p {
			t.Errorf("%q is read as %+v, and again as %+v", b, p, again)
		}
		if len(AppendPeer(nil, p)) > maxPeerHeader {
			t.Errorf("%q grew", b)
		}
	})
}

func TestInbound(t *testing.T) {
	m := New(reviews, Options{Principal: "spiffe://td/ns/prod/sa/reviews"})
	i := m.Inbound(Edge{Service: reviewsService})
	header := AppendPeer(nil, productpage)
	if i.HTTP(header, "") != i.HTTP(bytes.Clone(header), "") {
		t.Error("two handles for one header")
	}
	const id = "spiffe://td/ns/elsewhere/sa/productpage"
	i.HTTP(header, "").Record(ok)
	i.HTTP(header, id).Record(ok)
	i.HTTP(nil, id).Record(ok)
	i.HTTP([]byte("garbage "), id).Record(ok)
	i.HTTP([]byte("rubbish "), id).Record(ok)
	i.HTTP([]byte("rubbish "), "").Record(ok)
	i.HTTP(nil, "").Record(ok)
	got := map[string]float64{}
	for _, s := range gather(t, m, "istio_requests_total").Metric {
		l := labelsOf(s)
		got[fmt.Sprintf("%s/%s %s %s %s", l["source_workload_namespace"], l["source_workload"], l["source_principal"],
			l["connection_security_policy"], l["reporter"])] = s.Counter.GetValue()
	}
	want := map[string]float64{
		"default/productpage-v1 unknown none destination":            1,
		"elsewhere/productpage-v1 " + id + " mutual_tls destination": 1,
		"elsewhere/unknown " + id + " mutual_tls destination":        3,
		"unknown/unknown unknown none destination":                   2,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	i.Close()
	i.Close()
	if h := i.HTTP(header, ""); (*edge)(h) != i.unknown {
		t.Error("a closed Inbound takes new callers")
	}
}

// Clients that invent workloads must not grow the sidecar, nor push those out that are real.
func TestInboundIsBounded(t *testing.T) {
	const most = 10
	c := &clock{now: time.Unix(1e9, 0)}
	m := New(reviews, Options{MaxPeers: most, Clock: c.read, Retain: time.Minute})
	i, other := m.Inbound(Edge{Service: reviewsService}), m.Inbound(Edge{Service: model.Service{Name: "other"}})
	real, invented := AppendPeer(nil, productpage), 0
	invent := func(i *Inbound) *HTTP {
		invented++
		return i.HTTP(AppendPeer(nil, model.Peer{Name: fmt.Sprint("w", invented)}), "")
	}
	first := i.HTTP(real, "")
	for range 100 {
		invent(i).Record(ok)
		invent(other).Record(ok)
		i.HTTP(real, "").Record(ok)
	}
	n, sum := requests(t, m)
	if n > most+2 || sum != 300 {
		t.Errorf("%d series of %v requests", n, sum)
	}
	if over := testutil.ToFloat64(m.peerLimit); over != 200-(most-1) {
		t.Errorf("%v requests overflowed", over)
	}

	// Equal labels in ever new headers are bounded too.
	for range 100 {
		invented++
		p := productpage
		p.ServiceAccount = fmt.Sprint("sa", invented)
		i.HTTP(AppendPeer(nil, p), "").Record(ok)
	}
	if kept := len(*i.callers.Load()); kept > most {
		t.Errorf("%d headers kept", kept)
	}

	// A new generation resolves its callers itself; edges that both know are counted once.
	next := m.Inbound(Edge{Service: reviewsService})
	if next.HTTP(real, "") != first {
		t.Error("the new generation counts a known caller elsewhere")
	}
	i.Close()
	i = next

	// Quiet callers make room, after the time that their series are retained; who calls keeps its place.
	for range 6 {
		c.move(time.Minute)
		i.HTTP(real, "").Record(ok)
		invent(i)
		invent(other)
	}
	if h := invent(i); (*edge)(h) == i.unknown {
		t.Error("quiet callers hold their places for ever")
	}
	if i.HTTP(real, "") != first {
		t.Error("a caller that calls lost its place")
	}
	if n, _ := requests(t, m); n > most+2 {
		t.Errorf("%d series", n)
	}
}
