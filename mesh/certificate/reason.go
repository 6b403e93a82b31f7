package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// Reason names why a handshake failed, for logs and as the bounded label of a metric. The peer's certificate:
// expired, not_yet_valid, unknown_ca, name_mismatch, pin_mismatch, revoked, revocation_unknown, weak_signature,
// wrong_usage, no_certificate, bad_certificate. What the peers could not agree on: unknown_server_name, version, cipher, alpn.
// The connection: not_tls, timeout, closed. The other side's refusal: the same names after "peer_", or peer_alert.
// Anything else is handshake; nil is "".
func Reason(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return verification(e.Err, e.UnverifiedCertificates)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "not_tls"
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		if r := alerts[e.Err.Error()]; r != "" {
			return "peer_" + r
		}
		return "peer_alert"
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "timeout"
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, context.Canceled, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return "closed"
		}
	}
	for _, t := range texts {
		if strings.Contains(err.Error(), t.text) {
			return t.reason
		}
	}
	return "handshake"
}

// verification names what x509 found wrong with certs, the peer's.
func verification(err error, certs []*x509.Certificate) string {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch e.Reason {
		case x509.Expired:
			if e.Cert != nil && time.Now().Before(e.Cert.NotBefore) {
				return "not_yet_valid"
			}
			return "expired"
		case x509.IncompatibleUsage:
			return "wrong_usage"
		}
		return "bad_certificate"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "name_mismatch"
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, rootless := errors.AsType[x509.SystemRootsError](err)
	if !unknown && !rootless {
		return "bad_certificate"
	}
	for _, c := range certs {
		switch c.SignatureAlgorithm {
		case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
			if string(c.RawIssuer) != string(c.RawSubject) { // a root's own signature is never looked at
				return "weak_signature"
			}
		}
	}
	return "unknown_ca"
}

// alerts are crypto/tls's words for what the other side said (RFC 8446, 6.2).
var alerts = map[string]string{
	"tls: bad certificate":                 "bad_certificate",
	"tls: unsupported certificate":         "bad_certificate",
	"tls: unknown certificate":             "bad_certificate",
	"tls: bad certificate status response": "bad_certificate",
	"tls: revoked certificate":             "revoked",
	"tls: expired certificate":             "expired",
	"tls: unknown certificate authority":   "unknown_ca",
	"tls: certificate required":            "no_certificate",
	"tls: protocol version not supported":  "version",
	"tls: inappropriate fallback":          "version",
	"tls: insufficient security level":     "cipher",
	"tls: unrecognized name":               "unknown_server_name",
	"tls: no application protocol":         "alpn",
	"tls: handshake failure":               "handshake",
}

// texts are the failures that crypto/tls has no type for. TestReasons makes each happen.
var texts = []struct{ text, reason string }{
	{"tls: no certificates configured", "unknown_server_name"},
	{"didn't provide a certificate", "no_certificate"},
	{"offered only unsupported versions", "version"},
	{"inappropriate protocol fallback", "version"},
	{"server selected unsupported protocol version", "version"},
	{"no cipher suite supported by both", "cipher"},
	{"server chose an unconfigured cipher suite", "cipher"},
	{"requested unsupported application protocols", "alpn"},
	{"server selected unadvertised ALPN", "alpn"},
	{"failed to parse certificate", "bad_certificate"},
	{"failed to parse client certificate", "bad_certificate"},
	{"first record does not look like", "not_tls"},
}
