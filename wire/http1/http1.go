// Package http1 reads and writes the heads and the chunked framing of HTTP/1.0 and 1.1, for servers and clients, over byte slices.
//
// It does no I/O and keeps nothing: connections and buffers belong to the caller. It refuses whatever two readers
// could understand differently (RFC 9110, RFC 9112; obs-fold, bare LF, repeated or odd framing fields, ...) instead of
// repairing it, and what it writes it would read again.
package http1

import (
	"bytes"
	"strings"

	"github.com/outrider-mesh/outrider/wire/message"
)

// Limits bound a head, and the trailer section of a chunked body. Zero fields take those of DefaultLimits.
type Limits struct {
	Head   int // bytes of a whole head or trailer section
	Fields int // field lines
	Field  int // bytes of one field line with its CRLF
	Line   int // bytes of the request or status line with its CRLF
	// NoUnderscore refuses requests with "_" in a field name, which CGI and its heirs cannot tell from "-": for gateways.
	NoUnderscore bool
}

// DefaultLimits are what Envoy's guide for edge proxies advises.
var DefaultLimits = Limits{Head: 60 << 10, Fields: 100, Field: 8 << 10, Line: 8 << 10}

// OrDefault returns l with its zero fields filled; l may be nil.
func (l *Limits) OrDefault() Limits {
	if l == nil {
		return DefaultLimits
	}
	d := *l
	if d.Head == 0 {
		d.Head = DefaultLimits.Head
	}
	if d.Fields == 0 {
		d.Fields = DefaultLimits.Fields
	}
	if d.Field == 0 {
		d.Field = DefaultLimits.Field
	}
	if d.Line == 0 {
		d.Line = DefaultLimits.Line
	}
	return d
}

// Error is a message that is refused. Its connection serves no further message: where the message ends is unknown.
type Error struct {
	// Status answers the message: 400, 414, 417, 431, 501 or 505; for a response it is 502.
	Status int
	// Reason is a sentence fit for a reply's body and a log: it holds no byte of the message.
	Reason string
}

func (e *Error) Error() string { return e.Reason }

// Large says that the message's head or trailers were over Limits.
func (e *Error) Large() bool {
	switch strings.TrimPrefix(e.Reason, ofResponses) {
	case errHeadTooLarge.Reason, errFieldTooLarge.Reason, errTooManyFields.Reason, errLineTooLong.Reason, strings.TrimPrefix(errStatusTooLong.Reason, ofResponses):
		return true
	}
	return false
}

// ofResponses begins the reasons of responses.
const ofResponses = "response: "

// badGateway returns e as it is told to the client of a response that cannot be forwarded.
func badGateway(e *Error) *Error { return &Error{502, ofResponses + e.Reason} }

// The reasons for refusing a message. They are made once: a refusal costs no allocation.
var (
	errIncomplete     = &Error{400, "the head is not complete"}
	errAfterHead      = &Error{400, "bytes follow the empty line of the head"}
	errHeadTooLarge   = &Error{431, "the head is larger than the limit"}
	errFieldTooLarge  = &Error{431, "a header field is larger than the limit"}
	errTooManyFields  = &Error{431, "there are more header fields than the limit"}
	errLineTooLong    = &Error{414, "the request line is longer than the limit"}
	errStatusTooLong  = &Error{502, "response: the status line is longer than the limit"}
	errBareLF         = &Error{400, "a line ends with LF alone"}
	errBareCR         = &Error{400, "CR stands without LF"}
	errControl        = &Error{400, "a header field value holds a control character"}
	errFold           = &Error{400, "a line begins with white space (obsolete line folding)"}
	errSpaceColon     = &Error{400, "white space stands before the colon of a header field"}
	errNoColon        = &Error{400, "a header line has no colon"}
	errFieldName      = &Error{400, "a header field name is empty or holds a character that it may not"}
	errUnderscore     = &Error{400, "a header field name holds an underscore"}
	errRequestLine    = &Error{400, "the request line is not METHOD TARGET VERSION with single spaces"}
	errMethod         = &Error{400, "the method is not an upper-case token"}
	errPreface        = &Error{400, "the HTTP/2 preface is garbled"}
	errTarget         = &Error{400, "the request target holds a character that it may not"}
	errFragment       = &Error{400, "the request target holds a fragment"}
	errTargetForm     = &Error{400, "the request target has none of the forms that its method allows"}
	errScheme         = &Error{400, "the scheme of the request target is neither http nor https"}
	errVersion        = &Error{400, "the HTTP version is malformed"}
	errVersionUnknown = &Error{505, "only HTTP/1.0 and HTTP/1.1 are spoken here"}
	errNoHost         = &Error{400, "the Host field is missing"}
	errHosts          = &Error{400, "there is more than one Host field"}
	errHost           = &Error{400, "the Host field is not host[:port]"}
	errAuthority      = &Error{400, "the authority of the request target is not host[:port]"}
	errConnectPort    = &Error{400, "the target of CONNECT is not host:port"}
	errHostDiffers    = &Error{400, "the Host field differs from the request target"}
	errLengthAndTE    = &Error{400, "both Content-Length and Transfer-Encoding are there"}
	errLengths        = &Error{400, "there is more than one Content-Length"}
	errLength         = &Error{400, "Content-Length is not a decimal number of bytes"}
	errTEVersion      = &Error{400, "Transfer-Encoding stands in an HTTP/1.0 message"}
	errTE             = &Error{400, "Transfer-Encoding does not end with chunked, once"}
	errTEUnknown      = &Error{501, "no transfer coding but chunked is known here"}
	errConnectBody    = &Error{400, "a CONNECT request has a body"}
	errConnection     = &Error{400, "the Connection field is malformed or has too many options"}
	errUpgrade        = &Error{400, "the Upgrade field is malformed"}
	errExpect         = &Error{417, "only 100-continue can be expected"}
	errStatusLine     = &Error{502, "response: the status line is malformed"}
	errStatusVersion  = &Error{502, "response: the version is neither HTTP/1.0 nor HTTP/1.1"}
	errSwitch         = &Error{502, "response: 101 without an Upgrade that Connection names"}
	errInterimBody    = &Error{502, "response: an informational response has a body"}
	errChunkSize      = &Error{400, "a chunk size is not a hexadecimal number of bytes"}
	errChunkLine      = &Error{400, "a chunk size line is too long or malformed"}
	errChunkEnd       = &Error{400, "a chunk does not end with CRLF where its size says"}
	errChunkExt       = &Error{400, "the chunk extensions outgrow the body"}
)

