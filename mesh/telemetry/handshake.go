package telemetry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
)

// Side is what a sidecar is in a TLS handshake.
type Side uint8

// The sides of a handshake.
const (
	ServerSide Side = iota // it was connected to
	ClientSide             // it connected
	sideEnd
)

var sideNames = [sideEnd]string{"server", "client"}

// String returns the label's value.
func (s Side) String() string { return sideNames[s] }

// Handshake is how a TLS handshake ended.
type Handshake uint8

// The ends of a handshake; all but the first are failures, of this side's checks or by the other's word (an alert).
const (
	HandshakeOK            Handshake = iota
	HandshakeExpired                 // a certificate that is over, or not yet valid
	HandshakeUnknownCA               // no trusted authority signed the certificate
	HandshakeNameMismatch            // the certificate is another's
	HandshakeRevoked                 // the certificate was called back
	HandshakeNoCertificate           // one was asked for and none shown
	HandshakeProtocol                // no common version, cipher or application protocol, or no TLS at all
	HandshakeOther                   // anything else: the connection went away, took too long, ...
	handshakeEnd
)

var handshakeNames = [handshakeEnd]string{
	"ok", "expired", "unknown_ca", "name_mismatch", "revoked", "no_certificate", "protocol", "other",
}

// String returns the label's value.
func (h Handshake) String() string { return handshakeNames[h] }

// ErrNameMismatch and ErrRevoked are for whoever checks certificates beyond crypto/x509 to wrap, so that HandshakeOf
// knows why a handshake failed.
var (
	ErrNameMismatch = errors.New("the certificate has another name")
	ErrRevoked      = errors.New("the certificate is revoked")
)

// alerts tell by TLS's alerts (RFC 8446 section 6) how a handshake ended. They are known by their text: what crypto/tls
// returns of an alert that the peer sent has a type of its own.
var alerts = func() map[string]Handshake {
	byText := map[string]Handshake{}
	for h, codes := range map[Handshake][]tls.AlertError{
		HandshakeExpired:       {45},
		HandshakeUnknownCA:     {48},
		HandshakeNameMismatch:  {112},
		HandshakeRevoked:       {44},
		HandshakeNoCertificate: {41, 116},
		HandshakeProtocol:      {10, 40, 47, 50, 70, 71, 109, 110, 120},
	} {
		for _, code := range codes {
			byText[code.Error()] = h
		}
	}
	return byText
}()

// complaints are parts of the texts of crypto/tls's own errors that have no type.
var complaints = []struct {
	part   string
	result Handshake
}{
	{"didn't provide a certificate", HandshakeNoCertificate},
	{"unsupported versions", HandshakeProtocol},
	{"unsupported protocol version", HandshakeProtocol},
	{"cipher suite", HandshakeProtocol},
	{"application protocol", HandshakeProtocol},
}

// HandshakeOf names what crypto/tls returned of a handshake.
func HandshakeOf(err error) Handshake {
	if err == nil {
		return HandshakeOK
	}
	if errors.Is(err, ErrNameMismatch) {
		return HandshakeNameMismatch
	}
	if errors.Is(err, ErrRevoked) {
		return HandshakeRevoked
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return HandshakeNameMismatch
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return HandshakeUnknownCA
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch e.Reason {
		case x509.Expired:
			return HandshakeExpired
		case x509.NameMismatch, x509.CANotAuthorizedForThisName:
			return HandshakeNameMismatch
		}
		return HandshakeOther
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return HandshakeProtocol
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		err = e.Err
	}
	text := err.Error()
	if h, ok := alerts[text]; ok {
		return h
	}
	for _, c := range complaints {
		if strings.HasPrefix(text, "tls: ") && strings.Contains(text, c.part) {
			return c.result
		}
	}
	return HandshakeOther
}
