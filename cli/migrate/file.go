package migrate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"go.yaml.in/yaml/v3"
)

// entry is one property of a file.
type entry struct {
	key, value string
	line       int
	unknown    bool // the value depends on what the file does not say
	merged     bool // it stands where YAML's << takes it from, and what is written has the last word
}

// maxEntries bounds what aliases of a YAML file can stand for.
const maxEntries = 100_000

// read reads a file by its name: *.yml and *.yaml are Spring's YAML, anything else Java properties. Of a key that comes up
// twice, the last has it; entries are in the order of the file.
func (t *translation) read(name string, data []byte) (all []entry, err error) {
	if all, err = t.entries(name, data); err != nil {
		return nil, err
	}
	last := map[string]int{}
	for i, e := range all {
		last[e.key] = i
	}
	r := resolution{values: map[string]string{}}
	for key, i := range last {
		r.values[key] = strings.TrimSpace(all[i].value)
	}
	out := all[:0]
	for i, e := range all {
		if last[e.key] != i {
			continue
		}
		e.value = strings.TrimSpace(e.value)
		if relevant(e.key) && strings.Contains(e.value, "${") {
			written := e.value
			r.steps, r.unknown, r.otherwise = 0, "", false
			switch e.value = r.text(written, 0); {
			case r.unknown != "":
				e.unknown = true
				t.wrong(e.line, "%s: the value of %s is not known here, and it has no default; it is left out", e.key, r.unknown)
			case r.otherwise:
				t.note(e.line, "%s: of %s the default is taken, %s", e.key, written, e.value)
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// repeated names what one document says twice: the last has it.
func (t *translation) repeated(all []entry) {
	first := map[string]entry{}
	for _, e := range all {
		if before, ok := first[e.key]; ok && !before.merged && before.value != e.value && relevant(e.key) {
			t.note(before.line, "%s stands again in line %d, which has the last word", e.key, e.line)
		}
		first[e.key] = e
	}
}

// entries are the properties as they are written.
func (t *translation) entries(name string, data []byte) ([]entry, error) {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yml", ".yaml":
		return t.readYAML(data)
	}
	return t.documents(readProperties(string(data)), separators(string(data))), nil
}

// separators are the lines by which Spring parts a properties file into documents.
func separators(text string) (lines []int) {
	for i, line := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		if line = strings.TrimRight(line, " \t"); line == "#---" || line == "!---" {
			lines = append(lines, i+1)
		}
	}
	return lines
}

// documents leaves out those that are for some profiles only.
func (t *translation) documents(all []entry, separators []int) []entry {
	if len(separators) == 0 {
		t.repeated(all)
		return all
	}
	var out []entry
	for first := 0; first < len(all); {
		next := first + 1
		for next < len(all) && !slices.ContainsFunc(separators, func(line int) bool { return all[first].line < line && line < all[next].line }) {
			next++
		}
		f := flattening{all: all[first:next]}
		if !t.left(&f) {
			out = append(out, f.all...)
		}
		first = next
	}
	return out
}

// relevant says whether a property is one of the libraries' at all.
func relevant(key string) bool {
	return strings.HasPrefix(key, "hystrix.") || strings.HasPrefix(key, "resilience4j.")
}

// resolution puts values into placeholders, ${NAME} and ${NAME:default}: those of the file itself, else the defaults.
type resolution struct {
	values    map[string]string
	steps     int
	unknown   string // a name that has neither
	otherwise bool   // a default was taken
}

// maxSteps bounds what placeholders within placeholders can stand for.
const maxSteps = 1000

func (r *resolution) text(s string, depth int) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "${")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		inner, after, ok := closed(rest)
		if !ok {
			b.WriteString("${" + rest)
			return b.String()
		}
		b.WriteString(r.value(inner, depth))
		s = after
	}
}

// value is that of NAME or NAME:default.
func (r *resolution) value(inner string, depth int) string {
	name, otherwise, defaulted := strings.Cut(inner, ":")
	if r.steps++; r.steps > maxSteps || depth > 20 { // it names itself, or as good as that
		r.unknown = cmp.Or(r.unknown, name)
		return ""
	}
	if v, ok := r.values[name]; ok {
		return r.text(v, depth+1)
	}
	if !defaulted {
		r.unknown = cmp.Or(r.unknown, name)
		return ""
	}
	r.otherwise = true
	return r.text(otherwise, depth+1)
}

// closed cuts at the brace that closes a placeholder, which may have others in it.
func closed(s string) (inner, after string, ok bool) {
	open := 0
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "${"):
			open++
		case s[i] == '}' && open == 0:
			return s[:i], s[i+1:], true
		case s[i] == '}':
			open--
		}
	}
	return "", "", false
}

// readProperties reads the format of java.util.Properties.
func readProperties(text string) (all []entry) {
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(text, "\ufeff")), "\n")
	for i := 0; i < len(lines); i++ {
		line, at := strings.TrimLeft(lines[i], " \t\f"), i+1
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		for continued(line) && i+1 < len(lines) {
			i++
			line = line[:len(line)-1] + strings.TrimLeft(lines[i], " \t\f")
		}
		key, value := cutProperty(line)
		all = append(all, entry{key: unescaped(key), value: unescaped(value), line: at})
	}
	return all
}

