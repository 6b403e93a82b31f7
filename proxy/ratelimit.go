package proxy

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/limit"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/message"
)

// rateLimit is a model.RateLimit with its buckets.
type rateLimit struct {
	spec   *model.RateLimit
	limits []*tokenLimit
	shared *sharedLimit // nil without any
	counts *rateCounts
}

// rateCounts count what a limit decided.
type rateCounts struct {
	allowed, limited, would atomic.Uint64
	ok, over, failed        atomic.Uint64 // what services said of them
}

// tokenLimit is one limit of them: a bucket, or one for each key.
type tokenLimit struct {
	spec    model.TokenLimit
	keys    int
	ids     []message.ID // of the headers in spec.By
	one     *limit.Bucket
	buckets *limit.Buckets
	// only and except are accounts; nil where spec's are.
	only, except map[string]bool
}

// newRateLimit resolves s over the clusters of a generation. Limits that before, which may be nil, has as well go on with the tokens that they have.
func newRateLimit(s *model.RateLimit, before *rateLimit, clusters map[string]*upstream.Cluster) (*rateLimit, error) {
	shared, err := newSharedLimit(s.Shared, clusters)
	if err != nil {
		return nil, fmt.Errorf("rate limit %q: %w", s.Name, err)
	}
	l := &rateLimit{spec: s, shared: shared, counts: new(rateCounts)}
	if before != nil {
		l.counts = before.counts
	}
	for i := range s.Limits {
		if before != nil && i < len(before.limits) && before.limits[i].same(&s.Limits[i], s.Keys) {
			l.limits = append(l.limits, before.limits[i])
			continue
		}
		t, err := newTokenLimit(s.Limits[i], s.Keys)
		if err != nil {
			return nil, fmt.Errorf("rate limit %q: %w", s.Name, err)
		}
		l.limits = append(l.limits, t)
	}
	return l, nil
}

func (t *tokenLimit) same(s *model.TokenLimit, keys int) bool {
	return t.keys == keys && t.spec.Requests == s.Requests && t.spec.Per == s.Per && t.spec.Burst == s.Burst && slices.Equal(t.spec.By, s.By) &&
		slices.Equal(t.spec.Only, s.Only) && slices.Equal(t.spec.Except, s.Except)
}

func newTokenLimit(s model.TokenLimit, keys int) (t *tokenLimit, err error) {
	if s.Requests < 1 || s.Per <= 0 {
		return nil, fmt.Errorf("%d requests per %v are no rate", s.Requests, time.Duration(s.Per))
	}
	t = &tokenLimit{spec: s, keys: keys, only: setOf(s.Only), except: setOf(s.Except)}
	for _, by := range s.By {
		t.ids = append(t.ids, message.IdentifyString(by.Header))
	}
	fill, interval := limit.Smooth(s.Requests, time.Duration(s.Per))
	if len(s.By) == 0 {
		t.one, err = limit.NewBucket(s.Burst, fill, interval, now())
	} else {
		t.buckets, err = limit.NewBuckets(s.Burst, fill, interval, keys)
	}
	return t, err
}

func setOf(names []string) map[string]bool {
	if len(names) == 0 {
		return nil
	}
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	return set
}

// concerns says whether t is for the caller.
func (t *tokenLimit) concerns(x *exchange) bool {
	return (t.only == nil || t.only[string(x.account)]) && (t.except == nil || !t.except[string(x.account)])
}

// covers says whether something that is for these methods and paths, each exact or a prefix that ends in *, is for r. None of
// a kind are all.
func covers(methods, paths []string, r *message.Request) bool {
	if len(methods) > 0 && !slices.Contains(methods, string(r.Method())) {
		return false
	}
	path := r.Path()
	for _, p := range paths {
		if prefix, open := strings.CutSuffix(p, "*"); open && len(path) >= len(prefix) && string(path[:len(prefix)]) == prefix || p == string(path) {
			return true
		}
	}
	return len(paths) == 0
}

// bucket returns the bucket of t that the request takes a token from.
func (t *tokenLimit) bucket(x *exchange, now int64) *limit.Bucket {
	if t.one != nil {
		return t.one
	}
	key := x.spare[:0]
	for i := range t.spec.By {
		switch by := &t.spec.By[i]; {
		case by.Identity:
			key = append(key, x.who...)
		case by.Account:
			key = append(key, x.account...)
		case by.SourceIP:
			key = x.conn.remote.Addr().AppendTo(key)
		default:
			v, _ := x.req.Values(x.joined[:0], t.ids[i], by.Header)
			key = append(key, v...)
		}
		key = append(key, 0) // no value has one
	}
	x.spare = key
	return t.buckets.Of(key, now)
}

