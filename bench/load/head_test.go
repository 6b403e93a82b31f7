package load

import "testing"

func TestParseHead(t *testing.T) {
	f := func(in string, want head, wantErr error) {
		t.Helper()
		got, err := parseHead([]byte(in))
		if got != want || err != wantErr {
			t.Errorf("%q: %+v, %v; want %+v, %v", in, got, err, want, wantErr)
		}
	}
	f("", head{}, nil)
	f("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n", head{}, nil)
	f("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", head{size: 38, body: 3}, nil)
	f("HTTP/1.1 200 OK\r\nConnection: x\r\nContent-Length:16384 \r\nx: y\r\n\r\n", head{size: 63, body: 16384}, nil)
	f("GET / HTTP/1.1\r\n\r\n", head{size: 18, body: -1}, nil)
	f("GET / HTTP/1.1\r\nContent-LengthX: 3\r\n\r\n", head{size: 38, body: -1}, nil)
	f("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", head{size: 37, body: -1}, nil)
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", head{}, errFraming)
}

func TestStatus(t *testing.T) {
	f := func(in string, want int) {
		t.Helper()
		if got := status([]byte(in)); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
	f("HTTP/1.1 200 OK\r\n", 200)
	f("HTTP/1.1 503 Service Unavailable\r\n", 503)
	f("HTTP/1.1", -1)
	f("SSH-2.0-x 200 aaaaaa", -1)
}
