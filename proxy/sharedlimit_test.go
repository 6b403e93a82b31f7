package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// bytesCodec lets grpc-go carry messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (bytesCodec) Name() string { return "proto" }

// rateService is a rate limit service on grpc-go: it lets most requests through for each descriptor, and tells the questions.
type rateService struct {
	t       testing.TB
	address string
	mu      sync.Mutex
	asked   []string       // the questions: domain, then key=value of each entry
	seen    map[string]int // by descriptor
	most    int
	// answer, if set, answers in place of counting.
	answer func(ctx context.Context) ([]byte, error)
	under  atomic.Int64
}

func newRateService(t testing.TB, most int) *rateService {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rateService{t: t, address: l.Addr().String(), seen: map[string]int{}, most: most}
	server := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.ratelimit.v3.RateLimitService", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "ShouldRateLimit", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var b []byte
			if err := decode(&b); err != nil {
				return nil, err
			}
			s.under.Add(1)
			defer s.under.Add(-1)
			out, err := s.decide(ctx, b)
			return &out, err
		}}},
	}, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return s
}

// parts lists the fields of a message.
func parts(t testing.TB, b []byte) (out []struct {
	field protowire.Number
	bytes []byte
},
) {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType {
			t.Errorf("not a message: %x", b)
			return nil
		}
		v, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			t.Errorf("not a message: %x", b)
			return nil
		}
		out = append(out, struct {
			field protowire.Number
			bytes []byte
		}{field, v})
		b = b[n+m:]
	}
	return out
}

func (s *rateService) decide(ctx context.Context, b []byte) ([]byte, error) {
	question, over := "", false
	var statuses []byte
	s.mu.Lock()
	for _, p := range parts(s.t, b) {
		if p.field == 1 {
			question = string(p.bytes)
			continue
		}
		var entries []string
		for _, e := range parts(s.t, p.bytes) {
			kv := parts(s.t, e.bytes)
			entries = append(entries, string(kv[0].bytes)+"="+string(kv[1].bytes))
		}
		d := strings.Join(entries, ",")
		question += " [" + d + "]"
		s.seen[d]++
		statuses = append(statuses, statusOver(s.seen[d] > s.most, s.most, max(0, s.most-s.seen[d]), 30)...)
		over = over || s.seen[d] > s.most
	}
	s.asked = append(s.asked, question)
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		return answer(ctx)
	}
	return append(varint(1, 1+uint64(b2i(over))), statuses...), nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func varint(field protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), n)
}

// statusOver is a DescriptorStatus as field 2 of an answer.
func statusOver(over bool, per, left, seconds int) []byte {
	m := varint(1, 1+uint64(b2i(over)))
	m = appendBytes(m, 2, append(varint(1, uint64(per)), varint(2, 2)...))
	m = append(m, varint(3, uint64(left))...)
	m = appendBytes(m, 4, varint(1, uint64(seconds)))
	return appendBytes(nil, 2, m)
}

func (s *rateService) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

func (s *rateService) answers(f func(ctx context.Context) ([]byte, error)) {
	s.mu.Lock()
	s.answer = f
	s.mu.Unlock()
}

// sharing is limiting with a cluster for the service at that address.
func sharing(address string, limits ...model.RateLimit) func(s *model.Snapshot, r *model.Rule) {
	return func(s *model.Snapshot, r *model.Rule) {
		s.Clusters = append(s.Clusters, model.Cluster{
			Name: "outbound|8081||limits", Kind: model.Listed, Port: 8081, Protocol: model.GRPC, ConnectTimeout: model.Duration(5 * time.Second),
			Service: model.Service{Host: "limits", Name: "limits"}, LoadBalancer: model.LoadBalancer{Policy: model.RoundRobin},
			Endpoints: []model.Endpoint{{Address: address, Weight: 1, Instance: "limits-0"}},
		})
		limiting(limits...)(s, r)
	}
}

func entry(key, value string) model.DescriptorEntry {
	return model.DescriptorEntry{Label: key, Value: value}
}

