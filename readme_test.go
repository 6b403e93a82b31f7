package outrider_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Every ```sh block of README.md and of the pages below docs/ is executed, in order, by one shell a block, in a copy of the
// repository's files. A ```text block that follows one is what it must print: "…" stands for anything, numbers for any number,
// and blanks for any number of blanks. A comment before a block changes that:
//
//	<!-- test: background -->   the block runs on while the blocks after it do, and must end cleanly on SIGTERM
//	<!-- test: for 5s -->       --for 5s is added to the block's command
//	<!-- test: in the repository -->  the block runs at the module's root, and what it installs goes to a temporary directory
//	<!-- test: by .ci/run -->   the block is not executed here, because that script does: it must contain the command
//	<!-- test: as examples/storefront/traffic.yaml -->  not a command: the ```yaml block must stand in that file as it is
//
// Meshes get free ports; where a later block speaks of 127.0.0.1:15000 or :15001, it gets those of the mesh that runs in the background.
func TestReadmeCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("runs every command of the README")
	}
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "./cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	pages := []string{"README.md"}
	err := filepath.WalkDir("docs", func(file string, _ fs.DirEntry, err error) error {
		if filepath.Ext(file) == ".md" {
			pages = append(pages, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, page := range pages {
		blocks := blocksOf(t, page)
		if !slices.ContainsFunc(blocks, func(b block) bool { return b.language == "sh" || b.directive != "" }) {
			continue
		}
		t.Run(page, func(t *testing.T) {
			s := &session{dir: t.TempDir(), bin: bin}
			if err := os.CopyFS(filepath.Join(s.dir, "examples"), os.DirFS("examples")); err != nil {
				t.Fatal(err)
			}
			for i := range blocks {
				expected := ""
				if i+1 < len(blocks) && blocks[i+1].language == "text" {
					expected = blocks[i+1].text
				}
				s.block(t, blocks[i], expected)
				ran++
			}
			s.stop(t)
		})
	}
	if ran == 0 {
		t.Error("no page has a block to execute")
	}
}

// block is one fenced block of a page.
type block struct {
	page      string
	line      int
	language  string
	directive string // what "<!-- test: ... -->" before it says
	text      string
}

var directive = regexp.MustCompile(`^<!-- test: (.*) -->$`)

func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	var open *block
	said := ""
	for n, line := range strings.Split(string(content), "\n") {
		switch {
		case open != nil && line == "```":
			out = append(out, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			open = &block{page: page, line: n + 1, language: strings.TrimPrefix(line, "```"), directive: said}
			said = ""
		case directive.MatchString(line):
			said = directive.FindStringSubmatch(line)[1]
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block does not end", page, open.line)
	}
	return out
}

// session runs the blocks of one page.
type session struct {
	dir, bin     string
	inRepository bool
	background   *exec.Cmd
	talk         *transcript
	ready        struct{ Admin, Proxy string }
}

// transcript is what a program prints while somebody looks.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

func (s *session) block(t *testing.T, b block, expected string) {
	t.Helper()
	switch verb, rest, _ := strings.Cut(b.directive, " "); {
	case verb == "by":
		content, err := os.ReadFile(rest)
		if err != nil {
			t.Fatalf("%s:%d: %v", b.page, b.line, err)
		}
		for _, command := range lines(b.text) {
			if !bytes.Contains(content, []byte(command)) {
				t.Errorf("%s:%d: %s does not run %q", b.page, b.line, rest, command)
			}
		}
	case verb == "as":
		content, err := os.ReadFile(rest)
		if err != nil {
			t.Fatalf("%s:%d: %v", b.page, b.line, err)
		}
		if !bytes.Contains(content, []byte(b.text)) {
			t.Errorf("%s:%d: %s does not contain the block", b.page, b.line, rest)
		}
	case b.language != "sh":
		if b.directive != "" {
			t.Errorf("%s:%d: a %s block cannot be %q", b.page, b.line, b.language, b.directive)
		}
	case b.directive == "in the repository":
		s.inRepository = true
		s.run(t, b, "", expected)
		s.inRepository = false
	case verb == "background":
		s.start(t, b)
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			missing := unmatched(expected, s.talk.String())
			if missing == "" {
				break
			}
			if time.Now().After(end) {
				t.Errorf("%s:%d: does not print %q; it prints\n%s", b.page, b.line, missing, s.talk)
				break
			}
		}
	case verb == "for":
		s.run(t, b, " --for "+rest+" --admin 127.0.0.1:0 --proxy 127.0.0.1:0", expected)
	case b.directive == "":
		s.run(t, b, "", expected)
	default:
		t.Errorf("%s:%d: cannot read the directive %q", b.page, b.line, b.directive)
	}
}

// run runs a block to its end, with more added to its last line.
func (s *session) run(t *testing.T, b block, more, expected string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := s.command(ctx, strings.TrimRight(b.text, "\n")+more)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if err != nil {
		t.Errorf("%s:%d: %v\n%s%s", b.page, b.line, err, out.Bytes(), talk.Bytes())
		return
	}
	if missing := unmatched(expected, out.String()+talk.String()); missing != "" {
		t.Errorf("%s:%d: does not print %q; it prints\n%s%s", b.page, b.line, missing, out.Bytes(), talk.Bytes())
	}
}

func (s *session) command(ctx context.Context, script string) *exec.Cmd {
	script = strings.ReplaceAll(script, "go run ./cmd/outrider ", "outrider ")
	if s.ready.Admin != "" {
		script = strings.ReplaceAll(script, "127.0.0.1:15000", strings.TrimPrefix(s.ready.Admin, "http://"))
		script = strings.ReplaceAll(script, "127.0.0.1:15001", s.ready.Proxy)
	}
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	if !s.inRepository {
		cmd.Dir = s.dir
	}
	cmd.Env = append(os.Environ(), "PATH="+s.bin+string(os.PathListSeparator)+os.Getenv("PATH"), "GOBIN="+s.bin, "NO_COLOR=1")
	return cmd
}

// start starts a mesh that runs on, and waits until it is ready.
func (s *session) start(t *testing.T, b block) {
	t.Helper()
	s.stop(t)
	file := filepath.Join(s.dir, "ready.json")
	_ = os.Remove(file)
	s.background = s.command(context.Background(), "exec "+strings.TrimSpace(b.text)+" --admin 127.0.0.1:0 --proxy 127.0.0.1:0 --ready-file "+file)
	s.talk = &transcript{}
	s.background.Stdout, s.background.Stderr = s.talk, s.talk
	if err := s.background.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		content, err := os.ReadFile(file)
		if err == nil && json.Unmarshal(content, &s.ready) == nil && s.ready.Admin != "" {
			return
		}
		if time.Now().After(end) {
			_ = s.background.Process.Kill()
			_ = s.background.Wait()
			t.Fatalf("%s:%d: not ready after a minute\n%s", b.page, b.line, s.talk.String())
		}
	}
}

// stop ends the mesh in the background, which must end cleanly.
func (s *session) stop(t *testing.T) {
	t.Helper()
	if s.background == nil {
		return
	}
	if err := s.background.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := s.background.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", s.background, err, s.talk.String())
	}
	s.background, s.ready.Admin, s.ready.Proxy = nil, "", ""
}

var (
	numbers = regexp.MustCompile(`\d+(\.\d+)*`)
	blanks  = regexp.MustCompile(`\s+`)
)

// unmatched returns the first line of expected that no line of printed matches after those before it; "" where all do.
func unmatched(expected, printed string) string {
	plain := func(s string) string {
		return blanks.ReplaceAllString(numbers.ReplaceAllString(strings.TrimSpace(s), "0"), " ")
	}
	rest := lines(printed)
	for _, line := range lines(expected) {
		if line == "…" {
			continue
		}
		var parts []string
		for _, part := range strings.Split(plain(line), "…") {
			parts = append(parts, regexp.QuoteMeta(part))
		}
		pattern := regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
		i := slices.IndexFunc(rest, func(l string) bool { return pattern.MatchString(plain(l)) })
		if i < 0 {
			return line
		}
		rest = rest[i+1:]
	}
	return ""
}
