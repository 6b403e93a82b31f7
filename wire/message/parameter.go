package message

import "bytes"

// Parameter returns the first value of a query parameter, verbatim: neither the name nor the value is percent-decoded,
// as Envoy's route matching and hash policies read them. A parameter without "=" has an empty value.
func (r *Request) Parameter(name string) (value []byte, ok bool) {
	rest := r.Query()
	if len(rest) == 0 {
		return nil, false
	}
	rest = rest[1:] // the "?"
	for more := true; more; {
		var one []byte
		one, rest, more = bytes.Cut(rest, ampersand)
		if len(one) < len(name) || string(one[:len(name)]) != name {
			continue
		}
		if len(one) == len(name) {
			return nil, len(one) > 0
		}
		if one[len(name)] == '=' {
			return one[len(name)+1:], true
		}
	}
	return nil, false
}

var ampersand = []byte("&")
