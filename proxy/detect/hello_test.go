package detect

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// capture returns the first flight of a crypto/tls client.
func capture(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, cfg).Handshake()
	}()
	defer func() { <-done }()
	defer client.Close()
	return flight(t, server)
}

// flight reads whole records until ReadHello has what it wants.
func flight(t testing.TB, c net.Conn) []byte {
	t.Helper()
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	var b []byte
	var h Hello
	for {
		piece := make([]byte, 4096)
		n, err := c.Read(piece)
		b = append(b, piece[:n]...)
		if err != nil {
			t.Fatalf("no hello in %d bytes: %v", len(b), err)
		}
		if n, err := ReadHello(b, &h); err != nil {
			t.Fatal(err)
		} else if n > 0 {
			return b
		}
	}
}

// told is what crypto/tls's own server makes of a hello; nil where it refuses to read it.
func told(b []byte) *tls.ClientHelloInfo {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = client.Write(b)
		client.Close()
	}()
	var info *tls.ClientHelloInfo
	_ = tls.Server(server, &tls.Config{MinVersion: tls.VersionTLS10, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		info = h
		return nil, errors.New("seen enough")
	}}).Handshake()
	server.Close()
	<-done
	return info
}

// agree compares h with what crypto/tls read.
func agree(t testing.TB, h *Hello, info *tls.ClientHelloInfo) {
	t.Helper()
	if string(h.ServerName) != info.ServerName {
		t.Errorf("server name %q, crypto/tls reads %q", h.ServerName, info.ServerName)
	}
	var alpn []string
	for _, p := range h.ALPN {
		alpn = append(alpn, string(p))
	}
	if !slices.Equal(alpn, info.SupportedProtos) {
		t.Errorf("protocols %q, crypto/tls reads %q", alpn, info.SupportedProtos)
	}
	versions := slices.DeleteFunc(slices.Clone(info.SupportedVersions), func(v uint16) bool { return v>>8 == v&0xff && v&0x0f == 0x0a })
	if !slices.Contains(info.Extensions, extVersions) { // crypto/tls tells what the legacy version says, and then bargains for TLS 1.2 at most
		versions = slices.DeleteFunc(versions, func(v uint16) bool { return v > tls.VersionTLS12 })
	}
	if !slices.Equal(h.Versions, versions) {
		t.Errorf("versions %x, crypto/tls reads %x", h.Versions, versions)
	}
}

// split cuts a hello of one record into records of at most size bytes.
func split(b []byte, size int) []byte {
	var out []byte
	for rest := b[recordHead:]; len(rest) > 0; {
		n := min(size, len(rest))
		out = append(out, recordHandshake, 3, 1)
		out = binary.BigEndian.AppendUint16(out, uint16(n))
		out = append(out, rest[:n]...)
		rest = rest[n:]
	}
	return out
}

// TestReadHelloAgreesWithGo reads the hellos of random clients as crypto/tls does, whole, in pieces, and in many records.
func TestReadHelloAgreesWithGo(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"", "a.test", "A.Test", "xn--bcher-kva.example", strings.Repeat("long.", 40) + "test", "10.0.0.1", "under_score.test", "*.wild.test"}
	protocols := []string{"h2", "http/1.1", "http/1.0", "postgresql", "istio", "istio-peer-exchange", strings.Repeat("p", 255)}
	versions := []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13}
	curves := []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP521}
	var h Hello
	for range 150 {
		cfg := &tls.Config{ServerName: names[r.IntN(len(names))], InsecureSkipVerify: true}
		for range r.IntN(4) {
			cfg.NextProtos = append(cfg.NextProtos, protocols[r.IntN(len(protocols))])
		}
		lo := r.IntN(len(versions))
		cfg.MinVersion, cfg.MaxVersion = versions[lo], versions[lo+r.IntN(len(versions)-lo)]
		cfg.CurvePreferences = curves[r.IntN(len(curves)):]
		b := capture(t, cfg)
		info := told(b)
		if info == nil {
			t.Fatalf("crypto/tls does not read its own hello: %x", b)
		}
		n, err := ReadHello(b, &h)
		if err != nil || n != len(b) || h.Length != n-recordHead {
			t.Fatalf("%d of %d bytes, %v", n, len(b), err)
		}
		agree(t, &h, info)
		if k := First(b); k != TLS {
			t.Errorf("First says %v", k)
		}
		for _, size := range []int{1 + r.IntN(8), 1 + r.IntN(200), 200 + r.IntN(2000)} {
			parts := split(b, size)
			n, err := ReadHello(append(parts[:len(parts):len(parts)], "more"...), &h)
			if err != nil || n != len(parts) {
				t.Fatalf("records of %d: %d of %d bytes, %v", size, n, len(parts), err)
			}
			agree(t, &h, info)
		}
		parts := split(b, 1+r.IntN(500))
		for i := range parts {
			if n, err := ReadHello(parts[:i], &h); n != 0 || err != nil {
				t.Fatalf("with %d of %d bytes: %d, %v", i, len(parts), n, err)
			}
		}
	}
}

