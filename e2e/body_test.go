package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"
)

// stream gives n bytes of reproducible noise.
func stream(n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), n)
}

func digest(r io.Reader) (string, int64, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, r, make([]byte, 64<<10))
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// heapPeak watches the process's heap until stop is called, which returns the most that was in use. Client, sidecars and
// application are all in this process, so whoever collected a body would show.
func heapPeak() (stop func() uint64) {
	percent := debug.SetGCPercent(20) // garbage is not to count
	done := make(chan struct{})
	var peak uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var s runtime.MemStats
			runtime.ReadMemStats(&s)
			peak = max(peak, s.HeapInuse)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() uint64 {
		close(done)
		wg.Wait()
		debug.SetGCPercent(percent)
		return peak
	}
}

// TestLargeBodies sends a body that is much larger than the memory it may take, up and down, with its length told and chunked.
func TestLargeBodies(t *testing.T) {
	size := int64(64 << 20)
	if long {
		size = 1 << 30
	}
	want, _, err := digest(stream(size))
	if err != nil {
		t.Fatal(err)
	}
	app := listen(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/up":
			sum, n, err := digest(r.Body)
			fmt.Fprint(w, sum, " ", n, " ", r.ContentLength, " ", err)
		case "/down":
			w.Header().Set("Content-Length", fmt.Sprint(size))
			fallthrough
		case "/chunked":
			_, _ = io.CopyBuffer(struct{ io.Writer }{w}, stream(size), make([]byte, 64<<10)) // the client counts
		}
	})
	m := up(t, balanced(1, "{simple: RANDOM}"), apps(app))
	m.http.Timeout = 5 * time.Minute
	if a := m.get("http://web/none"); a.Status != 200 {
		t.Fatal(a.Status, a.Text)
	}
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	stop := heapPeak()
	f := func(what string, length int64, told int64) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, "http://web/up", stream(size))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		res, err := m.http.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if got := fmt.Sprint(want, " ", size, " ", told, " <nil>"); err != nil || string(text) != got {
			t.Errorf("%s: the application got %s (%v), want %s", what, text, err, got)
		}
	}
	f("upload", size, size)
	f("chunked upload", -1, -1)
	for _, path := range []string{"/down", "/chunked"} {
		res, err := m.http.Get("http://web" + path)
		if err != nil {
			t.Fatal(err)
		}
		sum, n, err := digest(res.Body)
		_ = res.Body.Close()
		if sum != want || n != size || err != nil {
			t.Errorf("%s: got %d bytes with digest %s (%v), want %d with %s", path, n, sum, err, size, want)
		}
	}
	peak := stop()
	t.Logf("4 bodies of %d MiB: the heap went from %.1f to at most %.1f MiB", size>>20, float64(before.HeapInuse)/(1<<20), float64(peak)/(1<<20))
	if grown := int64(peak) - int64(before.HeapInuse); grown > 24<<20 {
		t.Errorf("the heap grew by %d bytes for a body of %d", grown, size)
	}
}
