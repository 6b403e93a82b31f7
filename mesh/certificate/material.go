package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// labels are what messages call each piece of material: the keys of a Secret, or files.
type labels struct{ cert, key, ca, crl string }

// Istio's two spellings of a Secret's keys; the first that is whole is taken.
var spellings = []labels{
	{"cert", "key", "cacert", "crl"},
	{"tls.crt", "tls.key", "ca.crt", "ca.crl"},
}

// FromSecret takes the material out of a Kubernetes Secret's (or, for roots, ConfigMap's) data: a key pair under
// cert and key, or tls.crt and tls.key; roots under cacert or ca.crt; revocation lists under crl or ca.crl. A Secret of
// roots alone ("<secret>-cacert") has no pair. Errors name the key of the data that is at fault, and never hold any of
// its content.
func FromSecret(data map[string][]byte) (*model.Material, error) {
	m := &model.Material{}
	var l labels
	for _, s := range spellings {
		if m.Cert == nil && len(data[s.cert]) > 0 && len(data[s.key]) > 0 {
			m.Cert, m.Key, l.cert, l.key = data[s.cert], data[s.key], s.cert, s.key
		}
		if m.CA == nil && len(data[s.ca]) > 0 {
			m.CA, l.ca = data[s.ca], s.ca
		}
		if m.CRL == nil && len(data[s.crl]) > 0 {
			m.CRL, l.crl = data[s.crl], s.crl
		}
	}
	if m.Cert == nil {
		if err := halfPair(data, m.CA != nil); err != nil {
			return nil, err
		}
	} else if _, err := readPair(m.Cert, m.Key, l); err != nil {
		return nil, err
	}
	if m.CA != nil {
		if _, err := readCertificates(m.CA, l.ca); err != nil {
			return nil, err
		}
	}
	if m.CRL != nil {
		if _, err := readRevocations(m.CRL, l.crl); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// halfPair says what data lacks that holds no whole key pair. Roots alone lack nothing.
func halfPair(data map[string][]byte, roots bool) error {
	for _, s := range spellings {
		cert, hasCert := data[s.cert]
		key, hasKey := data[s.key]
		switch {
		case hasCert && !hasKey:
			return fmt.Errorf("has %s but no %s: add the private key", s.cert, s.key)
		case hasKey && !hasCert:
			return fmt.Errorf("has %s but no %s: add the certificate", s.key, s.cert)
		case hasCert && len(cert) == 0 && !(roots && len(key) == 0):
			return fmt.Errorf("%s is empty: put the certificate there, in PEM", s.cert)
		case hasKey && len(key) == 0 && !roots:
			return fmt.Errorf("%s is empty: put the private key there, in PEM", s.key)
		}
	}
	if roots {
		return nil
	}
	keys := make([]string, 0, len(data))
	for k := range data {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	found := "none"
	if len(keys) > 0 {
		found = strings.Join(keys[:min(len(keys), 6)], ", ")
	}
	return fmt.Errorf("has neither tls.crt and tls.key, nor cert and key, nor roots under ca.crt or cacert; its keys: %s", found)
}

// blocks decodes PEM. A block that is begun and not well ended is an error: a file cut short must not pass for a whole one.
func blocks(data []byte, label string) ([]*pem.Block, error) {
	var all []*pem.Block
	for rest := data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		all = append(all, b)
	}
	if begun := bytes.Count(data, []byte("-----BEGIN ")); begun != len(all) {
		return nil, fmt.Errorf("%s: %d of its %d PEM blocks are damaged or cut short: write it again", label, begun-len(all), begun)
	}
	if len(all) == 0 {
		if len(data) > 1 && data[0] == 0x30 && data[1]&0x80 != 0 {
			return nil, fmt.Errorf("%s is DER: convert it to PEM (openssl ... -inform der -outform pem)", label)
		}
		return nil, fmt.Errorf("%s is not PEM: it must hold a block such as -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----", label)
	}
	return all, nil
}

// readCertificates returns every certificate of PEM data, at least one.
func readCertificates(data []byte, label string) ([]*x509.Certificate, error) {
	all, err := blocks(data, label)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for i, b := range all {
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: PEM block %d is not a certificate: %w", label, i+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		if slices.ContainsFunc(all, isKey) {
			return nil, fmt.Errorf("%s holds a private key where a certificate belongs: are the two swapped?", label)
		}
		return nil, fmt.Errorf("%s holds no certificate: it needs a -----BEGIN CERTIFICATE----- block", label)
	}
	return certs, nil
}

func isKey(b *pem.Block) bool {
	return b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY")
}

// readKey returns the private key of PEM data. Its errors hold nothing of what was read, not even a decoder's words on it.
func readKey(data []byte, label string) (crypto.Signer, error) {
	all, err := blocks(data, label)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, isKey)
	if i < 0 {
		if all[0].Type == "CERTIFICATE" {
			return nil, fmt.Errorf("%s holds a certificate where a private key belongs: are the two swapped?", label)
		}
		return nil, fmt.Errorf("%s holds no private key: it needs a -----BEGIN PRIVATE KEY----- block", label)
	}
	b := all[i]
	if b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, fmt.Errorf("%s is encrypted, and a proxy has nobody to ask for its password: decrypt it (openssl pkey -in KEY -out PLAIN)", label)
	}
	var key any
	if key, err = x509.ParsePKCS8PrivateKey(b.Bytes); err != nil {
		if key, err = x509.ParsePKCS1PrivateKey(b.Bytes); err != nil {
			key, err = x509.ParseECPrivateKey(b.Bytes)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s is no private key that can be read: PKCS#8, PKCS#1 and SEC 1 are, for RSA, ECDSA and Ed25519", label)
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return k, nil
	case *ecdsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, fmt.Errorf("%s is a key that TLS cannot sign with: use ECDSA, RSA or Ed25519", label)
}

// readPair returns a key pair that can be shown to peers: it belongs together and is not weaker than what clients take.
func readPair(cert, key []byte, l labels) (*tls.Certificate, error) {
	chain, err := readCertificates(cert, l.cert)
	if err != nil {
		return nil, err
	}
	signer, err := readKey(key, l.key)
	if err != nil {
		return nil, err
	}
	belongs := func(c *x509.Certificate) bool {
		p, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		return ok && p.Equal(signer.Public())
	}
	if !belongs(chain[0]) {
		if i := slices.IndexFunc(chain, belongs); i > 0 {
			return nil, fmt.Errorf("%s: certificate %d is the one that %s belongs to: put it first, and its issuers after it", l.cert, i+1, l.key)
		}
		return nil, fmt.Errorf("%s does not belong to the certificate in %s (%s): put the key there that the certificate was issued for",
			l.key, l.cert, subject(chain[0]))
	}
	switch p := signer.Public().(type) {
	case *rsa.PublicKey:
		if bits := p.N.BitLen(); bits < 2048 || bits > 8192 {
			return nil, fmt.Errorf("%s is an RSA key of %d bits: use 2048 to 8192, or ECDSA", l.key, bits)
		}
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() && p.Curve != elliptic.P384() && p.Curve != elliptic.P521() {
			return nil, fmt.Errorf("%s is a key on the curve %s, which TLS does not know: use P-256", l.key, p.Curve.Params().Name)
		}
	}
	pair := &tls.Certificate{PrivateKey: signer, Leaf: chain[0]}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, nil
}

// subject is what a message calls a certificate.
func subject(c *x509.Certificate) string {
	switch {
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	}
	return "serial number " + serial(c.SerialNumber)
}

func serial(n *big.Int) string { return n.Text(16) }

// revocations is one revocation list.
type revocations struct {
	list    *x509.RevocationList
	serials map[string]struct{}
}

// readRevocations returns every revocation list of PEM data, at least one. A list that speaks of more than its plain
// meaning (delta lists, lists for some reasons only) is refused rather than half understood.
func readRevocations(data []byte, label string) ([]*revocations, error) {
	all, err := blocks(data, label)
	if err != nil {
		return nil, err
	}
	var lists []*revocations
	for i, b := range all {
		if b.Type != "X509 CRL" {
			continue
		}
		l, err := x509.ParseRevocationList(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: PEM block %d is not a revocation list: %w", label, i+1, err)
		}
		for _, e := range l.Extensions {
			if e.Critical {
				return nil, fmt.Errorf("%s: PEM block %d has the critical extension %s, which is not supported: use a full revocation list of one issuer", label, i+1, e.Id)
			}
		}
		r := &revocations{list: l, serials: make(map[string]struct{}, len(l.RevokedCertificateEntries))}
		for _, e := range l.RevokedCertificateEntries {
			r.serials[serial(e.SerialNumber)] = struct{}{}
		}
		lists = append(lists, r)
	}
	if len(lists) == 0 {
		return nil, errors.New(label + " holds no revocation list: it needs a -----BEGIN X509 CRL----- block")
	}
	return lists, nil
}
