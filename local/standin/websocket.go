package standin

import (
	"io"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// asksForWebSocket says whether the request asks for an upgrade to WebSocket, right or wrong.
func asksForWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// serveWebSocket sends every message back (RFC 6455), until the client ends it or the port ends. The handshake says which
// stand-in it is, in outrider-instance, and agrees to the first subprotocol that the client offers.
func (h *handler) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	var offered []string
	for _, list := range r.Header["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(list, ",") {
			offered = append(offered, strings.TrimSpace(p))
		}
	}
	w.Header().Set(instanceHeader, h.app.name())
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       offered,
		InsecureSkipVerify: true, // of the Origin: pages of any site may hear their own echo
	})
	if err != nil {
		return // it has answered what is wrong
	}
	defer func() { _ = conn.CloseNow() }() // says only that it was closed before
	conn.SetReadLimit(-1)                  // a message is passed on in pieces, as they come
	for {
		kind, in, err := conn.Reader(h.life)
		if err != nil {
			return
		}
		out, err := conn.Writer(h.life, kind)
		if err != nil {
			return
		}
		if _, err := io.Copy(out, in); err != nil {
			return
		}
		if err := out.Close(); err != nil {
			return
		}
	}
}
