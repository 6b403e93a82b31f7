package message

import "bytes"

// SplitAuthority cuts host[:port]. An IPv6 literal keeps its brackets; without brackets it is a host alone. The port is
// 0 where there is none (RFC 3986 lets it be empty). ok is false where the authority is not of that form: then all of
// it is the host.
func SplitAuthority(authority []byte) (host []byte, port int, ok bool) {
	colon := bytes.LastIndexByte(authority, ':')
	bracket := bytes.IndexByte(authority, ']')
	switch {
	case bracket >= 0:
		if authority[0] != '[' || bytes.IndexByte(authority[:bracket], ':') < 0 {
			return authority, 0, false
		}
		if bracket == len(authority)-1 {
			return authority, 0, true
		}
		if colon != bracket+1 {
			return authority, 0, false
		}
	case len(authority) > 0 && authority[0] == '[':
		return authority, 0, false
	case colon < 0 || bytes.IndexByte(authority, ':') != colon:
		return authority, 0, true
	}
	for _, c := range authority[colon+1:] {
		if port = port*10 + int(c-'0'); c < '0' || c > '9' || port > 65535 {
			return authority, 0, false
		}
	}
	return authority[:colon], port, true
}
