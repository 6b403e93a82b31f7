package cli

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// load sends requests at a steady pace through the client's proxy, as any HTTP client would.
type load struct {
	client *http.Client
	slots  chan struct{} // bounds the requests under way

	mu     sync.Mutex
	sent   int
	failed int
	why    error // of one that failed
}

func newLoad(proxy string) *load {
	transport := &http.Transport{
		Proxy:               http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}),
		MaxIdleConnsPerHost: 16,
	}
	return &load{client: &http.Client{Transport: transport, Timeout: 10 * time.Second}, slots: make(chan struct{}, 100)}
}

// run sends until ctx ends, and returns when the last answer is in. Where answers come too slowly it waits: the pace drops.
func (l *load) run(ctx context.Context) {
	defer l.client.CloseIdleConnections()
	var underWay sync.WaitGroup
	defer underWay.Wait()
	pace := time.NewTicker(time.Second / demoRate)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		select {
		case <-ctx.Done():
			return
		case l.slots <- struct{}{}:
		}
		underWay.Go(func() {
			l.note(l.send())
			<-l.slots
		})
	}
}

// send sends one request. An answer of whatever status is none of its errors: the mesh measures those.
func (l *load) send() error {
	res, err := l.client.Get(demoTarget)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.failed++
		l.why = err
	}
}

// result is how many requests were sent, how many got no answer at all, and one reason.
func (l *load) result() (sent, failed int, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent, l.failed, l.why
}
