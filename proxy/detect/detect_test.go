package detect

import (
	"bytes"
	"strings"
	"testing"
)

// firsts are what clients send first.
var firsts = []struct {
	who   string
	bytes string
	kind  Kind
}{
	{"curl", "GET / HTTP/1.1\r\nHost: a\r\n", HTTP1},
	{"HTTP/1.0", "GET /index.html HTTP/1.0\r\n\r\n", HTTP1},
	{"absolute form", "GET http://a/ HTTP/1.1\r\n", HTTP1},
	{"absolute form in capitals", "GET HTTP://a/ HTTP/1.1\r\n", HTTP1},
	{"absolute form, https", "POST https://a/ HTTP/1.1\r\n", HTTP1},
	{"asterisk form", "OPTIONS * HTTP/1.1\r\n", HTTP1},
	{"CONNECT", "CONNECT a.test:443 HTTP/1.1\r\n", HTTP1},
	{"CONNECT, address", "CONNECT [2001:db8::1]:443 HTTP/1.1\r\n", HTTP1},
	{"CONNECT, no port", "CONNECT a.test HTTP/1.1\r\n", HTTP1},
	{"WebDAV", "PROPFIND /dav HTTP/1.1\r\n", HTTP1},
	{"PUT, PATCH and so on share the preface's P", "PATCH /x HTTP/1.1\r\n", HTTP1},
	{"an unknown method", "FROB /x HTTP/1.1\r\n", HTTP1},
	{"a small one", "get / HTTP/1.1\r\n", HTTP1},
	{"an unknown method, bare LF", "FROB /x HTTP/1.1\n", HTTP1},
	{"an unknown method, HTTP/3.0", "FROB /x HTTP/3.0\r\n", HTTP1}, // HTTP's to refuse
	{"an empty line before", "\r\nGET / HTTP/1.1\r\n", HTTP1},
	{"two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\n", HTTP1},
	{"HTTP/0.9", "GET /\r\n", HTTP1}, // as above
	{"a garbled request", "GET / HTTQ/1.1\r\n", HTTP1},
	{"a garbled preface", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", HTTP1},
	{"a preface of HTTP/1", "PRI / HTTP/1.1\r\n", HTTP1},
	{"h2c", Preface + "\x00\x00\x12\x04\x00\x00\x00\x00\x00", HTTP2},

	{"TLS 1.3", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", TLS},
	{"TLS 1.0", "\x16\x03\x00\x00\x30\x01\x00\x00\x2c\x03\x01", TLS},
	{"TLS, another handshake message", "\x16\x03\x03\x00\x30\x02\x00\x00", Opaque},
	{"TLS alert", "\x15\x03\x01\x00\x02\x02\x28", Opaque},
	{"TLS, empty record", "\x16\x03\x01\x00\x00", Opaque},
	{"TLS, record too long", "\x16\x03\x01\x48\x00\x01", Opaque},
	{"TLS, another version", "\x16\x02\x01\x00\x30\x01", Opaque},
	{"SSLv2", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", Opaque},

	{"PostgreSQL, SSLRequest", "\x00\x00\x00\x08\x04\xd2\x16\x2f", Opaque},
	{"PostgreSQL, startup", "\x00\x00\x00\x54\x00\x03\x00\x00user\x00postgres\x00", Opaque},
	{"MySQL, login after the greeting", "\x54\x00\x00\x01\x8d\xa6\x0f\x00\x00\x00\x00\x01\x08", Opaque},
	{"MySQL, COM_PING", "\x01\x00\x00\x00\x0e", Opaque},
	{"Redis, RESP", "*1\r\n$4\r\nPING\r\n", Opaque},
	{"Redis, HELLO", "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", Opaque},
	{"Redis, inline", "PING\r\n", Opaque},
	{"Redis, inline GET", "GET mykey\r\n", Opaque},
	{"Redis, inline SET", "SET /my/key value\r\n", Opaque},
	{"Redis, inline COPY", "COPY a b\r\n", Opaque},
	{"Redis, inline SUBSCRIBE", "SUBSCRIBE news\r\n", Opaque},
	{"Redis, inline KEYS", "KEYS *\r\n", Opaque},
	{"MongoDB, isMaster", "\x3a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xd4\x07\x00\x00\x00\x00\x00\x00admin.$cmd\x00", Opaque},
	{"MongoDB, a length that looks like a record", "\x16\x03\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00", Opaque},
	{"MongoDB, a length that looks like a letter", "G\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00", Opaque},
	{"SSH", "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", Opaque},
	{"SSH without a comment", "SSH-2.0-Go\r\n", Opaque},
	{"SMTP, EHLO", "EHLO client.example.com\r\n", Opaque},
	{"SMTP, HELO", "HELO /client\r\n", Opaque},
	{"SMTP, MAIL", "MAIL FROM:<a@b.test>\r\n", Opaque},
	{"LMTP", "LHLO client\r\n", Opaque},
	{"FTP", "USER anonymous\r\n", Opaque},
	{"POP3", "CAPA\r\n", Opaque},
	{"IMAP", "a001 CAPABILITY\r\n", Opaque},
	{"IRC", "NICK somebody\r\n", Opaque},
	{"NATS", "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n", Opaque},
	{"NATS, PUB", "PUB subject 5\r\n", Opaque},
	{"STOMP", "CONNECT\naccept-version:1.2\n", Opaque},
	{"memcached", "get /a/key\r\n", Opaque},
	{"memcached, set", "set key 0 0 5\r\n", Opaque},
	{"memcached, binary", "\x80\x0b\x00\x00", Opaque},
	{"AMQP", "AMQP\x00\x00\x09\x01", Opaque},
	{"MQTT", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", Opaque},
	{"Kafka", "\x00\x00\x00\x24\x00\x12\x00\x03\x00\x00\x00\x00", Opaque},
	{"Cassandra", "\x04\x00\x00\x00\x05\x00\x00\x00\x00", Opaque},
	{"ZooKeeper", "\x00\x00\x00\x2d\x00\x00\x00\x00", Opaque},
	{"LDAP", "0\x0c\x02\x01\x01\x60\x07\x02\x01\x03", Opaque},
	{"SQL Server", "\x12\x01\x00\x2f\x00\x00\x01\x00", Opaque},
	{"Oracle", "\x00\xf2\x00\x00\x01\x00\x00\x00", Opaque},
	{"Bolt", "\x60\x60\xb0\x17\x00\x00\x00\x04", Opaque},
	{"SOCKS", "\x05\x01\x00", Opaque},
	{"SIP", "OPTIONS sip:a@b SIP/2.0\r\n", Opaque},
	{"RTSP", "OPTIONS rtsp://a/b RTSP/1.0\r\n", Opaque},
	{"RTSP, asterisk", "OPTIONS * RTSP/1.0\r\n", Opaque},
	{"RTSP, DESCRIBE", "DESCRIBE rtsp://a/b RTSP/1.0\r\n", Opaque},
	{"git", "0032git-upload-pack /project.git\x00host=a\x00", Opaque},
	{"Graphite", "servers.web1.load 0.5 1700000000\n", Opaque},
	{"Graphite, a path", "metric /x 1700000000\n", Opaque},
	{"syslog", "<34>Oct 11 22:14:15 a su: b\n", Opaque},
	{"PROXY, version 1", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", Opaque},
	{"PROXY, version 2", "\r\n\r\n\x00\r\nQUIT\n", Opaque},
	{"XMPP", "<?xml version='1.0'?>", Opaque},
	{"FIX", "8=FIX.4.4\x019=63\x01", Opaque},
	{"rsync", "@RSYNCD: 31.0\n", Opaque},
	{"gopher", "/path\r\n", Opaque},
	{"finger", "user\r\n", Opaque},
	{"a blank before the method", " GET / HTTP/1.1\r\n", Opaque},
	{"three empty lines", "\r\n\r\n\r\nGET / HTTP/1.1\r\n", Opaque},
	{"NUL", "\x00", Opaque},
	{"a bare CR", "\rGET / HTTP/1.1\r\n", Opaque},
	{"a token without end", strings.Repeat("A", maxMethod+1), Opaque},
	{"an unknown method, no version", "FROB /x\r\n", Opaque},
	{"an unknown method, blanks in the target", "FROB /x y HTTP/1.1\r\n", Opaque},
	{"an unknown method, line without end", "FROB /" + strings.Repeat("x", Most), Opaque},
	{"a known method, line without end", "GET /" + strings.Repeat("x", 2*Most), HTTP1},
	{"an authority without end", "CONNECT " + strings.Repeat("x", Most), Opaque},
}

func TestFirst(t *testing.T) {
	for _, f := range firsts {
		b := []byte(f.bytes)
		if k := First(b); k != f.kind {
			t.Errorf("%s: %v, want %v", f.who, k, f.kind)
		}
		// As it comes in, byte after byte: more, until it is told once and for all.
		told := More
		for i := range len(b) + 1 {
			k := First(b[:i])
			if told != More && k != told {
				t.Errorf("%s: %v after %d bytes, %v before", f.who, k, i, told)
				break
			}
			told = k
		}
		if n := testing.AllocsPerRun(10, func() { First(b) }); n != 0 {
			t.Errorf("%s: allocates %v times", f.who, n)
		}
	}
}

func TestFirstTellsEarly(t *testing.T) {
	f := func(in string, want Kind) {
		t.Helper()
		if k := First([]byte(in)); k != want {
			t.Errorf("%q: %v, want %v", in, k, want)
		}
	}
	f("", More)
	f("G", More)
	f("GET", More)
	f("GET ", More)
	f("GET /", HTTP1) // no need to wait for the rest of the line
	f("GET h", More)
	f("GET https:/", More)
	f("OPTIONS *", More)
	f("P", More)
	f("PRI ", More)
	f(Preface[:23], More)
	f(Preface, HTTP2)
	f("*", More) // a method may begin so
	f("*1\r", Opaque)
	f("PING\r", Opaque)
	f("\x16", More)
	f("\x16\x03\x01\x02\x00", More)
	f("\x16\x03\x01\x02\x00\x01", TLS)
	f("\r", More)
	f("\x00", Opaque)
}

func FuzzFirst(f *testing.F) {
	for _, v := range firsts {
		f.Add([]byte(v.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k := First(b)
		if k > Opaque || k == More && len(b) >= Most {
			t.Fatalf("%v", k)
		}
		for i := range min(len(b), 64) {
			if early := First(b[:i]); early != More && early != k {
				t.Fatalf("%v after %d bytes, %v after %d", early, i, k, len(b))
			}
		}
		if k == HTTP2 && !bytes.HasPrefix(b, []byte(Preface)) {
			t.Fatal("HTTP/2 without its preface")
		}
	})
}

func BenchmarkFirst(b *testing.B) {
	in := []byte("GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n")
	for b.Loop() {
		First(in)
	}
}