func header(key, name string) model.DescriptorEntry {
	return model.DescriptorEntry{Label: key, From: model.RateKey{Header: name}}
}

// shared is a limit that waits for its answer for longer than any machine needs, unless change says otherwise.
func shared(change func(s *model.SharedLimit), descriptors ...[]model.DescriptorEntry) model.RateLimit {
	s := &model.SharedLimit{Cluster: "outbound|8081||limits", Authority: "limits:8081", Domain: "apis", Descriptors: descriptors, Timeout: model.Duration(time.Minute), FailOpen: true}
	if change != nil {
		change(s)
	}
	return model.RateLimit{Shared: s}
}

// A service that counts for all is asked in both versions; what it refuses is answered with all that it says.
func TestSharedLimit(t *testing.T) {
	service := newRateService(t, 2)
	l := shared(nil, []model.DescriptorEntry{entry("path", "/x"), header("user", "x-user")})
	var seen atomic.Int64
	versions(t, sharing(service.address, l), func(http.ResponseWriter, *http.Request) { seen.Add(1) }, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		seen.Store(0)
		user := fmt.Sprint(client, "-", server)
		for i := range 4 {
			r := request("POST", "http://app/", strings.NewReader("a body"))
			r.Header.Set("X-User", user)
			res, body := fetch(t, c, r)
			h := res.Header
			if i < 2 {
				if res.StatusCode != 200 || h.Get("Ratelimit-Limit") != "" {
					t.Errorf("request %d: got %v", i, res)
				}
				continue
			}
			if !refusedByLimit(res) || body != "" ||
				h.Get("Ratelimit-Limit") != "2" || h.Get("X-Ratelimit-Remaining") != "0" || h.Get("Ratelimit-Reset") != "30" || h.Get("Retry-After") != "30" {
				t.Errorf("request %d: got %v %q", i, res, body)
			}
		}
		fetch(t, c, request("GET", "http://app/", nil)) // nothing to ask about
		if n := seen.Load(); n != 3 {
			t.Errorf("the application saw %d requests", n)
		}
		if ok, over, failed := decided(t, p, "ok"), decided(t, p, "over_limit"), decided(t, p, "error"); ok != 2 || over != 2 || failed != 0 {
			t.Errorf("counted %v, %v and %v", ok, over, failed)
		}
		recorded(t, p, 3, 2)
	})
	for _, q := range service.questions() {
		if !strings.HasPrefix(q, "apis [path=/x,user=") {
			t.Errorf("asked %q", q)
		}
	}
}

// Entries have the values that they name; a descriptor without one is left out, and what is not text is made so.
func TestSharedLimitDescriptors(t *testing.T) {
	service, o := newRateService(t, 1000), newOrigin(t, nil)
	p := start(t, snapshotOf(sharing(service.address, shared(nil,
		[]model.DescriptorEntry{{Label: "client", From: model.RateKey{Identity: true}}},
		[]model.DescriptorEntry{{Label: "remote_address", From: model.RateKey{SourceIP: true}}, entry("a", "b")},
		[]model.DescriptorEntry{header("user", "x-user")},
		[]model.DescriptorEntry{header("empty", "x-empty")},
	)), o.address()), Limits{})
	c := dial(t, p, "outbound")
	f := func(fields, want string) {
		t.Helper()
		c.send("GET / HTTP/1.1\r\nHost: app\r\n" + fields + "\r\n")
		c.read("GET")
		all := service.questions()
		if got := all[len(all)-1]; got != want {
			t.Errorf("asked %q, want %q", got, want)
		}
	}
	const always = "apis [client=default/local] [remote_address=127.0.0.1,a=b]"
	f("", always)
	f("X-User: ann\r\nX-Empty:\r\n", always+" [user=ann]")
	f("X-User: ann\r\nX-User: bob\r\n", always+" [user=ann,bob]")
	f("X-User: a\xff\xfe\r\n", always+" [user=a\uFFFD]")
}

