package cli

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// screen is an output that is redrawn in place where it is a terminal.
type screen struct {
	w        io.Writer
	terminal bool
	colour   bool
	drawn    int // lines of the last drawing
}

func newScreen(w io.Writer) *screen {
	t := isTerminal(w) && os.Getenv("TERM") != "dumb"
	return &screen{w: w, terminal: t, colour: t && os.Getenv("NO_COLOR") == ""}
}

// isTerminal says whether w is a character device other than the null device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// draw puts text where the last drawing was.
func (s *screen) draw(text string) error {
	var b strings.Builder
	if s.drawn > 0 {
		b.WriteString("\x1b[" + strconv.Itoa(s.drawn) + "F\x1b[J") // up to the first line; clear to the end
	}
	if s.terminal {
		// Lines that are too long are cut, not wrapped: the next drawing must find the first line of this one.
		text = "\x1b[?7l" + text + "\x1b[?7h"
	}
	b.WriteString(text)
	if s.terminal {
		s.drawn = strings.Count(text, "\n")
	}
	_, err := io.WriteString(s.w, b.String())
	return err
}

// Styles of text on a terminal (ECMA-48, SGR).
const (
	bold  = "1"
	green = "32"
	red   = "31"
)

// style dresses text, where colours are wanted.
func (s *screen) style(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
