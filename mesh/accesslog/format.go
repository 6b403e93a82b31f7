// Package accesslog writes one line for each exchange: formats in Envoy's grammar, escaped values, and files that never hold a request up.
package accesslog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Istio's default formats, and beside them the field "reason", which Istio lacks (in Text, %RESPONSE_CODE_DETAILS% says it).
const (
	Text = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
		`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
		`%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
		`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ` +
		`%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"
	JSON = `{"authority":"%REQ(:AUTHORITY)%","bytes_received":"%BYTES_RECEIVED%","bytes_sent":"%BYTES_SENT%",` +
		`"connection_termination_details":"%CONNECTION_TERMINATION_DETAILS%","downstream_local_address":"%DOWNSTREAM_LOCAL_ADDRESS%",` +
		`"downstream_remote_address":"%DOWNSTREAM_REMOTE_ADDRESS%","duration":"%DURATION%","method":"%REQ(:METHOD)%",` +
		`"path":"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%","protocol":"%PROTOCOL%","reason":"%OUTRIDER_REASON%",` +
		`"request_id":"%REQ(X-REQUEST-ID)%","requested_server_name":"%REQUESTED_SERVER_NAME%","response_code":"%RESPONSE_CODE%",` +
		`"response_code_details":"%RESPONSE_CODE_DETAILS%","response_flags":"%RESPONSE_FLAGS%","route_name":"%ROUTE_NAME%",` +
		`"start_time":"%START_TIME%","upstream_cluster":"%UPSTREAM_CLUSTER_RAW%","upstream_host":"%UPSTREAM_HOST%",` +
		`"upstream_local_address":"%UPSTREAM_LOCAL_ADDRESS%","upstream_service_time":"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",` +
		`"upstream_transport_failure_reason":"%UPSTREAM_TRANSPORT_FAILURE_REASON%","user_agent":"%REQ(USER-AGENT)%",` +
		`"x_forwarded_for":"%REQ(X-FORWARDED-FOR)%"}`
)

// Problem is a part of a format that does not do what was meant.
type Problem struct {
	Text   string // of the format
	Why    string
	Remedy string
}

// Format is a compiled format. It is immutable.
type Format struct{ pieces []piece }

// mode says how a value is written.
type mode uint8

const (
	inText mode = iota // absent is "-"
	inJSON             // within a string of JSON; absent is "-"
	asJSON             // a value of its own: absent is null, a number is one
)

// piece is one part of a line: literal text, or an operator.
type piece struct {
	kind   kind
	mode   mode
	text   string // literal bytes, or what ENVIRONMENT says
	first  name   // of REQ, RESP, TRAILER
	second name   // where the first is absent
	most   int    // bytes of the value; 0 is all
	layout []instant
}

// ParseText compiles a text format; "" is Istio's. A line's end is added where it lacks one. What has no meaning stays as it is
// written, and is a Problem.
func ParseText(format string) (*Format, []Problem) {
	if format == "" {
		format = Text
	}
	if !strings.HasSuffix(format, "\n") {
		format += "\n"
	}
	p := parser{}
	p.format(format, inText)
	return &Format{p.pieces}, p.problems
}

// ParseJSON compiles a format that is an object of JSON; "" is Istio's with "reason". Keys come in alphabetical order, as
// Envoy writes them. Where the format is no object, the default stands in, as in Istio, and that is a Problem.
func ParseJSON(format string) (*Format, []Problem) {
	p := parser{}
	if format == "" {
		format = JSON
	}
	value, err := decode(format)
	if err != nil {
		p.problem(format, fmt.Sprintf("accessLogFormat is not an object of JSON: %v", err), "write an object, or leave the field out; until then the default format holds")
		value, _ = decode(JSON)
	}
	p.value(value)
	p.literal("\n")
	return &Format{p.pieces}, p.problems
}

func decode(format string) (map[string]any, error) {
	d := json.NewDecoder(strings.NewReader(format))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, fmt.Errorf("cannot decode: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	if object == nil {
		return nil, errors.New("it is null")
	}
	return object, nil
}

type parser struct {
	pieces   []piece
	problems []Problem
}

func (p *parser) problem(text, why, remedy string) {
	p.problems = append(p.problems, Problem{text, why, remedy})
}

// literal adds bytes that every line has.
func (p *parser) literal(s string) {
	if n := len(p.pieces); n > 0 && p.pieces[n-1].kind == literal {
		p.pieces[n-1].text += s
		return
	}
	if s != "" {
		p.pieces = append(p.pieces, piece{kind: literal, text: s})
	}
}

// value adds a value of JSON.
func (p *parser) value(v any) {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		p.literal("{")
		for i, k := range keys {
			if i > 0 {
				p.literal(",")
			}
			p.literal(quote(k) + ":")
			p.value(v[k])
		}
		p.literal("}")
	case []any:
		p.literal("[")
		for i, one := range v {
			if i > 0 {
				p.literal(",")
			}
			p.value(one)
		}
		p.literal("]")
	case string:
		if op, n, ok := operator(v); ok && n == len(v) {
			p.operator(op, asJSON)
			return
		}
		p.literal(`"`)
		p.format(v, inJSON)
		p.literal(`"`)
	default:
		b, _ := json.Marshal(v) // null, a boolean or a number, which came from JSON
		p.literal(string(b))
	}
}

