package outrider_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/outrider-mesh/outrider"

// floorPlan says what each room of the house may stand on. A line names a room, which is a directory with all that is
// below it, and after "<" the rooms that its packages may import, besides their own. The longest room that fits a
// package is its own. Tests may import what they like; what ships may not.
const floorPlan = `
wire                <
mesh                < wire
proxy               < mesh wire
config              <
compile             < config mesh/model mesh/accesslog mesh/certificate proxy/outlier
control             < compile config mesh
local               < control compile config proxy mesh wire
local/prom          <
examples            <
cli                 < local control compile config mesh examples
cmd/outrider        < cli
cmd/outrider-proxy  < proxy mesh
meshtest            <
bench               < compile config control proxy mesh wire local examples meshtest
e2e                 <
`

// forbidden says what rooms must not import, whatever the floor plan allows, and why. A line is a room, "!", the
// import paths (each with everything below it), "--" and the reason.
const forbidden = `
proxy    ! control -- the data plane must run without a control plane, from a file
control  ! proxy -- a change of the data path must not be able to break publishing

wire     ! k8s.io sigs.k8s.io istio.io -- the sidecar is a small binary: it knows snapshots, not objects
mesh     ! k8s.io sigs.k8s.io istio.io -- the sidecar is a small binary: it knows snapshots, not objects
proxy    ! k8s.io sigs.k8s.io istio.io -- the sidecar is a small binary: it knows snapshots, not objects
wire     ! go.yaml.in gopkg.in/yaml.v2 gopkg.in/yaml.v3 -- the sidecar reads JSON only
mesh     ! go.yaml.in gopkg.in/yaml.v2 gopkg.in/yaml.v3 -- the sidecar reads JSON only
proxy    ! go.yaml.in gopkg.in/yaml.v2 gopkg.in/yaml.v3 -- the sidecar reads JSON only
wire     ! github.com/prometheus -- codecs count nothing
mesh     ! github.com/prometheus/prometheus -- the Prometheus server belongs to the laptop mesh (local/prom)
proxy    ! github.com/prometheus/prometheus -- the Prometheus server belongs to the laptop mesh (local/prom)
control  ! github.com/prometheus/prometheus -- the Prometheus server belongs to the laptop mesh (local/prom)

wire     ! net/http -- the codecs are our own
proxy/route    ! net/http net os -- deciding is pure: explain and test run the same code without a network
proxy/balance  ! net/http net os -- deciding is pure: explain and test run the same code without a network
proxy/breaker  ! net/http net os math/rand math/rand/v2 -- deciding is pure: the clock and chance come from the caller
proxy/outlier  ! net/http net os math/rand math/rand/v2 -- deciding is pure: the clock and chance come from the caller
proxy/limit    ! net/http net os math/rand math/rand/v2 -- deciding is pure: the clock and chance come from the caller
compile  ! os net net/http math/rand math/rand/v2 -- compiling is pure: the same objects give the same snapshot, anywhere
config   ! net/http os/exec -- reading a file must never reach beyond it

.        ! net/http/httputil -- no ReverseProxy: the data path is our own
.        ! github.com/prometheus/prometheus/web -- its HTTP API pulls in half of the server (docs/decisions/001)
.        ! log -- log/slog with fixed keys
.        ! unsafe -- nowhere so far; when it comes, one tiny named file in one package
`

// longer lists the files that may have more than 600 lines, with the reason.
var longer = map[string]string{}

// linked lists the modules that cmd/outrider-proxy may link besides the standard library and this one.
var linked = []string{
	"github.com/beorn7/perks",             // client_golang's summaries
	"github.com/cespare/xxhash/v2",        // hash balancing; client_golang too
	"github.com/fsnotify/fsnotify",        // a snapshot file is followed
	"github.com/klauspost/compress",       // promhttp's zstd
	"github.com/munnerz/goautoneg",        // promhttp's content negotiation
	"github.com/prometheus/client_golang", // metrics
	"github.com/prometheus/client_model",
	"github.com/prometheus/common",
	"github.com/prometheus/procfs", // process_* metrics
	"golang.org/x/sys",             // socket options, readiness
	"google.golang.org/protobuf",   // the exposition format with native histograms
}

// pkg is one package of this module, without its tests.
type pkg struct {
	dir     string // "proxy/route"; "." at the root
	name    string
	doc     string
	docs    int // files with a package comment
	imports map[string]string
}

