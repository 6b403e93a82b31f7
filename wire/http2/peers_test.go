package http2

import (
	"bytes"
	"encoding/xml"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool finds a program that a test runs, or skips the test.
func tool(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if home, err := os.UserHomeDir(); err == nil {
		path := filepath.Join(home, "go", "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// TestH2spec runs all cases of h2spec, strictly.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	h2spec := tool(t, "h2spec")
	addr := serve(t, &site{size: 300}, Options{})
	host, port, _ := net.SplitHostPort(addr)
	report := filepath.Join(t.TempDir(), "report.xml")
	out, err := exec.Command(h2spec, "-h", host, "-p", port, "--strict", "-o", "3", "-j", report).CombinedOutput()
	content, rerr := os.ReadFile(report)
	if rerr != nil {
		t.Fatalf("h2spec left no report: %v, %v\n%s", rerr, err, out)
	}
	var r struct {
		Suites []struct {
			Tests   int    `xml:"tests,attr"`
			Skipped int    `xml:"skipped,attr"`
			Failed  int    `xml:"failures,attr"`
			Errors  int    `xml:"errors,attr"`
			Name    string `xml:"name,attr"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	tests := 0
	for _, s := range r.Suites {
		tests += s.Tests
		if s.Failed+s.Errors+s.Skipped > 0 {
			t.Errorf("%s: %d failed, %d skipped", s.Name, s.Failed+s.Errors, s.Skipped)
		}
	}
	if err != nil || t.Failed() {
		t.Errorf("%v\n%s", err, out)
	}
	if tests < 146 {
		t.Errorf("only %d cases were run", tests)
	}
	t.Logf("%d cases", tests)
}

func TestCurl(t *testing.T) {
	curl := tool(t, "curl")
	addr := serve(t, &site{size: 300}, Options{})
	f := func(want string, args ...string) {
		t.Helper()
		out, err := exec.Command(curl, append([]string{"-sS", "--http2-prior-knowledge", "--max-time", "20"}, args...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("curl %v: %v\n%.500s", args, err, out)
		}
	}
	f("HTTP/2 200", "-i", "http://"+addr+"/a?b=c")
	f("x-path: /a?b=c", "-i", "http://"+addr+"/a?b=c")
	f("content-length: 300", "-I", "http://"+addr+"/")
	f("hello", "-d", "hello", "http://"+addr+"/")
	big := filepath.Join(t.TempDir(), "big")
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	if err := os.WriteFile(big, content, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(curl, "-sS", "--http2-prior-knowledge", "--max-time", "20", "--data-binary", "@"+big, "http://"+addr+"/").Output()
	if err != nil || !bytes.Equal(out, content) {
		t.Errorf("4 MiB: %d back, %v", len(out), err)
	}
	f("", "-o", os.DevNull, "http://"+addr+"/5000000")
}

func TestH2load(t *testing.T) {
	h2load := tool(t, "h2load")
	addr := serve(t, &site{size: 300}, Options{})
	out, err := exec.Command(h2load, "-n", "20000", "-c", "4", "-m", "32", "http://"+addr+"/").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "20000 succeeded, 0 failed, 0 errored, 0 timeout") {
		t.Errorf("%v\n%s", err, out)
	}
	nghttp := tool(t, "nghttp")
	out, err = exec.Command(nghttp, "-v", "-t", "20", "--trailer", "x-t: 1", "-d", "/dev/null", "http://"+addr+"/").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "x-t: 1") || !strings.Contains(string(out), ":status: 200") {
		t.Errorf("%v\n%s", err, out)
	}
}
