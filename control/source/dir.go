// Package source brings objects to the control plane: level-triggered, the newest whole.
package source

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/outrider-mesh/outrider/config"
)

// A save takes effect within a second. These are the parts of that second.
const (
	quiet  = 60 * time.Millisecond  // after the last event of a burst
	burst  = 300 * time.Millisecond // the longest that a burst puts reading off
	settle = 500 * time.Millisecond // how long a file that looks half-written must stay as it is to be taken for what it is
	recede = 50 * time.Millisecond  // between looks at a file that somebody has open for writing; that it was closed is no event
	// A file that is open for writing, or changes all the time, is waited for; but not for ever, or whoever forgot to
	// close a file would stop all changes.
	closing = 3 * time.Second
)

// Options say how a Dir reads.
type Options struct {
	// Namespace is for objects that name none; "default" where empty.
	Namespace string
	// Stdin is what the path "-" reads, once; os.Stdin where nil.
	Stdin io.Reader
	// Except is a file that is left alone where it is found in a directory: one that the caller writes itself.
	Except string
	// Log hears of changes that cannot be followed; slog.Default where nil.
	Log *slog.Logger
}

// Dir follows the files below some paths.
type Dir struct {
	paths   []string
	o       Options
	log     *slog.Logger
	watcher *fsnotify.Watcher
	watched map[string]watch
	c       chan struct{}
	done    chan struct{}
	stopped sync.WaitGroup

	// The doubt under way; only the following goroutine looks at it.
	doubtful string    // what it is about, "" for none
	since    time.Time // when that was last different
	first    time.Time // when the doubt began
	sizes    map[string]int64

	mu     sync.Mutex
	latest *config.Files
}

// Open reads the paths and follows their changes until Close. A path that is not there or cannot be read is an error.
func Open(paths []string, o Options) (*Dir, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("cannot watch files: %w", err)
	}
	d := &Dir{
		paths: paths, o: o, log: o.Log, watcher: w, watched: map[string]watch{},
		c: make(chan struct{}, 1), done: make(chan struct{}), sizes: map[string]int64{},
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	d.watchAll(nil) // before the reading: what changes after it is seen
	d.latest, err = d.load()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	d.accept(d.latest)
	d.stopped.Add(1)
	go d.follow(d.watchAll(d.latest))
	return d, nil
}

// C receives when there may be something newer than Latest returned last. The first Latest is Open's.
func (d *Dir) C() <-chan struct{} { return d.c }

// Latest returns what the files hold: all of them, as they were when the last change had settled.
func (d *Dir) Latest() *config.Files {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.latest
}

// Close ends the following and waits for it.
func (d *Dir) Close() error {
	close(d.done)
	d.stopped.Wait()
	if err := d.watcher.Close(); err != nil {
		return fmt.Errorf("cannot end the watching of files: %w", err)
	}
	return nil
}

func (d *Dir) load() (*config.Files, error) {
	return config.Options{Namespace: d.o.Namespace, Stdin: d.o.Stdin, Former: d.latest, Except: d.o.Except}.Load(d.paths)
}

// follow waits for events and reads after them; it begins with a reading where something may have been missed.
func (d *Dir) follow(missed bool) {
	defer d.stopped.Done()
	timer := time.NewTimer(quiet)
	if !missed {
		timer.Stop()
	}
	var begun time.Time // of the burst under way
	mark := func() {
		now := time.Now()
		if begun.IsZero() {
			begun = now
		}
		timer.Reset(max(min(quiet, burst-now.Sub(begun)), 0))
	}
	for {
		select {
		case <-d.done:
			return
		case e, ok := <-d.watcher.Events:
			if !ok {
				return
			}
			if d.concerns(e) {
				mark()
			}
		case err, ok := <-d.watcher.Errors:
			if !ok {
				return
			}
			d.log.Warn("some changes of files were missed, looking at all of them", "reason", err.Error())
			mark()
		case <-timer.C:
			begun = time.Time{}
			if again := d.read(time.Now()); again > 0 {
				timer.Reset(again)
			}
		}
	}
}

// read takes over what the files hold, unless some of it looks half-written: then it returns when to look again.
func (d *Dir) read(now time.Time) (again time.Duration) {
	before := d.Latest()
	d.watchAll(before)
	next, err := d.load()
	what, patience := d.doubt(before, next)
	if what != "" {
		if what != d.doubtful {
			d.since = now
			if d.doubtful == "" {
				d.first = now
			}
			d.doubtful = what
		}
		if wait := patience - now.Sub(d.since); wait > 0 && now.Sub(d.first) < 2*closing {
			if patience == closing {
				return recede
			}
			return wait
		}
	}
	d.doubtful = ""
	if err != nil {
		d.log.Warn("some files cannot be read, their objects stay as they were", "reason", err.Error())
	}
	d.accept(next)
	if d.watchAll(next) { // links lead to other directories now, where something may have changed meanwhile
		again = quiet
	}
	if !equal(before, next) {
		d.mu.Lock()
		d.latest = next
		d.mu.Unlock()
		select {
		case d.c <- struct{}{}:
		default:
		}
	}
	return again
}

