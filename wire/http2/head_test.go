package http2

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/message"
)

// TestRefusedRequests has heads that are refused: with a reset, or with an answer where the client can learn from it.
func TestRefusedRequests(t *testing.T) {
	f := func(name string, want *Error, fields ...string) {
		t.Run(name, func(t *testing.T) {
			k := newRawServer(t, Options{Limits: http1.Limits{Head: 4000, Field: 1000, Fields: 20, Line: 500}})
			k.w.head(0, 1, fields...)
			k.send()
			expect(t, k.end, fmt.Sprintf("refused %d %s", want.Status, want.Reason))
			answer := "RST_STREAM 1 PROTOCOL_ERROR"
			if want.Status > 400 {
				answer = fmt.Sprintf("HEADERS 1 :status=%d content-length=0 end\nRST_STREAM 1 NO_ERROR", want.Status)
			}
			if got := k.r.show(k.take()); got != answer {
				t.Errorf("got %s, want %s", got, answer)
			}
			if want.Status >= 414 && want.Status != 417 && k.o.Stats.Heads.Load() != 1 {
				t.Error("not counted")
			}
			k.w.frame(frameData, flagEndStream, 1, 'a') // on its way already
			k.get(t, 3, "")
		})
	}
	more := func(fields ...string) []string { return with(simple, fields...) }
	f("no :method", errPseudoMissing, without(simple, ":method")...)
	f("no :scheme", errPseudoMissing, without(simple, ":scheme")...)
	f("no :path", errPseudoMissing, without(simple, ":path")...)
	f("nothing", errPseudoMissing)
	f("no :authority and no host", errNoAuthority, without(simple, ":authority")...)
	f(":method twice", errPseudoTwice, append([]string{":method", "GET"}, simple...)...)
	f(":path twice", errPseudoTwice, append([]string{":path", "/"}, simple...)...)
	f(":authority twice", errPseudoTwice, append([]string{":authority", "a"}, simple...)...)
	f(":status", errPseudoUnknown, more(":status", "200")...)
	f("unknown pseudo-header field", errPseudoUnknown, more(":x", "y")...)
	f("pseudo-header field behind another", errPseudoLate, append([]string{"a", "b"}, simple...)...)
	f("empty method", errMethod, more(":method", "")...)
	f("small method", errMethod, more(":method", "get")...)
	f("method with a space", errMethod, more(":method", "GET /admin HTTP/1.1")...)
	f("scheme", errScheme, more(":scheme", "ftp")...)
	f("empty path", errPath, more(":path", "")...)
	f("path without a slash", errPath, more(":path", "a")...)
	f("absolute path", errPath, more(":path", "http://b/")...)
	f("star with GET", errPath, more(":path", "*")...)
	f("star and more", errPath, more(":path", "*a", ":method", "OPTIONS")...)
	f("path with a space", errPath, more(":path", "/ HTTP/1.1")...)
	f("path with a fragment", errPath, more(":path", "/a#b")...)
	f("path with CR LF", errControl, more(":path", "/\r\nX: y")...)
	f("path with a control character", errControl, more(":path", "/\x01")...)
	f("path with DEL", errControl, more(":path", "/\x7f")...)
	f("query with a tab", errPath, more(":path", "/?a\tb")...)
	f("authority with a user", errAuthority, more(":authority", "u@a")...)
	f("authority with a comma", errAuthority, more(":authority", "a,b")...)
	f("authority with a slash", errAuthority, more(":authority", "a/b")...)
	f("authority with a large port", errAuthority, more(":authority", "a:65536")...)
	f("authority with an odd port", errAuthority, more(":authority", "a:8o")...)
	f("authority that is a port", errAuthority, more(":authority", ":80")...)
	f("authority with half an address", errAuthority, more(":authority", "[::1")...)
	f("authority with an odd address", errAuthority, more(":authority", "[a]")...)
	f("authority with an odd escape", errAuthority, more(":authority", "a%2")...)
	f("empty authority", errAuthority, more(":authority", "")...)
	f("host that differs", errHostDiffers, more("host", "b")...)
	f("host twice", errHosts, more("host", "a", "host", "a")...)
	f("odd host", errAuthority, more("host", "a b")...)
	f("capital letters", errCapital, more("X-A", "b")...)
	f("capital letters in a known name", errCapital, more("Content-Type", "b")...)
	f("empty name", errFieldName, more("", "b")...)
	f("space in a name", errFieldName, more("a b", "c")...)
	f("colon in a name", errFieldName, more("a:b", "c")...)
	f("CR LF in a name", errFieldName, more("a\r\nb", "c")...)
	f("CR LF in a value", errControl, more("a", "b\r\nc: d")...)
	f("LF in a value", errControl, more("a", "b\nc")...)
	f("CR in a value", errControl, more("a", "b\rc")...)
	f("NUL in a value", errControl, more("a", "b\x00c")...)
	f("space before a value", errPaddedValue, more("a", " b")...)
	f("tab behind a value", errPaddedValue, more("a", "b\t")...)
	f("connection", errConnection, more("connection", "close")...)
	f("keep-alive", errConnection, more("keep-alive", "1")...)
	f("proxy-connection", errConnection, more("proxy-connection", "keep-alive")...)
	f("transfer-encoding", errConnection, more("transfer-encoding", "chunked")...)
	f("upgrade", errConnection, more("upgrade", "h2c")...)
	f("te", errTE, more("te", "gzip")...)
	f("te with trailers and more", errTE, more("te", "trailers, deflate")...)
	f("content-length twice", errLengths, more("content-length", "1", "content-length", "1")...)
	f("content-length with a plus", errLength, more("content-length", "+1")...)
	f("content-length with a list", errLength, more("content-length", "1, 1")...)
	f("empty content-length", errLength, more("content-length", "")...)
	f("content-length too large", errLength, more("content-length", "9223372036854775808")...)
	f("expect", errExpect, more("expect", "wonders")...)
	f("CONNECT with a path", errConnectForm, more(":method", "CONNECT", ":authority", "a:1")...)
	f("CONNECT without a port", errConnectPort, ":method", "CONNECT", ":authority", "a")
	f("CONNECT without an authority", errPseudoMissing, ":method", "CONNECT")
	f("CONNECT with a length", errConnectLength, ":method", "CONNECT", ":authority", "a:1", "content-length", "5")
	f(":protocol that was not allowed", errProtocol, more(":method", "CONNECT", ":protocol", "websocket")...)
	f("long path", errPathTooLong, more(":path", "/"+strings.Repeat("a", 500))...)
	f("very long path", errPathTooLong, more(":path", "/"+strings.Repeat("a", 3000))...)
	f("large field", errFieldTooLarge, more("a", strings.Repeat("b", 1000))...)
	many, large := more(), more()
	for i := range 21 {
		many = append(many, "a", fmt.Sprint(i))
		if i < 5 {
			large = append(large, fmt.Sprint("a", i), strings.Repeat("b", 800))
		}
	}
	f("many fields", errTooManyFields, many...)
	f("large head", errHeadTooLarge, large...)
	f("large head behind another error", errCapital, append(more("A", "b"), large[8:]...)...)

	k := newRawServer(t, Options{})
	k.w.head(flagEndStream, 1, with(simple, "content-length", "5")...)
	k.expect("RST_STREAM 1 PROTOCOL_ERROR")
	expect(t, k.end, "refused 400 "+errLengthNoBody.Reason)
	k.w.head(flagEndStream, 3, with(simple, "a", strings.Repeat("b", 9000))...)
	k.expect("HEADERS 3 :status=431 content-length=0 end")

	k = newRawServer(t, Options{Limits: http1.Limits{NoUnderscore: true}})
	k.w.head(flagEndStream, 1, with(simple, "a_b", "5")...)
	k.expect("HEADERS 1 :status=400 content-length=0 end")
	k = newRawServer(t, Options{ConnectProtocol: true})
	k.w.head(flagEndStream, 1, with(simple, ":protocol", "websocket")...).head(flagEndStream, 3, with(simple, ":method", "CONNECT", ":protocol", "a b")...)
	k.w.head(flagEndStream, 5, ":method", "CONNECT", ":authority", "a:1", ":protocol", "websocket")
	k.expect("RST_STREAM 1 PROTOCOL_ERROR", "RST_STREAM 3 PROTOCOL_ERROR", "RST_STREAM 5 PROTOCOL_ERROR")
}

