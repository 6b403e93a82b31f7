package telemetry

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Bounds of the header that sidecars tell each other their workloads with (x-outrider-peer).
const (
	maxPeerHeader = 2048 // bytes, escapes included
	maxPeerField  = 253  // bytes; the longest name that Kubernetes allows
	maxPeerFields = 16   // 8 today; a later version may append more, which this one skips
)

// AppendPeer appends what ParsePeer reads to dst; nothing for the zero Peer.
//
// The value is the fields of model.Peer in their order with ";" between them and empty ones at the end left out. Bytes
// other than letters, digits and -._/: are written as %XX. Fields are cut at 253 bytes.
func AppendPeer(dst []byte, p model.Peer) []byte {
	start, end := len(dst), len(dst)
	for i, f := range peerFields(&p) {
		if i > 0 {
			dst = append(dst, ';')
		}
		dst = appendEscaped(dst, clip(*f))
		if *f != "" {
			end = len(dst)
		}
	}
	if len(dst)-start > maxPeerHeader {
		return dst[:start]
	}
	return dst[:end]
}

// ParsePeer reads what AppendPeer wrote. It refuses what is empty, longer than 2048 bytes, has more than 16 fields or one
// over 253 bytes, or is not UTF-8 once unescaped.
func ParsePeer(b []byte) (model.Peer, bool) {
	var p model.Peer
	if len(b) == 0 || len(b) > maxPeerHeader || bytes.Count(b, []byte{';'}) >= maxPeerFields {
		return p, false
	}
	var scratch [maxPeerField + 1]byte
	for _, f := range peerFields(&p) {
		field, rest, more := bytes.Cut(b, []byte{';'})
		text, ok := unescape(scratch[:0], field)
		if !ok {
			return model.Peer{}, false
		}
		*f = string(text)
		if !more {
			break
		}
		b = rest
	}
	return p, p != model.Peer{}
}

func peerFields(p *model.Peer) [8]*string {
	return [...]*string{
		&p.Namespace, &p.Name, &p.ServiceAccount, &p.App, &p.Version, &p.CanonicalName, &p.CanonicalRevision, &p.Cluster,
	}
}

// clip makes s valid UTF-8 of at most maxPeerField bytes.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxPeerField {
		return s
	}
	n := maxPeerField
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

const hexDigits = "0123456789ABCDEF"

func appendEscaped(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; plain(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._/:", c) >= 0
}

func unescape(dst, b []byte) ([]byte, bool) {
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '%' {
			if i+2 >= len(b) {
				return nil, false
			}
			hi, lo := strings.IndexByte(hexDigits, b[i+1]), strings.IndexByte(hexDigits, b[i+2])
			if hi < 0 || lo < 0 {
				return nil, false
			}
			c = byte(hi<<4 | lo)
			i += 2
		} else if !plain(c) {
			return nil, false
		}
		if len(dst) == maxPeerField {
			return nil, false
		}
		dst = append(dst, c)
	}
	return dst, utf8.Valid(dst)
}
