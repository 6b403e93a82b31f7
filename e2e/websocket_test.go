package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// echoSockets is an application that echoes messages. A text that begins with "close" makes it close with the code after it.
func echoSockets(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			http.Error(w, "no sockets here", http.StatusForbidden)
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			t.Errorf("the application gets a handshake that it cannot take: %v", err)
			return
		}
		c.SetReadLimit(64 << 20)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			var code websocket.StatusCode
			if n, _ := fmt.Sscanf(string(b[:min(len(b), 20)]), "close %d", &code); n == 1 {
				_ = c.Close(code, "as you wish")
				return
			}
			if err := c.Write(r.Context(), kind, b); err != nil {
				return
			}
		}
	}
}

// socket opens a WebSocket.
func socket(ctx context.Context, c *http.Client, url string) (*websocket.Conn, *http.Response, error) {
	ws, res, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: c, Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover})
	if err == nil {
		ws.SetReadLimit(64 << 20)
	}
	return ws, res, err
}

// echoed sends a message and expects it back.
func echoed(ctx context.Context, ws *websocket.Conn, kind websocket.MessageType, b []byte) error {
	sent := make(chan error, 1)
	go func() { sent <- ws.Write(ctx, kind, b) }() // waited for below
	k, got, err := ws.Read(ctx)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if k != kind || !bytes.Equal(got, b) {
		return fmt.Errorf("a message of %d bytes comes back as one of %d", len(b), len(got))
	}
	return nil
}

// TestWebSocket opens WebSockets through two sidecars and through a gateway: by an HTTP proxy's absolute form, by Host
// alone, and inside CONNECT.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	app := listen(t, echoSockets(t))
	m := up(t, named80("http")+entry("HTTP", ""), prometheus, apps(app))
	bare := m.speaking(1, m.ready.Proxy)
	gateway := m.speaking(1, m.at("entry", 18080))
	ways := []struct {
		name, url string
		client    *http.Client
	}{
		{"by the proxy", "ws://web/chat?room=%20a", m.http},
		{"by Host", "ws://web/chat", bare},
		{"by the gateway", "ws://shop.example/chat", gateway},
	}
	for _, w := range ways {
		w.client.Timeout = 0
		t.Run(w.name, func(t *testing.T) {
			ctx := patience(t)
			ws, res, err := socket(ctx, w.client, w.url)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != 101 || ws.Subprotocol() != "echo" {
				t.Errorf("%d, subprotocol %q", res.StatusCode, ws.Subprotocol())
			}
			for _, n := range []int{0, 1, 125, 126, 65_535, 65_536, 16 << 20} {
				if err := echoed(ctx, ws, websocket.MessageBinary, bytes.Repeat([]byte{0, 255, 10, 13}, n/4+1)[:n]); err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
			}
			if err := echoed(ctx, ws, websocket.MessageText, []byte(strings.Repeat("grüße ", 1000))); err != nil {
				t.Error(err)
			}
			pinged := make(chan error, 1)
			go func() { pinged <- ws.Ping(ctx) }() // the answer comes while the connection is read
			if err := ws.Write(ctx, websocket.MessageText, []byte("close 4001")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != 4001 || !strings.Contains(err.Error(), "as you wish") {
				t.Errorf("the application's close: %v", err)
			}
			<-pinged // answered, or cut off by the close: both are well
			ws, _, err = socket(ctx, w.client, w.url)
			if err != nil {
				t.Fatal(err)
			}
			if err := ws.Close(websocket.StatusNormalClosure, "done"); err != nil {
				t.Errorf("the client's close: %v", err)
			}
			if _, res, err := socket(ctx, w.client, strings.Replace(w.url, "chat", "refused", 1)); err == nil || res == nil || res.StatusCode != 403 {
				t.Errorf("a refused handshake: %v %v", res, err)
			}
		})
	}
	m.scraped()
	m.counted(6, `istio_requests_total{reporter="destination",destination_service_name="web",response_code="101"}`)
	m.counted(3, `istio_requests_total{reporter="destination",destination_service_name="web",response_code="403"}`)
}

// TestWebSocketsAcrossReloads keeps many sockets in use while the route changes: none may break.
func TestWebSocketsAcrossReloads(t *testing.T) {
	t.Parallel()
	sockets, reloads := 20, 6
	if long {
		sockets, reloads = 100, 40
	}
	l := newLoad(t)
	m := up(t, named80("http"), apps(listen(t, echoSockets(t))))
	m.http.Timeout = 0
	var turns atomic.Int64
	l.Go(func() {
		m.crowd(t, sockets, func(i int) error {
			ws, _, err := socket(t.Context(), m.http, "ws://web/")
			if err != nil {
				return err
			}
			for n := 0; ; n++ {
				if err := echoed(t.Context(), ws, websocket.MessageText, fmt.Appendf(nil, "socket %d, turn %d", i, n)); err != nil {
					return err
				}
				turns.Add(1)
				select {
				case <-l.over:
					return ws.Close(websocket.StatusNormalClosure, "")
				case <-time.After(time.Millisecond): // a pace that leaves the machine to others
				}
			}
		})
	})
	for i := range reloads {
		before := turns.Load()
		m.await("the sockets are in use", func() bool { return turns.Load() >= before+int64(sockets) })
		m.edit("route.yaml", virtual("web", fmt.Sprintf("  - headers: {request: {set: {x-edit: %q}}}\n    route: [{destination: {host: web}}]\n", fmt.Sprint(i))))
	}
	l.end()
}

// TestUpgradeToH2CIsNotPassedOn: RFC 9113 has done away with it, and what follows could go past every rule.
func TestUpgradeToH2CIsNotPassedOn(t *testing.T) {
	t.Parallel()
	m := up(t, named80("http"))
	f := func(fields, upgrade string) {
		t.Helper()
		got := raw(t, m.ready.Proxy, "GET /x HTTP/1.1\r\nHost: web\r\n"+fields+"\r\nGET /y HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
		if strings.Count(got, "HTTP/1.1 200") != 2 || strings.Contains(strings.ToLower(got), "http2-settings") || strings.Contains(strings.ToLower(got), "h2c") {
			t.Errorf("%q: %s", fields, got)
		}
		if seen := strings.Contains(got, `"upgrade":"`+upgrade+`"`); seen != (upgrade != "") {
			t.Errorf("%q: the application does not see %q alone: %s", fields, upgrade, got)
		}
	}
	f("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", "")
	f("Connection: upgrade\r\nUpgrade: H2C\r\n", "")
	f("Upgrade: h2c\r\n", "")
	f("Connection: Upgrade\r\nUpgrade: h2c, foo\r\n", "foo")
	f("Connection: Upgrade\r\nUpgrade: foo\r\nUpgrade: h2c\r\n", "foo")
}
