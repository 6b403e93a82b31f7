package accesslog

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("does not come: " + what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func opened(t *testing.T, path string, counts *Counts) *File {
	t.Helper()
	f, err := Open(path, Options{Counts: counts, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// All lines of all writers arrive, whole and each once; Close waits for the last.
func TestFile(t *testing.T) {
	const writers, lines = 8, 2000
	path, counts := filepath.Join(t.TempDir(), "access.log"), &Counts{}
	f := opened(t, path, counts)
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range lines {
				f.Write([]byte("the line of one request\n"))
			}
		})
	}
	all.Wait()
	f.Close()
	if got := content(t, path); got != strings.Repeat("the line of one request\n", writers*lines) || counts.Written.Load() != writers*lines {
		t.Errorf("%d bytes, %d lines counted", len(got), counts.Written.Load())
	}
	if f.Write([]byte("late\n")) {
		t.Error("a closed file takes lines")
	}
}

// A line is there soon, without anything that comes after it.
func TestFileIsWrittenSoon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	opened(t, path, &Counts{}).Write([]byte("one\n"))
	eventually(t, "the line", func() bool { return content(t, path) == "one\n" })
}

// logrotate moves the file away, or cuts it short; what comes then is in a new file, or at the file's beginning.
func TestRotation(t *testing.T) {
	path, counts := filepath.Join(t.TempDir(), "access.log"), &Counts{}
	f := opened(t, path, counts)
	write := func(line string) {
		t.Helper()
		before := counts.Written.Load()
		f.Write([]byte(line))
		eventually(t, line, func() bool { return counts.Written.Load() == before+1 })
	}
	write("one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("two\n")
	if moved, now := content(t, path+".1"), content(t, path); moved != "one\n" || now != "two\n" {
		t.Errorf("moved %q, new %q", moved, now)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	write("three\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write("four\n")
	if now := content(t, path); now != "four\n" {
		t.Errorf("new %q", now)
	}
}

// Where nobody takes the lines, memory is bounded, writers go on, and what is lost is counted.
func TestStalledReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil {
		t.Fatal("a pipe without a reader was opened")
	}
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	counts := &Counts{}
	f := opened(t, path, counts)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	const lines = 5 * maxWaiting / 1024
	for range lines {
		if !f.Write(line) {
			t.Fatal("closed")
		}
	}
	if counts.Dropped.Load() == 0 {
		t.Error("nothing was dropped, so memory has no bound")
	}
	// The reader comes back: what waits arrives, and what comes.
	got := make(chan int)
	go func() { // ends with the pipe
		n, _ := io.Copy(io.Discard, r)
		got <- int(n)
	}()
	f.Close()
	written, dropped := counts.Written.Load(), counts.Dropped.Load()
	if n := <-got; uint64(n) != written*1024 || written+dropped != lines {
		t.Errorf("%d bytes read, %d lines written, %d dropped, of %d", n, written, dropped, lines)
	}
}

func TestUnopenable(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "missing", "access.log"), Options{}); err == nil || !strings.Contains(err.Error(), "cannot open the access log") {
		t.Errorf("got %v", err)
	}
}

func TestFailedWrites(t *testing.T) {
	counts := &Counts{}
	f, err := Open("/dev/stdout", Options{Stdout: broken{}, Counts: counts, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("one\n"))
	f.Write([]byte("two\n"))
	f.Close()
	if counts.Failed.Load() != 2 || counts.Written.Load() != 0 {
		t.Errorf("%d failed, %d written", counts.Failed.Load(), counts.Written.Load())
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestWriteAllocatesNothing(t *testing.T) {
	f := opened(t, filepath.Join(t.TempDir(), "access.log"), &Counts{})
	line := []byte(strings.Repeat("x", 300) + "\n")
	for range 1000 { // both buffers have grown
		f.Write(line)
	}
	if n := testing.AllocsPerRun(1000, func() { f.Write(line) }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
