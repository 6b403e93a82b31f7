package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// write makes files below a new directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func account(name string) string {
	return "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: " + name + "}\n"
}

// names lists objects as file:name.
func names(dir string, objects []*Object) []string {
	var s []string
	for _, o := range objects {
		path, err := filepath.Rel(dir, o.Source.File)
		if err != nil {
			path = o.Source.File
		}
		s = append(s, path+":"+o.Name)
	}
	return s
}

func TestLoadOrder(t *testing.T) {
	dir := write(t, map[string]string{
		"b.yaml":             account("b1") + "---\n" + account("b2"),
		"a/z.yml":            account("z"),
		"a/c.JSON":           `{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "c"}}`,
		"a-b.yaml":           account("ab"),
		".git/x.yaml":        account("hidden"),
		"a/.cache/deep.yaml": account("hidden"),
		"notes.txt":          "not: [yaml",
		".#lock.yaml":        "x",
		"README":             account("unread"),
	})
	if err := os.Symlink(filepath.Join(dir, "notes.txt"), filepath.Join(dir, "dangling.txt")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "README"), filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "gone.yaml")); err != nil {
		t.Fatal(err)
	}
	f := func(want []string, paths ...string) {
		t.Helper()
		for i, p := range paths {
			if p != "-" {
				paths[i] = dir + "/" + p
			}
		}
		files, err := Options{Stdin: strings.NewReader(account("in"))}.Load(paths)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(dir, files.Objects); !slices.Equal(got, want) || len(files.Findings) > 0 {
			t.Errorf("got %v, want %v, %v", got, want, files.Findings)
		}
	}
	f([]string{"a-b.yaml:ab", "a/c.JSON:c", "a/z.yml:z", "b.yaml:b1", "b.yaml:b2", "link.yaml:unread"}, "")
	f([]string{"a/c.JSON:c", "a/z.yml:z", "b.yaml:b1", "b.yaml:b2"}, "b.yaml", "a", "a/z.yml", "./a//z.yml")
	f([]string{"README:unread"}, "README")
	f([]string{"-:in", "a-b.yaml:ab"}, "a-b.yaml", "-")
	f([]string{"a/.cache/deep.yaml:hidden"}, "a/.cache")
	f(nil)
}

func TestLoadErrors(t *testing.T) {
	dir := write(t, map[string]string{"a.yaml": account("a"), "empty/readme.txt": ""})
	files, err := Load([]string{dir + "/a.yaml", dir + "/missing.yaml", dir + "/empty"})
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != "cannot read "+dir+"/missing.yaml: no such file or directory" {
		t.Errorf("got %v", err)
	}
	if len(files.Objects) != 1 {
		t.Error("the files that are there must be read")
	}
	if os.Getuid() != 0 { // root reads everything
		if err := os.Chmod(dir+"/a.yaml", 0); err != nil {
			t.Fatal(err)
		}
		files, err := Load([]string{dir})
		if !errors.Is(err, fs.ErrPermission) || len(files.Files) != 1 || !files.Files[0].Broken || files.Findings[0].ID != idUnreadable {
			t.Errorf("got %v %v", err, files.Findings)
		}
	}
}

