// Package route compiles a route table to an index and matches requests to the caller's rules.
//
// It knows nothing of what a rule does. Host names come first (VirtualHost's order), then the host's rules in their
// order, the first that holds deciding; the index only leaves out rules that cannot hold.
package route

import (
	"fmt"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/message"
)

// Table matches requests to rules of type T, the caller's. Safe for concurrent use.
type Table[T any] struct {
	hosts     directory
	unmatched *index
	rules     []T // by condition.rule
}

// Scratch holds the buffers that matching needs; the caller keeps one and hands it in. The zero Scratch is ready.
type Scratch struct{ host []byte }

// Match is what a request matched.
type Match[T any] struct {
	Rule T
	// Prefix is how many bytes of the path the match covered, for rewrites of a prefix: all of an exact path and of one that
	// a regular expression matched (Envoy), the first slash where the match names no path.
	Prefix int
	// Segments says that the prefix was matched by segment (model.PathPrefix): what follows it is nothing or a slash.
	Segments bool
	// Known says that a VirtualHost has the request's host; Host is that one.
	Known bool
	Host  *model.VirtualHost
	// Found says that there is a rule; without it the answer is 404 no_route.
	Found bool
}

// Compile compiles t. It calls rule once for each rule, in order, to make the caller's form of it; h is nil for
// t.Unmatched. It fails on a comparison that cannot be compiled, a bad domain, or when rule fails.
func Compile[T any](t *model.Table, rule func(h *model.VirtualHost, r *model.Rule) (T, error)) (*Table[T], error) {
	c := &Table[T]{hosts: newDirectory()}
	for i := range t.Hosts {
		h := &t.Hosts[i]
		x, err := c.compile(h, h.Rules, rule)
		if err != nil {
			return nil, fmt.Errorf("cannot compile host %q: %w", h.Name, err)
		}
		x.host = h
		for _, domain := range h.Domains {
			if err := c.hosts.add(domain, h.Port, x); err != nil {
				return nil, fmt.Errorf("cannot compile host %q: %w", h.Name, err)
			}
		}
	}
	if t.Unmatched != nil {
		x, err := c.compile(nil, []model.Rule{*t.Unmatched}, rule)
		if err != nil {
			return nil, fmt.Errorf("cannot compile the rule of unmatched hosts: %w", err)
		}
		c.unmatched = x
	}
	return c, nil
}

func (t *Table[T]) compile(h *model.VirtualHost, rules []model.Rule, rule func(*model.VirtualHost, *model.Rule) (T, error)) (*index, error) {
	var conditions []condition
	for i := range rules {
		r := &rules[i]
		own, err := rule(h, r)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i, err)
		}
		t.rules = append(t.rules, own)
		matches := r.Matches
		if len(matches) == 0 {
			matches = []model.Match{{}}
		}
		for j := range matches {
			c, err := newCondition(int32(len(t.rules)-1), &matches[j])
			if err != nil {
				return nil, fmt.Errorf("rule %d: match %d: %w", i, j, err)
			}
			conditions = append(conditions, c)
		}
	}
	return newIndex(conditions), nil
}

// Match returns the rule of r. defaultPort is the port of an authority that names none.
func (t *Table[T]) Match(r *message.Request, defaultPort int, s *Scratch) Match[T] {
	var m Match[T]
	host, port := split(r.Authority(), defaultPort)
	s.host = appendLower(s.host[:0], host)
	x := t.hosts.find(s.host, port)
	m.Known = x != nil
	if x == nil {
		if x = t.unmatched; x == nil {
			return m
		}
	}
	m.Host = x.host
	c := x.first(r)
	if c == nil {
		return m
	}
	m.Rule, m.Found = t.rules[c.rule], true
	if c.path == nil {
		m.Prefix = slash(r.Path())
		return m
	}
	m.Prefix, m.Segments = c.path.covered(r.Path()), c.path.kind == model.PathPrefix
	return m
}

func appendLower(dst, b []byte) []byte {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}
