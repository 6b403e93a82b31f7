package certificate

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// ALPN is what a chain offers whose Protocol is HTTP, the first that the client has too. http/1.0 is what curl --http1.0
// asks for. A client that shares none of them is refused (RFC 7301, 3.2); one that asks for nothing speaks HTTP/1.
var ALPN = []string{"h2", "http/1.1", "http/1.0"}

// Server takes the TLS connections of one listener. It is safe for concurrent use.
type Server struct {
	hidden
	chains []*chain
	names  map[string]*chain // exact names, "*.suffix", "*"
	config *tls.Config
	pool   *pool
	passes bool
}

// chain is one way in, and what handshakes need of it.
type chain struct {
	hidden
	model   model.ServerTLS
	own     []*source
	trust   *source // nil where clients are not verified
	lo, hi  uint16
	suites  []uint16
	rules   *rules
	tickets *tls.Config // holds only session ticket keys; crypto/tls renews them daily
	built   atomic.Pointer[built]
}

// built is a configuration and the versions of the material that it was made from.
type built struct {
	hidden
	own    []*loaded
	trust  *loaded
	config *tls.Config
}

// NewServer returns a Server for chains, which it copies. Everything that can be wrong with them fails here: the error
// joins one for each chain at fault, which names the object (with file and line), the Secret or file, and the remedy.
//
// old is the Server of the listener's configuration before, or nil: session tickets that it gave stay good where names
// and mode are the same, and files that it had read and that are broken by now go on with what it had.
// log hears when files are renewed or cannot be; nil is slog.Default.
func NewServer(chains []model.ServerTLS, old *Server, log *slog.Logger) (*Server, error) {
	return newServer(chains, old, log, every)
}

func newServer(chains []model.ServerTLS, old *Server, log *slog.Logger, every time.Duration) (*Server, error) {
	s := &Server{names: map[string]*chain{}}
	if old != nil {
		s.pool = newPool(old.pool, log, every)
	} else {
		s.pool = newPool(nil, log, every)
	}
	var errs []error
	for i := range chains {
		c := &chain{model: chains[i]}
		if err := s.add(c, old); err != nil {
			errs = append(errs, fmt.Errorf("cannot serve TLS for %s%s: %w", strings.Join(c.model.Names, ", "), from(c.model.Origin), err))
		}
	}
	s.pool.old = nil
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.config = &tls.Config{GetConfigForClient: s.choose, MinVersion: tls.VersionTLS12}
	return s, nil
}

func (s *Server) add(c *chain, old *Server) error {
	m := &c.model
	if len(m.Names) == 0 {
		return errors.New("it has no server names: name hosts, or \"*\" for any")
	}
	for _, name := range m.Names {
		if err := checkName(name); err != nil {
			return err
		}
		if other := s.names[name]; other != nil && other != c {
			return fmt.Errorf("%s is already served%s: name each host once on a port", name, from(other.model.Origin))
		}
		s.names[name] = c
	}
	s.chains = append(s.chains, c)
	if m.Mode == model.PassthroughTLS {
		s.passes = true
		return nil
	}
	if err := c.load(s.pool); err != nil {
		return err
	}
	c.tickets = &tls.Config{MinVersion: tls.VersionTLS12}
	if old != nil {
		for _, o := range old.chains {
			if o.tickets != nil && o.model.Mode == m.Mode && slices.Equal(o.model.Names, m.Names) {
				c.tickets = o.tickets
			}
		}
	}
	return nil
}

// load resolves everything that the model names.
func (c *chain) load(p *pool) (err error) {
	m := &c.model
	switch m.Mode {
	case model.SimpleTLS:
	case model.MutualTLS, model.OptionalMutualTLS:
		if m.Trust == nil {
			return fmt.Errorf("mode %s needs roots to verify clients with: set caCertificates, or add ca.crt to the Secret", m.Mode)
		}
		if c.trust, err = p.source(m.Trust, forTrust); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown mode %q: use SIMPLE, MUTUAL, OPTIONAL_MUTUAL or PASSTHROUGH", m.Mode)
	}
	if c.lo, c.hi, err = versionRange(m.MinVersion, m.MaxVersion); err != nil {
		return err
	}
	if c.suites, err = suites(m.CipherSuites); err != nil {
		return err
	}
	if c.rules, err = newRules(m.SubjectAltNames, m.SPKI, m.Hashes); err != nil {
		return err
	}
	if len(m.Certificates) == 0 {
		return errors.New("it has no certificate: set credentialName, or serverCertificate and privateKey")
	}
	for i := range m.Certificates {
		own, err := p.source(&m.Certificates[i], forPair)
		if err != nil {
			return err
		}
		c.own = append(c.own, own)
	}
	c.current()
	return nil
}

// checkName refuses server names that no client's hello could ever match.
func checkName(name string) error {
	rest := strings.TrimPrefix(name, "*.")
	if name == "*" {
		return nil
	}
	if rest == "" || strings.ContainsAny(rest, "* /") || strings.HasSuffix(rest, ".") || rest != strings.ToLower(rest) {
		return fmt.Errorf("%q is not a server name: use a lower-case host, \"*.suffix\" or \"*\"", name)
	}
	return nil
}

// from says where an object is, for a message.
func from(o *model.Origin) string {
	if o == nil {
		return ""
	}
	name := o.Kind + " " + o.Name
	if o.Namespace != "" {
		name = o.Kind + " " + o.Namespace + "/" + o.Name
	}
	if o.Rule != "" {
		name += " " + o.Rule
	}
	if o.File != "" {
		name += fmt.Sprintf(", %s:%d", o.File, o.Line)
	}
	return " (" + name + ")"
}

