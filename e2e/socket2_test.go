package e2e

//lint:file-ignore SA1019 net/http's own client refuses the pseudo-header :protocol, x/net's sends it.

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
)

// socketsAddress makes the test binary an application that takes WebSockets over HTTP/2 (RFC 8441), which net/http does
// only where GODEBUG says so when a process starts.
const socketsAddress = "OUTRIDER_E2E_SOCKETS"

func runSockets(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ready")
	s := &http.Server{Handler: http.HandlerFunc(echoFrames), ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	fmt.Println(s.Serve(l))
}

// echoFrames is WebSocket's server as far as the test needs it: it echoes frames of less than 64 KiB, unmasked.
func echoFrames(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || r.Header.Get(":protocol") != "websocket" || r.Header.Get("Sec-Websocket-Version") != "13" || r.URL.Path != "/chat" {
		http.Error(w, fmt.Sprintln(r.Method, r.URL, r.Header), http.StatusBadRequest)
		return
	}
	w.Header().Set("Sec-Websocket-Protocol", "echo")
	rc := http.NewResponseController(w)
	if rc.Flush() != nil {
		return
	}
	in := bufio.NewReader(r.Body)
	for {
		first, payload, err := readFrame(in)
		if err != nil {
			return
		}
		if _, err := w.Write(appendFrame(nil, first, payload, false)); err != nil || rc.Flush() != nil || first == 0x88 {
			return
		}
	}
}

func readFrame(in *bufio.Reader) (first byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, nil, err
	}
	n := int(head[1] & 127)
	if n == 126 {
		var long [2]byte
		if _, err := io.ReadFull(in, long[:]); err != nil {
			return 0, nil, err
		}
		n = int(binary.BigEndian.Uint16(long[:]))
	}
	var mask [4]byte
	if head[1]&128 != 0 {
		if _, err := io.ReadFull(in, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(in, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0], payload, nil
}

func appendFrame(b []byte, first byte, payload []byte, masked bool) []byte {
	bit := byte(0)
	if masked {
		bit = 128
	}
	if len(payload) < 126 {
		b = append(b, first, bit|byte(len(payload)))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, first, bit|126), uint16(len(payload)))
	}
	if masked {
		b = append(b, 0, 0, 0, 0) // a mask that changes nothing
	}
	return append(b, payload...)
}

// startSockets runs that application.
func startSockets(t *testing.T) string {
	t.Helper()
	at := free(t, 1)[0]
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), socketsAddress+"="+at, "GODEBUG=http2xconnect=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed, which is an error
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the application says %q (%v)", line, err)
	}
	return at
}

// socket2 opens a WebSocket over HTTP/2 by extended CONNECT.
func (m *mesh) socket2(t *testing.T, ctx context.Context) (*http.Response, io.Writer) {
	t.Helper()
	transport := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", m.ready.Proxy)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	body, say := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodConnect, "http://web/chat", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {"echo"}, "Origin": {"http://web"}}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = say.Close(), res.Body.Close() })
	return res, say
}

// TestWebSocketVersions opens WebSockets in every combination of versions: RFC 6455's Upgrade over HTTP/1.1 and RFC
// 8441's CONNECT over HTTP/2 become each other.
func TestWebSocketVersions(t *testing.T) {
	t.Parallel()
	one, two := listen(t, echoSockets(t)), startSockets(t)
	for _, w := range ways {
		t.Run(w.String(), func(t *testing.T) {
			app := one
			if w.app == 2 {
				app = two
			}
			m := up(t, named80(w.port), prometheus, apps(app))
			ctx := patience(t)
			if w.client == 1 {
				c := m.speaking(1, m.ready.Proxy)
				c.Timeout = 0
				ws, _, err := websocket.Dial(ctx, "ws://web/chat", &websocket.DialOptions{HTTPClient: c, Subprotocols: []string{"echo"}})
				if err != nil {
					t.Fatal(err)
				}
				if ws.Subprotocol() != "echo" {
					t.Errorf("subprotocol %q", ws.Subprotocol())
				}
				for _, n := range []int{0, 1, 125, 126, 30_000} {
					if err := echoed(ctx, ws, websocket.MessageText, []byte(strings.Repeat("x", n))); err != nil {
						t.Fatalf("%d bytes: %v", n, err)
					}
				}
				if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
					t.Error(err)
				}
			} else {
				res, say := m.socket2(t, ctx)
				if res.StatusCode != 200 || res.Header.Get("Sec-Websocket-Protocol") != "echo" || res.Header.Get("Upgrade") != "" || res.Header.Get("Sec-Websocket-Accept") != "" {
					t.Fatalf("%d %v %s", res.StatusCode, res.Header, text(t, res))
				}
				in := bufio.NewReader(res.Body)
				for _, n := range []int{0, 1, 125, 126, 60_000} {
					if _, err := say.Write(appendFrame(nil, 0x81, []byte(strings.Repeat("x", n)), true)); err != nil {
						t.Fatal(err)
					}
					if first, got, err := readFrame(in); err != nil || first != 0x81 || len(got) != n {
						t.Fatalf("%d bytes: %x, %d bytes, %v", n, first, len(got), err)
					}
				}
				if _, err := say.Write(appendFrame(nil, 0x88, []byte{3, 232}, true)); err != nil {
					t.Fatal(err)
				}
				if first, _, err := readFrame(in); err != nil || first != 0x88 {
					t.Errorf("close: %x, %v", first, err)
				}
				if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
					t.Errorf("after the close: %q, %v", rest, err)
				}
			}
			m.await("no exchange is under way", func() bool {
				m.scraped()
				return m.value(`sum(outrider_active_requests)`) == 0
			})
		})
	}
}

// TestWebSocketWhereItCannotBe asks an application that knows no WebSocket over HTTP/2: the answer says so.
func TestWebSocketWhereItCannotBe(t *testing.T) {
	t.Parallel()
	app := listenVersions(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "no sockets") })
	m := up(t, named80("http2"), apps(app))
	c := m.speaking(1, m.ready.Proxy)
	c.Timeout = 0
	if _, res, err := socket(patience(t), c, "ws://web/chat"); err == nil || res == nil || res.StatusCode < 400 {
		t.Errorf("%v %v", res, err)
	}
	if res := do(t, m.speaking(2, m.ready.Proxy), t.Context(), http.MethodGet, "http://web/", nil); text(t, res) != "no sockets" {
		t.Errorf("a request after it: %d", res.StatusCode)
	}
}
