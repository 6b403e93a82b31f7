package policy

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/route"
	"github.com/outrider-mesh/outrider/wire/message"
)

// Rewrite gives a request another authority and path before it is forwarded.
type Rewrite struct {
	authority []byte
	path      *path
}

// NewRewrite compiles w; nil gives nil. It fails on characters that no request line can hold, and on a bad regular
// expression or substitution.
func NewRewrite(w *model.Rewrite) (*Rewrite, error) {
	if w == nil {
		return nil, nil
	}
	if !isClean(w.Authority) {
		return nil, fmt.Errorf("cannot rewrite the authority to %q: it has a space or control character", w.Authority)
	}
	p, err := newPath(w.Path)
	if err != nil {
		return nil, err
	}
	return &Rewrite{authority: []byte(w.Authority), path: p}, nil
}

// Apply rewrites r, whose match covered prefix bytes of the path, by segment or not (route.Match). The query stays as it
// is. The new path begins with exactly one slash, and has no "." or ".." segment that the old one had not.
func (w *Rewrite) Apply(r *message.Request, prefix int, segments bool, s *Scratch) {
	if w == nil {
		return
	}
	if len(w.authority) > 0 {
		r.SetAuthority(w.authority)
	}
	out, changed := w.path.rewrite(s.path[:0], r.Path(), prefix, segments)
	s.path = out
	if changed {
		r.SetPath(out)
	}
}

// path is a compiled model.PathRewrite; one of full, prefix and expr is set.
type path struct {
	full   string
	prefix *string
	// bare is prefix without slashes at its end, for what comes before a slash.
	bare string
	expr *regexp.Regexp
	form []piece
}

// piece is a part of a substitution: text, or where that is empty a group of the match.
type piece struct {
	text  string
	group int
}

func newPath(p *model.PathRewrite) (*path, error) {
	switch {
	case p == nil:
		return nil, nil
	case p.Full != "":
		if !isClean(p.Full) {
			return nil, fmt.Errorf("cannot rewrite the path to %q: it has a space or control character", p.Full)
		}
		return &path{full: p.Full}, nil
	case p.Prefix != nil:
		if !isClean(*p.Prefix) {
			return nil, fmt.Errorf("cannot rewrite a prefix to %q: it has a space or control character", *p.Prefix)
		}
		return &path{prefix: p.Prefix, bare: strings.TrimRight(*p.Prefix, "/")}, nil
	case p.Regex != nil:
		expr, err := route.Pattern(p.Regex.Pattern)
		if err != nil {
			return nil, err
		}
		form, err := newForm(p.Regex.Substitution, expr.NumSubexp())
		if err != nil {
			return nil, fmt.Errorf("cannot use substitution %q: %w", p.Regex.Substitution, err)
		}
		return &path{expr: expr, form: form}, nil
	}
	return nil, nil
}

// newForm reads an RE2 substitution: \0 is the whole match, \1 to \9 are groups, \\ is a backslash.
func newForm(substitution string, groups int) (form []piece, err error) {
	if !isClean(substitution) {
		return nil, fmt.Errorf("it has a space or control character")
	}
	var text []byte
	for i := 0; i < len(substitution); i++ {
		c := substitution[i]
		if c != '\\' {
			text = append(text, c)
			continue
		}
		if i++; i == len(substitution) {
			return nil, fmt.Errorf(`a backslash at the end; write \\ for a backslash`)
		}
		switch c = substitution[i]; {
		case c == '\\':
			text = append(text, c)
		case c < '0' || c > '9':
			return nil, fmt.Errorf(`\%c is neither a group (\0 to \9) nor \\`, c)
		case int(c-'0') > groups:
			return nil, fmt.Errorf(`\%c: the expression has %d groups`, c, groups)
		default:
			if len(text) > 0 {
				form = append(form, piece{text: string(text)})
				text = text[:0]
			}
			form = append(form, piece{group: int(c - '0')})
		}
	}
	if len(text) > 0 {
		form = append(form, piece{text: string(text)})
	}
	return form, nil
}

// rewrite appends the new form of old to dst, or says that old stays.
func (p *path) rewrite(dst, old []byte, prefix int, segments bool) (out []byte, changed bool) {
	if p == nil || len(old) == 0 || old[0] != '/' {
		return dst, false // "*" and the empty path of CONNECT are no paths
	}
	start := len(dst)
	dst = append(dst, '/')
	switch {
	case p.full != "":
		dst = append(dst, p.full...)
	case p.prefix != nil:
		if prefix > len(old) {
			return dst[:start], false
		}
		rest := old[prefix:]
		if segments && len(rest) > 0 {
			dst = append(dst, p.bare...) // rest has the slash
		} else {
			dst = append(dst, *p.prefix...)
		}
		dst = append(dst, rest...)
	default:
		if !p.expr.Match(old) {
			return dst[:start], false
		}
		dst = p.substitute(dst, old)
	}
	dst = trim(dst, start)
	if p.full == "" && hasDots(dst[start:]) && !hasDots(old) {
		// "/foo" to "/app/" makes "/app/../admin" of "/foo../admin", which was normalised before.
		dst = withoutDots(dst, start)
	}
	return dst, true
}

// substitute replaces all matches. It is the one policy that allocates, and only where the expression matches: package
// regexp returns groups in slices of its own.
func (p *path) substitute(dst, old []byte) []byte {
	end := 0
	for _, m := range p.expr.FindAllSubmatchIndex(old, -1) {
		dst = append(dst, old[end:m[0]]...)
		for _, f := range p.form {
			if f.text != "" {
				dst = append(dst, f.text...)
			} else if from := m[2*f.group]; from >= 0 {
				dst = append(dst, old[from:m[2*f.group+1]]...)
			}
		}
		end = m[1]
	}
	return append(dst, old[end:]...)
}

// trim drops further slashes, and backslashes, which browsers take for slashes, after the slash at start: "//host" names another host.
func trim(b []byte, start int) []byte {
	i := start + 1
	for i < len(b) && (b[i] == '/' || b[i] == '\\') {
		i++
	}
	return append(b[:start+1], b[i:]...)
}

// hasDots says whether path has a "." or ".." segment.
func hasDots(path []byte) bool {
	for more := true; more; {
		var segment []byte
		if segment, path, more = bytes.Cut(path, slash); dots(segment) > 0 {
			return true
		}
	}
	return false
}

var slash = []byte("/")

// withoutDots removes the dot segments of the path at b[start:], in place (RFC 3986 §5.2.4).
func withoutDots(b []byte, start int) []byte {
	path := b[start+1:]
	w := start // end of what is written; b[start:w] is "" or "/a/b"
	for more := true; more; {
		var segment []byte
		segment, path, more = bytes.Cut(path, slash)
		n := dots(segment)
		if n == 2 {
			w = start + max(bytes.LastIndexByte(b[start:w], '/'), 0)
		}
		if n == 0 || !more {
			// A dot segment at the end leaves its slash. Never ahead of reading: what is written is no longer.
			b[w] = '/'
			w++
			if n == 0 {
				w += copy(b[w:], segment)
			}
		}
	}
	return trim(b[:w], start)
}

// dots returns 1 for ".", 2 for "..", else 0; an encoded dot counts as a dot.
func dots(segment []byte) (n int) {
	for len(segment) > 0 {
		switch {
		case segment[0] == '.':
			segment = segment[1:]
		case len(segment) >= 3 && segment[0] == '%' && segment[1] == '2' && segment[2]|0x20 == 'e':
			segment = segment[3:]
		default:
			return 0
		}
		if n++; n > 2 {
			return 0
		}
	}
	return n
}
