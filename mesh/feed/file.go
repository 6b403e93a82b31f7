package feed

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// How long a File waits after the last sign of writing before it reads, and how long a file that cannot be read as a
// snapshot must stay as it is before that is said: until then somebody may still be writing it.
const (
	quiet    = 50 * time.Millisecond
	patience = 500 * time.Millisecond
)

// File follows a snapshot in a JSON file: the feed of a proxy that has no control plane.
type File struct {
	path    string
	log     *slog.Logger
	watcher *fsnotify.Watcher
	c       chan struct{}
	done    chan struct{}
	stopped sync.WaitGroup
	linked  bool              // the path leads over symbolic links: other names' changes may change what it holds
	seen    [sha256.Size]byte // of the content that latest was made of

	mu     sync.Mutex
	latest *model.Snapshot
}

// OpenFile reads the snapshot at path and follows the file's changes until Close. What cannot be read as a snapshot
// is an error now; later it is logged, and the latest good snapshot stays.
func OpenFile(path string, log *slog.Logger) (*File, error) {
	s, sum, err := readFile(path)
	if err != nil {
		return nil, err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("cannot watch %s: %w", path, err)
	}
	f := &File{path: path, log: log, watcher: w, c: make(chan struct{}, 1), done: make(chan struct{}), latest: s, seen: sum}
	if err := f.watch(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot watch %s: %w", path, err), w.Close())
	}
	f.c <- struct{}{}
	f.stopped.Add(1)
	go f.follow()
	return f, nil
}

// ReadFile reads one snapshot. It refuses fields that a snapshot does not have, anything after it, and whatever no
// proxy could run. The version is made anew from the content, so that a snapshot edited by hand has one of its own.
func ReadFile(path string) (*model.Snapshot, error) {
	s, _, err := readFile(path)
	return s, err
}

// readFile is ReadFile that also returns the sum of the content.
func readFile(path string) (s *model.Snapshot, sum [sha256.Size]byte, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, sum, fmt.Errorf("cannot read snapshot: %w", err)
	}
	s, err = decode(b)
	if err != nil {
		return nil, sum, fmt.Errorf("cannot read snapshot %s: %w", path, err)
	}
	return s, sha256.Sum256(b), nil
}

func decode(b []byte) (*model.Snapshot, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	s := &model.Snapshot{}
	if err := d.Decode(s); err != nil {
		at := d.InputOffset()
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			at = syntax.Offset
		case errors.As(err, &kind):
			at = kind.Offset
		case errors.Is(err, io.EOF):
			return nil, errors.New("the file is empty")
		}
		return nil, fmt.Errorf("line %d: %w", lineAt(b, at), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: there is something after the snapshot", lineAt(b, d.InputOffset()))
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return model.Seal(s), nil
}

// lineAt returns the line, counted from 1, of the byte at offset.
func lineAt(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(int(offset), len(b))], []byte("\n"))
}

// C receives when there may be a newer snapshot than Latest returned last; it holds one for the first.
func (f *File) C() <-chan struct{} { return f.c }

// Latest returns the newest good snapshot that the file has held.
func (f *File) Latest() *model.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.latest
}

// Ack logs that the proxy runs the snapshot of that version.
func (f *File) Ack(version string) {
	f.log.Info("snapshot applied", "file", f.path, "version", version)
}

// Nack logs that the proxy refused the snapshot of that version.
func (f *File) Nack(version, reason string) {
	f.log.Error("snapshot refused, the one before stays", "file", f.path, "version", version, "reason", reason)
}

// Close ends the following and waits for it.
func (f *File) Close() error {
	close(f.done)
	f.stopped.Wait()
	return f.watcher.Close()
}

// watch sets the watches anew: on the directory of the file, so that a file renamed over it is seen, and, where the
// file is a symbolic link, on the directory that it leads to.
func (f *File) watch() error {
	if err := f.watcher.Add(filepath.Dir(f.path)); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(f.path)
	f.linked = err != nil || real != filepath.Clean(f.path)
	if err != nil || filepath.Dir(real) == filepath.Dir(f.path) {
		return nil // a link that leads nowhere for now is watched where it stands
	}
	return f.watcher.Add(filepath.Dir(real))
}

func (f *File) follow() {
	defer f.stopped.Done()
	timer := time.NewTimer(quiet)
	timer.Stop()
	var last time.Time // of the latest sign of writing
	for {
		select {
		case <-f.done:
			return
		case e, ok := <-f.watcher.Events:
			if !ok {
				return
			}
			if !f.concerns(e.Name) {
				continue
			}
			last = time.Now()
			timer.Reset(quiet)
		case err, ok := <-f.watcher.Errors:
			if !ok {
				return
			}
			f.log.Warn("cannot follow every change of the snapshot file", "file", f.path, "reason", err.Error())
			last = time.Now() // events may be lost: look
			timer.Reset(quiet)
		case <-timer.C:
			if !f.read(time.Since(last) >= patience) {
				timer.Reset(quiet)
			}
		}
	}
}

// read takes over what the file holds. It returns false where that is no snapshot and somebody may still be writing.
func (f *File) read(patient bool) bool {
	if f.same() {
		f.rewatch()
		return true
	}
	s, sum, err := readFile(f.path)
	if err != nil {
		if patient {
			f.log.Error("snapshot file cannot be read, the snapshot before stays", "file", f.path, "reason", err.Error())
		}
		return patient
	}
	f.rewatch()
	f.seen = sum
	f.mu.Lock()
	changed := s.Version != f.latest.Version
	if changed { // else the proxy runs the one that is there, and another would only be held beside it
		f.latest = s
	}
	f.mu.Unlock()
	if changed {
		select {
		case f.c <- struct{}{}:
		default:
		}
	}
	return true
}

// rewatch sets the watches for what the path leads to now.
func (f *File) rewatch() {
	if err := f.watch(); err != nil {
		f.log.Warn("cannot follow every change of the snapshot file", "file", f.path, "reason", err.Error())
	}
}

// concerns says whether a change of the file with that name may change what the path holds: neighbours, such as this
// program's own log, do not.
func (f *File) concerns(name string) bool {
	return f.linked || filepath.Base(name) == filepath.Base(f.path)
}

// same says whether the file holds what it held when it was read last: decoding a large snapshot costs many times more.
func (f *File) same() bool {
	r, err := os.Open(f.path)
	if err != nil {
		return false
	}
	h := sha256.New()
	_, err = io.Copy(h, r)
	return r.Close() == nil && err == nil && [sha256.Size]byte(h.Sum(nil)) == f.seen
}
