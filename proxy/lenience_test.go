package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// unhurried is a body whose pieces come with pauses.
type unhurried struct {
	pieces int
	pause  time.Duration
}

func (u *unhurried) Read(b []byte) (int, error) {
	if u.pieces == 0 {
		return 0, io.EOF
	}
	u.pieces--
	time.Sleep(u.pause)
	return copy(b, "piece"), nil
}

// Time limits begin when the request is here as a whole: of the route, of each try, and of a try after the first.
func TestTimeoutsBeginWithTheRequestsEnd(t *testing.T) {
	t.Parallel()
	var counters sync.Map
	attempts := func(r *http.Request) *atomic.Int64 {
		n, _ := counters.LoadOrStore(r.URL.Path+" "+r.Header.Get("X-Case"), new(atomic.Int64))
		return n.(*atomic.Int64)
	}
	const timeout, try, pause = 2500 * time.Millisecond, 1500 * time.Millisecond, 600 * time.Millisecond
	edit := func(_ *model.Snapshot, r *model.Rule) {
		r.Route.Timeout = model.Duration(timeout)
		r.Route.Retries = &model.Retries{Attempts: 1, On: []string{"5xx"}, PerTry: model.Duration(try), Backoff: model.Duration(time.Millisecond)}
	}
	versionsAtOnce(t, edit, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if n := attempts(r).Add(1); r.URL.Path == "/hangs" || r.URL.Path == "/hangs-once" && n == 1 {
			<-r.Context().Done()
			return
		}
		_, _ = w.Write(b)
	}, func(t *testing.T, c *http.Client, _ *Proxy, client, server int) {
		f := func(path string, status int, reason string, tries int64, least time.Duration) {
			t.Helper()
			r := request("PUT", "http://app"+path, &unhurried{5, pause})
			r.Header.Set("X-Case", fmt.Sprint(client, " to ", server))
			begin := time.Now()
			res, body := fetch(t, c, r)
			if n := attempts(r).Load(); res.StatusCode != status || res.Header.Get("x-outrider-reason") != reason || n != tries || time.Since(begin) < least {
				t.Errorf("%s: %d %q after %d attempts and %v; want %d %q after %d and %v or more", path, res.StatusCode, res.Header.Get("x-outrider-reason"), n, time.Since(begin), status, reason, tries, least)
			}
			if status == 200 && body != strings.Repeat("piece", 5) {
				t.Errorf("%s: got %q", path, body)
			}
		}
		f("/", 200, "", 1, 5*pause)
		f("/hangs-once", 200, "", 2, 4*pause+try)
		f("/hangs", 504, "route_timeout", 2, 4*pause+timeout)
	})
}

// An endpoint that does not take the body is timed, as one that does not answer; so is whoever keeps a breaker waiting.
func TestTimeoutsOfBodiesThatNobodyTakes(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	f := func(name, reason string, edit func(*model.Snapshot, *model.Rule), body func() io.Reader) {
		t.Run(name, func(t *testing.T) {
			versions(t, edit, func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-release:
				case <-r.Context().Done():
				}
			}, func(t *testing.T, c *http.Client, _ *Proxy, _, _ int) {
				begin := time.Now()
				res, err := c.Do(request("PUT", "http://app/", body()))
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if res.StatusCode != 504 || res.Header.Get("x-outrider-reason") != reason {
					t.Errorf("%d %s after %v, want 504 %s", res.StatusCode, res.Header.Get("x-outrider-reason"), time.Since(begin), reason)
				}
			})
		})
	}
	route := func(_ *model.Snapshot, r *model.Rule) { r.Route.Timeout = model.Duration(150 * time.Millisecond) }
	guarded := hystrix(func(b *model.Breaker) { b.Timeout = model.Duration(300 * time.Millisecond) })
	f("a frozen endpoint", "route_timeout", route, func() io.Reader { return io.LimitReader(zeros{}, 64<<20) })
	f("a breaker before a slow client", "breaker_timeout", func(s *model.Snapshot, r *model.Rule) {
		route(s, r)
		guarded(s, r)
	}, func() io.Reader { return &unhurried{40, 50 * time.Millisecond} })
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
