// Package detect says from the first bytes of a connection what is spoken on it, and reads a TLS client's hello.
//
// It is pure and does not allocate: callers keep the bytes, read more while the answer is More, and decide for
// themselves how long they wait. A client that stays silent (server-first protocols: MySQL, SMTP, FTP) is theirs to time out.
package detect

import (
	"bytes"
	"strings"
)

// Kind is what the first bytes say.
type Kind uint8

// Kinds.
const (
	More   Kind = iota // too few bytes to tell
	HTTP1              // a request line, or what can only have been meant as one
	HTTP2              // the whole client preface (RFC 9113, 3.4)
	TLS                // the record of a ClientHello
	Opaque             // anything else
)

func (k Kind) String() string {
	return [...]string{"more", "http1", "http2", "tls", "opaque"}[min(k, Opaque)]
}

// Preface is what an HTTP/2 client begins with.
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Most is how many bytes First needs at most: with so many it never answers More.
const Most = 8 << 10

// maxMethod is the longest method taken for one, in bytes.
const maxMethod = 32

// First says what is spoken on a connection that begins with b.
//
// A known method, a space and what can begin a request target are HTTP1 at once, so that an HTTP client's mistakes get
// HTTP's answers. Any other token is a method only in a whole request line that ends in an HTTP version: SSH's banner,
// inline Redis commands, SMTP's or FTP's verbs and NATS's CONNECT are tokens and spaces too. One or two empty lines
// before the request are passed over (RFC 9112, 2.2). A preface that goes wrong after "PRI " is HTTP1, to be refused there.
func First(b []byte) Kind {
	if len(b) == 0 {
		return More
	}
	if b[0] == recordHandshake {
		return firstTLS(b)
	}
	if len(b) >= 4 && string(b[:4]) == Preface[:4] || len(b) < 4 && string(b) == Preface[:len(b)] {
		return firstHTTP2(b)
	}
	line := b
	for range 2 {
		if len(line) > 0 && line[0] == '\r' {
			if len(line) == 1 {
				return More
			}
			if line[1] != '\n' {
				return Opaque
			}
			line = line[2:]
		}
	}
	return firstHTTP1(line)
}

func firstHTTP2(b []byte) Kind {
	n := min(len(b), len(Preface))
	switch {
	case string(b[:n]) != Preface[:n]:
		return HTTP1
	case n < len(Preface):
		return More
	}
	return HTTP2
}

// firstTLS checks the head of a record and its first byte, which a ClientHello's must be (RFC 8446, 4 and 5.1).
func firstTLS(b []byte) Kind {
	for i, c := range b[:min(len(b), 6)] {
		ok := true
		switch i {
		case 0:
			ok = c == recordHandshake
		case 1:
			ok = c == 3
		case 2:
			ok = c <= 4
		case 3:
			ok = c <= maxRecord>>8
		case 4:
			n := int(b[3])<<8 | int(c)
			ok = 0 < n && n <= maxRecord
		case 5:
			ok = c == typeClientHello
		}
		if !ok {
			return Opaque
		}
	}
	if len(b) < 6 {
		return More
	}
	return TLS
}

// known reports whether m is a method that is known well enough for its first bytes to be believed: RFC 9110, RFC 5789, WebDAV and its kin, QUERY,
// and what caches and UPnP use.
func known(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
		"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "ACL", "BIND", "UNBIND", "REBIND",
		"CHECKOUT", "CHECKIN", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKWORKSPACE", "VERSION-CONTROL", "LINK", "UNLINK",
		"PURGE", "BAN", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "M-SEARCH", "SOURCE":
		return true
	}
	return false
}

func firstHTTP1(b []byte) Kind {
	n := 0
	for n < len(b) && isToken(b[n]) {
		n++
	}
	switch {
	case n > maxMethod:
		return Opaque
	case n == len(b):
		return More
	case n == 0 || b[n] != ' ':
		return Opaque
	}
	method, target := b[:n], b[n+1:]
	begin := targetBegins(target, string(method) == "CONNECT")
	if begin != HTTP1 {
		return begin
	}
	if known(method) {
		return HTTP1
	}
	return requestLine(target, len(b))
}

// targetBegins says whether b can begin a request target (RFC 9112, 3.2): HTTP1 if so.
func targetBegins(b []byte, connect bool) Kind {
	if len(b) == 0 {
		return More
	}
	if connect { // authority form
		return authorityBegins(b)
	}
	if b[0] == '/' {
		return HTTP1
	}
	for _, form := range [...]string{"* HTTP/", "http://", "https://"} {
		n := min(len(b), len(form))
		if !hasPrefixFold(b[:n], form[:n]) {
			continue
		}
		if n < len(form) {
			return More
		}
		return HTTP1
	}
	return Opaque
}

// maxAuthority is the longest authority taken for one: a host name, a colon and a port.
const maxAuthority = 255 + 1 + 5

// authorityBegins wants a whole authority and the version's name after it: "CONNECT " begins commands of NATS and IRC too.
func authorityBegins(b []byte) Kind {
	n := 0
	for n < len(b) && (isAlphanumeric(b[n]) || bytes.IndexByte(authorityMarks, b[n]) >= 0) {
		n++
	}
	switch {
	case n > maxAuthority || n < len(b) && (n == 0 || b[n] != ' '):
		return Opaque
	case n == len(b):
		return More
	}
	const version = "HTTP/"
	rest := b[n+1:]
	if m := min(len(rest), len(version)); string(rest[:m]) != version[:m] {
		return Opaque
	} else if m < len(version) {
		return More
	}
	return HTTP1
}

// requestLine wants the rest of a request line: a target without blanks, a version, the line's end. had is how many
// bytes there are in all.
func requestLine(b []byte, had int) Kind {
	const version = " HTTP/1.1"
	for i, c := range b {
		switch {
		case c == '\n':
			line := bytes.TrimSuffix(b[:i], cr)
			at := len(line) - len(version)
			if at < 1 || string(line[at:at+6]) != version[:6] || !isDigit(line[at+6]) || line[at+7] != '.' || !isDigit(line[at+8]) ||
				bytes.IndexByte(line[:at], ' ') >= 0 {
				return Opaque
			}
			return HTTP1
		case c < ' ' && c != '\r' || c == 0x7f:
			return Opaque
		}
	}
	if had >= Most {
		return Opaque
	}
	return More
}

var (
	cr             = []byte("\r")
	authorityMarks = []byte(".-_:[]%")
)

func hasPrefixFold(b []byte, prefix string) bool {
	for i := range len(prefix) {
		c := b[i]
		if 'A' <= c && c <= 'Z' && prefix[i] >= 'a' {
			c += 'a' - 'A'
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlphanumeric(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// isToken reports whether c may be in a method (RFC 9110, 5.6.2).
func isToken(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
