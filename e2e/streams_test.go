package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// text is a response's body; it closes it.
func text(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		t.Fatalf("after %d bytes of the body: %v", len(b), err)
	}
	return string(b)
}

// do sends a request.
func do(t *testing.T, c *http.Client, ctx context.Context, method, url string, body io.Reader, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestEventsAreNotHeldBack streams server-sent events: each is in the client's hands before the application writes the next.
func TestEventsAreNotHeldBack(t *testing.T) {
	t.Parallel()
	next := make(chan int)
	through(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		flush := http.NewResponseController(w).Flush
		if flush() != nil { // the head first
			return
		}
		for {
			select {
			case n, more := <-next:
				if !more || n < 0 {
					return
				}
				fmt.Fprintf(w, "id: %d\ndata: event\n\n", n)
				if flush() != nil {
					return
				}
			case <-r.Context().Done():
				return
			}
		}
	}, func(t *testing.T, m *mesh, w way, c *http.Client) {
		res := do(t, c, t.Context(), http.MethodGet, "http://web/events", nil)
		in := bufio.NewReader(res.Body)
		for n := range 20 {
			next <- n
			event := ""
			for !strings.HasSuffix(event, "\n\n") {
				line, err := in.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				event += line
			}
			if event != fmt.Sprintf("id: %d\ndata: event\n\n", n) {
				t.Fatalf("%q", event)
			}
		}
		next <- -1
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
		_ = res.Body.Close()
	})
}

// TestClientThatLeaves ends a long poll from the client's side: the application learns of it.
func TestClientThatLeaves(t *testing.T) {
	t.Parallel()
	came, left := make(chan struct{}), make(chan struct{})
	through(t, func(_ http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	}, func(t *testing.T, m *mesh, w way, c *http.Client) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://web/poll", nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { // ends with the request, which the channel waits for
			res, err := c.Do(req)
			if err == nil {
				_ = res.Body.Close()
			}
			done <- err
		}()
		<-came
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		select {
		case <-left:
		case <-time.After(time.Minute):
			t.Error("the application does not learn that its client has left")
		}
	})
}

// asked is a body that says when it is read first.
type asked struct {
	io.Reader
	first func()
	once  sync.Once
}

func (a *asked) Read(p []byte) (int, error) {
	a.once.Do(a.first)
	return a.Reader.Read(p)
}

// TestContinue: the client's body waits for the application's 100, and is never sent where another answer comes first.
func TestContinue(t *testing.T) {
	t.Parallel()
	through(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		b, err := io.ReadAll(r.Body) // net/http says 100 here
		fmt.Fprint(w, string(b), " ", err)
	}, func(t *testing.T, m *mesh, w way, c *http.Client) {
		for _, path := range []string{"/taken", "/refused", "/taken"} {
			var told, sent atomic.Bool
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { told.Store(true) }})
			body := &asked{Reader: strings.NewReader("the body"), first: func() {
				if !told.Load() {
					t.Errorf("%s: the body is sent before the application asks for it", path)
				}
				sent.Store(true)
			}}
			res := do(t, c, ctx, http.MethodPut, "http://web"+path, body, "Expect", "100-continue")
			got := text(t, res)
			if taken := path == "/taken"; taken && (res.StatusCode != 200 || got != "the body <nil>" || !sent.Load()) ||
				!taken && (res.StatusCode != 401 || told.Load() || sent.Load()) {
				t.Errorf("%s: %d %q; 100 came: %t, the body was sent: %t", path, res.StatusCode, got, told.Load(), sent.Load())
			}
		}
	})
}

// TestEarlyHints passes interim answers on, before the final one is there.
func TestEarlyHints(t *testing.T) {
	t.Parallel()
	hinted := make(chan struct{}, 2)
	through(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		<-hinted // the client has it
		w.Header().Set("Link", "</more.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		<-hinted
		w.Header().Del("Link")
		fmt.Fprint(w, "done")
	}, func(t *testing.T, m *mesh, w way, c *http.Client) {
		var got []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, " ", h.Get("Link")))
			hinted <- struct{}{}
			return nil
		}})
		res := do(t, c, ctx, http.MethodGet, "http://web/", nil)
		if all := strings.Join(got, ", "); text(t, res) != "done" || all != "103 </style.css>; rel=preload, 103 </more.css>; rel=preload" {
			t.Errorf("interim answers: %s", all)
		}
	})
}

// TestTrailers passes trailers both ways, whatever each side speaks.
func TestTrailers(t *testing.T) {
	t.Parallel()
	through(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "Sum, Received")
		fmt.Fprint(w, len(b), " ", err)
		w.Header().Set("Sum", "answered")
		w.Header().Set("Received", r.Trailer.Get("Sum"))
	}, func(t *testing.T, m *mesh, w way, c *http.Client) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://web/", stream(100_000))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1
		req.Header.Set("TE", "trailers")
		req.Trailer = http.Header{"Sum": {"asked"}}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := text(t, res); got != "100000 <nil>" || res.Trailer.Get("Sum") != "answered" || res.Trailer.Get("Received") != "asked" {
			t.Errorf("%q, trailers %v", got, res.Trailer)
		}
	})
}

