package proxy

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// A reason that comes with an answer is passed on, as it may be that of a proxy further on, and counts for nothing here; where this
// proxy has a reason of its own, the client gets that alone, whatever the application, its fallback and a rate limit service say.
func TestReasonsAreNotMixed(t *testing.T) {
	says := func(status int, reasons ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["X-Outrider-Reason"] = reasons
			w.WriteHeader(status)
		}
	}
	other := goServer(t, says(200, "route_timeout", "no_route"))
	service := newRateService(t, 1)
	guard := hystrix(func(b *model.Breaker) { b.FallbackCluster = "other" })
	versions(t, func(s *model.Snapshot, r *model.Rule) {
		sharing(service.address, shared(nil, []model.DescriptorEntry{entry("k", "v")}))(s, r)
		guard(s, r)
		s.Clusters = append(s.Clusters, model.Cluster{
			Name: "other", Kind: model.Listed, Port: 80, Protocol: model.HTTP, Service: model.Service{Host: "other"},
			Endpoints: []model.Endpoint{{Address: other, Weight: 1}},
		})
	}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/well" {
			says(200, "breaker_open")(w, r)
			return
		}
		says(500, "breaker_open")(w, r)
	}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
		f := func(path string, want ...string) {
			t.Helper()
			if res, _ := fetch(t, c, request("GET", "http://app"+path, nil)); res.StatusCode != 200 || !slices.Equal(res.Header.Values("x-outrider-reason"), want) {
				t.Errorf("%s: %d with the reasons %q, want %q", path, res.StatusCode, res.Header.Values("x-outrider-reason"), want)
			}
		}
		well := append(varint(1, 1), statusOver(false, 10, 7, 60)...)
		service.answers(func(context.Context) ([]byte, error) { return well, nil })
		f("/well", "breaker_open")
		f("/ill", "fallback")
		adds := append(slices.Clone(well), appendBytes(nil, 3, append(appendText(nil, 1, "X-Outrider-Reason"), appendText(nil, 2, "rate_limited")...))...)
		service.answers(func(context.Context) ([]byte, error) { return adds, nil })
		f("/ill", "fallback")
		eventually(t, "three records", func() bool {
			n := 0.0
			for _, v := range requestsTotal(t, p.metrics.Gatherer(), "response_code") {
				n += v
			}
			return n == 3
		})
		if n := valueOf(t, p, "outrider_request_failures_total"); n != 0 {
			t.Errorf("%v failures are counted, by what the header says", n)
		}
	})
}
