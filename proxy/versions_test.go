package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// goServer is an application on Go's own server, of both versions in the clear.
func goServer(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	var done sync.WaitGroup
	done.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { _ = s.Close(); done.Wait() })
	return l.Addr().String()
}

// goClient is Go's own client of one version that takes every name for the proxy's listener.
func goClient(t testing.TB, p *Proxy, version int) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, p.Address("outbound"))
	}
	tr.Protocols.SetHTTP1(version == 1)
	tr.Protocols.SetUnencryptedHTTP2(version == 2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// versions runs f for every combination of versions of client and application.
func versions(t *testing.T, edit func(s *model.Snapshot, r *model.Rule), h http.HandlerFunc, f func(t *testing.T, c *http.Client, p *Proxy, client, server int)) {
	t.Helper()
	versionsAt(t, func(*testing.T) {}, edit, h, f)
}

// versionsAtOnce is versions for tests that wait: the combinations run at a time, and share nothing but what they are given.
func versionsAtOnce(t *testing.T, edit func(s *model.Snapshot, r *model.Rule), h http.HandlerFunc, f func(t *testing.T, c *http.Client, p *Proxy, client, server int)) {
	t.Helper()
	t.Run("versions", func(t *testing.T) { versionsAt(t, (*testing.T).Parallel, edit, h, f) })
}

func versionsAt(t *testing.T, begin func(t *testing.T), edit func(s *model.Snapshot, r *model.Rule), h http.HandlerFunc, f func(t *testing.T, c *http.Client, p *Proxy, client, server int)) {
	t.Helper()
	for _, client := range []int{1, 2} {
		for _, server := range []int{1, 2} {
			t.Run(fmt.Sprintf("%d to %d", client, server), func(t *testing.T) {
				begin(t)
				address := goServer(t, func(w http.ResponseWriter, r *http.Request) {
					if r.ProtoMajor != server {
						t.Errorf("the application was spoken to with %s", r.Proto)
					}
					h(w, r)
				})
				p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
					if server == 2 {
						s.Clusters[0].Protocol = model.HTTP2
					}
					if edit != nil {
						edit(s, r)
					}
				}, address), Limits{})
				c := goClient(t, p, client)
				f(t, c, p, client, server)
				eventually(t, "the client's connections are idle, and closed", func() bool {
					c.CloseIdleConnections()
					return p.conns.count() == 0
				})
				settled(t, p)
			})
		}
	}
}

func fetch(t *testing.T, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func request(method, url string, body io.Reader) *http.Request {
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		panic(err)
	}
	return r
}

// Heads, bodies of known and unknown length, trailers, HEAD, and cookies pass in every combination.
func TestVersions(t *testing.T) {
	versions(t, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", r.Method+" "+r.Host+" "+r.URL.RequestURI()+" "+r.Header.Get("X-Field")+" "+r.Header.Get("Cookie"))
		if r.URL.Path == "/trailers" {
			w.Header().Set("Trailer", "X-Sum")
		}
		_ = http.NewResponseController(w).EnableFullDuplex()
		n, err := io.Copy(w, r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/trailers" {
			w.Header().Set("X-Sum", fmt.Sprint(n, r.Trailer.Get("X-Count")))
		}
	}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		r := request("GET", "http://app/path?q=1&x=%20", nil)
		r.Header.Set("X-Field", "value")
		r.Header.Set("Cookie", "a=b; c=d")
		res, b := fetch(t, c, r)
		if res.StatusCode != 200 || b != "" || res.Header.Get("X-Seen") != "GET app /path?q=1&x=%20 value a=b; c=d" || res.ProtoMajor != client {
			t.Errorf("got %v", res)
		}
		for _, n := range []int{1, 300, 70_000, 3 << 20} {
			body := strings.Repeat("0123456789", n/10+1)
			res, b = fetch(t, c, request("POST", "http://app/", strings.NewReader(body)))
			if res.StatusCode != 200 || b != body {
				t.Errorf("POST of %d: got %d bytes, %v", len(body), len(b), res)
			}
			r = request("PUT", "http://app/trailers", io.NopCloser(strings.NewReader(body)))
			r.Trailer = http.Header{"X-Count": {"7"}}
			res, b = fetch(t, c, r)
			if res.StatusCode != 200 || b != body || res.Trailer.Get("X-Sum") != fmt.Sprint(len(body), "7") {
				t.Errorf("PUT of %d: got %d bytes, %v", len(body), len(b), res)
			}
		}
		if res, b = fetch(t, c, request("HEAD", "http://app/", nil)); res.StatusCode != 200 || b != "" || res.Header.Get("X-Seen") != "HEAD app /" {
			t.Errorf("got %v", res)
		}
	})
}

// Pieces of a body leave as they come, both ways at once.
func TestVersionsStreaming(t *testing.T) {
	versions(t, nil, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		w.WriteHeader(200)
		_ = rc.Flush()
		b := make([]byte, 4)
		for {
			if _, err := io.ReadFull(r.Body, b); err != nil {
				return
			}
			_, _ = w.Write(b)
			_ = rc.Flush()
		}
	}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		there, here := io.Pipe()
		r := request("POST", "http://app/", there)
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b := make([]byte, 4)
		for i := range 20 {
			sent := fmt.Sprintf("%04d", i)
			if _, err := io.WriteString(here, sent); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != sent {
				t.Fatalf("got %q, %v", b, err)
			}
		}
		_ = here.Close()
		if _, err := res.Body.Read(b); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}

