package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func TestFromSecret(t *testing.T) {
	ca := newAuthority(t, "root")
	id, other := ca.leaf(t, "a.test"), ca.leaf(t, "b.test")
	crl := ca.revoke(t, time.Now().Add(time.Hour))
	der, _ := pem.Decode(id.cert)
	type data = map[string][]byte
	f := func(what string, in data, want *model.Material, message ...string) {
		t.Helper()
		m, err := FromSecret(in)
		if want != nil {
			if err != nil || !bytes.Equal(m.Cert, want.Cert) || !bytes.Equal(m.Key, want.Key) || !bytes.Equal(m.CA, want.CA) || !bytes.Equal(m.CRL, want.CRL) {
				t.Errorf("%s: another material, %v", what, err)
			}
			return
		}
		if err == nil {
			t.Errorf("%s: no error", what)
			return
		}
		for _, part := range message {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: no %q in %q", what, part, err)
			}
		}
		holdsNoKey(t, what, err.Error(), id, other)
	}
	pair := &model.Material{Cert: id.cert, Key: id.key}
	all := &model.Material{Cert: id.cert, Key: id.key, CA: ca.pem, CRL: crl}
	f("kubernetes.io/tls", data{"tls.crt": id.cert, "tls.key": id.key}, pair)
	f("kubernetes.io/tls with roots", data{"tls.crt": id.cert, "tls.key": id.key, "ca.crt": ca.pem, "ca.crl": crl}, all)
	f("generic", data{"cert": id.cert, "key": id.key, "cacert": ca.pem, "crl": crl}, all)
	f("cert-manager's empty roots", data{"tls.crt": id.cert, "tls.key": id.key, "ca.crt": nil}, pair)
	f("mixed", data{"tls.crt": id.cert, "tls.key": id.key, "cacert": ca.pem, "ca.crl": crl}, all)
	f("both: generic wins", data{"cert": id.cert, "key": id.key, "tls.crt": other.cert, "tls.key": other.key}, pair)
	f("-cacert", data{"cacert": ca.pem}, &model.Material{CA: ca.pem})
	f("-cacert, kubernetes.io/tls", data{"ca.crt": ca.pem, "tls.crt": nil, "tls.key": nil}, &model.Material{CA: ca.pem})
	f("other keys beside", data{"tls.crt": id.cert, "tls.key": id.key, "keystore.p12": {1}, "tls.ocsp-staple": {2}}, pair)
	f("text around", data{"tls.crt": append([]byte("subject: a\r\n"), id.cert...), "tls.key": id.key}, &model.Material{Cert: append([]byte("subject: a\r\n"), id.cert...), Key: id.key})

	f("nothing", nil, nil, "neither tls.crt and tls.key, nor cert and key, nor roots under ca.crt or cacert", "none")
	f("something else", data{"password": []byte("hunter2"), "user": []byte("x")}, nil, "its keys: password, user")
	f("no key", data{"tls.crt": id.cert}, nil, "has tls.crt but no tls.key")
	f("no certificate", data{"key": id.key}, nil, "has key but no cert")
	f("no key beside roots", data{"cert": id.cert, "cacert": ca.pem}, nil, "has cert but no key")
	f("empty", data{"tls.crt": nil, "tls.key": nil}, nil, "tls.crt is empty")
	f("empty key", data{"tls.crt": id.cert, "tls.key": {}}, nil, "tls.key is empty")
	f("another's key", data{"tls.crt": id.cert, "tls.key": other.key}, nil, "tls.key does not belong to the certificate in tls.crt (a.test)")
	f("swapped", data{"tls.crt": id.key, "tls.key": id.cert}, nil, "tls.crt holds a private key where a certificate belongs")
	f("certificate twice", data{"tls.crt": id.cert, "tls.key": id.cert}, nil, "tls.key holds a certificate where a private key belongs")
	f("root first", data{"tls.crt": append(ca.pem[:len(ca.pem):len(ca.pem)], id.cert...), "tls.key": id.key}, nil, "tls.crt: certificate 2 is the one that tls.key belongs to: put it first")
	f("not PEM", data{"tls.crt": []byte("hello"), "tls.key": id.key}, nil, "tls.crt is not PEM")
	f("base64 twice", data{"tls.crt": []byte("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"), "tls.key": id.key}, nil, "tls.crt is not PEM")
	f("DER", data{"tls.crt": der.Bytes, "tls.key": id.key}, nil, "tls.crt is DER: convert it")
	f("cut short", data{"tls.crt": id.cert[:len(id.cert)-30], "tls.key": id.key}, nil, "tls.crt: 1 of its 1 PEM blocks are damaged")
	f("roots cut short", data{"ca.crt": append(ca.pem[:len(ca.pem):len(ca.pem)], ca.pem[:99]...)}, nil, "ca.crt: 1 of its 2 PEM blocks are damaged")
	f("key cut short", data{"tls.crt": id.cert, "tls.key": id.key[:len(id.key)-40]}, nil, "tls.key: 1 of its 1 PEM blocks")
	f("certificate of junk", data{"tls.crt": block("CERTIFICATE", []byte("junk")), "tls.key": id.key}, nil, "tls.crt: PEM block 1 is not a certificate")
	f("key of junk", data{"tls.crt": id.cert, "tls.key": block("PRIVATE KEY", []byte("junk"))}, nil, "tls.key is no private key that can be read")
	f("another block", data{"tls.crt": block("X509 CRL", nil), "tls.key": id.key}, nil, "tls.crt holds no certificate")
	f("public key", data{"tls.crt": id.cert, "tls.key": block("PUBLIC KEY", []byte("x"))}, nil, "tls.key holds no private key")
	f("encrypted", data{"tls.crt": id.cert, "tls.key": block("ENCRYPTED PRIVATE KEY", []byte("x"))}, nil, "tls.key is encrypted", "openssl pkey")
	f("encrypted of old", data{"tls.crt": id.cert, "tls.key": pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("x"),
	})}, nil, "tls.key is encrypted")
	f("roots of junk", data{"cacert": []byte("junk")}, nil, "cacert is not PEM")
	f("list of junk", data{"ca.crt": ca.pem, "ca.crl": block("X509 CRL", []byte("junk"))}, nil, "ca.crl: PEM block 1 is not a revocation list")
	f("no list", data{"ca.crt": ca.pem, "ca.crl": ca.pem}, nil, "ca.crl holds no revocation list")
}

