package detect

import (
	"errors"
	"fmt"
)

// Sizes and codes of TLS records and handshakes (RFC 8446, 4 and 5.1).
const (
	recordHandshake = 22
	maxRecord       = 1 << 14
	recordHead      = 5
	handshakeHead   = 4
	typeClientHello = 1

	extServerName = 0
	extALPN       = 16
	extVersions   = 43

	maxExtensions = 128 // browsers send about 20; each is compared with all before it
)

// MaxHello is the most bytes that a hello may take, record heads included: with so many ReadHello never asks for more.
const MaxHello = 16 << 10

// Errors of ReadHello. What they wrap says more.
var (
	ErrNotTLS    = errors.New("not a TLS ClientHello")
	ErrTooLong   = fmt.Errorf("TLS ClientHello of more than %d bytes", MaxHello)
	ErrMalformed = errors.New("malformed TLS ClientHello")
)

var (
	errName     = fmt.Errorf("%w: its server name is not a host name", ErrMalformed)
	errTwice    = fmt.Errorf("%w: an extension comes twice", ErrMalformed)
	errMany     = fmt.Errorf("%w: more than %d extensions", ErrMalformed, maxExtensions)
	errFragment = fmt.Errorf("%w: records of another type, or empty ones, inside", ErrMalformed)
	errShort    = fmt.Errorf("%w: lengths inside do not agree", ErrMalformed)
)

// Hello is what a ClientHello says that connections are routed by. Its caller owns it and may use it again: its memory
// grows to what hellos need and stays. ECH is not looked into: the outer, public name is the name.
type Hello struct {
	ServerName []byte   // as sent: a host name in any case, without a trailing dot; empty where there is none
	ALPN       [][]byte // protocols in the client's order, GREASE among them
	Versions   []uint16 // TLS versions in the client's order, GREASE left out; from the legacy version where there is no list
	Length     int      // of the message, in bytes, its head included

	buf  []byte // what the slices above point into
	seen []uint16
}

// Offers reports whether protocol is among the ALPN protocols.
func (h *Hello) Offers(protocol string) bool {
	for _, p := range h.ALPN {
		if string(p) == protocol {
			return true
		}
	}
	return false
}

func (h *Hello) reset() {
	h.ServerName, h.ALPN, h.Versions, h.Length = nil, h.ALPN[:0], h.Versions[:0], 0
	h.buf, h.seen = h.buf[:0], h.seen[:0]
}

// ReadHello reads the ClientHello that b begins with into h, whose slices stay good until the next use of h, and returns
// how many bytes of b its records take, however many there are of them. 0 without an error asks for more bytes.
//
// It refuses what crypto/tls refuses about names, protocols and versions, so that a connection cannot be routed by
// one name and be served under another; and names with bytes that no host name has.
func ReadHello(b []byte, h *Hello) (n int, err error) {
	h.reset()
	n, err = h.gather(b)
	if n == 0 || err != nil {
		return 0, err
	}
	if err := h.parse(); err != nil {
		h.reset()
		return 0, err
	}
	return n, nil
}

// gather copies the message out of its records once all of it is there.
func (h *Hello) gather(b []byte) (int, error) {
	if k := firstTLS(b[:min(len(b), 6)]); k != TLS {
		if k == More || len(b) == 0 {
			return 0, nil
		}
		return 0, ErrNotTLS
	}
	if len(b) >= recordHead+handshakeHead {
		// Nearly always the first record holds all of it: then what is not all there yet need not be copied.
		size, length := int(b[3])<<8|int(b[4]), int(b[6])<<16|int(b[7])<<8|int(b[8])
		if size >= handshakeHead+length && len(b) < recordHead+handshakeHead+length {
			return 0, nil
		}
	}
	need, at := handshakeHead, 0
	for at < len(b) && len(h.buf) < need {
		if at > 0 && b[at] != recordHandshake || at+1 < len(b) && b[at+1] != 3 {
			return 0, errFragment
		}
		if len(b)-at < recordHead {
			break
		}
		size := int(b[at+3])<<8 | int(b[at+4])
		if size == 0 || size > maxRecord {
			return 0, errFragment
		}
		at += recordHead
		h.buf = append(h.buf, b[at:min(at+size, len(b))]...)
		at += size
		if len(h.buf) >= handshakeHead {
			need = handshakeHead + int(h.buf[1])<<16 + int(h.buf[2])<<8 + int(h.buf[3])
			if need > MaxHello-recordHead {
				return 0, ErrTooLong
			}
		}
	}
	switch {
	case len(h.buf) > need:
		return 0, errShort // a hello ends its record (RFC 8446, 5.1)
	case at > MaxHello, len(h.buf) < need && len(b) >= MaxHello:
		return 0, ErrTooLong
	case len(h.buf) < need || at > len(b):
		return 0, nil
	}
	h.Length = need
	return at, nil
}