// Without an answer requests go on, or are answered 500, and both are counted.
func TestSharedLimitErrors(t *testing.T) {
	silent := func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
	f := func(name string, answer func(context.Context) ([]byte, error), change func(s *model.SharedLimit)) {
		t.Run(name, func(t *testing.T) {
			service, o := newRateService(t, 1), newOrigin(t, nil)
			service.answers(answer)
			for _, open := range []bool{true, false} {
				l := shared(func(s *model.SharedLimit) {
					change(s)
					s.FailOpen = open
				}, []model.DescriptorEntry{entry("k", "v")})
				p := start(t, snapshotOf(sharing(service.address, l), o.address()), Limits{})
				c := dial(t, p, "outbound")
				for range 2 {
					c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
					a := c.read("GET")
					if open && a.status != 200 || !open && (a.status != 500 || a.body != "" || a.field("x-outrider-reason") != "rate_limit_error") {
						t.Errorf("open %v: got %+v", open, a)
					}
				}
				if n := decided(t, p, "error"); n != 2 {
					t.Errorf("open %v: counted %v", open, n)
				}
				if !open {
					eventually(t, "the records", func() bool {
						return requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")["500|RLSE"] == 2
					})
				}
			}
		})
	}
	same := func(*model.SharedLimit) {}
	short := func(s *model.SharedLimit) { s.Timeout = model.Duration(20 * time.Millisecond) }
	f("silence", silent, short)
	f("a status", func(context.Context) ([]byte, error) { return nil, status.Error(codes.Internal, "broken") }, same)
	f("no code", func(context.Context) ([]byte, error) { return varint(1, 0), nil }, same)
	f("no message", func(context.Context) ([]byte, error) { return []byte{0xff}, nil }, same)
	f("too long", func(context.Context) ([]byte, error) {
		return append(varint(1, 1), appendBytes(nil, 5, make([]byte, mostRuling))...), nil
	}, same)
	f("no cluster", nil, func(s *model.SharedLimit) { s.Cluster = "" })
}

// Nobody listening is an error like another, and a service that comes back is asked again.
func TestSharedLimitComesBack(t *testing.T) {
	gone := meshtest.Address(t)
	o, service := newOrigin(t, nil), newRateService(t, 1000)
	limit := shared(func(s *model.SharedLimit) { s.FailOpen = false }, []model.DescriptorEntry{entry("k", "v")})
	p := start(t, snapshotOf(sharing(gone, limit), o.address()), Limits{})
	c := dial(t, p, "outbound")
	ask := func() int {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		return c.read("GET").status
	}
	if s := ask(); s != 500 {
		t.Errorf("got %d", s)
	}
	if err := p.Apply(snapshotOf(sharing(service.address, limit), o.address())); err != nil {
		t.Fatal(err)
	}
	if s := ask(); s != 200 {
		t.Errorf("got %d", s)
	}
	if ok, failed := decided(t, p, "ok"), decided(t, p, "error"); ok != 1 || failed != 1 {
		t.Errorf("counted %v and %v", ok, failed)
	}
}

// goneFlag is what Envoy marks a request with that Go's client gives up, by the version: it closes the connection, or resets
// the stream.
var goneFlag = map[int]string{1: "DC", 2: "DR"}

// The wait ends when the client leaves, in both versions, and when the proxy is closed.
func TestSharedLimitAbandoned(t *testing.T) {
	o := newOrigin(t, nil)
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			service := newRateService(t, 1)
			service.answers(func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
			limit := shared(func(s *model.SharedLimit) { s.Timeout = model.Duration(time.Hour) }, []model.DescriptorEntry{entry("k", "v")})
			p := start(t, snapshotOf(sharing(service.address, limit), o.address()), Limits{})
			c := goClient(t, p, version)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { // ends with the request; the test waits for it
				res, err := c.Do(request("GET", "http://app/", nil).WithContext(ctx))
				if err == nil {
					_ = res.Body.Close()
				}
				ended <- err
			}()
			eventually(t, "the question", func() bool { return service.under.Load() == 1 })
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			eventually(t, "the end of the question", func() bool { return service.under.Load() == 0 })
			eventually(t, "the record", func() bool {
				return requestsTotal(t, p.metrics.Gatherer(), "response_flags")[goneFlag[version]] == 1
			})
			if n := decided(t, p, "error"); n != 0 {
				t.Errorf("counted %v errors", n)
			}
		})
	}
}

