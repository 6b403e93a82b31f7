package proxy

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it, and not for safety
	"encoding/base64"
	"errors"

	"github.com/outrider-mesh/outrider/wire/message"
)

// An upgrade is one thing in two forms: a request with Upgrade in HTTP/1, extended CONNECT in HTTP/2 (RFC 8441). Between
// the codecs it is a GET with message.Request.Upgrade.

var methodGet, methodConnect, websocket = []byte("GET"), []byte("CONNECT"), []byte("websocket")

// fromConnect gives a request of extended CONNECT its neutral form.
func (x *exchange) fromConnect() {
	r := &x.req
	x.foreign = !message.EqualFoldBytes(r.UpgradeTo(), websocket)
	r.SetMethod(methodGet)
	r.Upgrade = true
	r.BodyLength = message.NoBody
}

var errNoSwitch = errors.New("the endpoint answers an upgrade with success but does not switch protocols")

// toUpgrade completes the request for HTTP/1: an HTTP/2 client sends no key.
func (x *exchange) toUpgrade() {
	x.req.SetMethod(methodGet) // an attempt over HTTP/2 may have changed it
	if x.key != "" {
		x.req.Set("sec-websocket-key", x.key)
	}
	if _, ok := x.req.Lookup("sec-websocket-key"); ok || x.stream == nil || !message.EqualFoldBytes(x.req.UpgradeTo(), websocket) {
		return
	}
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	x.req.Set("sec-websocket-key", base64.StdEncoding.EncodeToString(key[:]))
}

// toConnect gives the request the form of extended CONNECT. The key stays here: the answer for an HTTP/1 client is made of it.
func (x *exchange) toConnect() {
	if key, ok := x.req.Lookup("sec-websocket-key"); ok {
		x.key = string(key)
		x.req.RemoveName("sec-websocket-key")
	}
	x.req.SetMethod(methodConnect)
}

// accepted gives the endpoint's consent the form that the client's version has.
func (x *exchange) accepted() {
	res := &x.res
	switch {
	case x.stream != nil && x.call == nil:
		res.Status = 200
		res.SetReason(nil)
		res.SetUpgradeTo(nil)
		res.RemoveName("sec-websocket-accept")
		res.BodyLength, res.HeadOnly = message.UnknownLength, false
	case x.stream == nil && x.call != nil:
		res.Status = 101
		res.SetUpgradeTo(x.req.UpgradeTo())
		res.HeadOnly = true
		if x.key != "" {
			sum := sha1.Sum([]byte(x.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
			res.Set("sec-websocket-accept", base64.StdEncoding.EncodeToString(sum[:]))
		}
	}
}
