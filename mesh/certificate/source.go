package certificate

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// use says what a model.Certificate is for, and so what it must hold.
type use uint8

const (
	forPair  use = iota // shown to peers: certificate and key
	forTrust            // verifies peers: roots and, where there are any, revocation lists
)

// maxFile bounds what is read of one file, in bytes. Whole system bundles are a quarter of it.
const maxFile = 1 << 20

// settled is how old a file must be for its time and size to tell that it did not change since it was read. Two writes
// within one tick of the file system's clock cannot be told apart otherwise.
const settled = 2 * time.Second

// sourceKey tells sources apart: a Secret by name and digest or, without a digest, by the material's address.
type sourceKey struct {
	name, cert, key, ca, crl, digest string
	material                         *model.Material
	use                              use
}

func keyOf(c *model.Certificate, u use) sourceKey {
	k := sourceKey{c.Name, c.CertFile, c.KeyFile, c.CAFile, c.CRLFile, c.Digest, c.Material, u}
	if k.digest != "" {
		k.material = nil
	}
	return k
}

// loaded is one version of the material, parsed. It never changes.
type loaded struct {
	hidden
	pair    *tls.Certificate // forPair
	roots   *x509.CertPool   // forTrust
	anchors []*x509.Certificate
	crls    []*revocations
}

// source is one model.Certificate, kept fresh. Files are followed by those who use it: fresh looks at them once in a
// while. There is no goroutine.
type source struct {
	hidden
	certificate model.Certificate
	use         use
	log         *slog.Logger
	every       time.Duration
	born        time.Time
	next        atomic.Int64 // the age at which files are looked at again, in ns
	current     atomic.Pointer[loaded]

	mu        sync.Mutex // of him who reads files; guards what follows
	stamps    [2]os.FileInfo
	hasty     bool // files were too young for stamps to tell
	sum       [sha256.Size]byte
	complaint string // what was last logged about a broken version
}

// load reads the first version, which must be good.
func (s *source) load() error {
	c := &s.certificate
	if c.Material == nil && !s.files() {
		if c.CertFile == "" && c.KeyFile == "" && c.CAFile == "" && c.CRLFile == "" {
			return fmt.Errorf("secret %s: its material is not here: snapshots carry keys only within one process, so give certificate files instead", c.Name)
		}
		if s.use == forTrust {
			return fmt.Errorf("%s has no file of roots: set caCertificates", c.Name)
		}
		return fmt.Errorf("%s needs both a certificate file and a key file: set serverCertificate (or clientCertificate) and privateKey", c.Name)
	}
	if c.Material == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.next.Store(int64(s.every))
		return s.renew()
	}
	l := labels{"its certificate", "its private key", "its roots", "its revocation list"}
	m := c.Material
	if s.use == forTrust && len(m.CA) == 0 {
		return fmt.Errorf("secret %s has no roots to verify peers with: add ca.crt (or cacert), or a Secret %s-cacert", c.Name, c.Name)
	}
	if s.use == forPair && (len(m.Cert) == 0 || len(m.Key) == 0) {
		return fmt.Errorf("secret %s has no key pair: add tls.crt and tls.key (or cert and key)", c.Name)
	}
	v, err := s.parse(m, l)
	if err != nil {
		return fmt.Errorf("secret %s: %w", c.Name, err)
	}
	s.accept(v)
	return nil
}

// files reports whether the material is in files, and all those that its use needs are named.
func (s *source) files() bool {
	c := &s.certificate
	if c.Material != nil {
		return false
	}
	if s.use == forTrust {
		return c.CAFile != ""
	}
	return c.CertFile != "" && c.KeyFile != ""
}

// paths are the files to read; the second may be "".
func (s *source) paths() [2]string {
	if s.use == forTrust {
		return [2]string{s.certificate.CAFile, s.certificate.CRLFile}
	}
	return [2]string{s.certificate.CertFile, s.certificate.KeyFile}
}

// fresh returns the newest good version, and looks at the files first if that is due.
func (s *source) fresh() *loaded {
	if s.certificate.Material == nil {
		s.look()
	}
	return s.current.Load()
}

