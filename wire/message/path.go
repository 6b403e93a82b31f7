package message

import "errors"

// PathMode says how paths are normalised before they are matched, authorised and forwarded (MeshConfig.pathNormalization).
type PathMode uint8

// The modes, each doing all that the one before it does. In every mode a path with a NUL (%00) is refused.
const (
	// VerbatimPath changes nothing (NONE).
	VerbatimPath PathMode = iota
	// BasePath removes dot segments, turns "\\" into "/", decodes escaped letters, digits, "-", ".", "_" and "~", and
	// escapes bytes that a path may not hold (BASE: RFC 3986 §6.2.2 as Envoy's normalize_path does it; escapes keep their case).
	BasePath
	// MergedPath then turns runs of "/" into one (MERGE_SLASHES).
	MergedPath
	// DecodedPath first decodes %2F and %5C (DECODE_AND_MERGE_SLASHES).
	DecodedPath
)

// ParsePathMode returns the mode that MeshConfig calls name; empty and DEFAULT mean BASE.
func ParsePathMode(name string) (m PathMode, ok bool) {
	switch name {
	case "", "DEFAULT", "BASE":
		return BasePath, true
	case "NONE":
		return VerbatimPath, true
	case "MERGE_SLASHES":
		return MergedPath, true
	case "DECODE_AND_MERGE_SLASHES":
		return DecodedPath, true
	}
	return BasePath, false
}

// ErrNULInPath refuses a path that holds a NUL, plain or escaped: what reads it after us may end the path there.
var ErrNULInPath = errors.New("the path holds a NUL")

// What to do with a byte of a path.
const (
	pathPlain     = iota // copy
	pathSlash            // "/"
	pathDot              // "."
	pathBackslash        // is "/"
	pathPercent          // an escape, if two hex digits follow
	pathEscape           // is escaped: may not stand in a path
)

// pathClass classes bytes by RFC 3986 §3.3; "[" and "]" are copied, as browsers and Envoy do.
var pathClass = func() (t [256]uint8) {
	for c := range t {
		if c <= ' ' || c >= 0x7f {
			t[c] = pathEscape
		}
	}
	for _, c := range []byte("\"#<>?^`{|}") {
		t[c] = pathEscape
	}
	t['/'], t['.'], t['\\'], t['%'] = pathSlash, pathDot, pathBackslash, pathPercent
	return t
}()

// unreserved says which bytes mean the same escaped and plain (RFC 3986 §2.3).
var unreserved = func() (t [256]bool) {
	for c := range t {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
	}
	return t
}()

// NormalizePath brings r's path into the form that m asks for. It fails with ErrNULInPath, which deserves a 400.
func (r *Request) NormalizePath(m PathMode) error {
	p := r.Path()
	if PathIsNormal(p, m) {
		return nil
	}
	off := len(r.buf)
	b, err := NormalizePath(r.buf, p, m)
	if err != nil {
		return err
	}
	r.buf = b
	r.path = span{uint32(off), uint32(len(b) - off)}
	return nil
}

// PathIsNormal says in one scan whether path surely has the form of m; where it says false, NormalizePath knows.
func PathIsNormal(path []byte, m PathMode) bool {
	if m == VerbatimPath {
		return !holdsNUL(path)
	}
	if len(path) == 0 || len(path) == 1 && path[0] == '*' {
		return true
	}
	if path[0] != '/' {
		return false
	}
	for i := 0; i < len(path); i++ {
		switch pathClass[path[i]] {
		case pathPlain:
		case pathSlash:
			if m >= MergedPath && i+1 < len(path) && path[i+1] == '/' {
				return false
			}
		case pathDot:
			if path[i-1] == '/' && dotSegment(path[i:]) {
				return false
			}
		case pathPercent:
			c, ok := unescape(path, i)
			if !ok || c == 0 || unreserved[c] || m == DecodedPath && (c == '/' || c == '\\') {
				return false
			}
			i += 2
		default:
			return false
		}
	}
	return true
}

// dotSegment says whether b, which begins with a dot, may begin with a segment "." or ".."; an escape is left to the slow way.
func dotSegment(b []byte) bool {
	for i, c := range b {
		if c == '/' || i == 2 {
			return c == '/'
		}
		if c != '.' {
			return c == '%' || c == '\\'
		}
	}
	return len(b) <= 2
}

