package proxy

import (
	"encoding/hex"

	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/wire/message"
)

// controls are Envoy's request fields by which a caller steers a router. From an application they do not count: as with
// Istio's sidecars (useRemoteAddress off, no x-forwarded-for), its requests are external.
var controls = [...]string{
	"x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-upstream-rq-timeout-alt-response",
	"x-envoy-upstream-stream-duration-ms", "x-envoy-upstream-alt-stat-name", "x-envoy-expected-rq-timeout-ms",
	"x-envoy-max-retries", "x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-retriable-status-codes",
	"x-envoy-retriable-header-names", "x-envoy-hedge-on-per-try-timeout", "x-envoy-force-trace", "x-envoy-internal",
	"x-envoy-external-address", "x-envoy-decorator-operation", "x-envoy-ip-tags", "x-envoy-original-path", "x-envoy-original-host",
}

// stripControls deletes the fields by which a caller would steer this proxy or the next.
func stripControls(h *message.Head) {
	for i := range h.Len() {
		id, name, _ := h.Field(i)
		if id != message.Other || len(name) < len("x-envoy-internal") || name[0]|0x20 != 'x' || name[1] != '-' || name[2]|0x20 != 'e' {
			continue
		}
		for _, c := range &controls {
			if message.EqualFold(name, c) {
				h.RemoveAt(i)
				break
			}
		}
	}
}

// appendRequestID appends a random UUID (RFC 9562, version 4). Its 15th character is the version: Envoy packs the trace
// reason there, 4 being none.
func appendRequestID(dst []byte, r *balance.Rand) []byte {
	var raw [16]byte
	hi, lo := r.Uint64(), r.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[0:8], raw[0:4])
	hex.Encode(text[9:13], raw[4:6])
	hex.Encode(text[14:18], raw[6:8])
	hex.Encode(text[19:23], raw[8:10])
	hex.Encode(text[24:36], raw[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return append(dst, text[:]...)
}