// TestReadHelloOfRealClients reads what openssl and curl send.
func TestReadHelloOfRealClients(t *testing.T) {
	f := func(name string, versions []uint16, alpn string, program string, args ...string) {
		t.Helper()
		t.Run(program+" "+strings.Join(args, " "), func(t *testing.T) {
			t.Helper()
			path, err := exec.LookPath(program)
			if err != nil {
				t.Skipf("%s is not installed here", program)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "ADDR", l.Addr().String())
			}
			cmd := exec.Command(path, args...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Wait() }()
			defer func() { _ = cmd.Process.Kill() }()
			_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second))
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			b := flight(t, c)
			var h Hello
			if n, err := ReadHello(b, &h); n == 0 || err != nil {
				t.Fatal(n, err)
			}
			if string(h.ServerName) != name {
				t.Errorf("server name %q, want %q", h.ServerName, name)
			}
			if got := string(bytes.Join(h.ALPN, []byte(","))); got != alpn {
				t.Errorf("protocols %q, want %q", got, alpn)
			}
			for _, v := range versions {
				if !slices.Contains(h.Versions, v) {
					t.Errorf("versions %x lack %x", h.Versions, v)
				}
			}
			if alpn != "" && !h.Offers(strings.Split(alpn, ",")[0]) || h.Offers("nothing") {
				t.Error("Offers does not say what is offered")
			}
			if info := told(b); info != nil {
				agree(t, &h, info)
			} else {
				t.Error("crypto/tls does not read it")
			}
		})
	}
	both := []uint16{tls.VersionTLS12, tls.VersionTLS13}
	f("a.test", both, "", "openssl", "s_client", "-connect", "ADDR", "-servername", "a.test")
	f("", both, "", "openssl", "s_client", "-connect", "ADDR", "-noservername")
	f("a.test", both[1:], "h2,http/1.1", "openssl", "s_client", "-connect", "ADDR", "-servername", "a.test", "-tls1_3", "-alpn", "h2,http/1.1")
	f("a.test", both[:1], "", "openssl", "s_client", "-connect", "ADDR", "-servername", "a.test", "-tls1_2")
	f("a.test", []uint16{tls.VersionTLS10}, "", "openssl", "s_client", "-connect", "ADDR", "-servername", "a.test", "-tls1", "-cipher", "ALL:@SECLEVEL=0")
	f("a.test", both, "h2,http/1.1", "curl", "-sk", "--noproxy", "*", "--connect-to", "::ADDR", "https://a.test/")
	f("a.test", both, "http/1.0", "curl", "-sk", "--http1.0", "--noproxy", "*", "--connect-to", "::ADDR", "https://a.test/")
}

