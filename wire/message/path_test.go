package message

import (
	"bytes"
	"strings"
	"testing"
)

func TestNormalizePath(t *testing.T) {
	// f gives the form of each mode after NONE: BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES; a shorter list repeats its last.
	f := func(in string, want ...string) {
		t.Helper()
		for m := VerbatimPath; m <= DecodedPath; m++ {
			w := in
			if m > VerbatimPath {
				w = want[min(int(m)-1, len(want)-1)]
			}
			got, err := NormalizePath([]byte("kept"), []byte(in), m)
			if err != nil || string(got) != "kept"+w {
				t.Errorf("%q, mode %d: %q, %v, want %q", in, m, got, err, w)
			}
			if normal := PathIsNormal([]byte(in), m); normal && w != in {
				t.Errorf("%q, mode %d: said to be normal, and is %q", in, m, w)
			}
			var r Request
			r.SetPath([]byte(in))
			r.SetQuery([]byte("?/../%41"))
			if err := r.NormalizePath(m); err != nil || string(r.Path()) != w || string(r.Query()) != "?/../%41" {
				t.Errorf("%q, mode %d: the request has %q%q, %v, want %q", in, m, r.Path(), r.Query(), err, w)
			}
		}
	}
	same := func(in string) {
		t.Helper()
		f(in, in)
		for m := VerbatimPath; m <= DecodedPath; m++ {
			if !PathIsNormal([]byte(in), m) {
				t.Errorf("%q, mode %d: takes the slow way", in, m)
			}
		}
	}
	same("/")
	same("")
	same("*")
	same("/xyz")
	same("/x/y/z/")
	same("/A/B/C")
	same("/a.b/.c/..d/.../e./f../.well-known/x")
	same("/-._~!$&'()*+,;=:@")
	same("/a[0]")
	same("/a%20b%C3%a9%25%3f%23")

	// Dot segments (RFC 3986 §5.2.4), in every disguise.
	f("/a/b/../c", "/a/c")
	f("/a/b/./c", "/a/b/c")
	f("/a/b/../../../../c", "/c")
	f("/a/..", "/")
	f("/a/b/..", "/a/")
	f("/a/b/.", "/a/b/")
	f("/.", "/")
	f("/..", "/")
	f("/../a/b", "/a/b")
	f("/./a/b", "/a/b")
	f("/./././", "/")
	f("/a/%2E%2E/c", "/c")
	f("/a/b/%2e./c", "/a/c")
	f("/a/b/.%2E/c", "/a/c")
	f("/a/b/%2E/c", "/a/b/c")
	f("/a/b/%2e", "/a/b/")
	f("/public/./data/abc/../xyz", "/public/data/xyz")
	f("/a/..;/b", "/a/..;/b")
	f("/a/.../b", "/a/.../b")
	f("/a/%2e%2e%2e/b", "/a/.../b")
	f("/a/..b/%2e%2ec", "/a/..b/..c")
	f("/a/x..", "/a/x..")

	// Backslashes.
	f("/some\\data", "/some/data")
	f("/a/..\\c", "/c")
	f("/a\\..\\..\\c", "/c")
	f("\\da", "/da")
	f("/a\\", "/a/")
	f("/a\\\\b", "/a//b", "/a/b")

	// What does not begin with a slash gets one.
	f("a/b/../c", "/a/c")
	f("..", "/")
	f("./a", "/a")

	// Runs of slashes. Dot segments go first, and an empty segment is one to them.
	f("/a//b", "/a//b", "/a/b")
	f("//a/b", "//a/b", "/a/b")
	f("/a///b////", "/a///b////", "/a/b/")
	f("//", "//", "/")
	f("/a//../b", "/a/b")
	f("//../a", "/a")
	f("/a/..//b", "//b", "/b")
	f("/a/.//b", "/a//b", "/a/b")

	// Escapes: unreserved bytes are decoded, others keep their escape as it came; once only.
	f("/%61%62%63/%41%5a%30%39%2d%5F%7e", "/abc/AZ09-_~")
	f("/%c0%af", "/%c0%af")
	f("/%25%20%3B", "/%25%20%3B")
	f("/%252e%252e/a", "/%252e%252e/a")
	f("/%2541", "/%2541")
	f("/a/%2F%2f/c", "/a/%2F%2f/c", "/a/%2F%2f/c", "/a/c")
	f("/a%2fb", "/a%2fb", "/a%2fb", "/a/b")
	f("/a%5Cb", "/a%5Cb", "/a%5Cb", "/a/b")
	f("/some%2fdata/%61%62%63", "/some%2fdata/abc", "/some%2fdata/abc", "/some/data/abc")
	f("/a/..%2fb", "/a/..%2fb", "/a/..%2fb", "/b")
	f("/a/%2e%2e%5cb", "/a/..%5cb", "/a/..%5cb", "/b")
	f("/a%2f..%2f..%2fb", "/a%2f..%2f..%2fb", "/a%2f..%2f..%2fb", "/b")
	f("/a%2f%2e%2e", "/a%2f..", "/a%2f..", "/")
	f("%2fa", "/%2fa", "/%2fa", "/a")
	f("/a%252fb", "/a%252fb")

	// Bytes that a path may not hold get escaped, so that one path has one form.
	f("/a\"<>^`{|}b", "/a%22%3C%3E%5E%60%7B%7C%7Db")
	f("/caf\xc3\xa9", "/caf%C3%A9")
	f("/a b\x01\x7f", "/a%20b%01%7F")
	f("/a?b#c", "/a%3Fb%23c")

	// Escapes that are none stay, and decoding completes none.
	f("/%", "/%")
	f("/100%", "/100%")
	f("/%2", "/%2")
	f("/%zz", "/%zz")
	f("/%%32e/", "/%%32e/")
	f("/%%32%65", "/%%32e")
	f("/%2%65%2%65/a", "/%2%65%2%65/a")
	f("/%%%41", "/%%%41")
	f("/%/%41", "/%/A")
	f("/%x%41", "/%x%41")
	f("/%xx%41", "/%xxA")
	f("/%../%2e%2e/%41", "/A")
	f("/%2%2f..", "/%2%2f..", "/%2%2f..", "/")
}