// TestBothWaysAtOnce answers a request line by line while it is still being sent.
func TestBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	through(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if r.ProtoMajor == 1 && rc.EnableFullDuplex() != nil || rc.Flush() != nil {
			return
		}
		for in := bufio.NewReader(r.Body); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(w, "heard ", line)
			if rc.Flush() != nil {
				return
			}
		}
	}, func(t *testing.T, m *mesh, w way, c *http.Client) {
		body, say := io.Pipe()
		res := do(t, c, t.Context(), http.MethodPost, "http://web/", body)
		in := bufio.NewReader(res.Body)
		for n := range 20 {
			if _, err := fmt.Fprintf(say, "line %d\n", n); err != nil {
				t.Fatal(err)
			}
			if got, err := in.ReadString('\n'); err != nil || got != fmt.Sprintf("heard line %d\n", n) {
				t.Fatalf("%q, %v", got, err)
			}
		}
		_ = say.Close()
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
		_ = res.Body.Close()
	})
}

// TestAnswerBeforeTheRequestEnds refuses a body that is too large without reading it: the answer arrives whole, and
// others are served on.
func TestAnswerBeforeTheRequestEnds(t *testing.T) {
	t.Parallel()
	through(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, "well")
			return
		}
		http.Error(w, strings.Repeat("too large ", 1000), http.StatusRequestEntityTooLarge)
	}, func(t *testing.T, m *mesh, w way, c *http.Client) {
		for range 5 {
			body, more := io.Pipe()
			over := make(chan struct{})
			go func() { // ends when the client reads no more, which closing the body sees to
				defer close(over)
				block := make([]byte, 16<<10)
				for {
					if _, err := more.Write(block); err != nil {
						return
					}
				}
			}()
			res := do(t, c, t.Context(), http.MethodPost, "http://web/", body)
			if got := text(t, res); res.StatusCode != http.StatusRequestEntityTooLarge || len(got) != 10_001 {
				t.Errorf("%d with %d bytes", res.StatusCode, len(got))
			}
			_ = body.Close()
			<-over
			if got := text(t, do(t, c, t.Context(), http.MethodGet, "http://web/", nil)); got != "well" {
				t.Errorf("%q", got)
			}
		}
	})
}

// TestFlatMemory carries bodies that are much larger than the memory they may take, both ways, beside clients that do
// not read and applications that do not.
func TestFlatMemory(t *testing.T) {
	size := int64(32 << 20)
	if long {
		size = 512 << 20
	}
	want, _, err := digest(stream(size))
	if err != nil {
		t.Fatal(err)
	}
	var written atomic.Int64
	wake := make(chan struct{})
	through(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/up":
			sum, n, err := digest(r.Body)
			fmt.Fprint(w, sum, " ", n, " ", err)
		case "/down":
			_, _ = io.CopyBuffer(struct{ io.Writer }{w}, stream(size), make([]byte, 64<<10)) // the client counts
		case "/stalled":
			block := make([]byte, 64<<10)
			for r.Context().Err() == nil {
				n, err := w.Write(block)
				written.Add(int64(n))
				if err != nil {
					return
				}
			}
		case "/deaf":
			<-wake
		}
	}, func(t *testing.T, m *mesh, w way, c *http.Client) {
		c.Timeout = 10 * time.Minute
		written.Store(0)
		runtime.GC()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		stop := heapPeak()
		var sent atomic.Int64
		end := m.beStalled(t, c, &sent)
		m.settles("what nobody reads", &written)
		m.settles("what the application does not read", &sent)
		for range 2 {
			res := do(t, c, t.Context(), http.MethodPost, "http://web/up", stream(size))
			if got := text(t, res); got != fmt.Sprint(want, " ", size, " <nil>") {
				t.Errorf("up: %s, want %s %d", got, want, size)
			}
			res = do(t, c, t.Context(), http.MethodGet, "http://web/down", nil)
			sum, n, err := digest(res.Body)
			if _ = res.Body.Close(); sum != want || n != size || err != nil {
				t.Errorf("down: %d bytes with digest %s (%v), want %d with %s", n, sum, err, size, want)
			}
		}
		peak := stop()
		wake <- struct{}{}
		end()
		if grown := int64(peak) - int64(before.HeapInuse); grown > 28<<20 {
			t.Errorf("the heap grew by %d bytes for bodies of %d", grown, size)
		}
	})
}

// beStalled has a client that does not read an endless answer, and one whose endless body the application does not read.
// The first one leaves when end is called, which waits for the application to answer the other.
func (m *mesh) beStalled(t *testing.T, c *http.Client, sent *atomic.Int64) (end func()) {
	t.Helper()
	unread := do(t, c, t.Context(), http.MethodGet, "http://web/stalled", nil)
	body, more := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://web/deaf", body)
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Go(func() {
		if res, err := c.Do(req); err != nil {
			t.Errorf("what the application answered without reading: %v", err)
		} else {
			_ = res.Body.Close()
		}
		_ = body.Close()
	})
	both.Go(func() {
		for block := make([]byte, 16<<10); ; {
			n, err := more.Write(block)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	return func() {
		_ = unread.Body.Close()
		both.Wait()
	}
}

// settles waits until a count of bytes that nobody reads grows no more, though there is no end of them. How many the kernel's
// buffers on the way take is its own matter, tens of MiB where it is set so and the machine is busy; what others keep is in the heap.
func (m *mesh) settles(what string, count *atomic.Int64) {
	m.t.Helper()
	last, since := int64(-1), time.Now()
	m.await(what+" stops growing", func() bool {
		if n := count.Load(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	m.t.Logf("%s: %d bytes were taken", what, last)
}
