package accesslog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxWaiting bounds the bytes that wait for a disk that is slow; further lines are dropped, and counted.
	maxWaiting = 1 << 20
	// hurried is how many bytes are written without waiting for more.
	hurried = 64 << 10
	// maxKept is the largest buffer that is kept for the next lines.
	maxKept = 4 * hurried
	// patience is how long lines wait for others to be written with.
	patience = 100 * time.Millisecond
	// farewell is how long Close waits for a disk, or a reader of standard output, that takes nothing.
	farewell = 2 * time.Second
)

// Counts are what became of lines. They outlive the file.
type Counts struct {
	// Written were given to the file; Dropped came while too much was waiting; Failed could not be written.
	Written, Dropped, Failed atomic.Uint64
}

// Options of a File.
type Options struct {
	// Stdout and Stderr are what /dev/stdout and /dev/stderr mean; those of the process where nil.
	Stdout, Stderr io.Writer
	Counts         *Counts
	Log            *slog.Logger
}

// File takes lines and writes them in batches, in a goroutine of its own, which Close waits for. Whoever writes never waits.
type File struct {
	path string
	o    Options
	out  io.Writer
	file *os.File // nil for standard output
	// rotates says that another file may come to stand at the path.
	rotates bool

	mu     sync.Mutex
	lines  []byte // not yet taken by run
	count  uint64 // of lines
	closed bool

	wake, full chan struct{} // 1 slot each
	done       chan struct{}
	failing    bool // run's: the last write failed, or the file could not be opened again
}

// Open opens a file to append to, and makes it where it is not there. /dev/stdout and /dev/stderr are the process's own. A pipe
// needs a reader by then.
func Open(path string, o Options) (*File, error) {
	f := &File{path: path, o: o, wake: make(chan struct{}, 1), full: make(chan struct{}, 1), done: make(chan struct{})}
	switch path {
	case "/dev/stdout":
		f.out = or(o.Stdout, os.Stdout)
	case "/dev/stderr":
		f.out = or(o.Stderr, os.Stderr)
	default:
		if err := f.open(); err != nil {
			return nil, err
		}
	}
	go f.run() // Close waits for it
	return f, nil
}

func or(w io.Writer, standard *os.File) io.Writer {
	if w == nil {
		return standard
	}
	return w
}

// open opens what stands at the path.
func (f *File) open() error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return fmt.Errorf("cannot open the access log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("cannot open the access log: %w", err), file.Close())
	}
	if f.file != nil {
		_ = f.file.Close()
	}
	f.file, f.out, f.rotates = file, file, info.Mode().IsRegular()
	return nil
}

// Path is what Open was called with.
func (f *File) Path() string { return f.path }

// Write takes one line with its end, and keeps nothing of it. False means that the file was closed.
func (f *File) Write(line []byte) bool {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return false
	}
	before := len(f.lines)
	if before+len(line) > maxWaiting {
		f.mu.Unlock()
		f.o.Counts.Dropped.Add(1)
		return true
	}
	f.lines = append(f.lines, line...)
	f.count++
	after := len(f.lines)
	f.mu.Unlock()
	if before == 0 {
		signal(f.wake)
	}
	if before < hurried && after >= hurried {
		signal(f.full)
	}
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Close writes what is there and ends. It gives up on a disk or reader that takes nothing for two seconds.
func (f *File) Close() {
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	f.mu.Unlock()
	if closed {
		return
	}
	signal(f.wake)
	signal(f.full)
	timeout := time.NewTimer(farewell)
	defer timeout.Stop()
	select {
	case <-f.done:
	case <-timeout.C:
		// The writer cannot be interrupted; the process that ends takes it along. Writing to a pipe ends with its closing.
		f.o.Log.Warn("the access log takes nothing; the last lines are lost", "path", f.path)
	}
}

// run writes what comes, until the file was closed and nothing is left.
func (f *File) run() {
	defer close(f.done)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var spare []byte
	for {
		<-f.wake
		timer.Reset(patience)
		select {
		case <-timer.C:
		case <-f.full:
		}
		f.mu.Lock()
		lines, count, closed := f.lines, f.count, f.closed
		f.lines, f.count = spare[:0], 0
		f.mu.Unlock()
		f.write(lines, count)
		if spare = lines; cap(spare) > maxKept {
			spare = nil
		}
		if closed {
			if f.file != nil {
				_ = f.file.Close()
			}
			return
		}
	}
}

// write writes one batch. A file that was moved away, as logrotate does, is left for a new one at the path first.
func (f *File) write(lines []byte, count uint64) {
	if len(lines) == 0 {
		return
	}
	stuck := false
	if f.rotates && f.moved() {
		if err := f.open(); err != nil {
			stuck = true
			f.fail(err)
		}
	}
	if _, err := f.out.Write(lines); err != nil {
		f.o.Counts.Failed.Add(count)
		f.fail(fmt.Errorf("cannot write the access log: %w", err))
		return
	}
	f.o.Counts.Written.Add(count)
	f.failing = stuck
}

// moved says whether what stands at the path is another file, or nothing.
func (f *File) moved() bool {
	there, err := os.Stat(f.path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	own, err := f.file.Stat()
	return err == nil && !os.SameFile(there, own)
}

// fail tells of the first failure of several.
func (f *File) fail(err error) {
	if !f.failing {
		f.o.Log.Error("lines of the access log are lost", "path", f.path, "reason", err)
	}
	f.failing = true
}
