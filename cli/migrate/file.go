package migrate

import (
	"bytes"
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
	out := all[:0]
	for i, e := range all {
		if last[e.key] != i {
			continue
		}
		if e.value, err = resolved(strings.TrimSpace(e.value)); err != nil && relevant(e.key) {
			t.wrong(e.line, "%s: %v; it is left out", e.key, err)
			continue
		}
		out = append(out, e)
	}
	return out, nil
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
		return all
	}
	var out []entry
	for first := 0; first < len(all); {
		next := first + 1
		for next < len(all) && !slices.ContainsFunc(separators, func(line int) bool { return all[first].line < line && line < all[next].line }) {
			next++
		}
		f := flattening{all: all[first:next]}
		if p := f.profile(); p != nil {
			t.note(p.line, "this document is for the profile %s only: it is left out", p.value)
		} else {
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

// resolved takes the default of Spring's placeholder ${NAME:default}.
func resolved(value string) (string, error) {
	inner, ok := strings.CutPrefix(value, "${")
	if !ok || !strings.HasSuffix(inner, "}") {
		return value, nil
	}
	name, otherwise, ok := strings.Cut(strings.TrimSuffix(inner, "}"), ":")
	if !ok {
		return "", fmt.Errorf("the value of %s is not known here, and it has no default", name)
	}
	return otherwise, nil
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
		all = append(all, entry{unescaped(key), unescaped(value), at})
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
		if p := f.profile(); p != nil {
			t.note(p.line, "this document is for the profile %s only: it is left out", p.value)
			continue
		}
		all = append(all, f.all...)
	}
}

// flattening is the work on one document. Empty collections count too, so that aliases cannot make it endless.
type flattening struct {
	all   []entry
	steps int
}

func (f *flattening) full() bool { return f.steps > maxEntries }

func (f *flattening) node(path string, n *yaml.Node) {
	if f.steps++; f.full() {
		return
	}
	switch n.Kind {
	case yaml.MappingNode, yaml.SequenceNode:
		if len(n.Content) == 0 { // it has a name, if nothing else
			f.all = append(f.all, entry{path, "", n.Line})
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
			f.node(key, n.Content[i+1])
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			f.node(path+"["+strconv.Itoa(i)+"]", c)
		}
	case yaml.ScalarNode:
		f.all = append(f.all, entry{path, n.Value, n.Line})
	}
}

func (f *flattening) merge(path string, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		f.node(path, n)
		return
	}
	for i := len(n.Content) - 1; i >= 0; i-- { // the first of a list has precedence
		f.node(path, n.Content[i])
	}
}

func (f *flattening) profile() *entry {
	for i := range f.all {
		switch key := f.all[i].key; {
		case strings.HasPrefix(key, "spring.config.activate.on-profile"), key == "spring.profiles", strings.HasPrefix(key, "spring.profiles["):
			return &f.all[i]
		}
	}
	return nil
}
