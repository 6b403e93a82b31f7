package accesslog

import (
	"strconv"
	"strings"
	"time"
)

// instant is one part of a time format: text, or what a specifier of strftime says, or Envoy's fractions of a second.
type instant struct {
	text   string // literal, where layout and verb are unset
	layout string // Go's
	verb   byte   // 's': seconds since 1970; 'f': digits of the second's fraction; 'j', 'e': day of the year, of the month
	digits int
}

// layouts are strftime's specifiers, as Go writes them.
var layouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'h': "Jan", 'z': "-0700", 'Z': "MST",
	'T': "15:04:05", 'F': "2006-01-02", 'D': "01/02/06", 'R': "15:04",
}

// defaultLayout is RFC 3339 with milliseconds, in UTC as every format.
var defaultLayout = []instant{{layout: "2006-01-02T15:04:05.000Z"}}

// parseLayout compiles a time format; bad is a specifier that has no meaning here.
func parseLayout(s string) (layout []instant, bad string) {
	if s == "" {
		return defaultLayout, ""
	}
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			i = len(s)
		}
		if i > 0 {
			layout, s = append(layout, instant{text: s[:i]}), s[i:]
			continue
		}
		if len(s) == 1 {
			return nil, "%"
		}
		made, n := specifier(s)
		if n == 0 {
			return nil, s[:2]
		}
		layout, s = append(layout, made), s[n:]
	}
	return layout, ""
}

// specifier reads the specifier at the beginning of s, and says how long it is; 0 is one without meaning.
func specifier(s string) (instant, int) {
	c := s[1]
	switch {
	case layouts[c] != "":
		return instant{layout: layouts[c]}, 2
	case c == '%' || c == 'n' || c == 't':
		return instant{text: map[byte]string{'%': "%", 'n': "\n", 't': "\t"}[c]}, 2
	case c == 's' || c == 'j' || c == 'e':
		return instant{verb: c}, 2
	case c == 'f':
		return instant{verb: 'f', digits: 9}, 2
	case '1' <= c && c <= '9' && len(s) > 2 && s[2] == 'f':
		return instant{verb: 'f', digits: int(c - '0')}, 3
	case strings.HasPrefix(s, "%E3S"):
		return instant{layout: "05.000"}, 4
	case strings.HasPrefix(s, "%E6S"):
		return instant{layout: "05.000000"}, 4
	case strings.HasPrefix(s, "%E9S"):
		return instant{layout: "05.000000000"}, 4
	}
	return instant{}, 0
}

// start appends a time.
func (p *piece) start(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if p.mode == asJSON {
		dst = append(dst, '"')
	}
	for i := range p.layout {
		switch l := &p.layout[i]; {
		case l.layout != "":
			dst = t.AppendFormat(dst, l.layout)
		case l.verb == 's':
			dst = strconv.AppendInt(dst, t.Unix(), 10)
		case l.verb == 'f':
			dst = padded(dst, t.Nanosecond(), 9)
			dst = dst[:len(dst)-9+l.digits]
		case l.verb == 'j':
			dst = padded(dst, t.YearDay(), 3)
		case l.verb == 'e':
			if t.Day() < 10 {
				dst = append(dst, ' ')
			}
			dst = strconv.AppendInt(dst, int64(t.Day()), 10)
		case p.mode == inText:
			dst = append(dst, l.text...)
		default:
			dst = appendJSON(dst, l.text)
		}
	}
	if p.mode == asJSON {
		dst = append(dst, '"')
	}
	return dst
}

// padded appends n with zeros before it.
func padded(dst []byte, n, digits int) []byte {
	for limit := 10; digits > 1; digits-- {
		pow := 1
		for range digits - 1 {
			pow *= limit
		}
		dst = append(dst, byte('0'+n/pow%10))
	}
	return append(dst, byte('0'+n%10))
}
