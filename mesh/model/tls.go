package model

import (
	"fmt"
	"io"
)

// TLSMode says what a server or a client does about certificates.
type TLSMode string

// TLS modes, Istio's names.
const (
	SimpleTLS         TLSMode = "SIMPLE"          // the server shows a certificate
	MutualTLS         TLSMode = "MUTUAL"          // both do, and each verifies the other's
	OptionalMutualTLS TLSMode = "OPTIONAL_MUTUAL" // a client may show one; one that is shown must verify
	PassthroughTLS    TLSMode = "PASSTHROUGH"     // bytes go on unopened, by the server name that the client asks for
)

// ServerTLS is one way that a listener takes TLS connections; the server name (SNI) of the client's hello chooses among
// several: exact name, longest wildcard, "*". A connection that none is for is refused.
type ServerTLS struct {
	// Names are lower-case server names: exact, "*.suffix", or "*".
	Names []string `json:"names"`
	Mode  TLSMode  `json:"mode"`
	// Table names the route table of what is inside: by host for HTTP, by server name where Protocol is TCP or the mode PASSTHROUGH.
	Table string `json:"table"`
	// Protocol is what is inside: HTTP (HTTP/1.1 and, by ALPN, HTTP/2) or TCP.
	Protocol Protocol `json:"protocol"`
	// Certificates are the server's own; the one that fits the client's algorithms is shown.
	Certificates []Certificate `json:"certificates,omitempty"`
	// Trust is what client certificates verify against (MUTUAL, OPTIONAL_MUTUAL).
	Trust *Certificate `json:"trust,omitempty"`
	// SubjectAltNames, where set, are the only client names that are let in: DNS names, URIs, or e-mail addresses.
	SubjectAltNames []string `json:"subjectAltNames,omitempty"`
	// SPKI and Hashes, where set, pin client certificates: base64 SHA-256 of the public key, hex SHA-256 of the certificate.
	SPKI   []string `json:"spki,omitempty"`
	Hashes []string `json:"hashes,omitempty"`
	// MinVersion and MaxVersion are "TLSV1_0" ... "TLSV1_3"; empty is TLS 1.2 and the newest.
	MinVersion string `json:"minVersion,omitempty"`
	MaxVersion string `json:"maxVersion,omitempty"`
	// CipherSuites restrict TLS 1.2, by OpenSSL's names; empty is Go's choice.
	CipherSuites []string `json:"cipherSuites,omitempty"`
	Origin       *Origin  `json:"origin,omitempty"`
}

// ClientTLS is how a cluster's endpoints are spoken to.
type ClientTLS struct {
	Mode TLSMode `json:"mode"` // SIMPLE or MUTUAL
	// SNI is the server name asked for; empty is the request's host without port.
	SNI string `json:"sni,omitempty"`
	// SubjectAltNames are names that the server must show, any of them; empty requires the SNI.
	SubjectAltNames []string `json:"subjectAltNames,omitempty"`
	// Trust verifies the server; nil is the system's roots.
	Trust *Certificate `json:"trust,omitempty"`
	// Certificate is shown to the server (MUTUAL).
	Certificate *Certificate `json:"certificate,omitempty"`
	// SkipVerify takes any certificate, because the configuration says insecureSkipVerify.
	SkipVerify bool `json:"skipVerify,omitempty"`
}

// Certificate is a key pair, or trusted roots, by where they are found. Material itself is never encoded, dumped or logged.
type Certificate struct {
	// Name is "namespace/secret" for a Secret, or a file's path: what messages call it.
	Name string `json:"name"`
	// Files hold the material where it is in files: PEM.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
	CAFile   string `json:"caFile,omitempty"`
	// CRLFile holds revocation lists, where peers that CAFile vouches for may have been revoked (caCrl).
	CRLFile string `json:"crlFile,omitempty"`
	// Material is that of a Secret. It passes only as a pointer inside one process.
	Material *Material `json:"-"`
	// Digest changes with the material, so that a renewed Secret makes a new snapshot.
	Digest string `json:"digest,omitempty"`
}

// Material is PEM: certificate chain, private key, trusted roots, revocation lists; what a Certificate is not used for is empty.
type Material struct {
	Cert, Key, CA, CRL []byte
}

const secret = "(secret)"

// String keeps keys out of logs.
func (Material) String() string { return secret }

// GoString keeps keys out of logs.
func (Material) GoString() string { return secret }

// Format keeps keys out of logs, whatever the verb.
func (Material) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, secret) }

// MarshalJSON keeps keys out of dumps.
func (Material) MarshalJSON() ([]byte, error) { return []byte(`"` + secret + `"`), nil }