func TestLoadTwice(t *testing.T) {
	dir := write(t, map[string]string{
		"a.yaml": account("x"),
		"b.yaml": account("w") + "---\n" + account("x"),
		"c.yaml": "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: [a]}]}\n" +
			"---\napiVersion: networking.istio.io/v1beta1\nkind: Gateway\nmetadata: {name: g}\nspec: {servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: [a]}]}\n" +
			"---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {gatewayClassName: c, listeners: [{name: h, port: 80, protocol: HTTP}]}\n",
	})
	files, err := Load([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(dir, files.Objects), []string{"a.yaml:x", "b.yaml:w", "c.yaml:g", "c.yaml:g"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var got []string
	for _, f := range files.Findings {
		got = append(got, strings.ReplaceAll(f.String(), dir+"/", ""))
	}
	want := []string{
		"b.yaml:5:1: ServiceAccount default/x: the object is written twice; the one in a.yaml:1 stays; remove one of them",
		"c.yaml:6:1: Gateway default/g: the object is written twice; the one in c.yaml:1 stays; remove one of them",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A file whose content is the same gives the very same objects; another namespace or content gives new ones.
func TestLoadFormer(t *testing.T) {
	dir := write(t, map[string]string{"a.yaml": account("a"), "b.yaml": account("b")})
	first, err := Load([]string{dir, "/dev/null"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/b.yaml", []byte(account("c")), 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := Options{Former: first}.Load([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if second.Objects[0] != first.Objects[0] || second.Objects[1].Name != "c" {
		t.Errorf("got %v", names(dir, second.Objects))
	}
	third, err := Options{Former: second, Namespace: "other"}.Load([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if third.Objects[0].Namespace != "other" {
		t.Error("the namespace of another load was kept")
	}
	in := Options{Stdin: strings.NewReader(account("in"))}
	fourth, err := in.Load([]string{"-"})
	if err != nil {
		t.Fatal(err)
	}
	in.Former = fourth
	fifth, err := in.Load([]string{"-"})
	if err != nil || len(fifth.Objects) != 1 {
		t.Error("standard input must be kept, for it can be read only once", err)
	}
}

func TestKeep(t *testing.T) {
	good := account("a") + "---\n" + account("b") + "---\n" + account("c")
	f := func(text string, objects, kept []string) {
		t.Helper()
		former := collect([]File{Decode("x.yaml", []byte(good)), Decode("y.yaml", []byte(account("d")))})
		now := collect([]File{Decode("x.yaml", []byte(text))})
		all, old := now.Keep(former.Objects)
		if got := names(".", all); !slices.Equal(got, objects) {
			t.Errorf("%q: got %v, want %v", text, got, objects)
		}
		if got := names(".", old); !slices.Equal(got, kept) {
			t.Errorf("%q: kept %v, want %v", text, got, kept)
		}
		for _, o := range all {
			if slices.Contains(former.Objects, o) != slices.Contains(old, o) {
				t.Errorf("%s is of the wrong version", o.Name)
			}
		}
	}
	broken := "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: b, nam: c}\n"
	// y.yaml is gone each time, and its object with it.
	f(good, []string{"x.yaml:a", "x.yaml:b", "x.yaml:c"}, nil)
	f(account("a"), []string{"x.yaml:a"}, nil)
	f("", nil, nil)
	f(account("a")+"---\n"+broken+"---\n"+account("c"), []string{"x.yaml:a", "x.yaml:b", "x.yaml:c"}, []string{"x.yaml:b"})
	f(account("a")+"---\nkind: ServiceAccount\nmetadata: {name: [\n", []string{"x.yaml:a", "x.yaml:b", "x.yaml:c"}, []string{"x.yaml:b", "x.yaml:c"})
	f("\xff", []string{"x.yaml:a", "x.yaml:b", "x.yaml:c"}, []string{"x.yaml:a", "x.yaml:b", "x.yaml:c"})
	f(strings.Replace(good, "name: c}", "name: c\n", 1), []string{"x.yaml:a", "x.yaml:b", "x.yaml:c"}, []string{"x.yaml:c"})
}

func TestSilence(t *testing.T) {
	text := `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a} # outrider:ignore OR2001 the name is given
spec:
  hosts: [a]
  http:
  # outrider:ignore OR2001,OR2002 known
  - match: [{uri: {exact: /}}]
    route:
    - destination: {host: a}

  - route:
    - destination: {host: b}
      # outrider:ignore OR2003 only here
      weight: 5
      headers: {}
  # outrider:ignore OR2004 nothing follows
---
# about the next one
# outrider:ignore OR2001 all of it
apiVersion: v1
kind: ServiceAccount
metadata:
  name: a
`
	files := collect([]File{Decode("a.yaml", []byte(text))})
	if len(files.Findings) > 0 || len(files.Objects) != 2 {
		t.Fatal(files.Findings)
	}
	f := func(id string, want ...int) {
		t.Helper()
		var in []Finding
		for line := 1; line <= 24; line++ {
			in = append(in, Finding{ID: id, File: "a.yaml", Line: line})
		}
		var got []int
		left := files.Silence(in)
		for line := 1; line <= 24; line++ {
			if !slices.Contains(left, Finding{ID: id, File: "a.yaml", Line: line}) {
				got = append(got, line)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: silenced %v, want %v", id, got, want)
		}
	}
	f("OR2001", 3, 8, 9, 10, 11, 21, 22, 23, 24)
	f("OR2002", 8, 9, 10, 11)
	f("OR2003", 15)
	f("OR2004")
	f("OR2005")
	if got := files.Silence([]Finding{{ID: "OR2001", File: "b.yaml", Line: 3}}); len(got) != 1 {
		t.Error("a comment silences another file")
	}
}

// A file that the caller writes itself is no part of the directory that it stands in, unless it is asked for by name.
func TestLoadExcept(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "ready.json")
	for path, text := range map[string]string{own: `{"admin": "x"}`, filepath.Join(dir, "a.yaml"): "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := func(objects, findings int, paths ...string) {
		t.Helper()
		got, err := Options{Except: own}.Load(paths)
		if err != nil || len(got.Objects) != objects || len(got.Findings) != findings {
			t.Errorf("%v: %d objects, findings %v, %v", paths, len(got.Objects), got.Findings, err)
		}
	}
	f(1, 0, dir)
	f(0, 1, own)
}