// What the service asks to be added is, where it breaks nothing; a refusal has its body.
func TestSharedLimitFields(t *testing.T) {
	field := func(number int, name, value string) []byte {
		return appendBytes(nil, protowire.Number(number), append(appendText(nil, 1, name), appendText(nil, 2, value)...))
	}
	extra := append(field(3, "X-Left", "7"), field(3, "content-length", "3")...)
	extra = append(append(extra, field(3, "x-bad", "a\r\nb: c")...), field(4, "X-Tier", "gold")...)
	service := newRateService(t, 1)
	var tier atomic.Value
	l := shared(nil, []model.DescriptorEntry{entry("k", "v")})
	l.Headers = "always"
	versions(t, sharing(service.address, l), func(_ http.ResponseWriter, r *http.Request) { tier.Store(r.Header.Get("X-Tier")) }, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		service.answers(func(context.Context) ([]byte, error) {
			return append(append(varint(1, 1), statusOver(false, 10, 7, 60)...), extra...), nil
		})
		res, _ := fetch(t, c, request("GET", "http://app/", nil))
		if h := res.Header; res.StatusCode != 200 || h.Get("X-Left") != "7" || h.Get("X-Bad") != "" || h.Get("Ratelimit-Remaining") != "7" || tier.Load() != "gold" {
			t.Errorf("got %v, and the application %v", res, tier.Load())
		}
		service.answers(func(context.Context) ([]byte, error) {
			return append(append(varint(1, 2), extra...), appendText(nil, 5, "slow down")...), nil
		})
		res, body := fetch(t, c, request("GET", "http://app/", nil))
		if h := res.Header; res.StatusCode != 429 || body != "slow down" || h.Get("X-Left") != "7" || h.Get("X-Bad") != "" || h.Get("Retry-After") != "" || h.Get("Content-Type") != "text/plain" {
			t.Errorf("got %v %q", res, body)
		}
	})
}

// Local limits come first and get their tokens back from a request that the service refuses; a limit that only tries asks and refuses nothing.
func TestSharedLimitOrder(t *testing.T) {
	o, service := newOrigin(t, nil), newRateService(t, 2)
	l := shared(nil, []model.DescriptorEntry{header("user", "x-user")})
	l.Limits = []model.TokenLimit{hourly(3)}
	p := start(t, snapshotOf(sharing(service.address, l), o.address()), Limits{})
	c := dial(t, p, "outbound")
	f := func(user string, want int) {
		t.Helper()
		c.send("GET / HTTP/1.1\r\nHost: app\r\nX-User: " + user + "\r\n\r\n")
		if a := c.read("GET"); a.status != want {
			t.Errorf("%s: got %d, want %d", user, a.status, want)
		}
	}
	f("ann", 200)
	f("ann", 200)
	f("ann", 429) // the service's
	f("bob", 200)
	f("bob", 429) // the token bucket's
	if n := len(service.questions()); n != 4 {
		t.Errorf("asked %d times", n)
	}
	l.DryRun, l.Limits, l.Name = true, nil, "default/dry"
	if err := p.Apply(snapshotOf(sharing(service.address, l), o.address())); err != nil {
		t.Fatal(err)
	}
	f("ann", 200)
	if n := decided(t, p, "would_limit"); n != 1 {
		t.Errorf("counted %v", n)
	}
}

