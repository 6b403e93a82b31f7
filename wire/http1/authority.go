package http1

import "github.com/outrider-mesh/outrider/wire/message"

// regName says which bytes stand in a host name (RFC 3986 §3.2.2), but for percent escapes and the comma: a comma can only
// come from two Host fields joined by someone on the way.
var regName = func() (t [256]bool) {
	for _, c := range []byte("!$&'()*+-.;=_~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

// authority is a checked host[:port]: host is b[:colon] and the port b[colon+1:]; without a port, colon is len(b).
// An empty port ("host:") is none (RFC 3986 §6.2.3): n is the length that is left of it.
type authority struct{ colon, n int }

// parseAuthority checks b, which must not hold user information (RFC 9110 §4.2.4).
func parseAuthority(b []byte) (a authority, ok bool) {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		for i < len(b) && b[i] != ']' {
			i++
		}
		if i == len(b) || !isIPv6(b[1:i]) {
			return a, false
		}
		i++
	} else {
		for i < len(b) && regName[b[i]] {
			i++
		}
		for i < len(b) && b[i] == '%' {
			if i+2 >= len(b) || !isHex(b[i+1]) || !isHex(b[i+2]) {
				return a, false
			}
			for i += 3; i < len(b) && regName[b[i]]; i++ {
			}
		}
	}
	if i == 0 {
		return a, false
	}
	a = authority{colon: i, n: i}
	if i == len(b) {
		return a, true
	}
	if b[i] != ':' || len(b)-i > 6 {
		return a, false
	}
	port := 0
	for _, c := range b[i+1:] {
		if c < '0' || c > '9' {
			return a, false
		}
		port = port*10 + int(c-'0')
	}
	if len(b) > i+1 {
		a.n = len(b)
	}
	return a, port <= 65535
}

// isIPv6 says whether b is an IPv6 address (RFC 3986 §3.2.2), without a zone.
func isIPv6(b []byte) bool {
	groups, gap := 0, false
	for i := 0; i < len(b); {
		if b[i] == ':' {
			if i+1 < len(b) && b[i+1] == ':' {
				if gap {
					return false
				}
				gap = true
				i += 2
				continue
			}
			if i == 0 || b[i-1] == ':' || i+1 == len(b) {
				return false
			}
			i++
			continue
		}
		n := i
		for n < len(b) && isHex(b[n]) {
			n++
		}
		if n < len(b) && b[n] == '.' {
			if groups += 2; !isIPv4(b[i:]) {
				return false
			}
			break
		}
		if n == i || n-i > 4 || n < len(b) && b[n] != ':' {
			return false
		}
		groups++
		i = n
	}
	return groups == 8 && !gap || groups < 8 && gap
}

// isIPv4 says whether b is four decimal bytes with dots between them.
func isIPv4(b []byte) bool {
	parts, n, digits := 1, 0, 0
	for _, c := range b {
		switch {
		case c == '.' && digits > 0:
			parts++
			n, digits = 0, 0
		case '0' <= c && c <= '9' && digits < 3 && (digits == 0 || n > 0):
			n = n*10 + int(c-'0')
			if digits++; n > 255 {
				return false
			}
		default:
			return false
		}
	}
	return parts == 4 && digits > 0
}

func isHex(c byte) bool { return hexValue[c] < 16 }

// sameAuthority says whether two checked authorities name the same host and port; an absent port is standard.
func sameAuthority(x []byte, a authority, y []byte, b authority, standard string) bool {
	if !message.EqualFoldBytes(x[:a.colon], y[:b.colon]) {
		return false
	}
	p, q := port(x, a), port(y, b)
	switch {
	case len(p) == 0 && len(q) == 0:
		return true
	case len(p) == 0:
		return string(q) == standard
	case len(q) == 0:
		return string(p) == standard
	}
	return string(p) == string(q)
}

func port(b []byte, a authority) []byte { return b[min(a.colon+1, a.n):a.n] }
