package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RateLimit bounds how often requests are let through (outrider.dev/v1alpha1), with every default filled in. Exactly one of
// Selector (without a Host), Host and Gateway says where.
type RateLimit struct {
	// Selector chooses workloads of the object's namespace: their own requests' limits where there is a Host, else those of
	// the requests that come to them.
	Selector *RateSelector `json:"selector,omitempty"`
	// Host is a service whose clients are limited; a short name is one of the object's namespace.
	Host string `json:"host,omitempty"`
	// Gateway is a Gateway, of the object's namespace unless it is written NAMESPACE/NAME.
	Gateway string `json:"gateway,omitempty"`
	// Port narrows it to a port: the workload's, the service's or the Gateway's; 0 does not.
	Port int `json:"port,omitempty"`
	// Route narrows it to some requests; nil is all.
	Route *BreakerRoute `json:"route,omitempty"`

	Limits []RateTokens `json:"limits,omitempty"`
	Shared *RateShared  `json:"shared,omitempty"`
	DryRun bool         `json:"dryRun,omitempty"`
	// Headers is REFUSED, ALWAYS or NEVER: which answers tell of the limit.
	Headers string `json:"headers,omitempty"`
	// GRPCStatus is UNAVAILABLE or RESOURCE_EXHAUSTED.
	GRPCStatus string `json:"grpcStatus,omitempty"`
	// Keys is how many values of a limit's keys each proxy tells apart at a time.
	Keys int `json:"keys,omitempty"`
}

// RateSelector chooses workloads; none of its labels chooses all.
type RateSelector struct {
	MatchLabels map[string]string `json:"matchLabels,omitempty"`
}

// RateTokens lets Requests through in each Per, and Burst at once.
type RateTokens struct {
	Requests int             `json:"requests"`
	Per      metav1.Duration `json:"per"`
	Burst    int             `json:"burst,omitempty"` // Requests where none is written
	By       []RateKey       `json:"by,omitempty"`
}

// RateKey is what tells clients apart: one of its fields is set.
type RateKey struct {
	Word   string // clientIdentity or sourceIP
	Header string
}

var errRateKey = errors.New("neither a word nor a header")

// UnmarshalJSON takes a word, or {"header": NAME}.
func (k *RateKey) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		return json.Unmarshal(b, &k.Word)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var named struct{ Header *string }
	if err := d.Decode(&named); err != nil {
		return err
	}
	if named.Header == nil {
		return errRateKey
	}
	k.Header = *named.Header
	return nil
}

// RateKeys is how many values of a key are told apart where nothing else is written.
const RateKeys = 10_000

func decodeRateLimit(d *decoder, n *node) (any, *metav1.ObjectMeta) {
	l := &RateLimit{}
	meta := d.header(n, func(n *node) { d.into(n, reflect.ValueOf(l).Elem()) })
	return l, meta
}

func defaultRateLimit(l *RateLimit) {
	if l.Headers == "" {
		l.Headers = "REFUSED"
	}
	if l.GRPCStatus == "" {
		l.GRPCStatus = "UNAVAILABLE"
	}
	if l.Keys == 0 {
		l.Keys = RateKeys
	}
	if l.Shared != nil {
		l.Shared.fill()
	}
	for i := range l.Limits {
		if l.Limits[i].Burst == 0 {
			l.Limits[i].Burst = l.Limits[i].Requests
		}
	}
}

// Bounds on a rate limit: Envoy's least interval, and what fits into a proxy's memory.
const (
	leastPer    = 50 * time.Millisecond
	mostPer     = 30 * 24 * time.Hour
	mostTokens  = 1 << 30
	mostLimits  = 8
	mostBy      = 4
	mostKeys    = 1_000_000
	clientWord  = "clientIdentity"
	addressWord = "sourceIP"
)

func checkRateLimit(c *checker, l *RateLimit) {
	c.exclusive("spec", "host", "gateway")
	c.exclusive("spec", "selector", "gateway")
	c.required(l.Selector != nil || l.Host != "" || l.Gateway != "", "spec", "write selector for requests that come to workloads, host for those that clients send to a service, or gateway")
	if l.Selector != nil {
		c.labels("spec.selector.matchLabels", l.Selector.MatchLabels)
	}
	if l.Host != "" {
		c.host("spec.host", l.Host)
	}
	if l.Gateway != "" {
		for part := range strings.SplitSeq(l.Gateway, "/") {
			c.subdomain("spec.gateway", part)
		}
		c.unless(strings.Count(l.Gateway, "/") <= 1, idValue, "spec.gateway", clip(strconv.Quote(l.Gateway))+" names no Gateway", "write NAME or NAMESPACE/NAME")
	}
	if c.object.Has("spec.port") {
		c.port("spec.port", int64(l.Port))
	}
	c.breakerRoute("spec.route", l.Route)
	c.oneOf("spec.headers", l.Headers, "REFUSED", "ALWAYS", "NEVER")
	c.oneOf("spec.grpcStatus", l.GRPCStatus, "UNAVAILABLE", "RESOURCE_EXHAUSTED")
	within(c, "spec.keys", l.Keys, 1, mostKeys)
	if l.Shared != nil {
		c.rateShared("spec.shared", l.Shared, l)
	}
	if c.required(len(l.Limits) > 0 || l.Shared != nil, "spec.limits", "write such as {requests: 100, per: 1s}, or shared") {
		c.atMost("spec.limits", len(l.Limits), mostLimits, "limits")
	}
	for i := range l.Limits {
		c.rateTokens(item("spec.limits", i), &l.Limits[i], l)
	}
}

func (c *checker) rateTokens(field string, t *RateTokens, l *RateLimit) {
	if c.required(c.object.Has(field+".requests"), field+".requests", "write how many requests are let through") {
		within(c, field+".requests", t.Requests, 1, mostTokens)
	}
	if c.required(c.object.Has(field+".per"), field+".per", "write such as 1s or 1m") {
		c.unless(t.Per.Duration >= leastPer && t.Per.Duration <= mostPer, idRange, field+".per", t.Per.Duration.String()+" is out of range", "write from 50ms to 720h")
	}
	if c.object.Has(field + ".burst") {
		within(c, field+".burst", t.Burst, 1, mostTokens)
	}
	c.atMost(field+".by", len(t.By), mostBy, "keys")
	for i, k := range t.By {
		at := item(field+".by", i)
		c.unless(!slices.Contains(t.By[:i], k), idRepeated, at, "the key is listed twice", "remove one of them")
		if k.Word == "" {
			c.headerName(at, k.Header)
			continue
		}
		c.oneOf(at, k.Word, clientWord, addressWord)
		c.unless(k.Word != clientWord || l.Host == "" && l.Gateway == "", idValue, at,
			"only a workload can tell its callers' identities apart", "remove it: each client has a limit of its own; at a gateway use sourceIP or a header")
	}
}