// TestFirstOfRealClients asks what PostgreSQL's and SSH's clients begin with.
func TestFirstOfRealClients(t *testing.T) {
	f := func(want Kind, begins, program string, args ...string) {
		t.Helper()
		t.Run(program+" "+strings.Join(args, " "), func(t *testing.T) {
			t.Helper()
			path, err := exec.LookPath(program)
			if err != nil {
				t.Skipf("%s is not installed here", program)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "PORT", port)
			}
			cmd := exec.Command(path, args...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Wait() }()
			defer func() { _ = cmd.Process.Kill() }()
			_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second))
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			b := make([]byte, 8)
			n, err := io.ReadAtLeast(c, b, len(begins))
			if err != nil || !strings.HasPrefix(string(b[:n]), begins) {
				t.Fatalf("%q, %v", b[:n], err)
			}
			for k := More; k == More; {
				if k = First(b[:n]); k == want {
					return
				} else if k != More {
					t.Fatalf("%q: %v, want %v", b[:n], k, want)
				}
				b = append(b, make([]byte, 256)...)
				m, err := c.Read(b[n:])
				if err != nil {
					t.Fatalf("%q: still more, %v", b[:n], err)
				}
				n += m
			}
		})
	}
	f(Opaque, "\x00\x00\x00\x08", "psql", "host=127.0.0.1 port=PORT user=x dbname=x sslmode=prefer gssencmode=disable")
	f(Opaque, "\x00\x00\x00", "psql", "host=127.0.0.1 port=PORT user=x dbname=x sslmode=disable gssencmode=disable")
	f(Opaque, "SSH-2.0-", "ssh", "-F", "none", "-p", "PORT", "-o", "BatchMode=yes", "x@127.0.0.1")
	f(HTTP1, "GET ", "curl", "-s", "--noproxy", "*", "http://127.0.0.1:PORT/")
	f(HTTP2, "PRI ", "curl", "-s", "--noproxy", "*", "--http2-prior-knowledge", "http://127.0.0.1:PORT/")
	f(HTTP1, "OPTIONS ", "curl", "-s", "--noproxy", "*", "-X", "OPTIONS", "--request-target", "*", "http://127.0.0.1:PORT/")
	f(HTTP1, "CONNECT ", "curl", "-s", "-p", "-x", "http://127.0.0.1:PORT", "http://a.test:80/")
	f(HTTP1, "FROB ", "curl", "-s", "--noproxy", "*", "-X", "FROB", "http://127.0.0.1:PORT/")
}

// hello writes a ClientHello with these extensions.
func hello(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 1, 1, 0) // no session, one suite, no compression
	all := bytes.Join(extensions, nil)
	body = binary.BigEndian.AppendUint16(body, uint16(len(all)))
	body = append(body, all...)
	return record(append([]byte{typeClientHello, 0, byte(len(body) >> 8), byte(len(body))}, body...))
}

func record(message []byte) []byte {
	return append([]byte{recordHandshake, 3, 1, byte(len(message) >> 8), byte(len(message))}, message...)
}

func extension(kind int, body ...byte) []byte {
	e := binary.BigEndian.AppendUint16(nil, uint16(kind))
	return append(binary.BigEndian.AppendUint16(e, uint16(len(body))), body...)
}

func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(binary.BigEndian.AppendUint16(append(list, 0), uint16(len(n))), n...)
	}
	return extension(extServerName, append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...)...)
}

