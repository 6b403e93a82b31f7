package http1

import (
	"bytes"

	"github.com/outrider-mesh/outrider/wire/message"
)

const (
	// chunkLine bounds a chunk size line in bytes, its extensions included.
	chunkLine = 1 << 10
	// chunkExtra is how many bytes of chunk extensions a body may have beyond one for each byte of data: extensions are
	// dropped, and nobody may make us read them for ever (CVE-2023-39326).
	chunkExtra = 16 << 10
)

// Chunks decodes the chunked framing of one body (RFC 9112 §7.1). The zero value is ready.
type Chunks struct {
	left  int64 // bytes of the current chunk that are yet to come
	state chunkState
	// data and ext count the bytes of content and of extensions so far.
	data, ext int64
	// bytes and fields count the trailer section.
	bytes, fields int
}

type chunkState uint8

const (
	chunkSize     chunkState = iota // a size line comes
	chunkData                       // data of the current chunk comes
	chunkDataEnd                    // the CRLF behind the data comes
	chunkTrailers                   // trailer lines come
	chunkDone
)

// Reset makes c ready for another body.
func (c *Chunks) Reset() { *c = Chunks{} }

// Next decodes the beginning of b, the bytes that were read and not consumed before. It returns the next run of content
// inside b, which may be empty, and how many bytes of b are used up with it, framing before and behind it included.
// done says that the body is complete: there may still be data with it. With n == 0 and not done, b is too short: read
// more and call again with all of it; b need never be longer than a trailer line may be (Limits.Field).
// Trailer fields are added to trailers, nil dropping them; those that must not come so late are dropped
// (RFC 9110 §6.5.1). It fails with *Error, for a response with a status that is to be taken for 502; c is then of no use.
func (c *Chunks) Next(b []byte, trailers *message.Head, lim *Limits) (data []byte, n int, done bool, err error) {
	for {
		rest := b[n:]
		switch c.state {
		case chunkSize:
			size, used, e := c.sizeLine(rest)
			if e != nil {
				return nil, n, false, e
			}
			if used == 0 {
				return data, n, false, nil
			}
			n += used
			c.left, c.state = size, chunkData
			if size == 0 {
				c.state = chunkTrailers
			}
		case chunkData:
			if len(data) > 0 || len(rest) == 0 {
				return data, n, false, nil // one run at a time
			}
			k := int(min(c.left, int64(len(rest))))
			data = rest[:k:k]
			n += k
			c.data += int64(k)
			if c.left -= int64(k); c.left > 0 {
				return data, n, false, nil
			}
			c.state = chunkDataEnd
		case chunkDataEnd:
			if len(rest) > 0 && rest[0] != '\r' || len(rest) > 1 && rest[1] != '\n' {
				return nil, n, false, errChunkEnd
			}
			if len(rest) < 2 {
				return data, n, false, nil
			}
			n += 2
			c.state = chunkSize
		case chunkTrailers:
			used, last, e := c.trailerLine(rest, trailers, lim)
			if e != nil {
				return nil, n, false, e
			}
			if used == 0 {
				return data, n, false, nil
			}
			n += used
			if last {
				c.state = chunkDone
			}
		case chunkDone:
			return data, n, true, nil
		}
	}
}

// sizeLine parses a chunk size line; used is 0 where it is not complete.
func (c *Chunks) sizeLine(b []byte) (size int64, used int, err *Error) {
	i := 0
	for ; i < len(b); i++ {
		d := hexValue[b[i]]
		if d > 15 {
			break
		}
		if i == 16 || size>>59 != 0 {
			return 0, 0, errChunkSize
		}
		size = size<<4 | int64(d)
	}
	switch {
	case i == len(b):
		return 0, 0, nil
	case i == 0:
		return 0, 0, errChunkSize
	case b[i] == '\r':
		if i+1 == len(b) {
			return 0, 0, nil
		}
		if b[i+1] != '\n' {
			return 0, 0, errBareCR
		}
		return size, i + 2, nil
	case b[i] == '\n':
		return 0, 0, errBareLF
	case b[i] != ';': // white space too, though the RFC has it as "bad" white space before an extension
		return 0, 0, errChunkSize
	}
	end := text(b, i)
	if end > chunkLine {
		return 0, 0, errChunkLine
	}
	if end+1 >= len(b) || b[end] != '\r' || b[end+1] != '\n' {
		switch e := notText(b, end); e {
		case errIncomplete:
			return 0, 0, nil
		case errControl:
			return 0, 0, errChunkLine
		default:
			return 0, 0, e
		}
	}
	if c.ext += int64(end - i); c.ext > chunkExtra+c.data {
		return 0, 0, errChunkExt
	}
	return size, end + 2, nil
}

// trailerLine takes one line of the trailer section; used is 0 where it is not complete, last says that it was the empty one.
func (c *Chunks) trailerLine(b []byte, trailers *message.Head, lim *Limits) (used int, last bool, err *Error) {
	lf := bytes.IndexByte(b, '\n')
	if lf == 1 && b[0] == '\r' {
		return 2, true, nil
	}
	l := lim.OrDefault()
	if lf+1 > l.Field || lf < 0 && len(b) > l.Field {
		return 0, false, errFieldTooLarge
	}
	if lf < 0 {
		return 0, false, nil
	}
	line := b[:lf+1]
	id, colon, value, end, _, e := fieldLine(line, 0)
	if e != nil {
		return 0, false, e
	}
	if c.bytes += len(line); c.bytes > l.Head {
		return 0, false, errHeadTooLarge
	}
	if c.fields++; c.fields > l.Fields {
		return 0, false, errTooManyFields
	}
	if trailers != nil && mayTrail(id, line[:colon]) {
		trailers.Append(id, line[:colon], line[value:end])
	}
	return len(line), false, nil
}

// hexValue holds the value of each hex digit, and 0xff for other bytes.
var hexValue = func() (t [256]byte) {
	for c := range t {
		t[c] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	for i, c := range []byte("ABCDEF") {
		t[c] = byte(10 + i)
	}
	return t
}()

// AppendChunkHead appends what stands before n bytes of data, n > 0: the size line. CRLF follows the data.
func AppendChunkHead(dst []byte, n int) []byte {
	const digits = "0123456789abcdef"
	shift := 0
	for n>>shift > 15 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>shift&15])
	}
	return append(dst, '\r', '\n')
}

// AppendLastChunk appends what ends a chunked body: the last chunk and the trailer section. Trailers may be nil; fields
// that must not trail are left out.
func AppendLastChunk(dst []byte, trailers *message.Head) []byte {
	dst = append(dst, "0\r\n"...)
	if trailers != nil {
		for i := range trailers.Len() {
			id, name, value := trailers.Field(i)
			if len(name) == 0 || !mayTrail(id, name) {
				continue
			}
			dst = append(append(dst, name...), ": "...)
			dst = append(append(dst, value...), "\r\n"...)
		}
	}
	return append(dst, '\r', '\n')
}
