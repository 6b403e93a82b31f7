package proxy

import (
	"strconv"

	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/message"
)

// gRPC's own words within an exchange: its requests are known by their content type, end in trailers and bring a deadline.

// recognise finds out whether the request is gRPC's.
func (x *exchange) recognise() {
	x.grpcStatus = -1
	if v, ok := x.req.Get(message.ContentType); ok {
		x.grpc = telemetry.IsGRPC(v)
	}
}

// requestMessages counts what the client sends, nil where that is not gRPC's.
func (x *exchange) requestMessages() *telemetry.Messages {
	if !x.grpc {
		return nil
	}
	return &x.sentMessages
}

// responseMessages counts what the endpoint answers.
func (x *exchange) responseMessages() *telemetry.Messages {
	if !x.grpc || x.res.Status != 200 {
		return nil
	}
	if v, _ := x.res.Get(message.ContentType); !telemetry.IsGRPC(v) {
		return nil
	}
	return &x.messages
}

// tell counts the messages that passed since it was last called.
func (x *exchange) tell() {
	there, back := x.sentMessages.Count(), x.messages.Count()
	x.handle().Messages(there-x.toldThere, back-x.toldBack)
	x.toldThere, x.toldBack = there, back
}

// tellSoFar is tell for an exchange that goes on; the sweeper calls it.
func (x *exchange) tellSoFar() {
	if x.lasting.Load() {
		x.tell()
	}
}

// cap applies the client's deadline to the route's timeout in nanoseconds, 0 being none: the shorter one holds, and the
// endpoint is told of it.
func (x *exchange) cap(timeout int64) int64 {
	v, ok := x.req.Lookup("grpc-timeout")
	if !ok {
		return timeout
	}
	asked, ok := parseGRPCTimeout(v)
	switch {
	case !ok:
	case timeout == 0 || asked < timeout:
		x.asked = true
		return max(asked, 1)
	default:
		x.spare = appendGRPCTimeout(x.spare[:0], timeout)
		x.req.SetBytes(message.Other, "grpc-timeout", x.spare)
	}
	return timeout
}

// parseGRPCTimeout reads a grpc-timeout: at most 8 digits and a unit.
func parseGRPCTimeout(v []byte) (ns int64, ok bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	for _, c := range v[:len(v)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		ns = ns*10 + int64(c-'0')
	}
	unit := int64(1)
	switch v[len(v)-1] {
	case 'H':
		unit = 3600e9
	case 'M':
		unit = 60e9
	case 'S':
		unit = 1e9
	case 'm':
		unit = 1e6
	case 'u':
		unit = 1e3
	case 'n':
	default:
		return 0, false
	}
	if ns > (1<<62)/unit {
		return 1 << 62, true
	}
	return ns * unit, true
}

// appendGRPCTimeout appends a grpc-timeout of so many nanoseconds, in milliseconds where they fit into its 8 digits.
func appendGRPCTimeout(dst []byte, ns int64) []byte {
	n, unit := max(ns/1e6, 1), byte('m')
	if n > 99999999 {
		n, unit = min(n/1000, 99999999), 'S'
	}
	return append(strconv.AppendInt(dst, n, 10), unit)
}
