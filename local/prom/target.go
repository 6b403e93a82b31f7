package prom

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// Target is one place to scrape.
type Target struct {
	Job     string // label job
	Address string // host:port; label instance, where Labels has none
	Path    string // "/metrics" where empty
	// Labels are added to all series of the target.
	Labels map[string]string
}

func (t Target) equal(o Target) bool {
	return t.Job == o.Job && t.Address == o.Address && t.Path == o.Path && maps.Equal(t.Labels, o.Labels)
}

// check says what the scraper would not: with such labels it could not even store that a scrape failed.
func (t Target) check() error {
	if _, _, err := net.SplitHostPort(t.Address); err != nil {
		return fmt.Errorf("the address is not host:port: %w", err)
	}
	for k, v := range t.Labels {
		if k == "" || !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("label %q=%q: a label has a name, and both are UTF-8", k, v)
		}
	}
	return nil
}

// labels are all that discovery knows of t but its address, in Prometheus's names.
func (t Target) labels() map[string]string {
	l := maps.Clone(t.Labels)
	if l == nil {
		l = map[string]string{}
	}
	if t.Job != "" {
		l[model.JobLabel] = t.Job
	}
	if t.Path != "" {
		l[model.MetricsPathLabel] = t.Path
	}
	return l
}

func groups(ts []Target) []*targetgroup.Group {
	gs := make([]*targetgroup.Group, 0, len(ts))
	for _, t := range ts {
		if t.check() != nil {
			continue
		}
		set := model.LabelSet{}
		for k, v := range t.labels() {
			set[model.LabelName(k)] = model.LabelValue(v)
		}
		gs = append(gs, &targetgroup.Group{
			Source:  t.Address,
			Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(t.Address)}},
			Labels:  set,
		})
	}
	return gs
}

// SD serves ts to an outside Prometheus, in the format of its http_sd_configs.
func SD(ts []Target) http.Handler {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	gs := make([]group, 0, len(ts))
	for _, t := range ts {
		gs = append(gs, group{[]string{t.Address}, t.labels()})
	}
	body, err := json.Marshal(gs)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // a client that went away has its own reasons
	})
}