func TestKinds(t *testing.T) {
	ca := newAuthority(t, "root")
	ec := ecKey(t).(*ecdsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, cert, key []byte, message string) {
		t.Helper()
		_, err := FromSecret(map[string][]byte{"tls.crt": cert, "tls.key": key})
		if message == "" && err != nil || message != "" && (err == nil || !strings.Contains(err.Error(), message)) {
			t.Errorf("%s: %v, want %q", what, err, message)
		}
	}
	i := ca.issue(t, ec, "a", nil)
	f("SEC 1", i.cert, block("EC PRIVATE KEY", sec1), "")
	f("SEC 1 with parameters", i.cert, append(block("EC PARAMETERS", []byte{6, 0}), block("EC PRIVATE KEY", sec1)...), "")
	r := ca.issue(t, rsaKey(), "a", nil)
	f("PKCS#1", r.cert, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey().(*rsa.PrivateKey))), "")
	f("RSA, PKCS#8", r.cert, r.key, "")
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e := ca.issue(t, ed, "a", nil)
	f("Ed25519", e.cert, e.key, "")
	f("another algorithm", i.cert, e.key, "does not belong")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	w := ca.issue(t, weak, "a", nil)
	f("weak RSA", w.cert, w.key, "RSA key of 1024 bits: use 2048 to 8192")
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := ca.issue(t, p224, "a", nil)
	f("P-224", p.cert, p.key, "curve P-224")
}

// TestFromSecretAgreesWithOpenSSL feeds what users' tools write.
func TestFromSecretAgreesWithOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	f := func(message string, args ...string) {
		t.Helper()
		dir := t.TempDir()
		args = append([]string{"req", "-x509", "-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=a", "-days", "1"}, args...)
		cmd := exec.Command(openssl, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		data := map[string][]byte{}
		for _, name := range []string{"tls.crt", "tls.key"} {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			data[name] = content
		}
		_, err := FromSecret(data)
		if message == "" && err != nil || message != "" && (err == nil || !strings.Contains(err.Error(), message)) {
			t.Errorf("%v: %v, want %q", args, err, message)
		}
	}
	f("", "-newkey", "rsa:2048", "-nodes")
	f("", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes")
	f("", "-newkey", "ed25519", "-nodes")
	f("is encrypted", "-newkey", "rsa:2048", "-passout", "pass:secret")
}

func FuzzFromSecret(f *testing.F) {
	ca := newAuthority(f, "root")
	id := ca.leaf(f, "a.test")
	crl := ca.revoke(f, time.Now().Add(time.Hour))
	f.Add(id.cert, id.key, ca.pem, crl)
	f.Add(id.key, id.cert, crl, ca.pem)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"), []byte(nil), []byte(nil))
	f.Add([]byte("0\x82"), []byte("x"), []byte("-----BEGIN "), []byte("-----BEGIN X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, cert, key, ca, crl []byte) {
		for _, s := range spellings {
			m, err := FromSecret(map[string][]byte{s.cert: cert, s.key: key, s.ca: ca, s.crl: crl})
			if err != nil {
				if len(key) > 64 && strings.Contains(err.Error(), string(key[32:64])) {
					t.Errorf("the error holds the key: %v", err)
				}
				continue
			}
			if m.Cert != nil { // what was taken serves
				c := model.ServerTLS{Names: []string{"*"}, Mode: model.SimpleTLS, Certificates: []model.Certificate{{Name: "a", Material: m}}}
				if _, err := NewServer([]model.ServerTLS{c}, nil, silent); err != nil {
					t.Errorf("taken, but cannot be served: %v", err)
				}
			}
			if m.CA != nil {
				if _, err := NewClient(&model.ClientTLS{Mode: model.SimpleTLS, Trust: &model.Certificate{Name: "a", Material: m}}, nil, silent); err != nil {
					t.Errorf("taken, but cannot be trusted: %v", err)
				}
			}
		}
	})
}
