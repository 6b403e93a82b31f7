//lint:file-ignore SA1019 deprecated for applications; here it is the implementation that ours is compared with

package http2

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	xnet "golang.org/x/net/http2"

	"github.com/outrider-mesh/outrider/wire/message"
)

// TestTransport has x/net's client use our server.
func TestTransport(t *testing.T) {
	addr := serve(t, &site{size: 300}, Options{})
	tr := &xnet.Transport{AllowHTTP: true, DialTLSContext: dialPlain}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	get := func(req *http.Request) (*http.Response, []byte) {
		t.Helper()
		res, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return nil, nil
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return res, b
	}
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 30 {
				req, _ := http.NewRequest("GET", fmt.Sprintf("http://%s/%d?q=%d", addr, i*3000, g), nil)
				req.Header.Set("X-Echo", fmt.Sprint("value ", i))
				res, b := get(req)
				if res == nil || len(b) != i*3000 || res.StatusCode != 200 || res.Header.Get("X-Path") != req.URL.RequestURI() || res.Header.Get("X-Echo") != req.Header.Get("X-Echo") {
					t.Errorf("GET of %d: %d bytes, %v", i*3000, len(b), res)
				}
				body := strings.Repeat("0123456789", 1+i*1000)
				req, _ = http.NewRequest("POST", "http://"+addr+"/", io.NopCloser(strings.NewReader(body)))
				req.Trailer = http.Header{"X-Sum": {fmt.Sprint(len(body))}}
				res, b = get(req)
				if res == nil || string(b) != body || res.Trailer.Get("X-Sum") != fmt.Sprint(len(body)) {
					t.Errorf("POST of %d: %d bytes, %v", len(body), len(b), res.Trailer)
				}
				req, _ = http.NewRequest("HEAD", "http://"+addr+"/", nil)
				if res, b = get(req); res == nil || len(b) > 0 || res.ContentLength != 300 {
					t.Errorf("HEAD: %v", res)
				}
			}
		})
	}
	all.Wait()
}

// asked is a client's Handler that collects one answer a stream.
type asked struct{ t *testing.T }

type result struct {
	interim, status int
	head            string
	body            bytes.Buffer
	trailers        string
	err             string
	done            chan struct{}
	s               *Stream
}

func (h *asked) Request(*Stream, *message.Request, bool) {}
func (h *asked) Refused(*message.Request, *Error)        {}
func (h *asked) GoAway(uint32, Code)                     {}
func (h *asked) Pong(uint64)                             {}
func (h *asked) Settings()                               {}
func (h *asked) Writable(*Stream)                        {}

func (v *result) over() {
	v.s.Release()
	close(v.done)
}

func (h *asked) Response(s *Stream, r *message.Response, end bool) {
	v := s.Owner.(*result)
	if r.Status < 200 {
		v.interim = r.Status
		return
	}
	v.status, v.head = r.Status, list(&r.Head)
	if end {
		v.over()
	}
}

func (h *asked) Data(s *Stream, p []byte, end bool) {
	v := s.Owner.(*result)
	v.body.Write(p)
	s.Consume(len(p))
	if end {
		v.over()
	}
}

func (h *asked) Trailers(s *Stream, t *message.Head) {
	v := s.Owner.(*result)
	v.trailers = list(t)
	v.over()
}

func (h *asked) Reset(s *Stream, code Code, _ bool) {
	v := s.Owner.(*result)
	v.err = code.String()
	v.over()
}

