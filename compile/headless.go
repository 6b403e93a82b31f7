package compile

import (
	"fmt"
	"strconv"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// headlessPort is a port of a headless Service. Its instances have names of their own below the Service's (db-0.db), which
// lead to that instance and nowhere else, whatever routes the Service has.
type headlessPort struct {
	*cluster
	domains []string
}

// singles returns the virtual hosts of single instances in a view, and their clusters.
func (a *placed) singles(v *view) (hosts []model.VirtualHost, clusters []model.Cluster) {
	for _, hp := range v.headless {
		svc := hp.port.service
		below := func(name string) []string {
			var d []string
			for _, domain := range hp.domains {
				if !address(domain) {
					d = append(d, name+"."+domain)
				}
			}
			return d
		}
		for _, c := range a.candidates(hp.port) {
			if c.endpoint.Instance == "" {
				continue
			}
			one := hp.cluster.Cluster
			host := c.endpoint.Instance + "." + svc.Host
			one.Name = fmt.Sprintf("outbound|%d||%s", hp.port.number, host)
			one.Endpoints = []model.Endpoint{c.endpoint}
			calm(&one)
			route := &model.Route{Destinations: []model.Destination{{Cluster: one.Name, Weight: 1}}}
			if !opaque(hp.port.protocol) {
				route.Retries = a.retries
			}
			clusters = append(clusters, one)
			hosts = append(hosts, model.VirtualHost{
				Name: host + ":" + strconv.Itoa(hp.port.number), Domains: below(c.endpoint.Instance), Port: hp.port.number,
				Rules: []model.Rule{{Origin: svc.origin, Route: route}},
			})
		}
		hosts = append(hosts, model.VirtualHost{
			Name: "*." + svc.Host + ":" + strconv.Itoa(hp.port.number), Domains: below("*"), Port: hp.port.number,
			Rules: []model.Rule{{Origin: svc.origin, Reply: &model.Reply{Status: 503, Outcome: "no_healthy_endpoint", Body: svc.Host + " has no instance of that name\n"}}},
		})
	}
	return hosts, clusters
}
