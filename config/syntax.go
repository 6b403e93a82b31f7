package config

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// yamlFlaw turns the YAML library's error into a flaw with line, column, and what to do. The budget is how many bytes may be parsed again for it.
func yamlFlaw(d document, err error, budget *int) *flaw {
	cause := strings.TrimPrefix(err.Error(), "yaml: ")
	reported := 1
	if m := reportedLine.FindStringSubmatch(cause); m != nil {
		cause = cause[len(m[0]):]
		reported, _ = strconv.Atoi(m[1])
	}
	rows := bytes.Split(d.data, []byte("\n"))
	f := &flaw{id: idSyntax, line: d.before + reported, column: 1}
	if second, ok := err.(secondError); ok {
		f.line, f.message, f.remedy = d.before+int(second), cause, "put --- on a line between two documents"
		return f
	}
	if m := unknownAnchor.FindStringSubmatch(cause); m != nil {
		f.message, f.remedy = "the alias *"+m[1]+" has no anchor &"+m[1]+" before it in this document", "define the anchor first, or quote the value"
		if i := bytes.Index(d.data, []byte("*"+m[1])); i >= 0 {
			f.line, f.column = d.place(i)
		}
		return f
	}
	row := breaks(d.data, rows, reported-1, budget)
	f.line = d.before + row + 1
	line := bytes.TrimRight(rows[row], "\r")
	indent := len(line) - len(bytes.TrimLeft(line, " \t"))
	f.column = utf8.RuneCount(line[:indent]) + 1
	f.message, f.remedy = describe(cause, line[indent:])
	if tab := bytes.IndexByte(line[:indent], '\t'); tab >= 0 {
		f.column, f.message, f.remedy = tab+1, "a tab is used for indentation", "use spaces"
	} else if bytes.Contains(line, []byte("{{")) {
		f.message, f.remedy = "the text is a template, not YAML ("+cause+")", "render it first, for example with helm template"
	} else if merge := conflict(rows); merge >= 0 {
		f.line, f.column = d.before+merge+1, 1
		f.message, f.remedy = "the file has an unresolved merge conflict", "resolve it and remove the conflict markers"
	}
	return f
}

var (
	reportedLine  = regexp.MustCompile(`^line (\d+): `)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
)

// place is the line and column of an offset into the document.
func (d document) place(offset int) (line, column int) {
	start := bytes.LastIndexByte(d.data[:offset], '\n') + 1
	return d.before + bytes.Count(d.data[:offset], []byte("\n")) + 1, utf8.RuneCount(d.data[start:offset]) + 1
}

// conflict returns the row of a version control conflict marker, or -1.
func conflict(rows [][]byte) int {
	for i, r := range rows {
		if bytes.HasPrefix(r, []byte("<<<<<<< ")) || bytes.HasPrefix(r, []byte(">>>>>>> ")) {
			return i
		}
	}
	return -1
}

// breaks returns the row that breaks the document. The library names the line where the enclosing value began, often far above;
// the row after the longest readable beginning is where the eye finds the error.
func breaks(data []byte, rows [][]byte, reported int, budget *int) int {
	reported = min(max(reported, 0), len(rows)-1)
	ends := make([]int, len(rows)+1)
	for i, r := range rows {
		ends[i+1] = min(ends[i]+len(r)+1, len(data))
	}
	readable := func(n int) bool {
		*budget -= ends[n] + 1
		return parseOne(data[:ends[n]], &yaml.Node{}) == nil
	}
	// Readable beginnings end where the break is, except that one which stops within a quoted or bracketed value is not readable either.
	low, high := 0, len(rows)
	for low+1 < high && *budget > 0 {
		if middle := (low + high) / 2; readable(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	for longer := low + 1; longer <= min(low+40, len(rows)) && *budget > 0; longer++ {
		if readable(longer) {
			low = longer
		}
	}
	if *budget <= 0 {
		return reported
	}
	for row := low; row < len(rows); row++ {
		if t := bytes.TrimSpace(rows[row]); len(t) > 0 && t[0] != '#' {
			return row
		}
	}
	return min(low, len(rows)-1)
}

// describe says what the library's cause means for someone who reads the line.
func describe(cause string, line []byte) (message, remedy string) {
	first := byte(0)
	if _, value, found := bytes.Cut(line, []byte(": ")); found {
		line = value
	}
	if line = bytes.TrimLeft(line, " -"); len(line) > 0 {
		first = line[0]
	}
	switch {
	case strings.Contains(cause, "cannot start any token"):
		if first == '@' || first == '`' || first == '%' {
			return "a value begins with " + string(rune(first)) + ", which YAML reserves", "put the value in quotes"
		}
		return cause, "put the value in quotes"
	case strings.Contains(cause, "mapping values are not allowed"):
		return "a colon stands where no mapping can begin", "check the indentation, or put the value in quotes"
	case strings.Contains(cause, "unexpected end of stream"):
		return "a quote is opened and not closed", "close the quote"
	case strings.Contains(cause, "',' or ']'"), strings.Contains(cause, "',' or '}'"), strings.Contains(cause, "expected node content"):
		return "a list [ or a mapping { is not closed, or a comma is missing", "close it on this line or before the next field"
	case strings.Contains(cause, "could not find expected ':'"):
		return "a name stands here without a colon and a value", "write name: value, and check the lines before"
	case strings.Contains(cause, "expected '-' indicator"):
		return "the line does not continue the list above it", "check the indentation"
	case strings.Contains(cause, "expected key"), strings.Contains(cause, "block"):
		return "the line does not fit the mapping above it", "check indentation and quotes"
	case strings.Contains(cause, "control characters"):
		return "the text has a control character", "remove it, or write it as an escape in double quotes"
	}
	return "the document is not valid YAML: " + cause, "correct it"
}