// quote returns s as a string of JSON.
func quote(s string) string { return string(append(appendJSON([]byte{'"'}, s), '"')) }

// format adds text with operators.
func (p *parser) format(s string, m mode) {
	plain := func(s string) {
		if m == inJSON {
			s = string(appendJSON(nil, s))
		}
		p.literal(s)
	}
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			plain(s)
			return
		}
		plain(s[:i])
		s = s[i:]
		if strings.HasPrefix(s, "%%") {
			plain("%")
			s = s[2:]
			continue
		}
		op, n, ok := operator(s)
		if !ok {
			p.problem(s[:min(len(s), 40)], "a % begins no command operator", "write %NAME%, %NAME(ARGUMENT)% or, for the sign itself, %%")
			plain("%")
			s = s[1:]
			continue
		}
		p.operator(op, m)
		s = s[n:]
	}
}

// command is an operator as it is written: %NAME(ARGUMENT):MOST%.
type command struct {
	text, name, argument string
	argued               bool
	most                 int
}

// operator reads the operator at the beginning of s, and says how long it is.
func operator(s string) (c command, n int, ok bool) {
	if s == "" || s[0] != '%' {
		return c, 0, false
	}
	n = 1
	for n < len(s) && (s[n] == '_' || 'A' <= s[n] && s[n] <= 'Z' || '0' <= s[n] && s[n] <= '9') {
		n++
	}
	c.name = s[1:n]
	if c.name == "" {
		return c, 0, false
	}
	if n < len(s) && s[n] == '(' {
		end := strings.IndexByte(s[n:], ')')
		if end < 0 {
			return c, 0, false
		}
		c.argument, c.argued = s[n+1:n+end], true
		n += end + 1
	}
	if n < len(s) && s[n] == ':' {
		digits := 0
		for n++; n < len(s) && '0' <= s[n] && s[n] <= '9' && digits < 7; n++ {
			c.most = 10*c.most + int(s[n]-'0')
			digits++
		}
		if digits == 0 {
			return c, 0, false
		}
	}
	if n == len(s) || s[n] != '%' {
		return c, 0, false
	}
	c.text = s[:n+1]
	return c, n + 1, true
}

// unmeant adds an operator that has no meaning here, as it is written.
func (p *parser) unmeant(c command, m mode, why, remedy string) {
	p.problem(c.text, why, remedy)
	switch m {
	case inText:
		p.literal(c.text)
	case inJSON:
		p.literal(string(appendJSON(nil, c.text)))
	default:
		p.literal(quote(c.text))
	}
}

// Append appends the line for r to dst.
func (f *Format) Append(dst []byte, r *Record) []byte {
	for i := range f.pieces {
		p := &f.pieces[i]
		if p.kind == literal {
			dst = append(dst, p.text...)
			continue
		}
		dst = p.append(dst, r)
	}
	return dst
}

// none appends what stands for a value that is absent.
func (m mode) none(dst []byte) []byte {
	if m == asJSON {
		return append(dst, "null"...)
	}
	return append(dst, '-')
}

// word appends a value; p says how much of it.
func word[T ~string | ~[]byte](dst []byte, p *piece, v T) []byte {
	if len(v) == 0 {
		return p.mode.none(dst)
	}
	if p.most > 0 && len(v) > p.most {
		v = v[:p.most]
	}
	switch p.mode {
	case inText:
		return appendText(dst, v)
	case inJSON:
		return appendJSON(dst, v)
	}
	return append(appendJSON(append(dst, '"'), v), '"')
}

// Names returns the operators that have a meaning here, in alphabetical order.
func Names() []string {
	var all []string
	for n := range operators {
		all = append(all, strings.TrimSuffix(n, "("))
	}
	slices.Sort(all)
	return all
}

// sensitive says whether a field holds what no log may have.
func sensitive(field string) bool {
	switch strings.ToLower(field) {
	case "authorization", "proxy-authorization", "cookie", "set-cookie":
		return true
	}
	return false
}

var redacted = []byte("[redacted]")

// shown is the value of the field n, unless it is a secret.
func (n *name) shown(v []byte) []byte {
	if n.secret {
		return redacted
	}
	return v
}
