package standin

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func dialWebSocket(t *testing.T, a *App, o *websocket.DialOptions) (*websocket.Conn, *http.Response) {
	t.Helper()
	conn, resp, err := websocket.Dial(t.Context(), "ws://"+a.Address(1)+"/any/path?q", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn, resp
}

func TestWebSocket(t *testing.T) {
	for _, protocol := range []model.Protocol{model.HTTP, model.Auto} {
		a := start(t, web("reviews-v1-0"), Role{}, Port{Port: 1, Protocol: protocol})
		conn, resp := dialWebSocket(t, a, &websocket.DialOptions{
			Subprotocols: []string{"graphql-ws", "other"}, HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}},
		})
		if got := resp.Header.Get(instanceHeader); got != "default/reviews-v1-0" {
			t.Errorf("who answers: %q", got)
		}
		if got := conn.Subprotocol(); got != "graphql-ws" {
			t.Errorf("subprotocol %q", got)
		}
		conn.SetReadLimit(1 << 22)
		for kind, message := range map[websocket.MessageType][]byte{
			websocket.MessageText: []byte("ü"), websocket.MessageBinary: bytes.Repeat([]byte{0, 0xff}, 1<<20),
		} {
			if err := conn.Write(t.Context(), kind, message); err != nil {
				t.Fatal(err)
			}
			gotKind, got, err := conn.Read(t.Context())
			if err != nil || gotKind != kind || !bytes.Equal(got, message) {
				t.Errorf("%v of %d bytes came back as %v of %d, %v", kind, len(message), gotKind, len(got), err)
			}
		}
		reading := conn.CloseRead(t.Context())
		if err := conn.Ping(reading); err != nil {
			t.Errorf("ping: %v", err)
		}
		if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := a.Unserve(t.Context(), 1); err != nil { // it has ended: nothing is waited for
			t.Error(err)
		}
	}
}

func TestWebSocketIsRefused(t *testing.T) {
	a := start(t, web("i"), Role{Behaviour: Behaviour{Status: 503}}, Port{Port: 1, Protocol: model.HTTP2})
	if _, resp, err := websocket.Dial(t.Context(), "ws://"+a.Address(1)+"/", nil); err == nil || resp.StatusCode != 503 {
		t.Errorf("told to misbehave: %v", err)
	}
	a.SetBehaviour(Behaviour{})
	resp, body := do(t, request(t, "GET", "http://"+a.Address(1)+"/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"), http1)
	if resp.StatusCode != 400 || !strings.Contains(string(body), "Sec-WebSocket-Key") {
		t.Errorf("a handshake without key: %s %s", resp.Status, body)
	}
}

func TestShutdownEndsWebSockets(t *testing.T) {
	a := start(t, web("i"), Role{}, Port{Port: 1, Protocol: model.HTTP})
	conn, _ := dialWebSocket(t, a, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); err == nil {
		t.Error("it lives on")
	}
}