// Asking costs no garbage in steady state.
func TestSharedLimitAllocatesNothing(t *testing.T) {
	service := newOrigin(t, func(c net.Conn, _ *bufio.Reader) {
		m := append(varint(1, codeOK), statusOver(false, 100, 50, 30)...)
		a := &answering2{body: append([]byte{0, 0, 0, 0, byte(len(m))}, m...), trailers: new(message.Head)}
		a.head.Status, a.head.BodyLength = 200, message.UnknownLength
		a.head.Set("content-type", "application/grpc")
		a.trailers.Set("grpc-status", "0")
		l := new(link.Link)
		if err := l.Init(c); err != nil {
			t.Error(err)
			return
		}
		_ = mux.New(l, http2.Server, a, http2.Options{}, now).Serve(nil)
	})
	l := shared(nil, []model.DescriptorEntry{entry("path", "/x"), header("agent", "user-agent")},
		[]model.DescriptorEntry{{Label: "client", From: model.RateKey{Identity: true}}, {Label: "remote_address", From: model.RateKey{SourceIP: true}}})
	l.Headers = "always"
	p := start(t, snapshotOf(sharing(service.address(), l), newOrigin(t, fixed(300)).address()), Limits{})
	wantNoGarbage(t, p, "GET /a/b?c=d HTTP/1.1\r\nHost: app\r\nUser-Agent: test\r\n\r\n")
	if ok, failed := decided(t, p, "ok"), decided(t, p, "error"); ok < 2000 || failed != 0 {
		t.Errorf("%v answers, %v errors", ok, failed)
	}
}

// An answer that was cut off or changed anywhere is read as it is, or refused; nothing of it breaks a message.
func TestRulingBroken(t *testing.T) {
	m := append(varint(1, codeOver), statusOver(true, 100, 0, 30)...)
	m = append(m, appendBytes(nil, 3, append(appendText(nil, 1, "X-A"), appendText(nil, 2, "b")...))...)
	m = append(m, appendText(nil, 5, "slow down")...)
	whole := append([]byte{0, 0, 0, 0, byte(len(m))}, m...)
	f := func(answer []byte) (fields int, err error) {
		a := &inquiry{answer: answer}
		err = a.rule()
		eachField(a.ruling.response, func(name, value []byte) {
			fields++
			if !addable(name, value) {
				t.Errorf("%x: adds %q: %q", answer, name, value)
			}
		})
		return fields, err
	}
	if fields, err := f(bytes.Clone(whole)); fields != 1 || err != nil {
		t.Errorf("got %d fields, %v", fields, err)
	}
	for i := range whole {
		if _, err := f(bytes.Clone(whole[:i])); err == nil {
			t.Errorf("the first %d bytes are taken for an answer", i)
		}
		for _, b := range []byte{0, 1, 0x7f, 0x80, 0xff} {
			changed := bytes.Clone(whole)
			changed[i] = b
			_, _ = f(changed)
		}
	}
}

// The limits of connections to the service hold for questions, too: one connection serves many at a time.
func TestSharedLimitWithinLimits(t *testing.T) {
	service, o := newRateService(t, 1000), newOrigin(t, nil)
	share := sharing(service.address, shared(func(s *model.SharedLimit) { s.FailOpen = false }, []model.DescriptorEntry{entry("k", "v")}))
	p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		share(s, r)
		one := uint32(1)
		s.Clusters[len(s.Clusters)-1].Limits = &model.Limits{Connections: &one}
	}, o.address()), Limits{})
	var all sync.WaitGroup
	for range 8 {
		c := dial(t, p, "outbound")
		all.Go(func() { // the test waits for it
			for range 20 {
				if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
					t.Error(err)
					return
				}
				if a, err := c.tryRead("GET"); err != nil || a.status != 200 {
					t.Errorf("got %+v, %v", a, err)
					return
				}
			}
		})
	}
	all.Wait()
	if n := len(service.questions()); n != 160 {
		t.Errorf("asked %d times", n)
	}
	eventually(t, "every place is given back", func() bool {
		for _, c := range p.upstream.Current() {
			if pools, limited := c.Pools(); limited && (pools.Connections.Current > 1 || pools.Requests.Current != 0 || pools.Pending.Current != 0) {
				return false
			}
		}
		return true
	})
}
