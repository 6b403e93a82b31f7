package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"encoding/xml"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// secure is the listener that opens TLS.
const secure = "secure"

// withTLS adds a gateway's listener with a certificate of its own making, for every name.
func withTLS(t *testing.T) func(s *model.Snapshot) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"}, DNSNames: []string{"app"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return func(s *model.Snapshot) {
		s.Listeners = append(s.Listeners, model.Listener{
			Name: secure, Direction: model.Gateway, Address: "127.0.0.1:0", Port: 443, Protocol: model.HTTPS,
			TLS: []model.ServerTLS{{
				Names: []string{"*"}, Mode: model.SimpleTLS, Protocol: model.HTTP, Table: "all",
				Certificates: []model.Certificate{{Name: "default/app", Material: &model.Material{
					Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
					Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
				}}},
			}},
		})
	}
}

// h2spec finds the program, or skips the test.
func h2spec(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("h2spec"); err == nil {
		return path
	}
	root := os.Getenv("GOPATH")
	if root == "" {
		if home, err := os.UserHomeDir(); err == nil {
			root = filepath.Join(home, "go")
		}
	}
	path := filepath.Join(root, "bin", "h2spec")
	if _, err := os.Stat(path); err != nil {
		t.Skip("h2spec is neither on PATH nor in GOPATH/bin: go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible")
	}
	return path
}

// TestH2spec runs all cases of h2spec, strictly, against a sidecar in the clear and a gateway with TLS.
func TestH2spec(t *testing.T) {
	program := h2spec(t)
	for _, protocol := range []model.Protocol{model.HTTP, model.HTTP2} {
		b := newBackend(t)
		if protocol == model.HTTP2 {
			b = newBackend2(t)
		}
		b.size = 300
		m := start(t, b.address(), setting{protocol: protocol, edit: withTLS(t)})
		for _, at := range []string{inbound, secure} {
			t.Run(at+" before "+string(protocol), func(t *testing.T) {
				t.Parallel()
				if at == secure {
					spec(t, program, m.Address(at), "", "-t", "-k")
					return
				}
				// In the clear, who does not begin with the preface is no client of HTTP/2, but a bad one of HTTP/1.1: it
				// gets a 400 that it can read, and a close. h2spec takes the 400 for frames.
				spec(t, program, m.Address(at), "Sends invalid connection preface")
			})
		}
	}
}

// spec runs h2spec and wants every case to pass but the excepted one, which must fail.
func spec(t *testing.T, program, address, excepted string, flags ...string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	report := filepath.Join(t.TempDir(), "report.xml")
	out, err := exec.Command(program, append(flags, "-h", host, "-p", port, "--strict", "-o", "5", "-j", report)...).CombinedOutput()
	content, rerr := os.ReadFile(report)
	if rerr != nil {
		t.Fatalf("h2spec left no report: %v, %v\n%s", rerr, err, out)
	}
	type mark struct {
		Text string `xml:",chardata"`
	}
	var r struct {
		Suites []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string `xml:"classname,attr"`
				Failure *mark  `xml:"failure"`
				Error   *mark  `xml:"error"`
				Skipped *mark  `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	cases, exceptions := 0, 0
	for _, s := range r.Suites {
		for _, c := range s.Cases {
			cases++
			switch {
			case c.Failure == nil && c.Error == nil && c.Skipped == nil:
			case c.Name == excepted && c.Skipped == nil:
				exceptions++
			default:
				t.Errorf("%s: %s: %+v %+v %+v", s.Name, c.Name, c.Failure, c.Error, c.Skipped)
			}
		}
	}
	if cases < 146 || exceptions != min(1, len(excepted)) {
		t.Errorf("%d cases, %d exceptions: %v\n%s", cases, exceptions, err, out)
	}
}
