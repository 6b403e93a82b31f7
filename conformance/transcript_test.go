package conformance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// class is a "## title" of a table and what stands below it: prose that says why we do what we do, and cases.
type class struct {
	title string
	prose string
	cases []*scenario
}

// scenario is one case of a table. Its lines are
//
//	=== name
//	rfc: refuse|serve|may, where     the RFC's verdict, and what says so
//	why: ...                         why our answer is not what the verdict, or every other proxy, would have it be
//	at: listener...                  where it is run; everywhere without the line
//	> bytes                          what the client sends
//	? 100                            the client waits for a response with that status
//	>|                               the client ends its side
//	<< bytes                         what the application answers the first request with, once it has the head
//	<<?                              the application waits for the request's body
//	<<|                              the application then closes
//	= 200 400 close                  the responses that the client gets, then how its connection ends, if it does
//	>> bytes                         what reaches the application
//	< bytes                          what reaches the client
//
// Where a side speaks HTTP/2, its lines are frames:
//
//	> name: value                    a field, and
//	>                                the end of a field section: HEADERS, or
//	>|                               the same with END_STREAM
//	>= bytes                         DATA, without a CRLF of its own, or
//	>=| bytes                        the same with END_STREAM
//	<<! reset|goaway CODE            the application ends the stream, or the connection
//	>>?                              how much reaches the application is a matter of timing, but it is never a whole request
//
// Each line of bytes stands for itself and CRLF; a backslash at its end leaves the CRLF out, and \r, \n, \t, \0, \xHH, \\
// and \{text*times} mean what they look like. The last two kinds of lines are rewritten by -update.
type scenario struct {
	file, name   string
	line         int
	class        *class
	verdict, rfc string
	why          string
	at           []string
	steps        []step
	frames       []frame // where the client speaks HTTP/2
	partly       bool    // >>?
	client2      bool
	server2      bool
	answer       *answer
	want         string
	forwarded    []byte // what the table says
}

// answer is what the application answers one request with.
type answer struct {
	early  []byte // once it has the head
	waits  bool   // for the body, before late
	late   []byte
	closes bool    // behind it
	frames []frame // where it speaks HTTP/2
}

// frame is HEADERS, DATA, or what ends a stream or a connection.
type frame struct {
	kind   string // headers, data, reset or goaway; "" while its fields are read
	fields [][2]string
	data   []byte
	end    bool
	code   http2.ErrCode
}

// step is one thing that the client does.
type step struct {
	send []byte
	wait int  // for a response of that status
	end  bool // of the client's side
}

// table is one file.
type table struct {
	path      string
	lines     []string
	responses bool // what reaches the client is on record; otherwise what reaches the application is
	client2   bool // the client speaks HTTP/2
	server2   bool // the application does
	classes   []*class
}

// tables reads the files of testdata whose names begin so.
func tables(t testing.TB, kind string) []*table {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", kind+"-*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no tables of %s: %v", kind, err)
	}
	var all []*table
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f := &table{
			path: path, lines: strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n"),
			responses: kind == "responses" || kind == "lowered", client2: kind == "streams", server2: kind == "raised" || kind == "lowered",
		}
		if err := f.parse(); err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

// parse reads the lines.
func (f *table) parse() error {
	var c *class
	var s *scenario
	for i, line := range f.lines {
		fail := func(why string) error { return fmt.Errorf("%s:%d: %s: %q", f.path, i+1, why, line) }
		if title, ok := strings.CutPrefix(line, "## "); ok {
			c, s = &class{title: title}, nil
			f.classes = append(f.classes, c)
			continue
		}
		if name, ok := strings.CutPrefix(line, "=== "); ok {
			if c == nil {
				return fail("a case outside of a class")
			}
			s = &scenario{file: f.path, line: i + 1, name: name, class: c, at: everywhere, client2: f.client2, server2: f.server2}
			c.cases = append(c.cases, s)
			continue
		}
		switch {
		case s == nil && c == nil: // what the file is
		case s == nil:
			c.prose = strings.TrimSpace(c.prose + " " + line)
		default:
			if err := s.take(line); err != nil {
				return fail(err.Error())
			}
		}
	}
	for _, c := range f.classes {
		for _, s := range c.cases {
			if s.verdict == "" || s.want == "" {
				return fmt.Errorf("%s:%d: %s has no verdict or no answer", f.path, s.line, s.name)
			}
			if s.steps == nil && s.frames == nil {
				s.steps = []step{{send: []byte("GET / HTTP/1.1\r\nHost: app\r\n\r\n")}}
			}
		}
	}
	return nil
}

