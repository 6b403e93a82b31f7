package http2

// token says which bytes may stand in a token (RFC 9110 §5.6.2).
var token = set("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

// regName says which bytes stand in a host name (RFC 3986 §3.2.2), but for percent escapes, and the comma, as in wire/http1.
var regName = set("!$&'()*+-.;=_~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

// pathByte says which bytes may stand in :path, as in wire/http1: visible ones but "#", and those above ASCII.
var pathByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c > ' ' && c != 0x7f && c != '#'
	}
	return t
}()

func set(bytes string) (t [256]bool) {
	for i := range len(bytes) {
		t[bytes[i]] = true
	}
	return t
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !token[c] {
			return false
		}
	}
	return len(b) > 0
}

// isMethod says whether b is a token without small letters, as in wire/http1.
func isMethod(b []byte) bool {
	for _, c := range b {
		if !token[c] || 'a' <= c && c <= 'z' {
			return false
		}
	}
	return len(b) > 0
}

// checkPath says where in a :path the query begins, or its length. It must begin with a slash, or be "*".
func checkPath(b []byte) (query int, ok bool) {
	if len(b) == 0 || b[0] != '/' && (b[0] != '*' || len(b) > 1) {
		return 0, false
	}
	query = len(b)
	for i, c := range b {
		if c == '?' && query == len(b) {
			query = i
		}
		if !pathByte[c] {
			return 0, false
		}
	}
	return query, true
}

// isAuthority says whether b is host[:port] without user information.
func isAuthority(b []byte) bool {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		colons := 0
		for i++; i < len(b) && b[i] != ']'; i++ {
			if b[i] == ':' {
				colons++
			} else if !isHex(b[i]) && b[i] != '.' {
				return false
			}
		}
		if i == len(b) || colons < 2 {
			return false
		}
		i++
	} else {
		for i < len(b) && (regName[b[i]] || b[i] == '%') {
			if b[i] == '%' {
				if i+2 >= len(b) || !isHex(b[i+1]) || !isHex(b[i+2]) {
					return false
				}
				i += 2
			}
			i++
		}
	}
	if i == 0 || i == len(b) {
		return i > 0
	}
	if b[i] != ':' || len(b)-i > 6 {
		return false
	}
	port := 0
	for _, c := range b[i+1:] {
		if !isDigit(c) {
			return false
		}
		port = port*10 + int(c-'0')
	}
	return port <= 65535
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

// decimal returns the number that v spells with digits alone.
func decimal(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 19 {
		return 0, false
	}
	for _, c := range v {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0') // 19 digits overflow into a negative number at most
	}
	return n, n >= 0
}
