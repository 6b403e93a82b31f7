package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// Files is what a set of paths holds.
type Files struct {
	// Files are in the order of their paths.
	Files []File
	// Objects are all valid ones, by path, then position in the file. Of an object that is written twice only the first is here.
	Objects []*Object
	// Findings are those of all files and of the set, without those that a comment silences, in the order of Sort.
	Findings []Finding
}

// Load reads every *.yaml, *.yml and *.json below the given paths with the default options; see Options.Load.
func Load(paths []string) (*Files, error) { return Options{}.Load(paths) }

// Load reads every *.yaml, *.yml and *.json below the given paths. Hidden directories and the lock files of editors are left out,
// symbolic links to directories are not followed, a path that is a file is read whatever its name, and "-" is standard input.
// A path that is not there or cannot be read is an error, with the rest read nevertheless: such a file is then Broken.
// A file that is there but does not parse is a finding.
func (o Options) Load(paths []string) (*Files, error) {
	found, err := search(paths, o.Except)
	files := make([]File, len(found))
	failed := make([]error, len(found))
	former := map[string]*File{}
	if o.Former != nil {
		for i := range o.Former.Files {
			former[o.Former.Files[i].Path] = &o.Former.Files[i]
		}
	}
	// Decoding is the work; it is shared among a few goroutines that end before Load does.
	var wait sync.WaitGroup
	next := make(chan int)
	for range min(runtime.GOMAXPROCS(0), len(found), 8) {
		wait.Go(func() {
			for i := range next {
				files[i], failed[i] = o.file(found[i].path, former[found[i].path])
				if found[i].listed && errors.Is(failed[i], fs.ErrNotExist) {
					files[i], failed[i] = File{}, nil // it went away since its directory was listed
				}
			}
		})
	}
	for i := range found {
		next <- i
	}
	close(next)
	wait.Wait()
	files = slices.DeleteFunc(files, func(f File) bool { return f.Path == "" })
	return collect(files), errors.Join(append([]error{err}, failed...)...)
}

// collect brings files together: the first of two objects with the same name stays, unused kinds are told once, comments silence.
func collect(files []File) *Files {
	f := &Files{Files: files}
	seen := map[Key]*Object{}
	unused := map[string]int{}
	var place Source
	for i := range files {
		file := &files[i]
		f.Findings = append(f.Findings, file.Findings...)
		for kind, n := range file.Unused {
			unused[kind] += n
		}
		if place.File == "" && len(file.Unused) > 0 {
			place = cmp.Or(file.firstUnused, Source{file.Path, 1, 1})
		}
		for _, o := range file.Objects {
			if other := seen[o.Key()]; other != nil {
				f.Findings = append(f.Findings, o.Finding(idTwice, Error, "", fmt.Sprintf("the object is written twice; the one in %s:%d stays", other.Source.File, other.Source.Line), "remove one of them"))
				continue
			}
			seen[o.Key()] = o
			f.Objects = append(f.Objects, o)
		}
	}
	if len(unused) > 0 {
		f.Findings = append(f.Findings, Finding{
			ID: idUnused, Severity: Info, File: place.File, Line: place.Line, Column: place.Column, Message: summary(unused),
		})
	}
	f.Findings = f.Silence(f.Findings)
	Sort(f.Findings)
	return f
}

// summary counts unused objects: `12 objects of kinds that are not used here: ConfigMap 3, Secret 9`.
func summary(unused map[string]int) string {
	total, parts := 0, []string{}
	for _, kind := range slices.Sorted(maps.Keys(unused)) {
		total += unused[kind]
		parts = append(parts, fmt.Sprintf("%s %d", kind, unused[kind]))
	}
	if len(parts) > 30 {
		parts = append(parts[:30], "...")
	}
	if total == 1 {
		return "1 object of a kind that is not used here: " + strings.TrimSuffix(parts[0], " 1")
	}
	return fmt.Sprintf("%d objects of kinds that are not used here: %s", total, strings.Join(parts, ", "))
}

// Silence returns the findings that no comment of these files silences. Findings made later, from the objects, go through it too.
func (f *Files) Silence(findings []Finding) []Finding {
	byFile := map[string][]Ignore{}
	for i := range f.Files {
		if len(f.Files[i].Ignores) > 0 {
			byFile[f.Files[i].Path] = f.Files[i].Ignores
		}
	}
	if len(byFile) == 0 {
		return findings
	}
	return slices.DeleteFunc(slices.Clone(findings), func(w Finding) bool {
		return slices.ContainsFunc(byFile[w.File], func(i Ignore) bool { return i.covers(w) })
	})
}

