package telemetry

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/outrider-mesh/outrider/mesh/certificate"
)

func TestConnections(t *testing.T) {
	m := New(productpage, Options{})
	for _, name := range []string{"outrider_abuse_total", "outrider_tls_handshakes_total", "outrider_protocol_detected_total"} {
		for _, s := range gather(t, m, name).Metric {
			if s.Counter.GetValue() != 0 {
				t.Errorf("%s does not begin at 0", name)
			}
		}
	}
	value := func(name, label string) float64 {
		t.Helper()
		for _, s := range gather(t, m, name).Metric {
			values := []string{}
			for _, l := range s.Label {
				values = append(values, l.GetValue())
			}
			if strings.Join(values, " ") == label {
				return s.Counter.GetValue()
			}
		}
		t.Errorf("%s has no %q", name, label)
		return -1
	}
	for l := range limitEnd {
		for range int(l) + 1 {
			m.Abuse(l)
		}
	}
	var codec atomic.Uint64
	codec.Store(5)
	m.CountAbuse(PingFlood, &codec)
	if v := value("outrider_abuse_total", "ping"); v != float64(PingFlood)+6 {
		t.Errorf("with a codec's own count: %v", v)
	}
	codec.Store(0)
	for l := range limitEnd {
		if v := value("outrider_abuse_total", l.String()); v != float64(l)+1 {
			t.Errorf("%s: %v", l, v)
		}
	}
	m.Handshake(ServerSide, HandshakeNoCertificate)
	m.Handshake(ClientSide, HandshakeOK)
	if value("outrider_tls_handshakes_total", "no_certificate server") != 1 || value("outrider_tls_handshakes_total", "ok client") != 1 ||
		value("outrider_tls_handshakes_total", "ok server") != 0 {
		t.Error("handshakes are counted under other labels")
	}
	for p := range protocolEnd {
		m.Detected(p)
		if value("outrider_protocol_detected_total", p.String()) != 1 {
			t.Errorf("%s is not counted", p)
		}
	}
	for _, names := range [][]string{limitNames[:], handshakeNames[:], protocolNames[:], sideNames[:]} {
		if slices.Contains(names, "") || len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
			t.Errorf("%q: a name is missing or there twice", names)
		}
	}
	run := func() { m.Abuse(SlowHead); m.Handshake(ServerSide, HandshakeOK); m.Detected(DetectedTCP) }
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("counting allocates %v times", n)
	}
}

func TestCertificates(t *testing.T) {
	m := New(productpage, Options{})
	want := func(lines string) {
		t.Helper()
		if lines != "" {
			lines = "# HELP outrider_certificate_expiry_timestamp_seconds When a certificate, trust bundle or revocation list in use ends, in seconds since 1970.\n" +
				"# TYPE outrider_certificate_expiry_timestamp_seconds gauge\n" + lines
		}
		if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(lines), "outrider_certificate_expiry_timestamp_seconds"); err != nil {
			t.Error(err)
		}
	}
	want("")
	own := certificate.Expiry{Name: "workload", Kind: certificate.Pair, NotAfter: time.Unix(1000, 0)}
	gone := m.Certificates(func() []certificate.Expiry { return []certificate.Expiry{own} })
	web := func(notAfter int64) func() []certificate.Expiry {
		return func() []certificate.Expiry {
			return []certificate.Expiry{
				{Name: "istio-system/web", Kind: certificate.Pair, NotAfter: time.Unix(notAfter, 0)},
				{Name: "istio-system/web", Kind: certificate.Trust, NotAfter: time.Unix(9000, 0)},
			}
		}
	}
	old, next := m.Certificates(web(2000)), m.Certificates(web(3000)) // the next generation has a newer Secret
	own.NotAfter = time.Unix(1700000000, 0)
	all := `outrider_certificate_expiry_timestamp_seconds{kind="certificate",name="istio-system/web"} 3000
outrider_certificate_expiry_timestamp_seconds{kind="certificate",name="workload"} 1.7e+09
outrider_certificate_expiry_timestamp_seconds{kind="trust",name="istio-system/web"} 9000
`
	want(all)
	old()
	want(all)
	gone()
	next()
	want("")
	next()
}
