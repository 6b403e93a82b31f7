package accesslog

import "unicode/utf8"

const hexDigits = "0123456789abcdef"

// appendText appends a value so that it can end neither its quotes nor its line, nor do anything to a terminal: printable
// ASCII as it is, '"' and '\' behind a backslash, every other byte as \xNN.
func appendText[T ~string | ~[]byte](dst []byte, v T) []byte {
	for i := range len(v) {
		switch c := v[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ' || c > '~':
			dst = append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// appendJSON appends a value as the inside of a string of JSON (RFC 8259 §7). Bytes that are no UTF-8 become U+FFFD; control
// characters, those above ASCII too, are escaped.
func appendJSON[T ~string | ~[]byte](dst []byte, v T) []byte {
	for i := 0; i < len(v); {
		c := v[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := decodeRune(v, i)
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(dst, "\ufffd"...)
			case r < 0xa0 || r == 0x2028 || r == 0x2029:
				dst = append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			default:
				dst = utf8.AppendRune(dst, r)
			}
			i += n
			continue
		}
		i++
	}
	return dst
}

// decodeRune reads the rune at v[i:], through a copy of its few bytes.
func decodeRune[T ~string | ~[]byte](v T, i int) (rune, int) {
	var b [utf8.UTFMax]byte
	n := copy(b[:], v[i:min(len(v), i+utf8.UTFMax)])
	return utf8.DecodeRune(b[:n])
}

// appendToken is appendText for what stands without quotes: a client chooses its server name, and a space would begin a field.
func appendToken(dst []byte, v string) []byte {
	for i := range len(v) {
		if v[i] == ' ' {
			dst = append(dst, `\x20`...)
		} else {
			dst = appendText(dst, v[i:i+1])
		}
	}
	return dst
}
