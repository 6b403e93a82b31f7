package config

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// Ignore is a comment that silences findings:
//
//	# outrider:ignore OR1234 reason
//	# outrider:ignore OR1234,OR2001 reason
//
// At the end of a line it is for the field of that line; on a line of its own for the field that follows; in both cases
// with everything below that field. Before the first field of a document it is for the whole object.
type Ignore struct {
	File     string
	Line     int // where the comment stands
	From, To int // lines that it is for, both included
	IDs      []string
	Reason   string
}

// covers says whether the comment silences a finding.
func (i Ignore) covers(f Finding) bool {
	return f.File == i.File && f.Line >= i.From && f.Line <= i.To && slices.Contains(i.IDs, f.ID)
}

var (
	ignoreComment = regexp.MustCompile(`(?:^|\s)#\s*outrider:ignore\b(.*)$`)
	findingID     = regexp.MustCompile(`^OR[0-9]{4}$`)
)

// ignores collects the comments of a file. A comment without id or reason is a finding and silences nothing.
func (f *decoding) ignores(data []byte) {
	if !bytes.Contains(data, []byte("outrider:ignore")) {
		return
	}
	rows := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	for i, row := range rows {
		m := ignoreComment.FindStringSubmatchIndex(row)
		if m == nil {
			continue
		}
		ids, reason, _ := strings.Cut(strings.TrimSpace(row[m[2]:m[3]]), " ")
		g := Ignore{File: f.Path, Line: i + 1, Reason: strings.TrimSpace(reason), IDs: strings.Split(ids, ",")}
		w := &flaw{id: idIgnore, line: i + 1, column: strings.IndexByte(row, '#') + 1, remedy: "write # outrider:ignore OR1234 reason"}
		switch {
		case slices.ContainsFunc(g.IDs, func(id string) bool { return !findingID.MatchString(id) }):
			w.message = "the comment outrider:ignore names no finding"
		case g.Reason == "":
			w.message = "the comment outrider:ignore gives no reason"
		default:
			g.From, g.To = extent(rows, i, strings.TrimSpace(row[:m[0]]) == "")
			f.Ignores = append(f.Ignores, g)
			continue
		}
		f.flawed(w, Key{})
	}
}

// extent returns the lines, counted from 1, that the comment in row i is for; to is below from where there are none.
func extent(rows []string, i int, alone bool) (from, to int) {
	start := i
	if alone {
		head := first(rows, i) // before a file's first --- a comment is for the document behind it
		for start++; start < len(rows) && (filler(rows[start]) || head && marker([]byte(rows[start]))); start++ {
		}
	}
	if start >= len(rows) || marker([]byte(rows[start])) {
		return i + 1, i // no line
	}
	indent, item := indentation(rows[start])
	end := start + 1
	whole := alone && first(rows, start)
	for ; end < len(rows); end++ {
		r := rows[end]
		if marker([]byte(r)) {
			break
		}
		if filler(r) || whole {
			continue
		}
		if n, dash := indentation(r); n < indent || n == indent && (item || !dash) {
			break
		}
	}
	return start + 1, end
}

// first says whether a row is the first of its document that holds something.
func first(rows []string, i int) bool {
	for i--; i >= 0 && !marker([]byte(rows[i])); i-- {
		if !filler(rows[i]) {
			return false
		}
	}
	return true
}

// filler says whether a row holds nothing but white space or a comment.
func filler(row string) bool {
	t := strings.TrimSpace(row)
	return t == "" || t[0] == '#'
}

// indentation is how far a row is indented, and whether it begins with a list's dash.
func indentation(row string) (n int, dash bool) {
	t := strings.TrimLeft(row, " ")
	return len(row) - len(t), t == "-" || strings.HasPrefix(t, "- ")
}
