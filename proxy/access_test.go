package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
)

// book collects what is written to it.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// lines returns the lines so far.
func (b *book) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text.Len() == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(b.text.String(), "\n"), "\n")
}

// logged adds a log with a format to a snapshot that is not sealed yet.
func logged(format string) func(*model.Snapshot, *model.Rule) {
	return func(s *model.Snapshot, _ *model.Rule) {
		s.Settings.AccessLog = &model.AccessLog{File: "/dev/stdout", Format: format}
	}
}

// startLogged runs a proxy whose standard output is the book.
func startLogged(t testing.TB, s *model.Snapshot, l Limits) (*Proxy, *book) {
	t.Helper()
	b := &book{}
	p := New(Options{Metrics: telemetry.New(s.Workload.Peer, telemetry.Options{}), Limits: l, Streams: Streams{Stdout: b}})
	t.Cleanup(func() { _ = p.Close() })
	if err := p.Apply(s); err != nil {
		t.Fatal(err)
	}
	return p, b
}

// line waits for the one line of a log.
func (b *book) line(t *testing.T) string {
	t.Helper()
	eventually(t, "the line", func() bool { return len(b.lines()) > 0 })
	if l := b.lines(); len(l) != 1 {
		t.Errorf("%d lines: %q", len(l), l)
	}
	return b.lines()[0]
}

func TestAccessLog(t *testing.T) {
	f := func(name, format string, edit func(*model.Snapshot, *model.Rule), request, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, nil)
			p, b := startLogged(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
				logged(format)(s, r)
				if edit != nil {
					edit(s, r)
				}
			}, o.address()), Limits{HeadTimeout: 300 * time.Millisecond})
			c := dial(t, p, "outbound")
			c.send(request)
			_ = c.read(request[:strings.IndexByte(request, ' ')])
			want := strings.NewReplacer("ORIGIN", o.address(), "CLIENT", c.LocalAddr().String(), "PROXY", p.Address("outbound")).Replace(want)
			if got := b.line(t); !regexp.MustCompile("^" + want + "$").MatchString(got) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
	const cluster = `outbound\|80\|\|app\.default\.svc\.cluster\.local`
	f("the default", "", nil, "GET /a?b=c HTTP/1.1\r\nHost: app\r\nUser-Agent: u\r\n\r\n",
		`\[....-..-..T..:..:..\....Z\] "GET /a\?b=c HTTP/1\.1" 200 - via_upstream - "-" 0 [0-9]+ [0-9]+ [0-9]+ "-" "u" "[0-9a-f-]{36}" "app" "ORIGIN" `+cluster+` 127\.0\.0\.1:[0-9]+ PROXY CLIENT - default`)
	const short = `%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %OUTRIDER_REASON% %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:AUTHORITY)% %PROTOCOL% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %ROUTE_NAME%`
	f("bytes", "%BYTES_RECEIVED% %REQUEST_HEADERS_BYTES%", nil, "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello", "5 49")
	f("a reply's bytes", "%BYTES_SENT%", func(s *model.Snapshot, r *model.Rule) {
		r.Route, r.Reply = nil, &model.Reply{Status: 200, Body: "four"}
	}, get("/"), "4")
	f("configured", short, func(s *model.Snapshot, r *model.Rule) { r.Route, r.Reply = nil, &model.Reply{Status: 418} }, get("/"), "418 - direct_response - GET / app HTTP/1.1 - - default")
	f("a rewrite", short, func(_ *model.Snapshot, r *model.Rule) {
		r.Origin = model.Origin{Kind: "VirtualService", Namespace: "default", Name: "app", Rule: "canary"}
		r.Route.Rewrite = &model.Rewrite{Path: &model.PathRewrite{Full: "/other"}}
	}, get("/a?b=c"), `200 - via_upstream - GET /a\?b=c app HTTP/1.1 ORIGIN `+cluster+` canary`)
	f("no endpoint", short, func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Endpoints = nil }, get("/"), `503 UH no_healthy_endpoint no_healthy_endpoint GET / app HTTP/1.1 - `+cluster+` default`)
	f("nobody listens", short, func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Endpoints[0].Address = "127.0.0.1:1" }, get("/"),
		`503 UF upstream_connect upstream_connect GET / app HTTP/1.1 127.0.0.1:1 `+cluster+` default`)
	f("no route", short, func(s *model.Snapshot, _ *model.Rule) { s.Tables[0].Unmatched = nil }, "GET /x HTTP/1.1\r\nHost: nobody\r\n\r\n", `404 NR no_route no_route GET /x nobody HTTP/1.1 - - -`)
	f("no request", short, nil, "GET  / HTTP/1.1\r\n\r\n", "400 DPE bad_request bad_request - - - HTTP/1.1 - - -")
	f("no head in time", short, nil, "GET / HTTP/1.1\r\n", "408 - request_timeout request_timeout - - - HTTP/1.1 - - -")
}

