// Package policy holds what a rule does to a request or to its answer besides choosing where it goes: header edits,
// rewrites, redirects and CORS.
//
// Each policy is compiled once, when a generation is built, and then only read: all are safe for concurrent use, and
// nil stands for one that does nothing.
package policy

import (
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

// Scratch holds the buffers that policies need; the caller keeps one and hands it in. The zero Scratch is ready.
type Scratch struct{ path []byte }

// Edits change the fields of a head: first removals, then replacements, then additions.
type Edits struct {
	remove    []field
	set       []field
	add       []field
	authority []byte // nil leaves it
}

type field struct {
	id    message.ID
	name  string
	bytes []byte // the name again
	value []byte
}

// NewEdits compiles e, or returns nil where nothing is left to do. Fields that belong to the connection or to framing
// (Connection, Content-Length, Transfer-Encoding, Upgrade, ...), names that are no token and values with a line's end
// are left out: whoever compiles a mesh has refused them before. "host" and ":authority" stand for a request's
// authority, which can be set but not removed.
func NewEdits(e model.HeaderEdits) *Edits {
	var out Edits
	for _, name := range e.Remove {
		if f, ok := newField(name, ""); ok {
			out.remove = append(out.remove, f)
		}
	}
	out.set = out.fields(e.Set)
	out.add = out.fields(e.Add)
	if len(out.remove)+len(out.set)+len(out.add) == 0 && out.authority == nil {
		return nil
	}
	return &out
}

func (e *Edits) fields(from []model.NameValue) (to []field) {
	for _, nv := range from {
		if namesAuthority(nv.Name) {
			if nv.Value != "" && isClean(nv.Value) {
				e.authority = []byte(nv.Value)
			}
			continue
		}
		if f, ok := newField(nv.Name, nv.Value); ok {
			to = append(to, f)
		}
	}
	return to
}

func newField(name, value string) (f field, ok bool) {
	f = field{id: message.IdentifyString(name), name: name, bytes: []byte(name), value: []byte(value)}
	return f, !namesAuthority(name) && !isFixed(f.id, name) && isToken(name) && !strings.ContainsAny(value, "\r\n\x00")
}

func namesAuthority(name string) bool { return name == ":authority" || strings.EqualFold(name, "host") }

// isFixed says whether a field belongs to the connection or to the message's framing (RFC 9110 §7.6.1), which only codecs write.
func isFixed(id message.ID, name string) bool {
	switch id {
	case message.Connection, message.ContentLength, message.Expect, message.KeepAlive, message.ProxyConnection,
		message.TE, message.Trailer, message.TransferEncoding, message.Upgrade:
		return true
	}
	return strings.EqualFold(name, "http2-settings")
}

// isToken says whether name can be a field's name (RFC 9110 §5.6.2).
func isToken(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return name != ""
}

// isClean says whether s can stand in a request line or a Location: printable ASCII without spaces, and bytes above ASCII.
func isClean(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// Request changes r. The nil Edits change nothing.
func (e *Edits) Request(r *message.Request) {
	if e == nil {
		return
	}
	e.head(&r.Head)
	if e.authority != nil {
		r.SetAuthority(e.authority)
	}
}

// Response changes r. The nil Edits change nothing.
func (e *Edits) Response(r *message.Response) {
	if e != nil {
		e.head(&r.Head)
	}
}

func (e *Edits) head(h *message.Head) {
	for i := range e.remove {
		if f := &e.remove[i]; f.id != message.Other {
			h.Remove(f.id)
		} else {
			h.RemoveName(f.name)
		}
	}
	for i := range e.set {
		f := &e.set[i]
		h.SetBytes(f.id, f.name, f.value)
	}
	for i := range e.add {
		f := &e.add[i]
		h.Append(f.id, f.bytes, f.value)
	}
}
