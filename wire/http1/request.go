package http1

import (
	"bytes"
	"encoding/binary"

	"github.com/outrider-mesh/outrider/wire/message"
)

// The versions as they stand in a start line, read as one number.
var (
	version11 = binary.LittleEndian.Uint64([]byte("HTTP/1.1"))
	version10 = binary.LittleEndian.Uint64([]byte("HTTP/1.0"))
)

// targetByte says which bytes may stand in a request target: visible ones but "#", and those above ASCII, which clients
// do send. "?" ends the path and is looked at by hand.
var targetByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c > ' ' && c != 0x7f && c != '#' && c != '?'
	}
	return t
}()

// ReadRequest parses the complete head, as HeadEnd measured it, into r, which is Reset first. The head is copied: r
// stays valid when the read buffer goes. What is out of the field list afterwards: Host (Authority), Content-Length and
// Transfer-Encoding (BodyLength), Expect, Upgrade, TE, Connection and the fields that it nominates, Keep-Alive,
// Proxy-Connection, HTTP2-Settings. It fails with *Error; r is then of no use.
func ReadRequest(r *message.Request, head []byte, lim *Limits) error {
	l := lim.OrDefault()
	r.Reset()
	if e := readRequest(r, head, &l); e != nil {
		return e
	}
	return nil
}

