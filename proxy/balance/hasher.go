package balance

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

// Scratch holds the buffers that computing a key needs; the caller keeps one and hands it in. The zero Scratch is ready.
type Scratch struct {
	buf    []byte
	values [][]byte
}

// Hasher computes the key of a request. Safe for concurrent use. The nil Hasher finds no key.
type Hasher struct {
	header    string
	headerID  message.ID
	authority bool // header names the authority
	query     string
	source    bool
	cookie    string
	generate  bool   // make a cookie where there is none
	tail      []byte // what follows the value in Set-Cookie
}

// NewHasher returns the Hasher of h, or nil where h is nil or names nothing.
func NewHasher(h *model.HashKey) *Hasher {
	switch {
	case h == nil:
		return nil
	case h.Header != "":
		return &Hasher{
			header: h.Header, headerID: message.IdentifyString(h.Header),
			authority: h.Header == ":authority" || message.IdentifyString(h.Header) == message.Host,
		}
	case h.Cookie != nil && h.Cookie.Name != "":
		c := h.Cookie
		return &Hasher{cookie: c.Name, generate: c.TTL != nil, tail: cookieTail(c)}
	case h.SourceIP:
		return &Hasher{source: true}
	case h.Query != "":
		return &Hasher{query: h.Query}
	}
	return nil
}

// cookieTail returns what follows the value of a generated cookie, in Envoy's order: Max-Age in whole seconds (absent
// for a session cookie), Path, the attributes, HttpOnly.
func cookieTail(c *model.Cookie) []byte {
	var b []byte
	if c.TTL != nil && c.TTL.Std() >= time.Second {
		b = append(b, "; Max-Age="...)
		b = strconv.AppendInt(b, int64(c.TTL.Std()/time.Second), 10)
	}
	if c.Path != "" {
		b = append(append(b, "; Path="...), c.Path...)
	}
	for _, a := range c.Attributes {
		b = append(append(b, "; "...), a.Name...)
		if a.Value != "" {
			b = append(append(b, '='), a.Value...)
		}
	}
	return append(b, "; HttpOnly"...)
}

// Key returns the key of r as Envoy computes it: the xxHash64 of the header's value (of several fields: of their
// values sorted and run together), of the cookie's value, of the source address as text, or of the query parameter's
// first value, undecoded. Where a cookie is asked for that r lacks and it has a TTL, the key is that of a new random
// value, and setCookie is the Set-Cookie value that the answer must carry, valid until the next use of s.
func (h *Hasher) Key(r *message.Request, source netip.Addr, rnd *Rand, s *Scratch) (k Key, setCookie []byte) {
	switch {
	case h == nil:
		return Key{}, nil
	case h.authority:
		if a := r.Authority(); len(a) > 0 {
			return keyOf(a), nil
		}
	case h.header != "":
		return h.headerKey(r, s), nil
	case h.cookie != "":
		return h.cookieKey(r, rnd, s)
	case h.source:
		if source.IsValid() {
			s.buf = source.Unmap().WithZone("").AppendTo(s.buf[:0])
			return keyOf(s.buf), nil
		}
	default:
		if v, ok := r.Parameter(h.query); ok {
			return keyOf(v), nil
		}
	}
	return Key{}, nil
}

func keyOf(b []byte) Key { return Key{Hash: xxhash.Sum64(b), Has: true} }

func (h *Hasher) headerKey(r *message.Request, s *Scratch) Key {
	s.values = s.values[:0]
	for i := range r.Len() {
		id, name, value := r.Field(i)
		if id == h.headerID && len(name) > 0 && (id != message.Other || message.EqualFold(name, h.header)) {
			s.values = append(s.values, value)
		}
	}
	switch len(s.values) {
	case 0:
		return Key{}
	case 1:
		return keyOf(s.values[0])
	}
	slices.SortFunc(s.values, bytes.Compare)
	s.buf = s.buf[:0]
	for _, v := range s.values {
		s.buf = append(s.buf, v...)
	}
	return keyOf(s.buf)
}

func (h *Hasher) cookieKey(r *message.Request, rnd *Rand, s *Scratch) (k Key, setCookie []byte) {
	if v := cookie(r, h.cookie); len(v) > 0 {
		return keyOf(v), nil
	}
	if !h.generate {
		return Key{}, nil
	}
	var raw [8]byte
	for i, x := 0, rnd.Uint64(); i < len(raw); i, x = i+1, x>>8 {
		raw[i] = byte(x)
	}
	s.buf = append(append(s.buf[:0], h.cookie...), `="`...)
	from := len(s.buf)
	s.buf = hex.AppendEncode(s.buf, raw[:])
	k = keyOf(s.buf[from:])
	s.buf = append(append(s.buf, '"'), h.tail...)
	return k, s.buf
}

// cookie returns the value of the first cookie of that name, without the quotes around it (RFC 6265 §4.1.1); nothing
// where there is none.
func cookie(r *message.Request, name string) []byte {
	for i := range r.Len() {
		id, field, rest := r.Field(i)
		if id != message.Cookie || len(field) == 0 {
			continue
		}
		for more := true; more; {
			var pair []byte
			pair, rest, more = bytes.Cut(rest, semicolon)
			key, value, ok := bytes.Cut(pair, equals)
			if !ok || string(bytes.Trim(key, " \t")) != name {
				continue
			}
			value = bytes.Trim(value, " \t")
			if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
				value = value[1 : n-1]
			}
			return value
		}
	}
	return nil
}

var (
	semicolon = []byte(";")
	equals    = []byte("=")
)
