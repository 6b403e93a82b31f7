package local

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// follower reads a stream to its end.
type follower struct {
	mu    sync.Mutex
	cards map[string]bool // by name: true while it is there, false once it was taken away
	err   error
	done  sync.WaitGroup
}

// follow begins to read the stream of an address. The test has to wait for f.done.
func follow(t *testing.T, address string) *follower {
	t.Helper()
	r, err := http.Get(address + "/hystrix.stream")
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{cards: map[string]bool{}}
	f.done.Go(func() {
		defer r.Body.Close()
		lines := bufio.NewScanner(r.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			text, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var e struct{ Name, DeleteData string }
			err := json.Unmarshal([]byte(text), &e)
			f.mu.Lock()
			f.cards[e.Name] = e.DeleteData == ""
			if err != nil {
				f.err = err
			}
			f.mu.Unlock()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if err := lines.Err(); err != nil {
			f.err = err
		}
	})
	return f
}

// has says whether all of these are there, or have been taken away.
func (f *follower) has(there bool, names ...string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		if is, told := f.cards[name]; !told || is != there {
			return false
		}
	}
	return true
}

// TestStreamFollowsSidecars reads the mesh's stream and a sidecar's while sidecars come and go, and until the end of the mesh.
func TestStreamFollowsSidecars(t *testing.T) {
	f := run(t, Options{StandIns: true, NoPrometheus: true}, map[string]string{"mesh.yaml": documents(webService, deployment("v1", 1, ""), breakerOf)})
	admin := follow(t, f.Ready().Admin)
	metrics := ""
	for _, w := range f.Ready().Workloads {
		if w.Name == "local" {
			metrics = "http://" + w.Metrics
		}
	}
	own := follow(t, metrics)
	f.until("both streams tell of the breaker", func() bool { return admin.has(true, "web@local", "web@web-v1") && own.has(true, "web") })
	f.write("mesh.yaml", documents(webService, deployment("v1", 3, ""), breakerOf))
	f.until("new sidecars are there, and called by their instances", func() bool {
		return admin.has(true, "web@local", "web@web-v1-0", "web@web-v1-1", "web@web-v1-2") && admin.has(false, "web@web-v1")
	})
	f.write("mesh.yaml", documents(webService, deployment("v1", 1, ""), breakerOf))
	f.until("those that have gone are taken away", func() bool {
		return admin.has(false, "web@web-v1-0", "web@web-v1-1", "web@web-v1-2") && admin.has(true, "web@local", "web@web-v1")
	})
	f.end()
	admin.done.Wait()
	own.done.Wait()
	if admin.err != nil || own.err != nil {
		t.Errorf("the streams end with %v and %v", admin.err, own.err)
	}
	if !admin.has(true, "web@local", "web@web-v1") {
		t.Error("the end of the mesh takes cards away")
	}
}