// TestRequestFacts has heads that are accepted, and what the handler sees.
func TestRequestFacts(t *testing.T) {
	f := func(name string, flags uint8, look func(r *message.Request) string, want string, fields ...string) {
		t.Run(name, func(t *testing.T) {
			k := newRawServer(t, Options{ConnectProtocol: true})
			got := ""
			k.request = func(s *Stream, r *message.Request, end bool) { got = look(r) }
			k.w.head(flags, 1, fields...)
			k.send()
			if got != want || k.err != nil {
				t.Errorf("got %q, want %q; %v", got, want, k.err)
			}
		})
	}
	all := func(r *message.Request) string {
		return fmt.Sprintf("%s|%s|%s|%s|%s|%d|%d%s", r.Method(), r.Scheme(), r.Authority(), r.Path(), r.Query(), r.Version, r.BodyLength, list(&r.Head))
	}
	f("simple", flagEndStream, all, "GET|http|a|/||20|0", simple...)
	f("body of unknown length", 0, all, "POST|https|a|/b|?c?d|20|-1", with(simple, ":method", "POST", ":scheme", "https", ":path", "/b?c?d")...)
	f("body of known length", 0, all, "PUT|http|[::1]:80|/||20|5 a=b", with(simple, ":method", "PUT", ":authority", "[::1]:80", "content-length", "5", "a", "b")...)
	f("empty body", 0, all, "GET|http|a|/||20|0", with(simple, "content-length", "0")...)
	f("host alone", flagEndStream, all, "GET|http|b:1|/||20|0", with(without(simple, ":authority"), "host", "b:1")...)
	f("host as well", flagEndStream, all, "GET|http|a|/||20|0", with(simple, "host", "A")...)
	f("star", flagEndStream, all, "OPTIONS|http|a|*||20|0", with(simple, ":method", "OPTIONS", ":path", "*")...)
	f("capital scheme", flagEndStream, all, "GET|http|a|/||20|0", with(simple, ":scheme", "HTTP")...)
	f("escaped and odd path", flagEndStream, all, "GET|http|a|//%2e/\xff\"|?|20|0", with(simple, ":path", "//%2e/\xff\"?")...)
	f("one cookie", flagEndStream, all, "GET|http|a|/||20|0 cookie=a=b c=d", with(simple, "cookie", "a=b", "c", "d")...)
	f("cookie crumbs without anything", flagEndStream, all, "GET|http|a|/||20|0 cookie=a=b; c", with(simple, "cookie", "", "cookie", "a=b", "cookie", "", "cookie", "c", "cookie", "")...)
	f("cookie crumbs", flagEndStream, all, "GET|http|a|/||20|0 cookie=a=b; c=d; e x=y", with(simple, "cookie", "a=b", "cookie", "c=d", "x", "y", "cookie", "e")...)
	f("settings of an upgrade", flagEndStream, all, "GET|http|a|/||20|0", with(simple, "http2-settings", "abc")...)
	f("values", flagEndStream, all, "GET|http|a|/||20|0 a= b=c \t d d=\xc3\xa9", with(simple, "a", "", "b", "c \t d", "d", "\xc3\xa9")...)
	flags := func(r *message.Request) string {
		return fmt.Sprintf("%v %v %v %s", r.Trailers, r.ExpectContinue, r.Upgrade, r.UpgradeTo())
	}
	f("trailers", flagEndStream, flags, "true false false ", with(simple, "te", "trailers")...)
	f("expectation", 0, flags, "false true false ", with(simple, ":method", "POST", "expect", "100-Continue")...)
	f("expectation without a body", flagEndStream, flags, "false false false ", with(simple, "expect", "100-continue")...)
	f("CONNECT", 0, all, "CONNECT||a:1|||20|-1", ":method", "CONNECT", ":authority", "a:1")
	f("extended CONNECT", 0, all, "CONNECT|https|a|/chat||20|-1", with(simple, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/chat")...)
	f("protocol of extended CONNECT", 0, flags, "false false true websocket", with(simple, ":method", "CONNECT", ":protocol", "websocket")...)
}

// TestRefusedResponses has what a client does not take from a server.
func TestRefusedResponses(t *testing.T) {
	f := func(name string, method, want string, write func(w *raw)) {
		t.Run(name, func(t *testing.T) {
			k := newRawClient(t, Options{})
			r := get("/")
			r.SetMethod([]byte(method))
			if _, err := k.Open(r, nil, true); err != nil {
				t.Fatal(err)
			}
			k.take()
			write(k.w)
			k.expect("RST_STREAM 1 " + want)
			if got := k.log[len(k.log)-1]; !strings.HasPrefix(got, "reset 1 "+want+" remote false: ") {
				t.Error(k.took())
			}
			if k.Streams() != 0 {
				t.Error("the stream is still there")
			}
		})
	}
	head := func(flags uint8, fields ...string) func(w *raw) { return func(w *raw) { w.head(flags, 1, fields...) } }
	f("no status", "GET", "PROTOCOL_ERROR", head(flagEndStream, "a", "b"))
	f("status twice", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "200", ":status", "200"))
	f("status of two digits", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "20"))
	f("status of four digits", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "2000"))
	f("status 0", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "099"))
	f("status with letters", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "2OO"))
	f("101", "GET", "PROTOCOL_ERROR", head(0, ":status", "101"))
	f("request's pseudo-header field", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "200", ":path", "/"))
	f("status behind another", "GET", "PROTOCOL_ERROR", head(flagEndStream, "a", "b", ":status", "200"))
	f("capital letters", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "200", "A", "b"))
	f("connection", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "200", "connection", "close"))
	f("transfer-encoding", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "200", "transfer-encoding", "chunked"))
	f("te", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "200", "te", "trailers"))
	f("CR LF in a value", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "200", "a", "b\r\nc: d"))
	f("interim that ends", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "103"))
	f("content-length of what ends", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "200", "content-length", "5"))
	f("content-length twice", "GET", "PROTOCOL_ERROR", head(0, ":status", "200", "content-length", "5", "content-length", "5"))
	f("content-length of 204", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "204", "content-length", "5"))
	f("large field", "GET", "PROTOCOL_ERROR", head(flagEndStream, ":status", "200", "a", strings.Repeat("b", 9000)))
	f("data before the head", "GET", "PROTOCOL_ERROR", func(w *raw) { w.frame(frameData, 0, 1, 'a') })
	f("data between interim and final", "GET", "PROTOCOL_ERROR", func(w *raw) { w.head(0, 1, ":status", "100").frame(frameData, 0, 1, 'a') })
	f("a second head", "GET", "PROTOCOL_ERROR", func(w *raw) { w.head(0, 1, ":status", "200").head(0, 1, ":status", "200") })
	f("body of HEAD", "HEAD", "PROTOCOL_ERROR", func(w *raw) {
		w.head(0, 1, ":status", "200", "content-length", "1").frame(frameData, flagEndStream, 1, 'a')
	})
	f("body of 304", "GET", "PROTOCOL_ERROR", func(w *raw) { w.head(0, 1, ":status", "304").frame(frameData, flagEndStream, 1, 'a') })
	f("body too long", "GET", "PROTOCOL_ERROR", func(w *raw) { w.head(0, 1, ":status", "200", "content-length", "1").frame(frameData, 0, 1, 'a', 'b') })
	f("body too short", "GET", "PROTOCOL_ERROR", func(w *raw) {
		w.head(0, 1, ":status", "200", "content-length", "2").frame(frameData, flagEndStream, 1, 'a')
	})
	f("many interim responses", "GET", "ENHANCE_YOUR_CALM", func(w *raw) {
		for range maxInterims + 1 {
			w.head(0, 1, ":status", "103")
		}
	})
}

