package compile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// materials are the key pairs of this run of the tests, by name: no key is ever written down.
var materials = struct {
	sync.Mutex
	of map[string][2][]byte
}{of: map[string][2][]byte{}}

// material returns a certificate and its key, in PEM.
func material(tb testing.TB, name string) (cert, private []byte) {
	tb.Helper()
	materials.Lock()
	defer materials.Unlock()
	if m, ok := materials.of[name]; ok {
		return m[0], m[1]
	}
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(materials.of) + 1)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, pair.Public(), pair)
	if err != nil {
		tb.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		tb.Fatal(err)
	}
	m := [2][]byte{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})}
	materials.of[name] = m
	return m[0], m[1]
}

var placeholder = regexp.MustCompile(`\$(CERT|KEY|PEM)_([a-z0-9]+)`)

// withMaterial puts material into a transcript's input: $CERT_name and $KEY_name in base64, $PEM_name a certificate in quotes.
func withMaterial(tb testing.TB, text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(s string) string {
		parts := placeholder.FindStringSubmatch(s)
		cert, private := material(tb, parts[2])
		switch parts[1] {
		case "CERT":
			return base64.StdEncoding.EncodeToString(cert)
		case "KEY":
			return base64.StdEncoding.EncodeToString(private)
		}
		quoted, err := json.Marshal(string(cert))
		if err != nil {
			tb.Fatal(err)
		}
		return string(quoted)
	})
}

const secretGateway = `
apiVersion: v1
kind: Secret
metadata: {name: web}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: web}}
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: far}
spec:
  host: far
  workloadSelector: {matchLabels: {app: local}}
  trafficPolicy: {tls: {mode: MUTUAL, credentialName: web, insecureSkipVerify: true}}
`

// TestRenewal renews a Secret: the snapshots that use it have another version, and the new material; no key is in their JSON,
// nor in anything that prints them.
func TestRenewal(t *testing.T) {
	cut := func(name string) (gateway, client *model.Snapshot) {
		text := withMaterial(t, fmt.Sprintf(secretGateway, "$CERT_"+name, "$KEY_"+name))
		m, findings := New(objectsOf(t, map[string]string{"a.yaml": text}), Options{})
		if len(findings) > 0 {
			t.Fatal(findings)
		}
		p := place(m)
		gateway, err := m.ForGateway(p, "istio-system", "istio-ingressgateway")
		if err != nil {
			t.Fatal(err)
		}
		client, err = m.For(p, "default", "local", "")
		if err != nil {
			t.Fatal(err)
		}
		return gateway, client
	}
	gateway, client := cut("first")
	again, clientAgain := cut("first")
	if gateway.Version != again.Version || client.Version != clientAgain.Version {
		t.Error("equal Secrets give different versions")
	}
	renewed, clientRenewed := cut("second")
	if gateway.Version == renewed.Version || client.Version == clientRenewed.Version {
		t.Error("a renewed Secret leaves the version as it was")
	}
	cert, private := material(t, "second")
	shown := renewed.Listeners[0].TLS[0].Certificates[0]
	if string(shown.Material.Cert) != string(cert) || string(shown.Material.Key) != string(private) {
		t.Error("the material is not the Secret's")
	}
	i := slices.IndexFunc(clientRenewed.Clusters, func(c model.Cluster) bool { return c.TLS != nil })
	if i < 0 || string(clientRenewed.Clusters[i].TLS.Certificate.Material.Key) != string(private) {
		t.Fatal("the client's cluster has not the Secret's key")
	}
	body := strings.Split(string(private), "\n")[1]
	for _, s := range []*model.Snapshot{renewed, clientRenewed} {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		for how, text := range map[string]string{"JSON": string(b), "%v": fmt.Sprintf("%v", s), "%+v": fmt.Sprintf("%+v", *s), "%#v": fmt.Sprintf("%#v", s.Listeners)} {
			if strings.Contains(text, body) || strings.Contains(text, "PRIVATE KEY") {
				t.Errorf("%s shows the key", how)
			}
		}
	}
}

// TestBrokenSecrets looks for values in what is said of Secrets that cannot be used.
func TestBrokenSecrets(t *testing.T) {
	const value = "hunter2hunter2"
	encoded := base64.StdEncoding.EncodeToString([]byte(value))
	_, other := material(t, "other")
	for _, pair := range [][2]string{
		{encoded, encoded}, {"$CERT_first", encoded}, {encoded, "$KEY_first"}, {"$CERT_first", "$KEY_other"}, {"$KEY_first", "$CERT_first"}, {`""`, `""`},
	} {
		objects := objectsOf(t, map[string]string{"a.yaml": withMaterial(t, fmt.Sprintf(secretGateway, pair[0], pair[1]))})
		m, findings := New(objects, Options{})
		if !slices.ContainsFunc(findings, func(f config.Finding) bool { return f.Code == "IST0161" && f.Kind == "Gateway" }) {
			t.Errorf("%v: findings are %v", pair, findings)
		}
		body := strings.Split(string(other), "\n")[1]
		if said := fmt.Sprint(findings); strings.Contains(said, value) || strings.Contains(said, encoded) || strings.Contains(said, body) || strings.Contains(said, "-----BEGIN PRIVATE") && strings.Contains(said, "MIG") {
			t.Errorf("a value is told: %s", said)
		}
		s, err := m.ForGateway(place(m), "istio-system", "istio-ingressgateway")
		if err != nil || len(s.Listeners) != 0 {
			t.Errorf("%v: listeners %v, error %v", pair, s, err)
		}
	}
}

// runnable reports the first TLS of a snapshot that no proxy could set up. What is in files is the proxy's to find.
func runnable(s *model.Snapshot) error {
	files := func(all ...*model.Certificate) bool {
		return slices.ContainsFunc(all, func(c *model.Certificate) bool { return c != nil && c.Material == nil })
	}
	for i := range s.Listeners {
		l := &s.Listeners[i]
		var chains []model.ServerTLS
		for _, t := range l.TLS {
			own := []*model.Certificate{t.Trust}
			for j := range t.Certificates {
				own = append(own, &t.Certificates[j])
			}
			if !files(own...) {
				chains = append(chains, t)
			}
		}
		if _, err := certificate.NewServer(chains, nil, slog.New(slog.DiscardHandler)); err != nil {
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
	}
	for i := range s.Clusters {
		c := &s.Clusters[i]
		if c.TLS == nil || files(c.TLS.Trust, c.TLS.Certificate) {
			continue
		}
		if _, err := certificate.NewClient(c.TLS, nil, slog.New(slog.DiscardHandler)); err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
	}
	return nil
}
