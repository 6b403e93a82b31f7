package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrider-mesh/outrider/proxy/limit"
)

// This file writes and reads the messages of envoy.service.ratelimit.v3.RateLimitService: the few fields that matter here, by
// hand, as the generated code and all that it needs would be most of a sidecar's memory.

// prefixed is how many bytes gRPC puts before a message: whether it is compressed, and its length.
const prefixed = 5

// question writes what q asks about the request; false where no descriptor is about it. A descriptor is left out where an
// entry has no value, as in Envoy.
func (a *inquiry) question(q *sharedLimit, x *exchange) bool {
	m := append(a.message[:0], make([]byte, prefixed)...)
	m = appendText(m, 1, q.spec.Domain)
	asked := false
descriptors:
	for i, d := range q.spec.Descriptors {
		a.descriptor = a.descriptor[:0]
		for j := range d {
			v := x.value(&d[j], q.ids[i][j])
			if len(v) == 0 {
				continue descriptors
			}
			a.entry = appendBytes(appendText(a.entry[:0], 1, d[j].Label), 2, wellFormed(v))
			a.descriptor = appendBytes(a.descriptor, 1, a.entry)
		}
		m = appendBytes(m, 2, a.descriptor)
		asked = true
	}
	binary.BigEndian.PutUint32(m[1:], uint32(len(m)-prefixed))
	a.message = m
	return asked
}

// wellFormed is v as a string of a message has to be: with one that is not UTF-8 the service would take the whole question
// for no message, and a client could get round its limit.
func wellFormed(v []byte) []byte {
	if utf8.Valid(v) {
		return v
	}
	return bytes.ToValidUTF8(v, []byte("\uFFFD"))
}

func appendText(dst []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), s)
}

func appendBytes(dst []byte, field protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), b)
}

// ruling is a RateLimitResponse. Its slices are parts of the inquiry's answer.
type ruling struct {
	over              bool
	known             bool // facts has the limit that has the least left
	facts             limit.Facts
	response, request []byte // fields to add, one HeaderValue after the other, each with its length before it
	body              []byte
}

var errRuling = errors.New("the answer is no RateLimitResponse")

// The codes of a ruling.
const (
	codeOK   = 1
	codeOver = 2
)

// rule reads the answer of a.
func (a *inquiry) rule() error {
	b := a.answer
	if len(b) < prefixed || b[0] != 0 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-prefixed {
		return errRuling
	}
	r := &a.ruling
	*r = ruling{}
	code := uint64(0)
	var broken error
	ok := eachPart(b[prefixed:], func(field protowire.Number, n uint64, part []byte) {
		switch field {
		case 1:
			code = n
		case 2:
			if !r.weigh(part) {
				broken = errRuling
			}
		case 3:
			r.response = protowire.AppendBytes(r.response, part)
		case 4:
			r.request = protowire.AppendBytes(r.request, part)
		case 5:
			r.body = part
		}
	})
	if !ok || broken != nil || code != codeOK && code != codeOver {
		return errRuling
	}
	r.over = code == codeOver
	return nil
}

// weigh takes one DescriptorStatus: clients are told of the limit that has the least left, and are to come again when all that
// they are over have something left.
func (r *ruling) weigh(status []byte) bool {
	var code, per, left uint64
	var reset time.Duration
	limited, whole := false, true
	ok := eachPart(status, func(field protowire.Number, n uint64, part []byte) {
		switch field {
		case 1:
			code = n
		case 2:
			limited = true
			whole = eachPart(part, func(field protowire.Number, n uint64, _ []byte) {
				if field == 1 {
					per = n
				}
			}) && whole
		case 3:
			left = n
		case 4:
			whole = eachPart(part, func(field protowire.Number, n uint64, _ []byte) {
				switch field {
				case 1:
					reset += time.Duration(min(n, 1<<31)) * time.Second
				case 2:
					reset += time.Duration(min(n, uint64(time.Second)))
				}
			}) && whole
		}
	})
	if code == codeOver {
		r.facts.Retry = max(r.facts.Retry, reset)
	}
	if limited && (!r.known || int64(left) < int64(r.facts.Remaining)) {
		r.known = true
		r.facts.Limit, r.facts.Remaining, r.facts.Reset = int(uint32(per)), int(uint32(left)), reset
	}
	return ok && whole
}

// eachPart calls f for each field of a message, with its number or its bytes; false where it is no message.
func eachPart(b []byte, f func(field protowire.Number, n uint64, part []byte)) bool {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		var number uint64
		var part []byte
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			part, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return false
		}
		f(field, number, part)
		b = b[n:]
	}
	return true
}

// eachField calls f for each of a ruling's fields that a message can have without becoming another one.
func eachField(list []byte, f func(name, value []byte)) {
	for len(list) > 0 {
		part, n := protowire.ConsumeBytes(list)
		if n < 0 {
			return
		}
		list = list[n:]
		var name, value []byte
		ok := eachPart(part, func(field protowire.Number, _ uint64, b []byte) {
			switch field {
			case 1:
				name = b
			case 2, 3: // as text, or raw
				if len(b) > 0 {
					value = b
				}
			}
		})
		if ok && addable(name, value) {
			f(name, value)
		}
	}
}

// addable says whether a service may add the field: not where messages are framed or routed by it.
func addable(name, value []byte) bool {
	if len(name) == 0 {
		return false
	}
	for i, c := range name {
		switch {
		case c >= 'A' && c <= 'Z':
			name[i] = c + 'a' - 'A'
		case c <= ' ' || c >= 0x7f || c == ':' || c == '"' || c == '(' || c == ')' || c == ',' || c == '/' || c >= ';' && c <= '@' || c >= '[' && c <= ']' || c == '{' || c == '}':
			return false
		}
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	switch string(name) {
	case "host", "connection", "content-length", "transfer-encoding", "keep-alive", "proxy-connection", "te", "trailer", "upgrade":
		return false
	}
	return true
}