// HeadEnd returns the length of the head at the start of b up to and including its empty line, or 0 where it is not
// complete yet; from is how many bytes of b an earlier call has seen. One empty line before the head counts to it
// (RFC 9112 §2.2). A head that is over the limits, or that ReadRequest would surely refuse, fails with *Error before
// it is complete. What begins with "HTTP/" is taken for a response, and fails with 502.
func HeadEnd(b []byte, from int, lim *Limits) (n int, err error) {
	l := lim.OrDefault()
	response := len(b) >= 5 && string(b[:5]) == "HTTP/"
	n, e := headEnd(b, from, &l, response)
	switch {
	case e == nil:
		return n, nil
	case response && e.Status != 502:
		return 0, badGateway(e)
	}
	return 0, e
}

// ResponseHeadEnd is HeadEnd for what a server sends: it fails with 502 as soon as b does not begin as a response does.
func ResponseHeadEnd(b []byte, from int, lim *Limits) (n int, err error) {
	const begin = "HTTP/1."
	if k := min(len(b), len(begin)); string(b[:k]) != begin[:k] {
		return 0, errStatusLine
	}
	l := lim.OrDefault()
	n, e := headEnd(b, from, &l, true)
	switch {
	case e == nil:
		return n, nil
	case e.Status != 502:
		return 0, badGateway(e)
	}
	return 0, e
}

// headEnd visits each line end once, over all calls: where the lines end is all that it looks for (BenchmarkHeadEnd).
func headEnd(b []byte, from int, l *Limits, response bool) (int, *Error) {
	from = max(0, min(from, len(b)))
	line := bytes.LastIndexByte(b[:from], '\n') + 1 // where the line under way begins
	lead := 0
	if len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		lead = 2
	}
	for at := from; ; at = line {
		j := bytes.IndexByte(b[at:], '\n')
		if j < 0 {
			break
		}
		end := at + j
		if end == 0 || b[end-1] != '\r' {
			return 0, errBareLF
		}
		if e := tooLong(end+1-line, end+1, line == 0 || line == lead, l, response); e != nil {
			return 0, e
		}
		if end-1 == line && line > 0 {
			if line == lead {
				return 0, errRequestLine // a second empty line
			}
			return end + 1, nil
		}
		line = end + 1
	}
	if e := tooLong(len(b)-line, len(b), line == 0 || line == lead, l, response); e != nil {
		return 0, e
	}
	if first := b[lead:]; line <= lead && len(first) > 0 && !token[first[0]] && !(lead == 0 && len(b) == 1 && b[0] == '\r') {
		return 0, errMethod // TLS or another protocol: its sender may wait for us
	}
	return 0, nil
}

// tooLong says what a line of n bytes that ends at byte end of the head is over.
func tooLong(n, end int, first bool, l *Limits, response bool) *Error {
	switch {
	case first && n > l.Line && response:
		return errStatusTooLong
	case first && n > l.Line:
		return errLineTooLong
	case !first && n > l.Field:
		return errFieldTooLarge
	case end > l.Head:
		return errHeadTooLarge
	}
	return nil
}

// Bits of IDs, for tests of membership.
const (
	// hopByHop are the fields that end here and are never in a message's list of fields.
	hopByHop uint64 = 1<<message.Connection | 1<<message.ContentLength | 1<<message.HTTP2Settings | 1<<message.KeepAlive |
		1<<message.ProxyConnection | 1<<message.TE | 1<<message.TransferEncoding | 1<<message.Upgrade
	// ofRequest are the fields of a request, ofResponse those of a response, that say something to us.
	ofRequest  = hopByHop | 1<<message.Host | 1<<message.Expect
	ofResponse = hopByHop | 1<<message.ProxyAuthenticate
)
