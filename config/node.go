package config

import (
	"strconv"
	"strings"
)

// shape is what kind of value a node holds.
type shape uint8

const (
	null shape = iota
	boolean
	number
	text
	list
	mapping
)

// String names the shape as a message does.
func (s shape) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "a mapping"}[s]
}

// node is one value of a document with its place: the form that YAML and JSON share.
// An aliased value is one node that stands in several places, so a tree may be walked but never written to.
type node struct {
	shape        shape
	literal      bool   // a block text whose lines are those of the file
	line, column int32  // where the value begins
	value        string // boolean: as written (true, yes, on); number: JSON's form; text: the text
	items        []*node
	fields       []field
}

// field is one entry of a mapping with the place of its name.
type field struct {
	name         string
	line, column int32
	value        *node
}

// truth is a boolean's value.
func (n *node) truth() bool {
	return n.value != "" && strings.ContainsRune("tTyY", rune(n.value[0])) || strings.EqualFold(n.value, "on")
}

// child returns the value of a mapping's field, or nil.
func (n *node) child(name string) *node {
	if f := n.field(name); f != nil {
		return f.value
	}
	return nil
}

// field returns a mapping's field, or nil.
func (n *node) field(name string) *field {
	if n == nil {
		return nil
	}
	for i := range n.fields {
		if n.fields[i].name == name {
			return &n.fields[i]
		}
	}
	return nil
}

// scalar returns a field's text, or "" where it is absent or no text.
func (n *node) scalar(name string) string {
	if v := n.child(name); v != nil && v.shape == text {
		return v.value
	}
	return ""
}

// position returns the place of the field of this path, or of the nearest enclosing one; 0, 0 for no tree.
func (n *node) position(path string) (line, column int) {
	line, column, _ = n.walk(path)
	return line, column
}

// find returns the value of the field of this path, or nil where it is not written.
func (n *node) find(path string) *node {
	_, _, found := n.walk(path)
	return found
}

// walk follows a path as far as it goes; found is nil unless it goes to the end.
func (n *node) walk(path string) (line, column int, found *node) {
	if n == nil {
		return 0, 0, nil
	}
	line, column = int(n.line), int(n.column)
	for path != "" {
		var step string
		step, path = cutStep(path)
		if n.shape == list {
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(n.items) {
				return line, column, nil
			}
			n = n.items[i]
			line, column = int(n.line), int(n.column)
			continue
		}
		f := n.field(step)
		if f == nil {
			return line, column, nil
		}
		line, column, n = int(f.line), int(f.column), f.value
	}
	return line, column, n
}

// cutStep takes the first step off a path: `a` of `a.b`, `a` of `a[0]`, `x.y` of `[x.y].b`.
func cutStep(path string) (step, rest string) {
	if path[0] == '[' {
		step, rest, _ = strings.Cut(path[1:], "]")
		return step, strings.TrimPrefix(rest, ".")
	}
	i := strings.IndexAny(path, ".[")
	switch {
	case i < 0:
		return path, ""
	case path[i] == '.':
		return path[:i], path[i+1:]
	default:
		return path[:i], path[i:]
	}
}
