package proxy

import (
	"net/http"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Connections of one version, idle or in use, do not keep requests of the other waiting for ever: an endpoint may
// have one of each, whatever the limit, as Envoy has a pool for each.
func TestVersionsDoNotBlockEachOther(t *testing.T) {
	for _, order := range [][2]int{{1, 2}, {2, 1}} {
		address := goServer(t, func(http.ResponseWriter, *http.Request) {})
		s := limited(model.Limits{Connections: u32(1)}, address)
		s.Clusters[0].Protocol = model.Auto // the client's own
		p := start(t, model.Seal(s), Limits{})
		for _, version := range append(order[:], order[:]...) {
			c := goClient(t, p, version)
			if res, _ := fetch(t, c, request("GET", "http://app/", nil)); res.StatusCode != 200 {
				t.Errorf("%v: version %d: %d", order, version, res.StatusCode)
			}
			c.CloseIdleConnections()
		}
		empty(t, p)
	}
}