// TestResponseFacts has responses that a client takes.
func TestResponseFacts(t *testing.T) {
	f := func(name, method, want string, flags uint8, fields ...string) {
		t.Run(name, func(t *testing.T) {
			k := newRawClient(t, Options{})
			got := ""
			k.response = func(_ *Stream, r *message.Response, end bool) {
				got = fmt.Sprintf("%d %d %v %d %v%s", r.Status, r.BodyLength, r.HeadOnly, r.Declared, end, list(&r.Head))
			}
			r := get("/")
			r.SetMethod([]byte(method))
			if _, err := k.Open(r, nil, method != "CONNECT"); err != nil {
				t.Fatal(err)
			}
			k.take()
			k.w.head(flags, 1, fields...)
			k.expect()
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	f("body", "GET", "200 5 false -1 false a=b", 0, ":status", "200", "content-length", "5", "a", "b")
	f("unknown body", "GET", "200 -1 false -1 false", 0, ":status", "200")
	f("no body", "GET", "200 0 false -1 true", flagEndStream, ":status", "200")
	f("HEAD", "HEAD", "200 0 true 5 true", flagEndStream, ":status", "200", "content-length", "5")
	f("304", "GET", "304 0 true 5 true", flagEndStream, ":status", "304", "content-length", "5")
	f("204", "GET", "204 0 true -1 true", flagEndStream, ":status", "204")
	f("interim", "GET", "103 0 true -1 false link=x", 0, ":status", "103", "link", "x")
	f("tunnel", "CONNECT", "200 0 true -1 false", 0, ":status", "200", "content-length", "5")
	f("no tunnel", "CONNECT", "403 5 false -1 false", 0, ":status", "403", "content-length", "5")
	f("proxy-authenticate", "GET", "200 0 false -1 true", flagEndStream, ":status", "200", "proxy-authenticate", "Basic")
	f("proxy-authenticate in 407", "GET", "407 0 false -1 true proxy-authenticate=Basic", flagEndStream, ":status", "407", "proxy-authenticate", "Basic")
	f("unknown status", "GET", "999 0 false -1 true", flagEndStream, ":status", "999")
}

// TestWritten has heads as they are written, read by another's decoder.
func TestWritten(t *testing.T) {
	f := func(name, want string, end bool, r *message.Request) {
		t.Run(name, func(t *testing.T) {
			k := newRawClient(t, Options{})
			if _, err := k.Open(r, nil, end); err != nil {
				t.Fatal(err)
			}
			if got := k.r.show(k.take()); got != "HEADERS 1 "+want {
				t.Errorf("got\n%s\nwant\nHEADERS 1 %s", got, want)
			}
		})
	}
	edit := func(r *message.Request, edit func(r *message.Request)) *message.Request { edit(r); return r }
	const start = ":method=GET :scheme=http :authority=reviews:9080 :path="
	f("connection-specific fields", start+"/ a=b end", true, get("/", "Connection", "close", "Keep-Alive", "1", "Proxy-Connection", "x",
		"Transfer-Encoding", "chunked", "Upgrade", "h2c", "Host", "b", "HTTP2-Settings", "x", "TE", "gzip", "Content-Length", "7", "Expect", "x", "Proxy-Authorization", "x", "A", "b"))
	f("names", start+"/ x-request-id=1 x-some-other=2 content-type=3 end", true, get("/", "X-REQUEST-ID", "1", "X-Some-Other", "2", "Content-Type", "3"))
	f("query", start+"/a?b=c end", true, edit(get("/a"), func(r *message.Request) { r.SetQuery([]byte("?b=c")) }))
	f("nothing of a path", start+"/?b end", true, edit(get(""), func(r *message.Request) { r.SetQuery([]byte("?b")) }))
	f("length", strings.Replace(start, "GET", "POST", 1)+"/ content-length=5", false, edit(get("/"), func(r *message.Request) { r.SetMethod([]byte("POST")); r.BodyLength = 5 }))
	f("no length", strings.Replace(start, "GET", "POST", 1)+"/", false, edit(get("/"), func(r *message.Request) { r.SetMethod([]byte("POST")); r.BodyLength = -1 }))
	f("length 0", strings.Replace(start, "GET", "POST", 1)+"/ content-length=0 end", true, edit(get("/"), func(r *message.Request) { r.SetMethod([]byte("POST")) }))
	f("expectation and trailers", start+"/ expect=100-continue te=trailers", false, edit(get("/"), func(r *message.Request) { r.ExpectContinue, r.Trailers, r.BodyLength = true, true, -1 }))
	f("no scheme", start+"/ end", true, edit(get("/"), func(r *message.Request) { r.SetScheme(nil) }))
	f("CONNECT", ":method=CONNECT :authority=reviews:9080", false, edit(get("/"), func(r *message.Request) { r.SetMethod([]byte("CONNECT")); r.BodyLength = 5 }))
	f("extended CONNECT", ":method=CONNECT :scheme=http :authority=reviews:9080 :path=/ :protocol=websocket", false, edit(get("/"), func(r *message.Request) {
		r.SetMethod([]byte("CONNECT"))
		r.SetUpgradeTo([]byte("websocket"))
	}))
	f("upgrade that is none here", start+"/ end", true, edit(get("/"), func(r *message.Request) { r.SetUpgradeTo([]byte("websocket")) }))

	g := func(name, method, want string, end bool, res *message.Response) {
		t.Run(name, func(t *testing.T) {
			k := newRawServer(t, Options{})
			if method == "CONNECT" {
				k.w.head(0, 1, ":method", "CONNECT", ":authority", "a:1")
			} else {
				k.w.head(flagEndStream, 1, with(simple, ":method", method)...)
			}
			k.send()
			k.s[1].Respond(res, end)
			k.expect("HEADERS 1 " + want)
		})
	}
	g("response", "GET", ":status=200 a=b content-length=5", false, reply(200, 5, "Connection", "close", "A", "b", "Transfer-Encoding", "chunked"))
	g("response without a length", "GET", ":status=503", false, reply(503, -1))
	g("response without a body", "GET", ":status=404 content-length=0 end", true, reply(404, 0))
	g("204 has no length", "GET", ":status=204 end", true, reply(204, 0))
	g("304 has none but one that was told", "GET", ":status=304 end", true, reply(304, 0))
	g("interim", "GET", ":status=103 link=x", true, reply(103, 0, "Link", "x"))
	g("HEAD", "HEAD", ":status=200 content-length=5 end", true, reply(200, 5))
	only := reply(304, 0)
	only.HeadOnly, only.Declared = true, 7
	g("304 that declares", "GET", ":status=304 content-length=7 end", true, only)
	tunnel := reply(200, 0)
	g("tunnel", "CONNECT", ":status=200", false, tunnel)
}