// quota is what an answer says of a rate limit.
type quota struct {
	facts limit.Facts
	told  bool // on answers that are none of ours, too
}

// mostTaken is how many tokens that a request took are given back when it is refused; further limits keep theirs.
const mostTaken = 16

// ration takes a token for the request from every limit that is for it, or answers it with 429 and takes none. False means
// that the exchange has ended.
func (x *exchange) ration(limits []*rateLimit) bool {
	t := now()
	var held [mostTaken]*limit.Bucket
	n, shared := 0, false
	for _, l := range limits {
		if !covers(l.spec.Methods, l.spec.Paths, &x.req) {
			continue
		}
		if l.shared != nil {
			shared = true
		}
		if len(l.limits) == 0 {
			continue
		}
		facts, taken := l.take(x, t, held[n:])
		switch {
		case facts.OK:
			l.counts.allowed.Add(1)
			n += taken
			if l.spec.Headers == "always" && taken > 0 && (!x.quota.told || facts.Remaining < x.quota.facts.Remaining) {
				x.quota = quota{facts: facts, told: true}
			}
		case l.spec.DryRun:
			l.counts.would.Add(1)
		default:
			l.counts.limited.Add(1)
			for _, b := range held[:n] {
				b.Give()
			}
			x.limited(l, facts)
			return false
		}
	}
	if shared && !x.consultAll(limits) {
		for _, b := range held[:n] {
			b.Give()
		}
		return false
	}
	return true
}

// take takes a token from each bucket of l, or none, and returns the facts of the one that has the fewest left, or none.
// What it took is in held, as far as there is room.
func (l *rateLimit) take(x *exchange, now int64, held []*limit.Bucket) (least limit.Facts, taken int) {
	least.OK, least.Remaining = true, math.MaxInt
	for _, t := range l.limits {
		if !t.concerns(x) {
			continue
		}
		b := t.bucket(x, now)
		f := b.Take(now)
		if !f.OK {
			for _, b := range held[:taken] {
				b.Give()
			}
			return f, 0
		}
		if taken < len(held) {
			held[taken] = b
			taken++
		}
		if f.Remaining < least.Remaining {
			least = f
		}
	}
	return least, taken
}

// limited answers a request that is over a limit, as Envoy's filter does, and says when to come again.
func (x *exchange) limited(l *rateLimit, f limit.Facts) {
	res := &x.res
	res.Reset()
	res.Status = endings[rateLimited].status
	res.Add("x-envoy-ratelimited", "true")
	if l.spec.Headers != "never" {
		x.tellQuota(f)
		res.Add("retry-after", strconv.Itoa(limit.Seconds(f.Retry)))
	}
	why := endings[rateLimited].body
	if x.grpc {
		x.sayGRPC(rateLimited, l.spec.GRPC, why)
		return
	}
	if x.rule.cors != nil {
		x.rule.cors.Mark(x.origin(), res) // or a browser hides the refusal from its page
	}
	res.Add("content-type", "text/plain")
	x.conclude(rateLimited, why)
}

// tellQuota adds the fields that tell of a limit, by the names of the IETF's draft 3 and by Envoy's.
func (x *exchange) tellQuota(f limit.Facts) {
	for i, v := range [...]int{f.Limit, f.Remaining, limit.Seconds(f.Reset)} {
		x.joined = strconv.AppendInt(x.joined[:0], int64(v), 10)
		x.res.SetBytes(message.Other, quotaFields[i], x.joined)
		x.res.SetBytes(message.Other, quotaFields[3+i], x.joined)
	}
}

var quotaFields = [...]string{"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}

// appendAccount appends the account that x-outrider-peer names, as namespace/name; nothing where it names none.
func appendAccount(dst, header []byte) []byte {
	namespace, rest, _ := bytes.Cut(header, []byte{';'})
	_, rest, _ = bytes.Cut(rest, []byte{';'})
	account, _, _ := bytes.Cut(rest, []byte{';'})
	if len(account) == 0 {
		return dst
	}
	return append(append(append(dst, namespace...), '/'), account...)
}

// callerOf is the workload that x-outrider-peer names: its namespace and name.
func callerOf(header []byte) []byte {
	fields := 0
	for i, c := range header {
		if c == ';' {
			if fields++; fields == 2 {
				return header[:i]
			}
		}
	}
	return header
}