func TestReadHelloRefuses(t *testing.T) {
	good := hello(sni("a.test"))
	f := func(what string, in []byte, want error) {
		t.Helper()
		h := Hello{}
		n, err := ReadHello(in, &h)
		if n != 0 || !errors.Is(err, want) {
			t.Errorf("%s: %d, %v, want %v", what, n, err, want)
		}
		if len(h.ServerName) > 0 {
			t.Errorf("%s: refused, and yet named %q", what, h.ServerName)
		}
		if want == ErrMalformed && told(in) != nil && !strings.HasPrefix(what, "strict: ") {
			t.Errorf("%s: crypto/tls takes it", what)
		}
	}
	f("HTTP", []byte("GET / HTTP/1.1\r\n"), ErrNotTLS)
	f("one byte of something else", []byte(" "), ErrNotTLS)
	f("another type of record", append([]byte{23}, good[1:]...), ErrNotTLS)
	f("server hello", record([]byte{2, 0, 0, 0}), ErrNotTLS)
	f("alert", []byte("\x15\x03\x01\x00\x02\x02\x28"), ErrNotTLS)
	f("two names", hello(sni("a.test", "b.test")), ErrMalformed)
	f("empty name", hello(sni("")), ErrMalformed)
	f("no name", hello(sni()), ErrMalformed)
	f("name with a dot at its end", hello(sni("a.test.")), ErrMalformed)
	f("strict: NUL in the name", hello(sni("a\x00.test")), ErrMalformed)
	f("strict: line end in the name", hello(sni("a.test\r\nx")), ErrMalformed)
	f("strict: blank in the name", hello(sni("a test")), ErrMalformed)
	f("strict: slash in the name", hello(sni("a/test")), ErrMalformed)
	f("strict: not ASCII", hello(sni("bücher.test")), ErrMalformed)
	f("strict: a name of 256", hello(sni(strings.Repeat("a", 256))), ErrMalformed)
	f("the extension twice", hello(sni("a.test"), sni("b.test")), ErrMalformed)
	f("another extension twice", hello(extension(0x1234), extension(0x1234)), ErrMalformed)
	f("bytes after the name", hello(append(extension(extServerName, append(sni("a.test")[4:], 0)...), nil...)), ErrMalformed)
	f("name list too long", hello(extension(extServerName, 0, 99, 0, 0, 1, 'a')), ErrMalformed)
	f("no protocols", hello(extension(extALPN, 0, 0)), ErrMalformed)
	f("empty protocol", hello(extension(extALPN, 0, 1, 0)), ErrMalformed)
	f("protocol too long", hello(extension(extALPN, 0, 2, 9, 'x')), ErrMalformed)
	f("no versions", hello(extension(extVersions, 0)), ErrMalformed)
	f("half a version", hello(extension(extVersions, 1, 3)), ErrMalformed)
	f("an extension too long", hello([]byte{0, 0, 0, 99, 0}), ErrMalformed)
	f("cut in the random", record([]byte{1, 0, 0, 4, 3, 3, 0, 0}), ErrMalformed)
	f("an odd list of suites", record(append([]byte{1, 0, 0, 41, 3, 3}, append(make([]byte, 33), 0, 1, 0x13, 1, 0, 0)...)), ErrMalformed)
	long := bytes.Clone(good)
	long[6], long[7] = 0, 0x80
	f("a long one", long, ErrTooLong)
	long[6] = 1
	f("a very long one", long, ErrTooLong)
	f("a long one in small records", split(record(append([]byte{1, 0, 0x20, 0}, make([]byte, 0x2000)...)), 2), ErrTooLong)
	f("another record inside", append(split(good, 20)[:25], "\x15\x03\x01\x00\x02\x02\x28"...), ErrMalformed)
	f("an empty record inside", append(split(good, 20)[:25], 22, 3, 1, 0, 0), ErrMalformed)
	f("strict: more after it in its record", record(append(bytes.Clone(good[recordHead:]), 1, 0, 0, 0)), ErrMalformed)
	var many [][]byte
	for i := range maxExtensions + 1 {
		many = append(many, extension(0x2000+i))
	}
	f("strict: many extensions", hello(many...), ErrMalformed)
}

