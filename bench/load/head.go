package load

import (
	"bytes"
	"errors"
)

var headEnd = []byte("\r\n\r\n")

// errFraming is what a message with a body that this tool cannot measure gets: it speaks Content-Length only.
var errFraming = errors.New("a message with Transfer-Encoding: the load tool understands Content-Length only")

// head is what both sides need to know about a message.
type head struct {
	size int // bytes of the head, its empty line included; 0 where it is not complete yet
	body int // Content-Length; -1 where there is none
}

// parseHead reads the head at the start of b. It trusts its input: both ends of the measurement are known programs.
func parseHead(b []byte) (head, error) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return head{}, nil
	}
	h := head{size: end + len(headEnd), body: -1}
	lines := b[:end+2]
	for at := bytes.IndexByte(lines, '\n') + 1; at < len(lines); {
		next := bytes.IndexByte(lines[at:], '\n')
		line := lines[at : at+next-1]
		at += next + 1
		switch {
		case named(line, "content-length:"):
			h.body = number(line[len("content-length:"):])
		case named(line, "transfer-encoding:"):
			return head{}, errFraming
		}
	}
	return h, nil
}

// named says whether line starts with prefix, which is in lower case; the first and last bytes are looked at first,
// since nearly no line passes them.
func named(line []byte, prefix string) bool {
	n := len(prefix)
	if len(line) < n || line[0]|0x20 != prefix[0] || line[n-1] != ':' {
		return false
	}
	for i := 1; i < n-1; i++ {
		c := line[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}

// number reads the decimal number in b, spaces around it allowed; -1 where there is none.
func number(b []byte) int {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return -1
	}
	v := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		v = v*10 + int(c-'0')
	}
	return v
}

// status returns the status code in the status line at the start of b; -1 where that is no HTTP/1.1 answer.
func status(b []byte) int {
	if len(b) < len("HTTP/1.1 200") || string(b[:len("HTTP/1.")]) != "HTTP/1." {
		return -1
	}
	return number(b[len("HTTP/1.1 "):len("HTTP/1.1 200")])
}
