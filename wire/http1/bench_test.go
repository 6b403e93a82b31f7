package http1

import (
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// meshRequest is what a service behind a browser's page sends on: ten fields.
const meshRequest = "GET /api/v1/products/42/reviews?limit=10&sort=date HTTP/1.1\r\n" +
	"Host: reviews.default.svc.cluster.local:9080\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Cookie: session=eyJ1c2VyIjoiamFzb24ifQ.Zm9vYmFy; region=eu\r\n" +
	"X-Request-Id: 6a1d3c5e-9f1b-4a7e-8c37-0b1a2f3c4d5e\r\n" +
	"X-Forwarded-Proto: https\r\n" +
	"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n" +
	"Connection: keep-alive\r\n\r\n"

const meshResponse = "HTTP/1.1 200 OK\r\n" +
	"Content-Type: application/json; charset=utf-8\r\n" +
	"Content-Length: 300\r\n" +
	"Date: Mon, 28 Sep 2026 10:00:00 GMT\r\n" +
	"Server: istio-envoy\r\n" +
	"X-Envoy-Upstream-Service-Time: 3\r\n" +
	"Vary: Accept-Encoding\r\n" +
	"Cache-Control: no-store\r\n\r\n"

func BenchmarkHeadEnd(b *testing.B) {
	head := []byte(meshRequest)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := HeadEnd(head, 0, &DefaultLimits); n != len(head) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkReadRequest(b *testing.B) {
	head := []byte(meshRequest)
	var r message.Request
	b.ReportAllocs()
	for b.Loop() {
		if err := ReadRequest(&r, head, &DefaultLimits); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteRequest(b *testing.B) {
	var r message.Request
	if err := ReadRequest(&r, []byte(meshRequest), nil); err != nil {
		b.Fatal(err)
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendRequest(dst[:0], &r, RequestOptions{})
	}
}

// BenchmarkRequest is all that a request's head costs: finding its end, reading, normalising the path, an edit, writing.
func BenchmarkRequest(b *testing.B) {
	head := []byte(meshRequest)
	var r message.Request
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		n, err := HeadEnd(head, 0, &DefaultLimits)
		if err != nil {
			b.Fatal(err)
		}
		if err := ReadRequest(&r, head[:n], &DefaultLimits); err != nil {
			b.Fatal(err)
		}
		if err := r.NormalizePath(message.BasePath); err != nil {
			b.Fatal(err)
		}
		r.Set("x-envoy-attempt-count", "1")
		dst = AppendRequest(dst[:0], &r, RequestOptions{})
	}
}

func BenchmarkResponse(b *testing.B) {
	head, method := []byte(meshResponse), []byte("GET")
	var r message.Response
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		n, err := ResponseHeadEnd(head, 0, &DefaultLimits)
		if err != nil {
			b.Fatal(err)
		}
		if err := ReadResponse(&r, head[:n], method, &DefaultLimits); err != nil {
			b.Fatal(err)
		}
		dst = AppendResponse(dst[:0], &r, ResponseOptions{Version: message.HTTP11})
	}
}

func BenchmarkChunks(b *testing.B) {
	var body []byte
	for range 4 {
		body = AppendChunkHead(body, 4096)
		body = append(append(body, make([]byte, 4096)...), "\r\n"...)
	}
	body = AppendLastChunk(body, nil)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var c Chunks
		for rest := body; ; {
			_, n, done, err := c.Next(rest, nil, &DefaultLimits)
			if err != nil {
				b.Fatal(err)
			}
			if done {
				break
			}
			rest = rest[n:]
		}
	}
}
