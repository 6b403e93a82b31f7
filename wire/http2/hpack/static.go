package hpack

import "github.com/outrider-mesh/outrider/wire/message"

// staticCount is how many entries the static table has; dynamic ones follow.
const staticCount = 61

// static is the static table (RFC 7541 Appendix A), from 1 on.
var static = func() (t [staticCount + 1]Field) {
	for i, f := range [staticCount + 1][2]string{
		{"", ""},
		{":authority", ""},
		{":method", "GET"},
		{":method", "POST"},
		{":path", "/"},
		{":path", "/index.html"},
		{":scheme", "http"},
		{":scheme", "https"},
		{":status", "200"},
		{":status", "204"},
		{":status", "206"},
		{":status", "304"},
		{":status", "400"},
		{":status", "404"},
		{":status", "500"},
		{"accept-charset", ""},
		{"accept-encoding", "gzip, deflate"},
		{"accept-language", ""},
		{"accept-ranges", ""},
		{"accept", ""},
		{"access-control-allow-origin", ""},
		{"age", ""},
		{"allow", ""},
		{"authorization", ""},
		{"cache-control", ""},
		{"content-disposition", ""},
		{"content-encoding", ""},
		{"content-language", ""},
		{"content-length", ""},
		{"content-location", ""},
		{"content-range", ""},
		{"content-type", ""},
		{"cookie", ""},
		{"date", ""},
		{"etag", ""},
		{"expect", ""},
		{"expires", ""},
		{"from", ""},
		{"host", ""},
		{"if-match", ""},
		{"if-modified-since", ""},
		{"if-none-match", ""},
		{"if-range", ""},
		{"if-unmodified-since", ""},
		{"last-modified", ""},
		{"link", ""},
		{"location", ""},
		{"max-forwards", ""},
		{"proxy-authenticate", ""},
		{"proxy-authorization", ""},
		{"range", ""},
		{"referer", ""},
		{"refresh", ""},
		{"retry-after", ""},
		{"server", ""},
		{"set-cookie", ""},
		{"strict-transport-security", ""},
		{"transfer-encoding", ""},
		{"user-agent", ""},
		{"vary", ""},
		{"via", ""},
		{"www-authenticate", ""},
	} {
		id, p, flaw := identify([]byte(f[0]))
		t[i] = Field{Name: []byte(f[0]), Value: []byte(f[1]), ID: id, Pseudo: p, Flaw: flaw}
	}
	return t
}()

// idLimit is above every message.ID: each has a bit in a word (wire/message).
const idLimit = 64

var (
	// lowerNames are the known fields' names, by ID.
	lowerNames = func() (t [idLimit][]byte) {
		for id := range message.IDs {
			t[id] = []byte(message.ID(id).String())
		}
		return t
	}()
	// staticName is where the static table has a field of that name, by ID; 0 where it has none.
	staticName = func() (t [idLimit]uint8) {
		for i := len(static) - 1; i > 0; i-- { // the first of several wins
			if f := &static[i]; f.ID != message.Other {
				t[f.ID] = uint8(i)
			}
		}
		return t
	}()
)
