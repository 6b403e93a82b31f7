package telemetry

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/outrider-mesh/outrider/mesh/certificate"
)

// Limit is a bound against abuse of the protocols: outrider_abuse_total's label.
type Limit uint8

// The limits whose acting is counted.
const (
	RapidReset    Limit = iota // streams opened and reset at once (CVE-2023-44487)
	Continuation               // header blocks without an end (CVE-2024-27316)
	SettingsFlood              // SETTINGS frames (CVE-2019-9515)
	PingFlood                  // PING frames (CVE-2019-9512)
	EmptyFrames                // frames that carry nothing (CVE-2019-9518)
	WindowFlood                // WINDOW_UPDATE frames
	PriorityFlood              // PRIORITY frames (CVE-2019-9513)
	InterimFlood               // interim responses
	Unread                     // answers to frames that the peer does not read (CVE-2019-9511, CVE-2019-9517)
	HeadSize                   // heads, fields or targets that are too long, also once decoded (HPACK bombs), or too many fields
	Streams                    // more streams at a time than were granted
	SlowHandshake              // a TLS handshake or a connection's first bytes that do not come
	SlowHead                   // a head that does not come to its end
	SlowBody                   // a body that does not go on
	SlowRead                   // an answer that is read too slowly
	limitEnd
)

var limitNames = [limitEnd]string{
	"rapid_reset", "continuation", "settings", "ping", "empty_frames", "window_update", "priority", "interim", "unread",
	"head_size", "streams", "slow_handshake", "slow_head", "slow_body", "slow_read",
}

// String returns the label's value.
func (l Limit) String() string { return limitNames[l] }

// Side is what a sidecar is in a TLS handshake.
type Side uint8

// The sides of a handshake.
const (
	ServerSide Side = iota // it was connected to
	ClientSide             // it connected
	sideEnd
)

var sideNames = [sideEnd]string{"server", "client"}

// String returns the label's value.
func (s Side) String() string { return sideNames[s] }

// Handshake is how a TLS handshake ended.
type Handshake uint8

// The ends of a handshake; all but the first are failures, of this side's checks or by the other's word (an alert).
const (
	HandshakeOK            Handshake = iota
	HandshakeExpired                 // a certificate that is over, or not yet valid
	HandshakeUnknownCA               // no trusted authority signed the certificate
	HandshakeNameMismatch            // the certificate is another's, or nobody here has the name that was asked for
	HandshakeRevoked                 // the certificate was called back
	HandshakeNoCertificate           // one was asked for and none shown
	HandshakeProtocol                // no common version, cipher or application protocol, or no TLS at all
	HandshakeOther                   // anything else: the connection went away, took too long, ...
	handshakeEnd
)

var handshakeNames = [handshakeEnd]string{
	"ok", "expired", "unknown_ca", "name_mismatch", "revoked", "no_certificate", "protocol", "other",
}

// String returns the label's value.
func (h Handshake) String() string { return handshakeNames[h] }

// HandshakeOf sorts what certificate.Reason says, which is finer and for logs.
func HandshakeOf(reason string) Handshake {
	switch strings.TrimPrefix(reason, "peer_") {
	case "":
		return HandshakeOK
	case "expired", "not_yet_valid":
		return HandshakeExpired
	case "unknown_ca":
		return HandshakeUnknownCA
	case "name_mismatch", "pin_mismatch", "unknown_server_name":
		return HandshakeNameMismatch
	case "revoked":
		return HandshakeRevoked
	case "no_certificate":
		return HandshakeNoCertificate
	case "version", "cipher", "alpn", "not_tls":
		return HandshakeProtocol
	}
	return HandshakeOther
}

// Protocol is what was found to be spoken on a port that declares none.
type Protocol uint8

