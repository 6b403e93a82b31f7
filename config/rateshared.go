package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RateShared is a limit that proxies share, counted by a service that speaks Envoy's rate limit protocol
// (envoy.service.ratelimit.v3.RateLimitService).
type RateShared struct {
	// Host is a service of the mesh; a short name is one of the object's namespace, NAME.NAMESPACE one of another.
	Host string `json:"host"`
	Port int    `json:"port"`
	// Domain and Descriptors are what the service's own configuration calls things.
	Domain      string        `json:"domain"`
	Descriptors [][]RateEntry `json:"descriptors"`
	// Timeout is 20ms, and FailOpen true, where they are not written, as for Envoy's filter.
	Timeout  metav1.Duration `json:"timeout,omitempty"`
	FailOpen *bool           `json:"failOpen,omitempty"`
}

// RateEntry is an entry of a descriptor: one of the fields besides Key says what its value is.
type RateEntry struct {
	Key            string `json:"key"`
	Value          string `json:"value,omitempty"`
	Header         string `json:"header,omitempty"`
	ClientIdentity bool   `json:"clientIdentity,omitempty"`
	SourceIP       bool   `json:"sourceIP,omitempty"`
}

// Bounds on what is asked for each request; sharedTimeout is Envoy's default.
const (
	sharedTimeout   = 20 * time.Millisecond
	leastShared     = time.Millisecond
	mostShared      = 10 * time.Second
	mostDescriptors = 16
	mostEntries     = 16
)

func (s *RateShared) fill() {
	if s.Timeout.Duration == 0 {
		s.Timeout.Duration = sharedTimeout
	}
	if s.FailOpen == nil {
		open := true
		s.FailOpen = &open
	}
}

func (c *checker) rateShared(field string, s *RateShared, l *RateLimit) {
	if c.required(s.Host != "", field+".host", "name the service that counts, such as ratelimit.infra") {
		c.host(field+".host", s.Host)
	}
	if c.required(c.object.Has(field+".port"), field+".port", "write the service's port for gRPC, such as 8081") {
		c.port(field+".port", int64(s.Port))
	}
	c.required(s.Domain != "", field+".domain", "write the domain that the service is configured with")
	if c.object.Has(field + ".timeout") {
		c.unless(s.Timeout.Duration >= leastShared && s.Timeout.Duration <= mostShared, idRange, field+".timeout", s.Timeout.Duration.String()+" is out of range", "write from 1ms to 10s")
	}
	if c.required(len(s.Descriptors) > 0, field+".descriptors", "write such as [[{key: path, value: /x}, {key: user, header: x-user}]]") {
		c.atMost(field+".descriptors", len(s.Descriptors), mostDescriptors, "descriptors")
	}
	for i, d := range s.Descriptors {
		at := item(field+".descriptors", i)
		if c.required(len(d) > 0, at, "write entries such as {key: user, header: x-user}") {
			c.atMost(at, len(d), mostEntries, "entries")
		}
		for j := range d {
			c.rateEntry(item(at, j), &d[j], l)
		}
	}
}

func (c *checker) rateEntry(field string, e *RateEntry, l *RateLimit) {
	c.required(e.Key != "", field+".key", "write the key that the service is configured with")
	c.exclusive(field, "value", "header", "clientIdentity", "sourceIP")
	switch {
	case c.object.Has(field + ".header"):
		c.headerName(field+".header", e.Header)
	case e.ClientIdentity:
		c.unless(l.Gateway == "", idValue, field+".clientIdentity", "a gateway does not learn who its clients are", "use sourceIP or a header")
	case e.SourceIP:
	default:
		c.required(e.Value != "", field, "write one of value, header, clientIdentity: true and sourceIP: true")
	}
}
