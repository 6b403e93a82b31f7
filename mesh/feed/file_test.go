package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// journal is a log that tests read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func text(t *testing.T, instance string) []byte {
	t.Helper()
	b, err := json.MarshalIndent(&model.Snapshot{
		Version:   "stale",
		Workload:  model.Workload{Instance: instance},
		Listeners: []model.Listener{{Name: "outbound", Address: "127.0.0.1:0", Table: "outbound"}},
		Tables:    []model.Table{{Name: "outbound"}},
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// await waits until f's latest snapshot is of that instance.
func await(t *testing.T, f *File, instance string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for f.Latest().Workload.Instance != instance {
		select {
		case <-f.C():
		case <-deadline:
			t.Fatalf("the snapshot is still that of %q, want %q", f.Latest().Workload.Instance, instance)
		}
	}
}

func open(t *testing.T, path string) (*File, *journal) {
	t.Helper()
	j := &journal{}
	f, err := OpenFile(path, slog.New(slog.NewTextHandler(j, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f, j
}

func TestFileFollows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.json")
	write(t, path, text(t, "one"))
	f, _ := open(t, path)
	await(t, f, "one")
	if v := f.Latest().Version; v == "stale" || v == "" {
		t.Fatalf("version %q must be made from the content", v)
	}

	write(t, path, text(t, "written in place"))
	await(t, f, "written in place")

	beside := path + ".tmp"
	write(t, beside, text(t, "renamed over"))
	if err := os.Rename(beside, path); err != nil {
		t.Fatal(err)
	}
	await(t, f, "renamed over")

	if err := os.Rename(path, path+"~"); err != nil { // as vim does
		t.Fatal(err)
	}
	write(t, path, text(t, "backed up"))
	await(t, f, "backed up")
}

func TestFileFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"..1", "..2"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "s.json"), text(t, name))
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "..data")
	link(filepath.Join("..data", "s.json"), "s.json")
	f, _ := open(t, filepath.Join(dir, "s.json"))
	await(t, f, "..1")

	link("..2", "..tmp") // as kubelet updates a mounted ConfigMap
	if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	await(t, f, "..2")

	write(t, filepath.Join(dir, "..2", "s.json"), text(t, "edited behind the link"))
	await(t, f, "edited behind the link")
}

// What says nothing new costs no second snapshot.
func TestFileUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.json")
	write(t, path, text(t, "one"))
	f, err := OpenFile(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.watcher.Close()
	close(f.done) // from here on this test reads
	f.stopped.Wait()
	<-f.C()
	first := f.Latest()
	unchanged := func(what string) {
		t.Helper()
		if !f.read(true) || f.Latest() != first || len(f.C()) != 0 {
			t.Errorf("%s: a snapshot was made", what)
		}
	}
	unchanged("nothing")
	write(t, path, text(t, "one"))
	unchanged("the same bytes")
	write(t, path, append(text(t, "one"), "\n\n"...))
	unchanged("the same snapshot")
	if f.concerns(filepath.Join(filepath.Dir(path), "log")) || !f.concerns(path) {
		t.Error("neighbours of a plain file concern nobody")
	}

	real := filepath.Join(t.TempDir(), "real.json") // the same again, but behind a link
	write(t, real, text(t, "one"))
	if err := errors.Join(os.Remove(path), os.Symlink(real, path)); err != nil {
		t.Fatal(err)
	}
	unchanged("a link")
	if !f.concerns(filepath.Join(filepath.Dir(path), "..data")) {
		t.Error("behind a link any name may matter")
	}

	write(t, real, text(t, "two"))
	if !f.read(true) || f.Latest().Workload.Instance != "two" || len(f.C()) != 1 {
		t.Error("a change was not taken over")
	}
}

func TestFileHalfWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.json")
	write(t, path, text(t, "one"))
	f, j := open(t, path)
	await(t, f, "one")

	whole := text(t, "two")
	for i := 0; i < len(whole); i += 1 + len(whole)/7 {
		write(t, path, whole[:i])
	}
	write(t, path, whole)
	await(t, f, "two")
	if j.String() != "" {
		t.Fatalf("a file caught half-written was spoken of: %s", j)
	}

	write(t, path, whole[:len(whole)/2]) // and it stays so
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(j.String(), "cannot be read") {
		if time.Now().After(deadline) {
			t.Fatal("a broken file was never spoken of")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if got := f.Latest().Workload.Instance; got != "two" {
		t.Fatalf("after a broken edit the snapshot is %q's", got)
	}
	write(t, path, text(t, "three"))
	await(t, f, "three")
}

func TestReadFileRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.json")
	check := func(content, want string) {
		t.Helper()
		write(t, path, []byte(content))
		_, err := ReadFile(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want the path and %q", content, err, want)
		}
	}
	check("", "empty")
	check("{\n\"workload\": {},\n\"colour\": 1}", "colour")
	check("{\n\"listeners\": 7}", "line 2")
	check("{\n\"listeners\": [}", "line 2")
	check("{}\n{}", "after the snapshot")
	check(`{"listeners": [{"name": "l", "table": "nowhere"}]}`, `no table "nowhere"`)
	if _, err := ReadFile(path + "not there"); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := OpenFile(path, slog.Default()); err == nil {
		t.Error("OpenFile must refuse what it cannot read")
	}
}
