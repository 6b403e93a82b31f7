package config

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// flaw is why a document cannot be read, with its place.
type flaw struct {
	id              string
	line, column    int
	message, remedy string
}

// document is one YAML document of a file: its text and the number of the line before its first.
type document struct {
	data   []byte
	before int
}

// split cuts a file at its `---` and `...` lines. YAML forbids both at the start of a line within any value,
// so this is exact, and a broken document leaves the others readable.
func split(data []byte) []document {
	var documents []document
	start, before, line := 0, 0, 0
	emit := func(end int) {
		if d := data[start:end]; !blank(d) {
			documents = append(documents, document{d, before})
		}
	}
	for i := 0; i < len(data); {
		next := i + lineLength(data[i:])
		if marker(data[i:next]) {
			emit(i)
			start, before = i, line
			if data[i] == '.' {
				start, before = next, line+1
			}
		}
		i, line = next, line+1
	}
	emit(len(data))
	return documents
}

// lineLength is the length of the first line with its line end.
func lineLength(data []byte) int {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1
	}
	return len(data)
}

// marker says whether a line ends or begins a document.
func marker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || line[3] == ' ' || line[3] == '\t' || line[3] == '\r' || line[3] == '\n'
}

// blank says whether a document holds only comments, directives and white space.
func blank(data []byte) bool {
	for len(data) > 0 {
		n := lineLength(data)
		line := bytes.TrimSpace(data[:n])
		if len(line) > 0 && line[0] != '#' && data[0] != '%' && string(line) != "---" {
			return false
		}
		data = data[n:]
	}
	return true
}

// parseYAML reads one document. A nil node without a flaw is an empty document.
func parseYAML(d document, budget *int) (*node, *flaw) {
	if len(d.data) > maxDocument {
		return nil, &flaw{idLimit, d.before + 1, 1, fmt.Sprintf("the document has %d bytes, more than the limit of %d", len(d.data), maxDocument), "split it into several documents with ---"}
	}
	if n := valuesBound(d.data); n > maxValues {
		return nil, &flaw{idLimit, d.before + 1, 1, fmt.Sprintf("the document has about %d values, more than the limit of %d", n, maxValues), "split it into several documents with ---"}
	}
	var root yaml.Node
	if err := parseOne(d.data, &root); err != nil {
		return nil, yamlFlaw(d, err, budget)
	}
	if len(root.Content) == 0 {
		return nil, nil
	}
	b := builder{before: d.before}
	n := b.build(root.Content[0], 0)
	if b.flaw != nil {
		return nil, b.flaw
	}
	if n.shape == null {
		return nil, nil
	}
	return n, nil
}

// parseOne parses a text that holds one document. A panic of the YAML library becomes an error: no document may end the program.
func parseOne(data []byte, root *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser gave up: %v", p)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(root); err != nil {
		if err == io.EOF {
			return nil
		}
		return err
	}
	// Exotic line breaks (a lone carriage return, U+2028) can hide a marker from split; nothing behind one may get lost.
	var second yaml.Node
	if err := d.Decode(&second); err != io.EOF {
		line := second.Line
		if err != nil {
			if m := reportedLine.FindStringSubmatch(strings.TrimPrefix(err.Error(), "yaml: ")); m != nil {
				line, _ = strconv.Atoi(m[1])
				line++ // the library names the line before
			}
		}
		return secondError(max(line, 1))
	}
	return nil
}

// secondError says that a text holds two documents where split saw one, and the line of the second if it is known, else 1.
type secondError int

func (secondError) Error() string { return "a second document begins without --- on a line of its own" }

// valuesBound is an upper bound of how many lines and flow items a document has, which bounds the library's memory.
func valuesBound(data []byte) int {
	n := 1
	for i, c := range data {
		switch c {
		case '\n', ',', '[', '{':
			n++
		case '\r':
			if i+1 < len(data) && data[i+1] != '\n' {
				n++
			}
		}
	}
	// `- - - -` and `? ? ?` open a value every two bytes without any of those.
	return n + bytes.Count(data, []byte("- -")) + bytes.Count(data, []byte("? "))
}

