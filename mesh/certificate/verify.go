package certificate

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// rules are what a peer's certificate must be besides well issued. All that are set must hold; of the pins, any one.
type rules struct {
	names  []string
	keys   [][sha256.Size]byte // of public keys (SPKI)
	hashes [][sha256.Size]byte // of certificates
}

func newRules(names, spki, hashes []string) (*rules, error) {
	r := &rules{names: names}
	for _, pin := range spki {
		sum, err := base64.StdEncoding.DecodeString(pin)
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("verifyCertificateSpki %q is not the base64 of a SHA-256 (44 characters)", pin)
		}
		r.keys = append(r.keys, [sha256.Size]byte(sum))
	}
	for _, pin := range hashes {
		sum, err := hex.DecodeString(strings.ReplaceAll(pin, ":", ""))
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("verifyCertificateHash %q is not the hex of a SHA-256 (64 digits, with or without colons)", pin)
		}
		r.hashes = append(r.hashes, [sha256.Size]byte(sum))
	}
	return r, nil
}

func (r *rules) empty() bool { return len(r.names) == 0 && len(r.keys) == 0 && len(r.hashes) == 0 }

// check says why leaf, which is well issued, is still not the peer that is wanted.
func (r *rules) check(leaf *x509.Certificate) error {
	if len(r.names) > 0 && !slices.ContainsFunc(r.names, func(n string) bool { return hasName(leaf, n) }) {
		return &Error{"name_mismatch", fmt.Errorf("peer's certificate is for %s, but one of subjectAltNames %s is required", shown(leaf), strings.Join(r.names, ", "))}
	}
	if len(r.keys) == 0 && len(r.hashes) == 0 {
		return nil
	}
	if slices.Contains(r.keys, sha256.Sum256(leaf.RawSubjectPublicKeyInfo)) || slices.Contains(r.hashes, sha256.Sum256(leaf.Raw)) {
		return nil
	}
	return &Error{"pin_mismatch", fmt.Errorf("peer's certificate (%s) is none of those pinned by verifyCertificateSpki or verifyCertificateHash", subject(leaf))}
}

// hasName reports whether c is for name, as Envoy matches subject alternative names: DNS names without regard to case,
// a certificate's "*." standing for one label; URIs, e-mail addresses and IP addresses exactly.
func hasName(c *x509.Certificate, name string) bool {
	dns := strings.TrimSuffix(name, ".")
	if slices.ContainsFunc(c.DNSNames, func(san string) bool { return coversDNS(san, dns) }) {
		return true
	}
	for _, u := range c.URIs {
		if u.String() == name {
			return true
		}
	}
	if slices.Contains(c.EmailAddresses, name) {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	if err != nil {
		return false
	}
	for _, san := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(san); ok && a.Unmap() == ip.Unmap() {
			return true
		}
	}
	return false
}

func coversDNS(san, name string) bool {
	if strings.EqualFold(san, name) {
		return name != ""
	}
	suffix, ok := strings.CutPrefix(san, "*")
	if !ok || len(suffix) < 2 || suffix[0] != '.' {
		return false
	}
	dot := strings.IndexByte(name, '.')
	return dot > 0 && name[0] != '*' && strings.EqualFold(name[dot:], suffix)
}

// shown lists c's names for a message, the first few.
func shown(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	names = append(names, c.EmailAddresses...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	switch {
	case len(names) == 0:
		return "no name at all"
	case len(names) > 4:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:4], ", "), len(names)-4)
	}
	return strings.Join(names, ", ")
}

// unrevoked says why none of chains (leaf first) may be believed by the revocation lists. As in Envoy, where there are
// lists at all, each issuer in a chain must have a current one of its own.
func unrevoked(chains [][]*x509.Certificate, crls []*revocations, now time.Time) error {
	if len(crls) == 0 {
		return nil
	}
	err := error(&Error{"revocation_unknown", errors.New("peer's certificate was not verified")})
	for i, chain := range chains {
		e := unrevokedChain(chain, crls, now)
		if e == nil {
			return nil
		}
		if i == 0 {
			err = e
		}
	}
	return err
}

func unrevokedChain(chain []*x509.Certificate, crls []*revocations, now time.Time) error {
	for i := range len(chain) - 1 {
		c, issuer := chain[i], chain[i+1]
		current := false
		for _, r := range crls {
			if !bytes.Equal(r.list.RawIssuer, issuer.RawSubject) || r.list.CheckSignatureFrom(issuer) != nil {
				continue
			}
			if _, gone := r.serials[serial(c.SerialNumber)]; gone {
				return &Error{"revoked", fmt.Errorf("certificate %s (%s) of the peer was revoked", serial(c.SerialNumber), subject(c))}
			}
			current = current || !now.Before(r.list.ThisUpdate) && (r.list.NextUpdate.IsZero() || now.Before(r.list.NextUpdate))
		}
		if !current {
			return &Error{"revocation_unknown", fmt.Errorf("no current revocation list of %q says whether the peer's certificate (%s) was revoked", issuer.Subject.String(), subject(c))}
		}
	}
	return nil
}

// verifyChain verifies a server's certificates without its name, and returns the chains.
func verifyChain(state *tls.ConnectionState, roots *x509.CertPool) ([][]*x509.Certificate, error) {
	certs := state.PeerCertificates
	if len(certs) == 0 {
		return nil, &Error{"no_certificate", errors.New("peer showed no certificate")}
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, c := range certs[1:] {
		o.Intermediates.AddCert(c)
	}
	chains, err := certs[0].Verify(o)
	if err != nil {
		return nil, &tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: err}
	}
	return chains, nil
}