// A connection of opaque bytes has one line, when it ends; a tunnel says CONNECT besides.
func TestAccessLogOfConnections(t *testing.T) {
	const format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %OUTRIDER_REASON% %RESPONSE_CODE_DETAILS% %REQ(:METHOD)% %REQ(:AUTHORITY)% %PROTOCOL% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST% %UPSTREAM_CLUSTER%"
	f := func(name string, s *model.Snapshot, listener, say, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			logged(format)(s, nil)
			p, b := startLogged(t, model.Seal(s), Limits{})
			nc, err := net.Dial("tcp", p.Address(listener))
			if err != nil { // reset before Dial looked
				if got := b.line(t); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				return
			}
			c := &client{t: t, Conn: nc, r: bufio.NewReader(nc)}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if connect, rest, ok := strings.Cut(say, "|"); ok {
				c.send(connect)
				if a, err := readHead(c.r); err != nil || !strings.HasPrefix(a, "HTTP/1.1 200") {
					t.Fatalf("got %q, %v", a, err)
				}
				say = rest
			}
			_, _ = io.WriteString(c, say) // to nobody, where there is no endpoint
			_, _ = io.ReadAll(c.r)
			_ = c.Close()
			if got := b.line(t); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := r.ReadString('\n'); err == nil {
			_, _ = io.WriteString(c, "hi")
		}
	})
	const cluster = "outbound|5432||db.default.svc.cluster.local"
	f("passed", opaqueOf(o.address()), "db", "hello\n", "0 - - - - - - 6 2 "+o.address()+" "+cluster)
	f("unreached", opaqueOf(), "db", "hello\n", "0 UH no_healthy_endpoint - - - - 0 0 - "+cluster)
	f("a tunnel", opaqueOf(o.address()), "outbound", "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n|hello\n",
		"200 - - via_upstream CONNECT db:5432 HTTP/1.1 6 2 "+o.address()+" "+cluster)
}

// A line for each exchange costs it no allocation, in text and in JSON.
func TestAccessLogAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, encoding := range []string{"TEXT", "JSON"} {
		o := newOrigin(t, fixed(300))
		s := busySnapshot(o.address())
		file := filepath.Join(t.TempDir(), "access.log")
		s.Settings.AccessLog = &model.AccessLog{File: file, Encoding: encoding}
		p := start(t, model.Seal(s), Limits{})
		l := newLoop(t, p, get("/"))
		l.run(t, 500)
		defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
		const n = 5000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		l.run(t, n)
		runtime.ReadMemStats(&after)
		if per := float64(after.Mallocs-before.Mallocs) / n; per > 0.1 { // the writer asks the system about its file ten times a second
			t.Errorf("%s: %.2f allocations per exchange", encoding, per)
		}
		_ = p.Close()
		if got := strings.Count(read(t, file), "\n"); got != n+501 {
			t.Errorf("%s: %d lines of %d exchanges", encoding, got, n+501)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// What is written to the log is decided by the newest configuration; a change loses no request.
func TestAccessLogSwitches(t *testing.T) {
	o := newOrigin(t, nil)
	p, b := startLogged(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	ask := func() {
		t.Helper()
		c.send(get("/"))
		if a := c.read("GET"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	}
	apply := func(l *model.AccessLog) {
		t.Helper()
		if err := p.Apply(snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Settings.AccessLog = l }, o.address())); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	eventually(t, "the record of what came before the log", func() bool {
		return requestsTotal(t, p.metrics.Gatherer(), "response_code")["200"] == 1
	})
	apply(&model.AccessLog{File: "/dev/stdout", Format: "one"})
	ask()
	eventually(t, "a line", func() bool { return fmt.Sprint(b.lines()) == "[one]" })
	apply(&model.AccessLog{File: "/dev/stdout", Format: "two"})
	ask()
	eventually(t, "another line", func() bool { return fmt.Sprint(b.lines()) == "[one two]" })
	file := filepath.Join(t.TempDir(), "access.log")
	apply(&model.AccessLog{File: file, Format: `{"m":"%REQ(:METHOD)%"}`, Encoding: "JSON"})
	ask()
	eventually(t, "a line in the file", func() bool { return read(t, file) == `{"m":"GET"}`+"\n" })
	apply(nil)
	ask()
	if err := p.Apply(snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Settings.AccessLog = &model.AccessLog{File: file + "/not/there"}
	}, o.address())); err == nil {
		t.Error("a log that cannot be opened is taken")
	}
	ask()
	_ = p.Close()
	if got := fmt.Sprint(b.lines(), read(t, file)); got != `[one two]{"m":"GET"}`+"\n" {
		t.Errorf("in the end: %s", got)
	}
}