func readRequest(r *message.Request, head []byte, l *Limits) *Error {
	if len(head) > l.Head {
		return errHeadTooLarge
	}
	if len(head) < 4 || string(head[len(head)-4:]) != "\r\n\r\n" {
		return errIncomplete
	}
	b := r.Load(head)
	i := 0
	if b[0] == '\r' && b[1] == '\n' {
		i = 2 // RFC 9112 §2.2: some clients end a body with a line of its own
	}
	var f framing
	t, i, e := requestLine(r, b, i, l)
	if e != nil {
		return e
	}
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
		if l.NoUnderscore && id == message.Other && bytes.IndexByte(b[i:colon], '_') >= 0 {
			return errUnderscore
		}
		if ofRequest>>id&1 == 0 {
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
	if e := f.route(r, b, t); e != nil {
		return e
	}
	return f.finishRequest(r, b)
}

// target says what the request line's target is.
type target struct {
	connect   bool
	authority piece // of the absolute form and of CONNECT
	checked   authority
	standard  string // the scheme's own port
}

// requestLine parses the request line at b[i] and returns where the next line begins.
func requestLine(r *message.Request, b []byte, i int, l *Limits) (t target, next int, err *Error) {
	m := i
	for m < len(b) && token[b[m]] && (b[m] < 'a' || b[m] > 'z') {
		m++
	}
	if m == i || b[m] != ' ' {
		return t, 0, badMethod(b[i:])
	}
	r.SetMethodAt(i, m-i)
	s := m + 1 // the target is b[s:end], its query b[q:end]
	q := s
	for targetByte[b[q]] {
		q++
	}
	end := q
	for targetByte[b[end]] || b[end] == '?' {
		end++
	}
	if b[end] == '#' {
		return t, 0, errFragment
	}
	if b[end] != ' ' || end == s {
		return t, 0, badTarget(b[end:], end == s)
	}
	next = end + 11
	if next > len(b) || b[next-2] != '\r' || b[next-1] != '\n' {
		return t, 0, badVersion(b[end+1:])
	}
	switch binary.LittleEndian.Uint64(b[end+1:]) {
	case version11:
		r.Version = message.HTTP11
	case version10:
		r.Version = message.HTTP10
	default:
		if string(b[i:m]) == "PRI" {
			return t, 0, errPreface // of HTTP/2; who speaks that has looked before whether it is all there
		}
		return t, 0, badVersion(b[end+1:])
	}
	if next-i > l.Line {
		return t, 0, errLineTooLong
	}
	if b[s] == '/' && string(b[i:m]) != "CONNECT" {
		r.SetPathAt(s, q-s)
		r.SetQueryAt(q, end-q)
		return t, next, nil
	}
	t, err = rareTarget(r, b, s, q, end)
	return t, next, err
}

// rareTarget reads a target that is not in origin form: b[s:end] with a query from q on.
func rareTarget(r *message.Request, b []byte, s, q, end int) (t target, err *Error) {
	method := string(r.Method())
	switch {
	case method == "PRI":
		return t, errPreface
	case method == "CONNECT":
		a, ok := parseAuthority(b[s:end])
		if !ok || a.n == a.colon {
			return t, errConnectPort
		}
		t = target{connect: true, authority: piece{s, end - s}, checked: a}
		return t, nil
	case b[s] == '*' && end == s+1:
		if method != "OPTIONS" {
			return t, errTargetForm
		}
		r.SetPathAt(s, 1)
		return t, nil
	}
	colon := s
	for colon < q && b[colon] != ':' && b[colon] != '/' {
		colon++
	}
	if colon+2 >= q || string(b[colon:colon+3]) != "://" {
		return t, errTargetForm
	}
	switch {
	case message.EqualFold(b[s:colon], "http"):
		t.standard = "80"
	case message.EqualFold(b[s:colon], "https"):
		t.standard = "443"
	default:
		return t, errScheme
	}
	a := colon + 3
	path := a
	for path < q && b[path] != '/' {
		path++
	}
	var ok bool
	if t.checked, ok = parseAuthority(b[a:path]); !ok {
		return t, errAuthority
	}
	t.authority = piece{a, path - a}
	r.Absolute = true
	r.SetPathAt(path, q-path)
	r.SetQueryAt(q, end-q)
	return t, nil
}

// route decides on the authority: that of the target wins over Host, and they must not differ (RFC 9112 §3.2.2, §7.2).
func (f *framing) route(r *message.Request, b []byte, t target) *Error {
	if f.hosts > 1 {
		return errHosts
	}
	if f.hosts == 0 && r.Version != message.HTTP10 {
		return errNoHost
	}
	var host authority
	if f.hosts == 1 {
		var ok bool
		if host, ok = parseAuthority(f.host.of(b)); !ok {
			return errHost
		}
		if t.authority.n == 0 {
			r.SetAuthorityAt(f.host.off, host.n)
			return nil
		}
		v, w := t.authority.of(b), f.host.of(b)
		standard := t.standard
		if t.connect && host.n == host.colon {
			standard = string(port(v, t.checked)) // some clients leave the port of CONNECT out of Host
		}
		if !sameAuthority(v, t.checked, w, host, standard) {
			return errHostDiffers
		}
	}
	r.SetAuthorityAt(t.authority.off, t.checked.n)
	if !r.Absolute {
		return nil
	}
	// These come last: they add to r's buffer, and b is what it was before.
	scheme, path := []byte("http"), []byte("/")
	if t.standard == "443" {
		scheme = []byte("https")
	}
	if len(r.Path()) == 0 {
		if len(r.Query()) == 0 && string(r.Method()) == "OPTIONS" {
			path = []byte("*") // RFC 9112 §3.2.4
		}
		r.SetPath(path)
	}
	r.SetScheme(scheme)
	return nil
}

// finishRequest decides on body and connection.
func (f *framing) finishRequest(r *message.Request, b []byte) *Error {
	n, _, e := f.bodyLength(b, r.Version)
	if e != nil {
		return e
	}
	connect := string(r.Method()) == "CONNECT"
	if connect && n != message.NoBody {
		return errConnectBody // RFC 9110 §9.3.6: what follows is the tunnel
	}
	r.BodyLength = n
	if f.nominates {
		if e := f.connection(&r.Head); e != nil {
			return e
		}
	}
	if f.switches {
		protocols, e := f.upgrade(&r.Head)
		if e != nil {
			return e
		}
		// RFC 9110 §7.8: not in HTTP/1.0, and only where Connection says that it is meant for us.
		if len(protocols) > 0 && f.upgrades && r.Version == message.HTTP11 && !connect {
			r.SetUpgradeTo(protocols)
		}
	}
	r.Trailers = f.trailers
	// RFC 9110 §10.1.1: not in HTTP/1.0; and who sends no content waits for nothing.
	r.ExpectContinue = f.expects && r.Version == message.HTTP11 && n != message.NoBody
	r.Close = f.closes
	if r.Version == message.HTTP10 {
		// RFC 9112 §9.3: a proxy keeps no connection with an HTTP/1.0 client; a server that we stand in for may.
		r.Close = f.closes || !f.keepAlive || r.Absolute
	}
	return nil
}

// badMethod says why no method and space begin line.
func badMethod(line []byte) *Error {
	switch line[0] {
	case '\r', '\n', ' ', '\t':
		return errRequestLine
	}
	for _, c := range line {
		if c == '\r' || c == '\n' {
			return errRequestLine
		}
		if !token[c] {
			break // a space too: then there are small letters
		}
	}
	return errMethod
}

// badTarget says why rest follows a target.
func badTarget(rest []byte, empty bool) *Error {
	switch {
	case rest[0] == '\n':
		return errBareLF
	case empty || rest[0] == '\r' && rest[1] == '\n':
		return errRequestLine
	}
	return errTarget
}

// badVersion says why rest does not begin with a version that we speak and CRLF.
func badVersion(rest []byte) *Error {
	n := 0
	for rest[n] != '\r' && rest[n] != '\n' {
		if rest[n] == ' ' {
			return errRequestLine
		}
		n++
	}
	v := rest[:n]
	switch {
	case rest[n] == '\n':
		return errBareLF
	case rest[n+1] != '\n':
		return errBareCR
	case len(v) == 8 && string(v[:5]) == "HTTP/" && isDigit(v[5]) && v[6] == '.' && isDigit(v[7]):
		return errVersionUnknown
	}
	return errVersion
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
