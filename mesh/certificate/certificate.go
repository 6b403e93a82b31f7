// Package certificate makes crypto/tls configurations from a snapshot's TLS settings, and keeps their certificates fresh.
//
// A Server chooses by server name among the ways that a listener takes TLS; a Client speaks to one cluster. Both read
// PEM from files, which they follow, or from Secrets that the snapshot carries in memory. Whatever is wrong with the
// material is found when a Server or Client is made; a file that is broken later leaves the last good version in use.
package certificate

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// every is how often a file is looked at, at most, while handshakes happen.
const every = time.Second

// Kinds of Expiry.
const (
	Pair  = "certificate" // what is shown to peers: the earliest end in its chain
	Trust = "trust"       // roots: the latest end among them, after which no peer can be verified
	CRL   = "crl"         // revocation lists: the earliest next update, after which the issuer's certificates are refused
)

// Expiry says when material in use stops being valid, for a metric.
type Expiry struct {
	Name     string // as messages call it: "namespace/secret", or a file's path
	Kind     string // Pair, Trust or CRL
	NotAfter time.Time
}

// hidden keeps what embeds it out of logs and messages, whatever the verb: keys are below it.
type hidden struct{}

// Format writes nothing of what is inside.
func (hidden) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "(TLS settings)") }

// Error is a reason to refuse a peer.
type Error struct {
	Reason string // one of those that Reason returns
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// pool holds the sources of one Server or Client, each material once.
type pool struct {
	hidden
	sources map[sourceKey]*source
	order   []*source // as first used, so that lists come out in a fixed order
	old     *pool     // while it is being filled: the one before, whose sources go on
	every   time.Duration
	log     *slog.Logger
}

func newPool(old *pool, log *slog.Logger, every time.Duration) *pool {
	if log == nil {
		log = slog.Default()
	}
	return &pool{sources: map[sourceKey]*source{}, old: old, every: every, log: log}
}

// source returns the source of c, loaded.
func (p *pool) source(c *model.Certificate, u use) (*source, error) {
	key := keyOf(c, u)
	if s := p.sources[key]; s != nil {
		return s, nil
	}
	var s *source
	if p.old != nil {
		s = p.old.sources[key]
	}
	if s != nil {
		s.fresh() // it may be broken by now: then what it had before goes on
	} else {
		s = &source{certificate: *c, use: u, log: p.log, every: p.every, born: time.Now()}
		if err := s.load(); err != nil {
			return nil, err
		}
	}
	p.sources[key] = s
	p.order = append(p.order, s)
	return s, nil
}

// expiries lists each name and kind once, by the earliest end where there are several.
func (p *pool) expiries() []Expiry {
	var all []Expiry
	for _, s := range p.order {
		for _, e := range s.expiries() {
			i := slices.IndexFunc(all, func(o Expiry) bool { return o.Name == e.Name && o.Kind == e.Kind })
			switch {
			case i < 0:
				all = append(all, e)
			case e.NotAfter.Before(all[i].NotAfter):
				all[i].NotAfter = e.NotAfter
			}
		}
	}
	return all
}
