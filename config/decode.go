package config

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

// File is what one file holds.
type File struct {
	Path string
	// Objects are the valid ones, in the order of the file.
	Objects []*Object
	// Findings say what is wrong or has no effect, in the order of the file; silenced ones are included (see Files.Silence).
	Findings []Finding
	// Rejected names the objects that the file holds but that are not valid. Callers keep the last good version of each.
	Rejected []Key
	// Broken says that a part of the file cannot be told apart into objects. Callers keep every former object of this file that is not in Objects.
	Broken bool
	// Unused counts the objects of kinds that the mesh has no use for, by kind.
	Unused map[string]int
	// Ignores are the outrider:ignore comments.
	Ignores []Ignore

	firstUnused Source // where the first object of an unused kind stands
	sum         uint64 // of the file's content, for Options.Former
	size        int
	namespace   string // that objects without one were put into
}

// Options say how to read files. The zero value is ready to use.
type Options struct {
	// Namespace is given to namespaced objects that name none; "default" if empty.
	Namespace string
	// Stdin is what the path "-" reads; os.Stdin if nil.
	Stdin io.Reader
	// Former is an earlier result: files whose content has not changed are taken from it, with the very same objects.
	Former *Files
	// Except is a file that is not read where it is found in a directory: one that the caller writes itself; "" is none.
	Except string
}

// Decode reads one file's content with the default options. The name is used in places and decides by its extension: *.json is JSON, anything else YAML.
// It never fails: what cannot be read is a finding. Limits are those of limits.go.
func Decode(name string, data []byte) File { return Options{}.Decode(name, data) }

