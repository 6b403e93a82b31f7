package cli

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/cli/binomial"
	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/local"
)

// confidence is the chance that a correct split lies within its bounds: one in 10,000 runs is a false alarm.
const confidence = 0.9999

// splits measures how the mesh shares requests, beside how it was told to.
type splits struct {
	mesh    *local.Mesh
	of      []*split
	settled uint64 // generation that of is about
}

// split is one rule that shares requests among destinations, and what was counted since it holds.
type split struct {
	host   string
	file   string
	line   int
	shares []*share
	since  time.Time // when the rule came into force
	based  bool      // the shares' base is known
}

// share is one destination's part.
type share struct {
	name   string // the subset, or the host
	query  string // its counter in PromQL
	weight uint32
	base   float64 // what had been counted before the rule came into force
	count  int
}

func newSplits(m *local.Mesh) *splits {
	s := &splits{mesh: m}
	s.read(time.Time{})
	return s
}

// read takes the splits from the mesh in force. Those that are as they were go on counting.
func (s *splits) read(now time.Time) {
	state := s.mesh.State()
	if state.Generation == s.settled {
		return
	}
	s.settled = state.Generation
	former := s.of
	s.of = nil
	for _, service := range state.Mesh.Services() {
		for _, port := range service.Ports {
			for i := range port.Splits {
				if info := &port.Splits[i]; !info.Conditional {
					s.of = append(s.of, newSplit(service.Host, info, former, now))
					break // later rules get nothing
				}
			}
		}
	}
}

func newSplit(host string, info *compile.SplitInfo, former []*split, now time.Time) *split {
	s := &split{host: host, file: info.Origin.File, line: info.Origin.Line, since: now, based: now.IsZero()}
	for _, d := range info.Destinations {
		name := d.Subset
		if name == "" {
			name = d.Host
		}
		// Sidecars of the destination itself count what they hand to their applications: that is no draw.
		var own []string
		for _, w := range d.Workloads {
			own = append(own, regexp.QuoteMeta(w[strings.IndexByte(w, '/')+1:]))
		}
		query := fmt.Sprintf(`sum(outrider_upstream_requests_total{destination_service=%q,port="%d",subset=%q,workload!~%q})`,
			d.Host, d.Port, d.Subset, strings.Join(own, "|"))
		s.shares = append(s.shares, &share{name: name, query: query, weight: d.Weight})
	}
	for _, f := range former {
		if f.host == s.host && f.sameAs(s) {
			f.file, f.line = s.file, s.line
			return f
		}
	}
	return s
}

func (s *split) sameAs(o *split) bool {
	if len(s.shares) != len(o.shares) {
		return false
	}
	for i := range s.shares {
		if s.shares[i].query != o.shares[i].query || s.shares[i].weight != o.shares[i].weight {
			return false
		}
	}
	return true
}

// follow notices a change of the rules, and once everything was scraped after it, what the counters begin from.
func (s *splits) follow(ctx context.Context) error {
	s.read(time.Now())
	now := time.Now()
	for _, split := range s.of {
		if split.based {
			continue
		}
		// The oldest sample in sight says whether every counter was read since.
		oldest, err := s.query(ctx, "min(timestamp(outrider_upstream_requests_total))", now)
		if err != nil {
			return err
		}
		if oldest <= float64(split.since.UnixMilli())/1000 {
			continue
		}
		for _, sh := range split.shares {
			if sh.base, err = s.query(ctx, sh.query, now); err != nil {
				return err
			}
		}
		split.based = true
	}
	return nil
}

// measure counts what each destination got since its rule came into force.
func (s *splits) measure(ctx context.Context, at time.Time) error {
	for _, split := range s.of {
		for _, sh := range split.shares {
			sh.count = 0
			if !split.based {
				continue
			}
			n, err := s.query(ctx, sh.query, at)
			if err != nil {
				return err
			}
			sh.count = int(n - sh.base)
		}
	}
	return nil
}

// query is the value of a PromQL expression, 0 where it has none yet.
func (s *splits) query(ctx context.Context, expression string, at time.Time) (float64, error) {
	samples, err := s.mesh.Prometheus().Query(ctx, expression, at)
	if err != nil || len(samples) == 0 {
		return 0, err
	}
	return samples[0].Value, nil
}

// total is how many requests the split has shared.
func (s *split) total() (n int) {
	for _, sh := range s.shares {
		n += sh.count
	}
	return n
}

// part is a destination's configured share, between 0 and 1.
func (s *split) part(of *share) float64 {
	var sum uint64
	for _, sh := range s.shares {
		sum += uint64(sh.weight)
	}
	if sum == 0 {
		return 0
	}
	return float64(of.weight) / float64(sum)
}

// bounds are the least and the greatest count that of should have, and whether it lies between.
func (s *split) bounds(of *share) (least, most int, inside bool) {
	least, most = binomial.Bounds(s.total(), s.part(of), confidence)
	return least, most, least <= of.count && of.count <= most
}