// accept remembers how long the files are, to see which become shorter.
func (d *Dir) accept(files *config.Files) {
	clear(d.sizes)
	for i := range files.Files {
		if info, err := os.Stat(files.Files[i].Path); err == nil {
			d.sizes[files.Files[i].Path] = info.Size()
		}
	}
}

// doubt looks for signs that a file was caught half-written. It returns what looks so, in its present state, and how
// long that must stay the same to be believed; "" where nothing looks so.
func (d *Dir) doubt(before, next *config.Files) (what string, patience time.Duration) {
	var b strings.Builder
	there := map[string]bool{}
	for i := range next.Files {
		f := &next.Files[i]
		there[f.Path] = true
		j, had := slices.BinarySearchFunc(before.Files, f.Path, func(f config.File, path string) int { return cmp.Compare(f.Path, path) })
		if had && same(&before.Files[j], f) || f.Path == "-" {
			continue
		}
		size, modified, written, whole := inspect(f.Path)
		if written {
			patience = closing
		} else if whole && size >= d.sizes[f.Path] && !f.Broken && len(f.Rejected) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", f.Path, size, modified)
	}
	for i := range before.Files {
		if f := &before.Files[i]; !there[f.Path] { // editors rename a file away before they write it anew
			fmt.Fprintf(&b, "%s gone\n", f.Path)
		}
	}
	return b.String(), max(patience, settle)
}

// inspect tells a file's size, when it was last modified, whether somebody has it open for writing, and whether its last
// line is whole.
func inspect(path string) (size, modified int64, written, whole bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, false, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, false, false
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err == nil {
		whole = last[0] == '\n'
	}
	return info.Size(), info.ModTime().UnixNano(), openForWriting(f), whole
}

// same says whether a file reads as before.
func same(a, b *config.File) bool {
	return a.Path == b.Path && a.Broken == b.Broken && slices.Equal(a.Objects, b.Objects) &&
		slices.Equal(a.Findings, b.Findings) && slices.Equal(a.Rejected, b.Rejected)
}

func equal(a, b *config.Files) bool {
	return slices.EqualFunc(a.Files, b.Files, func(x, y config.File) bool { return same(&x, &y) })
}

// watch is why a directory is watched: for everything in it, or for some names.
type watch struct {
	all   bool
	names map[string]bool
}

// watchAll watches every directory whose changes can change what the paths hold: the directories below the paths, the
// directories that the paths stand in, and those that symbolic links lead to. It says whether any of them was not
// watched before.
func (d *Dir) watchAll(files *config.Files) (more bool) {
	wanted := map[string]watch{}
	name := func(path string) {
		dir := filepath.Dir(path)
		w := wanted[dir]
		if w.names == nil {
			w.names = map[string]bool{}
		}
		w.names[filepath.Base(path)] = true
		wanted[dir] = w
		d.add(dir)
	}
	for _, p := range d.paths {
		if p == "-" {
			continue
		}
		p = filepath.Clean(p)
		name(p)
		if info, err := os.Stat(p); err != nil || !info.IsDir() {
			continue
		}
		_ = filepath.WalkDir(p+string(filepath.Separator)+".", func(path string, e fs.DirEntry, err error) error {
			path = filepath.Clean(path)
			switch {
			case err != nil:
				return nil // what cannot be read is the loader's to say
			case !e.IsDir():
				return nil
			case path != p && strings.HasPrefix(e.Name(), "."):
				return fs.SkipDir
			}
			d.add(path) // before its entries are read: what comes later is an event
			wanted[path] = watch{all: true, names: wanted[path].names}
			return nil
		})
	}
	if files != nil {
		for i := range files.Files {
			if path := files.Files[i].Path; path != "-" {
				d.watchLinks(path, name)
			}
		}
	}
	for dir := range wanted {
		if _, ok := d.watched[dir]; !ok {
			more = true
		}
	}
	for dir := range d.watched {
		if _, ok := wanted[dir]; !ok {
			_ = d.watcher.Remove(dir) // it may be gone, and its watch with it
		}
	}
	d.watched = wanted
	return more
}

// watchLinks watches each step of the way that a path takes through symbolic links.
func (d *Dir) watchLinks(path string, name func(string)) {
	for range 16 {
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil && real != filepath.Dir(path) {
			name(filepath.Join(real, filepath.Base(path)))
		}
		to, err := os.Readlink(path)
		if err != nil {
			return
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		name(to)
		for dir := filepath.Dir(to); dir != filepath.Dir(dir); dir = filepath.Dir(dir) { // ..data of a mounted ConfigMap
			if info, err := os.Lstat(dir); err == nil && info.Mode()&fs.ModeSymlink != 0 {
				name(dir)
			}
		}
		path = to
	}
}

func (d *Dir) add(dir string) {
	if err := d.watcher.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("changes of a directory cannot be followed", "directory", dir, "reason", err.Error())
	}
}

// concerns says whether an event can change what the paths hold.
func (d *Dir) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	if w, ok := d.watched[e.Name]; ok && w.all { // a watched directory itself
		return true
	}
	w := d.watched[filepath.Dir(e.Name)]
	if w.names[filepath.Base(e.Name)] {
		return true
	}
	if !w.all {
		return false
	}
	switch strings.ToLower(filepath.Ext(e.Name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return e.Op&fsnotify.Write == 0 // what comes and goes may be a directory
}
