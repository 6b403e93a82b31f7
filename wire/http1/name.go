package http1

import "github.com/outrider-mesh/outrider/wire/message"

// stripped are the known fields that a Connection field may take out of a message; no other known field may be.
const stripped = hopByHop | 1<<message.Trailer | 1<<message.ProxyAuthenticate | 1<<message.ProxyAuthorization

// wholeWay are fields meant for the message's final recipient, which a Connection field must not nominate (RFC 9110
// §7.6.1): who could take them out would turn a conditional request into an unconditional one, or make a trusted
// statement of an earlier hop vanish (CVE-2021-33197). Such a nomination is ignored and the field goes on.
// Fields that are in no list here are removed as the RFC demands.
var wholeWay = set(
	// Who asks, and what earlier hops say of it.
	"b3", "baggage", "forwarded", "grpc-trace-bin", "traceparent", "tracestate", "x-client-ip", "x-cloud-trace-context",
	"x-amzn-trace-id", "x-ot-span-context", "x-real-ip", "x-request-start", "true-client-ip", "cf-connecting-ip", "from", "referer",
	// What is asked: conditions, ranges, negotiation, caching.
	"accept", "accept-charset", "accept-language", "accept-ranges", "cache-control", "if-match", "if-modified-since",
	"if-none-match", "if-range", "if-unmodified-since", "max-forwards", "pragma", "prefer", "priority", "range",
	// What the content is.
	"allow", "content-digest", "content-disposition", "content-encoding", "content-language", "content-location",
	"content-range", "digest", "etag", "last-modified", "location", "repr-digest", "retry-after", "set-cookie", "vary",
	"www-authenticate", "age", "expires", "authentication-info", "grpc-encoding", "grpc-message",
	// What a browser's safety rests on.
	"access-control-request-headers", "access-control-request-method", "content-security-policy",
	"strict-transport-security", "x-content-type-options", "x-csrf-token", "x-frame-options", "x-xsrf-token",
)

// wholeWayPrefixes are the same for families of fields.
var wholeWayPrefixes = []string{"x-forwarded-", "x-envoy-", "x-outrider-", "x-b3-", "sec-", "access-control-", "grpc-", "l5d-"}

// endToEnd says whether a field of that name belongs to the whole way, whatever a Connection field says.
func endToEnd(id message.ID, name []byte) bool {
	if id != message.Other {
		return stripped&(1<<id) == 0
	}
	return wholeWay.has(name) || hasPrefix(name, wholeWayPrefixes)
}

// trailing are the known fields that may come after the content; the others say how to frame, route, authorise or read it.
const trailing = 1<<message.Other | 1<<message.GRPCStatus

// notTrailing are fields that a sender must not put behind the content (RFC 9110 §6.5.1): a recipient that merges them
// into the head would act on them too late, or twice.
var notTrailing = set(
	"accept", "accept-charset", "accept-language", "age", "allow", "authentication-info", "cache-control", "content-disposition",
	"content-encoding", "content-language", "content-location", "content-range", "expires", "forwarded", "from",
	"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "location", "max-forwards",
	"pragma", "proxy-authentication-info", "range", "retry-after", "set-cookie", "vary", "www-authenticate", "x-real-ip",
)

var notTrailingPrefixes = []string{"x-forwarded-", "x-envoy-", "x-outrider-", "sec-", "access-control-"}

// mayTrail says whether a trailer field of that name is passed on; others are dropped.
func mayTrail(id message.ID, name []byte) bool {
	return trailing&(1<<id) != 0 && !notTrailing.has(name) && !hasPrefix(name, notTrailingPrefixes)
}

// names is a set of field names in lower case.
type names map[string]struct{}

func set(list ...string) names {
	s := make(names, len(list))
	for _, n := range list {
		s[n] = struct{}{}
	}
	return s
}

// has says whether s holds name, in any case.
func (s names) has(name []byte) bool {
	var low [32]byte
	if len(name) > len(low) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		low[i] = c
	}
	_, ok := s[string(low[:len(name)])]
	return ok
}

func hasPrefix(name []byte, prefixes []string) bool {
	for _, p := range prefixes {
		if len(name) > len(p) && message.EqualFold(name[:len(p)], p) {
			return true
		}
	}
	return false
}
