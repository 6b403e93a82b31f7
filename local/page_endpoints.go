package local

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/outrider-mesh/outrider/mesh/admin"
)

// restRow is an endpoint that a client leaves out, or, where Client is "", all of them do.
type restRow struct {
	Instance, Address, Of string
	Client                string
	Why, Until            string
	Last                  string // the application's last answer to its probe, where that was bad
	Anyway                string // why it is asked all the same; "" where it is not
}

// unreadyWhy is why nobody asks an application that does not pass its probe.
const unreadyWhy = "its application does not pass its probe"

// restRows returns the endpoints that are ejected, with who ejected them, why and until when, and those that are not ready.
func (m *Mesh) restRows() []restRow {
	var rows []restRow
	now, last := time.Now(), m.lastAnswers()
	for _, s := range m.callers() {
		for _, c := range s.proxy.Clusters() {
			of := clusterWords(c.Name)
			for i := range c.Endpoints {
				e := &c.Endpoints[i]
				row := restRow{Instance: e.Instance, Address: e.Address, Of: of}
				if !e.Unready && !e.Ejected {
					continue
				}
				if c.Panic {
					row.Anyway = "asked all the same: too few others are healthy (minHealthPercent)"
				}
				if e.Unready {
					row.Why, row.Until, row.Last = unreadyWhy, "it does", last[e.Address]
					rows = append(rows, row)
				}
				if e.Ejected {
					row.Last = ""
					row.Client, row.Why, row.Until = s.client, strings.ReplaceAll(e.Reason, "_", " "), untilWords(e, now)
					rows = append(rows, row)
				}
			}
		}
	}
	slices.SortFunc(rows, func(a, b restRow) int {
		return cmp.Or(strings.Compare(a.Of, b.Of), strings.Compare(a.Address, b.Address), strings.Compare(a.Client, b.Client), strings.Compare(a.Why, b.Why))
	})
	return slices.Compact(rows) // all clients hear of the same verdict on an application
}

// lastAnswers returns what was wrong with applications' last answers to their probes, by where their instances listen.
func (m *Mesh) lastAnswers() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]string{}
	for _, in := range m.plan.instances {
		if s := m.sidecars[in.id()]; s != nil {
			for i := range in.Ports {
				out[in.Ports[i].Listen] = s.prober.Reason()
			}
		}
	}
	return out
}

// clusterWords says a cluster's name in Istio's grammar, outbound|9080|v1|reviews.default.svc.cluster.local, as people would.
func clusterWords(name string) string {
	part := strings.Split(name, "|")
	if len(part) != 4 {
		return name
	}
	words := part[3] + ":" + part[1]
	if part[2] != "" {
		words += " " + part[2]
	}
	return words
}

// untilWords says when an endpoint may be asked again.
func untilWords(e *admin.EndpointStatus, now time.Time) string {
	switch left := e.Until.Sub(now); {
	case e.Until.IsZero():
		return "its probe is answered"
	case left < time.Second:
		return "the next check, at any moment"
	default:
		return e.Until.Format(time.TimeOnly) + ", in " + left.Round(time.Second).String()
	}
}