func TestReadHelloTakes(t *testing.T) {
	var h Hello
	f := func(in []byte, name string, alpn string, versions ...uint16) {
		t.Helper()
		n, err := ReadHello(in, &h)
		if err != nil || n != len(in) {
			t.Errorf("%d of %d, %v", n, len(in), err)
			return
		}
		if string(h.ServerName) != name || string(bytes.Join(h.ALPN, []byte(","))) != alpn || !slices.Equal(h.Versions, versions) {
			t.Errorf("%q, %q, %x", h.ServerName, h.ALPN, h.Versions)
		}
		if info := told(in); info == nil {
			t.Error("crypto/tls refuses it")
		} else {
			agree(t, &h, info)
		}
	}
	f(hello(), "", "", 0x0303, 0x0302, 0x0301)
	f(hello(sni("a.test")), "a.test", "", 0x0303, 0x0302, 0x0301)
	f(hello(extension(extServerName, 0, 9, 7, 0, 1, 'x', 0, 0, 2, 'a', 'b')), "ab", "", 0x0303, 0x0302, 0x0301) // a name of another type first
	f(hello(extension(0x0a0a), sni("a"), extension(0xfafa, 0)), "a", "", 0x0303, 0x0302, 0x0301)                // GREASE
	f(hello(extension(extALPN, 0, 6, 2, 0x0a, 0x0a, 2, 'h', '2')), "", "\x0a\x0a,h2", 0x0303, 0x0302, 0x0301)
	f(hello(extension(extVersions, 6, 0x3a, 0x3a, 3, 4, 3, 3)), "", "", 0x0304, 0x0303)
	ech := extension(0xfe0d, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0)
	f(hello(ech, sni("public.test"), extension(extVersions, 2, 3, 4)), "public.test", "", 0x0304) // ECH: the outer name
	old := record(append([]byte{1, 0, 0, 41, 3, 1}, append(make([]byte, 33), 0, 2, 0, 0x2f, 1, 0)...))
	f(old, "", "", 0x0301) // no extensions at all
	old[9], old[10] = 3, 8
	f(old, "", "", 0x0303, 0x0302, 0x0301)
}

func TestReadHelloDoesNotAllocate(t *testing.T) {
	whole := capture(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2", "http/1.1"}})
	parts := split(whole, 50)
	var h Hello
	for _, in := range [][]byte{whole, parts, whole[:100], hello(sni("a."))} {
		_, _ = ReadHello(in, &h)
		if n := testing.AllocsPerRun(100, func() { _, _ = ReadHello(in, &h) }); n != 0 {
			t.Errorf("%d bytes: allocates %v times", len(in), n)
		}
	}
}

func FuzzReadHello(f *testing.F) {
	whole := capture(f, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2", "http/1.1"}})
	f.Add(whole)
	f.Add(split(whole, 30))
	f.Add(capture(f, &tls.Config{ServerName: "a.test", MaxVersion: tls.VersionTLS12}))
	f.Add(hello(sni("a.test", "b.test")))
	f.Add(hello(extension(extServerName, 0, 9, 7, 0, 1, 'x', 0, 0, 2, 'a', 'b'), extension(extVersions, 4, 0x3a, 0x3a, 3, 4)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Hello
		n, err := ReadHello(b, &h)
		switch {
		case n < 0 || n > len(b) || n > MaxHello, n > 0 && err != nil:
			t.Fatalf("%d of %d, %v", n, len(b), err)
		case n == 0 && err == nil && len(b) >= MaxHello:
			t.Fatal("asks for more than MaxHello")
		case n == 0 && First(b) != TLS && First(b) != More && !errors.Is(err, ErrNotTLS):
			t.Fatalf("First says %v, ReadHello %v", First(b), err)
		}
		if n == 0 {
			return
		}
		if info := told(b[:n]); info != nil { // what both take, both read alike; crypto/tls looks into more extensions
			agree(t, &h, info)
		}
		again := Hello{ServerName: []byte("stale"), ALPN: [][]byte{{1}}, Versions: []uint16{1}}
		if m, err := ReadHello(b[:n], &again); m != n || err != nil || !bytes.Equal(h.ServerName, again.ServerName) ||
			fmt.Sprint(h.ALPN, h.Versions, h.Length) != fmt.Sprint(again.ALPN, again.Versions, again.Length) {
			t.Fatalf("reading again gives another hello: %d, %v", m, err)
		}
		for i := range min(n, 64) {
			if m, err := ReadHello(b[:i], &again); m != 0 || err != nil {
				t.Fatalf("%d of %d bytes: %d, %v", i, n, m, err)
			}
		}
	})
}

func BenchmarkReadHello(b *testing.B) {
	in := capture(b, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2", "http/1.1"}})
	var h Hello
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if _, err := ReadHello(in, &h); err != nil {
			b.Fatal(err)
		}
	}
}
