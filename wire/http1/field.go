package http1

import (
	"encoding/binary"
	"math/bits"

	"github.com/outrider-mesh/outrider/wire/message"
)

// token says which bytes may stand in a token (RFC 9110 §5.6.2): methods, field names, connection options.
var token = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// controls marks, by its highest bit, the lowest byte of x that is a control character; marks above it mean nothing.
func controls(x uint64) uint64 {
	del := x ^ 0x7f*ones
	return ((x-0x20*ones)&^x | (del-ones)&^del) & highs
}

// text returns the first place at or after i where b holds a control character other than TAB; len(b) where there is none.
// Eight bytes a step (BenchmarkReadRequest).
func text(b []byte, i int) int {
	for i+8 <= len(b) {
		m := controls(binary.LittleEndian.Uint64(b[i:]))
		if m == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(m) / 8
		if b[i] != '\t' {
			return i
		}
		i++
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < ' ' && c != '\t' || c == 0x7f {
			return i
		}
	}
	return i
}

// fieldLine finds the parts of the field line that begins at b[i]: the name ends at colon, the value is b[value:end],
// the next line begins at next. There must be an LF in b[i:].
func fieldLine(b []byte, i int) (id message.ID, colon, value, end, next int, err *Error) {
	colon = indexColon(b, i)
	// A known name is a token as it stands; others are looked at byte by byte.
	if id = message.Identify(b[i:colon]); id == message.Other {
		n := i
		for n < colon && token[b[n]] {
			n++
		}
		if n < colon || n == i {
			return 0, 0, 0, 0, 0, notName(b, i, n)
		}
	}
	value = colon + 1
	for value < len(b) && (b[value] == ' ' || b[value] == '\t') {
		value++
	}
	end = text(b, value)
	if end+1 >= len(b) || b[end] != '\r' || b[end+1] != '\n' {
		return 0, 0, 0, 0, 0, notText(b, end)
	}
	next = end + 2
	for end > value && (b[end-1] == ' ' || b[end-1] == '\t') {
		end--
	}
	return id, colon, value, end, next, nil
}

// indexColon returns the first place at or after i where b holds a colon; len(b) where there is none.
func indexColon(b []byte, i int) int {
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:]) ^ ':'*ones
		if m := (x - ones) &^ x & highs; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
		i += 8
	}
	for i < len(b) && b[i] != ':' {
		i++
	}
	return i
}

// notName says why the line at b[i] has no field name that a colon ends at b[at].
func notName(b []byte, i, at int) *Error {
	switch c := b[at]; {
	case at == i && (c == ' ' || c == '\t'):
		return errFold
	case c == ' ' || c == '\t':
		return errSpaceColon
	case c == '\r' && at+1 < len(b) && b[at+1] == '\n':
		return errNoColon
	case c == '\r':
		return errBareCR
	case c == '\n':
		return errBareLF
	}
	return errFieldName
}

// notText says what ends the text at b[at] that is no CRLF.
func notText(b []byte, at int) *Error {
	switch {
	case at >= len(b) || b[at] == '\r' && at+1 >= len(b):
		return errIncomplete
	case b[at] == '\r':
		return errBareCR
	case b[at] == '\n':
		return errBareLF
	}
	return errControl
}

// piece is a part of a head: n bytes at off.
type piece struct{ off, n int }

func (p piece) of(b []byte) []byte { return b[p.off : p.off+p.n] }

// framing gathers what the fields of one head say about its connection and its body.
type framing struct {
	host, length, coding    piece // the first of each
	hosts, lengths, codings int   // how many there are

	closes, keepAlive, upgrades bool // connection options
	nominates                   bool // there are Connection fields that need a closer look: they are in the list
	switches                    bool // there are Upgrade fields: they are in the list
	expects                     bool // 100-continue
	trailers                    bool // TE: trailers
}

// take looks at a field that is hop-by-hop or tells something to us, and keeps in h what is looked at once the head is read.
func (f *framing) take(h *message.Head, b []byte, id message.ID, name, value piece) *Error {
	switch id {
	case message.Host:
		f.host = value
		f.hosts++
	case message.ContentLength:
		f.length = value
		f.lengths++
	case message.TransferEncoding:
		f.coding = value
		f.codings++
	case message.Connection:
		switch v := value.of(b); {
		case message.EqualFold(v, "keep-alive"):
			f.keepAlive = true
		case message.EqualFold(v, "close"):
			f.closes = true
		default:
			f.nominates = true
			h.AppendAt(id, name.off, name.n, value.off, value.n)
		}
	case message.Upgrade:
		f.switches = true
		h.AppendAt(id, name.off, name.n, value.off, value.n)
	case message.Expect:
		for v, more := value.of(b), true; more; {
			var option []byte
			if option, v, more = element(v); !message.EqualFold(option, "100-continue") {
				return errExpect
			}
		}
		f.expects = true
	case message.TE:
		for v, more := value.of(b), true; more; {
			var coding []byte
			coding, v, more = element(v)
			f.trailers = f.trailers || message.EqualFold(coding, "trailers")
		}
	}
	return nil
}

