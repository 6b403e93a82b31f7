package mux

import "github.com/outrider-mesh/outrider/wire/http2"

// frames follows the frames of a connection as far as to know whether a head is incomplete.
type frames struct {
	preface bool // the client's preface comes first
	begun   bool // a frame came
	block   bool // a field section goes on in the next frame
}

// What is to be known of frames (RFC 9113 §4.1).
const (
	frameHead        = 9
	typeAt, flagsAt  = 3, 4
	typeHeaders      = 1
	typeContinuation = 9
	flagEndHeaders   = 4
)

// pass takes what was handled, which is whole frames, and what is left. progress says that something came to its end and
// partial that a head is incomplete.
func (f *frames) pass(handled, rest []byte) (progress, partial bool) {
	if f.preface && len(handled) >= len(http2.Preface) {
		handled, f.preface = handled[len(http2.Preface):], false
	}
	for len(handled) >= frameHead {
		n := int(handled[0])<<16 | int(handled[1])<<8 | int(handled[2])
		t := handled[typeAt]
		f.begun = true
		f.block = (t == typeHeaders || t == typeContinuation) && handled[flagsAt]&flagEndHeaders == 0
		progress = progress || !f.block
		handled = handled[min(len(handled), frameHead+n):]
	}
	switch {
	case !f.begun || f.block:
		partial = true
	case len(rest) == 0:
	case len(rest) < frameHead:
		partial = true
	default:
		partial = rest[typeAt] == typeHeaders || rest[typeAt] == typeContinuation
	}
	return progress, partial
}
