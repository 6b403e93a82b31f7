package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

const (
	maxHosts    = 1024 // of which configurations are kept, where requests name them
	maxSessions = 256  // kept for resumption
)

// Client speaks TLS to one cluster's endpoints. It is safe for concurrent use.
type Client struct {
	hidden
	model  model.ClientTLS
	trust  *source // nil: the system's roots, or none where SkipVerify
	own    *source // nil: nothing is shown
	pool   *pool
	state  atomic.Pointer[clientState]
	making sync.Mutex // of him who makes a state
}

// clientState is what was made from one version of the material. Sessions end with it: one that was begun under other
// roots or with another certificate must not go on.
type clientState struct {
	hidden
	trust, own *loaded
	sessions   tls.ClientSessionCache
	mu         sync.RWMutex
	configs    map[string][]*tls.Config // by host; for each list of protocols one
}

// NewClient returns a Client for c, which it copies. Everything that can be wrong with its material fails here, with
// the Secret or file and the remedy. old is the cluster's Client before, or nil: it is returned itself where nothing
// changed, so that its sessions go on. log hears when files are renewed or cannot be; nil is slog.Default.
func NewClient(c *model.ClientTLS, old *Client, log *slog.Logger) (*Client, error) {
	return newClient(c, old, log, every)
}

func newClient(m *model.ClientTLS, old *Client, log *slog.Logger, every time.Duration) (*Client, error) {
	if old != nil && reflect.DeepEqual(*m, old.model) {
		return old, nil
	}
	c := &Client{model: *m}
	if old != nil {
		c.pool = newPool(old.pool, log, every)
	} else {
		c.pool = newPool(nil, log, every)
	}
	var err error
	switch {
	case m.Mode != model.SimpleTLS && m.Mode != model.MutualTLS:
		err = fmt.Errorf("unknown mode %q: use SIMPLE or MUTUAL", m.Mode)
	case m.Mode == model.MutualTLS && m.Certificate == nil:
		err = errors.New("mode MUTUAL needs a certificate to show: set clientCertificate and privateKey, or credentialName")
	case m.Mode == model.MutualTLS:
		c.own, err = c.pool.source(m.Certificate, forPair)
	}
	if err == nil && m.Trust != nil && !m.SkipVerify {
		c.trust, err = c.pool.source(m.Trust, forTrust)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot speak TLS: %w", err)
	}
	c.pool.old = nil
	c.current()
	return c, nil
}

// Config returns the configuration for tls.Client to speak to host, an authority's host without port, with these
// protocols offered, the best first. host is the server name asked for, and required of the server, where SNI and
// SubjectAltNames do not say otherwise. The same arguments give the same configuration without allocating; callers must
// not change it.
func (c *Client) Config(host string, alpn ...string) *tls.Config {
	if c.model.SNI != "" {
		host = c.model.SNI
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	s := c.current()
	s.mu.RLock()
	cfg := s.find(host, alpn)
	s.mu.RUnlock()
	if cfg != nil {
		return cfg
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cfg := s.find(host, alpn); cfg != nil {
		return cfg // another connection was quicker
	}
	if len(s.configs) >= maxHosts && s.configs[host] == nil {
		for h := range s.configs {
			delete(s.configs, h) // any one: clients choose the hosts, so that no order is better
			break
		}
	}
	cfg = c.build(s, strings.Clone(host), slices.Clone(alpn))
	s.configs[cfg.ServerName] = append(s.configs[cfg.ServerName], cfg)
	return cfg
}

func (s *clientState) find(host string, alpn []string) *tls.Config {
	for _, cfg := range s.configs[host] {
		if slices.Equal(cfg.NextProtos, alpn) {
			return cfg
		}
	}
	return nil
}

func (c *Client) build(s *clientState, host string, alpn []string) *tls.Config {
	cfg := &tls.Config{ServerName: host, NextProtos: alpn, MinVersion: tls.VersionTLS12, ClientSessionCache: s.sessions}
	if s.own != nil {
		// Shown whatever authorities the server names: a refusal then says what is wrong with it.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.own.pair, nil }
	}
	if c.model.SkipVerify {
		cfg.InsecureSkipVerify = true
		return cfg
	}
	var roots *x509.CertPool // nil is the system's
	var crls []*revocations
	if s.trust != nil {
		roots, crls = s.trust.roots, s.trust.crls
	}
	if names := c.model.SubjectAltNames; len(names) > 0 {
		// crypto/tls can only require ServerName: here that is not what is required, so all of the verifying is ours.
		wanted := &rules{names: names}
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			chains, err := verifyChain(&state, roots)
			if err != nil {
				return err
			}
			if err := unrevoked(chains, crls, time.Now()); err != nil {
				return err
			}
			return wanted.check(state.PeerCertificates[0])
		}
		return cfg
	}
	cfg.RootCAs = roots
	if len(crls) > 0 {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			return unrevoked(state.VerifiedChains, crls, time.Now())
		}
	}
	return cfg
}

// current returns the state made from the newest good material.
func (c *Client) current() *clientState {
	var trust, own *loaded
	if c.trust != nil {
		trust = c.trust.fresh()
	}
	if c.own != nil {
		own = c.own.fresh()
	}
	s := c.state.Load()
	if s != nil && s.trust == trust && s.own == own {
		return s
	}
	c.making.Lock()
	defer c.making.Unlock()
	if c.trust != nil {
		trust = c.trust.current.Load() // newer, perhaps, than before the lock
	}
	if c.own != nil {
		own = c.own.current.Load()
	}
	if s = c.state.Load(); s != nil && s.trust == trust && s.own == own {
		return s
	}
	s = &clientState{trust: trust, own: own, sessions: tls.NewLRUClientSessionCache(maxSessions), configs: map[string][]*tls.Config{}}
	c.state.Store(s)
	return s
}

// Expiries lists when the material in use stops being valid.
func (c *Client) Expiries() []Expiry { return c.pool.expiries() }