// cursor reads through a message. After the first read past its end it is bad, and reads zeros.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) u8() int {
	if p := c.take(1); p != nil {
		return int(p[0])
	}
	return 0
}

func (c *cursor) u16() int {
	if p := c.take(2); p != nil {
		return int(p[0])<<8 | int(p[1])
	}
	return 0
}

func (h *Hello) parse() error {
	c := cursor{b: h.buf[handshakeHead:]}
	legacy := c.u16()
	c.take(32)     // random
	c.take(c.u8()) // session id
	suites := c.u16()
	c.take(suites)
	c.take(c.u8()) // compression methods
	if c.bad || suites%2 != 0 {
		return errShort
	}
	if len(c.b) > 0 {
		n := c.u16()
		if n != len(c.b) {
			return errShort
		}
		if err := h.extensions(&c); err != nil {
			return err
		}
	}
	if len(h.Versions) == 0 {
		h.legacy(legacy)
	}
	return nil
}

// legacy fills Versions where no list was sent: TLS 1.2 and below (RFC 8446, 4.2.1).
func (h *Hello) legacy(version int) {
	for v := min(version, 0x0303); v >= 0x0301; v-- {
		h.Versions = append(h.Versions, uint16(v))
	}
}

func (h *Hello) extensions(c *cursor) error {
	for len(c.b) > 0 {
		kind := uint16(c.u16())
		e := cursor{b: c.take(c.u16())}
		if c.bad {
			return errShort
		}
		for _, s := range h.seen {
			if s == kind {
				return errTwice
			}
		}
		if len(h.seen) == maxExtensions {
			return errMany
		}
		h.seen = append(h.seen, kind)
		var err error
		switch kind {
		case extServerName:
			err = h.name(&e)
		case extALPN:
			err = h.alpn(&e)
		case extVersions:
			err = h.versions(&e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// name reads a server_name extension (RFC 6066, 3).
func (h *Hello) name(e *cursor) error {
	list := cursor{b: e.take(e.u16())}
	if e.bad || len(e.b) > 0 || len(list.b) == 0 {
		return errShort
	}
	for len(list.b) > 0 {
		kind := list.u8()
		name := list.take(list.u16())
		switch {
		case list.bad:
			return errShort
		case len(name) == 0:
			return errName
		case kind != 0:
			continue
		case len(h.ServerName) > 0:
			return errTwice
		case !isHost(name):
			return errName
		}
		h.ServerName = name
	}
	return nil
}

// isHost is lenient: any visible ASCII but what would confuse whoever logs it or looks it up.
func isHost(name []byte) bool {
	if len(name) > 255 || name[len(name)-1] == '.' {
		return false
	}
	for _, c := range name {
		switch {
		case isAlphanumeric(c), c == '-', c == '.', c == '_', c == ':', c == '*':
		default:
			return false
		}
	}
	return true
}

// alpn reads a list of protocols (RFC 7301, 3.1).
func (h *Hello) alpn(e *cursor) error {
	list := cursor{b: e.take(e.u16())}
	if e.bad || len(e.b) > 0 || len(list.b) == 0 {
		return errShort
	}
	for len(list.b) > 0 {
		p := list.take(list.u8())
		if list.bad || len(p) == 0 {
			return errShort
		}
		h.ALPN = append(h.ALPN, p)
	}
	return nil
}

// versions reads a supported_versions extension (RFC 8446, 4.2.1).
func (h *Hello) versions(e *cursor) error {
	list := cursor{b: e.take(e.u8())}
	if e.bad || len(e.b) > 0 || len(list.b) == 0 {
		return errShort
	}
	for len(list.b) > 0 {
		v := uint16(list.u16())
		if list.bad {
			return errShort
		}
		if v>>8 == v&0xff && v&0x0f == 0x0a { // GREASE (RFC 8701)
			continue
		}
		h.Versions = append(h.Versions, v)
	}
	return nil
}
