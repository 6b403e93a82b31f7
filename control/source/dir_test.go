package source

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// service is the text of one Service.
func service(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec:\n  ports: [{port: 80}]\n", name)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, paths ...string) *Dir {
	t.Helper()
	d, err := Open(paths, Options{Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func names(d *Dir) string {
	var out []string
	for _, o := range d.Latest().Objects {
		out = append(out, o.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// await waits until the objects are those named, and fails if any other set comes between.
func await(t *testing.T, d *Dir, want string) {
	t.Helper()
	before := names(d)
	deadline := time.After(time.Minute)
	for names(d) != want {
		if got := names(d); got != before {
			t.Fatalf("the objects were %q for a while on the way from %q to %q", got, before, want)
		}
		select {
		case <-d.C():
		case <-deadline:
			t.Fatalf("the objects are still %q, want %q", names(d), want)
		}
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), service("a"))
	d := open(t, dir)
	if got := names(d); got != "a" {
		t.Fatalf("at first: %q", got)
	}
	select {
	case <-d.C():
		t.Fatal("nothing has changed yet")
	default:
	}
	write(t, filepath.Join(dir, "b.yml"), service("b"))
	await(t, d, "a b")
	write(t, filepath.Join(dir, "new", "deep", "c.json"), `{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},"spec":{"ports":[{"port":80}]}}`+"\n")
	await(t, d, "a b c")
	write(t, filepath.Join(dir, "new", "deep", "d.yaml"), service("d"))
	await(t, d, "a b c d")
	must(t, os.Remove(filepath.Join(dir, "b.yml")))
	await(t, d, "a c d")
	must(t, os.RemoveAll(filepath.Join(dir, "new")))
	await(t, d, "a")
	write(t, filepath.Join(dir, "new", "e.yaml"), service("e")) // a directory of the same name again
	await(t, d, "a e")
}

func TestRenameSaves(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write(t, path, service("one"))
	write(t, filepath.Join(dir, "other.yaml"), service("other")) // not asked for
	d := open(t, path)

	write(t, path+".swp", service("two"))
	must(t, os.Rename(path+".swp", path))
	await(t, d, "two")

	must(t, os.Rename(path, path+"~")) // vim: away, then anew; "two" must never be gone
	time.Sleep(2 * quiet)              // what is tested is that this gap is not seen
	write(t, path, service("three"))
	await(t, d, "three")

	must(t, os.Remove(path))
	await(t, d, "")
	write(t, path, service("four"))
	await(t, d, "four")
}

func TestConfigMapMount(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "..1", "a.yaml"), service("one"))
	write(t, filepath.Join(dir, "..2", "a.yaml"), service("two"))
	must(t, os.Symlink("..1", filepath.Join(dir, "..data")))
	must(t, os.Symlink(filepath.Join("..data", "a.yaml"), filepath.Join(dir, "a.yaml")))
	whole, file := open(t, dir), open(t, filepath.Join(dir, "a.yaml"))

	must(t, os.Symlink("..2", filepath.Join(dir, "..tmp")))
	must(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	await(t, whole, "two")
	await(t, file, "two")
}

func TestLinkToElsewhere(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, filepath.Join(elsewhere, "real.yaml"), service("one"))
	must(t, os.Symlink(filepath.Join(elsewhere, "real.yaml"), filepath.Join(dir, "a.yaml")))
	d := open(t, dir)
	write(t, filepath.Join(elsewhere, "real.yaml"), service("two"))
	await(t, d, "two")
}

func TestHalfWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	whole := service("a") + "---\n" + service("b") + "---\n" + service("c")
	write(t, path, whole)
	d := open(t, dir)
	next := strings.ReplaceAll(whole, "name: b", "name: x") + "---\n" + service("d")

	// One writer, many writes, each flushed at a place where the text so far is valid.
	f, err := os.Create(path)
	must(t, err)
	for part := range strings.SplitAfterSeq(next, "---\n") {
		_, err := f.WriteString(part)
		must(t, err)
		time.Sleep(3 * quiet) // what is tested is that none of these states is seen
	}
	must(t, f.Close())
	await(t, d, "a c d x") // fails on any other set

	// A writer that opens the file anew for each part: each is shorter than the file was, or ends in the middle of a line.
	for _, n := range []int{0, len(next) / 3, len(next) * 2 / 3} {
		write(t, path, next[:n])
		time.Sleep(3 * quiet)
	}
	write(t, path, service("z")+"---\n"+next)
	await(t, d, "a c d x z")
}

func TestBrokenAndStaysSo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write(t, path, service("a"))
	d := open(t, dir)
	write(t, path, "{[")
	deadline := time.After(time.Minute)
	for len(d.Latest().Findings) == 0 {
		select {
		case <-d.C():
		case <-deadline:
			t.Fatal("a broken file was never told of")
		}
	}
	if f := d.Latest().Findings[0]; f.File != path || f.Line == 0 {
		t.Errorf("the finding does not say where: %+v", f)
	}
	if files := d.Latest().Files; len(files) != 1 || !files[0].Broken {
		t.Errorf("the file is not told of as broken: %+v", files)
	}
	write(t, path, service("a")+"---\n"+service("b"))
	await(t, d, "a b")
}

func TestWriterThatNeverCloses(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for closing to pass")
	}
	path := filepath.Join(t.TempDir(), "a.yaml")
	write(t, path, service("a"))
	d := open(t, path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("---\n" + service("b"))
	must(t, err)
	await(t, d, "a b")
}

func TestUnchangedSayNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	write(t, path, service("a"))
	d := open(t, dir)
	before := d.Latest()
	write(t, path, service("a"))
	write(t, filepath.Join(dir, "notes.txt"), "not ours")
	write(t, filepath.Join(dir, "b.yaml"), service("b")) // the sign that all of it was seen
	await(t, d, "a b")
	if d.Latest().Files[0].Objects[0] != before.Files[0].Objects[0] {
		t.Error("a file that did not change must keep its objects")
	}
	select {
	case <-d.C():
		t.Error("one change must be told once")
	default:
	}
}

func TestStandardInput(t *testing.T) {
	dir := t.TempDir()
	d, err := Open([]string{"-", dir}, Options{Stdin: bytes.NewReader([]byte(service("in")))})
	must(t, err)
	defer d.Close()
	write(t, filepath.Join(dir, "a.yaml"), service("a"))
	await(t, d, "a in")
}

func TestMissingPath(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := Open([]string{missing}, Options{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v", err)
	}
}
