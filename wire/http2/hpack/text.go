package hpack

import "encoding/binary"

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// text says whether b holds no control character other than TAB. Eight bytes a step (BenchmarkDecode).
func text(b []byte) bool {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		del := x ^ 0x7f*ones
		if ((x-0x20*ones)&^x|(del-ones)&^del)&highs != 0 && !plain(b[i:i+8]) {
			return false
		}
	}
	return plain(b[i:])
}

// plain is text byte by byte: the test of eight at once is true for TAB too, and may be for a byte above a control.
func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