// builder turns the library's nodes into ours: plain values resolved, aliases and merge keys followed, everything counted.
type builder struct {
	before   int
	flaw     *flaw                // the first one ends the work
	anchors  map[*yaml.Node]*node // what each anchor stands for; nil while it is being built
	expanded int                  // values that stand behind aliases so far
}

func (b *builder) fail(y *yaml.Node, id, message, remedy string) {
	if b.flaw == nil {
		b.flaw = &flaw{id, y.Line + b.before, max(y.Column, 1), message, remedy}
	}
}

func (b *builder) build(y *yaml.Node, depth int) *node {
	n := &node{line: int32(y.Line + b.before), column: int32(max(y.Column, 1))}
	if b.flaw != nil {
		return n
	}
	if depth > maxDepth {
		b.fail(y, idLimit, fmt.Sprintf("values are nested deeper than the limit of %d", maxDepth), "flatten the document")
		return n
	}
	if y.Anchor != "" {
		if b.anchors == nil {
			b.anchors = map[*yaml.Node]*node{}
		}
		b.anchors[y] = nil
		defer func() { b.anchors[y] = n }()
	}
	switch y.Kind {
	case yaml.ScalarNode:
		b.scalar(n, y)
	case yaml.SequenceNode:
		n.shape = list
		n.items = make([]*node, 0, len(y.Content))
		for _, c := range y.Content {
			n.items = append(n.items, b.build(c, depth+1))
		}
	case yaml.MappingNode:
		n.shape = mapping
		b.mapping(n, y, depth)
	case yaml.AliasNode:
		return b.alias(y, depth)
	}
	return n
}

// alias returns the anchored node itself. It counts what it stands for, so that a few lines cannot blow up into millions of values.
func (b *builder) alias(y *yaml.Node, depth int) *node {
	n, known := b.anchors[y.Alias]
	if !known {
		n = b.build(y.Alias, depth) // within a merge key, which comes last
	}
	if n == nil {
		b.fail(y, idLimit, "the alias *"+y.Value+" stands within its own anchor, without end", "write the value out")
		return &node{}
	}
	b.expanded += size(n, maxExpanded-b.expanded+1)
	switch {
	case b.expanded > maxExpanded:
		b.fail(y, idLimit, fmt.Sprintf("the document's aliases stand for more values than the limit of %d", maxExpanded), "write the values out, or use fewer aliases of aliases")
	case depth+height(n) > maxDepth:
		b.fail(y, idLimit, fmt.Sprintf("values are nested deeper than the limit of %d", maxDepth), "flatten the document")
	}
	return n
}

// size is how many values a tree holds, each as often as aliases repeat it; counting ends at most.
func size(n *node, most int) int {
	total := 1
	for _, c := range n.items {
		if total >= most {
			return total
		}
		total += size(c, most-total)
	}
	for i := range n.fields {
		if total >= most {
			return total
		}
		total += size(n.fields[i].value, most-total)
	}
	return total
}

// height is how deep a tree goes.
func height(n *node) int {
	h := 0
	for _, c := range n.items {
		h = max(h, height(c))
	}
	for i := range n.fields {
		h = max(h, height(n.fields[i].value))
	}
	return h + 1
}

func (b *builder) mapping(n *node, y *yaml.Node, depth int) {
	n.fields = make([]field, 0, len(y.Content)/2)
	seen := duplicates{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(y.Content) && b.flaw == nil; i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			merged = append(merged, v)
			continue
		}
		name, ok := b.key(k)
		if !ok {
			return
		}
		if former := seen.add(n.fields, name); former != nil {
			remedy := "remove one of them"
			if depth == 0 && (name == "apiVersion" || name == "kind" || name == "metadata" || name == "spec") {
				remedy = "remove one of them, or put --- between two objects"
			}
			b.fail(k, idDuplicate, fmt.Sprintf("the key %q is written twice; the first time in line %d", name, former.line), remedy)
			return
		}
		n.fields = append(n.fields, field{name, int32(k.Line + b.before), int32(max(k.Column, 1)), b.build(v, depth+1)})
	}
	for _, v := range merged {
		b.merge(n, v, depth, &seen)
	}
}

