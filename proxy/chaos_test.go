package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// chaos is a mesh in which everything goes wrong, at random. Each request carries an id in its path and fills its body with
// it; applications check that a body is of its head's id, and fill their answers with it; clients check those.
type chaos struct {
	t *testing.T
	// next is the next id; sent counts complete request heads, answered those of which the final answer's head came.
	next, sent, answered atomic.Int64
	// live counts connections at the applications.
	live atomic.Int64
	// over says that the proxy may have ended.
	over atomic.Bool
	// client and server are how they speak TLS, nil for plain text.
	client, server *tls.Config
	gateway        *model.Snapshot // has the proxy's own TLS settings, to both sides
}

func (x *chaos) text(id string, n int) string {
	s := "<" + id + ">"
	return strings.Repeat(s, n/len(s)+1)
}

// owns checks that text is made of id, and that it is whole where whole says so.
func (x *chaos) owns(where, id, text string, whole bool) {
	s := "<" + id + ">"
	want := strings.Repeat(s, len(text)/len(s)+1)
	if text != want[:len(text)] || whole && len(text)%len(s) != 0 {
		x.t.Errorf("%s of %s holds foreign bytes: %.200q", where, id, text)
	}
}

// application answers the requests of one connection, well or badly.
func (x *chaos) application(c net.Conn, r *bufio.Reader) {
	x.live.Add(1)
	defer x.live.Add(-1)
	t := c.(*net.TCPConn)
	if x.server != nil {
		c = tls.Server(c, x.server)
		r = bufio.NewReader(c)
	}
	for {
		head, err := readHead(r)
		if err != nil {
			return
		}
		var id string
		if _, err := fmt.Sscanf(head, "GET /%s HTTP/1.1", &id); err != nil {
			if _, err := fmt.Sscanf(head, "POST /%s HTTP/1.1", &id); err != nil {
				x.t.Errorf("an application got a request that nobody sent: %.200q", head)
				return
			}
		}
		early := rand.IntN(8) == 0
		if !early && !x.body(id, head, r) {
			return
		}
		if !x.answer(id, c, t) || early {
			if rand.IntN(2) == 0 {
				_ = t.SetLinger(0)
			}
			return
		}
	}
}

// body reads the request's body.
func (x *chaos) body(id, head string, r *bufio.Reader) bool {
	var body string
	var err error
	if strings.Contains(strings.ToLower(head), "transfer-encoding: chunked") {
		body, _, err = readChunked(r)
	} else {
		b := make([]byte, contentLength(head))
		var n int
		n, err = io.ReadFull(r, b)
		body = string(b[:n])
	}
	x.owns("the request's body", id, body, err == nil)
	return err == nil
}

// answer sends one answer to c, which t carries, and says whether the connection goes on.
func (x *chaos) answer(id string, c net.Conn, t *net.TCPConn) bool {
	body := x.text(id, []int{0, 10, 1000, 31 << 10, 32 << 10, 100 << 10}[rand.IntN(6)])
	field := "X-Id: " + id + "\r\n"
	for range []int{0, 0, 1, 30}[rand.IntN(4)] {
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n"+field+"\r\n")
	}
	const foreign = "HTTP/1.1 200 OK\r\nX-Id: foreign\r\nContent-Length: 7\r\n\r\nforeign"
	say := func(parts ...string) {
		whole := strings.Join(parts, "")
		if rand.IntN(4) == 0 {
			cut := rand.IntN(len(whole))
			if rest := whole[cut:]; rest == foreign {
				cut++ // an answer that comes after its connection is in use again is taken for that request's: HTTP/1 cannot tell
			}
			_, _ = io.WriteString(c, whole[:cut])
			time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
			whole = whole[cut:]
		}
		_, _ = io.WriteString(c, whole)
	}
	length := fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n", field, len(body))
	chunks := fmt.Sprintf("HTTP/1.1 200 OK\r\n%sTransfer-Encoding: chunked\r\n\r\n%x;e=%q\r\n%s\r\n", field, len(body), id, body)
	switch rand.IntN(16) {
	case 0: // nothing
		return false
	case 1:
		_ = t.SetLinger(0)
		return false
	case 2: // cut short
		say(length, body[:rand.IntN(len(body))])
		return false
	case 3:
		say(chunks)
		return false
	case 4:
		say(length, body[:rand.IntN(len(body))])
		_ = t.SetLinger(0)
		return false
	case 5: // slow
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		say(length, body)
	case 6: // a word too many
		say(length, body, foreign)
	case 7:
		say(chunks, "0\r\nX-Id: "+id+"\r\n\r\n", foreign)
	case 8: // ends without a word
		say(length, body)
		return false
	case 9:
		say(strings.Replace(length, "\r\n", "\r\nConnection: close\r\n", 1), body)
		return false
	case 10: // until close
		say("HTTP/1.1 200 OK\r\n", field, "\r\n", body)
		return false
	case 11:
		say("HTTP/1.1 200 OK\r\n", field, "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", foreign)
		return false
	case 12, 13:
		say(chunks, "0\r\nX-Id: "+id+"\r\n\r\n")
	default:
		say(length, body)
	}
	return true
}