// The protocols that are told apart.
const (
	DetectedHTTP1 Protocol = iota
	DetectedHTTP2
	DetectedTLS
	DetectedTCP    // something else: passed on unread
	DetectedSilent // nothing came in the time that detection takes, as where the server speaks first: passed on unread
	protocolEnd
)

var protocolNames = [protocolEnd]string{"http1", "http2", "tls", "tcp", "silent"}

// String returns the label's value.
func (p Protocol) String() string { return protocolNames[p] }

// connections are the counters of what befalls connections, all resolved: counting is an index and an addition.
type connections struct {
	abuse      [limitEnd]atomic.Uint64
	codecs     [limitEnd][]*atomic.Uint64 // what others count of the same; guarded by Metrics.mu
	handshakes [sideEnd][handshakeEnd]atomic.Uint64
	protocols  [protocolEnd]atomic.Uint64

	certificates []*certificateSource // in the order of their coming; guarded by Metrics.mu
}

type certificateSource struct{ read func() []certificate.Expiry }

// Abuse counts that a limit acted: a connection, stream or request was ended for it.
func (m *Metrics) Abuse(l Limit) { m.connections.abuse[l].Add(1) }

// CountAbuse adds a counter that a codec keeps of a limit to those that Abuse counts, for as long as m lives.
func (m *Metrics) CountAbuse(l Limit, n *atomic.Uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connections.codecs[l] = append(m.connections.codecs[l], n)
}

// Handshake counts a TLS handshake.
func (m *Metrics) Handshake(s Side, h Handshake) { m.connections.handshakes[s][h].Add(1) }

// Detected counts a connection whose protocol had to be found out.
func (m *Metrics) Detected(p Protocol) { m.connections.protocols[p].Add(1) }

// Certificates shows when certificates end that are in use, as read tells at each scrape, until stop is called. Where
// two of them tell of one name and kind, as while a generation drains, the one that came last is right.
func (m *Metrics) Certificates(read func() []certificate.Expiry) (stop func()) {
	s := &certificateSource{read}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connections.certificates = append(m.connections.certificates, s)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.connections.certificates = slices.DeleteFunc(m.connections.certificates, func(o *certificateSource) bool { return o == s })
	}
}

var (
	abuseNames       = []string{"limit"}
	handshakeLabels  = []string{"side", "result"}
	protocolLabels   = []string{"protocol"}
	certificateNames = []string{"name", "kind"}
)

// collectConnections gives each counter, from 0 so that a rate sees its first count.
func (m *Metrics) collectConnections(c chan<- prometheus.Metric) {
	f, born := &m.families, created(m.born)
	m.mu.Lock()
	abuse := [limitEnd]uint64{}
	for l := range limitEnd {
		abuse[l] = m.connections.abuse[l].Load()
		for _, n := range m.connections.codecs[l] {
			abuse[l] += n.Load()
		}
	}
	sources := slices.Clone(m.connections.certificates)
	m.mu.Unlock()

	send := func(f *family, v uint64, values ...string) {
		c <- f.counter(f.sorted(pairs(f.names, values), nil), born, v)
	}
	for l, n := range abuse {
		send(f.abuse, n, limitNames[l])
	}
	for s := range m.connections.handshakes {
		for h := range m.connections.handshakes[s] {
			send(f.handshakes, m.connections.handshakes[s][h].Load(), sideNames[s], handshakeNames[h])
		}
	}
	for p := range m.connections.protocols {
		send(f.protocols, m.connections.protocols[p].Load(), protocolNames[p])
	}

	ends := map[[2]string]float64{}
	for _, s := range sources {
		for _, e := range s.read() {
			ends[[2]string{strings.ToValidUTF8(e.Name, "?"), e.Kind}] = float64(e.NotAfter.Unix())
		}
	}
	for values, seconds := range ends {
		labels := f.expiry.sorted(pairs(certificateNames, values[:]), nil)
		c <- &sample{desc: f.expiry.desc, labels: labels, gauge: &dto.Gauge{Value: &seconds}}
	}
}
