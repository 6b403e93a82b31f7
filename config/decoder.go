package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// decoder fills a typed value from a node and collects what does not fit.
// It is the part that Kubernetes structs (struct.go) and Istio messages (proto.go) share.
type decoder struct {
	path  []step
	flaws []misfit
	// lenient ignores what does not fit: below status, which others write.
	lenient bool
	// secret leaves values out of what is said.
	secret bool
}

// misfit is one thing that does not fit, with its place.
type misfit struct {
	id, field       string
	line, column    int32
	message, remedy string
}

// step is one step of a path: a field's name, a mapping's key, or a list's index.
type step struct {
	name  string
	index int
	kind  stepKind
}

type stepKind uint8

const (
	stepField stepKind = iota
	stepKey
	stepIndex
)

// enter and leave keep the path. Steps are pushed rather than text built, because nearly every value is fine.
func (d *decoder) enter(name string) { d.path = append(d.path, step{name: name}) }

func (d *decoder) enterKey(name string) { d.path = append(d.path, step{name: name, kind: stepKey}) }

func (d *decoder) enterIndex(i int)  { d.path = append(d.path, step{index: i, kind: stepIndex}) }
func (d *decoder) leave()            { d.path = d.path[:len(d.path)-1] }
func (d *decoder) full() bool        { return len(d.flaws) > maxFindings }
func (d *decoder) fits() bool        { return len(d.flaws) == 0 }
func (d *decoder) misfits() []misfit { return d.flaws }

// wrong records a value of another type than the one wanted.
func (d *decoder) wrong(n *node, wanted string) {
	message, remedy := mismatch(n, wanted), remedyFor(n, wanted)
	if d.secret {
		message, remedy = unspeakable(n, wanted)
	}
	d.add(n, idType, message, remedy)
}

// at is the path as text.
func (d *decoder) at() string {
	var b strings.Builder
	for i, s := range d.path {
		switch {
		case s.kind == stepIndex:
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case s.kind == stepKey || strings.ContainsAny(s.name, ".["):
			b.WriteString("[" + clip(s.name) + "]")
		default:
			if i > 0 {
				b.WriteByte('.')
			}
			b.WriteString(clip(s.name))
		}
	}
	return b.String()
}

// add records a misfit at the place of a value; place is where the field's name stands if the caller knows it.
func (d *decoder) add(n *node, id, message, remedy string) {
	d.addAt(n.line, n.column, id, message, remedy)
}

func (d *decoder) addAt(line, column int32, id, message, remedy string) {
	if d.lenient || d.full() {
		return
	}
	d.flaws = append(d.flaws, misfit{id, d.at(), line, column, message, remedy})
}

// unknown records a field that the type lacks.
func (d *decoder) unknown(f *field, known []string) {
	d.enter(f.name)
	defer d.leave()
	remedy := "remove it"
	if guess := nearest(f.name, known); guess != "" {
		remedy = fmt.Sprintf("did you mean %s?", guess)
	} else if len(known) > 0 && len(known) <= 12 {
		remedy = "the fields here are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
	}
	d.addAt(f.line, f.column, idUnknown, "unknown field", remedy)
}

// mismatch says what stands where something else is wanted.
func mismatch(n *node, wanted string) string {
	switch n.shape {
	case null:
		return "must be " + wanted + ", and is empty"
	case list, mapping:
		return "must be " + wanted + ", and is " + n.shape.String()
	}
	return "must be " + wanted + ", and " + clip(n.value) + " is " + n.shape.String()
}

func remedyFor(n *node, wanted string) string {
	switch {
	case n.shape == null:
		return "give it a value or remove it"
	case wanted == "a string" && (n.shape == number || n.shape == boolean):
		return "put it in quotes: \"" + clip(n.value) + "\""
	case n.shape == text && (strings.Contains(wanted, "number") || wanted == "a boolean"):
		if wanted == "a boolean" {
			return "write true or false without quotes"
		}
		return "write a number without quotes"
	case strings.HasPrefix(wanted, "a list"):
		return "begin each item with a dash"
	case wanted == "a mapping" && n.shape == list:
		return "remove the dash"
	case wanted == "a mapping":
		return "write name: value lines below it"
	}
	return "write " + wanted
}

// nearest returns the known name that a mistyped one most likely means, or "".
func nearest(name string, known []string) string {
	best, least := "", 3
	if len(name) <= 4 {
		least = 2
	}
	for _, k := range slices.Sorted(slices.Values(known)) {
		if plainName(k) == plainName(name) {
			return k
		}
		if len(name) <= 64 {
			if d := distance(name, k); d < least {
				best, least = k, d
			}
		}
	}
	return best
}

// plainName strips case and separators: fixed_delay, fixed-delay and FixedDelay are fixedDelay.
func plainName(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

// distance counts insertions, deletions, replacements and swaps of neighbours between two short names.
func distance(a, b string) int {
	former, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], former[j-2]+1)
			}
		}
		former, previous, current = previous, current, former
	}
	return previous[len(b)]
}

// appendJSON writes a node as JSON, for the types that read themselves from it.
func appendJSON(b []byte, n *node) []byte {
	switch n.shape {
	case null:
		return append(b, "null"...)
	case boolean:
		return strconv.AppendBool(b, n.truth())
	case number:
		return append(b, n.value...)
	case text:
		return appendJSONText(b, n.value)
	case list:
		b = append(b, '[')
		for i, c := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, c)
		}
		return append(b, ']')
	}
	b = append(b, '{')
	for i := range n.fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONText(b, n.fields[i].name), ':')
		b = appendJSON(b, n.fields[i].value)
	}
	return append(b, '}')
}