// request makes one request.
func (x *chaos) request() (id, method, head, body string) {
	id = fmt.Sprintf("id-%d", x.next.Add(1))
	method = "GET"
	field := []string{"X-Timeout: 1\r\n", "X-Timeout: 10\r\n", ""}[min(2, rand.IntN(8))]
	switch data := x.text(id, []int{1, 100, 31 << 10, 100 << 10}[rand.IntN(4)]); rand.IntN(3) {
	case 0:
		method, body = "POST", data
		field += fmt.Sprintf("Content-Length: %d\r\n", len(data))
	case 1:
		method = "POST"
		field += "Transfer-Encoding: chunked\r\n"
		for rest := data; rest != ""; {
			n := 1 + rand.IntN(len(rest))
			body += fmt.Sprintf("%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		body += "0\r\n\r\n"
	}
	return id, method, fmt.Sprintf("%s /%s HTTP/1.1\r\nHost: app\r\n%s\r\n", method, id, field), body
}

// run sends requests over one connection after the other until n are sent.
func (x *chaos) run(address string, n int) {
	for i := 0; i < n; {
		t, err := net.Dial("tcp", address)
		nc := t
		if err == nil {
			_ = t.SetDeadline(time.Now().Add(patience))
			if x.client != nil {
				s := tls.Client(t, x.client)
				nc, err = s, s.Handshake()
			}
		}
		if err != nil {
			if !x.over.Load() {
				x.t.Errorf("cannot connect: %v", err)
			}
			return
		}
		c := &client{t: x.t, Conn: nc, r: bufio.NewReader(nc)}
		for more := true; more && i < n; i++ {
			more = x.exchange(c)
		}
		if rand.IntN(2) == 0 {
			_ = t.(*net.TCPConn).SetLinger(0)
		}
		_ = nc.Close()
	}
}

// exchange sends one request, whole or not, and reads its answer, whole or not. It says whether the connection goes on.
func (x *chaos) exchange(c *client) bool {
	id, method, head, body := x.request()
	whole := head + body
	end := len(whole)
	if rand.IntN(6) == 0 {
		end = rand.IntN(len(whole)) // goes away in the middle
	}
	if end >= len(head) {
		x.sent.Add(1)
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for at := 0; at < end; {
			n := min(end-at, 1+rand.IntN(48<<10))
			if rand.IntN(3) == 0 {
				n = min(end-at, len(head))
			}
			if _, err := io.WriteString(c, whole[at:at+n]); err != nil {
				return // answered early, or reset
			}
			at += n
		}
	})
	if end < len(whole) {
		sending.Wait()
		if rand.IntN(2) == 0 {
			time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
		}
		return false
	}
	for {
		a, err := c.tryRead(method)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			x.t.Errorf("%s: neither an answer nor an end; so far %.200q", id, a.head)
			return false
		}
		if a.status >= 200 {
			x.answered.Add(1)
		}
		if a.status != 0 && a.status < 300 { // applications have no other, the proxy has nothing else
			if got := a.field("x-id"); got != id {
				x.t.Errorf("%s got the answer of %s", id, got)
			}
			x.owns("the answer", id, a.body, err == nil)
		}
		if err != nil {
			return false
		}
		if a.status >= 200 {
			sending.Wait()
			return !strings.EqualFold(a.field("connection"), "close") && rand.IntN(20) > 0
		}
	}
}