// NormalizePath appends to dst the form of path that m asks for. The path holds no query; "*" and nothing stay as they are.
// It fails with ErrNULInPath. An escape that is none ("%zz") stays as it is, and no decoding ever completes one, so
// the result is normal itself. Nothing is decoded twice.
func NormalizePath(dst, path []byte, m PathMode) ([]byte, error) {
	if holdsNUL(path) {
		return dst, ErrNULInPath
	}
	if m == VerbatimPath || len(path) == 0 || len(path) == 1 && path[0] == '*' {
		return append(dst, path...), nil
	}
	base := len(dst)
	dst = append(dst, '/')
	i := separator(path, 0, m)
	for i < len(path) {
		// dst ends with the slash that opens the segment at i.
		if dots, n := dotRun(path[i:], m); dots > 0 {
			if dots == 2 {
				dst = parent(dst, base)
			}
			i += n
			i += separator(path, i, m)
			continue
		}
		bare := len(dst) - 3 // where this segment's last "%" was written that begins no escape
		for i < len(path) {
			if n := separator(path, i, m); n > 0 {
				dst = append(dst, '/')
				i += n
				break
			}
			c := path[i]
			switch pathClass[c] {
			case pathEscape:
				dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
			case pathPercent:
				d, ok := unescape(path, i)
				switch {
				case !ok:
					bare = len(dst)
					dst = append(dst, '%')
				case unreserved[d] && len(dst)-bare > 2:
					dst = append(dst, d)
					i += 2
				default:
					dst = append(dst, path[i:i+3]...)
					i += 2
				}
			default:
				dst = append(dst, c)
			}
			i++
		}
	}
	if m >= MergedPath {
		dst = mergeSlashes(dst, base)
	}
	return dst, nil
}

const upperHex = "0123456789ABCDEF"

// separator returns the length of the segment separator at path[i:], or 0.
func separator(path []byte, i int, m PathMode) int {
	if i >= len(path) {
		return 0
	}
	switch path[i] {
	case '/', '\\':
		return 1
	case '%':
		if m == DecodedPath {
			if c, ok := unescape(path, i); ok && (c == '/' || c == '\\') {
				return 3
			}
		}
	}
	return 0
}

// dotRun returns how many dots, plain or escaped, make up the whole segment that b begins with, and their length; 0 where it is another one.
func dotRun(b []byte, m PathMode) (dots, n int) {
	for n < len(b) && separator(b, n, m) == 0 {
		if c, ok := unescape(b, n); ok && c == '.' {
			n += 3
		} else if b[n] == '.' {
			n++
		} else {
			return 0, 0
		}
		if dots++; dots > 2 {
			return 0, 0
		}
	}
	return dots, n
}

// parent cuts the last segment off dst[base:], which ends with a slash; the root is its own parent.
func parent(dst []byte, base int) []byte {
	n := len(dst) - 1
	for n > base && dst[n-1] != '/' {
		n--
	}
	if n == base {
		n++ // the root slash itself
	}
	return dst[:n]
}

func mergeSlashes(dst []byte, base int) []byte {
	n := base
	for i := base; i < len(dst); i++ {
		if dst[i] == '/' && n > base && dst[n-1] == '/' {
			continue
		}
		dst[n] = dst[i]
		n++
	}
	return dst[:n]
}

// unescape returns the byte that an escape at b[i:] stands for.
func unescape(b []byte, i int) (c byte, ok bool) {
	if i+2 >= len(b) || b[i] != '%' {
		return 0, false
	}
	hi, lo := hexValue(b[i+1]), hexValue(b[i+2])
	return hi<<4 | lo, hi < 16 && lo < 16
}

// hexValue returns the value of a hex digit, or 0xff.
func hexValue(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// holdsNUL says whether path holds a NUL, plain or escaped.
func holdsNUL(path []byte) bool {
	for i, c := range path {
		if c == 0 || c == '%' && i+2 < len(path) && path[i+1] == '0' && path[i+2] == '0' {
			return true
		}
	}
	return false
}
