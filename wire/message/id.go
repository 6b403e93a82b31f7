package message

import "encoding/binary"

// Known header fields.
const (
	Other ID = iota
	Accept
	AcceptEncoding
	AcceptLanguage
	Authorization
	CacheControl
	Connection
	ContentEncoding
	ContentLength
	ContentType
	Cookie
	Date
	ETag
	Expect
	GRPCStatus
	GRPCTimeout
	Host
	HTTP2Settings
	KeepAlive
	LastModified
	Location
	Origin
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	Referer
	Server
	SetCookie
	TE
	Traceparent
	Tracestate
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	Vary
	Via
	XForwardedFor
	XForwardedHost
	XForwardedProto
	XRequestID
	XEnvoyAttemptCount
	XEnvoyUpstreamServiceTime
	XOutriderPeer
	XOutriderReason
	idCount
)

// IDs is how many IDs there are, Other included: every ID is below.
const IDs = int(idCount)

// names are the known fields' names in lower case, by ID.
var names = [idCount]string{
	Accept:                    "accept",
	AcceptEncoding:            "accept-encoding",
	AcceptLanguage:            "accept-language",
	Authorization:             "authorization",
	CacheControl:              "cache-control",
	Connection:                "connection",
	ContentEncoding:           "content-encoding",
	ContentLength:             "content-length",
	ContentType:               "content-type",
	Cookie:                    "cookie",
	Date:                      "date",
	ETag:                      "etag",
	Expect:                    "expect",
	GRPCStatus:                "grpc-status",
	GRPCTimeout:               "grpc-timeout",
	Host:                      "host",
	HTTP2Settings:             "http2-settings",
	KeepAlive:                 "keep-alive",
	LastModified:              "last-modified",
	Location:                  "location",
	Origin:                    "origin",
	ProxyAuthenticate:         "proxy-authenticate",
	ProxyAuthorization:        "proxy-authorization",
	ProxyConnection:           "proxy-connection",
	Referer:                   "referer",
	Server:                    "server",
	SetCookie:                 "set-cookie",
	TE:                        "te",
	Traceparent:               "traceparent",
	Tracestate:                "tracestate",
	Trailer:                   "trailer",
	TransferEncoding:          "transfer-encoding",
	Upgrade:                   "upgrade",
	UserAgent:                 "user-agent",
	Vary:                      "vary",
	Via:                       "via",
	XForwardedFor:             "x-forwarded-for",
	XForwardedHost:            "x-forwarded-host",
	XForwardedProto:           "x-forwarded-proto",
	XRequestID:                "x-request-id",
	XEnvoyAttemptCount:        "x-envoy-attempt-count",
	XEnvoyUpstreamServiceTime: "x-envoy-upstream-service-time",
	XOutriderPeer:             "x-outrider-peer",
	XOutriderReason:           "x-outrider-reason",
}

// String returns the field's name in lower case, or "" for Other.
func (id ID) String() string { return names[id] }

// shape is what Identify compares a name by: its first and last eight bytes with the folding bit set, which overlap in
// short names. The dashes have that bit where a byte is no letter and must have had it itself: folding folds letters only.
type shape struct {
	first, last         uint64
	firstDash, lastDash uint64
	next                ID // the next known name of the same length and last letter
}

const (
	longestName = 32 // exclusive
	folding     = 0x2020202020202020
)

var (
	shapes [idCount]shape
	// byShape finds the first known name by length and last letter.
	byShape = func() (t [longestName * 32]ID) {
		for id := Other + 1; id < idCount; id++ {
			n := []byte(names[id])
			s := &shapes[id]
			s.first, s.last = ends(n)
			s.first, s.last = s.first|folding, s.last|folding
			dashes := make([]byte, len(n))
			for i, c := range n {
				if c < 'a' || c > 'z' {
					dashes[i] = 0x20
				}
			}
			s.firstDash, s.lastDash = ends(dashes)
			slot := &t[slotOf(n)]
			s.next, *slot = *slot, id
		}
		return t
	}()
)

// Each ID has a bit in Head.known.
var _ [64 - idCount]struct{}

func slotOf(name []byte) int { return len(name)<<5 | int(name[len(name)-1]&31) }

// ends returns the first and the last eight bytes of b, or all of them where there are fewer.
func ends(b []byte) (first, last uint64) {
	switch n := len(b); {
	case n >= 8:
		return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n >= 2:
		return uint64(binary.LittleEndian.Uint16(b)), uint64(b[n-1])
	default:
		return uint64(b[0]), 0
	}
}

// Identify returns the ID of a header field's name, in any case.
func Identify(name []byte) ID {
	if len(name) == 0 || len(name) >= longestName {
		return Other
	}
	id := byShape[slotOf(name)]
	if id == Other {
		return Other
	}
	first, last := ends(name)
	for ; id != Other; id = shapes[id].next {
		s := &shapes[id]
		if first|folding != s.first || last|folding != s.last || first&s.firstDash != s.firstDash || last&s.lastDash != s.lastDash {
			continue
		}
		if len(name) <= 16 || EqualFold(name[8:len(name)-8], names[id][8:len(name)-8]) {
			return id
		}
	}
	return Other
}

// IdentifyString is Identify for a string.
func IdentifyString(name string) ID {
	if len(name) >= longestName {
		return Other
	}
	return Identify([]byte(name)) // short and not kept: the copy stays on the stack
}

// Added has a bit for each field that a proxy adds to what it passes on. The first of each does not count against a limit on
// the number of fields: who keeps to that must not be refused by the proxy behind the next.
const Added = uint64(1)<<Traceparent | 1<<XForwardedFor | 1<<XForwardedProto | 1<<XRequestID | 1<<XEnvoyAttemptCount |
	1<<XEnvoyUpstreamServiceTime | 1<<XOutriderPeer | 1<<XOutriderReason