// snapshot makes a configuration over some of the applications.
func (x *chaos) snapshot(all []*origin) *model.Snapshot {
	var addresses []string
	for _, i := range rand.Perm(len(all))[:1+rand.IntN(len(all))] {
		addresses = append(addresses, all[i].address())
	}
	return snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		if x.client != nil {
			g := x.gateway
			s.Listeners[0], s.Clusters[0].TLS, s.Tables[0].Hosts[0].Port = g.Listeners[0], g.Clusters[0].TLS, 0
		}
		s.Clusters[0].LoadBalancer.Policy = []model.Policy{model.RoundRobin, model.LeastRequest, model.Random}[rand.IntN(3)]
		for i := range s.Clusters[0].Endpoints {
			s.Clusters[0].Endpoints[i].Weight = uint32(1 + rand.IntN(3))
		}
		for _, ms := range []int{1, 10} {
			timed := *r
			timed.Route = &model.Route{Destinations: r.Route.Destinations, Timeout: model.Duration(time.Duration(ms) * time.Millisecond)}
			timed.Matches = []model.Match{{Headers: []model.KeyMatch{{Name: "x-timeout", StringMatch: model.StringMatch{Kind: model.Exact, Value: fmt.Sprint(ms)}}}}}
			s.Tables[0].Hosts[0].Rules = append(s.Tables[0].Hosts[0].Rules, timed)
		}
	}, addresses...)
}

// Whatever applications, clients and configuration do, nobody gets what belongs to another exchange, everybody gets an answer
// or an end, each request counts once, and nothing is left behind.
func TestChaos(t *testing.T) { (&chaos{t: t}).test("outbound", 16, 150) }

// The same through TLS on either side.
func TestChaosTLS(t *testing.T) {
	a := newAuthority(t)
	g := tlsGateway(a, "127.0.0.1:1")
	g.Listeners[0].TLS = g.Listeners[0].TLS[:1]
	g.Listeners[0].TLS[0].Names = []string{"app"}
	g.Listeners[0].TLS[0].Certificates[0].Material = a.issue("app")
	g.Clusters[0].TLS = &model.ClientTLS{Mode: model.SimpleTLS, Trust: &model.Certificate{Name: "default/roots", Material: &model.Material{CA: a.pem}}}
	x := &chaos{
		t:       t,
		client:  &tls.Config{ServerName: "app", RootCAs: a.pool()},
		server:  &tls.Config{Certificates: []tls.Certificate{a.pair(service)}},
		gateway: g,
	}
	x.test("gateway", 8, 80)
}

func (x *chaos) test(listener string, clients, each int) {
	t := x.t
	var all []*origin
	for range 3 {
		all = append(all, newOrigin(t, x.application))
	}
	p := start(t, x.snapshot(all), Limits{})
	if testing.Short() {
		each /= 5
	}
	var running sync.WaitGroup
	for range clients {
		running.Go(func() { x.run(p.Address(listener), each) })
	}
	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
			}
			if err := p.Apply(x.snapshot(all)); err != nil {
				t.Errorf("change %d: %v", i, err)
			}
		}
	})
	running.Wait()
	close(stop)
	changing.Wait()
	settled(t, p)
	var total float64
	var flags map[string]float64
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		total, flags = 0, requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")
		for _, n := range flags {
			total += n
		}
		if total >= float64(x.sent.Load()) || time.Now().After(end) {
			break
		}
	}
	t.Logf("%d heads sent, %d answered, %.0f recorded: %v", x.sent.Load(), x.answered.Load(), total, flags)
	if total != float64(x.sent.Load()) {
		t.Errorf("%.0f requests recorded, %d sent, %d answered", total, x.sent.Load(), x.answered.Load())
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the end of the connections to applications", func() bool { return x.live.Load() == 0 })
}

// A proxy that is told to end in the middle of it all does, in time, and leaves nothing behind.
func TestChaosDrain(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		x := &chaos{t: t}
		o := newOrigin(t, x.application)
		hang := newOrigin(t, func(_ net.Conn, r *bufio.Reader) {
			x.live.Add(1)
			defer x.live.Add(-1)
			_, _ = io.Copy(io.Discard, r)
		})
		p := start(t, x.snapshot([]*origin{o, hang}), Limits{})
		var running sync.WaitGroup
		for range 8 {
			running.Go(func() { x.run(p.Address("outbound"), 1000) })
		}
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond) // any moment is as good as another
		x.over.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(40))*time.Millisecond)
		_ = p.Drain(ctx)
		cancel()
		running.Wait()
		settled(t, p)
		eventually(t, "the end of the connections to applications", func() bool { return x.live.Load() == 0 })
		total := 0.0
		for _, n := range requestsTotal(t, p.metrics.Gatherer(), "response_code") {
			total += n
		}
		if answered, sent := float64(x.answered.Load()), float64(x.sent.Load()); total < answered || total > sent {
			t.Errorf("round %d: %.0f requests recorded; %.0f were answered and %.0f sent", round, total, answered, sent)
		}
	}
}
