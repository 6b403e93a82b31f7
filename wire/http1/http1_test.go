package http1

import (
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// TestHeadEndSplit reads every accepted head one byte at a time, and in two parts split everywhere.
func TestHeadEndSplit(t *testing.T) {
	const next = "GET /next HTTP/1.1\r\n"
	for _, head := range []string{
		meshRequest, "GET / HTTP/1.1\r\n\r\n", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nA:\r\n\r\n", meshResponse, "HTTP/1.1 200\r\n\r\n",
	} {
		raw := []byte(head + next)
		from := 0
		for i := 0; i <= len(raw); i++ {
			n, err := HeadEnd(raw[:i], from, nil)
			if err != nil {
				t.Fatalf("%q, byte by byte: %v", raw[:i], err)
			}
			if want := len(head); n != 0 && n != want || (i >= want) != (n != 0) {
				t.Fatalf("%q, byte by byte: end at %d, want %d", raw[:i], n, want)
			}
			if n != 0 {
				break
			}
			from = i
		}
		for i := range head {
			if n, err := HeadEnd(raw[:i], 0, nil); n != 0 || err != nil {
				t.Fatalf("%q: end at %d, %v", raw[:i], n, err)
			}
			if n, err := HeadEnd(raw, i, nil); n != len(head) || err != nil {
				t.Fatalf("%q after %d bytes: end at %d, %v", raw, i, n, err)
			}
			if !strings.HasPrefix(head, "HTTP/") {
				continue
			}
			if n, err := ResponseHeadEnd(raw[:i], 0, nil); n != 0 || err != nil {
				t.Fatalf("%q: end at %d, %v", raw[:i], n, err)
			}
		}
	}
}

// TestHeadEndEarly has heads that are refused before they are complete, whichever way they come in.
func TestHeadEndEarly(t *testing.T) {
	f := func(raw string, want *Error) {
		t.Helper()
		if _, err := HeadEnd([]byte(raw), 0, nil); err == nil || err.Error() != want.Reason || err.(*Error).Status != want.Status {
			t.Errorf("%q: %v, want %v", raw, err, want)
		}
		for i := range raw {
			if _, err := HeadEnd([]byte(raw[:i]), max(0, i-1), nil); err != nil {
				return // earlier still
			}
		}
		if _, err := HeadEnd([]byte(raw), len(raw)-1, nil); err == nil || err.Error() != want.Reason {
			t.Errorf("%q, byte by byte: %v, want %v", raw, err, want)
		}
	}
	f("GET / HTTP/1.1\n", errBareLF)
	f("GET / HTTP/1.1\r\nHost: a\n", errBareLF)
	f("\n", errBareLF)
	f("\r\n\r\n", errRequestLine)
	f("\x16\x03\x01\x02", errMethod) // TLS
	f("\x00", errMethod)
	f("\r\r", errMethod)
	f("\r\n\x80", errMethod)
	f("GET /"+strings.Repeat("a", 8<<10), errLineTooLong)
	f("GET / HTTP/1.1\r\nA: "+strings.Repeat("a", 8<<10), errFieldTooLarge)
	f("GET / HTTP/1.1\r\n"+strings.Repeat("A: "+strings.Repeat("a", 1000)+"\r\n", 62), errHeadTooLarge)
	f("HTTP/1.1 200 OK\n", badGateway(errBareLF))
	f("HTTP/1.1 200 "+strings.Repeat("a", 8<<10), errStatusTooLong)
	f("HTTP/1.1 200 OK\r\nA: "+strings.Repeat("a", 8<<10), badGateway(errFieldTooLarge))
	for _, raw := range []string{"SSH-2.0-x\r\n", "HTTP/2", "x", "\r\nHTTP/1.1 200 OK\r\n", "http/1.1"} {
		if _, err := ResponseHeadEnd([]byte(raw), 0, nil); err != error(errStatusLine) {
			t.Errorf("response %q: %v", raw, err)
		}
	}
	if n, err := HeadEnd(nil, 5, nil); n != 0 || err != nil { // from beyond the end does no harm
		t.Errorf("nothing: %d, %v", n, err)
	}
}

// TestReadIncomplete gives heads that HeadEnd did not measure to the readers, which must not look past them.
func TestReadIncomplete(t *testing.T) {
	var r message.Request
	var p message.Response
	for i := range meshRequest {
		if err := ReadRequest(&r, []byte(meshRequest[:i]), nil); err == nil {
			t.Errorf("accepted %q", meshRequest[:i])
		}
	}
	for i := range meshResponse {
		if err := ReadResponse(&p, []byte(meshResponse[:i]), []byte("GET"), nil); err == nil {
			t.Errorf("accepted %q", meshResponse[:i])
		}
	}
	if err := ReadRequest(&r, []byte(meshRequest+meshRequest), nil); err != error(errAfterHead) {
		t.Errorf("two heads: %v", err)
	}
	if err := ReadResponse(&p, []byte(meshResponse+meshResponse), nil, nil); err == nil || err.Error() != badGateway(errAfterHead).Reason {
		t.Errorf("two heads: %v", err)
	}
}

// TestNoAllocations holds the codec to no allocation once its buffers have grown, in the ordinary and the rarer ways.
func TestNoAllocations(t *testing.T) {
	var r message.Request
	var p message.Response
	var trailers message.Head
	var dst []byte
	method := []byte("GET")
	f := func(name string, run func()) {
		t.Helper()
		run()
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	request := func(raw string) func() {
		head := []byte(raw)
		return func() {
			n, err := HeadEnd(head, 0, &DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			if err := ReadRequest(&r, head[:n], &DefaultLimits); err != nil {
				t.Fatal(err)
			}
			if err := r.NormalizePath(message.BasePath); err != nil {
				t.Fatal(err)
			}
			r.Set("x-envoy-attempt-count", "1")
			r.Set("user-agent", "outrider")
			dst = AppendRequest(dst[:0], &r, RequestOptions{})
		}
	}
	response := func(raw string) func() {
		head := []byte(raw)
		return func() {
			n, err := ResponseHeadEnd(head, 0, &DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			if err := ReadResponse(&p, head[:n], method, &DefaultLimits); err != nil {
				t.Fatal(err)
			}
			p.Set("server", "istio-envoy")
			dst = AppendResponse(dst[:0], &p, ResponseOptions{Version: message.HTTP10})
		}
	}
	f("request", request(meshRequest))
	f("request in absolute form", request("GET http://a-service-with-a-rather-long-name.default.svc.cluster.local:9080 HTTP/1.1\r\n"+
		"Host: a-service-with-a-rather-long-name.default.svc.cluster.local:9080\r\n\r\n"))
	f("CONNECT", request("CONNECT a-service-with-a-rather-long-name.default.svc.cluster.local:9080 HTTP/1.1\r\n"+
		"Host: a-service-with-a-rather-long-name.default.svc.cluster.local:9080\r\n\r\n"))
	f("path to normalise", request("GET /a/./b/../%41 HTTP/1.1\r\nHost: a\r\n\r\n"))
	f("chunked POST with 100-continue", request("POST / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n"))
	f("nominated fields", request("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-a\r\nX-A: 1\r\nContent-Length: 3\r\n\r\n"))
	f("response", response(meshResponse))
	f("response, chunked", response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"))
	f("response, until close", response("HTTP/1.0 200 OK\r\nServer: x\r\n\r\n"))
	body := []byte("5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\nHost: a\r\n\r\n")
	f("chunks", func() {
		var c Chunks
		trailers.Reset()
		for rest := body; ; {
			data, n, done, err := c.Next(rest, &trailers, &DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			dst = append(AppendChunkHead(dst[:0], len(data)+1), data...)
			if rest = rest[n:]; done {
				break
			}
		}
		dst = AppendLastChunk(dst, &trailers)
	})
	bad := []byte("GET / HTTP/1.1\r\nA : b\r\n\r\n")
	f("refusal", func() {
		if err := ReadRequest(&r, bad, &DefaultLimits); err != error(errSpaceColon) {
			t.Fatal(err)
		}
	})
}
