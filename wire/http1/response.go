package http1

import (
	"encoding/binary"

	"github.com/outrider-mesh/outrider/wire/message"
)

// ReadResponse parses the complete head of a response to a request of that method into r, which is Reset first; HEAD and
// CONNECT change the framing. The head is copied. Out of the field list afterwards are Content-Length,
// Transfer-Encoding, Connection and the fields that it nominates, Upgrade (UpgradeTo of a 101 or 426), Keep-Alive, and
// Proxy-Authenticate but in a 407. It fails with an *Error of status 502; r is then of no use.
func ReadResponse(r *message.Response, head, method []byte, lim *Limits) error {
	l := lim.OrDefault()
	r.Reset()
	e := readResponse(r, head, method, &l)
	switch {
	case e == nil:
		return nil
	case e.Status != 502:
		return badGateway(e)
	}
	return e
}

func readResponse(r *message.Response, head, method []byte, l *Limits) *Error {
	if len(head) > l.Head {
		return errHeadTooLarge
	}
	if len(head) < 17 || string(head[len(head)-4:]) != "\r\n\r\n" {
		return errIncomplete
	}
	b := r.Load(head)
	i, e := statusLine(r, b, l)
	if e != nil {
		return e
	}
	var f framing
	added := message.Added
	for count := 0; b[i] != '\r'; {
		id, colon, value, end, next, e := fieldLine(b, i)
		if e != nil {
			return e
		}
		if next-i > l.Field {
			return errFieldTooLarge
		}
		if bit := uint64(1) << (id & 63); added&bit != 0 {
			added &^= bit
		} else if count++; count > l.Fields {
			return errTooManyFields
		}
		if ofResponse>>id&1 == 0 || id == message.ProxyAuthenticate && r.Status == 407 {
			r.AppendAt(id, i, colon-i, value, end-value)
		} else if e := f.take(&r.Head, b, id, piece{i, colon - i}, piece{value, end - value}); e != nil {
			return e
		}
		i = next
	}
	if i+2 != len(b) {
		if b[i+1] != '\n' {
			return errBareCR
		}
		return errAfterHead
	}
	return f.finishResponse(r, b, method)
}

// statusLine parses the status line and returns where the next line begins.
func statusLine(r *message.Response, b []byte, l *Limits) (next int, err *Error) {
	switch binary.LittleEndian.Uint64(b) {
	case version11:
		r.Version = message.HTTP11
	case version10:
		r.Version = message.HTTP10
	default:
		if string(b[:5]) == "HTTP/" {
			return 0, errStatusVersion
		}
		return 0, errStatusLine
	}
	if b[8] != ' ' || b[9] < '1' || b[9] > '9' || !isDigit(b[10]) || !isDigit(b[11]) {
		return 0, errStatusLine
	}
	r.Status = int(b[9]-'0')*100 + int(b[10]-'0')*10 + int(b[11]-'0')
	i := 12
	if b[i] == ' ' { // many servers leave the space out with the reason
		i++
	} else if b[i] != '\r' {
		return 0, errStatusLine
	}
	end := text(b, i)
	if end+1 >= len(b) || b[end] != '\r' || b[end+1] != '\n' {
		return 0, notText(b, end)
	}
	if end+2 > l.Line {
		return 0, errStatusTooLong
	}
	r.SetReasonAt(i, end-i)
	return end + 2, nil
}

// finishResponse decides on body and connection (RFC 9112 §6.3).
func (f *framing) finishResponse(r *message.Response, b, method []byte) *Error {
	connected := r.Status/100 == 2 && string(method) == "CONNECT"
	if connected {
		f.lengths, f.codings = 0, 0 // RFC 9110 §9.3.6: to be ignored
	}
	n, declared, e := f.bodyLength(b, r.Version)
	if e != nil {
		return e
	}
	if f.nominates {
		if e := f.connection(&r.Head); e != nil {
			return e
		}
	}
	r.Close = f.closes || r.Version == message.HTTP10 && !f.keepAlive
	if f.switches {
		protocols, e := f.upgrade(&r.Head)
		if e != nil {
			return e
		}
		// Elsewhere than in these two, Upgrade advertises what the server could speak with us, not with our client.
		if len(protocols) > 0 && f.upgrades && (r.Status == 101 || r.Status == 426) {
			r.SetUpgradeTo(protocols)
		}
	}
	r.Declared = message.UnknownLength
	switch {
	case r.Status < 200:
		if n != message.NoBody {
			return errInterimBody
		}
		if r.Status == 101 && len(r.UpgradeTo()) == 0 {
			return errSwitch
		}
		r.HeadOnly = true
	case connected:
		r.HeadOnly = true
	case r.Status == 204:
		r.HeadOnly = true
		// It has no body, yet says so: what follows may be one after all, and must not be taken for the next response.
		r.Close = r.Close || n != message.NoBody
	case r.Status == 304 || string(method) == "HEAD":
		r.HeadOnly = true
		if declared {
			r.Declared = n
		}
	case declared:
		r.BodyLength = n
	default:
		r.BodyLength = message.UnknownLength
		r.UntilClose, r.Close = true, true
	}
	return nil
}