func TestNULInPath(t *testing.T) {
	for _, in := range []string{"/a%00b", "/%00", "/xyz/.%00../abc", "/xyz/AAAAA%%0000/abc", "/a\x00b", "%00"} {
		for m := VerbatimPath; m <= DecodedPath; m++ {
			got, err := NormalizePath([]byte("kept"), []byte(in), m)
			if err != ErrNULInPath || string(got) != "kept" {
				t.Errorf("%q, mode %d: %q, %v", in, m, got, err)
			}
			var r Request
			r.SetPath([]byte(in))
			if err := r.NormalizePath(m); err != ErrNULInPath || string(r.Path()) != in {
				t.Errorf("%q, mode %d: the request has %q, %v", in, m, r.Path(), err)
			}
		}
	}
	if got, err := NormalizePath(nil, []byte("/%0041%2500"), BasePath); err == nil {
		t.Errorf("accepted as %q", got)
	}
	if got, err := NormalizePath(nil, []byte("/%2500"), BasePath); err != nil || string(got) != "/%2500" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestParsePathMode(t *testing.T) {
	for name, want := range map[string]PathMode{
		"": BasePath, "DEFAULT": BasePath, "BASE": BasePath, "NONE": VerbatimPath, "MERGE_SLASHES": MergedPath, "DECODE_AND_MERGE_SLASHES": DecodedPath,
	} {
		if got, ok := ParsePathMode(name); got != want || !ok {
			t.Errorf("%q: %d, %v", name, got, ok)
		}
	}
	if _, ok := ParsePathMode("base"); ok {
		t.Error("base is a mode")
	}
}

func FuzzNormalizePath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/%%32e", "\\..//%5c", "/a%2f..%2fb", "/%2%65", "*", "/caf\xc3\xa9"} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, path []byte, mode uint8) {
		m := PathMode(mode % 4)
		normal := PathIsNormal(path, m)
		got, err := NormalizePath(nil, path, m)
		if err != nil {
			if normal || !holdsNUL(path) {
				t.Fatalf("%q: %v", path, err)
			}
			return
		}
		if normal && !bytes.Equal(got, path) {
			t.Fatalf("%q is said to be normal, and is %q", path, got)
		}
		if m == VerbatimPath || len(path) == 0 || string(path) == "*" {
			return
		}
		again, err := NormalizePath(nil, got, m)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q is %q, and that %q, %v", path, got, again, err)
		}
		if got[0] != '/' || bytes.ContainsAny(got, "\\ ?#\x00\r\n") || m >= MergedPath && bytes.Contains(got, []byte("//")) {
			t.Fatalf("%q is %q", path, got)
		}
		for s := range strings.SplitSeq(string(got[1:]), "/") {
			if s == "." || s == ".." || m == DecodedPath && (strings.Contains(strings.ToLower(s), "%2f") || strings.Contains(strings.ToLower(s), "%5c")) {
				t.Fatalf("%q is %q, with the segment %q", path, got, s)
			}
		}
	})
}

func BenchmarkPathIsNormal(b *testing.B) {
	path := []byte("/api/v1/products/42/reviews")
	for b.Loop() {
		if !PathIsNormal(path, BasePath) {
			b.Fatal("it is")
		}
	}
}

func BenchmarkNormalizePath(b *testing.B) {
	path := []byte("/api/v1/./products/%34%32/../42/reviews")
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = NormalizePath(dst[:0], path, BasePath)
	}
}
