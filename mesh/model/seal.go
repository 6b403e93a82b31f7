package model

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Seal sets s.Version from the rest of s and returns s. Only the publisher calls it, before anyone else sees s.
func Seal(s *Snapshot) *Snapshot {
	s.Version = ""
	b, err := json.Marshal(s)
	if err != nil {
		panic("model: a snapshot always encodes: " + err.Error())
	}
	sum := sha256.Sum256(b)
	s.Version = hex.EncodeToString(sum[:8])
	return s
}

// Validate reports the first thing in s that no proxy could run: a name that is used twice or leads nowhere.
func (s *Snapshot) Validate() error {
	clusters := map[string]bool{}
	for i := range s.Clusters {
		c := &s.Clusters[i]
		if clusters[c.Name] {
			return fmt.Errorf("cluster %q is there twice", c.Name)
		}
		clusters[c.Name] = true
		for j := range c.Endpoints {
			if c.Endpoints[j].Weight == 0 {
				return fmt.Errorf("cluster %q: endpoint %s has weight 0", c.Name, c.Endpoints[j].Address)
			}
		}
	}
	if err := s.validateBreakers(clusters); err != nil {
		return err
	}
	if err := s.Workload.Probe.validate(); err != nil {
		return fmt.Errorf("the workload's probe: %w", err)
	}
	limits := map[string]bool{}
	for i := range s.RateLimits {
		name := s.RateLimits[i].Name
		if limits[name] {
			return fmt.Errorf("rate limit %q is there twice", name)
		}
		limits[name] = true
		if err := s.RateLimits[i].Shared.validate(clusters); err != nil {
			return fmt.Errorf("rate limit %q: %w", name, err)
		}
	}
	tables := map[string]bool{}
	for i := range s.Tables {
		t := &s.Tables[i]
		if tables[t.Name] {
			return fmt.Errorf("table %q is there twice", t.Name)
		}
		tables[t.Name] = true
		if err := t.validate(clusters, limits); err != nil {
			return fmt.Errorf("table %q: %w", t.Name, err)
		}
	}
	listeners := map[string]bool{}
	for i := range s.Listeners {
		l := &s.Listeners[i]
		if listeners[l.Name] {
			return fmt.Errorf("listener %q is there twice", l.Name)
		}
		listeners[l.Name] = true
		if len(l.TLS) == 0 && !tables[l.Table] {
			return fmt.Errorf("listener %q: there is no table %q", l.Name, l.Table)
		}
		for j := range l.TLS {
			if !tables[l.TLS[j].Table] {
				return fmt.Errorf("listener %q: TLS for %v: there is no table %q", l.Name, l.TLS[j].Names, l.TLS[j].Table)
			}
		}
	}
	return nil
}

func (s *Snapshot) validateBreakers(clusters map[string]bool) error {
	breakers := map[string]bool{}
	for i := range s.Breakers {
		b := &s.Breakers[i]
		if breakers[b.Name] {
			return fmt.Errorf("breaker %q is there twice", b.Name)
		}
		breakers[b.Name] = true
		if b.FallbackCluster != "" && !clusters[b.FallbackCluster] {
			return fmt.Errorf("breaker %q: there is no cluster %q to fall back to", b.Name, b.FallbackCluster)
		}
	}
	for i := range s.Clusters {
		for _, name := range s.Clusters[i].Breakers {
			if !breakers[name] {
				return fmt.Errorf("cluster %q: there is no breaker %q", s.Clusters[i].Name, name)
			}
		}
	}
	return nil
}

func (t *Table) validate(clusters, limits map[string]bool) error {
	if t.Unmatched != nil {
		if err := t.Unmatched.validate(clusters); err != nil {
			return fmt.Errorf("unmatched: %w", err)
		}
	}
	for i := range t.Hosts {
		for _, name := range t.Hosts[i].RateLimits {
			if !limits[name] {
				return fmt.Errorf("host %q: there is no rate limit %q", t.Hosts[i].Name, name)
			}
		}
		for j := range t.Hosts[i].Rules {
			if err := t.Hosts[i].Rules[j].validate(clusters); err != nil {
				return fmt.Errorf("host %q: rule %d: %w", t.Hosts[i].Name, j, err)
			}
		}
		for j := range t.Hosts[i].Opaque {
			if err := t.Hosts[i].Opaque[j].validate(clusters); err != nil {
				return fmt.Errorf("host %q: opaque rule %d: %w", t.Hosts[i].Name, j, err)
			}
		}
	}
	return nil
}

func (r *Rule) validate(clusters map[string]bool) error {
	set := 0
	for _, is := range []bool{r.Route != nil, r.Redirect != nil, r.Reply != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("has %d of route, redirect and reply; must have one", set)
	}
	if r.Route == nil {
		return nil
	}
	for _, d := range r.Route.Destinations {
		if (d.Cluster == "") == (d.Reply == nil) {
			return fmt.Errorf("a destination has either a cluster or a reply")
		}
		if d.Cluster != "" && !clusters[d.Cluster] {
			return fmt.Errorf("there is no cluster %q", d.Cluster)
		}
	}
	for _, m := range r.Route.Mirrors {
		if !clusters[m.Cluster] {
			return fmt.Errorf("there is no cluster %q to mirror to", m.Cluster)
		}
	}
	return nil
}
