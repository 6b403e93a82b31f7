package telemetry

import (
	"bytes"
	"sync/atomic"
)

const (
	grpcUnknown       = 2
	grpcPermission    = 7
	grpcUnimplemented = 12
	grpcInternal      = 13
	grpcUnavailable   = 14
	grpcNotSignedIn   = 16 // UNAUTHENTICATED
)

// IsGRPC says whether a content type is gRPC's, as Envoy tells: application/grpc itself or with "+" and a codec, and
// neither application/grpc-web nor one with parameters.
func IsGRPC(contentType []byte) bool {
	rest, ok := bytes.CutPrefix(contentType, []byte("application/grpc"))
	return ok && (len(rest) == 0 || rest[0] == '+')
}

// ParseGRPCStatus reads the value of a grpc-status field: 0 to 16, or -1 for an empty one. What is no status that gRPC
// knows counts as 2 (UNKNOWN), as gRPC's own libraries read it.
func ParseGRPCStatus(value []byte) int {
	if len(value) == 0 {
		return -1
	}
	n := 0
	for _, c := range value {
		if c < '0' || c > '9' || n > 16 {
			return grpcUnknown
		}
		n = n*10 + int(c-'0')
	}
	if n > 16 {
		return grpcUnknown
	}
	return n
}

// GRPCOf is the gRPC status of an answer that has none but an HTTP status (gRPC's http-grpc-status-mapping.md).
func GRPCOf(status int) int {
	switch status {
	case 400:
		return grpcInternal
	case 401:
		return grpcNotSignedIn
	case 403:
		return grpcPermission
	case 404:
		return grpcUnimplemented
	case 429, 502, 503, 504:
		return grpcUnavailable
	}
	return grpcUnknown
}

// Messages counts the messages of one direction of a gRPC stream from its body's bytes; the zero Messages is ready.
// It keeps no byte of them. One goroutine at a time may use it.
//
// As in Envoy's grpc_stats filter a message counts when its first byte is there, its flags are not looked at, and bodies
// are fed only of requests that are gRPC (IsGRPC) and of their answers with status 200 and such a content type.
type Messages struct {
	count  atomic.Int64
	rest   uint32 // of the message, or what is known of its length within the prefix
	prefix uint8  // bytes of the prefix (a flag and the length in 4 bytes, big end first) that were seen; 0 between messages
}

const prefixLength = 5

// Feed takes the next bytes of the body, in pieces of any size.
func (m *Messages) Feed(p []byte) {
	for len(p) > 0 {
		if m.prefix == prefixLength {
			if uint64(len(p)) < uint64(m.rest) {
				m.rest -= uint32(len(p))
				return
			}
			p = p[m.rest:]
			m.rest, m.prefix = 0, 0
			continue
		}
		if m.prefix == 0 {
			m.count.Add(1)
			m.prefix, m.rest = 1, 0
			p = p[1:]
			continue
		}
		m.rest = m.rest<<8 | uint32(p[0])
		m.prefix++
		p = p[1:]
		if m.prefix == prefixLength && m.rest == 0 {
			m.prefix = 0
		}
	}
}

// Between says whether no message is under way. Only who feeds may ask.
func (m *Messages) Between() bool { return m.prefix == 0 }

// Count returns how many messages began; any goroutine may ask.
func (m *Messages) Count() int64 { return m.count.Load() }