// take reads one line of a case.
func (s *scenario) take(line string) (err error) {
	word, rest, _ := strings.Cut(line, " ")
	var b []byte
	switch {
	case s.client2 && strings.HasPrefix(word, ">") && !strings.HasPrefix(word, ">>"):
		s.frames, err = takeFrame(s.frames, word[1:], rest)
		return err
	case s.server2 && strings.HasPrefix(word, "<<"):
		a := s.answers()
		a.frames, err = takeFrame(a.frames, word[2:], rest)
		return err
	}
	switch word {
	case "":
		return nil
	case "rfc:":
		var ok bool
		if s.verdict, s.rfc, ok = strings.Cut(rest, ", "); !ok || s.verdict != "refuse" && s.verdict != "serve" && s.verdict != "may" {
			return fmt.Errorf("the verdict is not refuse, serve or may, with a source")
		}
	case "why:":
		s.why = rest
	case "at:":
		s.at = strings.Fields(rest)
	case ">|":
		s.steps = append(s.steps, step{end: true})
	case "?":
		n, err := strconv.Atoi(rest)
		s.steps = append(s.steps, step{wait: n})
		return err
	case ">":
		b, err = unquote(rest)
		if n := len(s.steps); n > 0 && s.steps[n-1].send != nil {
			s.steps[n-1].send = append(s.steps[n-1].send, b...)
		} else {
			s.steps = append(s.steps, step{send: b})
		}
	case "<<":
		b, err = unquote(rest)
		if a := s.answers(); a.waits {
			a.late = append(a.late, b...)
		} else {
			a.early = append(a.early, b...)
		}
	case "<<?":
		s.answers().waits = true
	case "<<|":
		s.answers().closes = true
	case "=":
		s.want = rest
	case ">>?":
		s.partly = true
	case ">>", "<":
		b, err = unquote(rest)
		s.forwarded = append(s.forwarded, b...)
	default:
		return fmt.Errorf("no such line")
	}
	return err
}