func TestFloorPlan(t *testing.T) {
	rooms := map[string][]string{}
	for _, line := range lines(floorPlan) {
		room, below, ok := strings.Cut(line, "<")
		if !ok {
			t.Fatalf("floorPlan: cannot read %q", line)
		}
		rooms[strings.TrimSpace(room)] = strings.Fields(below)
	}
	for _, p := range packages(t) {
		room := roomOf(p.dir, rooms)
		if room == "" {
			if len(p.imports) > 0 || p.dir != "." {
				t.Errorf("package %s is in no room of the floor plan: add the room, and say what it may stand on", p.dir)
			}
			continue
		}
		for imported, file := range p.imports {
			dir, own := strings.CutPrefix(imported, module+"/")
			if !own || below(dir, room) || slices.ContainsFunc(rooms[room], func(r string) bool { return below(dir, r) }) {
				continue
			}
			t.Errorf("%s imports %s: %s may stand on %s only", file, dir, room, either(rooms[room], "nothing of this module"))
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	all := packages(t)
	for _, line := range lines(forbidden) {
		rule, reason, ok := strings.Cut(line, "--")
		room, paths, ok2 := strings.Cut(rule, "!")
		if !ok || !ok2 || strings.TrimSpace(reason) == "" {
			t.Fatalf("forbidden: cannot read %q: each line needs a room, paths and a reason", line)
		}
		room = strings.TrimSpace(room)
		for _, p := range all {
			if room != "." && !below(p.dir, room) || room == "." && below(p.dir, "bench") {
				continue // bench measures the very things that the rest must not use
			}
			for imported, file := range p.imports {
				for _, f := range strings.Fields(paths) {
					if f == "net" && imported != "net" { // net/netip and net/url do no I/O
						continue
					}
					if f == "log" && imported != "log" {
						continue
					}
					if below(strings.TrimPrefix(imported, module+"/"), f) {
						t.Errorf("%s imports %s: %s", file, imported, strings.TrimSpace(reason))
					}
				}
			}
		}
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.imports) == 0 && p.dir == "." {
			continue // deps.go and tests only
		}
		opening := "Package " + p.name + " "
		if p.name == "main" && below(p.dir, "cmd") {
			opening = "Command " + path.Base(p.dir) + " "
		}
		sentence, _, _ := strings.Cut(p.doc, "\n\n")
		switch {
		case p.docs == 0:
			t.Errorf("package %s has no comment: open it with one sentence, \"%s...\"", p.dir, opening)
		case p.docs > 1:
			t.Errorf("package %s has a package comment in %d files: keep one", p.dir, p.docs)
		case !strings.HasPrefix(p.doc, opening):
			t.Errorf("package %s: its comment must begin with %q, not %.40q", p.dir, opening, p.doc)
		case !strings.HasSuffix(strings.TrimSpace(sentence), "."):
			t.Errorf("package %s: its comment must open with a sentence that ends in a full stop: %q", p.dir, sentence)
		}
	}
}

func TestNoDrawers(t *testing.T) {
	drawers := regexp.MustCompile(`^(utils?|common|helpers?|types|misc|base|shared|lib)$`)
	for _, p := range packages(t) {
		if drawers.MatchString(p.name) || drawers.MatchString(path.Base(p.dir)) {
			t.Errorf("package %s: a package is named after what it is, not after what was left over", p.dir)
		}
	}
}

// TestMapNamesEveryRoom looks for each package in the map of ARCHITECTURE.md.
func TestMapNamesEveryRoom(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages(t) {
		if p.dir != "." && !regexp.MustCompile(`(?m)(^|\s)`+regexp.QuoteMeta(p.dir)+`\s`).Match(text) {
			t.Errorf("ARCHITECTURE.md does not name %s: add it to the map, with what it is for", p.dir)
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	const most = 600
	seen := map[string]bool{}
	walk(t, ".go", func(file string, content []byte) {
		n := bytes.Count(content, []byte("\n"))
		if n <= most {
			return
		}
		seen[file] = true
		if longer[file] == "" {
			t.Errorf("%s has %d lines, more than %d: split it by idea, or list it with a reason", file, n, most)
		}
	})
	for file := range longer {
		if !seen[file] {
			t.Errorf("%s is listed as a long file, but is not", file)
		}
	}
}

func TestMainsAreShort(t *testing.T) {
	const most = 40
	set := token.NewFileSet()
	walk(t, ".go", func(file string, content []byte) {
		if !below(file, "cmd") || strings.HasSuffix(file, "_test.go") {
			return
		}
		parsed, err := parser.ParseFile(set, file, content, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Name.Name != "main" {
				continue
			}
			if n := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1; n > most {
				t.Errorf("%s: main() has %d lines, more than %d: the program is a library", file, n, most)
			}
		}
	})
}

func TestDecisionsAreNumbered(t *testing.T) {
	files, err := filepath.Glob("docs/decisions/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no decisions found: %v", err)
	}
	slices.Sort(files)
	name := regexp.MustCompile(`^(\d{3})-[a-z0-9]+(-[a-z0-9]+)*\.md$`)
	for i, file := range files {
		m := name.FindStringSubmatch(filepath.Base(file))
		if m == nil {
			t.Errorf("%s: a decision is named NNN-title.md", file)
			continue
		}
		if n, _ := strconv.Atoi(m[1]); n != i+1 {
			t.Errorf("%s: its number should be %03d: decisions are numbered from 001 without gaps", file, i+1)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(content, []byte("# "+m[1]+". ")) {
			t.Errorf("%s: must open with \"# %s. title\"", file, m[1])
		}
		for _, part := range []string{"## Context", "## Choice", "## Refused"} {
			if !bytes.Contains(content, []byte("\n"+part+"\n")) {
				t.Errorf("%s: lacks %q", file, part)
			}
		}
	}
}

func TestDirectDependenciesAreNamed(t *testing.T) {
	doc, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatalf("cannot read go.mod: %v", err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllSubmatch(doc, -1) {
		named[string(m[1])] = true
	}
	for _, r := range mod.Require {
		if !r.Indirect && !named[r.Path] {
			t.Errorf("docs/dependencies.md does not name %s, a direct dependency, with its reason", r.Path)
		}
		delete(named, r.Path)
	}
	for p := range named {
		t.Errorf("docs/dependencies.md names %s, which go.mod does not require", p)
	}
}

func TestSidecarLinksLittle(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{with .Module}}{{.Path}}{{end}}{{end}}", "./cmd/outrider-proxy")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	for _, line := range lines(string(out)) {
		imported, from, _ := strings.Cut(line, " ")
		if from == module || slices.Contains(linked, from) {
			continue
		}
		t.Errorf("cmd/outrider-proxy links %s (module %s): the sidecar is small; list the module with a reason if it must", imported, from)
	}
}

// packages reads every package of the module that has files of its own besides tests.
func packages(t *testing.T) []*pkg {
	t.Helper()
	byDir := map[string]*pkg{}
	set := token.NewFileSet()
	walk(t, ".go", func(file string, content []byte) {
		if strings.HasSuffix(file, "_test.go") || bytes.HasPrefix(content, []byte("//go:build deps")) || bytes.HasPrefix(content, []byte("//go:build !")) {
			return // a file for where the package's own files do not work has its words too
		}
		parsed, err := parser.ParseFile(set, file, content, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Fatalf("cannot parse %s: %v", file, err)
		}
		dir := path.Dir(file)
		p := byDir[dir]
		if p == nil {
			p = &pkg{dir: dir, name: parsed.Name.Name, imports: map[string]string{}}
			byDir[dir] = p
		}
		if parsed.Doc != nil {
			p.doc = parsed.Doc.Text()
			p.docs++
		}
		for _, i := range parsed.Imports {
			p.imports[strings.Trim(i.Path.Value, `"`)] = file
		}
	})
	var all []*pkg
	for _, p := range byDir {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	if len(all) < 3 {
		t.Fatalf("found only %d packages: this test runs at the module's root", len(all))
	}
	return all
}

// walk calls f for each file of the module with the extension, testdata and hidden directories left out.
func walk(t *testing.T, ext string, f func(file string, content []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if file != "." && (name == "testdata" || strings.HasPrefix(name, ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ext {
			return nil
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		f(filepath.ToSlash(file), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// roomOf returns the longest room that dir is in.
func roomOf(dir string, rooms map[string][]string) string {
	for d := dir; d != "."; d = path.Dir(d) {
		if _, ok := rooms[d]; ok {
			return d
		}
	}
	return ""
}

// below says whether the path is dir or under it.
func below(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func either(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}

// lines returns the lines of s that say something.
func lines(s string) []string {
	var out []string
	for scan := bufio.NewScanner(strings.NewReader(s)); scan.Scan(); {
		if line := strings.TrimSpace(scan.Text()); line != "" {
			out = append(out, line)
		}
	}
	return out
}
