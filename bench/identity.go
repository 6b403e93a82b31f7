//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// identity is the certificate that the proxies show where TLS ends at them: ECDSA with P-256, valid for a day.
type identity struct {
	Cert, Key, Both string // files in PEM; Both holds one behind the other
	client          *tls.Config
}

func newIdentity(dir string) (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: serviceHost}, DNSNames: []string{serviceHost},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cannot read the certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot write the key: %w", err)
	}
	cert, private := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	i := &identity{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Both: filepath.Join(dir, "both.pem")}
	for file, text := range map[string][]byte{i.Cert: cert, i.Key: private, i.Both: append(append([]byte{}, cert...), private...)} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return nil, fmt.Errorf("cannot write the certificate: %w", err)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	// Without a session cache the client can resume nothing: each handshake is a full one.
	i.client = &tls.Config{RootCAs: roots, ServerName: serviceHost, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13}
	return i, nil
}