// takeFrame reads a line of HTTP/2.
func takeFrame(frames []frame, sign, rest string) ([]frame, error) {
	text, err := unquote(rest + `\`)
	if err != nil {
		return nil, err
	}
	under := len(frames) - 1 // a field section under way
	if under < 0 || frames[under].kind != "" {
		under = -1
	}
	switch sign {
	case "", "|":
		if under < 0 {
			frames = append(frames, frame{})
			under = len(frames) - 1
		}
		if rest == "" {
			frames[under].kind, frames[under].end = "headers", sign == "|"
			return frames, nil
		}
		name, value, _ := strings.Cut(string(text[1:]), ": ")
		name, ok := strings.CutSuffix(name, ":")
		if value == "" && !ok {
			return nil, fmt.Errorf("not a field")
		}
		frames[under].fields = append(frames[under].fields, [2]string{string(text[:1]) + name, value})
	case "=", "=|":
		frames = append(frames, frame{kind: "data", data: text, end: sign == "=|"})
	case "!":
		what, name, _ := strings.Cut(rest, " ")
		for code := range http2.ErrCode(14) {
			if code.String() == name {
				return append(frames, frame{kind: what, code: code}), nil
			}
		}
		return nil, fmt.Errorf("no such code")
	default:
		return nil, fmt.Errorf("no such line")
	}
	return frames, nil
}

// answers makes sure that the application has an answer.
func (s *scenario) answers() *answer {
	if s.answer == nil {
		s.answer = &answer{}
	}
	return s.answer
}

// sent is all that the client sends.
func (s *scenario) sent() (all []byte) {
	for _, st := range s.steps {
		all = append(all, st.send...)
	}
	return all
}

// judge says what is wrong with a case by itself: what the proxy is expected to do must follow from the verdict, or be argued.
func (s *scenario) judge() error {
	served := true
	for word := range strings.FieldsSeq(s.want) {
		n, _ := strconv.Atoi(word)
		served = served && n < 400 && word != "cut" && word != "reset" && word != "goaway" && s.want != "close"
	}
	if s.why == "" && (s.verdict == "refuse" && served || s.verdict == "serve" && !served) {
		return fmt.Errorf("the verdict is %q and the answer %q, with no word why", s.verdict, s.want)
	}
	return nil
}

// rewrite puts what was forwarded in place of what the file has, by case.
func (f *table) rewrite(forwarded map[*scenario][]byte) error {
	byLine := map[int]*scenario{}
	for _, c := range f.classes {
		for _, s := range c.cases {
			byLine[s.line] = s
		}
	}
	prefix := ">>"
	if f.responses {
		prefix = "<"
	}
	var out []string
	var s *scenario
	for i, line := range f.lines {
		if at := byLine[i+1]; at != nil {
			s = at
		}
		if word, _, _ := strings.Cut(line, " "); s != nil && word == prefix {
			continue
		}
		out = append(out, line)
		if word, _, _ := strings.Cut(line, " "); s != nil && word == "=" {
			for _, l := range quote(forwarded[s]) {
				out = append(out, strings.TrimSuffix(prefix+" "+l, " "))
			}
		}
	}
	return os.WriteFile(f.path, []byte(strings.Join(out, "\n")+"\n"), 0o600)
}

var repeated = regexp.MustCompile(`\\\{(.*?)\*(\d+)\}`)

// unquote reads one line of bytes.
func unquote(line string) ([]byte, error) {
	line = repeated.ReplaceAllStringFunc(line, func(m string) string {
		p := repeated.FindStringSubmatch(m)
		n, _ := strconv.Atoi(p[2])
		return strings.Repeat(p[1], n)
	})
	var b []byte
	for i := 0; i < len(line); i++ {
		if line[i] != '\\' {
			b = append(b, line[i])
			continue
		}
		if i++; i == len(line) {
			return b, nil
		}
		switch line[i] {
		case 'r':
			b = append(b, '\r')
		case 'n':
			b = append(b, '\n')
		case 't':
			b = append(b, '\t')
		case '0':
			b = append(b, 0)
		case '\\':
			b = append(b, '\\')
		case 'x':
			if i+2 >= len(line) {
				return nil, fmt.Errorf("half an escape")
			}
			n, err := strconv.ParseUint(line[i+1:i+3], 16, 8)
			if err != nil {
				return nil, err
			}
			b = append(b, byte(n))
			i += 2
		default:
			return nil, fmt.Errorf("no such escape: \\%c", line[i])
		}
	}
	return append(b, '\r', '\n'), nil
}

// quote writes bytes as lines that unquote reads.
func quote(b []byte) (lines []string) {
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte("\r\n"))
		b = rest
		var w strings.Builder
		for i := 0; i < len(line); {
			c, n := line[i], 1
			for i+n < len(line) && line[i+n] == c {
				n++
			}
			one := quoteByte(c, i+n == len(line))
			if n >= 40 && len(one) == 1 {
				fmt.Fprintf(&w, `\{%s*%d}`, one, n)
			} else {
				w.WriteString(strings.Repeat(one, n))
			}
			i += n
		}
		if !ended {
			w.WriteByte('\\')
		}
		lines = append(lines, w.String())
	}
	return lines
}

func quoteByte(c byte, last bool) string {
	switch {
	case c == '\r':
		return `\r`
	case c == '\n':
		return `\n`
	case c == '\t':
		return `\t`
	case c == 0:
		return `\0`
	case c == '\\':
		return `\\`
	case c < ' ' || c >= 0x7f || c == ' ' && last:
		return fmt.Sprintf(`\x%02x`, c)
	}
	return string(c)
}

// TestQuote reads and writes lines of every byte.
func TestQuote(t *testing.T) {
	var all []byte
	for i := range 256 {
		all = append(all, byte(i), ' ')
	}
	all = append(all, "\r\n\r\na \r\n\\\r\nb\\x\r\n"...)
	all = append(append(all, bytes.Repeat([]byte("y"), 100)...), " end "...)
	var back []byte
	for _, line := range quote(all) {
		b, err := unquote(line)
		if err != nil {
			t.Fatal(err)
		}
		back = append(back, b...)
	}
	if !bytes.Equal(back, all) {
		t.Errorf("%q", back)
	}
}
