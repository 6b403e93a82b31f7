package http1

import (
	"errors"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// decode feeds raw to a Chunks as a connection does that reads step bytes at a time, and returns the content, how many
// bytes of raw were used, and the trailers as they would be written.
func decode(raw string, step int, lim *Limits) (content string, used int, trailers string, done bool, err error) {
	var c Chunks
	var h message.Head
	var body []byte
	read := min(step, len(raw))
	for {
		data, n, done, err := c.Next([]byte(raw[used:read]), &h, lim)
		if err != nil {
			return string(body), used, "", false, err
		}
		body = append(body, data...)
		used += n
		if done {
			return string(body), used, string(h.AppendLines(nil, message.Other)), true, nil
		}
		if n == 0 {
			if read == len(raw) {
				return string(body), used, "", false, nil
			}
			read = min(read+step, len(raw))
		}
	}
}

func TestChunks(t *testing.T) {
	const after = "GET / HTTP/1.1\r\n"
	f := func(name, raw, content, trailers string) {
		t.Helper()
		for _, step := range []int{1, 2, 3, 7, 1 << 20} {
			got, used, tr, done, err := decode(raw+after, step, nil)
			if err != nil || !done || got != content || used != len(raw) || tr != trailers {
				t.Errorf("%s, %d bytes a read: %q, %d of %d used, trailers %q, done %v, %v", name, step, got, used, len(raw), tr, done, err)
			}
		}
	}
	f("empty", "0\r\n\r\n", "", "")
	f("one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello", "")
	f("two chunks", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", "")
	f("small and capital digits", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", "")
	f("leading zeros", "0000000000000003\r\nabc\r\n000\r\n\r\n", "abc", "")
	f("CRLF in the data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", "")
	f("extension", "3;a=b\r\nabc\r\n0;c=\"d;e\"\r\n\r\n", "abc", "")
	f("extension with white space", "3; a = b\t;c\r\nabc\r\n0\r\n\r\n", "abc", "")
	f("extension above ASCII", "3;\xc3\xa9\r\nabc\r\n0\r\n\r\n", "abc", "")
	f("empty extension", "3;\r\nabc\r\n0\r\n\r\n", "abc", "")
	f("trailers", "1\r\na\r\n0\r\nX-Sum: \t1 \r\ngrpc-status: 0\r\n\r\n", "a", "X-Sum: 1\r\ngrpc-status: 0\r\n")
	f("trailers that must not trail", "0\r\nContent-Length: 5\r\ntransfer-encoding: chunked\r\nHost: b\r\nAuthorization: c\r\nX-Forwarded-For: d\r\n"+
		"Set-Cookie: e\r\nCookie: f\r\nCache-Control: g\r\nContent-Type: h\r\nConnection: close\r\nExpect: i\r\nTE: j\r\nX-Request-Id: k\r\n"+
		"Trailer: l\r\nIf-Match: m\r\nX-Envoy-Original-Path: n\r\nWWW-Authenticate: o\r\nProxy-Authorization: p\r\nUpgrade: q\r\nLocation: r\r\nOK: s\r\n\r\n",
		"", "OK: s\r\n")
	f("many chunks", strings.Repeat("1\r\na\r\n", 1000)+"0\r\n\r\n", strings.Repeat("a", 1000), "")
	f("extensions within their bound", strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\na\r\n", 160)+"0\r\n\r\n", strings.Repeat("a", 160), "")

	// One run may come with all the framing around it.
	var c Chunks
	data, n, done, err := c.Next([]byte("5\r\nhello\r\n0\r\n\r\nGET"), nil, nil)
	if string(data) != "hello" || n != 15 || !done || err != nil {
		t.Errorf("in one call: %q, %d, %v, %v", data, n, done, err)
	}
	if data, n, done, err = c.Next([]byte("GET"), nil, nil); len(data) != 0 || n != 0 || !done || err != nil {
		t.Errorf("after the end: %q, %d, %v, %v", data, n, done, err)
	}
	c.Reset()
	if data, n, done, err = c.Next([]byte("3\r\nab"), nil, nil); string(data) != "ab" || n != 5 || done || err != nil {
		t.Errorf("a part of a chunk: %q, %d, %v, %v", data, n, done, err)
	}
	if cap(data) != 2 {
		t.Errorf("appending to the data would overwrite what follows: capacity %d", cap(data))
	}
}

func TestRefusedChunks(t *testing.T) {
	f := func(name, raw string, status int, reason *Error) {
		t.Helper()
		for _, step := range []int{1, 3, 1 << 20} {
			_, _, _, done, err := decode(raw, step, &Limits{Head: 2000, Fields: 5, Field: 1000})
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("%s, %d bytes a read: accepted, done %v", name, step, done)
			} else if e != reason || e.Status != status {
				t.Errorf("%s, %d bytes a read: %d %s, want %d %s", name, step, e.Status, e.Reason, status, reason.Reason)
			}
		}
	}
	f("no digit", "\r\n", 400, errChunkSize)
	f("no hexadecimal digit", "g\r\n", 400, errChunkSize)
	f("0x", "0x5\r\nhello\r\n", 400, errChunkSize)
	f("plus", "+5\r\nhello\r\n", 400, errChunkSize)
	f("minus", "-5\r\nhello\r\n", 400, errChunkSize)
	f("space before", " 5\r\nhello\r\n", 400, errChunkSize)
	f("space behind", "5 \r\nhello\r\n", 400, errChunkSize)
	f("tab behind", "5\t\r\nhello\r\n", 400, errChunkSize)
	f("space before an extension", "5 ;a\r\nhello\r\n", 400, errChunkSize)
	f("comma", "5,5\r\nhello\r\n", 400, errChunkSize)
	f("underscore", "1_0\r\n", 400, errChunkSize)
	f("too large", "8000000000000000\r\n", 400, errChunkSize)
	f("too large, overflowing to 5", "10000000000000005\r\n", 400, errChunkSize)
	f("too many zeros", "00000000000000000\r\n", 400, errChunkSize)
	f("size line ends with LF", "5\nhello\r\n0\r\n\r\n", 400, errBareLF)
	f("size line ends with CR", "5\rhello\r\n", 400, errBareCR)
	f("extension ends with LF", "5;a\nhello\r\n", 400, errBareLF)
	f("extension ends with CR", "5;a\rbc\r\nhello\r\n", 400, errBareCR)
	f("LF in a quoted extension", "5;a=\"\n\"\r\nhello\r\n", 400, errBareLF)
	f("NUL in an extension", "5;a\x00b\r\nhello\r\n", 400, errChunkLine)
	f("long extension", "5;"+strings.Repeat("a", 2000)+"\r\nhello\r\n", 400, errChunkLine)
	f("extensions that outgrow the body", strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 17), 400, errChunkExt)
	f("data shorter than the size", "5\r\nhell\r\n0\r\n\r\n", 400, errChunkEnd)
	f("data longer than the size", "5\r\nhello!\r\n0\r\n\r\n", 400, errChunkEnd)
	f("data ends with LF", "5\r\nhello\n0\r\n\r\n", 400, errChunkEnd)
	f("data ends with CR", "5\r\nhello\r0\r\n\r\n", 400, errChunkEnd)
	f("last chunk ends with LF", "0\n\r\n", 400, errBareLF)
	f("trailer ends with LF", "0\r\nA: b\n\r\n", 400, errBareLF)
	f("end is LF", "0\r\n\n", 400, errBareLF)
	f("folded trailer", "0\r\nA: b\r\n c\r\n\r\n", 400, errFold)
	f("space before the colon of a trailer", "0\r\nA : b\r\n\r\n", 400, errSpaceColon)
	f("no trailer but the next request", "0\r\nGET / HTTP/1.1\r\n\r\n", 400, errSpaceColon)
	f("NUL in a trailer", "0\r\nA: \x00\r\n\r\n", 400, errControl)
	f("bare CR in a trailer", "0\r\nA: b\rc\r\n\r\n", 400, errBareCR)
	f("too many trailers", "0\r\n"+strings.Repeat("A: b\r\n", 6)+"\r\n", 431, errTooManyFields)
	f("trailer too large", "0\r\nA: "+strings.Repeat("b", 1000)+"\r\n\r\n", 431, errFieldTooLarge)
	f("trailers too large", "0\r\n"+strings.Repeat("A: "+strings.Repeat("b", 600)+"\r\n", 4)+"\r\n", 431, errHeadTooLarge)
	f("trailers too large that are dropped", "0\r\n"+strings.Repeat("Host: "+strings.Repeat("b", 600)+"\r\n", 4)+"\r\n", 431, errHeadTooLarge)
}

// TestChunksRoundTrip writes bodies in chunks of many sizes and reads them back.
func TestChunksRoundTrip(t *testing.T) {
	var trailers message.Head
	trailers.Add("X-Sum", "1")
	trailers.Add("Content-Length", "5") // must not trail
	trailers.Add("Gone", "1")
	trailers.RemoveName("gone")
	for _, size := range []int{1, 9, 15, 16, 17, 255, 256, 4095, 4096, 65535, 65536, 1 << 20} {
		var raw []byte
		var content strings.Builder
		for i := range 3 {
			data := strings.Repeat(string(rune('a'+i)), size)
			content.WriteString(data)
			raw = append(append(AppendChunkHead(raw, size), data...), "\r\n"...)
		}
		raw = AppendLastChunk(raw, &trailers)
		got, used, tr, done, err := decode(string(raw), 1000, nil)
		if err != nil || !done || used != len(raw) || got != content.String() || tr != "X-Sum: 1\r\n" {
			t.Errorf("chunks of %d: %d of %d used, done %v, trailers %q, %v", size, used, len(raw), done, tr, err)
		}
	}
	if got := string(AppendLastChunk(nil, nil)); got != "0\r\n\r\n" {
		t.Errorf("last chunk: %q", got)
	}
}