// merge adds the fields of a merge key (`<<: *base`, or a list of such) that the mapping lacks.
func (b *builder) merge(n *node, y *yaml.Node, depth int, seen *duplicates) {
	value := b.build(y, depth+1)
	sources := []*node{value}
	if value.shape == list {
		sources = value.items
	}
	for _, s := range sources {
		if s.shape != mapping {
			b.fail(y, idType, "the merge key << takes a mapping or a list of mappings", "let it name an anchored mapping: <<: *name")
			return
		}
		for i := range s.fields {
			if seen.add(n.fields, s.fields[i].name) == nil {
				n.fields = append(n.fields, s.fields[i])
			}
		}
	}
}

// key is the text of a mapping's key. Keys are text in every object, so `1:` and `true:` are taken as written.
func (b *builder) key(k *yaml.Node) (string, bool) {
	if k.Kind == yaml.AliasNode && k.Alias != nil {
		k = k.Alias
	}
	if k.Kind == yaml.ScalarNode {
		return k.Value, true
	}
	remedy := "write the key as text"
	if k.Kind == yaml.MappingNode && k.Style&yaml.FlowStyle != 0 {
		remedy = "if this is a template, render it first (helm template), else quote the value"
	}
	b.fail(k, idSyntax, "a mapping's key is a list or a mapping", remedy)
	return "", false
}

// scalar resolves a plain value as kubectl does (YAML 1.1 with its yes and no, dates as text).
func (b *builder) scalar(n *node, y *yaml.Node) {
	n.shape, n.value, n.literal = text, y.Value, y.Style&yaml.LiteralStyle != 0
	if y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return
	}
	switch y.ShortTag() {
	case "!!null":
		n.shape, n.value = null, ""
	case "!!bool":
		n.shape = boolean
	case "!!int", "!!float":
		n.shape, n.value = number, jsonNumber(y.Value)
		if n.value == "" {
			b.fail(y, idType, fmt.Sprintf("%s is no number that JSON can hold", y.Value), "write a finite decimal number, or quote it")
		}
	case "!!str":
		if y.Style&yaml.TaggedStyle != 0 {
			return
		}
		switch y.Value {
		case "yes", "Yes", "YES", "on", "On", "ON", "y", "Y", "no", "No", "NO", "off", "Off", "OFF", "n", "N":
			n.shape = boolean
		}
	}
}

// jsonNumber rewrites YAML's spellings of a number (0x1f, 0o17, 1_000, +1, .5) to JSON's; "" for infinities and NaN.
func jsonNumber(s string) string {
	plain := strings.ReplaceAll(s, "_", "")
	if i, err := strconv.ParseInt(plain, 0, 64); err == nil {
		return strconv.FormatInt(i, 10)
	}
	if u, err := strconv.ParseUint(strings.TrimPrefix(plain, "+"), 0, 64); err == nil {
		return strconv.FormatUint(u, 10)
	}
	f, err := strconv.ParseFloat(plain, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return ""
	}
	// A plain decimal keeps its spelling: 0.10 stays what the user wrote in messages.
	if c := plain[0]; c >= '1' && c <= '9' && plain[len(plain)-1] != '.' || strings.HasPrefix(plain, "0.") && len(plain) > 2 {
		return plain
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// duplicates finds a key that a mapping has already; large mappings get an index.
type duplicates struct {
	index map[string]int
}

// add returns the former field of that name, or nil, in which case the caller appends the field.
func (d *duplicates) add(fields []field, name string) *field {
	if len(fields) < 16 {
		for i := range fields {
			if fields[i].name == name {
				return &fields[i]
			}
		}
		return nil
	}
	if d.index == nil {
		d.index = make(map[string]int, 2*len(fields))
		for i := range fields {
			d.index[fields[i].name] = i
		}
	}
	if i, ok := d.index[name]; ok && i < len(fields) {
		return &fields[i]
	}
	d.index[name] = len(fields)
	return nil
}
