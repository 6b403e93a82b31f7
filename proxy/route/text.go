package route

import (
	"bytes"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

// maxProgram is the largest compiled pattern, in instructions (the limit that Istio gives Envoy). Matching costs at most
// a pattern's instructions times the value's bytes.
const maxProgram = 32768

// Pattern compiles an RE2 expression whose "." matches every character, a line's end too. It fails on one that does not
// parse or that compiles to more than 32,768 instructions.
func Pattern(expr string) (*regexp.Regexp, error) {
	if _, err := parse(expr); err != nil {
		return nil, err
	}
	return regexp.Compile("(?s:" + expr + ")")
}

// parse checks an expression by itself: "a)|(b" must not become valid by what is wrapped around it.
func parse(expr string) (*syntax.Regexp, error) {
	tree, err := syntax.Parse(expr, syntax.Perl|syntax.DotNL)
	if err != nil {
		return nil, fmt.Errorf("cannot compile regular expression %q: %w", expr, err)
	}
	tree = tree.Simplify()
	program, err := syntax.Compile(tree)
	if err != nil {
		return nil, fmt.Errorf("cannot compile regular expression %q: %w", expr, err)
	}
	if n := len(program.Inst); n > maxProgram {
		return nil, fmt.Errorf("cannot use regular expression %.60q: it compiles to %d instructions, and at most %d are allowed; use fewer or smaller repetitions", expr, n, maxProgram)
	}
	return tree, nil
}

// beginning returns the literal text that whatever tree matches from the start begins with; "" where there is none.
func beginning(tree *syntax.Regexp) string {
	switch tree.Op {
	case syntax.OpLiteral:
		if tree.Flags&syntax.FoldCase != 0 {
			return ""
		}
		text := string(tree.Rune)
		// A replacement character also stands for any byte that is not UTF-8.
		if i := strings.IndexRune(text, utf8.RuneError); i >= 0 {
			text = text[:i]
		}
		return text
	case syntax.OpCapture:
		return beginning(tree.Sub[0])
	case syntax.OpConcat:
		for _, sub := range tree.Sub {
			if sub.Op != syntax.OpBeginText && sub.Op != syntax.OpBeginLine {
				return beginning(sub)
			}
		}
	}
	return ""
}

// Text compares one value with a model.StringMatch. The zero Text holds for an empty value only.
type Text struct {
	kind  model.StringKind
	value string
	expr  *regexp.Regexp // Regex; nil where it holds for every value
	begin string         // every value that holds begins with it
}

// NewText compiles m. It fails on a kind that does not exist and on a bad regular expression.
func NewText(m model.StringMatch) (Text, error) {
	t := Text{kind: m.Kind, value: m.Value}
	switch m.Kind {
	case model.Exact, model.Prefix:
		t.begin = m.Value
	case model.PathPrefix:
		t.value = strings.TrimRight(m.Value, "/")
		t.begin = t.value
	case model.Present, model.CaseIgnored, model.CasePrefix:
	case model.Regex:
		tree, err := parse(m.Value)
		if err != nil {
			return Text{}, err
		}
		if m.Value == ".*" {
			break
		}
		if t.expr, err = regexp.Compile(`\A(?s:` + m.Value + `)\z`); err != nil {
			return Text{}, fmt.Errorf("cannot compile regular expression %q: %w", m.Value, err)
		}
		t.begin = beginning(tree)
	default:
		return Text{}, fmt.Errorf("cannot match by %q: there is no such kind of comparison", m.Kind)
	}
	return t, nil
}

// Match says whether the comparison holds for b. It does not allocate.
func (t *Text) Match(b []byte) bool {
	switch t.kind {
	case model.Prefix:
		return len(b) >= len(t.value) && string(b[:len(t.value)]) == t.value
	case model.PathPrefix:
		n := len(t.value)
		return len(b) >= n && string(b[:n]) == t.value && (len(b) == n || b[n] == '/')
	case model.Regex:
		return t.expr == nil || t.expr.Match(b)
	case model.Present:
		return true
	case model.CaseIgnored:
		return message.EqualFold(b, t.value)
	case model.CasePrefix:
		return len(b) >= len(t.value) && message.EqualFold(b[:len(t.value)], t.value)
	default:
		return string(b) == t.value
	}
}

// covered returns how many bytes of path, which t holds for, the comparison looked at.
func (t *Text) covered(path []byte) int {
	switch t.kind {
	case model.Prefix, model.PathPrefix, model.CasePrefix:
		return len(t.value)
	case model.Present:
		return slash(path)
	default:
		return len(path)
	}
}

// slash is what a match without a path covers: the path's first slash, as Istio's prefix "/" does.
func slash(path []byte) int {
	if bytes.HasPrefix(path, []byte("/")) {
		return 1
	}
	return 0
}