// Config returns the configuration for tls.Server: always the same one, which chooses chain, certificate and trust when
// a client's hello is there. A hello that no chain is for is refused with the alert unrecognized_name.
func (s *Server) Config() *tls.Config { return s.config }

// Passes reports whether any chain is PASSTHROUGH: then a caller must read the hello itself and ask Match first.
func (s *Server) Passes() bool { return s.passes }

// Match returns the chain for a hello's server name, in any case, empty where it has none; nil where none is for it.
func (s *Server) Match(serverName []byte) *model.ServerTLS {
	if c := s.match(serverName); c != nil {
		return &c.model
	}
	return nil
}

// Chain returns the chain that a finished handshake was for, nil where none is.
func (s *Server) Chain(state tls.ConnectionState) *model.ServerTLS {
	return s.Match([]byte(state.ServerName))
}

func (s *Server) match(serverName []byte) *chain {
	var lower [256]byte
	name := lower[1:1] // with room for the "*" of a wildcard before it
	if len(serverName) >= len(lower) {
		return s.names["*"]
	}
	for _, b := range serverName {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		name = append(name, b)
	}
	if len(name) > 0 && name[0] != '*' {
		if c := s.names[string(name)]; c != nil {
			return c
		}
		for i := 1; i < len(name); i++ { // from the longest suffix on
			if name[i] != '.' {
				continue
			}
			was := name[i-1]
			name[i-1] = '*'
			c := s.names[string(name[i-1:])]
			if name[i-1] = was; c != nil {
				return c
			}
		}
	}
	return s.names["*"]
}

// refused has no certificate, which makes crypto/tls refuse with unrecognized_name, the right alert for an unknown
// server name (RFC 6066, 3). An error from GetConfigForClient would make it say internal_error.
var refused = &tls.Config{MinVersion: tls.VersionTLS10, SessionTicketsDisabled: true}

func (s *Server) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := s.match([]byte(hello.ServerName))
	if c == nil || c.model.Mode == model.PassthroughTLS {
		return refused, nil
	}
	return c.current(), nil
}

// current returns the configuration made from the newest good material.
func (c *chain) current() *tls.Config {
	b := c.built.Load()
	changed := b == nil
	for i, s := range c.own {
		if v := s.fresh(); b != nil && b.own[i] != v {
			changed = true
		}
	}
	if c.trust != nil {
		if v := c.trust.fresh(); b != nil && b.trust != v {
			changed = true
		}
	}
	if changed {
		b = c.build()
		c.built.Store(b) // of two that build at once either may win: the loser's is found stale by the next handshake
	}
	return b.config
}

func (c *chain) build() *built {
	b := &built{}
	var pairs []*tls.Certificate
	for _, s := range c.own {
		v := s.current.Load()
		b.own = append(b.own, v)
		pairs = append(pairs, v.pair)
	}
	// As in Envoy, a client that takes ECDSA gets it; its signatures are also much the cheapest.
	slices.SortStableFunc(pairs, func(x, y *tls.Certificate) int { return cmp.Compare(preference(x), preference(y)) })
	b.config = &tls.Config{
		GetCertificate: pick(pairs),
		MinVersion:     c.lo, MaxVersion: c.hi, CipherSuites: c.suites,
		WrapSession: c.wrap, UnwrapSession: c.unwrap,
	}
	if c.model.Protocol == model.HTTP {
		b.config.NextProtos = ALPN
	}
	if c.trust == nil {
		return b
	}
	b.trust = c.trust.current.Load()
	b.config.ClientCAs = b.trust.roots
	b.config.ClientAuth = tls.RequireAndVerifyClientCert
	if c.model.Mode == model.OptionalMutualTLS {
		b.config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if crls := b.trust.crls; len(crls) > 0 || !c.rules.empty() {
		b.config.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil // OPTIONAL_MUTUAL: MUTUAL does not come here without one
			}
			if err := unrevoked(state.VerifiedChains, crls, time.Now()); err != nil {
				return err
			}
			return c.rules.check(state.PeerCertificates[0])
		}
	}
	return b
}

func preference(c *tls.Certificate) int {
	if c.Leaf.PublicKeyAlgorithm == x509.ECDSA {
		return 0
	}
	return 1
}

// pick returns GetCertificate for pairs: the first that the client's algorithms fit, whatever name is on it (the chain
// was chosen by name already).
func pick(pairs []*tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if len(pairs) > 1 {
			nameless := *hello
			nameless.ServerName = ""
			for _, p := range pairs {
				if nameless.SupportsCertificate(p) == nil {
					return p, nil
				}
			}
		}
		return pairs[0], nil
	}
}

// wrap makes a session ticket. Each chain has ticket keys of its own and a ticket remembers its server name: a session
// that began at one chain must not get a client past the client certificates of another.
func (c *chain) wrap(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	session.Extra = append(session.Extra, append([]byte(ticketMark), strings.ToLower(state.ServerName)...))
	return c.tickets.EncryptTicket(state, session)
}

func (c *chain) unwrap(ticket []byte, state tls.ConnectionState) (*tls.SessionState, error) {
	session, err := c.tickets.DecryptTicket(ticket, state)
	if session == nil || err != nil {
		return nil, err
	}
	for i, e := range session.Extra {
		if name, ok := strings.CutPrefix(string(e), ticketMark); ok && name == strings.ToLower(state.ServerName) {
			session.Extra = slices.Delete(session.Extra, i, i+1) // the next ticket brings its own
			return session, nil
		}
	}
	return nil, nil
}

const ticketMark = "outrider server name "

// Expiries lists when the material in use stops being valid, in the order of the configuration, each once.
func (s *Server) Expiries() []Expiry { return s.pool.expiries() }