// Interim answers pass: 103 of the application's own accord, 100 where the client waits for it.
func TestVersionsInterim(t *testing.T) {
	versions(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hints" { // Go's HTTP/2 server has no 100 behind a 103
			w.Header().Set("Link", "</style.css>")
			w.WriteHeader(103)
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		c.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
		var hints, continues int
		r := request("POST", "http://app/hints", strings.NewReader("body"))
		expects := request("POST", "http://app/", strings.NewReader("body"))
		expects.Header.Set("Expect", "100-continue")
		expects = expects.WithContext(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got100Continue: func() { continues++ }}))
		if res, b := fetch(t, c, expects); res.StatusCode != 200 || b != "body" || continues != 1 {
			t.Errorf("got %v, %q, %d continues", res, b, continues)
		}
		r = r.WithContext(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == 103 && h.Get("Link") == "</style.css>" {
					hints++
				}
				return nil
			},
		}))
		if res, b := fetch(t, c, r); res.StatusCode != 200 || b != "body" || hints != 1 {
			t.Errorf("got %v, %q, %d hints", res, b, hints)
		}
	})
}

// Many exchanges at a time, whose bodies must not be mixed up.
func TestVersionsMany(t *testing.T) {
	versions(t, nil, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(bytes.ToUpper(b))
	}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		var all sync.WaitGroup
		for g := range 16 {
			all.Go(func() {
				for i := range 40 {
					body := strings.Repeat(fmt.Sprintf("g%d-%d ", g, i), 1+i*g*3)
					res, err := c.Post("http://app/", "text/plain", strings.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					b, err := io.ReadAll(res.Body)
					_ = res.Body.Close()
					if err != nil || string(b) != strings.ToUpper(body) {
						t.Errorf("got %d bytes of %d, %v", len(b), len(body), err)
					}
				}
			})
		}
		all.Wait()
	})
}

// A client that turns away ends the exchange at the application; an application that breaks off breaks the answer.
func TestVersionsBreaks(t *testing.T) {
	gone, here := make(chan struct{}, 8), make(chan struct{}, 8)
	versions(t, nil, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/waits":
			here <- struct{}{}
			<-r.Context().Done()
			gone <- struct{}{}
		case "/waits-behind-head":
			_, _ = w.Write([]byte("first"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			gone <- struct{}{}
		case "/breaks":
			panic(http.ErrAbortHandler)
		case "/breaks-behind-head":
			_, _ = w.Write([]byte("first"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { // ends with the request
			<-here
			cancel()
		}()
		if _, err := c.Do(request("GET", "http://app/waits", nil).WithContext(ctx)); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		<-gone
		ctx, cancel = context.WithCancel(context.Background())
		res, err := c.Do(request("GET", "http://app/waits-behind-head", nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != "first" {
			t.Fatalf("got %q, %v", b, err)
		}
		cancel()
		_ = res.Body.Close()
		<-gone
		res, body := fetch(t, c, request("POST", "http://app/breaks", nil))
		if res.StatusCode != 503 || res.Header.Get("X-Outrider-Reason") != "upstream_reset" {
			t.Errorf("got %v %s", res, body)
		}
		if res, err = c.Do(request("GET", "http://app/breaks-behind-head", nil)); err != nil {
			t.Fatal(err)
		}
		// Where the break came with the head, nothing of it has gone out.
		if b, err := io.ReadAll(res.Body); err == nil && res.StatusCode != 503 {
			t.Errorf("half an answer passes for a whole one: %q", b)
		}
		_ = res.Body.Close()
	})
}

// The route's timeout ends an exchange before and after its head; the connection goes on.
func TestVersionsTimeout(t *testing.T) {
	t.Parallel()
	versionsAtOnce(t, func(_ *model.Snapshot, r *model.Rule) { r.Route.Timeout = model.Duration(time.Second) }, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fast" {
			return
		}
		<-r.Context().Done()
	}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		for range 3 {
			res, _ := fetch(t, c, request("GET", "http://app/slow", nil))
			if res.StatusCode != 504 || res.Header.Get("X-Outrider-Reason") != "route_timeout" {
				t.Errorf("got %v", res)
			}
			if res, _ = fetch(t, c, request("GET", "http://app/fast", nil)); res.StatusCode != 200 {
				t.Errorf("got %v", res)
			}
		}
	})
}

// What the proxy answers itself: no route, no endpoint, a redirect, in both versions.
func TestVersionsOwnAnswers(t *testing.T) {
	versions(t, func(s *model.Snapshot, r *model.Rule) {
		h := &s.Tables[0].Hosts[0]
		h.Rules = append(h.Rules, model.Rule{
			Matches:  []model.Match{{Path: &model.StringMatch{Kind: model.Exact, Value: "/moved"}}},
			Redirect: &model.Redirect{Status: 301, Path: &model.PathRewrite{Full: "/new"}},
		}, model.Rule{
			Matches: []model.Match{{Path: &model.StringMatch{Kind: model.Exact, Value: "/direct"}}},
			Reply:   &model.Reply{Status: 418, Body: "teapot"},
		})
	}, func(w http.ResponseWriter, r *http.Request) {}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		if res, _ := fetch(t, c, request("GET", "http://app/moved", nil)); res.StatusCode != 301 || !strings.HasSuffix(res.Header.Get("Location"), "/new") {
			t.Errorf("got %v", res)
		}
		if res, b := fetch(t, c, request("POST", "http://app/direct", strings.NewReader("ignored"))); res.StatusCode != 418 || b != "teapot" {
			t.Errorf("got %v %q", res, b)
		}
		if res, b := fetch(t, c, request("HEAD", "http://app/direct", nil)); res.StatusCode != 418 || b != "" || res.ContentLength != 6 {
			t.Errorf("got %v %q", res, b)
		}
	})
}
