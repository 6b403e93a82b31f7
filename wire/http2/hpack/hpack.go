// Package hpack compresses and decompresses header fields (RFC 7541) without making a string or an allocation per field.
//
// Decoder and Encoder are the two ends of one direction of a connection. What was found out about a field once - which
// known name it has, whether HTTP/2 allows it - stays with its entry in the tables and costs nothing when it comes again.
package hpack

import (
	"errors"

	"github.com/outrider-mesh/outrider/wire/message"
)

// DefaultTableSize is the size of a dynamic table, in the units of RFC 7541 §4.1, unless settings say otherwise.
const DefaultTableSize = 4096

// Errors of a header block; each is a COMPRESSION_ERROR of the connection (RFC 9113 §4.3).
var (
	ErrTruncated = errors.New("the header block ends within a field")
	ErrIndex     = errors.New("a header field refers to an entry that the tables do not have")
	ErrInteger   = errors.New("an integer in the header block is too large")
	ErrHuffman   = errors.New("a string in the header block is not well coded")
	ErrUpdate    = errors.New("a table size update is too large or stands behind a field")
)

// Pseudo tells which pseudo-header field a field is (RFC 9113 §8.3, RFC 8441 §4).
type Pseudo uint8

// The pseudo-header fields. NotPseudo is an ordinary field, UnknownPseudo has a name that begins with a colon.
const (
	NotPseudo Pseudo = iota
	Method
	Scheme
	Authority
	Path
	Protocol
	Status
	UnknownPseudo
)

var pseudoNames = [UnknownPseudo]string{
	Method: ":method", Scheme: ":scheme", Authority: ":authority", Path: ":path", Protocol: ":protocol", Status: ":status",
}

// Flaw tells what makes a field one that HTTP/2 does not allow (RFC 9113 §8.2.1).
type Flaw uint8

// The flaws. A control character is one other than TAB, as in HTTP/1 here.
const (
	Sound      Flaw = iota
	BadName         // empty, or a byte that is in no token
	CapitalOne      // a capital letter in the name
	BadValue        // a control character in the value
	PaddedEnds      // white space at either end of the value
)

// Field is one decoded field. Name and Value are valid until the decoder's next step.
type Field struct {
	Name, Value []byte
	ID          message.ID
	Pseudo      Pseudo
	Flaw        Flaw
	// Private says that the sender wants the field in no compression table, at no hop (RFC 7541 §7.1.3).
	Private bool
}

// token says which bytes may stand in a field's name in HTTP/2: those of a token but capital letters.
var token = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

// identify finds out what a name is.
func identify(name []byte) (id message.ID, p Pseudo, flaw Flaw) {
	if len(name) == 0 {
		return message.Other, NotPseudo, BadName
	}
	if name[0] == ':' {
		for p := Method; p < UnknownPseudo; p++ {
			if string(name) == pseudoNames[p] {
				return message.Other, p, Sound
			}
		}
		return message.Other, UnknownPseudo, Sound
	}
	if id = message.Identify(name); id != message.Other {
		if string(name) != id.String() {
			return id, NotPseudo, CapitalOne
		}
		return id, NotPseudo, Sound
	}
	for _, c := range name {
		if !token[c] {
			if 'A' <= c && c <= 'Z' {
				return id, NotPseudo, CapitalOne
			}
			return id, NotPseudo, BadName
		}
	}
	return id, NotPseudo, Sound
}

// checkValue tells what is wrong with a value.
func checkValue(v []byte) Flaw {
	if len(v) == 0 {
		return Sound
	}
	if a, z := v[0], v[len(v)-1]; a == ' ' || a == '\t' || z == ' ' || z == '\t' {
		return PaddedEnds
	}
	if !text(v) {
		return BadValue
	}
	return Sound
}
