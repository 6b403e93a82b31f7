package proxy

import (
	"io"
	"net/http"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Edits of a rule hold for answers of the proxy's own, redirects among them, and CORS has the last word about its fields, with
// which a page may see the answer, failure or not.
func TestRulesDressAllAnswers(t *testing.T) {
	versions(t, func(s *model.Snapshot, r *model.Rule) {
		at := func(path string) []model.Match {
			return []model.Match{{Path: &model.StringMatch{Kind: model.Exact, Value: path}}}
		}
		gone := s.Clusters[0]
		gone.Name, gone.Endpoints = "gone", nil
		s.Clusters = append(s.Clusters, gone)
		edits := model.HeaderEdits{Remove: []string{"access-control-allow-origin", "location"}, Set: []model.NameValue{{Name: "x-rule", Value: "1"}}}
		cors := &model.CORS{AllowOrigins: []model.StringMatch{{Kind: model.Prefix, Value: "https://a."}}}
		r.Response, r.CORS = edits, cors
		h := &s.Tables[0].Hosts[0]
		h.Rules = append(h.Rules,
			model.Rule{Matches: at("/gone"), Response: edits, CORS: cors, Route: &model.Route{Destinations: []model.Destination{{
				Cluster: "gone", Weight: 1, Response: model.HeaderEdits{Set: []model.NameValue{{Name: "x-destination", Value: "1"}}},
			}}}},
			model.Rule{Matches: at("/direct"), Response: edits, CORS: cors, Reply: &model.Reply{Status: 418, Body: "teapot"}},
			model.Rule{Matches: at("/moved"), Response: edits, Redirect: &model.Redirect{Status: 301, Path: &model.PathRewrite{Full: "/new"}}},
		)
	}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
	}, func(t *testing.T, c *http.Client, _ *Proxy, _, _ int) {
		f := func(path string, status int, origin, destination string) {
			t.Helper()
			r := request("GET", "http://app"+path, nil)
			r.Header.Set("Origin", "https://a.example")
			res, _ := fetch(t, c, r)
			h := res.Header
			if res.StatusCode != status || h.Get("X-Rule") != "1" || h.Get("X-Destination") != destination || h.Get("Location") != "" || h.Get("Access-Control-Allow-Origin") != origin {
				t.Errorf("%s: got %d %v", path, res.StatusCode, h)
			}
		}
		f("/", 200, "https://a.example", "")
		f("/gone", 503, "https://a.example", "1")
		f("/direct", 418, "https://a.example", "")
		f("/moved", 301, "", "")
	})
}

// A request of HTTP/1 names no scheme: a sidecar believes x-forwarded-proto, as Istio's do. HTTP/2 has a field for it.
func TestForwardedScheme(t *testing.T) {
	versions(t, func(s *model.Snapshot, _ *model.Rule) {
		h := &s.Tables[0].Hosts[0]
		h.Rules = append(h.Rules, model.Rule{
			Matches: []model.Match{{Scheme: &model.StringMatch{Kind: model.Exact, Value: "https"}}},
			Reply:   &model.Reply{Status: 418},
		})
	}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-Proto"))
	}, func(t *testing.T, c *http.Client, _ *Proxy, client, _ int) {
		f := func(forwarded string, status int) {
			t.Helper()
			r := request("GET", "http://app/", nil)
			r.Header.Set("X-Forwarded-Proto", forwarded)
			if res, b := fetch(t, c, r); res.StatusCode != status || status == 200 && b != forwarded {
				t.Errorf("%s: got %d %q", forwarded, res.StatusCode, b)
			}
		}
		f("http", 200)
		f("ftp", 200)
		if client == 1 {
			f("https", 418)
		} else {
			f("https", 200)
		}
	})
}
