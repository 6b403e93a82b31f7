package cli

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/outrider-mesh/outrider/config"
)

// OR0901 is the finding for an ignore comment that says no reason.
const ignoreWithoutReason = "OR0901"

// ignoreComment is "# outrider:ignore OR1234 reason", at a line's end or on a line of its own; several ids are joined by commas.
var ignoreComment = regexp.MustCompile(`(?:^|\s)#\s*outrider:ignore\s+(OR\d{4}(?:,OR\d{4})*)\b[ \t]*(.*)$`)

// ignores are the silenced findings of one file: for each line, and for each whole document, the ids.
type ignores struct {
	onLine map[int][]string
	// whole is by the first and last line of a document.
	whole []wholeDocument
	// unfounded are the lines of comments without a reason, with their column.
	unfounded [][2]int
}

type wholeDocument struct {
	first, last int
	ids         []string
}

// silence takes out the findings that a comment in their file silences, and adds one for each such comment that
// gives no reason. text returns a file's content; a file that it cannot give has no comments.
func silence(findings []config.Finding, text func(file string) ([]byte, bool)) []config.Finding {
	byFile := map[string]*ignores{}
	var kept, added []config.Finding
	for _, f := range findings {
		in, read := byFile[f.File]
		if !read && f.File != "" {
			if content, ok := text(f.File); ok {
				in = readIgnores(content)
			}
			byFile[f.File] = in
			if in != nil {
				added = append(added, in.complaints(f.File)...)
			}
		}
		if in == nil || !in.silences(f.ID, f.Line) {
			kept = append(kept, f)
		}
	}
	return append(kept, added...)
}

func (i *ignores) complaints(file string) []config.Finding {
	var out []config.Finding
	for _, at := range i.unfounded {
		out = append(out, config.Finding{
			ID: ignoreWithoutReason, Severity: config.Error, File: file, Line: at[0], Column: at[1],
			Message: "an outrider:ignore comment without a reason silences nothing",
			Remedy:  "write why after the id: # outrider:ignore OR1234 reason",
		})
	}
	return out
}

func (i *ignores) silences(id string, line int) bool {
	if contains(i.onLine[line], id) {
		return true
	}
	for _, d := range i.whole {
		if d.first <= line && line <= d.last && contains(d.ids, id) {
			return true
		}
	}
	return false
}

func contains(ids []string, id string) bool {
	for _, s := range ids {
		if s == id {
			return true
		}
	}
	return false
}

// readIgnores finds the comments of a file. One at a line's end counts for that line; one on a line of its own for
// the next line that says something; one before a document's first such line for the whole document.
func readIgnores(content []byte) *ignores {
	in := &ignores{onLine: map[int][]string{}}
	if !bytes.Contains(content, []byte("outrider:ignore")) {
		return in
	}
	var pending []string // ids waiting for the next line that says something
	opening := true      // nothing but comments since the document began
	document := wholeDocument{first: 1}
	end := func(last int) {
		document.last = last
		if len(document.ids) > 0 {
			in.whole = append(in.whole, document)
		}
	}
	all := strings.Split(strings.ReplaceAll(string(content), "\r\n", "\n"), "\n")
	for n, line := range all {
		number := n + 1
		if line == "---" || strings.HasPrefix(line, "--- ") {
			end(number - 1)
			document, pending, opening = wholeDocument{first: number}, nil, true
			continue
		}
		ids := in.comment(line, number)
		said := strings.TrimSpace(line)
		switch {
		case said == "":
		case strings.HasPrefix(said, "#"):
			if opening {
				document.ids = append(document.ids, ids...)
			} else {
				pending = append(pending, ids...)
			}
		default:
			opening = false
			in.onLine[number] = append(append(in.onLine[number], ids...), pending...)
			pending = nil
		}
	}
	end(len(all))
	return in
}

// comment returns the ids that the comment in line silences, none where it gives no reason.
func (i *ignores) comment(line string, number int) []string {
	m := ignoreComment.FindStringSubmatchIndex(line)
	if m == nil {
		return nil
	}
	if strings.TrimSpace(line[m[4]:m[5]]) == "" {
		i.unfounded = append(i.unfounded, [2]int{number, strings.IndexByte(line[m[0]:], '#') + m[0] + 1})
		return nil
	}
	return strings.Split(line[m[2]:m[3]], ",")
}
