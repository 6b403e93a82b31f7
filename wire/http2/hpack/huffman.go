package hpack

import (
	"encoding/binary"
	"slices"
)

// codeLengths are the lengths in bits of the Huffman code of each byte (RFC 7541 Appendix B). The code is canonical:
// among codes of one length they count up with the byte, so the lengths tell all. The end-of-string code is 30 ones.
var codeLengths = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const (
	// peek is how many bits the decoder looks up at once: enough for two of the commonest letters.
	peek        = 12
	longestCode = 30
)

// short is what the next peek bits begin with: one byte, or two where both codes fit. With no bits it is a longer code.
type short struct {
	first, second uint8
	bits          uint8 // of the codes
	count         uint8 // of bytes
}

// long are the codes of one length above peek, which are those from first to first+count-1.
type long struct {
	first, count uint32
	at           uint16 // where their bytes begin in longBytes
}

var (
	shorts    [1 << peek]short
	longs     [longestCode + 1]long
	longBytes []byte
)

var _ = func() bool {
	code := uint32(0)
	for n := uint8(1); n <= longestCode; n++ {
		code <<= 1
		if n > peek {
			longs[n] = long{first: code, at: uint16(len(longBytes))}
		}
		for c, l := range codeLengths {
			if l != n {
				continue
			}
			if n > peek {
				longs[n].count++
				longBytes = append(longBytes, byte(c))
			} else {
				for i := range uint32(1) << (peek - n) {
					shorts[code<<(peek-n)|i] = short{first: byte(c), bits: n, count: 1}
				}
			}
			code++
		}
	}
	ones := shorts
	for i := range shorts {
		s := &shorts[i]
		if s.bits == 0 {
			continue
		}
		next := ones[uint32(i)<<s.bits&(1<<peek-1)]
		if next.bits > 0 && next.bits+s.bits <= peek {
			s.second, s.bits, s.count = next.first, s.bits+next.bits, 2
		}
	}
	return true
}()

// appendHuffman appends what src codes. It fails where src ends in more than seven bits that are no code, in any that
// are not ones, or holds the end of string (RFC 7541 §5.2).
func appendHuffman(dst, src []byte) ([]byte, bool) {
	dst = slices.Grow(dst, len(src)*8/5+2) // the shortest code has five bits; two bytes are written at once
	out, k := dst[:cap(dst)], len(dst)
	var acc uint64 // the bits not used yet are its lowest n
	var n uint
	for {
		if n < 32 {
			if len(src) >= 4 {
				acc, n = acc<<32|uint64(binary.BigEndian.Uint32(src)), n+32
				src = src[4:]
			} else {
				for _, c := range src {
					acc, n = acc<<8|uint64(c), n+8
				}
				if src = nil; n < longestCode {
					return lastHuffman(out[:k], acc, n)
				}
			}
		}
		s := shorts[acc>>(n-peek)&(1<<peek-1)]
		if s.bits > 0 {
			out[k], out[k+1] = s.first, s.second
			k += int(s.count)
			n -= uint(s.bits)
			continue
		}
		c, bits := longCode(acc, n)
		if bits == 0 {
			return dst, false
		}
		out[k] = c
		k++
		n -= bits
	}
}

// lastHuffman decodes the last bits, fewer than the longest code has; dst has room.
func lastHuffman(dst []byte, acc uint64, n uint) ([]byte, bool) {
	padded := acc<<longestCode | (1<<longestCode - 1) // behind the end stand ones, as the padding does
	for n > 0 {
		s := shorts[padded>>(n+longestCode-peek)&(1<<peek-1)]
		c, bits := s.first, uint(s.bits)
		switch {
		case bits == 0:
			c, bits = longCode(padded, n+longestCode)
		case s.count == 2 && bits <= n:
			dst = append(dst, s.first, s.second)
			n -= bits
			continue
		default:
			bits = uint(codeLengths[c])
		}
		if bits == 0 || bits > n {
			ones := uint64(1)<<n - 1
			return dst, n < 8 && acc&ones == ones
		}
		dst = append(dst, c)
		n -= bits
	}
	return dst, true
}

// longCode decodes a code longer than peek at the top of the lowest n bits of acc; bits is 0 where there is none.
func longCode(acc uint64, n uint) (c byte, bits uint) {
	for bits = peek + 1; bits <= longestCode; bits++ {
		l := &longs[bits]
		code := uint32(acc >> (n - bits) & (1<<bits - 1))
		if code-l.first < l.count && code >= l.first {
			return longBytes[uint32(l.at)+code-l.first], bits
		}
	}
	return 0, 0
}
