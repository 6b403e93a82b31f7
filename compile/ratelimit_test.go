package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// showLimits lists the hosts that have rate limits, and the limits.
func showLimits(t *testing.T, b *strings.Builder, s *model.Snapshot) {
	t.Helper()
	for i := range s.Tables {
		for _, h := range s.Tables[i].Hosts {
			if len(h.RateLimits) > 0 {
				fmt.Fprintf(b, "%s %s %v\n", s.Tables[i].Name, h.Name, h.RateLimits)
			}
		}
	}
	for i := range s.RateLimits {
		l := &s.RateLimits[i]
		fmt.Fprintf(b, "%s paths=%v methods=%v dryRun=%t headers=%q grpc=%d keys=%d %s:%d\n", l.Name, l.Paths, l.Methods, l.DryRun, l.Headers, l.GRPC, l.Keys, l.Origin.File, l.Origin.Line)
		for _, x := range l.Limits {
			fmt.Fprintf(b, "  %d per %v, %d at once, by %+v", x.Requests, x.Per, x.Burst, x.By)
			if len(x.Only)+len(x.Except) > 0 {
				fmt.Fprintf(b, ", only %v, except %v", x.Only, x.Except)
			}
			b.WriteByte('\n')
		}
		if q := l.Shared; q != nil {
			there := slices.ContainsFunc(s.Clusters, func(c model.Cluster) bool { return c.Name == q.Cluster })
			fmt.Fprintf(b, "  shared %q %t %s %q within %v, failOpen=%t, about %+v\n", q.Cluster, there, q.Authority, q.Domain, q.Timeout, q.FailOpen, q.Descriptors)
		}
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	sealed := s.Version
	if model.Seal(s).Version != sealed {
		t.Errorf("%s/%s: the version %s is not that of its content, %s", s.Workload.Namespace, s.Workload.Name, sealed, s.Version)
	}
}