// Keep returns the objects to run with: the valid ones, and of the former ones those whose new text is not valid.
// A former object stays if its file or another one now holds it broken, or if its file is so broken that nothing tells its objects apart.
// Both lists are in the order of Objects; kept are the former ones among them.
func (f *Files) Keep(former []*Object) (objects, kept []*Object) {
	valid, rejected, broken := map[Key]bool{}, map[Key]bool{}, map[string]bool{}
	for _, o := range f.Objects {
		valid[o.Key()] = true
	}
	for i := range f.Files {
		file := &f.Files[i]
		broken[file.Path] = file.Broken
		for _, k := range file.Rejected {
			rejected[k] = true
		}
	}
	objects = slices.Clone(f.Objects)
	for _, o := range former {
		if k := o.Key(); !valid[k] && (rejected[k] || broken[o.Source.File]) {
			valid[k] = true
			objects, kept = append(objects, o), append(kept, o)
		}
	}
	slices.SortStableFunc(objects, byPlace)
	slices.SortStableFunc(kept, byPlace)
	return objects, kept
}

func byPlace(a, b *Object) int {
	return cmp.Or(cmp.Compare(a.Source.File, b.Source.File), cmp.Compare(a.Source.Line, b.Source.Line), cmp.Compare(a.Source.Column, b.Source.Column))
}

// entry is one file to read.
type entry struct {
	path   string
	listed bool // found in a directory rather than named
}

// search finds the files below the paths, each once, in the order of their paths; except is left out where a directory has it.
func search(paths []string, except string) ([]entry, error) {
	var found []entry
	var failed []error
	seen := map[string]bool{}
	if abs, err := filepath.Abs(except); err == nil && except != "" {
		except = abs
	}
	add := func(path string, listed bool) {
		full := path
		if abs, err := filepath.Abs(path); err == nil && path != "-" {
			full = abs
		}
		if !seen[full] && !(listed && full == except) {
			seen[full] = true
			found = append(found, entry{path, listed})
		}
	}
	for _, p := range paths {
		if p == "-" {
			add(p, false)
			continue
		}
		p = filepath.Clean(p)
		info, err := os.Stat(p)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("cannot read %s: %w", p, cause(err)))
		case !info.IsDir():
			add(p, false)
		default:
			if err := below(p, add); err != nil {
				failed = append(failed, err)
			}
		}
	}
	slices.SortFunc(found, func(a, b entry) int { return cmp.Compare(a.path, b.path) })
	return found, errors.Join(failed...)
}

// below finds the files of a directory.
func below(root string, add func(path string, listed bool)) error {
	var failed []error
	// A root that is a symbolic link is followed, as its name asks for; "." at the end does so.
	err := filepath.WalkDir(root+string(filepath.Separator)+".", func(path string, d fs.DirEntry, err error) error {
		path = filepath.Clean(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it went away meanwhile
		case err != nil:
			failed = append(failed, fmt.Errorf("cannot read %s: %w", path, cause(err)))
			return nil
		case d.IsDir():
			if path != root && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		switch strings.ToLower(filepath.Ext(path)) {
		case ".yaml", ".yml", ".json":
		default:
			return nil
		}
		if strings.HasPrefix(d.Name(), ".#") || strings.HasPrefix(d.Name(), "._") {
			return nil // Emacs's locks, macOS's attributes
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() { // a link is taken for what it leads to
			add(path, true)
		}
		return nil
	})
	return errors.Join(append(failed, err)...)
}

// cause strips the operation and the path off an error that names them again.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// file reads and decodes one file, or returns the former result if its content is the same.
func (o Options) file(path string, former *File) (File, error) {
	if path == "-" && former != nil {
		return *former, nil // standard input can be read once only
	}
	data, err := o.read(path)
	if err != nil {
		f := decoding{File: File{Path: path, Broken: true}}
		f.flawed(&flaw{id: idUnreadable, line: 1, column: 1, message: "cannot read the file: " + cause(err).Error(), remedy: "check its permissions"}, Key{})
		return f.File, fmt.Errorf("cannot read %s: %w", path, cause(err))
	}
	sum := xxhash.Sum64(data)
	if former != nil && former.size == len(data) && former.sum == sum && former.namespace == cmp.Or(o.Namespace, "default") {
		return *former, nil
	}
	f := o.Decode(path, data)
	f.sum = sum
	return f, nil
}

// read returns a file's content, and a byte more than the limit where there is more.
func (o Options) read(path string) ([]byte, error) {
	if path == "-" {
		in := o.Stdin
		if in == nil {
			in = os.Stdin
		}
		return io.ReadAll(io.LimitReader(in, maxFile+1))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var b []byte
	if info, err := file.Stat(); err == nil && info.Size() > 0 && info.Size() <= maxFile {
		b = make([]byte, 0, info.Size()+1)
	}
	return appendAll(b, io.LimitReader(file, maxFile+1))
}

// appendAll reads to the end into a buffer that is large enough as a rule.
func appendAll(b []byte, r io.Reader) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}