// TestXnetServer has our client use x/net's server.
func TestXnetServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Host", r.Host)
		w.Header().Set("X-Cookie", r.Header.Get("Cookie"))
		w.Header().Set("X-Trailer", r.Trailer.Get("X-Sum"))
		_, _ = w.Write(b)
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("Grpc-Status", "0")
	})
	mux.HandleFunc("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 3<<20)) })
	var all sync.WaitGroup
	all.Go(func() { // ends with the client's connection
		nc, err := l.Accept()
		if err != nil {
			return
		}
		new(xnet.Server).ServeConn(nc, &xnet.ServeConnOpts{Handler: mux, BaseConfig: new(http.Server)})
	})
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	k := newSocket(nc, Client, &asked{t}, Options{})
	all.Go(k.run)
	defer func() {
		_ = nc.Close()
		_ = l.Close()
		all.Wait()
	}()
	ask := func(path string, body []byte, fields ...string) *result {
		t.Helper()
		r := get(path, fields...)
		if body != nil {
			r.SetMethod([]byte("POST"))
			r.BodyLength = message.UnknownLength
		}
		r.Trailers = true
		v := &result{done: make(chan struct{})}
		s, err := k.conn.Open(r, v, body == nil)
		if err != nil {
			t.Fatal(err)
		}
		v.s = s
		if body != nil {
			if n := s.Send(body, false); n != len(body) {
				t.Errorf("sent %d of %d", n, len(body))
			}
			var tr message.Head
			tr.Add("x-sum", fmt.Sprint(len(body)))
			s.SendTrailers(&tr)
		}
		if err := k.conn.Flush(k.out); err != nil {
			t.Fatal(err)
		}
		<-v.done
		return v
	}
	for i := range 50 {
		v := ask("/echo", bytes.Repeat([]byte("y"), 1+i*1000), "Cookie", "a=b", "Trailer", "x-sum", "X-I", fmt.Sprint(i%3))
		if v.status != 200 || v.body.Len() != 1+i*1000 || v.err != "" {
			t.Errorf("%d %s %d %s", v.status, v.head, v.body.Len(), v.err)
		}
		for _, want := range []string{"x-host=reviews:9080", "x-cookie=a=b"} {
			if !strings.Contains(v.head, want) {
				t.Errorf("%s lacks %s", v.head, want)
			}
		}
		v = ask("/trailers", nil)
		if v.status != 200 || v.interim != 103 || v.body.String() != "body" || v.trailers != " grpc-status=0" {
			t.Errorf("%d %d %s %s", v.interim, v.status, v.body.String(), v.trailers)
		}
		if v = ask("/abort", nil); v.err != "INTERNAL_ERROR" {
			t.Errorf("%d %s", v.status, v.err)
		}
		if v = ask("/none", nil); v.status != 404 {
			t.Error(v.status)
		}
	}
	if v := ask("/large", nil); v.body.Len() != 3<<20 {
		t.Error(v.body.Len())
	}
}

// TestFramer has x/net read every frame that an exchange between two of ours consists of.
func TestFramer(t *testing.T) {
	p := newPair(Options{}, Options{})
	var up, down bytes.Buffer
	p.toServer = func(b []byte) (int, error) { up.Write(b); p.server.receive(b); return len(b), nil }
	p.toClient = func(b []byte) (int, error) { down.Write(b); p.client.receive(b); return len(b), nil }
	p.server.request = func(s *Stream, r *message.Request, _ bool) {
		s.Respond(reply(103, 0, "link", "x"), false)
		s.Respond(reply(200, -1, "x-large", strings.Repeat("z", 8000), "x-larger", strings.Repeat("z", 8000), "x-largest", strings.Repeat("z", 8000), "x-path", string(r.Path())), false)
		s.Send(make([]byte, 20000), false)
		var tr message.Head
		tr.Add("grpc-status", "0")
		s.SendTrailers(&tr)
		s.Release()
	}
	for i := range 5 {
		s := open(t, p, get(fmt.Sprint("/", i)), true)
		p.client.Ping(7)
		p.run()
		s.Consume(20000)
		s.Release()
	}
	p.server.Shutdown()
	p.run()
	kinds := func(b []byte) (n map[xnet.FrameType]int) {
		n = map[xnet.FrameType]int{}
		fr := xnet.NewFramer(nil, bytes.NewReader(b))
		for {
			f, err := fr.ReadFrame()
			if err == io.EOF {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			n[f.Header().Type]++
		}
	}
	if got := kinds(up.Bytes()[len(Preface):]); got[xnet.FrameHeaders] != 5 || got[xnet.FramePing] != 6 || got[xnet.FrameSettings] != 2 || got[xnet.FrameWindowUpdate] == 0 {
		t.Error(got)
	}
	if got := kinds(down.Bytes()); got[xnet.FrameHeaders] != 15 || got[xnet.FrameData] != 10 || got[xnet.FrameGoAway] != 2 || got[xnet.FrameSettings] != 2 || got[xnet.FrameContinuation] != 5 {
		t.Error(got)
	}
}