// Decode reads one file's content.
func (o Options) Decode(name string, data []byte) File {
	if o.Namespace == "" {
		o.Namespace = "default"
	}
	f := decoding{File: File{Path: name, namespace: o.Namespace, size: len(data)}, again: maxAgain}
	if !f.readable(data) {
		return f.File
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	f.ignores(data)
	if strings.EqualFold(filepath.Ext(name), ".json") {
		values, partial, broken := parseJSON(data, 0)
		f.all(values, broken, f.key(partial))
	} else {
		for _, d := range split(data) {
			if !f.hopeless() {
				f.document(d)
			}
		}
	}
	Sort(f.Findings)
	f.bound()
	return f.File
}

// decoding is the work on one file.
type decoding struct {
	File
	again int // bytes that may still be parsed again
}

// hopeless says that so much is wrong that reading on would help nobody.
func (f *decoding) hopeless() bool {
	if len(f.Findings) < maxWrong {
		return false
	}
	f.Broken = true
	return true
}

// readable says whether the file is text at all, and of a size that can be read.
func (f *decoding) readable(data []byte) bool {
	w := &flaw{line: 1, column: 1}
	switch {
	case len(data) > maxFile:
		w.id, w.message, w.remedy = idLimit, fmt.Sprintf("the file has %d bytes, more than the limit of %d", len(data), maxFile), "split it into several files"
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		w.id, w.message, w.remedy = idEncoding, "the file is UTF-16", "save it as UTF-8"
	default:
		at := invalid(data)
		if at < 0 {
			return true
		}
		w.line, w.column = document{data: data}.place(at)
		w.id, w.message, w.remedy = idEncoding, "the file is not UTF-8 text", "save it as UTF-8"
	}
	f.Broken = true
	f.flawed(w, Key{})
	return false
}

// invalid returns the offset of the first byte that is not UTF-8 text, or -1.
func invalid(data []byte) int {
	if utf8.Valid(data) {
		return bytes.IndexByte(data, 0)
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// document reads one YAML document, which may be JSON (whose tabs YAML would refuse).
func (f *decoding) document(d document) {
	body := bytes.TrimLeft(bytes.TrimPrefix(bytes.TrimLeft(d.data, " \t\r\n"), []byte("---")), " \t\r\n")
	if len(body) > 0 && body[0] == '{' {
		if values, _, broken := parseJSON(blanked(d.data, len(d.data)-len(body)), d.before); broken == nil {
			f.all(values, nil, nil)
			return
		}
	}
	n, broken := parseYAML(d, &f.again)
	if broken != nil {
		f.all(nil, broken, f.identify(d.data))
		return
	}
	if n != nil {
		f.all([]*node{n}, nil, nil)
	}
}

// blanked returns the text with everything before start but line ends as spaces, so that places stay.
func blanked(data []byte, start int) []byte {
	if len(bytes.TrimSpace(data[:start])) == 0 {
		return data
	}
	b := bytes.Clone(data)
	for i := range start {
		if b[i] != '\n' {
			b[i] = ' '
		}
	}
	return b
}

// all takes the values of one text, and its flaw if it is broken, with the names of the objects that it breaks as far as they are known.
func (f *decoding) all(values []*node, broken *flaw, keys []Key) {
	for _, n := range values {
		f.value(n, 0)
	}
	if broken == nil {
		return
	}
	if len(keys) == 0 {
		f.Broken = true
		f.flawed(broken, Key{})
		return
	}
	f.Rejected = append(f.Rejected, keys...)
	f.flawed(broken, keys[0])
}

// flawed records a flaw; the key is the object's as far as it is known.
func (f *decoding) flawed(w *flaw, k Key) {
	f.Findings = append(f.Findings, Finding{
		ID: w.id, Code: codes[w.id], Severity: Error, Kind: k.Kind, Namespace: k.Namespace, Name: k.Name,
		File: f.Path, Line: w.line, Column: max(w.column, 1), Message: w.message, Remedy: w.remedy,
	})
}

// value takes one document or one item of a List.
func (f *decoding) value(n *node, depth int) {
	if f.hopeless() {
		return
	}
	if n.shape != mapping {
		w := &flaw{idNotObject, int(n.line), int(n.column), "the document is " + n.shape.String() + ", not an object", "write apiVersion, kind, metadata and spec"}
		if n.shape == list {
			w.remedy = "put each object into a document of its own (---), or all into the items of a kind: List"
		}
		f.Broken = true
		f.flawed(w, Key{})
		return
	}
	kind, items := n.scalar("kind"), n.child("items")
	if kind == "List" || strings.HasSuffix(kind, "List") && items != nil && items.shape == list {
		if items != nil && items.shape != list && items.shape != null || depth > 3 {
			f.Broken = true
			f.flawed(&flaw{idType, int(items.line), int(items.column), "the items of a List must be a list of objects", "begin each item with a dash"}, Key{})
			return
		}
		if items != nil {
			for _, item := range items.items {
				f.value(f.typed(item, n, kind), depth+1)
			}
		}
		return
	}
	f.object(n)
}

// typed gives an item of a typed list (ServiceList, as an API server answers) the kind that the list implies.
func (f *decoding) typed(item, of *node, kind string) *node {
	if kind == "List" || item.shape != mapping || item.child("kind") != nil {
		return item
	}
	whole := *item
	whole.fields = append([]field{
		{"kind", item.line, item.column, &node{shape: text, value: strings.TrimSuffix(kind, "List"), line: item.line, column: item.column}},
	}, item.fields...)
	if v := of.field("apiVersion"); v != nil && item.child("apiVersion") == nil {
		whole.fields = append(whole.fields, *v)
	}
	return &whole
}

// object reads one object.
func (f *decoding) object(n *node) {
	o := &Object{Kind: n.scalar("kind"), Source: Source{File: f.Path, Line: int(n.line), Column: int(n.column)}, node: n}
	apiVersion := n.scalar("apiVersion")
	if o.Kind == "" || apiVersion == "" {
		f.nameless(o, apiVersion)
		return
	}
	if i := strings.IndexByte(apiVersion, '/'); i >= 0 {
		o.Group, o.Version = apiVersion[:i], apiVersion[i+1:]
	} else {
		o.Version = apiVersion
	}
	metadata := n.child("metadata")
	o.Namespace, o.Name = metadata.scalar("namespace"), metadata.scalar("name")
	k := kinds[[2]string{o.Group, o.Kind}]
	if k == nil {
		f.other(o)
		return
	}
	switch {
	case k.clusterWide:
		o.Namespace = ""
	case o.Namespace == "":
		o.Namespace = f.namespace
	}
	if foreign(o) {
		f.unused(o)
		return
	}
	f.decode(o, k)
}

// decode fills and checks an object of a known kind.
func (f *decoding) decode(o *Object, k *kind) {
	if !k.has(o.Version) {
		f.refuse(o, o.Finding(idVersion, Error, "apiVersion", fmt.Sprintf("%s has no version %s", o.Kind, clip(o.Version)), "write "+apiVersion(o.Group, k.versions[0])))
		return
	}
	d := &decoder{}
	spec, meta := k.decode(d, o.node)
	findings := make([]Finding, 0, len(d.misfits()))
	for _, m := range d.misfits() {
		w := o.Finding(m.id, Error, m.field, m.message, m.remedy)
		if o.node.find(m.field) == nil {
			w.Line, w.Column = int(m.line), int(m.column)
		}
		findings = append(findings, w)
	}
	o.Spec, o.Labels, o.Annotations = spec, meta.Labels, meta.Annotations
	for _, w := range meta.OwnerReferences {
		o.Owners = append(o.Owners, Owner{w.Kind, w.Name})
	}
	if d.fits() {
		if meta.Namespace = o.Namespace; k.defaults != nil {
			k.defaults(spec)
		}
		c := &checker{object: o}
		c.metadata(meta, k)
		if k.check != nil {
			k.check(c, spec)
		}
		findings = append(findings, c.findings...)
	}
	rejected := false
	for i := range findings {
		rejected = rejected || findings[i].Severity == Error
	}
	if rejected {
		f.refuse(o, findings...)
		return
	}
	f.Findings = append(f.Findings, findings...)
	f.Objects = append(f.Objects, o)
}

// refuse records an object that is not valid, with at most maxFindings reasons.
func (f *decoding) refuse(o *Object, findings ...Finding) {
	Sort(findings)
	if left := len(findings) - maxFindings; left > 0 {
		more := findings[maxFindings]
		more.Field, more.Message, more.Remedy = "", fmt.Sprintf("%d or more other things are wrong with this object", left), "correct the findings above first"
		findings = append(findings[:maxFindings:maxFindings], more)
	}
	f.Findings = append(f.Findings, findings...)
	if o.Name == "" {
		f.Broken = true
		return
	}
	f.Rejected = append(f.Rejected, o.Key())
}

// nameless reports a document that lacks its type.
func (f *decoding) nameless(o *Object, apiVersion string) {
	base := filepath.Base(f.Path)
	if o.Kind == "" && apiVersion == "" {
		switch base {
		case "kustomization.yaml", "kustomization.yml":
			f.count("Kustomization")
			return
		}
	}
	if o.Kind == "" && base == "Chart.yaml" {
		f.count("Chart")
		return
	}
	what, remedy := "kind is missing", "name the object's type, such as kind: Service"
	switch {
	case o.node.child("kind") != nil && o.Kind == "":
		what = "kind must be a string"
	case o.Kind != "" && o.node.child("apiVersion") != nil:
		what, remedy = "apiVersion must be a string", "write it as text"
	case o.Kind != "":
		what, remedy = "apiVersion is missing", "name the type's group and version"
		if guess := groupsOf(o.Kind); len(guess) > 0 {
			remedy = "write apiVersion: " + guess[0]
		}
	case apiVersion == "":
		what, remedy = "the document is no object: it has neither apiVersion nor kind", "leave the file out, or write both"
	}
	f.Broken = true
	f.Findings = append(f.Findings, o.Finding(idNotObject, Error, "", what, remedy))
}

// bound keeps the number of a file's findings small.
func (f *decoding) bound() {
	if len(f.Findings) <= maxPerFile {
		return
	}
	last := f.Findings[maxPerFile]
	left := len(f.Findings) - maxPerFile
	f.Findings = append(f.Findings[:maxPerFile:maxPerFile], Finding{
		ID: last.ID, Severity: last.Severity, File: f.Path, Line: last.Line, Column: last.Column,
		Message: fmt.Sprintf("%d more findings in this file are left out", left), Remedy: "correct those above first",
	})
}

// key names the object that a broken text began with, if it has shown its name.
func (f *decoding) key(partial *node) []Key {
	if partial == nil || partial.shape != mapping {
		return nil
	}
	group, _, versioned := strings.Cut(partial.scalar("apiVersion"), "/")
	if !versioned {
		group = ""
	}
	metadata := partial.child("metadata")
	return f.known(Key{group, partial.scalar("kind"), metadata.scalar("namespace"), metadata.scalar("name")})
}

// known completes the key of an object that is read; none for any other.
func (f *decoding) known(k Key) []Key {
	kind := kinds[[2]string{k.Group, k.Kind}]
	if kind == nil || k.Name == "" {
		return nil
	}
	if kind.clusterWide {
		k.Namespace = ""
	} else if k.Namespace == "" {
		k.Namespace = f.namespace
	}
	return []Key{k}
}

// identify finds out which objects a broken text is about, from the lines that show it without doubt.
// It returns none when the text is a list, or when nothing says its name.
func (f *decoding) identify(data []byte) []Key {
	var keys []Key
	var k Key
	var version string
	within := false // metadata's lines
	depth := 0      // indentation of metadata's fields
	flush := func() {
		if version != "" && plainObjectName.MatchString(k.Name) {
			keys = append(keys, f.known(k)...)
		}
		k, version, within = Key{}, "", false
	}
	for len(data) > 0 {
		n := lineLength(data)
		m := identityLine.FindSubmatch(bytes.TrimRight(data[:n], "\r\n"))
		data = data[n:]
		if m == nil {
			continue
		}
		indent, name, value := len(m[1]), string(m[2]), unquote(string(m[3]))
		switch {
		case indent == 0 && name == "apiVersion":
			if version != "" {
				flush()
			}
			version = value
			if i := strings.IndexByte(value, '/'); i >= 0 {
				k.Group = value[:i]
			}
		case indent == 0 && name == "kind":
			k.Kind = value
		case indent == 0:
			within, depth = name == "metadata", 0
			if m := flowName.FindStringSubmatch(value); within && m != nil {
				k.Name = unquote(m[1])
			}
			if m := flowNamespace.FindStringSubmatch(value); within && m != nil {
				k.Namespace = unquote(m[1])
			}
		case within:
			if depth == 0 {
				depth = indent
			}
			if indent == depth && name == "name" {
				k.Name = value
			} else if indent == depth && name == "namespace" {
				k.Namespace = value
			}
		}
	}
	if strings.HasSuffix(k.Kind, "List") {
		return nil
	}
	flush()
	return keys
}

var (
	plainObjectName = regexp.MustCompile(`^[a-z0-9][-a-z0-9.]*$`)
	identityLine    = regexp.MustCompile(`^( *)([A-Za-z]+):(?:[ \t]+(.*))?$`)
	flowName        = regexp.MustCompile(`[{,]\s*"?name"?\s*:\s*([^,}\s]+)`)
	flowNamespace   = regexp.MustCompile(`[{,]\s*"?namespace"?\s*:\s*([^,}\s]+)`)
)

// unquote strips comment, space and quotes off a value.
func unquote(s string) string {
	if i := strings.Index(s, " #"); i >= 0 {
		s = s[:i]
	}
	return strings.Trim(strings.TrimSpace(s), `"'`)
}