// look reads the files again if they changed.
func (s *source) look() {
	age := int64(time.Since(s.born))
	if at := s.next.Load(); age < at || !s.next.CompareAndSwap(at, age+int64(s.every)) {
		return // not yet, or another handshake is at it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.renew()
	switch {
	case err == nil:
	case s.hasty: // caught half-written, as it seems: read again before complaining
	case err.Error() != s.complaint:
		s.complaint = err.Error()
		s.log.Error("cannot renew a certificate: the one before stays in use", "certificate", s.certificate.Name, "reason", s.complaint)
	}
}

// renew reads and parses the files unless they are those of the last time. The caller holds mu.
func (s *source) renew() error {
	paths := s.paths()
	var stamps [2]os.FileInfo
	var newest time.Time
	for i, path := range paths {
		if path == "" {
			continue
		}
		info, err := stat(path)
		if err != nil {
			s.stamps, s.hasty = [2]os.FileInfo{}, false
			return err
		}
		stamps[i] = info
		if t := info.ModTime(); t.After(newest) {
			newest = t
		}
	}
	if !s.hasty && same(stamps[0], s.stamps[0]) && same(stamps[1], s.stamps[1]) {
		return nil
	}
	s.stamps, s.hasty = stamps, time.Since(newest).Abs() < settled
	var content [2][]byte
	hash := sha256.New()
	for i, path := range paths {
		if path == "" {
			continue
		}
		var err error
		if content[i], err = read(path); err != nil {
			s.stamps = [2]os.FileInfo{}
			return err
		}
		fmt.Fprintf(hash, "%d ", len(content[i]))
		hash.Write(content[i])
	}
	var sum [sha256.Size]byte
	if hash.Sum(sum[:0]); sum == s.sum {
		s.complaint = ""
		return nil
	}
	m, l := &model.Material{Cert: content[0], Key: content[1]}, labels{cert: paths[0], key: paths[1]}
	if s.use == forTrust {
		m, l = &model.Material{CA: content[0], CRL: content[1]}, labels{ca: paths[0], crl: paths[1]}
	}
	v, err := s.parse(m, l)
	if err != nil {
		return err
	}
	s.sum, s.complaint = sum, ""
	s.accept(v)
	return nil
}

// parse makes a version of what the source's use needs of m.
func (s *source) parse(m *model.Material, l labels) (*loaded, error) {
	v := &loaded{}
	var err error
	if s.use == forPair {
		v.pair, err = readPair(m.Cert, m.Key, l)
		return v, err
	}
	if v.anchors, err = readCertificates(m.CA, l.ca); err != nil {
		return nil, err
	}
	v.roots = x509.NewCertPool()
	for _, a := range v.anchors {
		v.roots.AddCert(a)
	}
	if len(m.CRL) > 0 || l.crl != "" && s.certificate.CRLFile != "" {
		if v.crls, err = readRevocations(m.CRL, l.crl); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// accept makes v the version in use.
func (s *source) accept(v *loaded) {
	old := s.current.Swap(v)
	if old != nil {
		s.log.Info("certificate renewed", "certificate", s.certificate.Name, "expires", v.notAfter())
	}
	if v.pair == nil {
		return
	}
	switch now := time.Now(); {
	case now.After(v.pair.Leaf.NotAfter):
		s.log.Warn("certificate has expired: peers will refuse it", "certificate", s.certificate.Name, "expires", v.notAfter())
	case now.Before(v.pair.Leaf.NotBefore):
		s.log.Warn("certificate is not valid yet: peers will refuse it", "certificate", s.certificate.Name, "begins", v.pair.Leaf.NotBefore)
	}
}

// notAfter is when v can no longer be used: when the first of a chain ends, or the last of the roots.
func (v *loaded) notAfter() time.Time {
	if v.pair == nil {
		var last time.Time
		for _, a := range v.anchors {
			if a.NotAfter.After(last) {
				last = a.NotAfter
			}
		}
		return last
	}
	first := v.pair.Leaf.NotAfter
	for _, der := range v.pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil && c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}

func (s *source) expiries() []Expiry {
	v := s.fresh()
	if s.use == forPair {
		return []Expiry{{s.certificate.Name, Pair, v.notAfter()}}
	}
	all := []Expiry{{s.certificate.Name, Trust, v.notAfter()}}
	var first time.Time
	for _, r := range v.crls {
		if t := r.list.NextUpdate; !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if !first.IsZero() {
		all = append(all, Expiry{s.certificate.Name, CRL, first})
	}
	return all
}

// same reports whether a and b tell of the same content of the same file.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}

// stat describes a file that can be read. Something else there (a pipe would block) is an error.
func stat(path string) (os.FileInfo, error) {
	if strings.Contains(path, "-----BEGIN") || strings.ContainsAny(path, "\n\x00") {
		return nil, errors.New("a certificate setting holds PEM where the path of a file belongs: put the PEM into a file or a Secret")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read a certificate file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot read a certificate file: %s is not a regular file", path)
	}
	return info, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read a certificate file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read a certificate file: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("cannot read a certificate file: %s has more than %d bytes", path, maxFile)
	}
	return data, nil
}
