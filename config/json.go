package config

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// parseJSON reads all values of a JSON text, one after the other. Lines count from before+1.
// With a flaw, partial is the value that it breaks, as far as it was read.
func parseJSON(data []byte, before int) (values []*node, partial *node, broken *flaw) {
	r := reader{data: data, line: before + 1, budget: maxValues}
	for r.space(); r.at < len(r.data); r.space() {
		n := r.value(0)
		if r.flaw != nil {
			return values, n, r.flaw
		}
		if n.shape != null {
			values = append(values, n)
		}
	}
	return values, nil, nil
}

// reader is a strict JSON parser (RFC 8259) that knows where each value stands.
type reader struct {
	data   []byte
	at     int
	line   int
	mark   int // characters of this line are counted up to here,
	chars  int // and are so many
	budget int // values left
	flaw   *flaw
}

func (r *reader) fail(id, message, remedy string) {
	if r.flaw == nil {
		r.flaw = &flaw{id, r.line, r.column(), message, remedy}
	}
}

// column counts on from the last call: a file may be one long line.
func (r *reader) column() int {
	if r.at > r.mark {
		r.chars += utf8.RuneCount(r.data[r.mark:r.at])
		r.mark = r.at
	}
	return r.chars + 1
}

// peek is the byte at hand, 0 at the end.
func (r *reader) peek() byte {
	if r.at < len(r.data) {
		return r.data[r.at]
	}
	return 0
}

// space skips white space.
func (r *reader) space() {
	for ; r.at < len(r.data); r.at++ {
		switch r.data[r.at] {
		case ' ', '\t', '\r':
		case '\n':
			r.line++
			r.mark, r.chars = r.at+1, 0
		default:
			return
		}
	}
}

func (r *reader) value(depth int) *node {
	n := &node{line: int32(r.line), column: int32(r.column())}
	if r.budget--; r.budget < 0 {
		r.fail(idLimit, fmt.Sprintf("the file has more values than the limit of %d", maxValues), "split it into several files")
		return n
	}
	if depth > maxDepth {
		r.fail(idLimit, fmt.Sprintf("values are nested deeper than the limit of %d", maxDepth), "flatten the document")
		return n
	}
	switch c := r.peek(); {
	case c == '{':
		n.shape = mapping
		r.object(n, depth)
	case c == '[':
		n.shape = list
		r.array(n, depth)
	case c == '"':
		n.shape, n.value = text, r.text()
	case c == '-' || c >= '0' && c <= '9':
		n.shape, n.value = number, r.word()
		if !json.Valid([]byte(n.value)) {
			r.fail(idSyntax, n.value+" is not a JSON number", "correct the number")
		}
	default:
		r.literal(n)
	}
	return n
}

func (r *reader) literal(n *node) {
	line, column := r.line, r.column()
	switch w := r.word(); w {
	case "true", "false":
		n.shape, n.value = boolean, w
	case "null":
		n.shape = null
	case "":
		if r.at >= len(r.data) {
			r.fail(idSyntax, "the text ends where a value must stand", "complete the file")
			return
		}
		r.fail(idSyntax, fmt.Sprintf("%q stands where a value must stand", r.character()), "check for a comma too many or a missing quote")
	default:
		r.flaw = &flaw{idSyntax, line, column, fmt.Sprintf("%s is no JSON value", clip(w)), "put text in double quotes"}
	}
}

// character is the character at hand.
func (r *reader) character() string {
	_, size := utf8.DecodeRune(r.data[r.at:])
	return string(r.data[r.at : r.at+size])
}

// word takes the letters, digits and signs at hand.
func (r *reader) word() string {
	from := r.at
	for ; r.at < len(r.data); r.at++ {
		c := r.data[r.at]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '+' && c != '.' && c != '_' {
			break
		}
	}
	return string(r.data[from:r.at])
}

func (r *reader) text() string {
	from, escaped := r.at, false
	for i := r.at + 1; i < len(r.data); i++ {
		switch c := r.data[i]; {
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			r.at = i
			r.fail(idSyntax, "a string is not closed on its line", "close the quote, or write \\n for a line end")
			return ""
		case c == '"':
			r.at = i + 1
			if !escaped {
				return string(r.data[from+1 : i])
			}
			var s string
			if err := json.Unmarshal(r.data[from:r.at], &s); err != nil {
				r.fail(idSyntax, "a string has an escape that JSON does not know", "correct the escape")
			}
			return s
		}
	}
	r.fail(idSyntax, "a string is not closed", "close the quote")
	r.at = len(r.data)
	return ""
}

func (r *reader) object(n *node, depth int) {
	r.at++
	seen := duplicates{}
	for first := true; ; first = false {
		if r.space(); r.peek() == '}' && first {
			break
		}
		f := field{line: int32(r.line), column: int32(r.column())}
		if r.peek() != '"' {
			r.fail(idSyntax, "a mapping's key in double quotes is missing here", "check for a comma too many or a missing brace")
			return
		}
		f.name = r.text()
		if former := seen.add(n.fields, f.name); former != nil && r.flaw == nil {
			r.flaw = &flaw{idDuplicate, int(f.line), int(f.column), fmt.Sprintf("the key %q is written twice; the first time in line %d", f.name, former.line), "remove one of them"}
		}
		if r.space(); r.peek() != ':' {
			r.fail(idSyntax, "a colon is missing after the key "+strconv.Quote(clip(f.name)), "write \"key\": value")
			return
		}
		r.at++
		r.space()
		f.value = r.value(depth + 1)
		n.fields = append(n.fields, f)
		if !r.more('}') {
			break
		}
	}
	if r.flaw == nil {
		r.at++
	}
}

func (r *reader) array(n *node, depth int) {
	r.at++
	for first := true; ; first = false {
		if r.space(); r.peek() == ']' && first {
			break
		}
		n.items = append(n.items, r.value(depth+1))
		if !r.more(']') {
			break
		}
	}
	if r.flaw == nil {
		r.at++
	}
}

// more says that a comma follows and takes it; else the closing byte must follow, and stays.
func (r *reader) more(end byte) bool {
	if r.flaw != nil {
		return false
	}
	r.space()
	switch r.peek() {
	case ',':
		r.at++
		return true
	case end:
		return false
	case 0:
		r.fail(idSyntax, "the text ends within a list or a mapping", "close it with "+string(rune(end)))
	default:
		r.fail(idSyntax, "a comma or "+string(rune(end))+" is missing here", "put a comma between two values")
	}
	return false
}

// clip shortens a text for a message.
func clip(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "..."
}
