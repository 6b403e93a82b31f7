package outrider_test

import (
	"slices"
	"testing"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
)

// TestResilienceExamples reads each ```yaml block of docs/resilience.md beside examples/bookinfo: none may have a finding, and
// each CircuitBreaker must stand before a cluster of productpage's sidecar.
func TestResilienceExamples(t *testing.T) {
	const page = "docs/resilience.md"
	shop, err := config.Load([]string{"examples/bookinfo"})
	if err != nil {
		t.Fatal(err)
	}
	breakers := 0
	for _, b := range blocksOf(t, page) {
		if b.language != "yaml" {
			continue
		}
		f := config.Decode(page, []byte(b.text))
		if len(f.Findings) > 0 || len(f.Objects) == 0 {
			t.Errorf("%s:%d: %d objects, %v", page, b.line, len(f.Objects), f.Findings)
			continue
		}
		mesh, findings := compile.New(append(slices.Clone(shop.Objects), f.Objects...), compile.Options{ExecProbes: true})
		for _, w := range findings {
			if w.File == page {
				t.Errorf("%s:%d: %s", page, b.line, w)
			}
		}
		s, err := mesh.For(&compile.Placement{Instances: []compile.Instance{
			{Namespace: "default", Workload: "productpage-v1", Name: "productpage-v1-0", Address: "127.1.0.1", Outbound: "127.1.0.1:15001", Sidecar: true},
		}}, "default", "productpage-v1", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("%s:%d: %v", page, b.line, err)
		}
		for _, o := range f.Objects {
			if _, ok := o.Spec.(*config.CircuitBreaker); !ok {
				continue
			}
			breakers++
			named := false
			for i := range s.Clusters {
				named = named || slices.Contains(s.Clusters[i].Breakers, o.Namespace+"/"+o.Name)
			}
			// a breaker before a subset that no route uses has no cluster
			if spec := o.Spec.(*config.CircuitBreaker); !named && spec.Subset == "" {
				t.Errorf("%s:%d: %s stands before no cluster", page, b.line, o.Name)
			}
		}
	}
	if breakers == 0 {
		t.Errorf("%s has no example of a CircuitBreaker", page)
	}
}