// element splits the first element off a comma-separated list, without the white space around it.
func element(list []byte) (first, rest []byte, more bool) {
	first = list
	for i, c := range list {
		if c == ',' {
			first, rest, more = list[:i], list[i+1:], true
			break
		}
	}
	for len(first) > 0 && (first[0] == ' ' || first[0] == '\t') {
		first = first[1:]
	}
	for n := len(first); n > 0 && (first[n-1] == ' ' || first[n-1] == '\t'); n-- {
		first = first[:n-1]
	}
	return first, rest, more
}

// connectionOptions is how many options one message's Connection fields may name: each costs a look at all fields.
const connectionOptions = 32

// connection obeys the Connection fields that take left in h: it removes the fields that they nominate (RFC 9110 §7.6.1)
// but for those that belong to the whole way, and then the Connection fields themselves.
func (f *framing) connection(h *message.Head) *Error {
	left := connectionOptions
	for i := range h.Len() {
		id, name, v := h.Field(i)
		if id != message.Connection || len(name) == 0 {
			continue
		}
		for more := true; more; {
			var option []byte
			if option, v, more = element(v); len(option) == 0 {
				continue // RFC 9110 §5.6.1: empty elements do not count
			}
			if left--; left < 0 || !isToken(option) {
				return errConnection
			}
			switch {
			case message.EqualFold(option, "close"):
				f.closes = true
			case message.EqualFold(option, "keep-alive"):
				f.keepAlive = true
			case message.EqualFold(option, "upgrade"):
				f.upgrades = true
			default:
				if id := message.Identify(option); id != message.Connection && !endToEnd(id, option) {
					h.RemoveNamed(id, option)
				}
			}
		}
	}
	h.Remove(message.Connection)
	return nil
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !token[c] {
			return false
		}
	}
	return len(b) > 0
}

// upgrade takes the Upgrade fields out of h and returns the protocols that they list, without those that would carry
// HTTP past us: h2c and other versions of HTTP, and TLS inside the connection (RFC 2817).
func (f *framing) upgrade(h *message.Head) (protocols []byte, err *Error) {
	for i := range h.Len() {
		id, name, v := h.Field(i)
		if id != message.Upgrade || len(name) == 0 {
			continue
		}
		for more := true; more; {
			var p []byte
			if p, v, more = element(v); len(p) == 0 {
				continue
			}
			product := p
			for j, c := range p {
				if c == '/' {
					product = p[:j]
					if !isToken(p[j+1:]) {
						return nil, errUpgrade
					}
					break
				}
			}
			if !isToken(product) {
				return nil, errUpgrade
			}
			if message.EqualFold(product, "h2c") || message.EqualFold(product, "h2") ||
				message.EqualFold(product, "http") || message.EqualFold(product, "tls") {
				continue
			}
			if len(protocols) > 0 {
				protocols = append(protocols, ", "...)
			}
			protocols = append(protocols, p...)
		}
	}
	h.Remove(message.Upgrade)
	return protocols, nil
}

// bodyLength returns the length of the body that the framing fields tell, or declared false where there are none.
func (f *framing) bodyLength(b []byte, v message.Version) (n int64, declared bool, err *Error) {
	switch {
	case f.codings > 0 && v == message.HTTP10:
		return 0, false, errTEVersion // RFC 9112 §6.1: faulty framing
	case f.codings > 0 && f.lengths > 0:
		return 0, false, errLengthAndTE
	case f.codings > 1:
		return 0, false, errTE
	case f.codings == 1:
		if e := transferCoding(f.coding.of(b)); e != nil {
			return 0, false, e
		}
		return message.UnknownLength, true, nil
	case f.lengths > 1:
		return 0, false, errLengths
	case f.lengths == 1:
		n, ok := decimal(f.length.of(b))
		if !ok {
			return 0, false, errLength
		}
		return n, true, nil
	}
	return 0, false, nil
}

// transferCoding accepts exactly "chunked" (RFC 9112 §6.1, §6.3).
func transferCoding(v []byte) *Error {
	if message.EqualFold(v, "chunked") {
		return nil
	}
	for more := true; more; {
		var coding []byte
		coding, v, more = element(v)
		chunked := message.EqualFold(coding, "chunked")
		if len(coding) == 0 || chunked && more || !chunked && !more {
			return errTE
		}
	}
	return errTEUnknown
}

// decimal returns the number that v spells with digits alone.
func decimal(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 19 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0') // 19 digits overflow into a negative number at most
	}
	return n, n >= 0
}
