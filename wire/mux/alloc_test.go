package mux

import (
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// exchange is a request and its response as a goroutine waits for it.
type exchange struct {
	client *end
	req    *message.Request
	res    message.Response
	upload []byte
}

func (x *exchange) run(tb testing.TB, n int) {
	for range n {
		c := GetCall(x.client.Mux)
		if err := c.Open(x.req, len(x.upload) == 0); err != nil {
			tb.Fatal(err)
		}
		if len(x.upload) > 0 {
			if err := c.Send(x.upload, true); err != nil {
				tb.Fatal(err)
			}
		}
		if err := c.Head(&x.res); err != nil || x.res.Status != 200 {
			tb.Fatal(err, x.res.Status)
		}
		for end := false; !end; {
			p, last, err := c.Next()
			if err != nil {
				tb.Fatal(err)
			}
			if end = last; !end && len(p) == 0 {
				if err := c.Wait(); err != nil {
					tb.Fatal(err)
				}
			}
		}
		c.Release()
	}
}

// workers serves calls with as many goroutines as it takes to cost no allocation: they outlive the requests.
func workers(t testing.TB, n int, body []byte) func(c *Call) {
	queue := make(chan *Call, 100)
	done := make(chan struct{})
	r := response(200)
	r.BodyLength = int64(len(body))
	r.Add("content-type", "text/plain")
	for range n {
		go func() { // ends with the queue; the cleanup waits
			for c := range queue {
				for {
					p, end, err := c.Next()
					if err != nil || end || len(p) == 0 && c.Wait() != nil {
						break
					}
				}
				c.Respond(r, false)
				_ = c.Send(body, true)
				c.Release()
			}
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		close(queue)
		for range n {
			<-done
		}
	})
	return func(c *Call) { queue <- c }
}

// TestNoAllocations holds exchanges over sockets to no allocation at either end, once buffers have grown.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a pool drops what it is given now and then")
	}
	f := func(name string, secured bool, upload, download int, most float64) {
		t.Run(name, func(t *testing.T) {
			x := newExchange(t, secured, upload, download)
			x.run(t, 200)
			if n := testing.AllocsPerRun(20, func() { x.run(t, 50) }); n >= most+1 {
				t.Errorf("%v allocations for fifty exchanges, want %v at most", n, most)
			}
		})
	}
	f("small", false, 0, 300, 0)
	f("large", false, 100_000, 400_000, 0)
	// crypto/tls makes one small object for each read of the socket: the request, the answer, at times a WINDOW_UPDATE, and
	// as many that find nothing there yet, before a wait.
	f("secured", true, 0, 300, 2*2.5*50)
}

func newExchange(t testing.TB, secured bool, upload, download int) *exchange {
	serve := workers(t, 2, make([]byte, download))
	x := &exchange{req: request("GET", "/reviews/1"), upload: make([]byte, upload)}
	if upload > 0 {
		x.req = request("POST", "/reviews/1")
	}
	x.req.Add("user-agent", "test")
	client, server := pair(t, setup{secure: secured})
	server.pooled = serve
	x.client = client
	return x
}

func BenchmarkExchange(b *testing.B) {
	for _, secured := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "secured"}[secured], func(b *testing.B) {
			x := newExchange(b, secured, 0, 300)
			x.run(b, 100)
			b.ReportAllocs()
			for b.Loop() {
				x.run(b, 1)
			}
		})
	}
}
