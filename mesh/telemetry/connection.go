package telemetry

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limit is a bound against abuse of the protocols: outrider_abuse_total's label.
type Limit uint8

// The limits whose acting is counted.
const (
	RapidReset    Limit = iota // streams opened and reset at once (CVE-2023-44487)
	Continuation               // CONTINUATION frames without an end (CVE-2024-24549 and its like)
	SettingsFlood              // SETTINGS frames (CVE-2019-9515)
	PingFlood                  // PING frames (CVE-2019-9512)
	EmptyFrames                // frames that carry nothing (CVE-2019-9518)
	WindowFlood                // WINDOW_UPDATE frames (CVE-2019-9511)
	PriorityFlood              // PRIORITY frames (CVE-2019-9513)
	OutputQueue                // answers that the peer does not read (CVE-2019-9517)
	HPACKBomb                  // field sections that grow when decoded
	HeadSize                   // heads, fields or targets that are too long, or too many fields
	Streams                    // more streams at a time than were granted
	SlowHandshake              // a TLS handshake or a connection's first bytes that do not come
	SlowHead                   // a head that does not come to its end
	SlowBody                   // a body that does not go on
	SlowRead                   // an answer that is read too slowly
	limitEnd
)

var limitNames = [limitEnd]string{
	"rapid_reset", "continuation", "settings", "ping", "empty_frames", "window_update", "priority", "output_queue",
	"hpack", "head_size", "streams", "slow_handshake", "slow_head", "slow_body", "slow_read",
}

// String returns the label's value.
func (l Limit) String() string { return limitNames[l] }

// Protocol is what was found to be spoken on a port that declares none.
type Protocol uint8

// The protocols that are told apart.
const (
	DetectedHTTP1 Protocol = iota
	DetectedHTTP2
	DetectedTLS
	DetectedTCP    // something else, or the server speaks first: passed on unread
	DetectedSilent // nothing came in the time that detection takes: passed on unread
	protocolEnd
)

var protocolNames = [protocolEnd]string{"http1", "http2", "tls", "tcp", "silent"}

// String returns the label's value.
func (p Protocol) String() string { return protocolNames[p] }

// connections are the counters of what befalls connections, all resolved: counting is an index and an addition.
type connections struct {
	abuse      [limitEnd]prometheus.Counter
	handshakes [sideEnd][handshakeEnd]prometheus.Counter
	protocols  [protocolEnd]prometheus.Counter
}

// register makes the counters, from 0 so that a rate sees their first count.
func (c *connections) register(r prometheus.Registerer) {
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	abuse := vector("outrider_abuse_total", "Times that a limit against abuse of a protocol acted.", "limit")
	for l := range limitEnd {
		c.abuse[l] = abuse.WithLabelValues(l.String())
	}
	handshakes := vector("outrider_tls_handshakes_total", "TLS handshakes, by what the sidecar was in them and how they ended.", "side", "result")
	for s := range sideEnd {
		for h := range handshakeEnd {
			c.handshakes[s][h] = handshakes.WithLabelValues(s.String(), h.String())
		}
	}
	protocols := vector("outrider_protocol_detected_total", "Connections to ports of no declared protocol, by what they spoke.", "protocol")
	for p := range protocolEnd {
		c.protocols[p] = protocols.WithLabelValues(p.String())
	}
}

// Abuse counts that a limit acted: a connection or stream was ended for it.
func (m *Metrics) Abuse(l Limit) { m.connections.abuse[l].Inc() }

// Handshake counts a TLS handshake.
func (m *Metrics) Handshake(s Side, h Handshake) { m.connections.handshakes[s][h].Inc() }

// Detected counts a connection whose protocol had to be found out.
func (m *Metrics) Detected(p Protocol) { m.connections.protocols[p].Inc() }

var certificateNames = []string{"name"}

// Certificate tells when a certificate in use ends.
type Certificate struct {
	name   string
	users  int          // guarded by m.mu
	expiry atomic.Int64 // Unix time in seconds
}

// Certificate shows the end of a certificate under the name that the configuration has for it. Whoever calls it must call
// ReleaseCertificate when done; one name is one handle, and the end last told is shown.
func (m *Metrics) Certificate(name string, notAfter time.Time) *Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.certificates[name]
	if !ok {
		c = &Certificate{name: name}
		m.certificates[name] = c
	}
	c.users++
	c.Renew(notAfter)
	return c
}

// Renew tells that the certificate was replaced by one that ends then.
func (c *Certificate) Renew(notAfter time.Time) { c.expiry.Store(notAfter.Unix()) }

// ReleaseCertificate takes the certificate's series away at once where nobody else holds it.
func (m *Metrics) ReleaseCertificate(c *Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.users == 0 {
		panic("telemetry: a certificate is released more often than it was taken")
	}
	c.users--
	if c.users == 0 {
		delete(m.certificates, c.name)
	}
}