// continued says whether a line ends in an odd number of backslashes.
func continued(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

// cutProperty cuts a line at the first separator that is not escaped: blanks, with at most one = or : among them.
func cutProperty(line string) (key, value string) {
	end := 0
	for end < len(line) && !strings.ContainsRune("=: \t\f", rune(line[end])) {
		if line[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(line))
	value = strings.TrimLeft(line[end:], " \t\f")
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], " \t\f")
	}
	return line[:end], value
}

func unescaped(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	var pair []uint16 // of a character beyond 16 bits
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			n, err := strconv.ParseUint(s[min(i+1, len(s)):min(i+5, len(s))], 16, 16)
			if err != nil {
				b.WriteByte('u')
				continue
			}
			i += 4
			if pair = append(pair, uint16(n)); utf16.IsSurrogate(rune(n)) && len(pair) == 1 {
				continue
			}
			b.WriteString(string(utf16.Decode(pair)))
			pair = nil
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// readYAML flattens Spring's YAML: a.b.c for nested mappings, a[0] for lists. A document for some profiles only is left out.
// What Maven puts into it, @NAME@, is no YAML before it has.
func (t *translation) readYAML(data []byte) ([]entry, error) {
	said := len(t.notes)
	all, err := t.parseYAML(data)
	if err != nil && filtered.Match(data) {
		t.notes = t.notes[:said]
		return t.parseYAML(filtered.ReplaceAll(data, []byte(`$1"$2"`)))
	}
	return all, err
}

var filtered = regexp.MustCompile(`([:,\[{-][ \t]+)(@[\w.-]+@)`)

func (t *translation) parseYAML(data []byte) (all []entry, err error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("cannot read the YAML: %w", err)
		}
		f := flattening{}
		if len(doc.Content) == 1 {
			f.node("", doc.Content[0])
		}
		if f.full() {
			return nil, fmt.Errorf("cannot read the YAML: it stands for more than %d properties", maxEntries)
		}
		if t.left(&f) {
			continue
		}
		for _, e := range f.twice {
			t.wrong(e.line, "%s stands twice in one mapping, which Spring refuses: what only one of them says is taken, and of the rest what the last says", e.key)
		}
		all = append(all, f.all...)
	}
}

// flattening is the work on one document. Empty collections count too, so that aliases cannot make it endless.
type flattening struct {
	all     []entry
	twice   []entry // mappings
	steps   int
	merging int
}

func (f *flattening) full() bool { return f.steps > maxEntries }

func (f *flattening) node(path string, n *yaml.Node) {
	if f.steps++; f.full() {
		return
	}
	switch n.Kind {
	case yaml.MappingNode, yaml.SequenceNode:
		if len(n.Content) == 0 { // it has a name, if nothing else
			f.add(path, "", n.Line)
		}
	}
	switch n.Kind {
	case yaml.AliasNode:
		f.node(path, n.Alias)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 { // what is merged in comes before what is written, which has the last word
			if n.Content[i].Tag == "!!merge" {
				f.merge(path, n.Content[i+1])
			}
		}
		seen := map[string]*yaml.Node{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Tag == "!!merge" {
				continue
			}
			key := n.Content[i].Value
			if inner, ok := strings.CutPrefix(key, "["); ok { // Spring's way to write a key with special characters
				key = strings.TrimSuffix(inner, "]")
			}
			if path != "" {
				key = path + "." + key
			}
			if before := seen[key]; before != nil && relevant(key+".") && (before.Kind != yaml.ScalarNode || n.Content[i+1].Kind != yaml.ScalarNode) {
				f.twice = append(f.twice, entry{key: key, line: n.Content[i].Line})
			}
			seen[key] = n.Content[i+1]
			f.node(key, n.Content[i+1])
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			f.node(path+"["+strconv.Itoa(i)+"]", c)
		}
	case yaml.ScalarNode:
		value := n.Value
		if i := 0; n.ShortTag() == "!!int" && n.Decode(&i) == nil { // 10_000
			value = strconv.Itoa(i)
		}
		f.add(path, value, n.Line)
	}
}

func (f *flattening) add(path, value string, line int) {
	f.all = append(f.all, entry{key: path, value: value, line: line, merged: f.merging > 0})
}

func (f *flattening) merge(path string, n *yaml.Node) {
	f.merging++
	defer func() { f.merging-- }()
	if n.Kind != yaml.SequenceNode {
		f.node(path, n)
		return
	}
	for i := len(n.Content) - 1; i >= 0; i-- { // the first of a list has precedence
		f.node(path, n.Content[i])
	}
}

// left says whether a document is left out, being for some profiles only.
func (t *translation) left(f *flattening) bool {
	var profiles []string
	line := 0
	for _, e := range f.all {
		switch name, _, _ := strings.Cut(e.key, "["); name {
		case "spring.config.activate.on-profile", "spring.profiles":
			profiles, line = append(profiles, e.value), e.line
		case "spring.config.activate.on-cloud-platform":
			t.note(e.line, "this document is for the platform %s only: it is taken", e.value)
		}
	}
	if profiles == nil {
		t.repeated(f.all)
		return false
	}
	t.note(line, "this document is for the profile %s only: it is left out", strings.Join(profiles, ", "))
	return true
}
